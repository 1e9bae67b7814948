//! Hosts that are tried several times, in any order: which is next, when, and what the error lists.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::{ConnectFailure, ConnectStep, TransportError};
use amqp_core::proto::ShortStr;
use amqp_core::proto::method::connection;
use amqp_core::{
    Action, Attempt, CloseCause, Config, ConnectError, Event, HostOrder, Session, TimeoutReason,
};
use bytes::BytesMut;

use crate::peer::{Peer, start};

const SECOND: Duration = Duration::from_secs(1);

fn refused() -> TransportError {
    TransportError::new(ErrorKind::ConnectionRefused, "refused")
}

/// Carries out what the session asks for until it ends: every lookup succeeds, and every dial is refused. What was
/// asked for, with the second at which it was.
fn refuse_all(config: Config, seed: u64) -> (Vec<String>, CloseCause) {
    let begun = Instant::now();
    let (mut now, mut asked) = (begun, Vec::new());
    let mut session = Session::new(Arc::new(config), now, seed).unwrap();
    loop {
        let second = (now - begun).as_secs();
        match session.poll_action() {
            Some(Action::Resolve { attempt, host, port }) => {
                asked.push(format!("{second} resolve {host}"));
                // Another address in each cycle: every lookup counts.
                let address = ([10, 0, 0, asked.len() as u8], port).into();
                session.handle_resolved(now, attempt, Ok(vec![address]));
            }
            Some(Action::Dial { attempt, target }) => {
                asked.push(format!("{second} dial {}", target.address.unwrap()));
                session.handle_disconnected(now, attempt, refused(), 0);
            }
            Some(Action::Disconnect { .. }) => asked.push(format!("{second} disconnect")),
            Some(_) => break (asked, session.cause().unwrap().clone()),
            None => {
                now = session.poll_timeout().unwrap().0;
                session.handle_timeout(now);
            }
        }
    }
}

fn attempts(cause: &CloseCause) -> Vec<(String, u16, ConnectStep)> {
    let CloseCause::Connect(error) = cause else { panic!("{cause:?}") };
    let ConnectError::Failed { attempts } = &**error else { panic!("{error:?}") };
    attempts.iter().map(|it| (it.host.to_string(), it.cycle, it.step)).collect()
}

#[test]
fn pk_36_hosts_are_tried_in_cycles_with_a_delay_between_them() {
    let config = Config::default().hosts(["one", "two"]).connection_attempts(3);
    let (asked, cause) = refuse_all(config.retry_delay(5 * SECOND), 0);
    let expected = [
        "0 resolve one",
        "0 dial 10.0.0.1:5672",
        "0 resolve two",
        "0 dial 10.0.0.3:5672",
        "0 disconnect",
        "5 resolve one",
        "5 dial 10.0.0.6:5672",
        "5 resolve two",
        "5 dial 10.0.0.8:5672",
        "5 disconnect",
        "10 resolve one",
        "10 dial 10.0.0.11:5672",
        "10 resolve two",
        "10 dial 10.0.0.13:5672",
    ];
    assert_eq!(asked, expected);
    let dial = ConnectStep::Dial;
    let listed = |cycle| [("one".to_owned(), cycle, dial), ("two".to_owned(), cycle, dial)];
    assert_eq!(attempts(&cause), [listed(1), listed(2), listed(3)].concat());
    let text = cause.to_string();
    assert!(text.starts_with("could not connect: one (10.0.0.1:5672): cannot dial"), "{text}");
    assert!(text.contains("; two (10.0.0.8:5672) in cycle 2: cannot dial: refused"), "{text}");

    // By default there is one cycle, and the delay is that of pika.
    assert_eq!(refuse_all(Config::default(), 0).0.len(), 2);
    let (asked, _) = refuse_all(Config::default().connection_attempts(2), 0);
    assert!(asked.contains(&"2 resolve localhost".to_owned()), "{asked:?}");
    // 0 cycles would be none.
    assert_eq!(refuse_all(Config::default().connection_attempts(0), 0).0.len(), 2);
}

/// The second cycle finds a broker that has started meanwhile.
#[test]
fn pk_36_a_later_cycle_may_succeed() {
    let mut peer = Peer::connected(Config::default().connection_attempts(2));
    let first = peer.attempt;
    peer.lose();
    let action = peer.session.poll_action();
    assert_eq!(action, Some(Action::Disconnect { attempt: first }));
    let (deadline, reason) = peer.session.poll_timeout().unwrap();
    assert_eq!((deadline, reason), (peer.now + 2 * SECOND, TimeoutReason::Retry));
    assert!(matches!(peer.events()[..], [Event::AttemptFailed(_)]));

    peer.pass(2 * SECOND);
    let Some(Action::Resolve { attempt, .. }) = peer.session.poll_action() else { panic!() };
    let addresses = vec![([127, 0, 0, 1], 5672).into()];
    peer.session.handle_resolved(peer.now, attempt, Ok(addresses));
    peer.dial();
    peer.send(0, &start(b"PLAIN"));
    peer.tune();
    assert!(peer.session.connection().is_open());
    // The timeouts of connecting no longer apply.
    peer.pass(2 * SECOND);
    assert_eq!(peer.session.cause(), None);
}

