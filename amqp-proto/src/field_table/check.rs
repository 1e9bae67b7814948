//! Walks a table without building it: accepts what `decode` does, which the fuzz target `table` asserts.

use super::levels_below;
use crate::Malformed;
use crate::wire::Reader;

/// Checks the fields of a table. `levels` counts down to the deepest that is let in.
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
    match reader.octet()? {
        b't' | b'b' | b'B' => drop(reader.octet()?),
        b's' | b'U' | b'u' => drop(reader.short()?),
        b'I' | b'i' | b'f' => drop(reader.long()?),
        b'l' | b'L' | b'd' | b'T' => drop(reader.long_long()?),
        b'D' => {
            reader.octet()?;
            reader.long()?;
        }
        b'S' | b'x' => drop(reader.long_str()?),
        b'A' => array(reader.long_str()?, levels)?,
        b'F' => table(reader.long_str()?, levels)?,
        b'V' => {}
        unknown => return Err(Malformed::UnknownFieldType(unknown)),
    }
    Ok(())
}
