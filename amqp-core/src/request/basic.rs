use amqp_proto::method;
use amqp_proto::{FieldTable, FieldValue, frame};

use crate::error::InvalidArgument;
use crate::ids::TagKind;
use crate::message::STREAM_OFFSET;
use crate::request::{Got, Pending, flags, raw, requests, short};

/// Limits how many deliveries may be unacknowledged
/// (`basic.qos`; <https://www.rabbitmq.com/docs/consumer-prefetch>).
///
/// A consumer with a [`prefetch`](BasicConsume::prefetch) ignores a limit for each consumer, and counts towards
/// a limit for the channel. Without either, a consumer has a prefetch of 256.
///
/// ```
/// use amqp_core::BasicQos;
///
/// // At most 64 unacknowledged deliveries for each consumer that starts after this call.
/// let qos = BasicQos::new(64);
/// // At most 200 for all consumers of the channel together.
/// let shared = BasicQos::new(200).global();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BasicQos {
    /// The maximum number of unacknowledged deliveries; 0 is no limit.
    pub prefetch_count: u16,
    /// Whether the limit is for the channel as a whole.
    pub global: bool,
}

impl BasicQos {
    /// Sets a limit for each consumer that starts on the channel after this call; 0 is no limit.
    pub const fn new(prefetch_count: u16) -> Self {
        Self { prefetch_count, global: false }
    }

    flags! {
        /// Sets the limit for the channel as a whole, immediately; 0 is no limit. A later `basic.qos` without
        /// `global` ends it.
        ///
        /// RabbitMQ 4.3 has no such limits: there it is a limit for each consumer that starts later. Before
        /// 4.3, quorum queues and streams refuse consumers on a channel with such a limit (540).
        global, global_if;
    }
}

/// Starts a consumer (`basic.consume`), preceded by `basic.qos` if its prefetch needs that.
///
/// ```
/// use amqp_core::{BasicConsume, StreamOffset};
///
/// let orders = BasicConsume::new("orders").prefetch(64).consumer_tag("worker-1");
/// assert_eq!(orders.queue, "orders");
/// let log = BasicConsume::new("log").stream_offset(StreamOffset::First);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BasicConsume {
    /// The queue.
    pub queue: String,
    /// The consumer tag, `None` to generate one.
    pub consumer_tag: Option<String>,
    /// Whether messages published on the same connection are not wanted.
    pub no_local: bool,
    /// Whether deliveries need no acknowledgement.
    pub no_ack: bool,
    /// Whether this is the only consumer of the queue.
    pub exclusive: bool,
    /// The maximum number of unacknowledged deliveries, `None` for the limit of the channel.
    pub prefetch: Option<u16>,
    /// Whether deliveries that are dropped are requeued.
    pub requeue_on_drop: bool,
    /// The arguments, which [`priority`](Self::priority) and [`stream_offset`](Self::stream_offset) set too.
    pub arguments: FieldTable,
}

