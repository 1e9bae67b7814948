//! What only threads can show: iterating, waiting for so long, and that no thread is left.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use amqp_blocking::{
    BasicConsume, CloseCause, Config, Connection, Connector, Delivery, Error, Overflow, Publish,
    PublishError, QueueDelete, Recovery, Stream, TryRecvError, connect,
};
use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};

use crate::stopping_peers::{Point, StoppingPeers, Then};
use crate::support::{exclusive, rabbitmq, threads_named};

fn open() -> (Connection, amqp_blocking::Channel, String) {
    let connection = connect(&rabbitmq().uri()).unwrap();
    let channel = connection.open_channel().unwrap();
    let queue = channel.queue_declare(exclusive("threads")).unwrap().queue;
    (connection, channel, queue)
}

/// PK-72: a consumer is what pika calls a generator.
#[test]
fn pk_72_a_consumer_is_an_iterator_that_notices_silence() {
    let (connection, channel, queue) = open();
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).unwrap();
    let begun = Instant::now();
    assert!(consumer.recv_timeout(Duration::from_millis(100)).unwrap().is_none());
    assert!(begun.elapsed() >= Duration::from_millis(100) && !consumer.is_ended());
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    for body in ["1", "2", "3"] {
        channel.basic_publish(Publish::new("", &queue, body)).unwrap();
    }
    // It goes on after the silence.
    let first = consumer.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(first.body(), b"1");
    first.ack().unwrap();
    let second = consumer.next().unwrap().unwrap();
    second.cancel_consumer().unwrap();
    second.ack().unwrap();
    let rest: Vec<Delivery> = consumer.by_ref().map(Result::unwrap).collect();
    assert_eq!(rest.iter().map(Delivery::body).collect::<Vec<_>>(), [b"3"]);
    assert!(consumer.is_ended());
    assert!(consumer.recv_timeout(Duration::from_secs(60)).unwrap().is_none());
    connection.close();
}

#[test]
fn pk_72_the_end_of_a_consumer_is_raised_once() {
    let (connection, channel, queue) = open();
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).unwrap();
    connection.open_channel().unwrap().queue_delete(QueueDelete::new(&queue)).unwrap();
    let error = consumer.recv_timeout(Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, Error::ConsumerCancelled { .. }), "{error:?}");
    assert!(consumer.is_ended());
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Ended);
    assert!(consumer.next().is_none());
    connection.close();
}

#[test]
fn a_confirm_may_be_waited_for_a_while() {
    let broker = ModelBroker::start().unwrap();
    let connection = connect(&broker.uri()).unwrap();
    let publisher = connection.open_channel().unwrap().confirm_select().unwrap();
    broker.set_alarm(Some("low on memory"));
    // The first one tells the broker that this connection publishes.
    let mut events = connection.events();
    let first = publisher.send(Publish::new("", "nobody", b"x")).unwrap();
    assert!(events.recv_timeout(Duration::from_secs(60)).is_some());
    let mut confirm = publisher.send(Publish::new("", "nobody", b"x")).unwrap();
    let begun = Instant::now();
    assert_eq!(confirm.wait_timeout(Duration::from_millis(50)), Ok(None));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(connection.closed_timeout(Duration::from_millis(10)), None);
    broker.set_alarm(None);
    assert_eq!(confirm.wait_timeout(Duration::from_secs(60)), Ok(Some(())));
    assert_eq!(confirm.wait_timeout(Duration::ZERO), Ok(Some(())), "it returns the same again");
    confirm.wait().unwrap();
    first.wait().unwrap();
    assert_eq!(connection.close(), CloseCause::ByClient);
    assert_eq!(connection.closed_timeout(Duration::ZERO), Some(CloseCause::ByClient));
}

