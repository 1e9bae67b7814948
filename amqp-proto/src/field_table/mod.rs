//! Field tables (AMQP 0-9-1, 4.2.5.5, with the types that RabbitMQ really reads and writes:
//! <https://www.rabbitmq.com/docs/amqp-0-9-1-errata#section_3>).

mod check;
mod debug;
mod decode;
mod encode;
mod fields;

use alloc::string::String;
use alloc::vec::Vec;

use crate::Malformed;

pub(crate) use debug::octets;
pub use fields::RawField;

/// An ordered map from names to values: the arguments of declarations, the headers of messages.
///
/// ```
/// use amqp_proto::{FieldTable, FieldValue};
/// let table = FieldTable::from([("x-max-length", 1.into()), ("x-overflow", "reject-publish".into())]);
/// assert_eq!(table.get("x-max-length"), Some(&FieldValue::I32(1)));
/// ```
///
/// Names keep the order in which they came. A repeated name is kept on decoding, and
/// [`get`](Self::get) gives the last value, as RabbitMQ's own lookups may not: do not rely on it.
#[derive(Clone, Default, PartialEq)]
pub struct FieldTable(Vec<(String, FieldValue)>);

impl FieldTable {
    /// An empty table.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `name` to `value`, in the place of an earlier value if there is one, which is returned.
    ///
    /// Names over 255 bytes are refused when the table is sent.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<FieldValue>,
    ) -> Option<FieldValue> {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, place)) => Some(core::mem::replace(place, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Takes `name` out and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let place = self.0.iter().rposition(|(known, _)| known == name)?;
        Some(self.0.remove(place).1)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &FieldValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is no field.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of fields.
    pub const fn len(&self) -> usize {
        self.0.len()
    }
}

impl<N: Into<String>, const COUNT: usize> From<[(N, FieldValue); COUNT]> for FieldTable {
    fn from(fields: [(N, FieldValue); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

impl<N: Into<String>> FromIterator<(N, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (N, FieldValue)>>(fields: I) -> Self {
        let mut table = Self::new();
        for (name, value) in fields {
            table.insert(name, value);
        }
        table
    }
}

/// A value of a [`FieldTable`]; beside each, its type octet on the wire.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`; `U` is read as this too, and never written: RabbitMQ ends the connection on it.
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; `L` is read as this too.
    I64(i64),
    /// `f`; refused when sent unless finite.
    F32(f32),
    /// `d`; refused when sent unless finite.
    F64(f64),
    /// `D`
    Decimal(Decimal),
    /// `S`: by custom text, in fact any bytes.
    LongString(Vec<u8>),
    /// `x`
    Bytes(Vec<u8>),
    /// `T`: seconds since 1970-01-01T00:00:00Z.
    Timestamp(u64),
    /// `A`
    Array(Vec<Self>),
    /// `F`
    Table(FieldTable),
    /// `V`
    Void,
}

impl FieldValue {
    /// The text of a long string, if it is one and is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value of an integer of any width.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value.into()),
            Self::U8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I64(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub const fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// The number `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct Decimal {
    /// The number of decimal digits after the point.
    pub scale: u8,
    /// All digits.
    pub mantissa: i32,
}

macro_rules! value_from {
    ($($type:ty => $variant:ident,)*) => {
        $(impl From<$type> for FieldValue {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool,
    i8 => I8,
    u8 => U8,
    i16 => I16,
    u16 => U16,
    i32 => I32,
    u32 => U32,
    i64 => I64,
    f32 => F32,
    f64 => F64,
    Decimal => Decimal,
    &str => LongString,
    String => LongString,
    Vec<FieldValue> => Array,
    FieldTable => Table,
}

/// A table as it stands on the wire, without its length, unchecked until it is decoded.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RawTable<'a>(&'a [u8]);

impl<'a> RawTable<'a> {
    /// A table from its bytes, without the length.
    pub const fn new(bytes: &'a [u8]) -> Self {
        RawTable(bytes)
    }

    /// The bytes, without the length.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Decodes every field, nested up to `depth_max` levels (this table is the first).
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::TooDeep`], [`Malformed::UnknownFieldType`], and
    /// [`Malformed::NotUtf8`] for a name.
    pub fn decode(self, depth_max: usize) -> Result<FieldTable, Malformed> {
        decode::table(self.0, depth_max)
    }

    /// Whether [`decode`](Self::decode) would succeed, without allocating.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn check(self, depth_max: usize) -> Result<(), Malformed> {
        check::table(self.0, depth_max)
    }

    pub(crate) fn write_long(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
        out.extend_from_slice(self.0);
    }
}

/// The levels that remain inside a table or an array.
fn levels_below(levels: usize) -> Result<usize, Malformed> {
    levels.checked_sub(1).ok_or(Malformed::TooDeep)
}
