//! `Consume`: a queue that an application consumes from, and its rules.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use amqp_async::{FieldTable, FieldValue, QueueBind, QueueDeclare, ReceivedMessage};

use crate::limits::{CHANNEL_ROTATION, HOLDING_PREFETCH, ROTATION_MIN};
use crate::retry::{LastResort, Retry};
use crate::seen::{Deduplication, KeyOf, Seen};

/// A queue that an application consumes from, and the rules for its messages.
///
/// A name is a queue that must exist. A [`QueueDeclare`] is declared at the start, and again whenever its consumer is started
/// again.
///
/// ```
/// use amqp_app::prelude::*;
///
/// let orders = Consume::new(QueueDeclare::quorum("orders"))
///     .bind("amq.topic", "order.created")
///     .concurrency(16)
///     .by_header("tenant")
///     .timeout(Duration::from_secs(30))
///     .on_failure(Retry::now(2).and_after([10, 600].map(Duration::from_secs)).then_park());
/// ```
#[derive(Clone)]
#[must_use]
pub struct Consume {
    /// One, or those of a group.
    pub(crate) queues: Vec<QueueDeclare>,
    pub(crate) binds: Vec<QueueBind>,
    pub(crate) concurrency: u16,
    /// Whether the concurrency was set by code.
    pub(crate) sets_concurrency: bool,
    pub(crate) prefetch: Option<u16>,
    pub(crate) key: Option<Arc<KeyOf>>,
    pub(crate) deduplication: Option<Deduplication>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) exclusive: bool,
    pub(crate) remembers: bool,
    pub(crate) arguments: FieldTable,
    pub(crate) transactional: bool,
    pub(crate) rotation: Option<Duration>,
    pub(crate) batching: Option<Batching>,
}

/// When the messages of a batch are enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    pub(crate) size: u16,
    pub(crate) within: Duration,
}

impl Consume {
    /// Consumes from a queue: one that must exist, by its name, or one that is declared.
    pub fn new(queue: impl Into<Self>) -> Self {
        queue.into()
    }

    /// Declares a durable queue, and binds it to `amq.topic` with each of these keys.
    pub fn topic<K: Into<String>>(
        queue: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        let consume = Self::from(QueueDeclare::new(queue).durable());
        keys.into_iter().fold(consume, |consume, key| consume.bind("amq.topic", key))
    }

    /// Consumes from several queues as one group: by their names, or as values of this type, of which the queues and their
    /// bindings are taken. All other rules are those of the group.
    ///
    /// The group has one channel, and a consumer for each queue, with a tag of its own. The workers and the prefetch are
    /// those of the group. If the broker cancels one of the consumers, all of them end, and the group is started again.
    /// Each queue has its own queues for retries, and its own parking queue.
    ///
    /// ```
    /// use amqp_app::prelude::*;
    ///
    /// let orders = Consume::many(["orders.eu", "orders.us"]).concurrency(8);
    /// ```
    ///
    /// The prefetch is divided among the queues, because quorum queues and streams refuse a limit that consumers share,
    /// and RabbitMQ 4.3 has none (<https://www.rabbitmq.com/docs/consumer-prefetch>).
    pub fn many<C: Into<Self>>(sources: impl IntoIterator<Item = C>) -> Self {
        let mut group = Self::of(Vec::new());
        for Self { queues, binds, .. } in sources.into_iter().map(Into::into) {
            group.queues.extend(queues);
            group.binds.extend(binds);
        }
        group
    }

    /// Binds the queue, or each queue of a group, to an exchange at the start.
    pub fn bind(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        let (exchange, routing_key) = (exchange.into(), routing_key.into());
        let bind = |queue: &QueueDeclare| {
            QueueBind::new(queue.queue.as_str(), exchange.as_str(), routing_key.as_str())
        };
        self.binds.extend(self.queues.iter().map(bind));
        self
    }

    /// Sets how many messages are handled at the same time, 1 by default. With 1, and retries in place alone
    /// ([`Retry::now`]), messages are handled in the order of the queue.
    pub const fn concurrency(mut self, messages: u16) -> Self {
        self.concurrency = if messages == 0 { 1 } else { messages };
        self.sets_concurrency = true;
        self
    }

