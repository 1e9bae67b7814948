//! The formats of bodies: which one a content type names, and its codec.

use std::fmt;

#[cfg(any(feature = "cbor", feature = "msgpack"))]
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::BoxError;
#[cfg(any(feature = "cbor", feature = "msgpack"))]
use crate::limits::PAYLOAD_DEPTH_MAX;

/// A format that a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Cbor,
    MsgPack,
}

/// A content type that does not name a format of this build.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unsupported {
    #[error("content type {0:?} is not supported: expected {Expected}")]
    Unknown(String),
    #[error(
        "content type {content_type:?} needs the feature `{feature}` of amqp-app: expected {Expected}"
    )]
    Disabled { content_type: String, feature: &'static str },
}

/// Lists the content types of this build.
struct Expected;

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("application/json")?;
        if cfg!(feature = "cbor") {
            f.write_str(", application/cbor")?;
        }
        if cfg!(feature = "msgpack") {
            f.write_str(", application/msgpack, application/x-msgpack, application/vnd.msgpack")?;
        }
        f.write_str(", a type that ends in +json")?;
        if cfg!(feature = "cbor") {
            f.write_str(" or in +cbor")?;
        }
        f.write_str(", or no content type for JSON")
    }
}

/// Decodes a body in the format that its content type names. Without a content type, that is JSON.
pub(crate) fn decode<T: DeserializeOwned>(
    content_type: Option<&str>,
    body: &[u8],
) -> Result<T, BoxError> {
    match content_type.map_or(Ok(Format::Json), format)? {
        Format::Json => Ok(serde_json::from_slice(body)?),
        Format::Cbor => decode_cbor(body),
        Format::MsgPack => decode_msgpack(body),
    }
}

/// The format of a content type, whose parameters and case do not count (RFC 9110, 8.3.1).
fn format(content_type: &str) -> Result<Format, Unsupported> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffix = media_type.rsplit_once('+').map(|(_, suffix)| suffix);
    let (format, feature) = match (media_type.as_str(), suffix) {
        ("application/json", _) | (_, Some("json")) => (Format::Json, None),
        ("application/cbor", _) | (_, Some("cbor")) => {
            (Format::Cbor, (!cfg!(feature = "cbor")).then_some("cbor"))
        }
        ("application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack", _) => {
            (Format::MsgPack, (!cfg!(feature = "msgpack")).then_some("msgpack"))
        }
        _ => return Err(Unsupported::Unknown(content_type.to_owned())),
    };
    match feature {
        None => Ok(format),
        Some(feature) => {
            Err(Unsupported::Disabled { content_type: content_type.to_owned(), feature })
        }
    }
}

#[cfg(feature = "cbor")]
fn decode_cbor<T: DeserializeOwned>(mut body: &[u8]) -> Result<T, BoxError> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut body, PAYLOAD_DEPTH_MAX);
    let value = value.map_err(|error| match error {
        ciborium::de::Error::Io(_) => "CBOR: the body ends too early".to_owned(),
        ciborium::de::Error::Syntax(at) => format!("CBOR: malformed at byte {at}"),
        ciborium::de::Error::Semantic(Some(at), text) => format!("CBOR: {text} at byte {at}"),
        ciborium::de::Error::Semantic(None, text) => format!("CBOR: {text}"),
        ciborium::de::Error::RecursionLimitExceeded => {
            format!("CBOR: nested deeper than {PAYLOAD_DEPTH_MAX} levels")
        }
    })?;
    ended("CBOR", body.len())?;
    Ok(value)
}

#[cfg(not(feature = "cbor"))]
fn decode_cbor<T>(_: &[u8]) -> Result<T, BoxError> {
    Err("CBOR needs the feature `cbor` of amqp-app".into())
}

#[cfg(feature = "msgpack")]
fn decode_msgpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, BoxError> {
    let mut decoder = rmp_serde::Deserializer::new(std::io::Cursor::new(body));
    decoder.set_max_depth(PAYLOAD_DEPTH_MAX);
    let value = T::deserialize(&mut decoder).map_err(|error| format!("MessagePack: {error}"))?;
    let read = usize::try_from(decoder.position()).unwrap_or(usize::MAX);
    ended("MessagePack", body.len().saturating_sub(read))?;
    Ok(value)
}

