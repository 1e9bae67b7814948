#![doc = include_str!("costs.md")]

/// Counts the steps over open things, for the test of the table above. All code that loops over such things
/// calls it.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn count(_: usize) {}

#[cfg(test)]
pub(crate) use tests::count;

#[cfg(test)]
mod tests;
