//! Hooks: they set up each new connection before anything else may use it.

use std::io::ErrorKind;
use std::time::Duration;

use amqp_core::errors::{ConnectFailure, ConnectStep, TransportError};
use amqp_core::{Action, CloseCause, Config, ConnectError, Event, QueuePurge, Recovery};

use super::{grant, has_recovered, wire};
use crate::peer::Peer;

fn with_hook() -> Config {
    Config::default().recovery(Recovery::automatic()).runs_hook(true)
}

/// The session has the hook run.
fn hook_runs(peer: &mut Peer) {
    assert_eq!(peer.session.poll_action(), Some(Action::RunHook { attempt: peer.attempt }));
}

fn done(peer: &mut Peer, result: Result<(), TransportError>) {
    peer.session.handle_hook_done(peer.now, peer.attempt, result);
}

fn failed() -> TransportError {
    TransportError::new(ErrorKind::Other, "no such exchange")
}

/// A session that is open and set up.
fn set_up() -> Peer {
    let mut peer = Peer::shaken(with_hook());
    hook_runs(&mut peer);
    done(&mut peer, Ok(()));
    assert_eq!(peer.events(), [Event::Opened]);
    peer
}

#[test]
fn na_5_the_first_connection_is_open_when_the_hook_is_done() {
    let mut peer = Peer::shaken(with_hook());
    assert!(peer.events().is_empty() && !peer.session.is_open());
    hook_runs(&mut peer);
    let (id, _) = peer.session.open_setup_channel(peer.now, peer.attempt).unwrap();
    assert_eq!(wire(&mut peer), ["1 channel.Open"]);
    grant(&mut peer, &["1 channel.Open".into()]);
    peer.events();
    done(&mut peer, Ok(()));
    assert_eq!(peer.events(), [Event::Opened]);
    assert!(peer.session.is_open() && peer.session.channel(id).is_open());
    // A late report changes nothing.
    done(&mut peer, Err(failed()));
    assert_eq!(peer.session.cause(), None);
}

#[test]
fn na_5_a_hook_that_fails_is_the_error_of_connecting() {
    for late in [false, true] {
        let mut peer = Peer::shaken(with_hook().hook_timeout(Duration::from_secs(3)));
        hook_runs(&mut peer);
        match late {
            true => peer.pass(Duration::from_secs(3)),
            false => done(&mut peer, Err(failed())),
        }
        let ConnectFailure::Hook(error) = peer.failure() else { panic!("{:?}", peer.cause()) };
        let text = if late { "no result within 3 s" } else { "no such exchange" };
        assert_eq!(error.to_string(), text);
        assert_eq!(peer.methods(), ["connection.Close"], "the broker is told");
    }
}

/// The first connection starts no loop, and what the hook has opened ends with its transport.
#[test]
fn na_5_a_transport_that_is_lost_before_it_is_set_up_is_a_failed_attempt() {
    for config in [with_hook(), with_hook().recovery(Recovery::never())] {
        let mut peer = Peer::connected_to(config, 2);
        for address in 1..=2 {
            peer.shake_hands();
            hook_runs(&mut peer);
            let (id, _) = peer.session.open_setup_channel(peer.now, peer.attempt).unwrap();
            assert_eq!(wire(&mut peer), ["1 channel.Open"]);
            grant(&mut peer, &["1 channel.Open".into()]);
            peer.lose();
            assert!(peer.session.channel(id).closed_cause().is_some());
            if address == 1 {
                peer.dial();
            }
            peer.session.channel(id).release(peer.now);
            assert_eq!(peer.methods(), [""; 0]);
        }
        let CloseCause::Connect(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
        let ConnectError::Failed { attempts } = &*error else { panic!("{error:?}") };
        let error = TransportError::end_of_file();
        let lost = ConnectFailure::Lost { step: ConnectStep::Hook, error };
        assert_eq!(attempts.iter().map(|it| &it.failure).collect::<Vec<_>>(), [&lost, &lost]);
    }
}

#[test]
fn na_5_what_a_hook_that_fails_has_opened_is_closed() {
    let mut peer = Peer::connected_to(with_hook(), 2);
    peer.shake_hands();
    hook_runs(&mut peer);
    let (id, _) = peer.session.open_setup_channel(peer.now, peer.attempt).unwrap();
    done(&mut peer, Err(failed()));
    assert!(peer.session.channel(id).closed_cause().is_some());
    peer.dial();
    peer.session.channel(id).release(peer.now);
    assert_eq!(peer.methods(), [""; 0]);
}

/// After the topology, and before the channels.
#[test]
fn na_5_each_recovered_connection_is_set_up() {
    let mut peer = set_up();
    let id = peer.channel(1);
    peer.lose();
    peer.events();
    let call = peer.session.channel(id).call(peer.now, &QueuePurge::new("q")).unwrap();
    peer.reconnect();
    hook_runs(&mut peer);
    let (setup, opened) = peer.session.open_setup_channel(peer.now, peer.attempt).unwrap();
    assert_eq!(wire(&mut peer), ["1 channel.Open"]);
    grant(&mut peer, &["1 channel.Open".into()]);
    peer.session.take_reply(&opened).unwrap().unwrap();
    let of_hook = peer.session.channel(setup).call(peer.now, &QueuePurge::new("hook")).unwrap();
    assert_eq!(wire(&mut peer), ["1 purge hook"], "only its own calls are sent");
    done(&mut peer, Ok(()));
    assert_eq!(wire(&mut peer), ["2 channel.Open"]);
    grant(&mut peer, &["2 channel.Open".into()]);
    assert!(has_recovered(&peer.events()));
    assert_eq!(wire(&mut peer), ["2 purge q"]);
    assert_eq!(peer.session.take_reply(&call), None);

    // What it had opened ends with the transport, and so does its right to open more.
    let before = peer.attempt;
    peer.lose();
    assert!(peer.session.take_reply(&of_hook).unwrap().is_err());
    assert!(peer.session.channel(setup).closed_cause().is_some());
    assert!(peer.session.open_setup_channel(peer.now, before).is_err());
}

#[test]
fn a_hook_that_fails_later_is_tried_again() {
    let mut peer = set_up();
    peer.lose();
    peer.events();
    for late in [false, true] {
        peer.reconnect();
        hook_runs(&mut peer);
        match late {
            true => {
                for _ in 0..30 {
                    peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
                    peer.pass(Duration::from_secs(1));
                }
            }
            false => done(&mut peer, Err(failed())),
        }
        let events = peer.events();
        let Some(Event::Lost(cause)) = events.first() else { panic!("{events:?}") };
        let CloseCause::Transport(error) = &**cause else { panic!("{cause}") };
        assert!(error.to_string().starts_with("not restored: "), "{error}");
        assert_eq!(peer.methods(), ["connection.Close"]);
    }
    peer.reconnect();
    hook_runs(&mut peer);
    done(&mut peer, Ok(()));
    assert!(has_recovered(&peer.events()));
}

/// The hook of a lost transport has no say about the next one.
#[test]
fn a_loss_ends_the_hook() {
    let mut peer = set_up();
    peer.lose();
    peer.reconnect();
    hook_runs(&mut peer);
    let late = peer.attempt;
    peer.lose();
    peer.reconnect();
    hook_runs(&mut peer);
    peer.events();
    peer.session.handle_hook_done(peer.now, late, Ok(()));
    assert!(!has_recovered(&peer.events()));
    done(&mut peer, Ok(()));
    assert!(has_recovered(&peer.events()));
}
