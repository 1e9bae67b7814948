//! `Requester`: requests and their replies (RPC), over direct reply-to.
//!
//! All requests share a [`line`]: one channel. The [`table`] has those that wait. A request that is not written when the
//! connection is lost is sent again. One that was sent is not, because it may have been executed.

mod error;
mod line;
mod response;
mod table;
#[cfg(feature = "threads")]
mod threads;

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use amqp_async::{Confirm, PublishError};

pub use error::{Blame, RequestError};
pub use response::Response;

use crate::connections::{Borrowed, Connections};
use crate::error::Error;
use crate::exchanges::{Exchanges, is_refused};
use crate::limits::IN_PLACE_PAUSE;
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};
use crate::pool::{Member, Pool};
use crate::runner::Runner;
use crate::sync::Level;
use line::{Line, REPLY_TO, Reply};
use table::{Table, Ticket};

/// Sends requests, and waits for their replies (RPC), over RabbitMQ's direct reply-to
/// (<https://www.rabbitmq.com/docs/direct-reply-to>). The other side is a handler that returns a
/// [`Reply`](crate::Reply).
///
/// Any number of tasks or threads may ask at the same time, with clones of one requester. They share one channel. It is opened
/// by the first request, and opened again when it has closed. When the connection is lost and recovered, requests go on. Those
/// that were sent before, and have no reply, end with an error: their replies do not come.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_app::RequestError;
/// use amqp_tokio::Connector;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = amqp_testkit::ModelBroker::start()?;
/// # let uri = broker.uri();
/// let pool = Pool::new(Connector::new(&uri)?, 1).connect().await?;
/// let connection = pool.connection().await?;
/// connection.open_channel().await?.queue_declare(QueueDeclare::classic("squares")).await?;
/// let square = async |Json(number): Json<u64>| Reply(Json(number * number));
/// let responder = connection.consume_with("squares", square).await?;
///
/// let requester = Requester::new(&connection);
/// let request = Message::json(&7)?.to_queue("squares");
/// let response = requester.request(request, Duration::from_secs(5)).await?;
/// assert_eq!(response.json::<u64>()?, 49);
///
/// // A request that reaches no queue is an error at once.
/// let lost = Message::new("7").to_queue("no such queue");
/// let error = requester.request(lost, Duration::from_secs(5)).await.unwrap_err();
/// assert!(matches!(error, RequestError::Unroutable { .. }));
/// # responder.cancel().await?;
/// # Ok(())
/// # }
/// ```
///
/// A requester sets these properties of a request: `reply_to`; `correlation_id`, to an id that no other request has;
/// `expiration`, unless it is set, so that the broker drops a request whose deadline has expired; `message_id`, unless it is
/// set.
pub struct Requester<P: Platform> {
    inner: Arc<Inner>,
    platform: PhantomData<fn() -> P>,
}

/// The counters of a [`Requester`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequesterStats {
    /// Requests that wait for their reply.
    pub waiting: usize,
    /// Replies that were dropped, because their request had ended, or had all replies that it wanted, or because it is not known
    /// which request they answer.
    pub late: u64,
}

impl<P: Platform> Requester<P> {
    /// Creates a requester on a connection of a pool. It opens its channel with the first request. When the connection ends,
    /// and is not recovered, every request is an error.
    pub fn new(connection: &Member<P>) -> Self {
        let lent = connection.lent();
        Self::over(lent.runner().clone(), Arc::new(Borrowed(lent.connection().clone())))
    }

    /// Creates a requester on the connections of a pool. It opens its channel with the first request, on one of them, and
    /// takes another connection when that one has ended.
    pub fn on(pool: &Pool<P>) -> Self {
        Self::over(pool.runner().clone(), Arc::new(pool.clone()))
    }

    /// Returns how many requests wait, and how many replies were late.
    pub fn stats(&self) -> RequesterStats {
        let (waiting, late) = self.inner.table.counts();
        RequesterStats { waiting, late }
    }

    fn over(runner: Runner, connections: Arc<dyn Connections>) -> Self {
        let inner = Inner {
            runner,
            connections,
            exchanges: Exchanges::default(),
            table: Table::new(),
            line: async_lock::Mutex::new(None),
            stop: Level::default(),
        };
        Self { inner: Arc::new(inner), platform: PhantomData }
    }
}

impl<P: Asynchronous> Requester<P> {
    /// Sends a request, and waits for its reply, for this time at most.
    ///
    /// # Errors
    /// [`RequestError`]. A request that reaches no queue fails at once, unless it is [optional](Message::optional).
    ///
    /// # Cancel safety
    /// If the future is dropped before the request is buffered, nothing is sent. If it is dropped later, the request is sent,
    /// and its reply is dropped when it comes.
    pub async fn request(
        &self,
        request: Message,
        within: Duration,
    ) -> Result<Response, RequestError> {
        self.inner.one(request, within).await
    }

