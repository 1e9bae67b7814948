//! The blocking handles as ones that can be awaited: what takes only values of its own runs on a thread of
//! its own, so that calls can be under way at the same time; what borrows runs where it stands.

use std::io;
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use amqp_blocking::Connector;
pub(crate) use amqp_blocking::{errors::*, requests::*, *};

use crate::support::ends;

/// A broker that is reached by the blocking adapter.
#[derive(Clone, Debug)]
pub(crate) struct At {
    uri: String,
}

impl At {
    /// Runs `test` on a thread of its own, and fails if it hangs: what blocks has no other end.
    pub(crate) fn run<F: Future<Output = ()> + 'static>(uri: String, test: fn(Self) -> F) {
        let (done, outcome) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            smol::block_on(test(Self { uri }));
            let _ = done.send(());
        });
        if outcome.recv_timeout(Duration::from_secs(240)) == Err(mpsc::RecvTimeoutError::Timeout) {
            panic!("the test hangs");
        }
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Another broker.
    #[allow(clippy::unused_self, reason = "it has the adapter, where there are several")]
    pub(crate) fn to(&self, uri: impl Into<String>) -> Self {
        Self { uri: uri.into() }
    }

    pub(crate) async fn open(
        &self,
        configure: impl FnOnce(Config) -> Config,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?.configure(configure);
        smol::unblock(move || connector.connect()).await.map(Connection)
    }

    /// Connects over a stream of the application's own.
    pub(crate) async fn connect_over(
        &self,
        stream: std::os::unix::net::UnixStream,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?;
        let stream = Stream::unix(stream).unwrap();
        smol::unblock(move || connector.connect_with(stream)).await.map(Connection)
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
        let connector = Connector::new(&ends(&self.uri))?
            .configure(configure)
            .on_connect(move |connection| smol::block_on(hook(Connection(connection.clone()))))
            .on_error(move |_, cause| {
                let _ = lost.send(format!("lost: {cause}"));
            })
            .on_close(move |_, cause| {
                let _ = closed.send(format!("closed: {cause}"));
            })
            .on_blocked(move |_, reason| {
                let _ = blocked.send(format!("blocked: {reason}"));
            })
            .on_unblocked(move |_| {
                let _ = calls.send("unblocked".into());
            });
        smol::unblock(move || connector.connect()).await.map(Connection)
    }

    /// Connects with a function that decides which losses are recovered.
    pub(crate) async fn connect_deciding(
        &self,
        configure: impl FnOnce(Config) -> Config,
        recovers: impl Fn(&CloseCause) -> bool + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?.configure(configure);
        let connector = connector.recover_if(recovers);
        smol::unblock(move || connector.connect()).await.map(Connection)
    }

    /// Connects with credentials that a function provides.
    pub(crate) async fn connect_providing(
        &self,
        provider: impl Fn() -> io::Result<ProvidedCredentials> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?.credentials_provider(provider);
        smol::unblock(move || connector.connect()).await.map(Connection)
    }

    /// The same, over a stream of the application's own.
    pub(crate) async fn connect_over_providing(
        &self,
        stream: TcpStream,
        provider: impl Fn() -> io::Result<ProvidedCredentials> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?.credentials_provider(provider);
        let stream = Stream::tcp(stream).unwrap();
        smol::unblock(move || connector.connect_with(stream)).await.map(Connection)
    }

    /// Connects over streams that a function makes.
    pub(crate) async fn connect_by(
        &self,
        dial: impl Fn(Endpoint) -> io::Result<TcpStream> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        let connector = Connector::new(&ends(&self.uri))?;
        let connector = connector.dial_with(move |endpoint| Stream::tcp(dial(endpoint)?));
        smol::unblock(move || connector.connect()).await.map(Connection)
    }

    /// Starts to connect, drops the attempt once it is as far as is wanted, and waits for the end of the driver,
    /// which has a thread of its own.
    pub(crate) async fn give_up(
        &self,
        configure: impl FnOnce(Config) -> Config,
        far_enough: impl Future<Output = ()>,
    ) {
        let connector = Connector::new(&ends(&self.uri)).unwrap().configure(configure);
        let (connecting, driver) = connector.driver().unwrap();
        let thread = std::thread::spawn(move || driver.run());
        crate::support::within("the step", far_enough).await;
        drop(connecting);
        let end = smol::unblock(move || thread.join().unwrap());
        let _ = crate::support::within("the end of the thread", end).await;
    }

    /// Why a driver that is dropped before it ran lets its connection fail.
    pub(crate) async fn connect_undriven(&self) -> ConnectError {
        let (connecting, driver) = Connector::new(&ends(&self.uri)).unwrap().driver().unwrap();
        drop(driver);
        connecting.wait().unwrap_err()
    }

    #[allow(clippy::unused_self, reason = "where there are several runtimes, it has one")]
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = T> + Send>> {
        Box::pin(smol::unblock(move || smol::block_on(work)))
    }

    /// As an application's handler waits for something else than the broker.
    #[allow(clippy::unused_self, reason = "where there are several runtimes, it has one")]
    pub(crate) async fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

