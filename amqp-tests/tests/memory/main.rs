//! What connections cost, by a counting allocator. It counts the whole process, so these tests have
//! a process of their own and run one after another.

mod applications;
mod held;
mod hostile;
mod losses;
mod payloads;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_async::core::{Action, Session, Transmit};
use amqp_proto::method::{basic, channel, connection};
use amqp_proto::{ContentHeader, RawProperties, RawTable, ShortStr, TABLE_DEPTH_MAX, frame};
use amqp_testkit::RabbitMq;
use amqp_testkit::alloc::{Counting, counting, live_bytes};
use amqp_testkit::raw_connection::start;
use amqp_tokio::{
    BasicConsume, Config, Connection, Publish, QueueDeclare, Recovery, connect, limits,
};
use bytes::{Bytes, BytesMut};

#[global_allocator]
static ALLOCATOR: &Counting = counting();

const CONNECTIONS: usize = 20;
const CHANNELS: usize = 200;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn memory_and_threads() {
    announced_sizes();
    payloads::announced();
    held::every_size();
    answers();
    // Its runtime's threads go with it: they would be counted below.
    runtime().block_on(hostile::every_row());
    let broker = RabbitMq::start().unwrap_or_else(|error| panic!("{error}"));
    runtime().block_on(async {
        idle(&broker.uri()).await;
        steady(&broker.uri()).await;
        large_bodies(&broker.uri()).await;
        blocked(&broker).await;
    });
    losses::on_every_adapter();
    applications::twenty_thousand();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// C3, M2: what a peer announces costs nothing before it arrives.
fn announced_sizes() {
    let mut wire = Vec::new();
    frame::write_method(&mut wire, 0, &start());
    frame::write_method(&mut wire, 0, &connection::Tune::default());
    frame::write_method(&mut wire, 0, &connection::OpenOk::default());
    let mut peer = Peer::new();
    peer.feed(&wire);
    let (id, _) = peer.session.open_channel(peer.now).unwrap();
    wire.clear();
    frame::write_method(&mut wire, 1, &channel::OpenOk::default());
    peer.feed(&wire);
    let consume = BasicConsume::new("q").consumer_tag("t").no_ack();
    peer.session.channel(id).consume(peer.now, &consume).unwrap();

    let mut body = Vec::new();
    frame::write_body(&mut body, 1, &[0; 100_000]);
    let before = live_bytes(ALLOCATOR);
    let consumer_tag = ShortStr::new("t").unwrap();
    let deliver = basic::Deliver { consumer_tag, delivery_tag: 1, ..Default::default() };
    let size = limits::MESSAGE_BYTES;
    let header = ContentHeader { class_id: 60, body_size: size, properties: RawProperties::NONE };
    wire.clear();
    frame::write_method(&mut wire, 1, &deliver);
    frame::write_header(&mut wire, 1, &header);
    peer.feed(&wire);
    let announced = live_bytes(ALLOCATOR) - before;
    assert!(announced < 8 << 10, "{announced} bytes for a body that has not begun");
    // The head of a body frame of 100 KB, and a little of it.
    peer.feed(&body[..1_000]);
    let begun = live_bytes(ALLOCATOR) - before;
    assert!(begun < 256 << 10, "{begun} bytes for 1,000 that have arrived");

    // A table that says it has 4 GiB.
    let before = live_bytes(ALLOCATOR);
    let table = [1, b'a', b'A', 0xff, 0xff, 0xff, 0xff, b'V'];
    assert!(RawTable::new(&table).decode(TABLE_DEPTH_MAX).is_err());
    assert_eq!(live_bytes(ALLOCATOR), before);
}

/// M4: a peer that talks and does not read fills two buffers with the answers: one is with the
/// driver, one waits behind it. Neither grows far beyond the mark, whatever size it began with.
fn answers() {
    let mut wire = Vec::new();
    frame::write_method(&mut wire, 0, &start());
    frame::write_method(&mut wire, 0, &connection::Tune::default());
    frame::write_method(&mut wire, 0, &connection::OpenOk::default());
    let mut flows = Vec::new();
    frame::write_method(&mut flows, 1, &channel::Flow { active: true });
    // As much as a driver reads before it asks whether more is welcome.
    let flows = flows.repeat(limits::READ_BUFFER_BYTES / flows.len());
    for body in (0..4_000).step_by(250) {
        let mut peer = Peer::new();
        peer.feed(&wire);
        let (id, _) = peer.session.open_channel(peer.now).unwrap();
        let mut out = Transmit::new();
        peer.write(&mut out);
        let mut open_ok = Vec::new();
        frame::write_method(&mut open_ok, 1, &channel::OpenOk::default());
        peer.feed(&open_ok);
        let before = live_bytes(ALLOCATOR);
        for buffers in 1..=2 {
            let bytes = vec![0; body];
            peer.session.channel(id).publish(&Publish::new("", "q", &bytes)).unwrap();
            while peer.session.wants_input() {
                peer.feed(&flows);
            }
            let held = live_bytes(ALLOCATOR) - before;
            let most = limits::OUTBOUND_HARD_BYTES + flows.len() + limits::OUTBOUND_STEP_BYTES;
            // Beside them, the input and the events of one call.
            let most = buffers * most + (256 << 10);
            assert!(held < most as isize, "{held} bytes in {buffers} buffers, body {body}");
            assert_eq!(peer.session.poll_transmit(peer.now, &mut out), buffers == 1);
        }
    }
}

/// A session whose peer is played by bytes.
struct Peer {
    session: Session,
    now: Instant,
    input: BytesMut,
}

impl Peer {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config::default().recovery(Recovery::never());
        let mut session = Session::new(Arc::new(config), now, 0).unwrap();
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
        session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 1).into()]));
        let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
        session.handle_connected(now, attempt);
        Self { session, now, input: BytesMut::with_capacity(4 << 10) }
    }

    /// Writes everything there is.
    fn write(&mut self, out: &mut Transmit) {
        while self.session.poll_transmit(self.now, out) {
            out.advance(out.to_vec().len());
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut more = true;
        while more {
            more = self.session.handle_input(self.now, &mut self.input);
            while self.session.poll_event().is_some() {}
        }
        assert_eq!(self.session.cause(), None);
    }
}

