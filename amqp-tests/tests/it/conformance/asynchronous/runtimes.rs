//! A runtime that ends takes its connections with it, and every handle says so.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::api::{BasicConsume, Channel, CloseCause, Connection, Error, Publish, QueueDeclare};
use crate::stopping_peers::{Point, StoppingPeers, Then};
use crate::support::{exclusive, model, threads_named, timeout, within};

/// Everything that can be done without a driver ends at once.
async fn all_is_gone(connection: Connection, channel: Channel) {
    let gone = Error::Connection(CloseCause::DriverGone);
    assert_eq!(within("the end", connection.closed()).await, CloseCause::DriverGone);
    assert_eq!(connection.open_channel().await.unwrap_err(), gone);
    assert_eq!(channel.queue_declare(QueueDeclare::passive("q")).await.unwrap_err(), gone);
    assert_eq!(channel.basic_consume(BasicConsume::new("q")).await.unwrap_err(), gone);
    assert_eq!(connection.close().await, CloseCause::DriverGone);
}

async fn open(connection: Connection) -> (Connection, Channel) {
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(exclusive("runtime")).await.unwrap();
    (connection, channel)
}

#[test]
fn a_tokio_runtime_that_is_dropped_ends_every_handle() {
    const NAME: &str = "runtime-counted";
    let mut builders = [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ];
    for builder in &mut builders {
        let runtime = builder.enable_all().thread_name(NAME).build().unwrap();
        let (connection, channel) = runtime
            .block_on(async { open(amqp_tokio::connect(&model().uri()).await.unwrap()).await });
        // What waits is told.
        let waiting = connection.closed();
        let waiter = std::thread::spawn(move || smol::block_on(waiting));
        drop(runtime);
        assert_eq!(waiter.join().unwrap(), CloseCause::DriverGone);
        smol::block_on(all_is_gone(connection, channel));
        assert_eq!(threads_named(NAME), 0);
    }
}

#[test]
fn a_smol_executor_that_is_dropped_ends_every_handle() {
    let executor = smol::Executor::new();
    let connector = amqp_smol::Connector::new(&model().uri()).unwrap();
    let (connecting, driver) = connector.driver().unwrap();
    executor.spawn(driver).detach();
    let (connection, channel) =
        smol::block_on(executor.run(async { open(connecting.await.unwrap()).await }));
    drop(executor);
    smol::block_on(all_is_gone(connection, channel));
}

#[test]
fn an_async_std_task_that_is_cancelled_ends_every_handle() {
    async_std::task::block_on(async {
        let connector = amqp_async_std::Connector::new(&model().uri()).unwrap();
        let (connecting, driver) = connector.driver().unwrap();
        let driving = async_std::task::spawn(driver);
        let (connection, channel) = open(connecting.await.unwrap()).await;
        driving.cancel().await;
        all_is_gone(connection, channel).await;
    });
}

/// A task that hangs would keep its runtime from ending.
#[test]
fn a_connection_that_is_given_up_leaves_nothing_that_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("amqp://{}", listener.local_addr().unwrap());
    runtime.block_on(async {
        let connecting = amqp_tokio::connect(&uri);
        assert!(timeout(Duration::from_millis(50), connecting).await.is_none());
        // The driver is a task that ends once its handle is gone.
        every_task_ends().await;
    });
}

#[test]
fn an_attempt_that_fails_leaves_nothing_that_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for then in [Then::Silence, Then::Close] {
            let peers = StoppingPeers::start(&Point::ALL, then);
            let connector = amqp_tokio::Connector::new(&peers.uri(&[])).unwrap();
            let connector = connector.address_timeout(Duration::from_millis(200));
            within("a failure", connector.connect()).await.unwrap_err();
            every_task_ends().await;
        }
    });
}

async fn every_task_ends() {
    let metrics = tokio::runtime::Handle::current().metrics();
    within("the end of every task", async {
        while metrics.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Clock and timer of a runtime agree: a timer that fires before its deadline has come on the clock would be
/// set again at once.
#[test]
fn a_driver_at_rest_does_not_spin() {
    macro_rules! rests {
        ($adapter:ident, $spawn:expr) => {
            async {
                let connector = $adapter::Connector::new(&model().uri()).unwrap();
                let connector = connector.heartbeat($adapter::Heartbeat::Seconds(1));
                let (connecting, mut driver) = connector.driver().unwrap();
                let polls = Arc::new(AtomicU32::new(0));
                let count = Arc::clone(&polls);
                let driving = $spawn(poll_fn(move |cx| {
                    count.fetch_add(1, Ordering::Relaxed);
                    Pin::new(&mut driver).poll(cx)
                }));
                let connection = connecting.await.unwrap();
                let before = polls.load(Ordering::Relaxed);
                crate::support::sleep(Duration::from_secs(4)).await;
                let polled = polls.load(Ordering::Relaxed) - before;
                // Each heartbeat, sent or received, takes a few.
                assert!(
                    (4..200).contains(&polled),
                    "{polled} polls in 4 s on {}",
                    stringify!($adapter)
                );
                connection.close().await;
                drop(driving);
            }
        };
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(rests!(amqp_tokio, tokio::spawn));
    smol::block_on(rests!(amqp_smol, smol::spawn));
    async_std::task::block_on(rests!(amqp_async_std, async_std::task::spawn));
}

/// A stream that is no socket, and small: reads and writes of it are partial.
#[test]
fn a_tokio_connection_may_live_in_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(100);
        let address = ("127.0.0.1", model().port());
        let mut broker = tokio::net::TcpStream::connect(address).await.unwrap();
        let relay =
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut theirs, &mut broker).await },
            );
        let connector = amqp_tokio::Connector::from(amqp_tokio::Config::default());
        let (connection, channel) = open(connector.connect_with(ours).await.unwrap()).await;
        let queue = channel.queue_declare(exclusive("memory")).await.unwrap().queue;
        let body = vec![3; 100_000];
        channel.basic_publish(Publish::new("", &queue, &body)).await.unwrap();
        let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
        assert!(got.body() == body);
        got.ack().unwrap();
        assert_eq!(connection.close().await, CloseCause::ByClient);
        within("the end of the stream", relay).await.unwrap().unwrap();
    });
}

/// While the next attempt fetches its credentials, nothing of the one before stays open.
#[test]
fn a_failed_attempt_is_dropped_while_the_next_fetches_its_credentials() {
    smol::block_on(async {
        let silent = smol::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let asked = AtomicU32::new(0);
        let provider = move || {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if !is_first {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::io::Error>(amqp_smol::Credentials::plain("guest", "guest"))
            }
        };
        let connector = amqp_smol::Connector::new(&format!("amqp://{address},{address}")).unwrap();
        let connector =
            connector.address_timeout(Duration::from_secs(1)).credentials_provider(provider);
        let peer = async {
            let (mut stream, _) = silent.accept().await.unwrap();
            smol::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await.unwrap();
            true
        };
        let connecting = async {
            connector.connect().await.unwrap_err();
            false
        };
        assert!(smol::future::or(peer, connecting).await, "the first socket stays open");
    });
}