macro_rules! wraps {
    ($($name:ident)*) => {
        $(
            impl Deref for $name {
                type Target = amqp_blocking::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        )*
    };
}

wraps! { Channel Connection Consumer Events Publisher Tx }

/// Each call on a thread of its own.
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(
            pub(crate) fn $name(
                &self,
                $($argument: $type),*
            ) -> impl Future<Output = $output> + Send + use<> {
                let handle = self.0.clone();
                async move { smol::unblock(move || handle.$name($($argument),*)).await }
            }
        )*
    };
}

macro_rules! plain_calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty)?) -> $reply:ty = $request:ty, $value:expr;
    )*) => {
        $(
            pub(crate) fn $name(
                &self,
                $($argument: impl Into<$type>)?
            ) -> Pin<Box<dyn Future<Output = Result<$reply, Error>> + Send>> {
                let handle = self.0.clone();
                $(let $argument: $type = $argument.into();)?
                Box::pin(smol::unblock(move || handle.$name($($argument)?)))
            }
        )*
    };
}

#[derive(Clone, Debug)]
pub(crate) struct Connection(amqp_blocking::Connection);

impl Connection {
    calls! {
        close() -> CloseCause;
        closed() -> CloseCause;
        drain(timeout: Duration) -> Result<(), Error>;
    }

    pub(crate) async fn publisher(&self) -> Result<Publisher, Error> {
        self.0.publisher().map(Publisher)
    }

    pub(crate) async fn consume(
        &self,
        consume: impl Into<BasicConsume>,
    ) -> Result<Consumer, Error> {
        let (handle, consume) = (self.0.clone(), consume.into());
        smol::unblock(move || handle.consume(consume)).await.map(Consumer)
    }

    pub(crate) async fn open_channel(&self) -> Result<Channel, Error> {
        let handle = self.0.clone();
        smol::unblock(move || handle.open_channel()).await.map(Channel)
    }

    pub(crate) async fn with_channel<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: AsyncFnOnce(Channel) -> Result<T, E>,
        E: From<Error>,
    {
        self.0.with_channel(|channel| smol::block_on(body(Channel(channel))))
    }

    pub(crate) async fn update_secret(
        &self,
        secret: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), Error> {
        self.0.update_secret(secret, reason)
    }

    pub(crate) fn events(&self) -> Events {
        Events(self.0.events())
    }
}

#[derive(Debug)]
pub(crate) struct Events(amqp_blocking::Events);

impl Events {
    pub(crate) async fn next(&mut self) -> Option<ConnectionEvent> {
        self.0.next()
    }