    /// Sets the prefetch: how many messages the broker sends ahead of their acknowledgement. It is at least the concurrency,
    /// so that no worker waits in vain, and twice the concurrency by default. With [`batches`](Self::batches), both are times
    /// the size of a batch.
    ///
    /// The queues of a group ([`many`](Self::many)) have equal parts of it, each at least one. By default each has the
    /// concurrency, or its part of twice the concurrency if that is more.
    pub const fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// Handles messages with the same key one after the other, in the order of the queue, and others at the same time.
    /// Messages without a key (`None`, or the function panics) are not ordered.
    ///
    /// Messages that wait for their key count towards the prefetch. A message that is retried after a delay leaves the order.
    /// Over several processes, use a queue with
    /// [`single_active_consumer`](QueueDeclare::single_active_consumer).
    pub fn by_key(
        mut self,
        key: impl Fn(&ReceivedMessage) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// Handles messages with the same value of a header one after the other: see [`by_key`](Self::by_key).
    pub fn by_header(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.by_key(move |message| {
            let value = message.headers().ok()?.remove(&name)?;
            Some(match value.as_str() {
                Some(text) => text.to_owned(),
                None => format!("{value:?}"),
            })
        })
    }

    /// Handles messages with the same routing key one after the other: see [`by_key`](Self::by_key).
    pub fn by_routing_key(self) -> Self {
        self.by_key(|message| message.routing_key().as_str().ok().map(ToOwned::to_owned))
    }

    /// Sets how long a handler may take for a message. Then its future is dropped, and the attempt has failed. There is no
    /// limit by default.
    ///
    /// A function that blocks cannot be interrupted, on threads least of all: there a handler reads its
    /// [`Deadline`](crate::Deadline), and what it returns counts.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy, in place of the default one ([`Retry::default`]).
    pub fn on_failure(mut self, policy: Retry) -> Self {
        self.retry = policy;
        self
    }

    /// Acknowledges a message in one transaction with what its handler returns
    /// (<https://www.rabbitmq.com/docs/semantics#tx>), in place of publisher confirms.
    ///
    /// Each worker has a channel and a consumer of its own, on the connection that publishes. The prefetch is divided among
    /// the workers, and is 1 for each by default. If the commit is not confirmed, because the connection was lost, the message
    /// comes again if it was not committed: it is not handled twice without having been delivered twice. So there are fewer
    /// duplicates than with confirms. But a transaction loses what confirms do not lose:
    ///
    /// * A reply to a queue that is full, and rejects publishes: RabbitMQ acknowledges the message, and refuses the reply.
    /// * A reply that reaches no queue: RabbitMQ acknowledges the message, and returns the reply.
    /// * A reply to a quorum queue, if the connection ends during the commit: RabbitMQ may acknowledge the message, and lose the reply.
    ///
    /// In the first two cases the application parks the replies, if its policy parks. A transaction of several queues is not atomic if a node of
    /// the broker fails. Copies of messages that failed are sent with confirms all the same.
    ///
    /// It cannot be used with [`by_key`](Self::by_key), nor with [`exclusive`](Self::exclusive) and more than one worker. With a
    /// [`single_active_consumer`](QueueDeclare::single_active_consumer), one worker alone gets messages.
    pub const fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Has the handler called for several messages at once, which it takes as a [`Batch`](crate::Batch): up to `size` messages, and
    /// those that have come within this time after the first one. What it returns counts for all of them, or for each one
    /// ([`Outcomes`](crate::Outcomes)).
    ///
    /// A bad message does not take others with it. Those that cannot be decoded are left out. If the handler fails,
    /// the batch is halved, and the handler is called for each half, down to single messages. The retry policy decides
    /// about messages for which it fails alone. So a batch should be handled as a whole or not at all, such as in a
    /// transaction of the database. [`Failure::give_back`](crate::Failure::give_back) and
    /// [`Failure::stop`](crate::Failure::stop) give back all messages of the batch.
    ///
    /// [`concurrency`](Self::concurrency) is the number of batches that are handled at the same time, and the
    /// [`timeout`](Self::timeout) that of a call. The prefetch is enough for the batches of all workers, at least. With
    /// [`transactional`](Self::transactional) a batch is one transaction. With [`by_key`](Self::by_key) a batch has at most one
    /// message of each key.
    ///
    /// ```
    /// use amqp_app::prelude::*;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     id: u64,
    /// }
    ///
    /// async fn store(Batch(orders): Batch<Json<Order>>) -> Result<(), Failure> {
    ///     let ids: Vec<u64> = orders.iter().map(|Json(order)| order.id).collect();
    ///     println!("one insert for {ids:?}");
    ///     Ok(())
    /// }
    ///
    /// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> App<P> {
    /// app.consume(Consume::new("orders").batches(100, Duration::from_millis(200)), store)
    /// # }
    /// ```
    pub fn batches(mut self, size: u16, within: Duration) -> Self {
        self.batching = (size > 1).then_some(Batching { size, within });
        self
    }

    /// Consumes on a new channel each time this period has passed. What was held is given back then
    /// ([`Retry::then_hold`]; without this method after 6 min). Messages in work are acknowledged on their own
    /// channel. The period is at least 10 ms.
    pub fn rotate_every(mut self, period: Duration) -> Self {
        self.rotation = Some(period.max(ROTATION_MIN));
        self
    }

    /// Makes this the only consumer of the queue.
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Calls the handler again for a message that it has handled, and whose acknowledgement was lost with the connection.
    ///
    /// By default such a message is recognised when the broker delivers it again, by its message id and its body: what the
    /// handler returned is sent again, with the same ids, and the message is acknowledged. At most 1,000 outcomes of a source
    /// are remembered, for ten minutes. Messages without a message id are never recognised.
    pub const fn forget(mut self) -> Self {
        self.remembers = false;
        self
    }

    /// Calls the handler once for messages with the same message id, as a store of the application says ([`Seen`]). A duplicate
    /// is answered with the replies of the first, which have the same ids, and is acknowledged.
    ///
    /// Messages without a message id are handled as usual. The guide's page [`deduplication`](crate::guide::deduplication) says
    /// what is promised.
    ///
    /// ```
    /// use amqp_app::prelude::*;
    /// use amqp_app::Seen;
    ///
    /// # async fn bill(Text(order): Text) -> Message { Message::new(order).to("amq.topic", "bill") }
    /// # fn example<P: amqp_app::Asynchronous>(app: App<P>, table: impl Seen) -> App<P> {
    /// app.consume(Consume::new("orders").deduplicate(table), bill)
    /// # }
    /// ```
    pub fn deduplicate(self, store: impl Seen) -> Self {
        self.deduplicate_by(store, |message| {
            let id = message.properties_ref().ok()?.message_id?.as_str().ok()?;
            Some(id).filter(|id| !id.is_empty()).map(ToOwned::to_owned)
        })
    }

    /// Calls the handler once for messages with the same key: see [`deduplicate`](Self::deduplicate). Messages without a key
    /// (`None`, or the function panics) are handled as usual.
    pub fn deduplicate_by(
        mut self,
        store: impl Seen,
        key: impl Fn(&ReceivedMessage) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.deduplication = Some(Deduplication { store: Arc::new(store), key: Arc::new(key) });
        self
    }

    /// Sets an argument of the consumer, such as `x-priority`.
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Sets the prefetch, unless it is set.
    pub(crate) fn prefetch_or(self, messages: u16) -> Self {
        let prefetch = self.prefetch.or(Some(messages));
        Self { prefetch, ..self }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|it| it.queue.as_str())
    }

