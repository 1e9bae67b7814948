//! Peers that mean harm, through sockets: each ends in a typed error or a fault, every future
//! resolves, and memory does not follow what the peer says (rows 3 to 6, 9 and 16 to 25 of the fault
//! matrix).

mod oversize;

use std::future::Future;
use std::time::Duration;

use amqp_proto::frame::{self, FRAME_END, HEARTBEAT};
use amqp_proto::method::{Method, WireMethod, basic, channel, confirm, connection, queue};
use amqp_proto::{ContentHeader, RawProperties, ShortStr};
use amqp_testkit::alloc::live_bytes;
use amqp_testkit::raw_connection::start;
use amqp_testkit::{RawConnection, Scripted};
use amqp_tokio::errors::{ConnectFailure, ConnectStep, Misuse};
use amqp_tokio::{
    BasicConsume, BasicQos, Channel, CloseCause, ConnectError, Connection, Connector, Consumer,
    Error, Publish, PublishError, Publisher, QueueDeclare, Recovery,
};

use crate::ALLOCATOR;

/// What may live beyond what lived before, whatever a peer does.
const LIVE_BYTES: isize = 4 << 20;

/// What a flood sends.
const FLOOD_BYTES: usize = 64 << 20;

pub(crate) async fn every_row() {
    cut_handshakes().await;
    silent_handshakes().await;
    dribbled_handshakes().await;
    other_protocols().await;
    odd_tunings().await;
    broken_frames().await;
    broken_contents().await;
    oversize::announced_sizes().await;
    oversize::large_headers().await;
    oversize::large_bodies().await;
    odd_contents().await;
    deliveries_for_nobody().await;
    late_replies().await;
    odd_confirms().await;
    floods().await;
}

/// Fails if `future` takes too long, or if more memory lives meanwhile than may.
async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    let before = live_bytes(ALLOCATOR);
    let mut future = std::pin::pin!(future);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let tick = tokio::time::sleep(Duration::from_millis(2));
        tokio::select! {
            value = &mut future => return value,
            () = tick => {}
        }
        let live = live_bytes(ALLOCATOR) - before;
        assert!(live < LIVE_BYTES, "{what}: {live} bytes more are alive");
        assert!(tokio::time::Instant::now() < deadline, "{what}: no end within 30 s");
    }
}

/// Waits for the end of a script, while the client's driver goes on.
async fn played(peer: Scripted) {
    tokio::task::spawn_blocking(|| peer.join()).await.unwrap();
}

fn method<'a>(channel: u16, method: &impl WireMethod<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, channel, method);
    bytes
}

fn header(class_id: u16, body_size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = ContentHeader { class_id, body_size, properties: RawProperties::NONE };
    frame::write_header(&mut bytes, 1, &header);
    bytes
}

fn body(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_body(&mut bytes, 1, &vec![0; size]);
    bytes
}

fn tag() -> ShortStr<'static> {
    ShortStr::new("t").unwrap()
}

fn deliver(delivery_tag: u64) -> basic::Deliver<'static> {
    basic::Deliver { consumer_tag: tag(), delivery_tag, ..Default::default() }
}

fn handshake() -> Vec<u8> {
    let tune = connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 };
    [method(0, &start()), method(0, &tune), method(0, &connection::OpenOk::default())].concat()
}

fn connector(peer: &Scripted) -> Connector {
    Connector::new(&peer.uri())
        .unwrap()
        .recovery(Recovery::never())
        .address_timeout(Duration::from_secs(20))
        .close_timeout(Duration::from_secs(1))
}

/// A connector that waits no longer than it must to see that nothing comes. What does come has as long.
fn impatient(peer: &Scripted) -> Connector {
    connector(peer).address_timeout(Duration::from_secs(2)).call_timeout(Duration::from_secs(2))
}

async fn failure(connector: Connector) -> ConnectFailure {
    let error = bounded("connecting", connector.connect()).await.unwrap_err();
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    attempts[0].failure.clone()
}

