//! Arguments that are the body.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::FromContext;
use crate::context::Context;
use crate::failure::Failure;

/// The body as a value in JSON. The content type is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Json<T>(pub T);

impl<S, T: DeserializeOwned> FromContext<S> for Json<T> {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        serde_json::from_slice(context.body()).map(Self).map_err(Failure::undecodable)
    }
}

/// The body as a value, in the format that the content type names. That is JSON: `application/json`, a type that ends in
/// `+json`, or none. Another type is undecodable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Payload<T>(pub T);

impl<S, T: DeserializeOwned> FromContext<S> for Payload<T> {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let properties = context.properties().map_err(Failure::undecodable)?;
        let content_type = properties.content_type.as_deref().unwrap_or("application/json");
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") && !media_type.ends_with("+json") {
            return Err(Failure::undecodable(format!(
                "content type {content_type:?} is not supported: expected application/json"
            )));
        }
        Json::from_context(context).map(|Json(value)| Self(value))
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
