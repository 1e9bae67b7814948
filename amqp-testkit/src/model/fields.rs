//! Conversions between the fields of methods and owned values.

use amqp_proto::{FieldTable, RawTable, ReplyCode, ShortStr, TABLE_DEPTH_MAX};

use super::refusal::Refusal;

/// Returns a name as text. Bytes that are not UTF-8 are replaced.
pub(super) fn text(name: ShortStr<'_>) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// Returns text as a short string, cut to 255 bytes.
pub(super) fn short(bytes: &[u8]) -> ShortStr<'_> {
    ShortStr::from_bytes(bytes.get(..255).unwrap_or(bytes)).unwrap_or_default()
}

/// Decodes a table of arguments.
pub(super) fn table(raw: RawTable<'_>) -> Result<FieldTable, Refusal> {
    raw.decode(TABLE_DEPTH_MAX)
        .map_err(|error| Refusal::connection(ReplyCode::SYNTAX_ERROR, error.to_string()))
}