/// Nothing that happens to an earlier transport matters, and nothing is read.
#[test]
fn there_is_no_transport_between_two_cycles() {
    let waiting = || {
        let mut peer = Peer::connected(Config::default().connection_attempts(2));
        peer.lose();
        peer.session.poll_action();
        peer.events();
        peer
    };
    let mut peer = waiting();
    let late = peer.attempt;
    peer.session.handle_resolved(peer.now, late, Err(refused()));
    peer.session.handle_dialled(late);
    peer.session.handle_connected(peer.now, late);
    peer.session.handle_disconnected(peer.now, late, refused(), 8);
    peer.session.handle_written(peer.now, late, 8);
    let mut input = BytesMut::from(&b"AMQP"[..]);
    assert!(!peer.session.handle_input(peer.now, &mut input) && input.is_empty());
    assert!(!peer.session.wants_input() && !peer.session.connection().wants_transmit());
    assert_eq!((peer.events(), peer.session.poll_action()), (vec![], None));
    let (_, reason) = peer.session.poll_timeout().unwrap();
    assert_eq!((reason, peer.session.cause()), (TimeoutReason::Retry, None));

    let aborted = CloseCause::Connect(Arc::new(ConnectError::Aborted));
    peer.session.close(peer.now);
    assert_eq!(peer.cause(), aborted);
    assert!(matches!(peer.session.poll_action(), Some(Action::Finish { .. })));

    let mut peer = waiting();
    peer.session.abort(CloseCause::DriverGone);
    assert_eq!(peer.cause(), CloseCause::Connect(Arc::new(ConnectError::DriverGone)));
}

/// Also while the session waits.
#[test]
fn all_cycles_together_have_the_connect_timeout() {
    let config = Config::default().connection_attempts(9).retry_delay(20 * SECOND);
    let (asked, cause) = refuse_all(config, 0);
    assert_eq!(asked.last().unwrap(), "20 disconnect");
    assert_eq!(
        cause.to_string(),
        "not connected within 30 s: localhost:5672 timed out while waiting for the next attempt; before that: \
         localhost (10.0.0.1:5672): cannot dial: refused; \
         localhost (10.0.0.4:5672) in cycle 2: cannot dial: refused"
    );
    let CloseCause::Connect(error) = cause else { panic!() };
    assert!(matches!(*error, ConnectError::TimedOut { step: ConnectStep::Retry, .. }), "{error:?}");
    assert!(error.is_retryable());
}

/// What no host answers is answered by the next one, in time.
#[test]
fn pk_37_a_failed_lookup_goes_on_to_the_next_host() {
    let now = Instant::now();
    let lookup = |session: &mut Session, expected: &str| -> Attempt {
        let Some(Action::Resolve { attempt, host, .. }) = session.poll_action() else { panic!() };
        assert_eq!(&*host, expected);
        attempt
    };
    let config = Config::default().hosts(["unknown", "nowhere", "silent", "good"]);
    let mut session = Session::new(Arc::new(config), now, 0).unwrap();
    let not_found = TransportError::new(ErrorKind::NotFound, "no such host");
    let unknown = lookup(&mut session, "unknown");
    session.handle_resolved(now, unknown, Err(not_found));
    let nowhere = lookup(&mut session, "nowhere");
    session.handle_resolved(now, nowhere, Ok(vec![]));
    let silent = lookup(&mut session, "silent");
    let (deadline, reason) = session.poll_timeout().unwrap();
    assert_eq!((deadline, reason), (now + 10 * SECOND, TimeoutReason::Address));
    session.handle_timeout(deadline);
    let good = lookup(&mut session, "good");
    // Its answer is too late.
    session.handle_resolved(deadline, silent, Ok(vec![([10, 0, 0, 1], 1).into()]));
    assert_eq!(session.poll_action(), None);
    session.handle_resolved(deadline, good, Ok(vec![([10, 0, 0, 2], 1).into()]));
    let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
    session.handle_disconnected(deadline, attempt, refused(), 0);
    let (resolve, dial) = (ConnectStep::Resolve, ConnectStep::Dial);
    let listed = attempts(session.cause().unwrap());
    let steps: Vec<_> = listed.iter().map(|(host, _, step)| (host.as_str(), *step)).collect();
    let expected =
        [("unknown", resolve), ("nowhere", resolve), ("silent", resolve), ("good", dial)];
    assert_eq!(steps, expected);
}