    /// The number of channels, each of which has a consumer for each queue.
    pub(crate) fn channels(&self) -> u16 {
        if self.transactional { self.concurrency } else { 1 }
    }

    /// The number of workers of each channel.
    pub(crate) const fn workers(&self) -> u16 {
        if self.transactional { 1 } else { self.concurrency }
    }

    /// The prefetch of a consumer: its part of that of the source. Consumers are numbered channel by channel.
    pub(crate) fn prefetch_of(&self, number: usize) -> u16 {
        let batch = self.batch_size();
        let queues = self.queues.len().max(1);
        let consumers = queues * usize::from(self.channels());
        let in_work = self.in_work_max();
        let by_default = match &self.retry.last {
            LastResort::Hold => {
                consumers * (usize::from(HOLDING_PREFETCH) + usize::from(self.workers()) * batch)
            }
            _ if self.transactional => consumers * batch,
            _ => in_work.saturating_mul(queues.max(2)),
        };
        let least = in_work.max(consumers * batch);
        let shared = self.prefetch.map_or(by_default, usize::from).max(least);
        let part = shared / consumers + usize::from(number < shared % consumers);
        u16::try_from(part).unwrap_or(u16::MAX)
    }

    /// The number of messages that its workers may have in work.
    pub(crate) fn in_work_max(&self) -> usize {
        usize::from(self.concurrency) * self.batch_size()
    }

    pub(crate) fn batch_size(&self) -> usize {
        self.batching.map_or(1, |it| usize::from(it.size))
    }