/// Row 3.
async fn cut_handshakes() {
    let whole = handshake();
    for at in (0..20).map(|part| part * whole.len() / 20) {
        let bytes = whole[..at].to_vec();
        let peer = Scripted::start(move |mut wire| {
            wire.take(8);
            wire.send_bytes(&bytes);
        })
        .unwrap();
        let failure = failure(connector(&peer)).await;
        let expected = matches!(
            failure,
            ConnectFailure::Lost { .. }
                | ConnectFailure::ProbablyAuthentication(_)
                | ConnectFailure::TuningRefused(_)
        );
        assert!(expected, "{at}: {failure:?}");
        played(peer).await;
    }
}

/// Row 4.
async fn silent_handshakes() {
    let whole = handshake();
    let starts = method(0, &start()).len();
    for (said, awaited) in [
        (0, ConnectStep::Start),
        (10, ConnectStep::Start),
        (starts, ConnectStep::Tune),
        (whole.len() - 5, ConnectStep::Open),
    ] {
        let bytes = whole[..said].to_vec();
        let peer = Scripted::start(move |mut wire| {
            wire.send_bytes(&bytes);
            wire.discard_to_end();
        })
        .unwrap();
        let failure = failure(impatient(&peer)).await;
        let ConnectFailure::TimedOut { step, .. } = failure else { panic!("{failure:?}") };
        assert_eq!(step, awaited, "after {said} bytes");
        played(peer).await;
    }
}

/// Row 5.
async fn dribbled_handshakes() {
    let peer = Scripted::start(|mut wire| {
        wire.take(8);
        for byte in handshake() {
            wire.send_bytes(&[byte]);
            std::thread::sleep(Duration::from_micros(200));
        }
        wire.expect("connection.Close");
        wire.send(0, &connection::CloseOk::default());
    })
    .unwrap();
    let connection = bounded("a dribble", connector(&peer).connect()).await.unwrap();
    assert_eq!(connection.close().await, CloseCause::ByClient);
    played(peer).await;
}

/// Row 6.
async fn other_protocols() {
    for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"AMQP\0\x01\0\0", b"\0\0\0\0\0\0\0\0"] {
        let peer = Scripted::start(move |mut wire| {
            wire.send_bytes(said);
            wire.discard_to_end();
        })
        .unwrap();
        let failure = failure(connector(&peer)).await;
        let expected = matches!(
            failure,
            ConnectFailure::NotAmqp | ConnectFailure::Version { .. } | ConnectFailure::Protocol(_)
        );
        assert!(expected, "{failure:?}");
        played(peer).await;
    }
}

/// Row 9.
async fn odd_tunings() {
    let offering = |channel_max, frame_max| {
        Scripted::start(move |mut wire| {
            wire.take(8);
            wire.send(0, &start());
            wire.expect("connection.StartOk");
            wire.send(0, &connection::Tune { channel_max, frame_max, heartbeat: 0 });
            let Some(frame) = wire.next_frame() else { return };
            let Some(Method::ConnectionTuneOk(ok)) = frame.method() else { panic!() };
            // 0 stands for no limit, and is answered with one.
            assert!(ok.channel_max > 0 && (4_096..=131_072).contains(&ok.frame_max), "{ok:?}");
            wire.send(0, &connection::OpenOk::default());
            while let Some(frame) = wire.next_frame() {
                match frame.method() {
                    Some(Method::ChannelOpen(_)) => {
                        wire.send(frame.channel, &channel::OpenOk::default());
                    }
                    Some(Method::ConnectionClose(_)) => {
                        wire.send(0, &connection::CloseOk::default());
                    }
                    _ => {}
                }
            }
        })
        .unwrap()
    };
    for frame_max in [1, 100, 4_095] {
        let peer = offering(9, frame_max);
        let failure = failure(connector(&peer)).await;
        assert!(matches!(failure, ConnectFailure::Limits { .. }), "{failure:?}");
        drop(peer);
    }
    for (channel_max, frame_max) in [(0, 0), (0, u32::MAX), (1, 4_096), (u16::MAX, 131_072)] {
        let peer = offering(channel_max, frame_max);
        let connection = bounded("a tuning", connector(&peer).connect()).await.unwrap();
        let _first = connection.open_channel().await.unwrap();
        if channel_max == 1 {
            let error = connection.open_channel().await.unwrap_err();
            assert_eq!(
                error,
                Error::Misuse(Misuse::NoFreeChannels { channel_max: 1, by_broker: true })
            );
        }
        connection.close().await;
        played(peer).await;
    }
}