#[test]
fn pk_42_a_refusal_ends_all_cycles() {
    let config = || Config::default().hosts(["one", "two"]).connection_attempts(3);
    let ends = |mut peer: Peer, step: ConnectStep| {
        assert!(matches!(peer.session.poll_action(), Some(Action::Finish { .. })));
        assert_eq!(attempts(&peer.cause()), [("one".to_owned(), 1, step)]);
    };
    let close = |code, text| {
        let reply_text = ShortStr::new(text).unwrap();
        connection::Close { reply_code: code, reply_text, class_id: 0, method_id: 0 }
    };
    let mut peer = Peer::connected(config());
    peer.send(0, &start(b"PLAIN"));
    peer.send(0, &close(403, "ACCESS_REFUSED"));
    ends(peer, ConnectStep::Tune);

    let mut peer = Peer::connected(config());
    peer.send(0, &start(b"NONE"));
    ends(peer, ConnectStep::Start);

    let mut peer = Peer::connected(config());
    peer.send(0, &start(b"PLAIN"));
    peer.send(0, &connection::Tune::default());
    peer.send(0, &close(530, "NOT_ALLOWED"));
    ends(peer, ConnectStep::Open);
}

/// Each failure has the step at which it happened.
#[test]
fn a_failure_names_its_step() {
    let steps = [ConnectStep::Start, ConnectStep::Tune, ConnectStep::Open];
    for (done, expected) in steps.into_iter().enumerate() {
        let ways: [fn(&mut Peer); 3] = [
            Peer::lose,
            |peer| peer.pass(10 * SECOND),
            |peer| peer.send(0, &connection::Close::default()),
        ];
        for fail in ways {
            let mut peer = Peer::connected(Config::default());
            if done > 0 {
                peer.send(0, &start(b"PLAIN"));
            }
            if done > 1 {
                peer.send(0, &connection::Tune::default());
            }
            fail(&mut peer);
            assert_eq!(attempts(&peer.cause()), [("localhost".to_owned(), 1, expected)]);
        }
    }
}

#[test]
fn shuffled_hosts_are_each_tried_once_in_each_cycle() {
    let hosts = ["a", "b", "c", "d", "e"];
    let orders = |order: HostOrder, seed: u64| -> Vec<Vec<String>> {
        let config = Config::default().hosts(hosts).host_order(order).connection_attempts(2);
        let (asked, _) = refuse_all(config, seed);
        let tried = asked.iter().filter_map(|it| it.split_once(" resolve "));
        let tried: Vec<String> = tried.map(|(_, host)| host.to_owned()).collect();
        tried.chunks(hosts.len()).map(<[String]>::to_vec).collect()
    };
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let cycles = orders(HostOrder::Shuffled, seed);
        assert_eq!(cycles.len(), 2);
        assert_eq!(orders(HostOrder::Shuffled, seed), cycles, "the seed decides");
        for mut cycle in cycles {
            seen.insert(cycle.clone());
            cycle.sort_unstable();
            assert_eq!(cycle, hosts);
        }
        assert_eq!(orders(HostOrder::Listed, seed), [hosts, hosts]);
    }
    // Of 400 throws of 120 orders, about four orders do not come up.
    assert!(seen.len() > 100, "{} orders", seen.len());
    let first = |host: &str| seen.iter().filter(|order| order[0] == host).count();
    assert!(hosts.into_iter().all(|host| first(host) > 12), "any host comes first");
}

/// Over a stream that is connected there is nothing to try again, and the first host names it.
#[test]
fn a_connected_stream_has_one_attempt() {
    let config = Config::default().hosts(["one", "two"]).connection_attempts(9);
    let config = Arc::new(config.host_order(HostOrder::Shuffled));
    let (mut session, attempt) = Session::connected(config, Instant::now()).unwrap();
    session.handle_disconnected(Instant::now(), attempt, refused(), 0);
    let listed = attempts(session.cause().unwrap());
    assert_eq!(listed, [("one".to_owned(), 1, ConnectStep::Start)]);
}

/// However long a connection is tried, its failures take a bounded memory, and their text can be read.
#[test]
fn the_list_of_failures_is_bounded() {
    let config = Config::default().connection_attempts(u16::MAX).retry_delay(Duration::ZERO);
    let (_, cause) = refuse_all(config.clone(), 0);
    let listed = attempts(&cause);
    assert_eq!(listed.len(), amqp_core::limits::FAILED_ATTEMPTS_MAX);
    assert_eq!((listed[0].1, listed.last().unwrap().1), (64_512, 65_535));
    let text = cause.to_string();
    assert!(text.len() < 2_000 && text.contains("; 1008 more; "), "{text}");
    let CloseCause::Connect(error) = cause else { panic!() };
    assert_eq!(error.last_failure(), Some(&ConnectFailure::Dial(refused())));

    let (_, cause) = refuse_all(config.connection_attempts(16), 0);
    assert!(!cause.to_string().contains("more"), "{cause}");
}
