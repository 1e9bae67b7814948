//! The handles that all asynchronous adapters share, and the runtimes on which tests run.

use std::future::ready;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

pub(crate) use amqp_async::{errors::*, handles::*, values::*};

use crate::support::{self, ends};

/// An adapter, on a runtime of its own kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Adapter {
    AsyncStd,
    Smol,
    TokioCurrentThread,
    TokioMultiThread,
}

/// A broker, and the adapter by which it is reached.
#[derive(Clone, Debug)]
pub(crate) struct At {
    adapter: Adapter,
    uri: String,
}

impl At {
    /// Runs `test` on the adapter's runtime.
    pub(crate) fn run<F: Future<Output = ()>>(
        adapter: Adapter,
        uri: String,
        test: impl FnOnce(Self) -> F,
    ) {
        let test = test(Self { adapter, uri });
        match adapter {
            Adapter::AsyncStd => async_std::task::block_on(test),
            Adapter::Smol => smol::block_on(test),
            Adapter::TokioCurrentThread => {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build().unwrap().block_on(test);
            }
            Adapter::TokioMultiThread => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(2).enable_all().build().unwrap().block_on(test);
            }
        }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Another broker, by the same adapter.
    pub(crate) fn to(&self, uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), ..*self }
    }

    pub(crate) async fn open(
        &self,
        configure: impl FnOnce(Config) -> Config,
    ) -> Result<Connection, ConnectError> {
        let config = configure(Config::from_uri(&ends(&self.uri))?);
        match self.adapter {
            Adapter::AsyncStd => amqp_async_std::Connector::from(config).connect().await,
            Adapter::Smol => amqp_smol::Connector::from(config).connect().await,
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                amqp_tokio::Connector::from(config).connect().await
            }
        }
    }

    /// Connects over a stream of the application's own.
    pub(crate) async fn connect_over(
        &self,
        stream: std::os::unix::net::UnixStream,
    ) -> Result<Connection, ConnectError> {
        let config = Config::from_uri(&ends(&self.uri))?;
        match self.adapter {
            Adapter::AsyncStd => {
                let stream = async_std::os::unix::net::UnixStream::from(stream);
                amqp_async_std::Connector::from(config).connect_with(stream).await
            }
            Adapter::Smol => {
                let stream = smol::Async::new(stream).unwrap();
                amqp_smol::Connector::from(config).connect_with(stream).await
            }
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::UnixStream::from_std(stream).unwrap();
                amqp_tokio::Connector::from(config).connect_with(stream).await
            }
        }
    }

    /// Connects with a hook, and with callbacks that report what they hear.
    pub(crate) async fn connect_hooked<F>(
        &self,
        configure: impl FnOnce(Config) -> Config,
        hook: impl Fn(Connection) -> F + Send + Sync + 'static,
        calls: mpsc::Sender<String>,
    ) -> Result<Connection, ConnectError>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let [lost, closed, blocked] = [(); 3].map(|()| calls.clone());
        macro_rules! connect {
            ($adapter:ident) => {{
                let connector = $adapter::Connector::new(&ends(&self.uri))?.configure(configure);
                let connector = connector.on_connect(hook).on_error(move |_, cause| {
                    let _ = lost.send(format!("lost: {cause}"));
                });
                let connector = connector.on_close(move |_, cause| {
                    let _ = closed.send(format!("closed: {cause}"));
                });
                let connector = connector.on_blocked(move |_, reason| {
                    let _ = blocked.send(format!("blocked: {reason}"));
                });
                let connector = connector.on_unblocked(move |_| {
                    let _ = calls.send("unblocked".into());
                });
                connector.connect().await
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => connect!(amqp_async_std),
            Adapter::Smol => connect!(amqp_smol),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => connect!(amqp_tokio),
        }
    }

    /// Connects with a function that decides which losses are recovered.
    pub(crate) async fn connect_deciding(
        &self,
        configure: impl FnOnce(Config) -> Config,
        recovers: impl Fn(&CloseCause) -> bool + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        macro_rules! connect {
            ($adapter:ident) => {{
                let connector = $adapter::Connector::new(&ends(&self.uri))?.configure(configure);
                connector.recover_if(recovers).connect().await
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => connect!(amqp_async_std),
            Adapter::Smol => connect!(amqp_smol),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => connect!(amqp_tokio),
        }
    }

    /// Connects with credentials that a function provides.
    pub(crate) async fn connect_providing(
        &self,
        provider: impl Fn() -> io::Result<ProvidedCredentials> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        macro_rules! connect {
            ($adapter:ident) => {{
                let provider = move || ready(provider());
                let connector = $adapter::Connector::new(&ends(&self.uri))?;
                connector.credentials_provider(provider).connect().await
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => connect!(amqp_async_std),
            Adapter::Smol => connect!(amqp_smol),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => connect!(amqp_tokio),
        }
    }

    /// The same, over a stream of the application's own.
    pub(crate) async fn connect_over_providing(
        &self,
        stream: TcpStream,
        provider: impl Fn() -> io::Result<ProvidedCredentials> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        macro_rules! connect {
            ($adapter:ident, $stream:expr) => {{
                let provider = move || ready(provider());
                let connector = $adapter::Connector::new(&ends(&self.uri))?;
                connector.credentials_provider(provider).connect_with($stream).await
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => {
                connect!(amqp_async_std, async_std::net::TcpStream::from(stream))
            }
            Adapter::Smol => connect!(amqp_smol, smol::Async::new(stream).unwrap()),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                stream.set_nonblocking(true).unwrap();
                connect!(amqp_tokio, tokio::net::TcpStream::from_std(stream).unwrap())
            }
        }
    }

    /// Connects over streams that a function makes.
    pub(crate) async fn connect_by(
        &self,
        dial: impl Fn(Endpoint) -> io::Result<TcpStream> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        match self.adapter {
            Adapter::AsyncStd => {
                let dial = move |endpoint| ready(dial(endpoint).map(Into::into));
                let connector = amqp_async_std::Connector::new(&ends(&self.uri))?;
                connector.dial_with::<async_std::net::TcpStream, _>(dial).connect().await
            }
            Adapter::Smol => {
                let dial = move |endpoint| ready(dial(endpoint).and_then(smol::Async::new));
                amqp_smol::Connector::new(&ends(&self.uri))?.dial_with(dial).connect().await
            }
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                let dial = move |endpoint| {
                    let stream = dial(endpoint).and_then(|stream| {
                        stream.set_nonblocking(true)?;
                        tokio::net::TcpStream::from_std(stream)
                    });
                    ready(stream)
                };
                amqp_tokio::Connector::new(&ends(&self.uri))?.dial_with(dial).connect().await
            }
        }
    }

    /// A connection whose driver is dropped when `dropped` hears of it.
    pub(crate) async fn connect_until(&self, dropped: smol::channel::Receiver<()>) -> Connection {
        macro_rules! connect {
            ($adapter:ident) => {{
                let connector = $adapter::Connector::new(&ends(&self.uri)).unwrap();
                let (connecting, driver) = connector.driver().unwrap();
                let end = async move { dropped.recv().await.unwrap() };
                let driving = self.spawn(smol::future::or(driver, end));
                let connection = connecting.await.unwrap();
                drop(driving);
                connection
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => connect!(amqp_async_std),
            Adapter::Smol => connect!(amqp_smol),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => connect!(amqp_tokio),
        }
    }

    /// Starts to connect, drops the attempt once it is as far as is wanted, and waits for the end of the driver.
    pub(crate) async fn give_up(
        &self,
        configure: impl FnOnce(Config) -> Config,
        far_enough: impl Future<Output = ()>,
    ) {
        let config = configure(Config::from_uri(&ends(&self.uri)).unwrap());
        macro_rules! give_up {
            ($adapter:ident) => {{
                let (connecting, driver) = $adapter::Connector::from(config).driver().unwrap();
                let driving = self.spawn(driver);
                support::within("the step", far_enough).await;
                drop(connecting);
                support::within("the end of the driver", driving).await;
            }};
        }
        match self.adapter {
            Adapter::AsyncStd => give_up!(amqp_async_std),
            Adapter::Smol => give_up!(amqp_smol),
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => give_up!(amqp_tokio),
        }
    }

    /// Why a driver that is dropped before it ran lets its connection fail.
    pub(crate) async fn connect_undriven(&self) -> ConnectError {
        let (connecting, driver) =
            amqp_tokio::Connector::new(&ends(&self.uri)).unwrap().driver().unwrap();
        drop(driver);
        connecting.await.unwrap_err()
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = T> + Send>> {
        match self.adapter {
            Adapter::AsyncStd => Box::pin(async_std::task::spawn(work)),
            Adapter::Smol => {
                let (send, receive) = smol::channel::bounded(1);
                let work = async move {
                    let _ = send.send(work.await).await;
                };
                smol::spawn(work).detach();
                Box::pin(async move { receive.recv().await.unwrap() })
            }
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                let task = tokio::spawn(work);
                Box::pin(async move { task.await.unwrap() })
            }
        }
    }

    /// As an application's handler waits for something else than the broker.
    pub(crate) async fn pause(&self, time: Duration) {
        match self.adapter {
            Adapter::AsyncStd => async_std::task::sleep(time).await,
            Adapter::Smol => {
                smol::Timer::after(time).await;
            }
            Adapter::TokioCurrentThread | Adapter::TokioMultiThread => {
                tokio::time::sleep(time).await;
            }
        }
    }
}

/// Cancels the consumer that the delivery came to.
pub(crate) async fn cancel_consumer(delivery: &Delivery) -> Result<(), Error> {
    delivery.cancel_consumer().await
}

/// Whether nothing comes for so long.
pub(crate) async fn is_silent(consumer: &mut Consumer, time: Duration) -> bool {
    support::timeout(time, consumer.next()).await.is_none()
}

/// Whether the confirm does not come for so long.
pub(crate) async fn is_open(confirm: &mut Confirm, time: Duration) -> bool {
    support::timeout(time, confirm).await.is_none()
}

/// Turns each `async fn name(at: At)` into tests on the model broker.
macro_rules! on_model {
    ($($name:ident)*) => {
        super::api::tests_on! { on_model model TokioCurrentThread $($name)* }
        super::api::tests_on! { on_model_with_async_std model AsyncStd $($name)* }
        super::api::tests_on! { on_model_with_smol model Smol $($name)* }
    };
}

/// Turns each `async fn name(at: At)` into tests on the model broker behind TLS.
macro_rules! on_model_over_tls {
    ($($name:ident)*) => {
        super::api::tests_on! { on_model_over_tls model_over_tls TokioCurrentThread $($name)* }
        super::api::tests_on! { on_model_over_tls_with_async_std model_over_tls AsyncStd $($name)* }
        super::api::tests_on! { on_model_over_tls_with_smol model_over_tls Smol $($name)* }
    };
}

/// Turns each `async fn name(at: At)` into tests on RabbitMQ.
macro_rules! on_rabbitmq {
    ($($name:ident)*) => {
        super::api::tests_on! { on_async_std rabbitmq AsyncStd $($name)* }
        super::api::tests_on! { on_smol rabbitmq Smol $($name)* }
        super::api::tests_on! { on_tokio_current_thread rabbitmq TokioCurrentThread $($name)* }
        super::api::tests_on! { on_tokio_multi_thread rabbitmq TokioMultiThread $($name)* }
    };
}

/// Turns each `async fn name(at: At)` into one test on RabbitMQ, with threads beside its own: it may block.
macro_rules! on_tokio {
    ($($name:ident)*) => {
        super::api::tests_on! { on_tokio rabbitmq TokioMultiThread $($name)* }
    };
}

macro_rules! tests_on {
    ($module:ident $broker:ident $adapter:ident $($name:ident)*) => {
        mod $module {
            use super::super::api::{Adapter, At};

            $(
                #[test]
                fn $name() {
                    At::run(Adapter::$adapter, crate::support::$broker().uri(), super::$name);
                }
            )*
        }
    };
}

pub(crate) use {on_model, on_model_over_tls, on_rabbitmq, on_tokio, tests_on};
