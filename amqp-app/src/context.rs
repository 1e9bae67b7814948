//! `Context`: the message that is being handled, and everything that extractors and middleware read of it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use amqp_async::errors::Malformed;
use amqp_async::{Delivery, FieldTable, Properties, ReceivedMessage};
use bytes::Bytes;

use crate::copy;
use crate::failure::Failure;
#[cfg(feature = "files")]
use crate::files::Commit;
use crate::late::Late;
use crate::message::Message;
use crate::participants::{Joined, Joint};
use crate::runner::Runner;
use crate::sync::lock;

/// The message that is being handled. Extractors borrow it, and middleware passes it on.
///
/// A handler may take it as an argument. It is cheap to clone. [`Context::of`] makes one without a broker, for
/// [tests of a handler](crate::testing::call).
pub struct Context<S = ()> {
    shared: Arc<Shared>,
    state: S,
}

struct Shared {
    queue: Arc<str>,
    content: Content,
    redelivered: bool,
    /// The attempts on this delivery before this one.
    in_place: u32,
    counts_redelivered: bool,
    deduplicates: bool,
    deadline: Option<Instant>,
    properties: OnceLock<Result<Properties, Malformed>>,
    slot: Arc<Slot>,
    extensions: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    outgoing: Mutex<Vec<Message>>,
    participants: Mutex<Joint>,
    /// Where handlers that block run, and which of them run late. `None` without an application.
    blocking: Option<(Runner, Late)>,
    /// The messages of the batch for which this stands. `None` for a message.
    batch: Option<Vec<Arc<Self>>>,
    /// Why this message is left out of its batch.
    refused: Mutex<Option<Failure>>,
    /// The same for all messages that are committed together.
    #[cfg(feature = "files")]
    commit: OnceLock<Arc<Commit>>,
}

enum Content {
    Received(ReceivedMessage),
    Built(Box<amqp_async::Message>),
}

/// Where the delivery of a message is while a handler runs.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Held>);

#[derive(Debug, Default)]
#[allow(
    clippy::large_enum_variant,
    reason = "almost all are here, and a box would be one more for each message"
)]
pub(crate) enum Held {
    /// Here: it is acknowledged by the handler's outcome.
    Here(Delivery),
    /// The handler has taken it, and acknowledges it itself.
    #[default]
    Taken,
    /// The application answers it, and sees to what follows.
    Answered,
    /// The application has given it back, because the handler took too long to end.
    GivenBack,
}

impl Slot {
    pub(crate) fn holding(delivery: Delivery) -> Self {
        Self(Mutex::new(Held::Here(delivery)))
    }

    /// Takes the delivery, if it is here.
    pub(crate) fn take(&self, leaving: Held) -> Option<Delivery> {
        let mut held = lock(&self.0);
        if !matches!(*held, Held::Here(_)) {
            return None;
        }
        match std::mem::replace(&mut *held, leaving) {
            Held::Here(delivery) => Some(delivery),
            _ => None,
        }
    }

    /// Looks at the delivery, if it is here.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Delivery) -> T) -> Option<T> {
        match &*lock(&self.0) {
            Held::Here(delivery) => Some(look(delivery)),
            Held::Taken | Held::Answered | Held::GivenBack => None,
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.look(|_| ()).is_some()
    }

    /// Puts back what an extractor has taken for a handler that is not called.
    fn put(&self, delivery: Delivery) {
        *lock(&self.0) = Held::Here(delivery);
    }

    /// What follows from the answer is done too.
    pub(crate) fn settled(&self) {
        let mut held = lock(&self.0);
        if matches!(*held, Held::Answered) {
            *held = Held::Taken;
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        matches!(*lock(&self.0), Held::Answered)
    }

    pub(crate) fn was_given_back(&self) -> bool {
        matches!(*lock(&self.0), Held::GivenBack)
    }
}

/// What the application knows of a message, beside the message.
pub(crate) struct Facts {
    pub(crate) queue: Arc<str>,
    pub(crate) in_place: u32,
    pub(crate) counts_redelivered: bool,
    pub(crate) deduplicates: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) runner: Runner,
    pub(crate) late: Late,
}

