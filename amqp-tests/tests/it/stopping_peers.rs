//! Peers that go as far as one point of connecting over TLS, and then stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amqp_proto::frame;
use amqp_proto::method::{WireMethod, connection};
use amqp_testkit::{RawConnection, Scripted};
use rustls::ServerConnection;
use rustls::version::TLS13;

use crate::certificates::{trusted, uri};
use crate::support::{sleep, sockets_to, within};
use crate::tls_server::{TlsServer, config};

/// How far a peer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// TCP is accepted, and nothing is read.
    Accepted,
    ClientHello,
    HalfRecordHead,
    HalfServerHello,
    /// All of the server's handshake but the last byte of its `Finished`.
    AlmostFinished,
    /// TLS is set up, and the client's protocol header is not read.
    Secured,
    ProtocolHeader,
    StartHead,
    HalfStart,
    StartOk,
    HalfTune,
    TuneOk,
    Open,
    HalfOpenOk,
}

impl Point {
    pub(crate) const ALL: [Self; 14] = [
        Self::Accepted,
        Self::ClientHello,
        Self::HalfRecordHead,
        Self::HalfServerHello,
        Self::AlmostFinished,
        Self::Secured,
        Self::ProtocolHeader,
        Self::StartHead,
        Self::HalfStart,
        Self::StartOk,
        Self::HalfTune,
        Self::TuneOk,
        Self::Open,
        Self::HalfOpenOk,
    ];
}

/// What a peer does once it is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    /// Sends what follows, byte by byte.
    Dribble,
    Silence,
}

/// A peer for each point, in this order.
#[derive(Debug)]
pub(crate) struct StoppingPeers(Vec<Peer>);

#[derive(Debug)]
struct Peer {
    /// Behind it the peer need not know TLS.
    server: Option<TlsServer>,
    script: Scripted,
    reached: Arc<AtomicBool>,
}

impl StoppingPeers {
    pub(crate) fn start(points: &[Point], then: Then) -> Self {
        Self(points.iter().map(|point| Peer::start(*point, then)).collect())
    }

    /// The URI of these hosts and, behind them, of others.
    pub(crate) fn uri(&self, others: &[u16]) -> String {
        let ports = self.0.iter().map(Peer::port).chain(others.iter().copied());
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        uri(&hosts.join(","))
    }

    /// Whether every peer has come to its point.
    pub(crate) fn have_stopped(&self) -> bool {
        self.0.iter().all(|peer| peer.reached.load(Ordering::SeqCst))
    }

    /// Waits until the client has closed its sockets, and every peer has seen it.
    pub(crate) async fn are_left(self) {
        within("closed sockets", async {
            while self.0.iter().any(|peer| sockets_to(peer.port()) > 0) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let joined = smol::unblock(|| self.0.into_iter().for_each(|peer| peer.script.join()));
        within("the peers", joined).await;
    }
}

impl Peer {
    fn start(point: Point, then: Then) -> Self {
        let reached = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&reached);
        let script = Scripted::start(move |mut wire| {
            let rest = if point <= Point::Secured {
                secure_until(point, then, &mut wire)
            } else {
                talk_until(point, &mut wire)
            };
            noted.store(true, Ordering::SeqCst);
            if then == Then::Close && point != Point::Secured {
                return;
            }
            if then == Then::Dribble {
                dribble(&rest, &mut wire);
            }
            wire.discard_to_end();
        });
        let script = script.unwrap();
        let server = (point > Point::Secured).then(|| TlsServer::trusted(script.port()));
        Self { server, script, reached }
    }

    fn port(&self) -> u16 {
        self.server.as_ref().map_or_else(|| self.script.port(), |server| server.port)
    }
}

/// Plays a server of TLS up to a point. Returns what it would send next.
fn secure_until(point: Point, then: Then, wire: &mut RawConnection) -> Vec<u8> {
    if point == Point::Accepted {
        return Vec::new();
    }
    let config = config(&trusted(), &[&TLS13], None);
    let mut session = ServerConnection::new(Arc::new(config)).unwrap();
    receive_record(&mut session, wire);
    let mut flight = sent(&mut session);
    let server_hello = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    let rest = flight.split_off(match point {
        Point::ClientHello => 0,
        Point::HalfRecordHead => 2,
        Point::HalfServerHello => server_hello / 2,
        Point::AlmostFinished => flight.len() - 1,
        _ => flight.len(),
    });
    wire.send_bytes(&flight);
    if point == Point::Secured {
        while session.is_handshaking() {
            receive_record(&mut session, wire);
        }
        if then == Then::Close {
            session.send_close_notify();
            wire.send_bytes(&sent(&mut session));
        }
    }
    rest
}

fn receive_record(session: &mut ServerConnection, wire: &mut RawConnection) {
    let mut record = wire.take(5);
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.extend(wire.take(length));
    let mut unread = &record[..];
    while !unread.is_empty() {
        session.read_tls(&mut unread).unwrap();
        session.process_new_packets().unwrap();
    }
}

fn sent(session: &mut ServerConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Plays a broker up to a point. Returns what it would send next.
fn talk_until(point: Point, wire: &mut RawConnection) -> Vec<u8> {
    wire.take(amqp_proto::PROTOCOL_HEADER.len());
    // Long enough to dribble.
    let mechanisms = [&b"PLAIN"[..], &b" X".repeat(1_000)].concat();
    let start = connection::Start {
        version_minor: 9,
        mechanisms: &mechanisms,
        locales: b"en_US",
        ..Default::default()
    };
    let start = frame(&start);
    let head = match point {
        Point::ProtocolHeader => 0,
        Point::StartHead => 7,
        Point::HalfStart => start.len() / 2,
        _ => start.len(),
    };
    wire.send_bytes(&start[..head]);
    if head < start.len() {
        return start[head..].to_vec();
    }
    wire.expect("connection.StartOk");
    if point == Point::StartOk {
        return Vec::new();
    }
    let tune = frame(&connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
    if point == Point::HalfTune {
        wire.send_bytes(&tune[..tune.len() / 2]);
        return tune[tune.len() / 2..].to_vec();
    }
    wire.send_bytes(&tune);
    wire.expect("connection.TuneOk");
    if point == Point::TuneOk {
        return Vec::new();
    }
    wire.expect("connection.Open");
    let open_ok = frame(&connection::OpenOk::default());
    if point == Point::HalfOpenOk {
        wire.send_bytes(&open_ok[..open_ok.len() / 2]);
    }
    Vec::new()
}

fn frame<'a>(method: &impl WireMethod<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, 0, method);
    bytes
}

/// Until the client has closed.
fn dribble(bytes: &[u8], wire: &mut RawConnection) {
    for byte in bytes {
        if !wire.try_send_bytes(&[*byte]) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