    /// Sends a request to several responders, such as those behind a fanout exchange, and waits for this many replies, for
    /// this time at most. Resolves to the replies that have come by then, which may be fewer, or none.
    ///
    /// A loss of the connection, or a reply that cannot be read, ends the wait too: it resolves to the replies that came
    /// before, and to an error if there are none.
    ///
    /// # Errors
    /// [`RequestError`], if no reply has come. A deadline that has passed is an error only if the broker has not confirmed
    /// the request: otherwise the list is empty.
    ///
    /// # Cancel safety
    /// As for [`request`](Self::request).
    pub async fn request_many(
        &self,
        request: Message,
        replies: usize,
        within: Duration,
    ) -> Result<Vec<Response>, RequestError> {
        self.inner.many(request, replies, within).await
    }
}

/// What the clones of a requester share.
struct Inner {
    runner: Runner,
    connections: Arc<dyn Connections>,
    exchanges: Exchanges,
    table: Arc<Table<Reply>>,
    line: async_lock::Mutex<Option<Line>>,
    /// Ends the task that reads replies.
    stop: Level,
}

/// What became of a request before its first reply.
enum Published {
    /// A reply came, or no more replies come.
    Done,
    /// No byte of it was written.
    Again,
}

impl Inner {
    async fn one(&self, request: Message, within: Duration) -> Result<Response, RequestError> {
        let (mut replies, end) = self.exchange(request, 1, within).await;
        replies.pop().map_or_else(|| Err(end.unwrap_or_else(timed_out)), Ok)
    }

    async fn many(
        &self,
        request: Message,
        wanted: usize,
        within: Duration,
    ) -> Result<Vec<Response>, RequestError> {
        let (replies, end) = self.exchange(request, wanted.max(1), within).await;
        match end {
            Some(RequestError::TimedOut { is_confirmed: true, .. }) | None => Ok(replies),
            Some(_) if !replies.is_empty() => Ok(replies),
            Some(error) => Err(error),
        }
    }

    /// Sends a request. Resolves to its replies, and to what has ended the wait for more of them.
    async fn exchange(
        &self,
        request: Message,
        wanted: usize,
        within: Duration,
    ) -> (Vec<Response>, Option<RequestError>) {
        let mut replies = Vec::new();
        let deadline = self.runner.now().checked_add(within);
        let Some(ticket) = self.table.enter(wanted) else {
            return (replies, Some(RequestError::TooMany));
        };
        let request = self.address(request, &ticket);
        let exchange = self.send(request, &ticket, wanted, deadline, &mut replies);
        let ended = self.runner.until(deadline, exchange).await;
        let end = ended.map_or_else(
            || {
                let (is_sent, is_confirmed) = ticket.progress();
                Some(RequestError::TimedOut { is_sent, is_confirmed })
            },
            Result::err,
        );
        (replies, end)
    }

    fn address(&self, request: Message, ticket: &Ticket<Reply>) -> amqp_async::Message {
        let mut request = amqp_async::Message::from(request);
        let properties = &mut request.properties;
        let id = ticket.correlation_id();
        properties.reply_to = Some(REPLY_TO.to_owned());
        properties.message_id.get_or_insert_with(|| id.clone());
        properties.correlation_id = Some(id);
        request
    }

    /// Sends a request, and takes its replies.
    async fn send(
        &self,
        mut request: amqp_async::Message,
        ticket: &Ticket<Reply>,
        wanted: usize,
        deadline: Option<Instant>,
        replies: &mut Vec<Response>,
    ) -> Result<(), RequestError> {
        let expires = request.properties.expiration.is_none();
        loop {
            let line = self.line().await?;
            self.find(&request.exchange, &line).await?;
            if let Some(deadline) = deadline.filter(|_| expires) {
                let left = deadline.saturating_duration_since(self.runner.now());
                request = request.expiration(left);
            }
            let confirm = match self.put(&request, ticket, &line).await {
                Ok(confirm) => confirm,
                Err(error) => {
                    self.not_sent(error, &request).await?;
                    continue;
                }
            };
            match self.replies(confirm, ticket, wanted, &request, replies).await? {
                Published::Done => return Ok(()),
                Published::Again => ticket.was_not_sent(),
            }
        }
    }