/// A client of a peer: a consumer, a publish and a call under way.
struct Client {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    publisher: Publisher,
}

/// Plays the broker until the client is set up; nothing it asks is answered from there on.
fn set_up(wire: &mut RawConnection) {
    wire.expect("channel.Open");
    wire.send(1, &channel::OpenOk::default());
    wire.expect("basic.Consume");
    wire.send(1, &basic::QosOk::default());
    wire.send(1, &basic::ConsumeOk { consumer_tag: tag() });
    wire.expect("channel.Open");
    wire.send(2, &channel::OpenOk::default());
    wire.expect("confirm.Select");
    wire.send(2, &confirm::SelectOk::default());
}

async fn client(peer: &Scripted) -> Client {
    client_of(connector(peer)).await
}

async fn client_of(connector: Connector) -> Client {
    let setting_up = async {
        let connection = connector.connect().await?;
        let channel = connection.open_channel().await.unwrap();
        let consume = BasicConsume::new("q").consumer_tag("t");
        let consumer = channel.basic_consume(consume).await.unwrap();
        let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
        Ok::<_, ConnectError>(Client { connection, channel, consumer, publisher })
    };
    bounded("a client", setting_up).await.unwrap()
}

/// The peer sends `bytes`, and floods if that is asked for: the client ends the connection with this
/// code, tells the peer, and whatever is under way resolves.
async fn ends_with(code: u16, bytes: Vec<u8>, flood: bool) {
    let what = format!("{:?}", &bytes[..bytes.len().min(32)]);
    let peer = Scripted::open(move |mut wire| {
        set_up(&mut wire);
        wire.expect("basic.Publish");
        wire.send_bytes(&bytes);
        let noise = [0x55; 64 << 10];
        for _ in 0..if flood { FLOOD_BYTES / noise.len() } else { 0 } {
            if !wire.try_send_bytes(&noise) {
                return;
            }
        }
        // After a flood the socket may be reset before the close is read.
        let heard = wire.read_to_end();
        let close = method(0, &connection::Close::default());
        assert!(flood || heard.windows(11).any(|bytes| bytes[7..11] == close[7..11]), "{heard:?}");
    })
    .unwrap();
    let Client { connection, channel, mut consumer, publisher } = client(&peer).await;
    let ending = async {
        let publishing = publisher.publish(Publish::new("", "q", b"x"));
        let (outcome, call, end) =
            tokio::join!(publishing, channel.basic_qos(BasicQos::new(1)), consumer.next());
        (outcome.unwrap_err(), call.unwrap_err(), end.unwrap().unwrap_err())
    };
    let (outcome, call, end) = bounded(&what, ending).await;
    let cause = connection.closed().await;
    let CloseCause::Protocol(error) = &cause else { panic!("{what}: {cause:?}") };
    assert_eq!(error.code.code(), code, "{what}: {error}");
    assert!(matches!(outcome, PublishError::Unknown(_)), "{what}: {outcome:?}");
    for error in [call, end] {
        assert_eq!(error, Error::Connection(cause.clone()), "{what}");
    }
    played(peer).await;
}

/// Rows 16 to 18 and 23.
async fn broken_frames() {
    let mut bad_end = HEARTBEAT;
    bad_end[7] = 0;
    ends_with(501, bad_end.to_vec(), false).await;
    ends_with(501, vec![9, 0, 0, 0, 0, 0, 0], false).await;
    ends_with(505, vec![8, 0, 1, 0, 0, 0, 0, FRAME_END], false).await;
    ends_with(501, vec![8, 0, 0, 0, 0, 0, 1], false).await;
    for kind in [1, 2, 3] {
        ends_with(501, vec![kind, 0, 1, 0xff, 0xff, 0xff, 0xf0], true).await;
    }
    ends_with(501, vec![3, 0, 1, 0, 2, 0, 0], true).await;
    ends_with(503, vec![1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 99, FRAME_END], false).await;
    ends_with(504, method(7, &basic::QosOk::default()), false).await;
    ends_with(504, method(60_000, &channel::CloseOk::default()), false).await;
    ends_with(503, method(2, &basic::QosOk::default()), false).await;
    ends_with(503, method(1, &queue::PurgeOk::default()), false).await;
    ends_with(503, method(0, &connection::CloseOk::default()), false).await;
}