    /// How long it consumes on a channel.
    pub(crate) fn rotation(&self) -> Option<Duration> {
        let holds = self.retry.last == LastResort::Hold;
        self.rotation.or_else(|| holds.then_some(CHANNEL_ROTATION))
    }

    /// Whether queues beside this one are quorum queues.
    pub(crate) fn is_quorum(&self, queue: &QueueDeclare) -> bool {
        let kind = queue.arguments.get("x-queue-type").and_then(FieldValue::as_str);
        self.retry.quorum || kind == Some("quorum")
    }

    fn of(queues: Vec<QueueDeclare>) -> Self {
        Self {
            queues,
            binds: Vec::new(),
            concurrency: 1,
            sets_concurrency: false,
            prefetch: None,
            key: None,
            deduplication: None,
            timeout: None,
            retry: Retry::default(),
            exclusive: false,
            remembers: true,
            arguments: FieldTable::new(),
            transactional: false,
            rotation: None,
            batching: None,
        }
    }
}

/// A queue that must exist.
impl From<&str> for Consume {
    fn from(queue: &str) -> Self {
        Self::from(QueueDeclare::passive(queue))
    }
}

/// A queue that must exist.
impl From<String> for Consume {
    fn from(queue: String) -> Self {
        Self::from(QueueDeclare::passive(queue))
    }
}

/// A queue that is declared.
impl From<QueueDeclare> for Consume {
    fn from(queue: QueueDeclare) -> Self {
        Self::of(vec![queue])
    }
}

impl fmt::Debug for Consume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("queues", &self.queues)
            .field("binds", &self.binds)
            .field("concurrency", &self.concurrency)
            .field("prefetch", &self.prefetch)
            .field("by_key", &self.key.is_some())
            .field("deduplicates", &self.deduplication.is_some())
            .field("timeout", &self.timeout)
            .field("transactional", &self.transactional)
            .field("batching", &self.batching)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Consume;
    use crate::limits::HOLDING_PREFETCH;
    use crate::retry::Retry;

    #[test]
    fn the_prefetch_is_shared_among_the_queues_of_a_group() {
        let parts = |consume: &Consume| {
            (0..consume.queues.len()).map(|it| consume.prefetch_of(it)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&Consume::new("a").concurrency(4)), [8], "twice the concurrency");
        assert_eq!(parts(&Consume::new("a").concurrency(4).prefetch(2)), [4]);
        assert_eq!(parts(&Consume::new("a").concurrency(u16::MAX)), [u16::MAX]);
        let group = || Consume::many(["a", "b", "c"]);
        assert_eq!(parts(&group().concurrency(4)), [4, 4, 4]);
        assert_eq!(parts(&group().prefetch(11)), [4, 4, 3]);
        assert_eq!(
            parts(&group().prefetch(1)),
            [1, 1, 1],
            "a consumer without prefetch has no limit"
        );
        assert!(parts(&Consume::many([""; 0])).is_empty());
        // Three workers, each with a consumer of both queues.
        let each = |consume: Consume| {
            let consume = consume.concurrency(3).transactional();
            (0..6).map(|it| consume.prefetch_of(it)).collect::<Vec<_>>()
        };
        assert_eq!(each(Consume::many(["a", "b"])), [1; 6]);
        assert_eq!(each(Consume::many(["a", "b"]).prefetch(15)), [3, 3, 3, 2, 2, 2]);
        let batches = |size| Consume::new("a").concurrency(3).batches(size, Duration::ZERO);
        assert_eq!(parts(&batches(10)), [60], "twice what the workers have in work");
        assert_eq!(parts(&batches(10).prefetch(5)), [30]);
        assert_eq!(parts(&batches(1)), [6], "no batches");
        assert_eq!(
            each(Consume::new("a").batches(10, Duration::ZERO).prefetch(40))[..3],
            [14, 13, 13]
        );
        assert_eq!(each(Consume::many(["a", "b"]).batches(10, Duration::ZERO)), [10; 6]);
        let holding = Consume::new("a").on_failure(Retry::none().then_hold());
        assert_eq!(holding.clone().prefetch_of(0), HOLDING_PREFETCH + 1);
        assert_eq!(holding.clone().concurrency(30).prefetch_of(0), HOLDING_PREFETCH + 30);
        let each = holding.concurrency(30).transactional();
        assert_eq!((0..30).map(|it| each.prefetch_of(it)).max(), Some(HOLDING_PREFETCH + 1));
    }
}
