//! Field tables (AMQP 0-9-1, 4.2.5.5), with the type octets that RabbitMQ reads and writes
//! (<https://www.rabbitmq.com/docs/amqp-0-9-1-errata#section_3>).

mod check;
mod debug;
mod decode;
mod encode;
mod fields;
#[cfg(feature = "serde")]
mod serialized;
mod skip;

use alloc::string::String;
use alloc::vec::{self, Vec};
use core::slice;

use crate::Malformed;

pub(crate) use debug::octets;
pub use fields::RawField;
#[cfg(feature = "serde")]
pub(crate) use serialized::Bytes;

/// An ordered map from names to values: the arguments of a declaration, the headers of a message.
///
/// ```
/// use amqp_proto::{FieldTable, FieldValue};
///
/// let table = FieldTable::from([("x-max-length", 1.into()), ("x-overflow", "reject-publish".into())]);
/// assert_eq!(table.get("x-max-length"), Some(&FieldValue::I32(1)));
/// for (name, value) in &table {
///     println!("{name} = {value:?}");
/// }
/// ```
///
/// Fields keep their order. A decoded table keeps repeated names; [`get`](Self::get) returns the last
/// value. RabbitMQ may use another one, so do not rely on repeated names.
#[derive(Clone, Default, PartialEq)]
pub struct FieldTable(Vec<(String, FieldValue)>);

impl FieldTable {
    /// Creates an empty table.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets a field. Returns the value that it replaces, if there was one.
    ///
    /// A name of more than 255 bytes is an error when the table is sent.
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

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Removes a field and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let place = self.0.iter().rposition(|(known, _)| known == name)?;
        Some(self.0.remove(place).1)
    }

    /// Iterates over names and values in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// Whether the table has no fields.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of fields.
    pub const fn len(&self) -> usize {
        self.0.len()
    }
}

/// An iterator over the names and values of a [`FieldTable`].
#[derive(Clone, Debug)]
pub struct Iter<'a>(slice::Iter<'a, (String, FieldValue)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a FieldValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_str(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a FieldTable {
    type Item = (&'a str, &'a FieldValue);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for FieldTable {
    type Item = (String, FieldValue);
    type IntoIter = vec::IntoIter<(String, FieldValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
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
        table.extend(fields);
        table
    }
}

impl<N: Into<String>> Extend<(N, FieldValue)> for FieldTable {
    fn extend<I: IntoIterator<Item = (N, FieldValue)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.insert(name, value);
        }
    }
}

/// A value of a [`FieldTable`]. Each variant names its type octet in the wire format.
#[derive(Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`. `U` is decoded as this too, and never encoded: RabbitMQ closes the connection for it.
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`. `L` is decoded as this too.
    I64(i64),
    /// A number over [`i64::MAX`], which has no type octet: to send it is an error. Smaller numbers become
    /// [`I64`](Self::I64), and decoding never returns this.
    U64(u64),
    /// `f`. To send an infinite number or NaN is an error.
    F32(#[cfg_attr(feature = "serde", serde(with = "serialized::float"))] f32),
    /// `d`. To send an infinite number or NaN is an error.
    F64(#[cfg_attr(feature = "serde", serde(with = "serialized::double"))] f64),
    /// `D`
    Decimal(Decimal),
    /// `S`: text by convention, but any bytes are allowed.
    LongString(#[cfg_attr(feature = "serde", serde(with = "crate::text_or_bytes"))] Vec<u8>),
    /// `x`
    Bytes(#[cfg_attr(feature = "serde", serde(with = "serialized::bytes"))] Vec<u8>),
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
    /// The text of a long string. `None` for other types and for text that is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The bytes of a long string or of a byte array. `None` for other types.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::LongString(bytes) | Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value of an integer of any width. `None` for other types, and over [`i64::MAX`].
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

    /// The value of a floating-point number of either width. `None` for other types.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a boolean. `None` for other types.
    pub const fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The seconds of a timestamp since 1970-01-01T00:00:00Z. `None` for other types.
    pub const fn as_timestamp(&self) -> Option<u64> {
        match *self {
            Self::Timestamp(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// The values of an array. `None` for other types.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// A nested table. `None` for other types.
    pub const fn as_table(&self) -> Option<&FieldTable> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// The number `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

impl From<&String> for FieldValue {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<u64> for FieldValue {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::U64(value), Self::I64)
    }
}

impl From<usize> for FieldValue {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
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

/// A table in wire format without its length. It is checked when it is decoded.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RawTable<'a>(&'a [u8]);

impl<'a> RawTable<'a> {
    /// Takes a table in wire format, without its length.
    pub const fn new(bytes: &'a [u8]) -> Self {
        RawTable(bytes)
    }

    /// The table in wire format, without its length.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Decodes every field. Tables and arrays may be nested `depth_max` levels deep; this table is the
    /// first level.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::TooDeep`], [`Malformed::UnknownFieldType`], and
    /// [`Malformed::NotUtf8`] for a name.
    pub fn decode(self, depth_max: usize) -> Result<FieldTable, Malformed> {
        decode::table(self.0, depth_max)
    }

    /// Checks whether [`decode`](Self::decode) would succeed, without allocating.
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

/// The number of levels that may be nested inside a table or an array.
fn levels_below(levels: usize) -> Result<usize, Malformed> {
    levels.checked_sub(1).ok_or(Malformed::TooDeep)
}
