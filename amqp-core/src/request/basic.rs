use amqp_proto::method;
use amqp_proto::{FieldTable, FieldValue, frame};

use crate::error::InvalidArgument;
use crate::ids::TagKind;
use crate::message::STREAM_OFFSET;
use crate::request::{Got, Pending, raw, requests, short};

/// Sets how many deliveries may be unacknowledged
/// (`basic.qos`; <https://www.rabbitmq.com/docs/consumer-prefetch>).
///
/// A consumer with a [`prefetch`](BasicConsume::prefetch) is not affected by a limit for each consumer, and
/// counts towards a limit for the channel. Without either call a consumer has a prefetch of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicQos {
    prefetch_count: u16,
    global: bool,
}

impl BasicQos {
    /// For each consumer that is started on the channel from here on; 0 is no limit.
    pub const fn new(prefetch_count: u16) -> Self {
        Self { prefetch_count, global: false }
    }

    /// For the channel as a whole, at once; 0 is no limit. Sent without `global`, a later `basic.qos` ends
    /// this limit.
    ///
    /// RabbitMQ 4.3 has no such limits: there it is one for each consumer that is started from here on.
    /// Before, quorum queues and streams refuse consumers of a channel with such a limit (540).
    #[must_use]
    pub const fn global(mut self) -> Self {
        self.global = true;
        self
    }
}

/// Starts a consumer (`basic.consume`), preceded by `basic.qos` where its prefetch needs that.
#[derive(Clone, Debug, PartialEq)]
pub struct BasicConsume {
    pub(crate) queue: String,
    pub(crate) consumer_tag: Option<String>,
    no_local: bool,
    pub(crate) no_ack: bool,
    exclusive: bool,
    pub(crate) prefetch: Option<u16>,
    requeue_on_drop: bool,
    arguments: FieldTable,
}

impl BasicConsume {
    /// Consumes from `queue`, each delivery to be acknowledged. As many may be unacknowledged as the
    /// channel's last [`BasicQos`] says, or 256 without one.
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

    /// The consumer's tag on the channel; by default one is made up.
    #[must_use]
    pub fn consumer_tag(mut self, tag: impl Into<String>) -> Self {
        self.consumer_tag = Some(tag.into());
        self
    }

    /// How many deliveries of this consumer may be unacknowledged, whatever the channel's [`BasicQos`] says;
    /// 0 is no limit. It counts for this consumer alone, and has no effect without acknowledgement.
    ///
    /// A limit for the channel as a whole holds beside it. RabbitMQ before 4.3 lifts that limit for the moment
    /// in which this consumer starts: other consumers of the channel may get more than it allows then.
    #[must_use]
    pub const fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = Some(count);
        self
    }

    /// Deliveries count as acknowledged when they are sent: what is lost on the way is lost. A stream
    /// refuses such a consumer.
    #[must_use]
    pub const fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// Refused with 403 while there is another consumer, and refuses others.
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Asks not to deliver messages published on this connection; RabbitMQ ignores it.
    #[must_use]
    pub const fn no_local(mut self) -> Self {
        self.no_local = true;
        self
    }

    /// Deliveries go to consumers of the highest priority while those take them; 0 is the default
    /// (`x-priority`; <https://www.rabbitmq.com/docs/consumer-priority>).
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        self.argument("x-priority", priority)
    }

    /// Where in a stream to begin
    /// (`x-stream-offset`; <https://www.rabbitmq.com/docs/streams#consuming>). It also tells this client
    /// that the queue is a stream, which takes no message back, and before RabbitMQ 3.11 closes the
    /// connection on a nack or reject: its deliveries are acknowledged where others would be refused or
    /// requeued.
    #[must_use]
    pub fn stream_offset(self, offset: StreamOffset) -> Self {
        self.argument(STREAM_OFFSET, offset)
    }

    /// A delivery that is dropped without an ack or nack is requeued, or acknowledged if it is of a
    /// stream. By default nothing is sent, and
    /// it stays unacknowledged until its channel closes.
    #[must_use]
    pub const fn requeue_on_drop(mut self) -> Self {
        self.requeue_on_drop = true;
        self
    }

    /// One argument, such as `x-cancel-on-ha-failover`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Whether deliveries count as acknowledged when they are sent.
    pub const fn is_no_ack(&self) -> bool {
        self.no_ack
    }

    /// Whether a delivery that is dropped without an ack or nack is requeued.
    pub const fn is_requeue_on_drop(&self) -> bool {
        self.requeue_on_drop
    }

    /// Whether a stream's offset is given.
    pub fn is_stream(&self) -> bool {
        self.arguments.get(STREAM_OFFSET).is_some()
    }

    /// What is known of the tags of its deliveries.
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
    /// With the oldest message there is.
    First,
    /// With the last chunk that was written.
    Last,
    /// With what is published from here on.
    Next,
    /// With the message of this offset.
    Offset(u64),
    /// With the chunk in which this moment lies, in seconds since 1970-01-01T00:00:00Z.
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

/// Asks for one message (`basic.get`; <https://www.rabbitmq.com/docs/consumers#polling>).
#[derive(Clone, Debug, PartialEq)]
pub struct BasicGet {
    queue: String,
    no_ack: bool,
    requeue_on_drop: bool,
}

impl BasicGet {
    /// Takes the first ready message of `queue`, to be acknowledged.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), no_ack: false, requeue_on_drop: false }
    }

    /// The message counts as acknowledged when it is sent: if it is lost on the way it is lost.
    #[must_use]
    pub const fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// If the message is dropped without an ack or nack it is requeued. By default nothing is sent, and
    /// it stays unacknowledged until its channel closes.
    #[must_use]
    pub const fn requeue_on_drop(mut self) -> Self {
        self.requeue_on_drop = true;
        self
    }

    /// Whether the message is requeued if it is dropped without an ack or nack.
    pub const fn is_requeue_on_drop(&self) -> bool {
        self.requeue_on_drop
    }

    /// Whether the message counts as acknowledged when it is sent.
    pub const fn is_no_ack(&self) -> bool {
        self.no_ack
    }
}

impl From<&str> for BasicGet {
    fn from(queue: &str) -> Self {
        Self::new(queue)
    }
}

/// Asks for all unacknowledged deliveries of the channel again (`basic.recover`; AMQP 0-9-1,
/// 1.8.3.16). They are requeued, and may go to other consumers; deliveries at hand become stale.
///
/// RabbitMQ refuses to redeliver to the same consumer (`requeue` = 0) by closing the connection, so
/// that there is no way to ask for it. `basic.recover-async`, which nothing answers, is not offered:
/// there would be no telling which deliveries it made stale.
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
