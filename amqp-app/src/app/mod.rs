//! `App`: sources of messages, their handlers, and what is around them. `run` starts and ends it.

mod batch;
pub(crate) mod claim;
mod conclude;
pub(crate) mod engine;
mod group;
pub(crate) mod health;
mod hooks;
mod intake;
pub(crate) mod lane;
pub(crate) mod report;
mod run;
pub(crate) mod sender;
mod settle;
mod setup;
pub(crate) mod shutdown;
#[cfg(all(unix, feature = "signals"))]
mod signals;
pub(crate) mod source;
mod systemd;
mod transaction;
mod worker;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use self::health::Health;
use self::hooks::Hooks;
use self::report::Report;
use self::shutdown::Shutdown;
use self::systemd::Systemd;
#[cfg(feature = "transaction-pool")]
pub(crate) use self::transaction::{Uncommitted, commit};
#[cfg(feature = "config")]
use crate::config::Config;
use crate::connections::{Connections, Dialled};
use crate::consume::Consume;
use crate::context::Context;
use crate::error::Error;
use crate::failure::BoxError;
use crate::handler::Handler;
#[cfg(feature = "threads")]
use crate::middleware::ThreadNext;
use crate::middleware::{self, Next, Route};
use crate::outcome::Outcome;
use crate::platform::{Asynchronous, Platform};
use crate::pool::Pool;
use crate::runner::Runner;
use crate::sync::Level;

type Around<S> = Box<dyn Fn(Route<S>) -> Route<S> + Send + Sync>;

/// An application: it consumes from queues, has messages handled, and acknowledges them.
///
/// Methods are chained, and [`run`](Self::run) runs it until a [`Shutdown`].
///
/// ```no_run
/// use amqp_app::prelude::*;
/// use amqp_tokio::Connector;
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
///
/// async fn accept(Json(order): Json<Order>) -> Message {
///     Message::new(format!("order {}", order.id)).to("amq.topic", "order.accepted")
/// }
///
/// # async fn example() -> Result<(), Error> {
/// let (stopper, shutdown) = Shutdown::manual();
/// App::new(Connector::new("amqp://localhost")?).consume("orders", accept).run(shutdown).await?;
/// # drop(stopper);
/// # Ok(())
/// # }
/// ```
///
/// # What becomes of a message
///
/// | the handler | the message |
/// | --- | --- |
/// | succeeds | what it returns is sent, and confirmed. Then the message is acknowledged |
/// | returns an error, panics, or takes too long | the retry policy decides: see [`Retry`](crate::Retry) |
/// | cannot be called: the body, or another argument, cannot be decoded | the last resort of the policy follows at once; by default the message is parked |
/// | has taken the [`Delivery`](amqp_async::Delivery) | is acknowledged by the handler |
///
/// Delivery is at least once: a message whose process ends before the acknowledgement is handled again. What it caused before
/// is sent again with the same message ids.
///
/// # Connections
///
/// The application has two connections. One consumes and acknowledges, one publishes, because a broker that is low on memory
/// stops to read connections that publish. A connection that is lost is recovered as its connector says, and the application
/// goes on. If it is not recovered, the application ends with [`Error::ConnectionEnded`].
#[must_use = "an application does nothing until it runs"]
pub struct App<P, S = ()> {
    runner: Runner,
    connections: Arc<dyn Connections>,
    state: S,
    sources: Vec<(Consume, Route<S>)>,
    around: Vec<Around<S>>,
    health: Health,
    hooks: Hooks,
    /// Raised when all sources consume.
    started: Level,
    systemd: Systemd,
    #[cfg(feature = "config")]
    pub(crate) config: Option<Config>,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform> App<P> {
    /// Creates an application on a platform, such as `amqp_tokio::Connector`.
    pub fn new(platform: P) -> Self {
        Self::with_state(platform, ())
    }
}

impl<P: Platform> App<P> {
    /// Creates an application on the connections of a pool. It borrows two of them, which stay open at its end. With a pool
    /// of one connection, it publishes where it consumes. When the pool is closed, the application ends without an
    /// error. A message whose reply cannot be published any more goes back into its queue.
    pub fn on(pool: Pool<P>) -> Self {
        Self::on_with_state(pool, ())
    }
}

impl<P: Platform, S: Clone + Send + Sync + 'static> App<P, S> {
    /// Creates an application on the connections of a pool ([`on`](App::on)), with a state
    /// ([`with_state`](Self::with_state)).
    pub fn on_with_state(pool: Pool<P>, state: S) -> Self {
        Self::over(pool.runner().clone(), Arc::new(pool), state)
    }

    /// Creates an application with a state, which handlers get as [`State<S>`](crate::State). It is cloned for each message.
    pub fn with_state(platform: P, state: S) -> Self {
        let runner = Runner::new(platform.executor());
        Self::over(runner, Arc::new(Dialled(platform)), state)
    }

    pub(crate) fn over(runner: Runner, connections: Arc<dyn Connections>, state: S) -> Self {
        Self {
            runner,
            connections,
            state,
            sources: Vec::new(),
            around: Vec::new(),
            hooks: Hooks::default(),
            health: Health::default(),
            started: Level::default(),
            systemd: Systemd::off(),
            #[cfg(feature = "config")]
            config: None,
            platform: PhantomData,
        }
    }

