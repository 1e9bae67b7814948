//! Messages to publish ([`Publish`] borrows, [`Message`] owns) and messages from the broker ([`Delivery`],
//! [`ReturnedMessage`]).

mod owned;
mod publish;
mod received;

pub use owned::Message;
pub use publish::{Body, Publish};
pub(crate) use received::{BODY_GAP, Detached, PROPERTIES_GAP, ROUTING_KEY_GAP, STREAM_OFFSET};
pub use received::{Delivery, Fault, ReceivedMessage, ReturnedMessage};

/// Builder methods for single properties, on a type with a method `change`.
macro_rules! property_setters {
    () => {
        $crate::message::property_setters! { @texts
            /// Sets the MIME type of the body.
            content_type
            /// Sets the MIME encoding of the body.
            content_encoding
            /// Sets the identifier with which a reply names its request.
            correlation_id
            /// Sets the queue to which replies are published.
            reply_to
            /// Sets the application's identifier of the message.
            message_id
            /// Sets the application's name for this kind of message (`type` in the specification).
            kind
            /// Sets the user name, which must be that of the connection
            /// (<https://www.rabbitmq.com/docs/validated-user-id>).
            user_id
            /// Sets the name of the publishing application.
            app_id
        }

        /// Sets a header.
        #[must_use]
        pub fn header(
            self,
            name: impl Into<String>,
            value: impl Into<amqp_proto::FieldValue>,
        ) -> Self {
            self.change(|properties| {
                properties.headers.get_or_insert_default().insert(name, value);
            })
        }

        /// Sets all headers, in place of those set before.
        #[must_use]
        pub fn headers(self, headers: amqp_proto::FieldTable) -> Self {
            self.change(|properties| properties.headers = Some(headers))
        }

        /// Sets the priority, for queues with priorities (<https://www.rabbitmq.com/docs/priority>).
        #[must_use]
        pub fn priority(self, priority: u8) -> Self {
            self.change(|properties| properties.priority = Some(priority))
        }

        /// Sets the time to live in a queue, in whole milliseconds rounded up
        /// (<https://www.rabbitmq.com/docs/ttl#per-message-ttl-in-publishers>).
        #[must_use]
        pub fn expiration(self, ttl: std::time::Duration) -> Self {
            let milliseconds = $crate::message::milliseconds(ttl);
            self.change(|properties| properties.expiration = Some(milliseconds))
        }

        /// Sets the application's timestamp, in seconds since 1970-01-01T00:00:00Z.
        #[must_use]
        pub fn timestamp(self, seconds: u64) -> Self {
            self.change(|properties| properties.timestamp = Some(seconds))
        }
    };
    (@texts $($(#[$doc:meta])* $property:ident)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $property(self, text: impl Into<String>) -> Self {
                self.change(|properties| properties.$property = Some(text.into()))
            }
        )*
    };
}

use owned::milliseconds;
use property_setters;