/// Row 19.
async fn broken_contents() {
    ends_with(505, body(1), false).await;
    ends_with(505, header(60, 1), false).await;
    ends_with(505, [method(1, &deliver(1)), header(50, 1)].concat(), false).await;
    ends_with(501, [method(1, &deliver(1)), header(60, 3), body(4)].concat(), false).await;
    ends_with(505, [method(1, &deliver(1)), method(1, &basic::QosOk::default())].concat(), false)
        .await;
    ends_with(503, [method(1, &deliver(0)), header(60, 0)].concat(), false).await;
}

/// Row 21.
async fn odd_contents() {
    let peer = Scripted::open(|mut wire| {
        set_up(&mut wire);
        let mut bytes = [method(1, &deliver(1)), header(60, 3)].concat();
        for piece in [&b""[..], b"a", b"", b"bc"] {
            bytes.extend(HEARTBEAT);
            frame::write_body(&mut bytes, 1, piece);
        }
        // A weight is no matter.
        let mut weighted = header(60, 0);
        weighted[10] = 1;
        bytes.extend([method(1, &deliver(2)), weighted].concat());
        wire.send_bytes(&bytes);
        wire.discard_to_end();
    })
    .unwrap();
    let mut client = client(&peer).await;
    for expected in [&b"abc"[..], b""] {
        let delivery = bounded("a delivery", client.consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.body(), expected);
        delivery.ack().unwrap();
    }
    client.connection.abort();
    played(peer).await;
}

/// Row 22: they go back to their queue.
async fn deliveries_for_nobody() {
    let peer = Scripted::open(|mut wire| {
        set_up(&mut wire);
        let unknown = ShortStr::new("unknown").unwrap();
        wire.send(
            1,
            &basic::Deliver { consumer_tag: unknown, delivery_tag: 1, ..Default::default() },
        );
        wire.send_content(1, &[0, 0], b"x");
        let expected = basic::Nack { delivery_tag: 1, multiple: false, requeue: true };
        // The application's cancel comes before or behind what answers the delivery: a nack, and a cancel
        // of the unknown consumer.
        let (mut requeued, mut cancelled) = (false, false);
        while !(requeued && cancelled) {
            match wire.next_frame().expect("the client goes on").method() {
                Some(Method::BasicNack(nack)) => {
                    assert_eq!(nack, expected);
                    requeued = true;
                }
                Some(Method::BasicCancel(cancel)) => cancelled |= cancel.consumer_tag == tag(),
                _ => {}
            }
        }
        wire.send(1, &basic::CancelOk { consumer_tag: tag() });
        wire.send(1, &deliver(2));
        wire.send_content(1, &[0, 0], b"late");
        wire.expect("basic.Nack");
    })
    .unwrap();
    let mut client = client(&peer).await;
    bounded("a cancel", client.consumer.cancel()).await.unwrap();
    assert!(client.consumer.next().await.is_none());
    bounded("the end", client.connection.closed()).await;
    played(peer).await;
}

/// Row 24: a reply that comes too late is nobody else's.
async fn late_replies() {
    let peer = Scripted::open(|mut wire| {
        set_up(&mut wire);
        let answer =
            |name| queue::DeclareOk { queue: ShortStr::new(name).unwrap(), ..Default::default() };
        wire.expect("queue.Declare");
        wire.expect("queue.Declare");
        // The first caller has given up by now.
        wire.send(1, &answer("first"));
        wire.send(1, &answer("second"));
        wire.discard_to_end();
    })
    .unwrap();
    let client = client_of(impatient(&peer)).await;
    let first = client.channel.queue_declare(QueueDeclare::new("first"));
    let error = bounded("a deadline", first).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    let second = client.channel.queue_declare(QueueDeclare::new("second"));
    assert_eq!(bounded("an answer", second).await.unwrap().name(), "second");
    client.connection.abort();
    played(peer).await;
}

