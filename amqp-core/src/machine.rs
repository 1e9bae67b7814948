//! State machines as data: each is a table of its transitions. A transition that is not in the table does not
//! happen. The diagrams in the documentation are generated from the tables.

use std::fmt::{Debug, Write};

/// One row: the state, the input, and the next state.
pub(crate) type Transition<S, I> = (S, I, S);

/// Returns the state after `input`, if the table has that transition.
pub(crate) fn next<S: Copy + PartialEq, I: Copy + PartialEq>(
    table: &[Transition<S, I>],
    state: S,
    input: I,
) -> Option<S> {
    table.iter().find(|row| row.0 == state && row.1 == input).map(|row| row.2)
}

/// Changes `state` by `input`. A transition that is not in the table is a bug of the caller, who knows the
/// state. A debug build panics, and a release build ignores the input.
pub(crate) fn step<S: Copy + PartialEq + Debug, I: Copy + PartialEq + Debug>(
    table: &[Transition<S, I>],
    state: &mut S,
    input: I,
) {
    let next = next(table, *state, input);
    debug_assert!(next.is_some(), "no transition from {state:?} on {input:?}");
    *state = next.unwrap_or(*state);
}

/// Returns the table as a Mermaid state diagram.
pub(crate) fn diagram<S: Debug, I: Debug>(table: &[Transition<S, I>]) -> String {
    let mut text = String::from("stateDiagram-v2\n");
    for (from, input, to) in table {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {from:?} --> {to:?}: {input:?}");
    }
    text
}
