//! Arguments that are the body.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::FromContext;
use crate::context::Context;
use crate::failure::Failure;
use crate::formats;

/// The body as a value in JSON. The content type is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Json<T>(pub T);

impl<S, T: DeserializeOwned> FromContext<S> for Json<T> {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        serde_json::from_slice(context.body()).map(Self).map_err(Failure::undecodable)
    }
}

/// The body as a value, in the format that the content type names. Its parameters and its case do not count. Another content
/// type than these is undecodable, and the failure says which ones are known.
///
/// | content type | format |
/// | --- | --- |
/// | `application/json`, a type that ends in `+json`, or none | JSON |
/// | `application/cbor`, or a type that ends in `+cbor` | CBOR, with the feature `cbor` |
/// | `application/msgpack`, `application/x-msgpack`, `application/vnd.msgpack` | MessagePack, with the feature `msgpack` |
///
/// A body that is nested deeper than [128 levels](crate::limits::PAYLOAD_DEPTH_MAX), that announces more than it has, or that
/// has more bytes than its value is undecodable too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Payload<T>(pub T);

impl<S, T: DeserializeOwned> FromContext<S> for Payload<T> {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let properties = context.properties().map_err(Failure::undecodable)?;
        let decoded = formats::decode(properties.content_type.as_deref(), context.body());
        decoded.map(Self).map_err(Failure::undecodable)
    }
}

/// The body as UTF-8 text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Text(pub String);

impl<S> FromContext<S> for Text {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let text = std::str::from_utf8(context.body()).map_err(Failure::undecodable)?;
        Ok(Self(text.to_owned()))
    }
}

/// The body as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Body(pub Bytes);

impl<S> FromContext<S> for Body {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(Self(context.shared_body()))
    }
}
