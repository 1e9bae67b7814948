//! States as data: a machine is a table of its transitions. What the table does not list does not
//! happen; the diagrams in the documentation are printed from the tables.

use std::fmt::{Debug, Write};

/// One row: in this state, on this input, go to that state.
pub(crate) type Transition<S, I> = (S, I, S);

/// The state after `input`, if the table lets it happen.
pub(crate) fn next<S: Copy + PartialEq, I: Copy + PartialEq>(
    table: &[Transition<S, I>],
    state: S,
    input: I,
) -> Option<S> {
    table.iter().find(|row| row.0 == state && row.1 == input).map(|row| row.2)
}

/// Moves `state` on `input`. What the table does not list is a fault of the caller, who knows the state:
/// a debug build stops at it, and a release build ignores the input.
pub(crate) fn step<S: Copy + PartialEq + Debug, I: Copy + PartialEq + Debug>(
    table: &[Transition<S, I>],
    state: &mut S,
    input: I,
) {
    let next = next(table, *state, input);
    debug_assert!(next.is_some(), "no transition from {state:?} on {input:?}");
    *state = next.unwrap_or(*state);
}

/// The table as a Mermaid state diagram.
pub(crate) fn diagram<S: Debug, I: Debug>(table: &[Transition<S, I>]) -> String {
    let mut text = String::from("stateDiagram-v2\n");
    for (from, input, to) in table {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {from:?} --> {to:?}: {input:?}");
    }
    text
}