#[cfg(not(feature = "msgpack"))]
fn decode_msgpack<T>(_: &[u8]) -> Result<T, BoxError> {
    Err("MessagePack needs the feature `msgpack` of amqp-app".into())
}

/// Refuses bytes behind the value, as JSON does: they are a sign of another format.
#[cfg(any(feature = "cbor", feature = "msgpack"))]
fn ended(format: &str, left: usize) -> Result<(), BoxError> {
    match left {
        0 => Ok(()),
        _ => Err(format!("{format}: {left} trailing bytes").into()),
    }
}

/// Encodes a value as CBOR.
#[cfg(feature = "cbor")]
pub(crate) fn encode_cbor(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut body = Vec::new();
    match ciborium::into_writer(value, &mut body) {
        Ok(()) => Ok(body),
        Err(ciborium::ser::Error::Io(error)) => Err(EncodeError::new("CBOR", error)),
        Err(ciborium::ser::Error::Value(text)) => Err(EncodeError::new("CBOR", text)),
    }
}

/// Encodes a value as MessagePack, in which structures are maps by the names of their fields.
#[cfg(feature = "msgpack")]
pub(crate) fn encode_msgpack(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    rmp_serde::to_vec_named(value).map_err(|error| EncodeError::new("MessagePack", error))
}

/// A value that cannot be written in a binary format: see [`Message::cbor`](crate::Message) and
/// [`Message::msgpack`](crate::Message).
#[cfg(any(feature = "cbor", feature = "msgpack"))]
#[derive(Debug, thiserror::Error)]
#[error("cannot be encoded as {format}: {error}")]
pub struct EncodeError {
    format: &'static str,
    error: BoxError,
}