/// PK-63: nothing needs to be serviced.
#[test]
fn deliveries_are_acknowledged_from_threads_of_their_own() {
    let (connection, channel, queue) = open();
    for _ in 0..20 {
        channel.basic_publish(Publish::new("", &queue, b"x")).unwrap();
    }
    let consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(4)).unwrap();
    thread::scope(|scope| {
        for delivery in consumer.take(20) {
            let delivery = delivery.unwrap();
            scope.spawn(move || delivery.ack().unwrap());
        }
    });
    channel.close().unwrap();
    let channel = connection.open_channel().unwrap();
    assert!(channel.basic_get(queue.as_str()).unwrap().is_none());
    connection.close();
}

/// The I/O thread is there while its connection is, whatever ended it. The driver runs on a thread of a name
/// of its own, for other tests have theirs.
#[test]
fn no_thread_outlives_its_connection() {
    const NAME: &str = "amqp-counted";
    let broker = ModelBroker::start().unwrap();
    let start = || {
        let connector = Connector::new(&broker.uri()).unwrap().recovery(Recovery::never());
        let (connecting, driver) = connector.driver().unwrap();
        let thread = thread::Builder::new().name(NAME.into()).spawn(move || driver.run()).unwrap();
        (connecting, thread)
    };
    let ends: [fn(Connection); 3] = [
        |connection| assert_eq!(connection.close(), CloseCause::ByClient),
        |connection| connection.abort(),
        drop,
    ];
    for end in ends {
        let (connecting, thread) = start();
        let connection = connecting.wait().unwrap();
        connection.open_channel().unwrap();
        assert_eq!(threads_named(NAME), 1);
        end(connection);
        thread.join().unwrap();
    }
    // Given up while it connects, and lost.
    let (connecting, thread) = start();
    drop(connecting);
    thread.join().unwrap();
    let (connecting, thread) = start();
    let connection = connecting.wait().unwrap();
    broker.close_all("because");
    assert!(matches!(connection.closed(), CloseCause::ByBroker(_)));
    thread.join().unwrap();
    assert_eq!(threads_named(NAME), 0);
}

/// Nor an attempt to connect, wherever its peer has stopped.
#[test]
fn no_thread_outlives_an_attempt() {
    for then in [Then::Silence, Then::Close] {
        let peers = StoppingPeers::start(&Point::ALL, then);
        let connector = Connector::new(&peers.uri(&[])).unwrap();
        let connector = connector.address_timeout(Duration::from_millis(200));
        let (connecting, driver) = connector.driver().unwrap();
        let thread = thread::spawn(move || driver.run());
        connecting.wait().unwrap_err();
        thread.join().unwrap();
    }
}

/// A stream that panics once it is told to: what becomes of a driver in whose thread something panics.
struct Panicking {
    stream: mio::net::UnixStream,
    panics: Arc<AtomicBool>,
}

impl Read for Panicking {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(!self.panics.load(Ordering::SeqCst), "as asked");
        self.stream.read(room)
    }
}

impl Write for Panicking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl mio::event::Source for Panicking {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        self.stream.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        self.stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}

#[test]
fn a_driver_that_panics_ends_every_handle() {
    let broker = ModelBroker::start().unwrap();
    let upstream = std::net::TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut from_broker, mut to_client) =
        (upstream.try_clone().unwrap(), theirs.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut from_broker, &mut to_client));
    let (mut from_client, mut to_broker) = (theirs, upstream);
    thread::spawn(move || io::copy(&mut from_client, &mut to_broker));

    ours.set_nonblocking(true).unwrap();
    let panics = Arc::new(AtomicBool::new(false));
    let stream = mio::net::UnixStream::from_std(ours);
    let stream = Stream::new(Panicking { stream, panics: Arc::clone(&panics) });
    let connection = Connector::from(Config::default()).connect_with(stream).unwrap();
    let channel = connection.open_channel().unwrap();
    let queue = channel.queue_declare(exclusive("panics")).unwrap().queue;
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).unwrap();
    panics.store(true, Ordering::SeqCst);
    let gone = Error::Connection(CloseCause::DriverGone);
    // Its answer is what the panic meets.
    assert_eq!(channel.queue_declare(exclusive("late")).unwrap_err(), gone);
    assert_eq!(consumer.next().unwrap().unwrap_err(), gone);
    assert_eq!(connection.closed(), CloseCause::DriverGone);
    assert_eq!(connection.open_channel().unwrap_err(), gone);
    drop((consumer, channel));
    assert_eq!(connection.close(), CloseCause::DriverGone);
}

