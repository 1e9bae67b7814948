//! `Response`: the reply to a request.

use std::str::Utf8Error;

use amqp_async::{FieldValue, Properties, ReceivedMessage};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::failure::BoxError;
use crate::formats;

/// The reply to a request: see [`Requester::request`](crate::Requester).
#[derive(Clone, Debug)]
pub struct Response {
    message: ReceivedMessage,
    properties: Properties,
}

impl Response {
    pub(super) const fn new(message: ReceivedMessage, properties: Properties) -> Self {
        Self { message, properties }
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        self.message.body()
    }

    /// Returns the body, which can be kept longer than the response.
    pub fn into_body(self) -> Bytes {
        self.message.into_body()
    }

    /// Returns the properties.
    pub const fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Returns a header, `None` without it.
    pub fn header(&self, name: &str) -> Option<&FieldValue> {
        self.properties.headers.as_ref()?.get(name)
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// The body is not UTF-8.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(self.body())
    }

    /// Decodes the body as JSON, with any content type.
    ///
    /// # Errors
    /// The body is not JSON, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.body())
    }

    /// Decodes the body in the format that its content type names, as the argument [`Payload`](crate::Payload) of handlers
    /// does.
    ///
    /// # Errors
    /// The content type is not supported, or the body is not of this type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, BoxError> {
        formats::decode(self.properties.content_type.as_deref(), self.body())
    }
}
