//! Peers that stop at any point of connecting: each attempt ends in time, says at which step, and leaves nothing open.

use std::time::{Duration, Instant};

use super::api::{At, Config, ConnectError, ConnectFailure, ConnectStep};
use super::connecting::fails;
use crate::stopping_peers::{Point, StoppingPeers, Then};
use crate::support::within;
use crate::tls_server::TlsServer;

super::api::on_model! {
    a_peer_that_falls_silent_at_any_point_is_given_up_in_time
    a_peer_that_closes_at_any_point_is_a_typed_failure
    a_peer_that_dribbles_gains_no_time
    the_next_host_is_tried_wherever_the_first_ones_stop
}

/// What the client does while its peer is at a point.
fn step(point: Point) -> ConnectStep {
    match point {
        Point::Accepted
        | Point::ClientHello
        | Point::HalfRecordHead
        | Point::HalfServerHello
        | Point::AlmostFinished => ConnectStep::Tls,
        Point::Secured | Point::ProtocolHeader | Point::StartHead | Point::HalfStart => {
            ConnectStep::Start
        }
        Point::StartOk | Point::HalfTune => ConnectStep::Tune,
        Point::TuneOk | Point::Open | Point::HalfOpenOk => ConnectStep::Open,
    }
}

/// How long an attempt may take. A machine that is held up may need more for a peer to come to its point: a test then
/// begins again with the next.
const PATIENCES: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

fn each_within(patience: Duration) -> impl Fn(Config) -> Config {
    move |config| config.address_timeout(patience).connect_timeout(Duration::from_secs(120))
}

/// Each attempt of one connection is with another peer, which stops at another point.
async fn times_out_at(at: &At, points: &[Point], then: Then) {
    for patience in PATIENCES {
        let peers = StoppingPeers::start(points, then);
        let begun = Instant::now();
        let error = fails(&at.to(peers.uri(&[])), each_within(patience)).await;
        if !peers.have_stopped() {
            continue;
        }
        assert!(begun.elapsed() >= patience * points.len() as u32);
        let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
        assert_eq!(attempts.len(), points.len(), "{error}");
        for (attempt, point) in attempts.iter().zip(points) {
            let expected = ConnectFailure::TimedOut { timeout: patience, step: step(*point) };
            assert_eq!(attempt.failure, expected, "{point:?}");
        }
        return peers.are_left().await;
    }
    panic!("not every peer came to its point within {:?}", PATIENCES.last());
}

async fn a_peer_that_falls_silent_at_any_point_is_given_up_in_time(at: At) {
    times_out_at(&at, &Point::ALL, Then::Silence).await;
}

/// Bytes that come are no reason to wait for longer.
async fn a_peer_that_dribbles_gains_no_time(at: At) {
    times_out_at(&at, &[Point::ClientHello, Point::HalfStart], Then::Dribble).await;
}

async fn a_peer_that_closes_at_any_point_is_a_typed_failure(at: At) {
    let peers = StoppingPeers::start(&Point::ALL, Then::Close);
    let error = fails(&at.to(peers.uri(&[])), each_within(Duration::from_secs(60))).await;
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), Point::ALL.len(), "{error}");
    for (attempt, point) in attempts.iter().zip(Point::ALL) {
        let failure = &attempt.failure;
        let expected = match step(point) {
            ConnectStep::Tune => matches!(failure, ConnectFailure::ProbablyAuthentication(_)),
            ConnectStep::Open => matches!(failure, ConnectFailure::TuningRefused(_)),
            step => matches!(failure, ConnectFailure::Lost { step: at, .. } if *at == step),
        };
        assert!(expected, "{point:?}: {failure:?}");
    }
    peers.are_left().await;
}

async fn the_next_host_is_tried_wherever_the_first_ones_stop(at: At) {
    let good = TlsServer::trusted(at.port());
    let peers = StoppingPeers::start(&Point::ALL, Then::Close);
    let hosts = at.to(peers.uri(&[good.port]));
    within("a connection", hosts.open(|config| config)).await.unwrap().close().await;
    peers.are_left().await;

    for patience in PATIENCES {
        let peers = StoppingPeers::start(&Point::ALL, Then::Silence);
        let hosts = at.to(peers.uri(&[good.port]));
        // The good host too may need more time.
        if let Ok(connection) = within("an end", hosts.open(each_within(patience))).await {
            connection.close().await;
            if peers.have_stopped() {
                return peers.are_left().await;
            }
        }
    }
    panic!("no connection to the good host within {:?}", PATIENCES.last());
}
