//! The channel's handle: plain calls, acknowledgements by tag, calls without a reply, the close.
//!
//! As in `amqp-async`, methods that return another handle stand beside that handle.

use std::time::Duration;

use amqp_async::core::{
    AckError, BasicQos, ChannelCause, ChannelFlow, DeliveryTag, Error, ExchangeBind,
    ExchangeDeclare, ExchangeDelete, MessageCount, NoWait, QueueBind, QueueDeclare, QueueDeclareOk,
    QueueDelete, QueuePurge,
};

use crate::wait::{wait, wait_timeout};

/// A channel of a connection.
///
/// Clones are handles to the same channel, for use from any thread; calls are answered in the order in
/// which they are sent. A channel that the broker has closed stays closed, and every later call on it
/// returns why. When the last handle to it is dropped, with its publishers, consumers and deliveries, the
/// channel is closed in the background.
///
/// # Calls
/// A call takes its request, or the name where a name is enough: `channel.queue_declare("orders")`,
/// `channel.queue_delete("orders")`. It blocks the calling thread until the broker has answered. It fails with [`Error`]: the channel or
/// the connection is closed or closes meanwhile, an argument cannot be sent, or no reply comes within the
/// call timeout (30 s unless configured).
#[derive(Clone, Debug)]
pub struct Channel(amqp_async::Channel);

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty)?) -> $reply:ty = $request:ty, $value:expr;
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// Those of a [call](Self#calls).
            pub fn $name(&self, $($argument: impl Into<$type>)?) -> Result<$reply, Error> {
                wait(self.0.$name($($argument)?))
            }
        )*
    };
}

impl Channel {
    pub(crate) const fn new(channel: amqp_async::Channel) -> Self {
        Self(channel)
    }

    /// The asynchronous handle.
    pub(crate) const fn shared(&self) -> &amqp_async::Channel {
        &self.0
    }

    amqp_async::plain_calls!(Channel => calls);

    /// Acknowledges a delivery by its tag, or with `multiple` all of the channel up to it; the handle
    /// of the delivery is not needed (AMQP 0-9-1, 1.8.3.13).
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_ack(&self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        self.0.basic_ack(tag, multiple)
    }

    /// Refuses a delivery by its tag, or with `multiple` all of the channel up to it: requeued, or else
    /// dead-lettered or dropped (<https://www.rabbitmq.com/docs/nack>). A delivery of a stream is
    /// acknowledged instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent. With `multiple`, [`AckError::Stream`] if the channel has consumed
    /// a stream; otherwise [`AckError::MaybeStream`] if the delivery may come from a stream.
    pub fn basic_nack(
        &self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        self.0.basic_nack(tag, multiple, requeue)
    }

    /// Refuses a delivery by its tag: requeued, or else dead-lettered or dropped (AMQP 0-9-1,
    /// 1.8.3.14). A delivery of a stream is acknowledged instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_reject(&self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        self.0.basic_reject(tag, requeue)
    }

    /// Sends a declaration, a binding or a deletion without asking for a reply (`no-wait`): returns when it is
    /// queued to be written. A broker that refuses it closes the channel, and later calls return why.
    ///
    /// # Errors
    /// What is known: the channel or the connection is closed, or an argument cannot be sent.
    pub fn no_wait<R: NoWait + Unpin>(&self, request: R) -> Result<(), Error> {
        wait(self.0.no_wait(request))
    }

    /// Closes the channel, behind everything that is queued on it. Closing a closed channel is fine.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())
    }

    /// Waits until the channel is closed, and returns the reason: the application closed it, the broker did, or the
    /// connection ended.
    pub fn closed(&self) -> ChannelCause {
        wait(self.0.closed())
    }

    /// As [`closed`](Self::closed), but waits for `timeout` at most: `None` if the channel is not closed by then.
    pub fn closed_timeout(&self, timeout: Duration) -> Option<ChannelCause> {
        wait_timeout(self.0.closed(), timeout)
    }

    /// Whether the channel is open, and neither it nor its connection is closing.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// The channel's number on its connection, as the broker's log and management page show it. Another channel may
    /// have the number once this one is closed.
    pub fn number(&self) -> u16 {
        self.0.number()
    }

    /// Why the channel is closed or closing, if it is.
    pub fn close_cause(&self) -> Option<ChannelCause> {
        self.0.close_cause()
    }
}
