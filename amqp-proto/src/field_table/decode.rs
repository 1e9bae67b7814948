use alloc::string::String;
use alloc::vec::Vec;

use super::{FieldTable, levels_below};
use crate::wire::Reader;
use crate::{Decimal, FieldValue, Malformed};

/// Decodes the fields of a table. `levels` is the number of levels that may still be nested.
pub(super) fn table(bytes: &[u8], levels: usize) -> Result<FieldTable, Malformed> {
    let mut fields = Vec::new();
    let inner = levels_below(levels)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let name = String::from(reader.short_str()?.as_str()?);
        fields.push((name, value(&mut reader, inner)?));
    }
    Ok(FieldTable(fields))
}

fn array(bytes: &[u8], levels: usize) -> Result<Vec<FieldValue>, Malformed> {
    let mut values = Vec::new();
    let inner = levels_below(levels)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        values.push(value(&mut reader, inner)?);
    }
    Ok(values)
}

fn value(reader: &mut Reader<'_>, levels: usize) -> Result<FieldValue, Malformed> {
    let value = match reader.octet()? {
        b't' => FieldValue::Bool(reader.octet()? != 0),
        b'b' => FieldValue::I8(reader.octet()?.cast_signed()),
        b'B' => FieldValue::U8(reader.octet()?),
        b's' | b'U' => FieldValue::I16(reader.short()?.cast_signed()),
        b'u' => FieldValue::U16(reader.short()?),
        b'I' => FieldValue::I32(reader.long()?.cast_signed()),
        b'i' => FieldValue::U32(reader.long()?),
        b'l' | b'L' => FieldValue::I64(reader.long_long()?.cast_signed()),
        b'f' => FieldValue::F32(f32::from_bits(reader.long()?)),
        b'd' => FieldValue::F64(f64::from_bits(reader.long_long()?)),
        b'D' => FieldValue::Decimal(Decimal {
            scale: reader.octet()?,
            mantissa: reader.long()?.cast_signed(),
        }),
        b'S' => FieldValue::LongString(Vec::from(reader.long_str()?)),
        b'x' => FieldValue::Bytes(Vec::from(reader.long_str()?)),
        b'T' => FieldValue::Timestamp(reader.long_long()?),
        b'A' => FieldValue::Array(array(reader.long_str()?, levels)?),
        b'F' => FieldValue::Table(table(reader.long_str()?, levels)?),
        b'V' => FieldValue::Void,
        unknown => return Err(Malformed::UnknownFieldType(unknown)),
    };
    Ok(value)
}
