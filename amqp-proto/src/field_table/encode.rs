use alloc::vec::Vec;

use crate::{EncodeError, FieldTable, FieldValue, ShortStr, TABLE_DEPTH_MAX};

impl FieldTable {
    /// Appends the table in wire format, its length first.
    ///
    /// # Errors
    /// Any [`EncodeError`]. Bytes that were appended before the error stay.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        table(self, out, TABLE_DEPTH_MAX)
    }
}

fn table(table: &FieldTable, out: &mut Vec<u8>, levels: usize) -> Result<(), EncodeError> {
    let inner = levels.checked_sub(1).ok_or(EncodeError::TooDeep)?;
    long(out, |out| {
        table.iter().try_for_each(|(name, value)| {
            let name = ShortStr::new(name)?;
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            field(value, out, inner)
        })
    })
}

fn field(value: &FieldValue, out: &mut Vec<u8>, levels: usize) -> Result<(), EncodeError> {
    match value {
        FieldValue::Bool(value) => typed(out, b't', &[u8::from(*value)]),
        FieldValue::I8(value) => typed(out, b'b', &value.to_be_bytes()),
        FieldValue::U8(value) => typed(out, b'B', &[*value]),
        FieldValue::I16(value) => typed(out, b's', &value.to_be_bytes()),
        FieldValue::U16(value) => typed(out, b'u', &value.to_be_bytes()),
        FieldValue::I32(value) => typed(out, b'I', &value.to_be_bytes()),
        FieldValue::U32(value) => typed(out, b'i', &value.to_be_bytes()),
        FieldValue::I64(value) => typed(out, b'l', &value.to_be_bytes()),
        FieldValue::U64(value) => return Err(EncodeError::NotSigned(*value)),
        FieldValue::F32(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        FieldValue::F32(value) => typed(out, b'f', &value.to_be_bytes()),
        FieldValue::F64(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        FieldValue::F64(value) => typed(out, b'd', &value.to_be_bytes()),
        FieldValue::Decimal(value) => {
            typed(out, b'D', &[value.scale]);
            out.extend_from_slice(&value.mantissa.to_be_bytes());
        }
        FieldValue::LongString(bytes) => return long_bytes(out, b'S', bytes),
        FieldValue::Bytes(bytes) => return long_bytes(out, b'x', bytes),
        FieldValue::Timestamp(value) => typed(out, b'T', &value.to_be_bytes()),
        FieldValue::Array(values) => {
            let inner = levels.checked_sub(1).ok_or(EncodeError::TooDeep)?;
            out.push(b'A');
            return long(out, |out| values.iter().try_for_each(|value| field(value, out, inner)));
        }
        FieldValue::Table(nested) => {
            out.push(b'F');
            return table(nested, out, levels);
        }
        FieldValue::Void => out.push(b'V'),
    }
    Ok(())
}

fn typed(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn long_bytes(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) -> Result<(), EncodeError> {
    out.push(kind);
    long(out, |out| {
        out.extend_from_slice(bytes);
        Ok(())
    })
}

/// Appends a four-byte length and what `content` appends behind it.
fn long(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out)?;
    let length = out.len() - length_at - 4;
    let length = u32::try_from(length).map_err(|_| EncodeError::TooLarge(length))?;
    if let Some(place) = out.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