    /// Puts a layer of tower around every handler, such as `tower::limit::ConcurrencyLimitLayer`. The last one is the
    /// outermost.
    ///
    /// An error of the layer is a failure of the handler. Panics, the retry policy and acknowledgements are outside of all
    /// layers.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route<S>> + Send + Sync + 'static,
        L::Service: Service<Context<S>, Response = Outcome, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        self.around.push(Box::new(move |inner| middleware::layered(&layer, inner)));
        self
    }

    /// Returns a handle that returns whether the application is live, and whether it is ready.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Raises this level when all sources consume.
    pub(crate) fn on_start(self, started: Level) -> Self {
        Self { started, ..self }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn queues(&self) -> Vec<String> {
        self.sources.iter().flat_map(|(consume, _)| consume.names()).map(str::to_owned).collect()
    }

    pub(crate) fn add(mut self, consume: Consume, route: Route<S>) -> Self {
        self.sources.push((consume, route));
        self
    }
}

impl<P: Asynchronous, S: Clone + Send + Sync + 'static> App<P, S> {
    /// Handles the messages of a queue: its name, or a [`Consume`] with rules.
    ///
    /// A handler is an asynchronous function of extractors, in any order: see [`Handler`].
    pub fn consume<A: 'static>(
        self,
        consume: impl Into<Consume>,
        handler: impl Handler<A, S>,
    ) -> Self {
        self.add(consume.into(), middleware::route(handler))
    }

    /// Puts a function around every handler. It gets the message and the rest of the way to the handler, and returns an
    /// outcome. The last one is the outermost.
    ///
    /// ```
    /// # use amqp_app::prelude::*;
    /// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> App<P> {
    /// app.wrap(|context, next| async move {
    ///     let queue = context.queue().to_owned();
    ///     let outcome = next.run(context).await;
    ///     println!("{queue}: {}", outcome.is_success());
    ///     outcome
    /// })
    /// # }
    /// ```
    pub fn wrap<F, Fut>(mut self, wrap: F) -> Self
    where
        F: Fn(Context<S>, Next<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let wrap = Arc::new(wrap);
        self.around.push(Box::new(move |inner| middleware::wrapped(Arc::clone(&wrap), inner)));
        self
    }

    /// Runs the application until the shutdown. Resolves to what it has done.
    ///
    /// At the start it opens its connections, runs its hooks ([`on_initialise`](Self::on_initialise)), declares queues and
    /// bindings, and the queues of the retry policies. While it
    /// runs, it starts consumers again that the broker has cancelled.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::Setup`] at the start. [`Error::Invalid`] if two handlers consume from one queue.
    /// [`Error::Hook`] if a hook fails. [`Error::ConnectionEnded`] if a connection ends and is not recovered, and [`Error::Stopped`] if a
    /// handler asks for the end: then messages in work are finished as in a shutdown.
    ///
    /// # Cancel safety
    /// If the future is dropped, the application ends at once: its connections are dropped, and messages in work go back
    /// into their queues.
    pub async fn run(self, shutdown: Shutdown) -> Result<Report, Error> {
        self.run_to_the_end(shutdown).await
    }
}

#[cfg(feature = "threads")]
impl<S: Clone + Send + Sync + 'static> App<amqp_blocking::Connector, S> {
    /// Handles the messages of a queue: its name, or a [`Consume`] with rules.
    ///
    /// A handler is a function of extractors, in any order: see [`ThreadHandler`](crate::ThreadHandler). Each message that is
    /// handled at the same time ([`Consume::concurrency`]) has a thread.
    pub fn consume<A: 'static>(
        self,
        consume: impl Into<Consume>,
        handler: impl crate::handler::ThreadHandler<A, S>,
    ) -> Self {
        self.add(consume.into(), middleware::thread_route(handler))
    }

    /// Puts a function around every handler. It gets the message and the rest of the way to the handler, and returns an
    /// outcome. The last one is the outermost. It runs on the thread of the handler, and may block.
    ///
    /// ```
    /// # use amqp_app::prelude::*;
    /// # fn example(app: App<amqp_blocking::Connector>) -> App<amqp_blocking::Connector> {
    /// app.wrap(|context, next| {
    ///     let queue = context.queue().to_owned();
    ///     let outcome = next.run(context);
    ///     println!("{queue}: {}", outcome.is_success());
    ///     outcome
    /// })
    /// # }
    /// ```
    pub fn wrap<F>(mut self, wrap: F) -> Self
    where
        F: Fn(Context<S>, ThreadNext<S>) -> Outcome + Send + Sync + 'static,
    {
        let wrap = Arc::new(wrap);
        self.around
            .push(Box::new(move |inner| middleware::thread_wrapped(Arc::clone(&wrap), inner)));
        self
    }

    /// Runs the application until the shutdown, and blocks until then. Returns what it has done.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::Setup`] at the start. [`Error::Invalid`] if two handlers consume from one queue.
    /// [`Error::Hook`] if a hook fails. [`Error::ConnectionEnded`] if a connection ends and is not recovered, and [`Error::Stopped`] if a
    /// handler asks for the end.
    pub fn run(self, shutdown: Shutdown) -> Result<Report, Error> {
        amqp_blocking::runtime::Threads.block_on(self.run_to_the_end(shutdown))
    }
}

impl<P, S> fmt::Debug for App<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|(consume, _)| consume).collect();
        f.debug_struct("App").field("sources", &sources).finish_non_exhaustive()
    }
}
