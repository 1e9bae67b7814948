use super::{RawTable, skip};
use crate::wire::Reader;
use crate::{Malformed, ShortStr};

/// One field of a [`RawTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawField<'a> {
    /// The name.
    pub name: ShortStr<'a>,
    /// The name, type and value in wire format.
    pub bytes: &'a [u8],
}

impl<'a> RawTable<'a> {
    /// Iterates over the fields in order, without checking their values. The first error ends the
    /// iteration: [`Malformed::Truncated`] or [`Malformed::UnknownFieldType`].
    pub fn fields(self) -> impl Iterator<Item = Result<RawField<'a>, Malformed>> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let field = first(rest);
            let length = field.as_ref().map_or(rest.len(), |field| field.bytes.len());
            rest = rest.get(length..).unwrap_or_default();
            Some(field)
        })
    }
}

/// The field at the front of `bytes`.
fn first(bytes: &[u8]) -> Result<RawField<'_>, Malformed> {
    let mut reader = Reader::new(bytes);
    let name = reader.short_str()?;
    skip::value(&mut reader, |_| Ok(()))?;
    let length = bytes.len() - reader.remaining();
    Ok(RawField { name, bytes: bytes.get(..length).unwrap_or_default() })
}
