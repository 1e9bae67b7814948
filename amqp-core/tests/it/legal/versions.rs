//! What the played versions of RabbitMQ do differently.

use amqp_core::proto::{FieldTable, RawProperties};

/// How deep headers may be nested.
const DEPTH_MAX: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    /// It ends the connection if a delivery of a stream is refused, and has limits that all consumers of a
    /// channel share.
    #[default]
    V3,
    /// It sorts the headers of messages that come back. `basic.qos` sets the limit of each consumer that
    /// starts later, with `global` or without.
    V4,
}

impl Version {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.10.8",
            Self::V4 => "4.3.6",
        }
    }

    /// The properties of a message that comes back. The broker removes the header `BCC`.
    pub(crate) fn returned(self, properties: &[u8]) -> Vec<u8> {
        let mut properties =
            RawProperties::new(properties).decode().unwrap().to_owned(DEPTH_MAX).unwrap();
        if let Some(headers) = &mut properties.headers {
            headers.remove("BCC");
            if self == Self::V4 {
                let mut fields: Vec<_> = headers.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                let fields = fields.into_iter().map(|(name, value)| (name, value.clone()));
                *headers = fields.collect::<FieldTable>();
            }
        }
        let mut encoded = Vec::new();
        properties.encode(&mut encoded).unwrap();
        encoded
    }
}