impl<S> Context<S> {
    pub(crate) fn new(
        facts: Facts,
        message: ReceivedMessage,
        redelivered: bool,
        slot: Arc<Slot>,
        state: S,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(facts, message, redelivered, slot)), state }
    }

    /// Creates the context of a batch. It stands for its first message, and has no delivery.
    pub(crate) fn batch_of(
        facts: Facts,
        first: ReceivedMessage,
        messages: &[Self],
        state: S,
    ) -> Self {
        let batch = Some(messages.iter().map(|it| Arc::clone(&it.shared)).collect());
        let shared = Shared { batch, ..Shared::new(facts, first, false, Arc::default()) };
        #[cfg(feature = "files")]
        for message in messages {
            let _ = message.shared.commit.set(Arc::clone(shared.commit.get_or_init(Arc::default)));
        }
        Self { shared: Arc::new(shared), state }
    }

    /// Creates the context of a message without a broker: one that was delivered for the first time. Its queue is the
    /// message's routing key. It has no [`Delivery`].
    pub fn with_state(message: impl Into<Message>, state: S) -> Self {
        let message = amqp_async::Message::from(message.into());
        let shared = Shared {
            queue: message.routing_key.as_str().into(),
            properties: OnceLock::from(Ok(message.properties.clone())),
            content: Content::Built(Box::new(message)),
            redelivered: false,
            in_place: 0,
            counts_redelivered: false,
            deduplicates: false,
            deadline: None,
            slot: Arc::default(),
            extensions: Mutex::default(),
            outgoing: Mutex::default(),
            participants: Mutex::default(),
            blocking: None,
            batch: None,
            refused: Mutex::default(),
            #[cfg(feature = "files")]
            commit: OnceLock::new(),
        };
        Self { shared: Arc::new(shared), state }
    }

    /// Returns the queue that the message came from.
    pub fn queue(&self) -> &str {
        &self.shared.queue
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        match &self.shared.content {
            Content::Received(message) => message.body(),
            Content::Built(message) => &message.body,
        }
    }

    /// Returns the exchange to which the message was published. For a message that is tried again, it is that of the first
    /// time.
    pub fn exchange(&self) -> &str {
        self.original().map_or_else(|| self.address().0, |(exchange, _)| exchange)
    }

    /// Returns the routing key with which the message was published. For a message that is tried again, it is that of the
    /// first time.
    pub fn routing_key(&self) -> &str {
        self.original().map_or_else(|| self.address().1, |(_, key)| key)
    }

    /// Returns the properties. They are decoded once.
    ///
    /// # Errors
    /// [`Malformed`]. A message with malformed properties does not reach a handler.
    pub fn properties(&self) -> Result<&Properties, Malformed> {
        let decoded = self.shared.properties.get_or_init(|| match &self.shared.content {
            Content::Received(message) => message.properties(),
            Content::Built(message) => Ok(message.properties.clone()),
        });
        decoded.as_ref().map_err(|malformed| *malformed)
    }

    /// Returns the headers, `None` if there are none.
    pub fn headers(&self) -> Option<&FieldTable> {
        self.properties().ok()?.headers.as_ref()
    }

    /// Returns whether the broker may have delivered the message before.
    pub fn redelivered(&self) -> bool {
        self.shared.redelivered
    }

    /// Returns the number of this attempt, from 1. Attempts after delays count, those in place, and deliveries without an
    /// outcome that a quorum queue has counted.
    pub fn attempt(&self) -> u32 {
        let before =
            self.headers().map_or(0, |headers| copy::attempts_before(headers, self.queue()));
        let redelivered = self.shared.counts_redelivered && self.shared.redelivered;
        let attempt = before.saturating_add(self.shared.in_place).saturating_add(1);
        attempt.saturating_add(u32::from(redelivered && before == 0))
    }

    /// Returns when the timeout of the source expires, `None` without one.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.deadline
    }

    /// Returns the state of the application.
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// Sets a value for the handler's argument [`Extension<T>`](crate::Extension). It replaces an earlier one of this type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        lock(&self.shared.extensions).insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Returns the value of this type that middleware has set.
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let value = lock(&self.shared.extensions).get(&TypeId::of::<T>()).cloned()?;
        value.downcast_ref::<T>().cloned()
    }

    /// Sends a message when the message is handled, behind those that the handler returns. If it fails, nothing is sent.
    pub fn send(&self, message: impl Into<Message>) {
        lock(&self.shared.outgoing).push(message.into());
    }

    /// The same message for what needs no state.
    pub(crate) fn without_state(&self) -> Context<()> {
        Context { shared: Arc::clone(&self.shared), state: () }
    }

    /// The body, which can be kept longer than the message.
    pub(crate) fn shared_body(&self) -> Bytes {
        match &self.shared.content {
            Content::Received(message) => message.clone().into_body(),
            Content::Built(message) => message.body.clone(),
        }
    }

    /// Takes this message out of its batch.
    pub(crate) fn refuse(&self, failure: Failure) {
        lock(&self.shared.refused).get_or_insert(failure);
    }

    pub(crate) fn is_refused(&self) -> bool {
        lock(&self.shared.refused).is_some()
    }

    pub(crate) fn take_refusal(&self) -> Option<Failure> {
        lock(&self.shared.refused).take()
    }

    pub(crate) fn take_outgoing(&self) -> Vec<Message> {
        std::mem::take(&mut *lock(&self.shared.outgoing))
    }

    pub(crate) fn join(&self, participant: Box<dyn Joined>) {
        lock(&self.shared.participants).add(participant);
    }

    /// What is the same for all messages that are committed together, and for no others.
    #[cfg(feature = "files")]
    pub(crate) fn commit(&self) -> &Arc<Commit> {
        self.shared.commit.get_or_init(Arc::default)
    }

    pub(crate) fn take_participants(&self) -> Joint {
        std::mem::take(&mut *lock(&self.shared.participants))
    }

    pub(crate) fn has_participants(&self) -> bool {
        !lock(&self.shared.participants).is_empty()
    }

    /// Whether the source answers duplicates by itself.
    pub(crate) fn deduplicates(&self) -> bool {
        self.shared.deduplicates
    }

    pub(crate) fn take_delivery(&self) -> Option<Delivery> {
        self.shared.slot.take(Held::Taken)
    }

    pub(crate) fn put_delivery(&self, delivery: Delivery) {
        self.shared.slot.put(delivery);
    }

    pub(crate) fn blocking(&self) -> Option<&(Runner, Late)> {
        self.shared.blocking.as_ref()
    }

    fn original(&self) -> Option<(&str, &str)> {
        copy::original_address(self.headers()?, self.queue())
    }

    /// Names that are not UTF-8 are empty: a message with such names does not reach a handler.
    fn address(&self) -> (&str, &str) {
        match &self.shared.content {
            Content::Received(message) => {
                let (exchange, key) = (message.exchange(), message.routing_key());
                (exchange.as_str().unwrap_or_default(), key.as_str().unwrap_or_default())
            }
            Content::Built(message) => (&message.exchange, &message.routing_key),
        }
    }
}

