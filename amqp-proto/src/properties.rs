//! Content headers and the fourteen message properties (AMQP 0-9-1, 4.2.6.1 and 1.8).
//!
//! The properties of a received header stay encoded ([`RawProperties`]). [`RawProperties::decode`] returns a
//! borrowed view ([`PropertiesRef`]) without allocating, and [`PropertiesRef::to_owned`] an owned value
//! ([`Properties`]). Applications build the latter to publish.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::field_table::octets;
use crate::wire::{Reader, Writer};
use crate::{EncodeError, FieldTable, Malformed, RawTable, ShortStr};

/// The class id of every content in AMQP 0-9-1: `basic`.
pub const CONTENT_CLASS: u16 = 60;

/// The minimum size of a header frame's payload in bytes: class, weight, body size, property flags.
pub const CONTENT_HEADER_MIN: usize = 14;

/// Whether a message in a durable queue survives a restart of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(clippy::exhaustive_enums, reason = "the specification is frozen")]
pub enum DeliveryMode {
    /// It is lost.
    Transient = 1,
    /// It survives.
    Persistent = 2,
}

impl From<DeliveryMode> for u8 {
    fn from(mode: DeliveryMode) -> Self {
        mode as Self
    }
}

/// A content header: class, body size, properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct ContentHeader<'a> {
    /// The class of the method before it: 60 in all of AMQP 0-9-1.
    pub class_id: u16,
    /// The size of the body in bytes, over all its frames.
    pub body_size: u64,
    /// The flags and values of the properties.
    pub properties: RawProperties<'a>,
}

impl<'a> ContentHeader<'a> {
    /// Decodes the payload of a header frame. Ignores the weight, which AMQP does not use.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] below fourteen bytes.
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (Some((fixed, _)), Some(properties)) =
            (payload.split_first_chunk::<12>(), payload.get(12..))
        else {
            return Err(Malformed::Truncated);
        };
        if properties.len() < 2 {
            return Err(Malformed::Truncated);
        }
        let [c0, c1, _, _, size @ ..] = *fixed;
        Ok(Self {
            class_id: u16::from_be_bytes([c0, c1]),
            body_size: u64::from_be_bytes(size),
            properties: RawProperties(properties),
        })
    }

    /// Appends the payload of a header frame.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        Self::encode_fixed(out, self.class_id, self.body_size);
        out.extend_from_slice(self.properties.0);
    }

    /// Appends everything before the property flags.
    #[inline]
    pub(crate) fn encode_head(out: &mut Vec<u8>, body_size: u64) {
        Self::encode_fixed(out, CONTENT_CLASS, body_size);
    }

    #[inline]
    fn encode_fixed(out: &mut Vec<u8>, class_id: u16, body_size: u64) {
        let [c0, c1] = class_id.to_be_bytes();
        out.extend_from_slice(&[c0, c1, 0, 0]);
        out.extend_from_slice(&body_size.to_be_bytes());
    }
}

/// Property flags and values in wire format. They are checked when they are decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawProperties<'a>(&'a [u8]);

impl<'a> RawProperties<'a> {
    /// No properties.
    pub const NONE: Self = RawProperties(&[0, 0]);

    /// Takes property flags and values in wire format.
    pub const fn new(bytes: &'a [u8]) -> Self {
        RawProperties(bytes)
    }

    /// The flags and values in wire format.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for RawProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Ok(properties) => properties.fmt(f),
            Err(_) => octets(f, self.0),
        }
    }
}

impl Default for RawProperties<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