#[cfg(any(feature = "cbor", feature = "msgpack"))]
impl EncodeError {
    fn new(format: &'static str, error: impl Into<BoxError>) -> Self {
        Self { format, error: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    /// The text of the failure.
    fn refused(content_type: &str) -> String {
        decode::<u8>(Some(content_type), b"7").unwrap_err().to_string()
    }

    #[test]
    fn json_is_named_by_its_types_or_by_none() {
        for content_type in [
            None,
            Some("application/json"),
            Some("Application/JSON"),
            Some("application/json; charset=utf-8"),
            Some(" application/json ;charset=\"a;b\""),
            Some("application/vnd.order+json"),
            Some("application/cloudevents+JSON; charset=UTF-8"),
        ] {
            assert_eq!(decode::<u8>(content_type, b"7").unwrap(), 7, "{content_type:?}");
        }
        assert!(decode::<u8>(None, b"7 8").unwrap_err().to_string().contains("trailing"));
    }

    #[test]
    fn a_type_that_is_not_known_is_named_with_those_that_are() {
        for content_type in
            ["application/yaml", "", "text/plain", "json", "application/json2", "a+"]
        {
            let text = refused(content_type);
            let start = format!("content type {content_type:?} is not supported: expected ");
            assert!(text.starts_with(&start), "{text}");
            assert!(text.contains("application/json"), "{text}");
            for (feature, is_on) in
                [("cbor", cfg!(feature = "cbor")), ("msgpack", cfg!(feature = "msgpack"))]
            {
                assert_eq!(text.contains(feature), is_on, "{text}");
            }
        }
    }

    #[cfg(not(feature = "cbor"))]
    #[test]
    fn cbor_without_its_feature_names_the_feature() {
        for content_type in ["application/cbor", "application/senml+cbor"] {
            let text = refused(content_type);
            assert!(text.contains("needs the feature `cbor` of amqp-app"), "{text}");
            assert!(text.contains(content_type) && text.contains("application/json"), "{text}");
        }
    }

    #[cfg(not(feature = "msgpack"))]
    #[test]
    fn messagepack_without_its_feature_names_the_feature() {
        for content_type in ["application/msgpack", "application/x-msgpack; v=5"] {
            let text = refused(content_type);
            assert!(text.contains("needs the feature `msgpack` of amqp-app"), "{text}");
            assert!(text.contains(content_type) && text.contains("application/json"), "{text}");
        }
    }

    #[cfg(any(feature = "cbor", feature = "msgpack"))]
    mod binary {
        use std::collections::BTreeMap;
        use std::thread;

        use serde::de::IgnoredAny;
        use serde::{Deserialize, Serialize};

        use super::decode;
        use crate::limits::PAYLOAD_DEPTH_MAX;
        use crate::{Context, FailureCause, FromContext, Message, Payload};

        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
        struct Order {
            id: u64,
            name: String,
            price: f64,
            note: Option<String>,
            items: Vec<(i32, bool)>,
            raw: Vec<u8>,
            tags: BTreeMap<String, i64>,
            kind: Kind,
        }

        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
        enum Kind {
            #[default]
            Plain,
            Gift(String),
            Bulk {
                pieces: u32,
            },
        }

        /// A value that may be nested as deeply as its input.
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "it is only decoded")]
        struct Tree(Vec<Self>);

        fn order() -> Order {
            Order {
                id: u64::MAX,
                name: "Ümläut ✓".repeat(1_000),
                price: -0.5,
                note: Some(String::new()),
                items: vec![(i32::MIN, true), (0, false)],
                raw: (0..=255).collect(),
                tags: [("a".to_owned(), -1), (String::new(), i64::MIN)].into(),
                kind: Kind::Bulk { pieces: 7 },
            }
        }

        fn payload<T: serde::de::DeserializeOwned>(message: Message) -> Result<T, crate::Failure> {
            Payload::from_context(&Context::of(message)).map(|Payload(value)| value)
        }

        /// Decodes any bytes as several types, on a thread with as little stack as any platform gives one.
        fn survives(content_type: &'static str, body: Vec<u8>) {
            let decoding = move || {
                let content_type = Some(content_type);
                let _ = decode::<Order>(content_type, &body);
                let _ = decode::<Vec<String>>(content_type, &body);
                let _ = decode::<BTreeMap<i64, Vec<Option<u8>>>>(content_type, &body);
                let _ = decode::<serde_json::Value>(content_type, &body);
                let _ = decode::<Tree>(content_type, &body);
                let _ = decode::<IgnoredAny>(content_type, &body);
            };
            thread::Builder::new().stack_size(512 << 10).spawn(decoding).unwrap().join().unwrap();
        }

        /// What both formats must do with a message that is right, and with what becomes of it on a bad way.
        fn keeps_its_word(types: &[&'static str], encode: impl Fn(&Order) -> Message) {
            let message = encode(&order());
            assert_eq!(message.properties().content_type.as_deref(), Some(types[0]));
            for content_type in types {
                let renamed = message.clone().content_type(content_type.to_uppercase() + "; a=b");
                assert_eq!(payload::<Order>(renamed).unwrap(), order(), "{content_type}");
            }
            for kind in [Kind::Plain, Kind::Gift("g".into())] {
                let order = Order { kind, ..Order::default() };
                assert_eq!(payload::<Order>(encode(&order)).unwrap(), order);
            }
            // JSON that is called something else.
            let json = Message::json(&order()).unwrap().content_type(types[0]);
            let failure = payload::<Order>(json).unwrap_err();
            assert_eq!(failure.cause(), FailureCause::Undecodable);

            let small = encode(&Order { name: "n".into(), raw: vec![1, 2], ..order() });
            let body = small.body();
            let mut longer = body.to_vec();
            longer.push(0);
            let text = decode::<Order>(Some(types[0]), &longer).unwrap_err().to_string();
            assert!(text.ends_with("1 trailing bytes"), "{text}");
            for end in 0..body.len() {
                let cut = decode::<Order>(Some(types[0]), &body[..end]);
                assert!(cut.is_err(), "{end} of {} bytes: {cut:?}", body.len());
            }
            // Each byte replaced by each of these: heads of other types, lengths of all sizes.
            for at in 0..body.len() {
                let bytes =
                    [0x00, 0x5f, 0x7f, 0x81, 0x9b, 0x9f, 0xbf, 0xc1, 0xc6, 0xdb, 0xdd, 0xdf, 0xff];
                let changed = bytes.map(|byte| {
                    let mut body = body.to_vec();
                    body[at] = byte;
                    body
                });
                for body in changed {
                    let _ = decode::<Order>(Some(types[0]), &body);
                    let _ = decode::<serde_json::Value>(Some(types[0]), &body);
                }
            }
        }

        /// Lists of lists, around a last byte.
        fn nested(open: u8, last: u8, levels: usize) -> Vec<u8> {
            let mut body = vec![open; levels];
            body.push(last);
            body
        }

        #[cfg(feature = "cbor")]
        #[test]
        fn cbor_is_decoded_and_hostile_cbor_is_an_error() {
            let types = ["application/cbor", "application/senml+cbor"];
            keeps_its_word(&types, |order| Message::cbor(order).unwrap());
            let cbor = |body: &[u8]| decode::<Tree>(Some("application/cbor"), body);
            let deepest = nested(0x81, 0x80, PAYLOAD_DEPTH_MAX - 1);
            cbor(&deepest).unwrap();
            for open in [0x81, 0x9f, 0xa1, 0xc1, 0xd8] {
                survives("application/cbor", nested(open, 0x80, 1_000_000));
            }
            let text = cbor(&nested(0x81, 0x80, 1_000_000)).unwrap_err().to_string();
            assert_eq!(text, "CBOR: nested deeper than 128 levels");
            // Texts, bytes, lists and maps that are said to have 2^64 - 1 and 2^63 entries, alone and in each other.
            for head in [0x5b, 0x7b, 0x9b, 0xbb] {
                for length in [u64::MAX, 1 << 63, 1 << 32, 1 << 20] {
                    let mut body = vec![head];
                    body.extend(length.to_be_bytes());
                    survives("application/cbor", body.clone());
                    survives("application/cbor", body.repeat(1_000));
                }
            }
            let text = cbor(&[0x9b, 0xff]).unwrap_err().to_string();
            assert_eq!(text, "CBOR: the body ends too early");
        }

        #[cfg(feature = "msgpack")]
        #[test]
        fn messagepack_is_decoded_and_hostile_messagepack_is_an_error() {
            let types = ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"];
            keeps_its_word(&types, |order| Message::msgpack(order).unwrap());
            let msgpack = |body: &[u8]| decode::<Tree>(Some("application/msgpack"), body);
            msgpack(&nested(0x91, 0x90, PAYLOAD_DEPTH_MAX / 2)).unwrap();
            for open in [0x81, 0x91, 0xc7, 0xd8] {
                survives("application/msgpack", nested(open, 0x90, 1_000_000));
            }
            let text = msgpack(&nested(0x91, 0x90, 1_000_000)).unwrap_err().to_string();
            assert_eq!(text, "MessagePack: depth limit exceeded");
            for head in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
                for length in [u32::MAX, 1 << 31, 1 << 20] {
                    let mut body = vec![head];
                    body.extend(length.to_be_bytes());
                    survives("application/msgpack", body.clone());
                    survives("application/msgpack", body.repeat(1_000));
                }
            }
            // A structure that another program wrote as a list of its fields.
            #[derive(Debug, Deserialize, PartialEq)]
            struct Point {
                x: u8,
                y: u8,
            }
            let point = decode::<Point>(Some("application/msgpack"), &[0x92, 1, 2]);
            assert_eq!(point.unwrap(), Point { x: 1, y: 2 });
        }

        #[cfg(feature = "cbor")]
        #[test]
        fn what_cannot_be_encoded_is_an_error() {
            struct Never;
            impl Serialize for Never {
                fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                    Err(serde::ser::Error::custom("never"))
                }
            }
            let text = Message::cbor(&Never).unwrap_err().to_string();
            assert_eq!(text, "cannot be encoded as CBOR: never");
            #[cfg(feature = "msgpack")]
            assert_eq!(
                Message::msgpack(&Never).unwrap_err().to_string(),
                "cannot be encoded as MessagePack: never"
            );
        }
    }
}