impl<S: Clone> Context<S> {
    /// Returns the messages of the batch for which the handler is called ([`Consume::batches`](crate::Consume::batches)), and
    /// otherwise this message. The other methods of a batch's context speak of its first message.
    pub fn batch(&self) -> Vec<Self> {
        match &self.shared.batch {
            None => vec![self.clone()],
            Some(batch) => {
                let of_message = |shared: &Arc<_>| Self {
                    shared: Arc::clone(shared),
                    state: self.state.clone(),
                };
                batch.iter().map(of_message).collect()
            }
        }
    }
}

impl Shared {
    fn new(facts: Facts, message: ReceivedMessage, redelivered: bool, slot: Arc<Slot>) -> Self {
        let Facts { queue, in_place, counts_redelivered, deduplicates, deadline, runner, late } =
            facts;
        Self {
            queue,
            content: Content::Received(message),
            redelivered,
            in_place,
            counts_redelivered,
            deduplicates,
            deadline,
            properties: OnceLock::new(),
            slot,
            extensions: Mutex::default(),
            outgoing: Mutex::default(),
            participants: Mutex::default(),
            blocking: Some((runner, late)),
            batch: None,
            refused: Mutex::default(),
            #[cfg(feature = "files")]
            commit: OnceLock::new(),
        }
    }
}

impl Context {
    /// Creates the context of a message without a broker and without a state: see [`with_state`](Self::with_state).
    pub fn of(message: impl Into<Message>) -> Self {
        Self::with_state(message, ())
    }
}

impl<S: Clone> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), state: self.state.clone() }
    }
}

impl<S> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("queue", &self.queue())
            .field("exchange", &self.exchange())
            .field("routing_key", &self.routing_key())
            .field("attempt", &self.attempt())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}
