//! Hooks: what an application runs at its start and at its end, each once.

use amqp_async::Connection;

use super::App;
use crate::error::Error;
use crate::failure::BoxError;
use crate::platform::Asynchronous;
use crate::runner::BoxFuture;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before anything is declared or consumed.
    Initialise,
    /// When every source consumes.
    Started,
    /// When a shutdown has begun.
    Stopping,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Initialise => "on_initialise",
            Self::Started => "on_started",
            Self::Stopping => "on_stopping",
        }
    }
}

type Hook = Box<dyn FnOnce(Connection) -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// The hooks of an application, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Hooks(Vec<(Stage, Hook)>);

impl<P: Asynchronous, S> App<P, S> {
    /// Adds a function that runs at the start, before anything is declared or consumed, such as one that declares exchanges.
    /// It gets the connection on which the application publishes. Functions run in the order in which they are added.
    ///
    /// ```
    /// # use amqp_app::prelude::*;
    /// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> App<P> {
    /// app.on_initialise(async |connection| {
    ///     let channel = connection.open_channel().await?;
    ///     channel.exchange_declare(ExchangeDeclare::direct("room").durable()).await
    /// })
    /// # }
    /// ```
    ///
    /// If it fails, [`run`](Self::run) returns [`Error::Hook`], and nothing is consumed.
    pub fn on_initialise<F, E>(self, hook: impl FnOnce(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hook(Stage::Initialise, hook)
    }

    /// Adds a function that runs when every source consumes. It is dropped when a shutdown begins. If it fails, the
    /// application ends with [`Error::Hook`].
    pub fn on_started<F, E>(self, hook: impl FnOnce(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hook(Stage::Started, hook)
    }

    /// Adds a function that runs when a shutdown has begun, while the last messages are handled. It is dropped when their
    /// time has expired ([`Shutdown::within`](crate::Shutdown::within)). If it fails, [`run`](Self::run) returns
    /// [`Error::Hook`] after the shutdown.
    pub fn on_stopping<F, E>(self, hook: impl FnOnce(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hook(Stage::Stopping, hook)
    }

    fn hook<F, E>(
        mut self,
        stage: Stage,
        hook: impl FnOnce(Connection) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.add(stage, |connection| {
            let running = hook(connection);
            Box::pin(async { running.await.map_err(E::into) })
        });
        self
    }
}

#[cfg(feature = "threads")]
impl<S> App<amqp_blocking::Connector, S> {
    /// Adds a function that runs at the start, before anything is declared or consumed, such as one that declares exchanges.
    /// It gets the connection on which the application publishes. Functions run in the order in which they are added.
    ///
    /// If it fails, [`run`](Self::run) returns [`Error::Hook`], and nothing is consumed.
    pub fn on_initialise<E: Into<BoxError>>(
        self,
        hook: impl FnOnce(&amqp_blocking::Connection) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.hook(Stage::Initialise, hook)
    }

    /// Adds a function that runs when every source consumes. If it fails, the application ends with [`Error::Hook`].
    pub fn on_started<E: Into<BoxError>>(
        self,
        hook: impl FnOnce(&amqp_blocking::Connection) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.hook(Stage::Started, hook)
    }

    /// Adds a function that runs when a shutdown has begun, while the last messages are handled. The shutdown waits until it
    /// returns, also when the time for it has expired. If it fails, [`run`](Self::run) returns [`Error::Hook`] after the
    /// shutdown.
    pub fn on_stopping<E: Into<BoxError>>(
        self,
        hook: impl FnOnce(&amqp_blocking::Connection) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.hook(Stage::Stopping, hook)
    }

    fn hook<E: Into<BoxError>>(
        mut self,
        stage: Stage,
        hook: impl FnOnce(&amqp_blocking::Connection) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.hooks.add(stage, |connection| {
            let ran = hook(&connection.into()).map_err(E::into);
            Box::pin(std::future::ready(ran))
        });
        self
    }
}

impl Hooks {
    fn add(
        &mut self,
        stage: Stage,
        hook: impl FnOnce(Connection) -> BoxFuture<'static, Result<(), BoxError>> + Send + 'static,
    ) {
        self.0.push((stage, Box::new(hook)));
    }

    /// Runs the hooks of a stage, one after the other. The first one that fails is the last one.
    pub(crate) async fn run(&mut self, stage: Stage, connection: &Connection) -> Result<(), Error> {
        let hooks: Vec<_> = self.0.extract_if(.., |(when, _)| *when == stage).collect();
        for (_, hook) in hooks {
            let failed = |error| Error::Hook { hook: stage.name(), error };
            hook(connection.clone()).await.map_err(failed)?;
        }
        Ok(())
    }
}