    pub(crate) fn try_next(&mut self) -> Option<ConnectionEvent> {
        self.0.try_recv()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Channel(amqp_blocking::Channel);

impl Channel {
    amqp_async::plain_calls!(Channel => plain_calls);

    calls! {
        close() -> Result<(), Error>;
        closed() -> ChannelCause;
        returned() -> Result<ReturnedMessage, Error>;
    }

    pub(crate) async fn basic_consume(
        &self,
        consume: impl Into<BasicConsume>,
    ) -> Result<Consumer, Error> {
        let (handle, consume) = (self.0.clone(), consume.into());
        smol::unblock(move || handle.basic_consume(consume)).await.map(Consumer)
    }

    pub(crate) fn basic_get(
        &self,
        get: impl Into<BasicGet>,
    ) -> impl Future<Output = Result<Option<Delivery>, Error>> + Send {
        let (handle, get) = (self.0.clone(), get.into());
        async move { smol::unblock(move || handle.basic_get(get)).await }
    }

    pub(crate) async fn confirm_select(&self) -> Result<Publisher, Error> {
        self.0.confirm_select().map(Publisher)
    }

    pub(crate) async fn tx_select(&self) -> Result<Tx, Error> {
        self.0.tx_select().map(Tx)
    }

    pub(crate) async fn basic_publish(&self, publish: impl Into<Publish<'_>>) -> Result<(), Error> {
        self.0.basic_publish(publish)
    }

    pub(crate) async fn no_wait<R: NoWait + Unpin>(&self, request: R) -> Result<(), Error> {
        self.0.no_wait(request)
    }
}

#[derive(Debug)]
pub(crate) struct Consumer(amqp_blocking::Consumer);

impl DerefMut for Consumer {
    fn deref_mut(&mut self) -> &mut amqp_blocking::Consumer {
        &mut self.0
    }
}

impl Consumer {
    pub(crate) fn channel(&self) -> Channel {
        Channel(self.0.channel())
    }

    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(self.0.canceller())
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        self.0.next()
    }

    pub(crate) async fn cancel(&mut self) -> Result<(), Error> {
        self.0.cancel()
    }

    pub(crate) async fn cancel_and_requeue(&mut self) -> Result<usize, Error> {
        self.0.cancel_and_requeue()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Canceller(amqp_blocking::Canceller);

impl Canceller {
    pub(crate) async fn cancel(&self) -> Result<(), Error> {
        self.0.cancel()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Publisher(amqp_blocking::Publisher);

impl Publisher {
    pub(crate) fn channel(&self) -> Channel {
        Channel(self.0.channel())
    }

    pub(crate) async fn publish(
        &self,
        publish: impl Into<Publish<'_>>,
    ) -> Result<(), PublishError> {
        self.0.publish(publish)
    }

    pub(crate) fn try_send<'a>(
        &self,
        publish: impl Into<Publish<'a>>,
    ) -> Result<Confirm, TrySendError> {
        self.0.try_send(publish).map(Confirm)
    }

    pub(crate) async fn all_confirmed(&self) -> Result<(), Unconfirmed> {
        self.0.all_confirmed()
    }

    pub(crate) async fn send(
        &self,
        publish: impl Into<Publish<'_>>,
    ) -> Result<Confirm, PublishError> {
        self.0.send(publish).map(Confirm)
    }
}

#[derive(Debug)]
pub(crate) struct Confirm(amqp_blocking::Confirm);

impl Confirm {
    pub(crate) const fn seq(&self) -> PublishSeq {
        self.0.seq()
    }
}

impl IntoFuture for Confirm {
    type Output = Result<(), PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(smol::unblock(move || self.0.wait()))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tx(amqp_blocking::Tx);

impl Tx {
    amqp_async::plain_calls!(Tx => plain_calls);

    pub(crate) fn channel(&self) -> Channel {
        Channel(self.0.channel())
    }
}

/// Cancels the consumer that the delivery came to.
pub(crate) async fn cancel_consumer(delivery: &Delivery) -> Result<(), Error> {
    delivery.cancel_consumer()
}

/// Whether nothing comes for so long.
pub(crate) async fn is_silent(consumer: &mut Consumer, time: Duration) -> bool {
    consumer.recv_timeout(time).unwrap().is_none()
}

/// Whether the confirm does not come for so long.
pub(crate) async fn is_open(confirm: &mut Confirm, time: Duration) -> bool {
    confirm.0.wait_timeout(time).unwrap().is_none()
}

/// Turns each `async fn name(at: At)` into a test on the model broker.
macro_rules! on_model {
    ($($name:ident)*) => {
        super::api::tests_on! { on_model model $($name)* }
    };
}

/// Turns each `async fn name(at: At)` into a test on the model broker behind TLS.
macro_rules! on_model_over_tls {
    ($($name:ident)*) => {
        super::api::tests_on! { on_model_over_tls model_over_tls $($name)* }
    };
}

/// Turns each `async fn name(at: At)` into a test on RabbitMQ.
macro_rules! on_rabbitmq {
    ($($name:ident)*) => {
        super::api::tests_on! { on_rabbitmq rabbitmq $($name)* }
    };
}

/// What is shown on tokio alone.
macro_rules! on_tokio {
    ($($name:ident)*) => {
        $(const _: () = _ = $name;)*
    };
}

macro_rules! tests_on {
    ($module:ident $broker:ident $($name:ident)*) => {
        mod $module {
            use super::super::api::At;

            $(
                #[test]
                fn $name() {
                    At::run(crate::support::$broker().uri(), super::$name);
                }
            )*
        }
    };
}

pub(crate) use {on_model, on_model_over_tls, on_rabbitmq, on_tokio, tests_on};
