//! Many connections that lose one broker at once, with the default delays: they must not return to it at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::{Action, Config, Recovery, Session};

use crate::peer::Peer;

/// The number of connections. Their seeds are neighbours, the worst that a program could choose.
const CLIENTS: u64 = 50;

/// A tenth of the span of the first attempts.
const WINDOW: Duration = Duration::from_millis(50);

/// The most of them that may dial within one window. If all times are equally likely, it is five on average, and seldom
/// more than twice as many.
const MOST: usize = 12;

/// An open session with this seed.
fn open(now: Instant, seed: u64) -> Peer {
    let config = Config::default().recovery(Recovery::automatic());
    let mut session = Session::new(Arc::new(config), now, seed).unwrap();
    let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
    session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 5672).into()]));
    let mut peer = Peer::dialled(session, now);
    peer.shake_hands();
    peer
}

/// The broker stays away: every attempt is dialled, and lost at once.
#[test]
fn r10_connections_that_lose_one_broker_at_once_do_not_dial_in_step() {
    let lost = Instant::now();
    let mut peers: Vec<_> = (0..CLIENTS).map(|seed| open(lost, seed)).collect();
    peers.iter_mut().for_each(Peer::lose);
    // 500 ms, doubling, and up to half of each delay more or less. The times of an attempt spread over the sum of that.
    let (mut earliest, mut latest) = (Duration::ZERO, Duration::ZERO);
    for delay in [500, 1_000, 2_000, 4_000].map(Duration::from_millis) {
        (earliest, latest) = (earliest + delay / 2, latest + delay * 3 / 2);
        let dial = |peer: &mut Peer| {
            peer.redial();
            peer.lose();
            peer.now - lost
        };
        let mut dials: Vec<_> = peers.iter_mut().map(dial).collect();
        dials.sort_unstable();
        let (first, last) = (dials[0], dials[dials.len() - 1]);
        assert!(earliest <= first && last <= latest, "{delay:?}: {dials:?}");
        assert!(last - first >= (latest - earliest) / 2, "{delay:?}: {dials:?}");
        let within = |from| dials.iter().filter(|at| (from..from + WINDOW).contains(*at)).count();
        let most = dials.iter().map(|dial| within(*dial)).max().unwrap();
        assert!(most <= MOST, "{delay:?}: {most} of {dials:?}");
    }
}