/// Rows 25 and 26: what is resolved stays resolved, and what was never published cannot be.
async fn odd_confirms() {
    let ack = |delivery_tag, multiple| method(2, &basic::Ack { delivery_tag, multiple });
    let nack =
        |delivery_tag, multiple| method(2, &basic::Nack { delivery_tag, multiple, requeue: true });
    type Outcomes = [Option<bool>; 3];
    let confirmed = Some(true);
    let cases: [(Vec<u8>, Outcomes, bool); 7] = [
        ([ack(3, false), ack(2, false), ack(1, false)].concat(), [confirmed; 3], true),
        (ack(0, true), [confirmed; 3], true),
        ([ack(1, false), nack(3, true)].concat(), [confirmed, Some(false), Some(false)], true),
        ([ack(2, true), ack(2, true), ack(3, false)].concat(), [confirmed; 3], true),
        ([ack(1, false), ack(1, false)].concat(), [confirmed, None, None], false),
        ([ack(1, false), nack(1, false)].concat(), [confirmed, None, None], false),
        (ack(9, false), [None; 3], false),
    ];
    for (bytes, expected, lives) in cases {
        let peer = Scripted::open(move |mut wire| {
            set_up(&mut wire);
            (0..3).for_each(|_| drop(wire.expect("basic.Publish")));
            wire.send_bytes(&bytes);
            wire.discard_to_end();
        })
        .unwrap();
        let client = client(&peer).await;
        let mut confirms = Vec::new();
        for _ in 0..3 {
            confirms.push(client.publisher.send(Publish::new("", "q", b"x")).await.unwrap());
        }
        for (at, confirm) in confirms.into_iter().enumerate() {
            let outcome = bounded("an outcome", confirm).await;
            let told = match &outcome {
                Ok(()) => Some(true),
                Err(PublishError::Nacked) => Some(false),
                Err(PublishError::Unknown(Error::Connection(CloseCause::Protocol(_)))) => None,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(told, expected[at], "{at}");
        }
        assert_eq!(client.connection.is_open(), lives);
        client.connection.abort();
        played(peer).await;
    }
}

/// M4: much of anything costs no memory, and answers still come.
async fn floods() {
    let blocked = connection::Blocked { reason: ShortStr::new("low on memory").unwrap() };
    let returned = basic::Return { reply_code: 312, ..Default::default() };
    let unwanted = basic::Cancel { consumer_tag: ShortStr::new("x").unwrap(), no_wait: true };
    let pieces = [
        ("heartbeats", HEARTBEAT.to_vec()),
        ("alarms", [method(0, &blocked), method(0, &connection::Unblocked::default())].concat()),
        ("returns", [method(1, &returned), header(60, 100), body(100)].concat()),
        ("cancels", method(1, &unwanted)),
        (
            "flows",
            [
                method(1, &channel::Flow { active: false }),
                method(1, &channel::Flow { active: true }),
            ]
            .concat(),
        ),
    ];
    for (name, piece) in pieces {
        let peer = Scripted::open(move |mut wire| {
            set_up(&mut wire);
            let many = piece.repeat(1_000);
            for _ in 0..100 {
                wire.send_bytes(&many);
            }
            wire.expect("queue.Declare");
            let queue = ShortStr::new("q").unwrap();
            wire.send(1, &queue::DeclareOk { queue, ..Default::default() });
            wire.discard_to_end();
        })
        .unwrap();
        let what = format!("a flood of {name}");
        let client = client_of(impatient(&peer)).await;
        let _events = client.connection.events();
        let declaring = async {
            loop {
                // While the flood is on, the peer does not listen.
                match client.channel.queue_declare(QueueDeclare::new("q")).await {
                    Ok(declared) => return declared,
                    Err(Error::Deadline { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        assert_eq!(bounded(&what, declaring).await.name(), "q");
        client.connection.abort();
        played(peer).await;
    }
}