/// How each type of property is decoded, encoded and owned.
macro_rules! property {
    (@read $reader:ident shortstr) => { $reader.short_str()? };
    (@read $reader:ident table) => { RawTable::new($reader.long_str()?) };
    (@read $reader:ident octet) => { $reader.octet()? };
    (@read $reader:ident timestamp) => { $reader.long_long()? };

    (@write $out:ident shortstr $value:ident) => { Writer::new($out).short_str(*$value) };
    (@write $out:ident table $value:ident) => { $value.write_long($out) };
    (@write $out:ident octet $value:ident) => { $out.push(*$value) };
    (@write $out:ident timestamp $value:ident) => { $out.extend_from_slice(&$value.to_be_bytes()) };

    (@view $headers:ident shortstr $value:ident) => { ShortStr::new($value)? };
    (@view $headers:ident table $value:ident) => {{
        $headers.clear();
        $value.encode($headers)?;
        RawTable::new($headers.get(4..).unwrap_or_default())
    }};
    (@view $headers:ident octet $value:ident) => { *$value };
    (@view $headers:ident timestamp $value:ident) => { *$value };

    (@own shortstr $value:ident $depth:ident) => { String::from($value.as_str()?) };
    (@own table $value:ident $depth:ident) => { $value.decode($depth)? };
    (@own octet $value:ident $depth:ident) => { $value };
    (@own timestamp $value:ident $depth:ident) => { $value };

    (@check shortstr $value:ident $depth:ident) => { $value.as_str().map(|_| ())? };
    (@check table $value:ident $depth:ident) => { $value.check($depth)? };
    (@check octet $value:ident $depth:ident) => { let _ = $value; };
    (@check timestamp $value:ident $depth:ident) => { let _ = $value; };

    (@borrowed shortstr) => { ShortStr<'a> };
    (@borrowed table) => { RawTable<'a> };
    (@borrowed octet) => { u8 };
    (@borrowed timestamp) => { u64 };

    (@owned shortstr) => { String };
    (@owned table) => { FieldTable };
    (@owned octet) => { u8 };
    (@owned timestamp) => { u64 };
}

macro_rules! properties {
    ($($(#[$doc:meta])* $bit:literal $field:ident $spec_name:literal $type:ident,)*) => {
        /// The properties of a received message, borrowed from its header frame.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
        pub struct PropertiesRef<'a> {
            $($(#[$doc])* pub $field: Option<property!(@borrowed $type)>,)*
        }

        /// The properties of a message.
        ///
        /// Each property is a field, with a builder method of the same name:
        /// ```
        /// use amqp_proto::Properties;
        /// let properties = Properties::new().content_type("text/plain").delivery_mode(2);
        /// assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        /// ```
        #[derive(Clone, Debug, Default, PartialEq)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(default)
        )]
        #[non_exhaustive]
        pub struct Properties {
            $($(#[$doc])* pub $field: Option<property!(@owned $type)>,)*
        }

        impl<'a> RawProperties<'a> {
            /// Decodes every property that is present. Strings and tables are not checked.
            ///
            /// # Errors
            /// [`Malformed::Truncated`], [`Malformed::TrailingBytes`],
            /// [`Malformed::UnknownPropertyFlags`].
            #[inline]
            pub fn decode(self) -> Result<PropertiesRef<'a>, Malformed> {
                let mut reader = Reader::new(self.0);
                let flags = reader.short()?;
                let mut properties = PropertiesRef::default();
                if flags & !KNOWN_FLAGS != 0 {
                    return Err(Malformed::UnknownPropertyFlags(flags & !KNOWN_FLAGS));
                }
                $(
                    if flags & (1 << $bit) != 0 {
                        properties.$field = Some(property!(@read reader $type));
                    }
                )*
                reader.finish()?;
                Ok(properties)
            }
        }

        impl PropertiesRef<'_> {
            /// Appends the flags and values in wire format.
            #[inline]
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut flags = 0_u16;
                $(flags |= u16::from(self.$field.is_some()) << $bit;)*
                out.extend_from_slice(&flags.to_be_bytes());
                $(
                    if let Some(value) = &self.$field {
                        property!(@write out $type value);
                    }
                )*
            }

            /// Checks whether [`to_owned`](Self::to_owned) would succeed, without allocating.
            ///
            /// # Errors
            /// Those of [`to_owned`](Self::to_owned).
            pub fn check(&self, depth_max: usize) -> Result<(), Malformed> {
                $(
                    if let Some(value) = self.$field {
                        property!(@check $type value depth_max);
                    }
                )*
                Ok(())
            }

            /// Copies the strings and decodes the headers. Tables may be nested `depth_max` levels deep.
            ///
            /// # Errors
            /// [`Malformed::NotUtf8`], and those of [`RawTable::decode`].
            pub fn to_owned(&self, depth_max: usize) -> Result<Properties, Malformed> {
                Ok(Properties {
                    $($field: match self.$field {
                        Some(value) => Some(property!(@own $type value depth_max)),
                        None => None,
                    },)*
                })
            }
        }

        impl Properties {
            /// Returns a borrowed view. `headers` is the buffer for the encoded headers table.
            ///
            /// # Errors
            /// Any [`EncodeError`].
            #[inline]
            pub fn view<'a>(
                &'a self,
                headers: &'a mut Vec<u8>,
            ) -> Result<PropertiesRef<'a>, EncodeError> {
                Ok(PropertiesRef {
                    $($field: match &self.$field {
                        Some(value) => Some(property!(@view headers $type value)),
                        None => None,
                    },)*
                })
            }

            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(mut self, value: impl Into<property!(@owned $type)>) -> Self {
                    self.$field = Some(value.into());
                    self
                }
            )*
        }

        const KNOWN_FLAGS: u16 = 0 $(| 1 << $bit)*;

        /// The properties in wire order: the specification's name, the bit of the flag, the type.
        pub const TABLE: &[(&str, u8, &str)] = &[$(($spec_name, $bit, stringify!($type)),)*];
    };
}

properties! {
    /// The MIME type of the body.
    15 content_type "content-type" shortstr,
    /// The MIME encoding of the body.
    14 content_encoding "content-encoding" shortstr,
    /// The application's headers. A headers exchange routes by them.
    13 headers "headers" table,
    /// 1 for transient, 2 for persistent.
    12 delivery_mode "delivery-mode" octet,
    /// The priority, 0 to 255. Queues with `x-max-priority` and quorum queues use it
    /// (<https://www.rabbitmq.com/docs/priority>).
    11 priority "priority" octet,
    /// Identifies the request that a reply answers.
    10 correlation_id "correlation-id" shortstr,
    /// The queue to which replies are published.
    9 reply_to "reply-to" shortstr,
    /// The time to live in a queue: milliseconds as decimal text
    /// (<https://www.rabbitmq.com/docs/ttl#per-message-ttl-in-publishers>).
    8 expiration "expiration" shortstr,
    /// The application's identifier of the message.
    7 message_id "message-id" shortstr,
    /// The application's timestamp: seconds since 1970-01-01T00:00:00Z.
    6 timestamp "timestamp" timestamp,
    /// The application's name for this kind of message (`type` in the specification).
    5 kind "type" shortstr,
    /// The publisher's user name. RabbitMQ closes the channel if it is another one
    /// (<https://www.rabbitmq.com/docs/validated-user-id>).
    4 user_id "user-id" shortstr,
    /// The name of the publishing application.
    3 app_id "app-id" shortstr,
    /// Reserved. AMQP 0-8 used it as a cluster id.
    2 cluster_id "reserved" shortstr,
}

impl Properties {
    /// Creates empty properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the flags and values in wire format.
    ///
    /// # Errors
    /// Any [`EncodeError`]: nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.view(&mut Vec::new())?.encode(out);
        Ok(())
    }

    /// Whether no property is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
