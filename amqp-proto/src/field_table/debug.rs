//! Debug output of tables: `{"x-retries": 3, "name": "abc"}`, cut off after 1 KiB.

use core::fmt::{self, Debug, Formatter, Write};

use super::{FieldTable, FieldValue, RawTable};
use crate::TABLE_DEPTH_MAX;

/// The maximum number of bytes of text that are printed.
const SHOWN_BYTES: usize = 1024;

impl Debug for FieldTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        shortened(f, &Table(self))
    }
}

impl Debug for FieldValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        shortened(f, &Value(self))
    }
}

impl Debug for RawTable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.decode(TABLE_DEPTH_MAX) {
            Ok(table) => table.fmt(f),
            Err(_) => shortened(f, &Octets(self.0)),
        }
    }
}

/// Writes bytes as `b"..."`, cut off after 1 KiB.
pub(crate) fn octets(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    shortened(f, &Octets(bytes))
}

fn shortened(f: &mut Formatter<'_>, value: &dyn Debug) -> fmt::Result {
    let pretty = f.alternate();
    let mut writer = Shortened { f, left: SHOWN_BYTES };
    let result = if pretty { write!(writer, "{value:#?}") } else { write!(writer, "{value:?}") };
    // The writer fails when it is full, to end the walk.
    if writer.left == 0 { f.write_str("...") } else { result }
}

struct Shortened<'a, 'f> {
    f: &'a mut Formatter<'f>,
    left: usize,
}

impl Write for Shortened<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() < self.left {
            self.left -= text.len();
            return self.f.write_str(text);
        }
        let fits = (0..=self.left).rev().find_map(|end| text.get(..end));
        self.left = 0;
        self.f.write_str(fits.unwrap_or_default())?;
        Err(fmt::Error)
    }
}

struct Table<'a>(&'a FieldTable);

impl Debug for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, Value(value)))).finish()
    }
}

struct Value<'a>(&'a FieldValue);

impl Debug for Value<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldValue::Bool(value) => value.fmt(f),
            FieldValue::I8(value) => value.fmt(f),
            FieldValue::U8(value) => value.fmt(f),
            FieldValue::I16(value) => value.fmt(f),
            FieldValue::U16(value) => value.fmt(f),
            FieldValue::I32(value) => value.fmt(f),
            FieldValue::U32(value) => value.fmt(f),
            FieldValue::I64(value) => value.fmt(f),
            FieldValue::U64(value) => value.fmt(f),
            FieldValue::F32(value) => value.fmt(f),
            FieldValue::F64(value) => value.fmt(f),
            FieldValue::Decimal(value) => write!(f, "{}e-{}", value.mantissa, value.scale),
            FieldValue::LongString(bytes) => match core::str::from_utf8(bytes) {
                Ok(text) => text.fmt(f),
                Err(_) => Octets(bytes).fmt(f),
            },
            FieldValue::Bytes(bytes) => Octets(bytes).fmt(f),
            FieldValue::Timestamp(seconds) => write!(f, "timestamp {seconds}"),
            FieldValue::Array(values) => f.debug_list().entries(values.iter().map(Value)).finish(),
            FieldValue::Table(table) => Table(table).fmt(f),
            FieldValue::Void => f.write_str("void"),
        }
    }
}

struct Octets<'a>(&'a [u8]);

impl Debug for Octets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}
