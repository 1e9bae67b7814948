//! The file beside a body: where the message came from, and its properties with their types.

use std::fs;
use std::path::Path;

use amqp_async::Properties;
use amqp_async::errors::Malformed;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::FileError;
use super::name::header_name;
use crate::context::Context;
use crate::message::Message;

/// What a [`Writer`](crate::files::Writer) stores beside the body of a message, in JSON.
///
/// Values of headers are tagged with their types: `{"x-count": {"i32": 3}}`. So they are read back as they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Header {
    /// The exchange to which the message was published first.
    pub exchange: String,
    /// The routing key with which the message was published first.
    pub routing_key: String,
    /// The queue that it came from.
    pub queue: String,
    /// Whether the broker may have delivered it before. Then there may be another file of the same message.
    pub redelivered: bool,
    /// Its properties, and its headers.
    pub properties: Properties,
}

impl Header {
    /// Creates the header of a message that is being handled.
    ///
    /// # Errors
    /// [`Malformed`]. A message with malformed properties does not reach a handler.
    pub fn of<S>(context: &Context<S>) -> Result<Self, Malformed> {
        Ok(Self {
            exchange: context.exchange().to_owned(),
            routing_key: context.routing_key().to_owned(),
            queue: context.queue().to_owned(),
            redelivered: context.redelivered(),
            properties: context.properties()?.clone(),
        })
    }

    /// Reads a file with a header. It blocks.
    ///
    /// # Errors
    /// [`FileError::Io`], and [`FileError::Header`] if the file has something else.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(FileError::io("read", path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| FileError::Header { path: path.to_owned(), error })
    }

    /// Reads the header of the message whose body is in this file. It blocks.
    ///
    /// # Errors
    /// Those of [`read`](Self::read). A name that is not UTF-8 is not one of a writer: [`FileError::Io`].
    pub fn beside(body: impl AsRef<Path>) -> Result<Self, FileError> {
        let body = body.as_ref();
        let name = body.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Self::read(body.with_file_name(header_name(name)))
    }

    /// Makes the message again, with this body: to the exchange and with the routing key that it had. Its `user_id` and `expiration`
    /// are kept too. RabbitMQ refuses a message whose `user_id` is not the user of the connection: clear it before sending.
    pub fn into_message(self, body: impl Into<Bytes>) -> Message {
        let properties = self.properties;
        Message::new(body).to(self.exchange, self.routing_key).property(|it| *it = properties)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}
