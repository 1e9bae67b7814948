//! Tables in serde's formats, exact in types: an `I32` is read back as an `I32`.
//!
//! A table is a map, and a value is tagged with its type: `{"x-max-length": {"i32": 10}}`. A long string is
//! text where it is UTF-8, and bytes where it is not.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{FieldTable, FieldValue};

impl Serialize for FieldTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for FieldTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = FieldTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to field values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldTable, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, FieldValue>()? {
                    fields.push(field);
                }
                // As when it is decoded, repeated names stay.
                Ok(FieldTable(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// `serde_json` with its feature `arbitrary_precision`, which any crate of a build may enable, passes a number as a map with this key
/// and the digits.
const ARBITRARY: &str = "$serde_json::private::Number";

/// Numbers, of which text formats such as JSON write only those that are finite. The others are text there.
macro_rules! numbers {
    ($($name:ident $type:ident $serialize:ident;)*) => {
        $(
            pub(super) mod $name {
                use super::{
                    ARBITRARY, Deserialize, Deserializer, Error, MapAccess, Serializer, String,
                    ToString, Unexpected, Visitor, fmt,
                };

                pub(in crate::field_table) fn serialize<S: Serializer>(
                    number: &$type,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    if number.is_finite() || !serializer.is_human_readable() {
                        return serializer.$serialize(*number);
                    }
                    serializer.serialize_str(&number.to_string())
                }

                pub(in crate::field_table) fn deserialize<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<$type, D::Error> {
                    if !deserializer.is_human_readable() {
                        return $type::deserialize(deserializer);
                    }
                    deserializer.deserialize_any(Number)
                }

                struct Number;

                impl<'de> Visitor<'de> for Number {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number, or one that is not finite as text")
                    }

                    #[allow(clippy::cast_possible_truncation, reason = "as serde reads an f32")]
                    fn visit_f64<E: Error>(self, number: f64) -> Result<$type, E> {
                        Ok(number as $type)
                    }

                    #[allow(clippy::cast_precision_loss, reason = "as serde reads integers")]
                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        Ok(number as $type)
                    }

                    #[allow(clippy::cast_precision_loss, reason = "as serde reads integers")]
                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        Ok(number as $type)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
                        match map.next_entry::<String, String>()? {
                            Some((key, text)) if key == ARBITRARY => self.visit_str(&text),
                            _ => Err(A::Error::invalid_type(Unexpected::Map, &self)),
                        }
                    }
                }
            }
        )*
    };
}

numbers! {
    float f32 serialize_f32;
    double f64 serialize_f64;
}

/// Bytes, which some formats write as a sequence of numbers.
pub(super) mod bytes {
    use super::{Bytes, Deserializer, Serializer, Vec};

    pub(in crate::field_table) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(in crate::field_table) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

pub(crate) struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(Vec::from(text))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(Vec::from(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut octets: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(octet) = octets.next_element()? {
            bytes.push(octet);
        }
        Ok(bytes)
    }
}
