//! For `#[serde(with = "text_or_bytes")]`: bytes that are written as text where they are UTF-8.
//!
//! Long strings of tables and bodies of messages are written so. Formats for machines always hold bytes.

use alloc::vec::Vec;

use serde::{Deserializer, Serializer};

use crate::field_table::Bytes;

/// Serializes bytes: as text if they are UTF-8 and the format is for humans.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match core::str::from_utf8(bytes) {
        Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
        _ => serializer.serialize_bytes(bytes),
    }
}

/// Deserializes text or bytes.
///
/// # Errors
/// Those of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(Bytes)
    } else {
        deserializer.deserialize_byte_buf(Bytes)
    }
}
