//! The `Channel` handle: plain calls, acknowledgements by tag, calls without a reply, and close.
//!
//! As in `amqp-async`, methods that return another handle are in the file of that handle.

use std::time::Duration;

use amqp_async::core::requests::{ChannelFlow, MessageCount, NoWait};
use amqp_async::core::{
    AckError, BasicQos, ChannelCause, DeliveryTag, Error, ExchangeBind, ExchangeDeclare,
    ExchangeDelete, QueueBind, QueueDeclare, QueueDeclareOk, QueueDelete, QueuePurge,
};

use crate::wait::{wait, wait_timeout};

/// A channel of a connection (<https://www.rabbitmq.com/docs/channels>).
///
/// The handle is thread-safe, and its clones are handles to the same channel. Calls are answered in the order
/// in which they are sent. A channel that the broker has closed stays closed, and every later call on it
/// returns the reason. When the last handle to it is dropped, including its publishers, consumers and
/// deliveries, the channel is closed in the background.
///
/// # Calls
/// A call takes its request, or only a name where that is enough: `channel.queue_declare("orders")`,
/// `channel.queue_delete("orders")`. It blocks the calling thread until the broker has replied, and returns
/// the reply. It returns an [`Error`] if the channel or the connection is closed or closes meanwhile, if an
/// argument cannot be sent, or if no reply arrives within the call timeout (30 s by default). It returns
/// [`Error::Interrupted`] if the connection is lost before the reply, and is being recovered. A call that is made while it
/// is being recovered waits, within its timeout.
///
/// ```
/// # use amqp_blocking::{Connection, Error, QueueBind, QueueDeclare};
/// # fn example(connection: &Connection) -> Result<(), Error> {
/// let channel = connection.open_channel()?;
/// channel.queue_declare(QueueDeclare::quorum("orders"))?;
/// channel.queue_bind(QueueBind::new("orders", "events", "order.*"))?;
/// channel.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Channel(pub(crate) amqp_async::Channel);

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

    /// Returns the async handle.
    pub(crate) const fn shared(&self) -> &amqp_async::Channel {
        &self.0
    }

    amqp_async::plain_calls!(Channel => calls);

    /// Acknowledges a delivery by its tag, or with `multiple` all unacknowledged ones of the channel up to it
    /// (`basic.ack`; AMQP 0-9-1, 1.8.3.13). The delivery's handle is not needed.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_ack(&self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        self.0.basic_ack(tag, multiple)
    }

    /// Refuses a delivery by its tag, or with `multiple` all unacknowledged ones of the channel up to it
    /// (`basic.nack`; <https://www.rabbitmq.com/docs/nack>). With `requeue` they are requeued; without, they
    /// are dead-lettered or dropped. A delivery of a stream is acked instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent. With `multiple`, [`AckError::Stream`] if the channel has consumed from
    /// a stream; otherwise [`AckError::MaybeStream`] if the delivery may come from a stream.
    pub fn basic_nack(
        &self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        self.0.basic_nack(tag, multiple, requeue)
    }

    /// Refuses a delivery by its tag (`basic.reject`; AMQP 0-9-1, 1.8.3.14). With `requeue` it is requeued;
    /// without, it is dead-lettered or dropped. A delivery of a stream is acked instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_reject(&self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        self.0.basic_reject(tag, requeue)
    }

    /// Sends a declaration, a binding or a deletion without requesting a reply (`no-wait`). Returns when the
    /// request is in the output buffer. If the broker refuses it, it closes the channel, and later calls
    /// return the reason.
    ///
    /// # Errors
    /// [`Error`] if the channel or the connection is closed, or an argument cannot be sent. `Ok` does not
    /// mean that the broker has carried out the request.
    pub fn no_wait<R: NoWait + Unpin>(&self, request: R) -> Result<(), Error> {
        wait(self.0.no_wait(request))
    }

    /// Closes the channel after everything that is buffered on it is sent (`channel.close`), and waits until
    /// the broker has confirmed it. Closing a closed channel is not an error.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())
    }

    /// Waits until the channel is closed. Returns the reason: a close by the application, a close by the
    /// broker, or the end of the connection.
    pub fn closed(&self) -> ChannelCause {
        wait(self.0.closed())
    }

    /// As [`closed`](Self::closed), but waits for at most `timeout`. Returns `None` if the channel is not
    /// closed by then.
    pub fn closed_timeout(&self, timeout: Duration) -> Option<ChannelCause> {
        wait_timeout(self.0.closed(), timeout)
    }

    /// Returns whether the channel is open, and neither it nor its connection is closing. `false` while the
    /// connection is being recovered.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Returns the channel's number on its connection, as the broker's log and management page show it.
    /// `None` while the connection is being recovered: then the channel may get another number. Another channel may get
    /// the number once this one is closed.
    pub fn number(&self) -> Option<u16> {
        self.0.number()
    }

    /// Returns the reason if the channel is closed or closing.
    pub fn close_cause(&self) -> Option<ChannelCause> {
        self.0.close_cause()
    }
}
