//! Listeners: a source of messages on a connection of a pool, handled beside the caller.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Member;
use super::member::Lent;
use crate::app::App;
use crate::app::report::Report;
use crate::app::shutdown::{Shutdown, Stopper};
use crate::connections::Borrowed;
use crate::consume::Consume;
use crate::error::Error;
use crate::handler::Handler;
use crate::middleware::{self, Route};
use crate::platform::{Asynchronous, Platform};
use crate::sync::{Either, Level, Promise, race};

/// A listener that runs: see [`Member::consume_with`].
///
/// Dropping it cancels the listener in the background.
#[must_use = "a listener that is dropped is cancelled"]
pub struct Listening<P: Platform> {
    stopper: Stopper,
    ended: Promise<Result<Report, Error>>,
    platform: PhantomData<fn() -> P>,
}

impl<P: Asynchronous> Member<P> {
    /// Handles the messages of a queue in the background, on this connection: its name, or a [`Consume`] with rules.
    /// Resolves when the consumer is started.
    ///
    /// The rules are those of an [`App`] with one source, and so are handlers: one that takes the
    /// [`Delivery`](amqp_async::Delivery) acknowledges it. The prefetch is that of the concurrency, 1 by default: the next
    /// message comes after the acknowledgement. A handler may use the connection.
    ///
    /// ```
    /// use amqp_app::prelude::*;
    /// use amqp_tokio::Connector;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = amqp_testkit::ModelBroker::start()?;
    /// # let uri = broker.uri();
    /// let pool = Pool::new(Connector::new(&uri)?, 1).connect().await?;
    /// let connection = pool.connection().await?;
    /// connection.open_channel().await?.queue_declare(QueueDeclare::classic("listener1")).await?;
    /// let listening = connection
    ///     .consume_with("listener1", async |delivery: Delivery| {
    ///         println!("received {:?}", delivery.body());
    ///         delivery.ack()
    ///     })
    ///     .await?;
    /// connection.publish(&Message::new("hello").to_queue("listener1")).await?;
    /// let report = listening.cancel().await?;
    /// # drop(report);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those with which an [`App`] fails to start.
    ///
    /// # Cancel safety
    /// If the future is dropped, the listener is cancelled.
    pub async fn consume_with<A: 'static>(
        &self,
        consume: impl Into<Consume>,
        handler: impl Handler<A, ()>,
    ) -> Result<Listening<P>, Error> {
        Listening::start(self.lent(), consume.into(), middleware::route(handler)).await
    }
}

impl<P: Asynchronous> Listening<P> {
    /// Cancels the listener, and waits for the messages in work, 10 s at most. Messages that were not begun go back into
    /// the queue. Resolves to what the listener has done.
    ///
    /// # Errors
    /// Why the listener had ended before, as [`App::run`] returns it.
    ///
    /// # Cancel safety
    /// If the future is dropped, the cancel continues in the background.
    pub async fn cancel(self) -> Result<Report, Error> {
        self.stopper.stop();
        self.end().await
    }

    /// Waits until the listener has ended: because a [`canceller`](Self::canceller) has cancelled it, because its pool was closed,
    /// or with an error.
    ///
    /// # Errors
    /// Those of [`App::run`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the listener is cancelled.
    pub async fn ended(self) -> Result<Report, Error> {
        self.end().await
    }
}

impl<P: Platform> Listening<P> {
    /// Returns a handle that cancels the listener, such as from its handler: the message in work is the last one.
    pub fn canceller(&self) -> Stopper {
        self.stopper.clone()
    }

    pub(super) async fn start(
        lent: &Arc<Lent<P>>,
        consume: Consume,
        route: Route<()>,
    ) -> Result<Self, Error> {
        let (stopper, shutdown) = Shutdown::manual();
        let (started, ended) = (Level::default(), Promise::new());
        let runner = lent.runner();
        let connection = Arc::new(Borrowed(lent.connection().clone()));
        let app = App::<P>::over(runner.clone(), connection, ()).on_start(started.clone());
        let app = app.add(consume.prefetch_or(1), route);
        let ending = ended.other();
        runner.spawn(async move { ending.keep(app.run_to_the_end(shutdown).await) });
        let listening = Self { stopper, ended, platform: PhantomData };
        let mut early = Box::pin(listening.ended.other().wait());
        match race(&mut started.reached(1), &mut early).await {
            Either::First(()) => Ok(listening),
            Either::Second(ended) => {
                ended?;
                Err(Error::PoolClosed)
            }
        }
    }

    pub(super) async fn end(self) -> Result<Report, Error> {
        self.ended.other().wait().await
    }
}

impl<P: Platform> Drop for Listening<P> {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl<P: Platform> fmt::Debug for Listening<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}