/// T16: at most 16 KiB for an idle connection, 512 bytes for an idle channel, no thread.
async fn idle(uri: &str) {
    // The first connection pays for what the runtime sets up once.
    let first = connect(uri).await.unwrap();
    let (bytes, running) = (live_bytes(ALLOCATOR), threads());
    let mut connections: Vec<Connection> = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(connect(uri).await.unwrap());
    }
    let each = (live_bytes(ALLOCATOR) - bytes) as usize / CONNECTIONS;
    println!("{each} bytes for an idle connection");
    assert!(each <= 16 << 10, "{each} bytes for an idle connection");
    assert_eq!(threads(), running);

    let mut channels = Vec::with_capacity(CHANNELS);
    let bytes = live_bytes(ALLOCATOR);
    for _ in 0..CHANNELS {
        channels.push(first.open_channel().await.unwrap());
    }
    let each = (live_bytes(ALLOCATOR) - bytes) as usize / CHANNELS;
    println!("{each} bytes for an idle channel");
    assert!(each <= 512, "{each} bytes for an idle channel");

    for connection in connections.into_iter().chain([first]) {
        connection.close().await;
    }
}

/// M6: publishing with confirms keeps nothing.
async fn steady(uri: &str) {
    let connection = connect(uri).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = QueueDeclare::new("steady").exclusive().argument("x-max-length", 1);
    channel.queue_declare(queue).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let publish = async |count: u32| {
        for _ in 0..count / 100 {
            let mut confirms = Vec::with_capacity(100);
            for _ in 0..100 {
                let publish = Publish::new("", "steady", b"sixteen bytes...").mandatory();
                confirms.push(publisher.send(publish).await.unwrap());
            }
            for confirm in confirms {
                confirm.await.unwrap();
            }
        }
    };
    publish(10_000).await;
    let before = live_bytes(ALLOCATOR);
    publish(100_000).await;
    let grown = live_bytes(ALLOCATOR) - before;
    println!("{grown} bytes more after 100,000 publishes");
    assert!(grown < 16 << 10, "{grown} bytes more after 100,000 publishes");
    connection.close().await;
}

/// A body given as `Bytes` is written from where it lies; one received is copied once at most.
async fn large_bodies(uri: &str) {
    let connection = connect(uri).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::new("large").exclusive()).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    for (size, count) in [(64 << 10, 40), (10 << 20, 4)] {
        let body = Bytes::from(vec![7; size]);
        let times = |before: usize| {
            (ALLOCATOR.stats().bytes_allocated - before) as f64 / (count * size) as f64
        };
        let before = ALLOCATOR.stats().bytes_allocated;
        for _ in 0..count {
            publisher.publish(Publish::new("", "large", body.clone())).await.unwrap();
        }
        let sent = times(before);
        let before = ALLOCATOR.stats().bytes_allocated;
        for _ in 0..count {
            let got = channel.basic_get("large").await.unwrap().unwrap();
            assert_eq!(got.body(), body);
            got.ack().unwrap();
        }
        let received = times(before);
        println!("{size} bytes: {sent:.2} times allocated to send, {received:.2} to receive");
        assert!(sent < 0.2, "{sent:.2} times {size} bytes to send");
        assert!(received < 1.7, "{received:.2} times {size} bytes to receive");
    }
    connection.close().await;
}

/// M5: a broker that reads nothing costs the window, however many publishers wait and for how long;
/// every publish resolves once when it reads again.
async fn blocked(broker: &RabbitMq) {
    let connection = connect(&broker.uri()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = QueueDeclare::new("blocked").exclusive().argument("x-max-length", 1);
    channel.queue_declare(queue).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]).unwrap();
    let mut events = connection.events();
    let body = vec![0; 3_000];
    let before = live_bytes(ALLOCATOR);
    let mut confirms = vec![publisher.send(Publish::new("", "blocked", &body)).await.unwrap()];
    events.next().await.unwrap();
    // A driver that was held up may look like a full socket: until nothing more is written.
    let mut sent = u64::MAX;
    while std::mem::replace(&mut sent, connection.stats().bytes_sent) != sent {
        let publish = || publisher.send(Publish::new("", "blocked", &body));
        while let Ok(confirm) = tokio::time::timeout(Duration::from_millis(300), publish()).await {
            confirms.push(confirm.unwrap());
        }
    }
    let waiting: Vec<_> = (0..500)
        .map(|_| {
            let (publisher, body) = (publisher.clone(), body.clone());
            tokio::spawn(async move { publisher.publish(Publish::new("", "blocked", &body)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let full = live_bytes(ALLOCATOR) - before;
    println!("{full} bytes for {} publishes and 500 that wait", confirms.len());
    assert!(full < 8 << 20, "{full} bytes while the broker reads nothing");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = live_bytes(ALLOCATOR) - before - full;
    assert!(grown < 64 << 10, "{grown} bytes more in two seconds");
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    for confirm in confirms {
        confirm.await.unwrap();
    }
    for publish in waiting {
        publish.await.unwrap().unwrap();
    }
    connection.close().await;
}
