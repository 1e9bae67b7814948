use crate::Malformed;
use crate::wire::Reader;

/// A value that contains others.
pub(super) enum Nested<'a> {
    Array(&'a [u8]),
    Table(&'a [u8]),
}

/// Passes over one value, its type octet first. `nested` looks into an array or a table.
pub(super) fn value<'a>(
    reader: &mut Reader<'a>,
    nested: impl FnOnce(Nested<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
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
        b'A' => nested(Nested::Array(reader.long_str()?))?,
        b'F' => nested(Nested::Table(reader.long_str()?))?,
        b'V' => {}
        unknown => return Err(Malformed::UnknownFieldType(unknown)),
    }
    Ok(())
}
