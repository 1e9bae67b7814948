//! Decisions: the driver says which losses are recovered.

use amqp_core::{Action, CloseCause, Config, Event, QueuePurge, TimeoutReason};

use super::has_recovered;
use crate::peer::Peer;

/// An open session whose driver decides.
fn asking() -> Peer {
    Peer::open_with(Config::default().asks_to_recover(true))
}

/// The transport is lost, and the session asks whether to recover.
fn lose(peer: &mut Peer) {
    let before = peer.attempt;
    peer.lose();
    assert_eq!(peer.session.poll_action(), Some(Action::Disconnect { attempt: before }));
    let Some(Action::DecideRecovery { attempt, cause }) = peer.session.poll_action() else {
        panic!("the driver is not asked");
    };
    assert!(matches!(*cause, CloseCause::Transport(_)), "{cause}");
    peer.attempt = attempt;
    assert!(!has_retry(peer), "it waits");
    assert!(matches!(&peer.events()[..], [Event::Lost(_)]));
}

fn has_retry(peer: &mut Peer) -> bool {
    matches!(peer.session.poll_timeout(), Some((_, TimeoutReason::Retry)))
}

fn decide(peer: &mut Peer, recovers: bool) {
    peer.session.handle_decision(peer.now, peer.attempt, recovers);
}

#[test]
fn a_loss_is_recovered_if_the_driver_says_so() {
    let mut peer = asking();
    for _ in 0..2 {
        lose(&mut peer);
        decide(&mut peer, true);
        assert!(matches!(&peer.events()[..], [Event::Retrying(it)] if it.attempt == 1));
        // Only the first report counts.
        decide(&mut peer, false);
        peer.retry();
        peer.shake_hands();
        assert!(has_recovered(&peer.events()));
    }
}

#[test]
fn a_session_ends_with_the_cause_of_a_loss_that_is_not_recovered() {
    let mut peer = asking();
    let id = peer.channel(1);
    let purge = peer.session.channel(id).call(peer.now, &QueuePurge::new("a")).unwrap();
    peer.events();
    lose(&mut peer);
    decide(&mut peer, false);
    assert!(matches!(peer.cause(), CloseCause::Transport(_)));
    assert!(peer.session.take_reply(&purge).is_some_and(|reply| reply.is_err()));
    assert!(matches!(peer.events().last(), Some(Event::Closed(CloseCause::Transport(_)))));
    assert!(matches!(peer.session.poll_action(), Some(Action::Finish { at_once: false, .. })));
}

#[test]
fn r2_a_close_precedes_the_decision() {
    let mut peer = asking();
    lose(&mut peer);
    peer.session.close(peer.now);
    assert_eq!(peer.cause(), CloseCause::ByClient);
    decide(&mut peer, true);
    assert_eq!(peer.cause(), CloseCause::ByClient);
    assert_eq!(peer.session.poll_timeout(), None);
}

#[test]
fn a_decision_about_an_earlier_loss_changes_nothing() {
    let mut peer = asking();
    lose(&mut peer);
    let earlier = peer.attempt;
    decide(&mut peer, true);
    peer.retry();
    peer.shake_hands();
    peer.events();
    lose(&mut peer);
    peer.session.handle_decision(peer.now, earlier, false);
    assert_eq!(peer.session.cause(), None);
}
