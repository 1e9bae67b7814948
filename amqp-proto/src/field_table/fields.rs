use super::RawTable;
use crate::wire::Reader;
use crate::{Malformed, ShortStr};

/// One field of a [`RawTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawField<'a> {
    /// The name.
    pub name: ShortStr<'a>,
    /// Name, type and value as they stand on the wire.
    pub bytes: &'a [u8],
}

impl<'a> RawTable<'a> {
    /// The fields in order, their values unchecked. The first error ends the iteration.
    ///
    /// Errors: [`Malformed::Truncated`] and [`Malformed::UnknownFieldType`].
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
    match reader.octet()? {
        b't' | b'b' | b'B' => drop(reader.octet()?),
        b's' | b'U' | b'u' => drop(reader.short()?),
        b'I' | b'i' | b'f' => drop(reader.long()?),
        b'l' | b'L' | b'd' | b'T' => drop(reader.long_long()?),
        b'D' => {
            reader.octet()?;
            reader.long()?;
        }
        b'S' | b'x' | b'A' | b'F' => drop(reader.long_str()?),
        b'V' => {}
        unknown => return Err(Malformed::UnknownFieldType(unknown)),
    }
    let length = bytes.len() - reader.remaining();
    Ok(RawField { name, bytes: bytes.get(..length).unwrap_or_default() })
}
