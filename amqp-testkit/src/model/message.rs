//! A message as it was published.

use std::time::Duration;

use amqp_proto::{FieldTable, Properties, PropertiesRef, RawProperties, TABLE_DEPTH_MAX};

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// The routing key as on the wire, which may not be UTF-8.
    pub(super) wire_key: Vec<u8>,
    /// The properties as on the wire: flags and values.
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The keys of the headers `CC` and `BCC`, by which it was routed too.
    pub(super) copies: Vec<String>,
    /// The property `expiration`.
    pub(super) expiration: Option<Duration>,
}

impl Message {
    /// Returns the number of bytes that count for `x-max-length-bytes`.
    pub(super) fn size(&self) -> u64 {
        self.body.len() as u64
    }

    /// Returns the headers. Headers that cannot be decoded count as none.
    pub(super) fn headers(&self) -> FieldTable {
        let headers = self.properties().headers;
        headers.and_then(|raw| raw.decode(TABLE_DEPTH_MAX).ok()).unwrap_or_default()
    }

    /// Returns the properties. Properties that cannot be decoded count as none.
    pub(super) fn properties(&self) -> PropertiesRef<'_> {
        RawProperties::new(&self.properties).decode().unwrap_or_default()
    }

    /// Changes the properties. Returns false, and changes nothing, if they cannot be decoded or
    /// encoded.
    pub(super) fn change_properties(&mut self, change: impl FnOnce(&mut Properties)) -> bool {
        let Ok(mut properties) = self.properties().to_owned(TABLE_DEPTH_MAX) else { return false };
        change(&mut properties);
        let mut encoded = Vec::new();
        let written = properties.encode(&mut encoded).is_ok();
        if written {
            self.properties = encoded;
        }
        written
    }
}
