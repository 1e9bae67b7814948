//! Checks a table without building it. It accepts what `decode` accepts: the fuzz target `table` compares
//! the two.

use super::levels_below;
use super::skip::{self, Nested};
use crate::Malformed;
use crate::wire::Reader;

/// Checks the fields of a table. `levels` is the number of levels that may still be nested.
pub(super) fn table(bytes: &[u8], levels: usize) -> Result<(), Malformed> {
    let inner = levels_below(levels)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        reader.short_str()?.as_str()?;
        value(&mut reader, inner)?;
    }
    Ok(())
}

fn array(bytes: &[u8], levels: usize) -> Result<(), Malformed> {
    let inner = levels_below(levels)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        value(&mut reader, inner)?;
    }
    Ok(())
}

fn value(reader: &mut Reader<'_>, levels: usize) -> Result<(), Malformed> {
    skip::value(reader, |nested| match nested {
        Nested::Array(bytes) => array(bytes, levels),
        Nested::Table(bytes) => table(bytes, levels),
    })
}