/// What was told once is told again, and is not taken for a confirm.
#[test]
fn a_refused_publish_stays_refused() {
    let (connection, channel, _) = open();
    let declare = exclusive("full").max_length(1).overflow(Overflow::RejectPublish);
    let queue = channel.queue_declare(declare).unwrap().queue;
    let publisher = channel.confirm_select().unwrap();
    publisher.publish(Publish::new("", &queue, b"1")).unwrap();
    let mut confirm = publisher.send(Publish::new("", &queue, b"2")).unwrap();
    let patience = Duration::from_secs(60);
    assert_eq!(confirm.wait_timeout(patience), Err(PublishError::Nacked));
    assert_eq!(confirm.wait_timeout(patience), Err(PublishError::Nacked));
    assert_eq!(confirm.wait(), Err(PublishError::Nacked));
    connection.close();
}

/// A peer that reads nothing holds nobody up for longer than is asked.
#[test]
fn publishing_may_be_given_up() {
    let broker = ModelBroker::start().unwrap();
    let proxy = Proxy::start(broker.port()).unwrap();
    let connection = connect(&proxy.uri()).unwrap();
    let channel = connection.open_channel().unwrap();
    let publisher = connection.open_channel().unwrap().confirm_select().unwrap();
    proxy.inject(Direction::ToBroker, Fault::Pause);
    let (body, moment) = (vec![0; 3_000], Duration::from_millis(100));
    // A thread that was held up may look like a full socket: until nothing more is written.
    let mut sent = u64::MAX;
    while std::mem::replace(&mut sent, connection.stats().bytes_sent) != sent {
        let publish = || channel.basic_publish_timeout(Publish::new("", "q", &body), moment);
        while publish().unwrap().is_some() {}
    }
    let begun = Instant::now();
    assert!(publisher.send_timeout(Publish::new("", "q", &body), moment).unwrap().is_none());
    assert!(begun.elapsed() >= moment);
    assert!(channel.returned_timeout(moment).unwrap().is_none());
    proxy.resume();
    let patience = Duration::from_secs(60);
    let sent = publisher.send_timeout(Publish::new("", "q", &body), patience).unwrap();
    sent.unwrap().wait().unwrap();
    assert_eq!(connection.close(), CloseCause::ByClient);
}

/// A wait within a wait takes no wake-up of the other's: here the body of `with_channel`, which is waited for.
#[test]
fn waits_may_be_nested() {
    let (connection, channel, queue) = open();
    for _ in 0..20 {
        channel.basic_publish(Publish::new("", &queue, b"x")).unwrap();
        let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).unwrap();
        let delivery = consumer.next().unwrap().unwrap();
        let nested = connection.with_channel(|other| {
            delivery.cancel_consumer()?;
            connection.with_channel(|_| other.queue_declare(exclusive("nested")))
        });
        nested.unwrap();
        delivery.ack().unwrap();
    }
    connection.close();
}

/// Handles that are kept keep no file of the system's once their connection has ended.
#[test]
fn an_ended_connection_keeps_no_file() {
    let broker = ModelBroker::start().unwrap();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests open and close theirs meanwhile: what is looked for grows with the connections.
    let mut kept = Vec::new();
    let before = files();
    for _ in 0..200 {
        let connection = connect(&broker.uri()).unwrap();
        kept.push((connection.open_channel().unwrap(), connection.clone()));
        connection.close();
    }
    let begun = Instant::now();
    while files() > before + 150 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} files, {before} before", files());
        thread::sleep(Duration::from_millis(10));
    }
}
