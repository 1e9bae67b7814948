//! `Seen`: a store of the application that says which messages it has handled, so that duplicates are not handled again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use amqp_async::ReceivedMessage;

use crate::failure::BoxError;
use crate::message::Message;
use crate::runner::BoxFuture;
use crate::sync::catching;

/// A store of the messages that were handled, such as a table of a database. A source that
/// [deduplicates](crate::Consume::deduplicate) asks it before each call of its handler. So a duplicate, of any publisher and after
/// any crash, is answered with the same replies, and its handler is not called.
///
/// Calls of several messages are made at the same time. On an asynchronous runtime they should not block for long.
///
/// [`begin`](Self::begin) and [`done`](Self::done) must resolve within what is left of [`Consume::timeout`](crate::Consume::timeout).
/// [`failed`](Self::failed) has 30 s, and so has `done` after [`Participants`](crate::Participants) have committed, or when a handler
/// returns late. When the time has passed, the future of the call is dropped. If that of `begin` is dropped, its mark stays until it
/// expires.
///
/// A process that is killed leaves its mark in the store. So a mark that only says that a message is being handled must expire
/// by itself (a lease), after a longer time than a handler may take ([`Consume::timeout`](crate::Consume::timeout)). Until then
/// its message waits. The marks of messages that are done may be deleted when no duplicate is expected any more.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// use amqp_app::{Begun, BoxError, Message, Seen, SeenId};
///
/// /// A table in memory. `None`: its message is being handled.
/// #[derive(Clone, Default)]
/// struct Table(Arc<Mutex<HashMap<SeenId, Option<Vec<Message>>>>>);
///
/// impl Seen for Table {
///     async fn begin(&self, id: &SeenId) -> Result<Begun, BoxError> {
///         let mut rows = self.0.lock().map_err(|error| error.to_string())?;
///         Ok(match rows.get(id) {
///             Some(Some(replies)) => Begun::Done(replies.clone()),
///             Some(None) => Begun::Running,
///             None => {
///                 rows.insert(id.clone(), None);
///                 Begun::New
///             }
///         })
///     }
///
///     async fn done(&self, id: &SeenId, replies: &[Message]) -> Result<(), BoxError> {
///         let mut rows = self.0.lock().map_err(|error| error.to_string())?;
///         rows.insert(id.clone(), Some(replies.to_vec()));
///         Ok(())
///     }
///
///     async fn failed(&self, id: &SeenId) -> Result<(), BoxError> {
///         let mut rows = self.0.lock().map_err(|error| error.to_string())?;
///         if let Some(None) = rows.get(id) {
///             rows.remove(id);
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// With the feature `serde`, a [`Message`] implements `Serialize` and `Deserialize`, and keeps the exact types of its properties and
/// headers.
pub trait Seen: Send + Sync + 'static {
    /// Marks a message as being handled, unless it has a mark. In a database that is one statement, such as
    /// `INSERT .. ON CONFLICT DO NOTHING`: of two calls at the same time, one alone may resolve to [`Begun::New`].
    ///
    /// # Errors
    /// The attempt has failed, and the retry policy decides. [`failed`](Self::failed) is not called, because the mark may be
    /// that of another process.
    fn begin(&self, id: &SeenId) -> impl Future<Output = Result<Begun, BoxError>> + Send;

    /// Marks a message as done, and stores what is sent for it. It is called when the handler has succeeded, before the replies
    /// are sent and the message is acknowledged. They have all their ids.
    ///
    /// # Errors
    /// The attempt has failed: nothing is sent, and the retry policy decides. With [`Participants`](crate::Participants), which
    /// have committed before, the application logs the error and acknowledges the message. A duplicate is handled again.
    fn done(
        &self,
        id: &SeenId,
        replies: &[Message],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Removes the mark of a message that is being handled, because its attempt has failed. The mark of one that is done must
    /// stay. May be called twice.
    ///
    /// # Errors
    /// The application logs an error or a panic. The message waits until its mark expires.
    fn failed(&self, id: &SeenId) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// What a store knows of a message: see [`Seen::begin`].
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums, reason = "these are all cases")]
pub enum Begun {
    /// The message had no mark: its handler is called.
    New,
    /// It was handled before. These replies are sent again, with the same ids, and it is acknowledged.
    Done(Vec<Message>),
    /// It is being handled, in this process or in another one. The message waits a second and is given back, which is not an attempt.
    /// A message of a quorum queue stays with its worker, which asks again each second.
    Running,
}

/// Identifies a message in a store: its queue and its message id. Each queue may have a copy of a message.
///
/// As text it is `<queue>/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenId {
    queue: Arc<str>,
    id: String,
}

impl SeenId {
    /// Creates the one of a message of a queue, such as for tests of a store.
    pub fn new(queue: impl Into<Arc<str>>, id: impl Into<String>) -> Self {
        Self { queue: queue.into(), id: id.into() }
    }

    /// Returns the queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Returns the message id, or the key of [`Consume::deduplicate_by`](crate::Consume::deduplicate_by).
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for SeenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.queue, self.id)
    }
}

pub(crate) type KeyOf = dyn Fn(&ReceivedMessage) -> Option<String> + Send + Sync;

/// How a source deduplicates.
#[derive(Clone)]
pub(crate) struct Deduplication {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Arc<KeyOf>,
}

impl Deduplication {
    /// What a message is known by, `None` if it has no id.
    pub(crate) fn id(&self, queue: &Arc<str>, message: &ReceivedMessage) -> Option<SeenId> {
        // The panic hook reports it.
        let key = catch_unwind(AssertUnwindSafe(|| (self.key)(message))).unwrap_or_default()?;
        Some(SeenId { queue: Arc::clone(queue), id: key })
    }
}

/// A [`Seen`] without its type. A panic is an error.
pub(crate) trait Store: Send + Sync {
    fn begin<'a>(&'a self, id: &'a SeenId) -> BoxFuture<'a, Result<Begun, BoxError>>;
    fn done<'a>(
        &'a self,
        id: &'a SeenId,
        replies: &'a [Message],
    ) -> BoxFuture<'a, Result<(), BoxError>>;
    fn failed<'a>(&'a self, id: &'a SeenId) -> BoxFuture<'a, Result<(), BoxError>>;
}

impl<T: Seen> Store for T {
    fn begin<'a>(&'a self, id: &'a SeenId) -> BoxFuture<'a, Result<Begun, BoxError>> {
        Box::pin(async {
            catching(Box::pin(async { Seen::begin(self, id).await })).await.and_then(|it| it)
        })
    }

    fn done<'a>(
        &'a self,
        id: &'a SeenId,
        replies: &'a [Message],
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            catching(Box::pin(async { Seen::done(self, id, replies).await }))
                .await
                .and_then(|it| it)
        })
    }

    fn failed<'a>(&'a self, id: &'a SeenId) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            catching(Box::pin(async { Seen::failed(self, id).await })).await.and_then(|it| it)
        })
    }
}
