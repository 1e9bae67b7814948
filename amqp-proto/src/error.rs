//! What can be wrong with received bytes, and with values that are to be sent.

/// The peer sent bytes that are no AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A frame does not end with the octet 0xCE (AMQP 0-9-1, 4.2.3).
    #[error("frame ends with {0:#04x} instead of 0xce")]
    BadFrameEnd(u8),
    /// A frame is larger than the limit for its kind.
    #[error("frame payload of {size} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The payload size that the frame's head announces, in bytes.
        size: u32,
        /// The limit that applies, in bytes.
        limit: u32,
    },
    /// A heartbeat frame carries a payload.
    #[error("heartbeat frame with a payload")]
    HeartbeatPayload,
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Tables or arrays are nested deeper than the limit.
    #[error("tables nested too deep")]
    TooDeep,
    /// Bytes remain after the last field.
    #[error("bytes left over after the last field")]
    TrailingBytes,
    /// A field reaches beyond the bytes that hold it.
    #[error("field cut short")]
    Truncated,
    /// No field value has this type octet.
    #[error("unknown field type {0:#04x}")]
    UnknownFieldType(u8),
    /// No frame has this type octet.
    #[error("unknown frame type {0}")]
    UnknownFrameType(u8),
    /// No method has these ids.
    #[error("unknown method {class}.{method}")]
    UnknownMethod {
        /// The class id.
        class: u16,
        /// The method id.
        method: u16,
    },
    /// The flags of a content header set bits that name no property.
    #[error("unknown property flags {0:#06x}")]
    UnknownPropertyFlags(u16),
}

/// A value has no representation on the wire that RabbitMQ accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// NaN or an infinity: RabbitMQ ends the connection on them.
    #[error("a floating-point number in a table is not finite")]
    NotFinite,
    /// A short string has more than 255 bytes.
    #[error("text of {0} bytes is over the 255 of a short string")]
    StringTooLong(usize),
    /// Tables or arrays are nested deeper than [`crate::TABLE_DEPTH_MAX`].
    #[error("tables nested deeper than {} levels", crate::TABLE_DEPTH_MAX)]
    TooDeep,
    /// A table, array or long string has more bytes than its length field can say.
    #[error("{0} bytes are over the limit of a table, array or long string")]
    TooLarge(usize),
}