    /// Puts a request into the output buffer.
    async fn put(
        &self,
        request: &amqp_async::Message,
        ticket: &Ticket<Reply>,
        line: &Line,
    ) -> Result<Confirm, PublishError> {
        let mut sending = pin!(line.publisher.send(request));
        poll_fn(|cx| {
            // Before the poll, so that a loss beside it is not taken for an older one.
            let after = line.connection.losses();
            let sent = sending.as_mut().poll(cx);
            if let Poll::Ready(Ok(_)) = sent {
                ticket.sent(line.number, after);
            }
            sent
        })
        .await
    }

    /// Waits for the replies, and meanwhile for the confirm.
    async fn replies(
        &self,
        confirm: Confirm,
        ticket: &Ticket<Reply>,
        wanted: usize,
        request: &amqp_async::Message,
        replies: &mut Vec<Response>,
    ) -> Result<Published, RequestError> {
        let mut confirm = Some(pin!(confirm));
        let refused = poll_fn(|cx| {
            loop {
                match ticket.poll_reply(cx) {
                    Poll::Ready(Ok(Ok(response))) => replies.push(response),
                    Poll::Ready(Ok(Err(fault))) => {
                        return Poll::Ready(Err(RequestError::Reply(fault)));
                    }
                    Poll::Ready(Err(lost)) => return Poll::Ready(Err(RequestError::Lost(lost))),
                    Poll::Pending => {
                        let Some(waiting) = &mut confirm else { return Poll::Pending };
                        match waiting.as_mut().poll(cx) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Ok(())) => ticket.confirmed(),
                            Poll::Ready(Err(error)) => return Poll::Ready(Ok(Some(error))),
                        }
                        confirm = None;
                    }
                }
                if replies.len() >= wanted {
                    return Poll::Ready(Ok(None));
                }
            }
        })
        .await?;
        match refused {
            None => Ok(Published::Done),
            Some(error) => {
                self.not_sent(error, request).await?;
                Ok(Published::Again)
            }
        }
    }

    /// Waits a moment before a request is sent again of which no byte was written. Any other error is final.
    async fn not_sent(
        &self,
        error: PublishError,
        request: &amqp_async::Message,
    ) -> Result<(), RequestError> {
        Err(match error {
            PublishError::Invalid(invalid) => RequestError::Invalid(invalid),
            PublishError::Nacked => RequestError::Nacked,
            PublishError::Returned(_) => RequestError::Unroutable {
                exchange: request.exchange.clone(),
                routing_key: request.routing_key.clone(),
            },
            PublishError::Unknown(error) => {
                // Its exchange may be gone: that closes the channel.
                self.exchanges.forget();
                RequestError::Lost(error)
            }
            PublishError::NotSent(_) => {
                self.runner.sleep(IN_PLACE_PAUSE).await;
                return Ok(());
            }
            other => RequestError::NotSent(other),
        })
    }

    async fn find(&self, exchange: &str, line: &Line) -> Result<(), RequestError> {
        loop {
            match self.exchanges.find(exchange, &line.connection, &self.runner).await {
                Ok(()) => return Ok(()),
                Err(error) if is_refused(&error) => {
                    return Err(RequestError::Refused { exchange: exchange.to_owned(), error });
                }
                // Opening a line is what reports it.
                Err(error) if error.is_connection() => return Ok(()),
                Err(amqp_async::Error::InvalidArgument(invalid)) => {
                    return Err(RequestError::Invalid(invalid));
                }
                Err(error) if !error.is_retryable() => {
                    return Err(RequestError::Unavailable(error.into()));
                }
                Err(_) => self.runner.sleep(IN_PLACE_PAUSE).await,
            }
        }
    }

    /// The line of all requests. Opens one, if there is none that can be used.
    async fn line(&self) -> Result<Line, RequestError> {
        let mut slot = self.line.lock().await;
        loop {
            if let Some(line) = slot.as_ref().filter(|line| line.is_usable()) {
                return Ok(line.clone());
            }
            *slot = None;
            let lease = self.connections.lease().await.map_err(RequestError::Unavailable)?;
            let connection = lease.connection;
            let cause = connection.close_cause();
            let opened = Line::open(connection, &self.table, &self.stop, &self.runner).await;
            match opened {
                Ok(line) => *slot = Some(line),
                Err(error) if cause.is_some() || !error.is_retryable() => {
                    return Err(RequestError::Unavailable(Error::from(error)));
                }
                Err(_) => self.runner.sleep(IN_PLACE_PAUSE).await,
            }
        }
    }
}

/// The error of a wait that has ended without one.
const fn timed_out() -> RequestError {
    RequestError::TimedOut { is_sent: true, is_confirmed: true }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.raise(1);
    }
}

impl<P: Platform> Clone for Requester<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), platform: PhantomData }
    }
}

impl<P: Platform> fmt::Debug for Requester<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Requester").field(&self.stats()).finish()
    }
}