impl BasicConsume {
    /// Consumes from a queue with acknowledgement. The prefetch is the limit of the channel's last
    /// [`BasicQos`], or 256 without one.
    pub fn new(queue: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            consumer_tag: None,
            no_local: false,
            no_ack: false,
            exclusive: false,
            prefetch: None,
            requeue_on_drop: false,
            arguments: FieldTable::new(),
        }
    }

    /// Sets the consumer tag, which must be unique on the channel. By default one is generated.
    #[must_use]
    pub fn consumer_tag(mut self, tag: impl Into<String>) -> Self {
        self.consumer_tag = Some(tag.into());
        self
    }

    /// Sets the maximum number of unacknowledged deliveries of this consumer; 0 is no limit. It overrides the
    /// channel's [`BasicQos`], and has no effect without acknowledgement.
    ///
    /// A limit for the channel as a whole applies as well. RabbitMQ before 4.3 lifts that limit for a moment
    /// while this consumer starts: other consumers of the channel may receive more than it allows then.
    #[must_use]
    pub const fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = Some(count);
        self
    }

    flags! {
        /// Consumes without acknowledgement: the broker forgets a delivery when it has sent it, so that one
        /// which is lost on the way is lost (at most once). Streams refuse such a consumer.
        no_ack, no_ack_if;
        /// Makes this the only consumer of the queue. Refused with 403 while there is another one.
        exclusive, exclusive_if;
        /// Asks not to deliver messages published on the same connection. RabbitMQ ignores it.
        no_local, no_local_if;
        /// Requeues a delivery that is dropped without ack, nack or reject; one from a stream is acknowledged.
        /// By default nothing is sent, and the delivery stays unacknowledged until its channel closes.
        requeue_on_drop, requeue_on_drop_if;
    }

    /// Sets the priority, 0 by default. Consumers of the highest priority receive deliveries first, while they
    /// have prefetch left (`x-priority`; <https://www.rabbitmq.com/docs/consumer-priority>).
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        self.argument("x-priority", priority)
    }

    /// Sets where in a stream to begin
    /// (`x-stream-offset`; <https://www.rabbitmq.com/docs/streams#consuming>).
    ///
    /// It also tells this client that the queue is a stream. A stream does not requeue messages, and before
    /// RabbitMQ 3.11 a nack or reject closes the connection. So where other deliveries would be refused or
    /// requeued, those of a stream are acknowledged.
    #[must_use]
    pub fn stream_offset(self, offset: StreamOffset) -> Self {
        self.argument(STREAM_OFFSET, offset)
    }

    /// Sets an argument, such as `x-cancel-on-ha-failover`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Whether a [`stream_offset`](Self::stream_offset) is set.
    pub fn is_stream(&self) -> bool {
        self.arguments.get(STREAM_OFFSET).is_some()
    }

    /// The kind of its delivery tags, as far as it is known.
    pub(crate) fn tag_kind(&self) -> TagKind {
        match () {
            () if self.no_ack => TagKind::NoAck,
            () if self.is_stream() => TagKind::Stream,
            () => TagKind::Ack,
        }
    }

    pub(crate) fn encode_with_tag(
        &self,
        number: u16,
        tag: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidArgument> {
        let mut table = Vec::new();
        let consume = method::basic::Consume {
            queue: short("queue", &self.queue)?,
            consumer_tag: short("consumer-tag", tag)?,
            no_local: self.no_local,
            no_ack: self.no_ack,
            exclusive: self.exclusive,
            arguments: raw(&self.arguments, &mut table)?,
            ..Default::default()
        };
        frame::write_method(out, number, &consume);
        Ok(())
    }
}

/// Where in a stream a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamOffset {
    /// The oldest message of the stream.
    First,
    /// The last chunk that was written.
    Last,
    /// The first message that is published after the consumer has started.
    Next,
    /// The message with this offset.
    Offset(u64),
    /// The chunk at this time, in seconds since 1970-01-01T00:00:00Z.
    Timestamp(u64),
}

impl From<StreamOffset> for FieldValue {
    fn from(offset: StreamOffset) -> Self {
        match offset {
            StreamOffset::First => "first".into(),
            StreamOffset::Last => "last".into(),
            StreamOffset::Next => "next".into(),
            StreamOffset::Offset(offset) => i64::try_from(offset).unwrap_or(i64::MAX).into(),
            StreamOffset::Timestamp(seconds) => Self::Timestamp(seconds),
        }
    }
}

/// Gets one message (`basic.get`; <https://www.rabbitmq.com/docs/consumers#polling>).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BasicGet {
    /// The queue.
    pub queue: String,
    /// Whether the message needs no acknowledgement.
    pub no_ack: bool,
    /// Whether the message is requeued if it is dropped.
    pub requeue_on_drop: bool,
}

impl BasicGet {
    /// Gets the first ready message of a queue, with acknowledgement.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), no_ack: false, requeue_on_drop: false }
    }

    flags! {
        /// Gets the message without acknowledgement: the broker forgets it when it has sent it.
        no_ack, no_ack_if;
        /// Requeues the message if it is dropped without ack, nack or reject. By default nothing is sent, and it
        /// stays unacknowledged until its channel closes.
        requeue_on_drop, requeue_on_drop_if;
    }
}

/// Requeues all unacknowledged deliveries of the channel (`basic.recover`; AMQP 0-9-1, 1.8.3.16). The broker
/// delivers them again, perhaps to other consumers. Their delivery tags become stale.
///
/// RabbitMQ does not redeliver to the same consumer: it closes the connection for `requeue` = 0, so this cannot
/// be requested. `basic.recover-async` is not offered either: it has no reply, so there is no way to know which
/// deliveries it has made stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BasicRecover {}

requests! {
    BasicRecover -> (), Pending::Recover,
    |this, table, no_wait| method::basic::Recover { requeue: true };
    BasicGet -> Option<Got>, Pending::Get { no_ack: this.no_ack },
    |this, table, no_wait| method::basic::Get {
        queue: short("queue", &this.queue)?,
        no_ack: this.no_ack,
        ..Default::default()
    };
    BasicQos -> (), Pending::Qos { count: this.prefetch_count, global: this.global },
    |this, table, no_wait| method::basic::Qos {
        prefetch_size: 0,
        prefetch_count: this.prefetch_count,
        global: this.global,
    };
}
