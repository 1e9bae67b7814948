//! The handshake, and everything that can go wrong with it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::{
    ConnectFailure, ConnectStep, InvalidArgument, Misuse, TlsError, TlsErrorKind, TransportError,
};
use amqp_core::proto::method::{Method, basic, connection};
use amqp_core::proto::{ShortStr, frame};
use amqp_core::{
    Action, Attempt, CloseCause, Config, ConnectError, Endpoint, Error, Event, Heartbeat, Recovery,
    Session,
};

use crate::peer::{Peer, start};

fn close(code: u16, text: &str) -> connection::Close<'_> {
    let reply_text = ShortStr::new(text).unwrap();
    connection::Close { reply_code: code, reply_text, class_id: 0, method_id: 0 }
}

/// Limits as the broker offers them, and as the client then chooses them.
#[test]
fn limits_are_negotiated() {
    let default = Config::default;
    let cases = [
        (default(), (2047, 131_072, 60), (2047, 131_072, 60)),
        (default(), (64, 8_192, 5), (64, 8_192, 5)),
        // 0 is no limit; it is never sent back where the broker set one.
        (default(), (0, 0, 0), (2047, 131_072, 0)),
        (default(), (65_535, u32::MAX, 60), (2047, 131_072, 60)),
        (default(), (10, 4_096, 60), (10, 4_096, 60)),
        (default().channel_max(7).frame_max(5_000), (2047, 131_072, 60), (7, 5_000, 60)),
        (default().channel_max(7).frame_max(5_000), (0, 0, 60), (7, 5_000, 60)),
        (default().heartbeat(Heartbeat::Seconds(3)), (2047, 131_072, 60), (2047, 131_072, 3)),
        (default().heartbeat(Heartbeat::Seconds(0)), (2047, 131_072, 60), (2047, 131_072, 0)),
        (default().frame_max(1), (2047, 131_072, 60), (2047, 4_096, 60)),
    ];
    for (config, (channel_max, frame_max, heartbeat), chosen) in cases {
        let mut peer = Peer::connected(config);
        peer.send(0, &start(b"AMQPLAIN PLAIN"));
        peer.methods();
        peer.send(0, &connection::Tune { channel_max, frame_max, heartbeat });
        assert_eq!(peer.methods(), ["connection.TuneOk", "connection.Open"]);
        peer.send(0, &connection::OpenOk::default());
        let tuning = peer.session.connection().tuning();
        assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), chosen);
    }
}

#[test]
fn the_login_is_plain_and_says_what_the_client_can_do() {
    let config = Config::from_uri("amqp://u%40:p%3a@h").unwrap().connection_name("me");
    let mut peer = Peer::connected(config);
    peer.send(0, &start(b"PLAIN"));
    peer.last_method(|method| {
        let Method::ConnectionStartOk(start_ok) = method else { panic!("{method:?}") };
        assert_eq!(start_ok.mechanism, *"PLAIN");
        assert_eq!(start_ok.response, b"\0u@\0p:");
        assert_eq!(start_ok.locale, *"en_US");
        let properties = start_ok.client_properties.decode(9).unwrap();
        let text = |name| properties.get(name).and_then(|value| value.as_str()).unwrap();
        assert_eq!((text("product"), text("connection_name")), ("amqp", "me"));
        let Some(amqp_core::FieldValue::Table(capabilities)) = properties.get("capabilities")
        else {
            panic!("no capabilities")
        };
        for name in ["authentication_failure_close", "consumer_cancel_notify", "connection.blocked"]
        {
            assert_eq!(capabilities.get(name).and_then(|value| value.as_bool()), Some(true));
        }
    });
}

#[test]
fn pk_14_the_locale_and_the_client_properties_may_be_others() {
    let config = Config::default().locale("de_DE").client_property("product", "mine");
    let mut peer = Peer::connected(config);
    peer.send(0, &start(b"PLAIN"));
    peer.last_method(|method| {
        let Method::ConnectionStartOk(start_ok) = method else { panic!("{method:?}") };
        assert_eq!(start_ok.locale, *"de_DE");
        let properties = start_ok.client_properties.decode(9).unwrap();
        assert_eq!(properties.get("product").and_then(|value| value.as_str()), Some("mine"));
        assert!(properties.get("capabilities").is_some());
    });
}

#[test]
fn a_frame_max_below_the_protocols_least_is_refused() {
    let mut peer = Peer::connected(Config::default());
    peer.send(0, &start(b"PLAIN"));
    peer.send(0, &connection::Tune { channel_max: 0, frame_max: 4_095, heartbeat: 0 });
    assert_eq!(peer.failure(), ConnectFailure::Limits { frame_max: 4_095 });
}

/// BR-7: RabbitMQ answers a header that it does not like with its own.
#[test]
fn pk_27_another_version_and_no_amqp_are_told_apart() {
    for (bytes, expected) in [
        (b"AMQP\0\0\x09\x00".as_slice(), Some((0, 9, 0))),
        (b"AMQP\x03\x01\0\0", Some((1, 0, 0))),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (b"AM not AMQP", None),
        (b"\x15 is no alert", None),
        (&[0; 20], None),
    ] {
        for size in [1, 3, bytes.len()] {
            let mut peer = Peer::connected(Config::default());
            bytes.chunks(size).for_each(|piece| peer.send_bytes(piece));
            let failure = peer.failure();
            match expected {
                Some((major, minor, revision)) => {
                    assert_eq!(failure, ConnectFailure::Version { major, minor, revision });
                }
                None => assert_eq!(failure, ConnectFailure::NotAmqp),
            }
        }
    }
    let mut peer = Peer::connected(Config::default());
    peer.send_bytes(b"AMQPa");
    assert_eq!(peer.session.cause(), None, "a header has eight bytes");

    let mut peer = Peer::connected(Config::default());
    peer.send(0, &connection::Start { version_major: 8, version_minor: 0, ..start(b"PLAIN") });
    let expected = ConnectFailure::Version { major: 8, minor: 0, revision: 0 };
    assert_eq!(peer.failure(), expected);
}

#[test]
fn na_36_pk_28_a_broker_without_plain_is_refused() {
    let mut peer = Peer::connected(Config::default());
    peer.send(0, &start(b"EXTERNAL PLAINER"));
    let ConnectFailure::NoSharedMechanism { offered, .. } = peer.failure() else { panic!() };
    assert_eq!(&*offered, "EXTERNAL PLAINER");
}

/// BR-8, BR-9, K2: the code and text arrive, and close-ok is sent.
#[test]
fn a_close_in_the_handshake_is_reported_with_its_code_and_answered() {
    let mut login = Peer::connected(Config::default());
    login.send(0, &start(b"PLAIN"));
    login.methods();
    login.send(0, &close(403, "ACCESS_REFUSED - no"));
    let ConnectFailure::Authentication(error) = login.failure() else { panic!() };
    assert_eq!((error.code.code(), &*error.text), (403, "ACCESS_REFUSED - no"));
    assert_eq!(login.methods(), ["connection.CloseOk"]);

    let mut host = Peer::connected(Config::default());
    host.send(0, &start(b"PLAIN"));
    host.send(0, &connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 0 });
    host.methods();
    host.send(0, &close(530, "NOT_ALLOWED - vhost nope not found"));
    assert!(
        matches!(host.failure(), ConnectFailure::VirtualHost(error) if error.code.code() == 530)
    );
    assert_eq!(host.methods(), ["connection.CloseOk"]);

    let mut forced = Peer::connected(Config::default());
    forced.send(0, &close(320, "CONNECTION_FORCED - going down"));
    assert!(matches!(forced.failure(), ConnectFailure::Closed(error) if error.code.code() == 320));
}

/// BR-8, BR-24, BR-25: what a loss means depends on what was asked last.
#[test]
fn pk_29_a_loss_says_by_its_step_what_was_probably_refused() {
    let mut peer = Peer::connected(Config::default());
    peer.lose();
    assert!(matches!(peer.failure(), ConnectFailure::Lost { step: ConnectStep::Start, .. }));

    let mut peer = Peer::connected(Config::default());
    peer.send(0, &start(b"PLAIN"));
    peer.lose();
    assert!(matches!(peer.failure(), ConnectFailure::ProbablyAuthentication(_)));

    let mut peer = Peer::connected(Config::default());
    peer.send(0, &start(b"PLAIN"));
    peer.send(0, &connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 0 });
    peer.lose();
    assert!(matches!(peer.failure(), ConnectFailure::TuningRefused(_)));
}

/// A peer that closes over TLS may leave out the farewell. Other errors of TLS are reported as such.
#[test]
fn a_loss_over_tls_says_by_its_step_what_was_probably_refused() {
    let lost = |tune: bool, kind| {
        let mut peer = Peer::connected(Config::default());
        peer.send(0, &start(b"PLAIN"));
        if tune {
            peer.send(0, &connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 0 });
        }
        let error = std::io::Error::from(TlsError::new(kind, "")).into();
        peer.session.handle_disconnected(peer.now, peer.attempt, error, 0);
        peer.failure()
    };
    let truncated = TlsErrorKind::Truncated;
    assert!(matches!(lost(false, truncated), ConnectFailure::ProbablyAuthentication(_)));
    assert!(matches!(lost(true, truncated), ConnectFailure::TuningRefused(_)));
    let refused = lost(false, TlsErrorKind::ClientCertificateRefused);
    assert!(matches!(refused, ConnectFailure::Tls { .. }), "{refused:?}");
}

/// Wherever it happens, in the middle of a frame or between two, the step says what it means.
#[test]
fn a_loss_at_any_byte_of_the_handshake_is_a_failure_of_its_step() {
    let mut whole = Vec::new();
    frame::write_method(&mut whole, 0, &start(b"PLAIN"));
    let login = whole.len();
    let tune = connection::Tune { channel_max: 10, frame_max: 4_096, heartbeat: 10 };
    frame::write_method(&mut whole, 0, &tune);
    let opening = whole.len();
    frame::write_method(&mut whole, 0, &connection::OpenOk::default());
    for at in 0..whole.len() {
        let mut peer = Peer::connected(Config::default());
        peer.send_bytes(&whole[..at]);
        peer.write();
        peer.lose();
        let lost = TransportError::end_of_file();
        let expected = match at {
            _ if at < login => ConnectFailure::Lost { step: ConnectStep::Start, error: lost },
            _ if at < opening => ConnectFailure::ProbablyAuthentication(lost),
            _ => ConnectFailure::TuningRefused(lost),
        };
        assert_eq!(peer.failure(), expected, "at byte {at}");
    }
}

#[test]
fn a_method_out_of_turn_is_a_protocol_error() {
    let mut peer = Peer::connected(Config::default());
    peer.send(0, &connection::Tune::default());
    assert!(matches!(peer.failure(), ConnectFailure::Protocol(_)));
    let mut peer = Peer::connected(Config::default());
    peer.send(1, &basic::QosOk::default());
    assert!(matches!(peer.failure(), ConnectFailure::Protocol(_)));
}

#[test]
fn silence_is_given_up_at_each_step() {
    for step in [ConnectStep::Start, ConnectStep::Tune, ConnectStep::Open] {
        let mut peer = Peer::connected(Config::default());
        if step != ConnectStep::Start {
            peer.send(0, &start(b"PLAIN"));
        }
        if step == ConnectStep::Open {
            peer.send(0, &connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 1 });
        }
        peer.pass(Duration::from_millis(9_999));
        assert_eq!(peer.session.cause(), None);
        peer.pass(Duration::from_millis(1));
        let timeout = Duration::from_secs(10);
        assert_eq!(peer.failure(), ConnectFailure::TimedOut { timeout, step });
    }
}

/// Each report of a driver names its attempt: one about an earlier transport says nothing of the present.
#[test]
fn reports_of_an_earlier_attempt_change_nothing() {
    let reset = || TransportError::new(ErrorKind::ConnectionReset, "reset");
    let mut peer = Peer::connected_to(Config::default().recovery(Recovery::never()), 3);
    let first = peer.attempt;
    peer.send(0, &start(b"PLAIN"));
    peer.methods();
    peer.session.handle_disconnected(peer.now, first, reset(), peer.written_in_all);
    assert!(matches!(peer.events()[..], [Event::AttemptFailed(_)]));
    // Late reports while the second address is dialled, and while its handshake runs.
    peer.session.handle_connected(peer.now, first);
    peer.session.handle_disconnected(peer.now, first, reset(), 0);
    peer.session.handle_written(peer.now, first, 1_000_000);
    peer.dial();
    assert_ne!(peer.attempt, first);
    peer.session.handle_disconnected(peer.now, first, reset(), 0);
    peer.session.handle_resolved(peer.now, first, Err(reset()));
    peer.send(0, &start(b"PLAIN"));
    peer.tune();
    // What the first transport took hides no stall of the second.
    peer.session.open_channel(peer.now).unwrap();
    assert!(peer.session.poll_transmit(peer.now, &mut amqp_core::Transmit::new()));
    peer.session.handle_written(peer.now, first, 1_000_000);
    for _ in 0..4 {
        peer.pass(Duration::from_secs(6));
        peer.send_bytes(&frame::HEARTBEAT);
    }
    assert!(matches!(peer.cause(), CloseCause::WriteTimeout { .. }), "{:?}", peer.cause());
}

/// An answer to an earlier question, to one that was not asked, or to one that nobody asks any more.
#[test]
fn answers_that_are_not_awaited_change_nothing() {
    let now = Instant::now();
    let config = Config::from_uri("amqp://one,two").unwrap();
    let mut session = Session::new(Arc::new(config), now, 0).unwrap();
    let addresses = || Ok(vec![([127, 0, 0, 1], 5672).into()]);
    let not_found = || TransportError::new(ErrorKind::NotFound, "no such host");
    let Some(Action::Resolve { attempt: first, .. }) = session.poll_action() else { panic!() };
    session.handle_resolved(now, first, Err(not_found()));
    let Some(Action::Resolve { attempt: second, .. }) = session.poll_action() else { panic!() };
    session.handle_resolved(now, first, addresses());
    // No address has been dialled.
    session.handle_connected(now, second);
    session.handle_disconnected(now, second, not_found(), 0);
    assert!(session.poll_action().is_none() && !session.connection().wants_transmit());
    session.close(now);
    assert!(matches!(session.poll_action(), Some(Action::Finish { .. })));
    session.handle_resolved(now, second, addresses());
    assert!(session.poll_action().is_none());
}

/// Resolving that never ends, then dialling that never ends.
#[test]
fn connecting_as_a_whole_has_its_time() {
    for resolved in [false, true] {
        let now = Instant::now();
        let config = Config::default().address_timeout(Duration::from_secs(60));
        let mut session = Session::new(Arc::new(config), now, 0).unwrap();
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
        if resolved {
            session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 1).into()]));
        }
        let (deadline, _) = session.poll_timeout().unwrap();
        assert_eq!(deadline, now + Duration::from_secs(30));
        session.handle_timeout(deadline);
        let Some(CloseCause::Connect(error)) = session.cause() else { panic!() };
        let step = if resolved { ConnectStep::Dial } else { ConnectStep::Resolve };
        assert!(matches!(&**error, ConnectError::TimedOut { step: at, .. } if *at == step));
        let expected = match resolved {
            true => "not connected within 30 s: localhost (127.0.0.1:1) timed out while dialling",
            false => "not connected within 30 s: localhost:5672 timed out while resolving the host",
        };
        assert_eq!(error.to_string(), expected);
    }
}

/// A target over TLS, and the session that dials it.
fn dialled_over_tls(now: Instant) -> (Session, Attempt) {
    let config = Config::from_uri("amqps://one,two?server_name_indication=name").unwrap();
    let mut session = Session::dialling_by_name(Arc::new(config), now, 0).unwrap();
    let Some(Action::Dial { attempt, target }) = session.poll_action() else { panic!() };
    assert_eq!((target.endpoint.tls, &*target.server_name), (true, "name"));
    (session, attempt)
}

fn next_is_dialled(session: &mut Session, expected: &str) {
    let Some(Action::Dial { target, .. }) = session.poll_action() else { panic!() };
    assert_eq!(&*target.endpoint.host, expected);
}

/// What fails while the transport is encrypted is not taken for a failure of the dial.
#[test]
fn failures_of_tls_name_the_check_and_the_step() {
    let now = Instant::now();
    let check = || TlsError::new(TlsErrorKind::WrongName, "not valid for name");
    let failed = || std::io::Error::from(check()).into();
    let reset = || TransportError::new(ErrorKind::ConnectionReset, "reset");

    let (mut session, attempt) = dialled_over_tls(now);
    session.handle_dialled(attempt);
    session.handle_disconnected(now, attempt, failed(), 0);
    next_is_dialled(&mut session, "two");
    session.close(now);

    let kind = TlsErrorKind::WrongName;
    let ends = [
        (failed(), ConnectFailure::Tls { kind, error: failed() }),
        (reset(), ConnectFailure::Lost { step: ConnectStep::Tls, error: reset() }),
    ];
    for (error, expected) in ends {
        let config = Arc::new(Config::from_uri("amqps://one").unwrap());
        let mut session = Session::dialling_by_name(config, now, 0).unwrap();
        let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
        session.handle_dialled(attempt);
        session.handle_disconnected(now, attempt, error, 0);
        let Some(CloseCause::Connect(error)) = session.cause() else { panic!() };
        assert_eq!(error.last_failure(), Some(&expected));
        assert!(error.to_string().contains("one:5671"), "{error}");
    }

    // A server on TLS 1.3 refuses a client's certificate after the handshake.
    let mut peer = Peer::connected(Config::default());
    peer.session.handle_disconnected(peer.now, peer.attempt, failed(), 8);
    assert_eq!(peer.failure(), ConnectFailure::Tls { kind, error: failed() });
}

/// The time of an address includes TLS, and so does the time of all.
#[test]
fn silence_in_the_tls_handshake_is_given_up() {
    let now = Instant::now();
    let (mut session, attempt) = dialled_over_tls(now);
    session.handle_dialled(attempt);
    let (deadline, _) = session.poll_timeout().unwrap();
    assert_eq!(deadline, now + amqp_core::limits::ADDRESS_TIMEOUT);
    session.handle_timeout(deadline);
    next_is_dialled(&mut session, "two");
    session.handle_timeout(now + Duration::from_secs(30));
    let Some(CloseCause::Connect(error)) = session.cause() else { panic!() };
    let ConnectError::Failed { attempts } = &**error else { panic!("{error:?}") };
    let timeout = Duration::from_secs(10);
    assert_eq!(attempts[0].failure, ConnectFailure::TimedOut { timeout, step: ConnectStep::Tls });

    let (mut session, attempt) = dialled_over_tls(now);
    session.handle_dialled(attempt);
    session.handle_connected(now, attempt);
    assert!(session.connection().wants_transmit(), "the handshake of AMQP begins");
}

/// A plain connection to a TLS port gets an alert, in pieces perhaps.
#[test]
fn a_tls_port_is_recognised() {
    for size in [1, 2, 7] {
        let mut peer = Peer::connected(Config::default());
        [0x15, 3, 3, 0, 2, 2, 80].chunks(size).for_each(|piece| peer.send_bytes(piece));
        assert_eq!(peer.failure(), ConnectFailure::TlsPort);
    }
}

/// Each host is dialled once, within the timeout of an address; errors name the host.
#[test]
fn hosts_may_be_dialled_by_their_names() {
    let now = Instant::now();
    let config = Config::default().endpoints([
        Endpoint::new("one", 1),
        Endpoint::new("two", 2).tls(true),
        Endpoint::new("three", 3),
    ]);
    let mut session = Session::dialling_by_name(Arc::new(config), now, 0).unwrap();
    let mut dialled = Vec::new();
    let mut time = now;
    let cause = loop {
        match session.poll_action().unwrap() {
            Action::Dial { attempt, target } => {
                let Endpoint { host, port, tls, .. } = target.endpoint;
                assert_eq!((&target.server_name, target.address), (&host, None));
                dialled.push(format!("{host}:{port} {tls}"));
                if port == 2 {
                    time = session.poll_timeout().unwrap().0;
                    assert_eq!(time, now + amqp_core::limits::ADDRESS_TIMEOUT);
                    session.handle_timeout(time);
                } else {
                    let error = TransportError::new(ErrorKind::ConnectionRefused, "refused");
                    session.handle_disconnected(time, attempt, error, 0);
                }
            }
            _ => break session.cause().unwrap().clone(),
        }
    };
    assert_eq!(dialled, ["one:1 false", "two:2 true", "three:3 false"]);
    let CloseCause::Connect(error) = cause else { panic!("{cause:?}") };
    assert_eq!(
        error.to_string(),
        "could not connect: one:1: cannot dial: refused; \
         two:2: timed out after 10 s while dialling; three:3: cannot dial: refused"
    );
}

#[test]
fn every_address_of_every_host_is_tried_and_every_failure_kept() {
    let now = Instant::now();
    let config = Config::from_uri("amqp://one,two:1,three").unwrap();
    let mut session = Session::new(Arc::new(config), now, 0).unwrap();
    let refused = || TransportError::new(ErrorKind::ConnectionRefused, "refused");
    let mut dialled = Vec::new();
    let cause = loop {
        match session.poll_action().unwrap() {
            Action::Resolve { attempt, host, port } => {
                let addresses = match &*host {
                    "one" => Ok(vec![([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], port).into()]),
                    "two" => Err(TransportError::new(ErrorKind::NotFound, "no such host")),
                    _ => Ok(vec![([10, 0, 0, 3], port).into()]),
                };
                session.handle_resolved(now, attempt, addresses);
            }
            Action::Dial { attempt, target } => {
                dialled.push(format!("{} {}", target.server_name, target.address.unwrap()));
                session.handle_disconnected(now, attempt, refused(), 0);
                // A late report about an attempt that is over changes nothing.
                session.handle_connected(now, attempt);
            }
            _ => break session.cause().unwrap().clone(),
        }
    };
    assert_eq!(dialled, ["one 10.0.0.1:5672", "one 10.0.0.2:5672", "three 10.0.0.3:5672"]);
    assert_eq!(
        cause.to_string(),
        "could not connect: one (10.0.0.1:5672): cannot dial: refused; \
         one (10.0.0.2:5672): cannot dial: refused; two:1: cannot resolve the host: no such host; \
         three (10.0.0.3:5672): cannot dial: refused"
    );
    let events: Vec<_> = std::iter::from_fn(|| session.poll_event()).collect();
    let [Event::AttemptFailed(first), .., Event::AttemptFailed(last), Event::Closed(closed)] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((events.len(), closed), (5, &cause));
    assert_eq!(first.to_string(), "one (10.0.0.1:5672): cannot dial: refused");
    assert_eq!(last.to_string(), "three (10.0.0.3:5672): cannot dial: refused");
}

/// Neither at another address nor at another host.
#[test]
fn a_refused_login_is_not_tried_elsewhere() {
    for addresses in [1, 2] {
        let mut peer = Peer::connected_to(Config::from_uri("amqp://one,two").unwrap(), addresses);
        peer.send(0, &start(b"PLAIN"));
        peer.send(0, &close(403, "ACCESS_REFUSED"));
        assert!(matches!(peer.failure(), ConnectFailure::Authentication(_)));

        let mut peer = Peer::connected_to(Config::from_uri("amqp://one,two").unwrap(), addresses);
        peer.send(0, &start(b"EXTERNAL"));
        assert!(matches!(peer.failure(), ConnectFailure::NoSharedMechanism { .. }));

        let mut peer = Peer::connected_to(Config::from_uri("amqp://one,two").unwrap(), addresses);
        peer.send(0, &start(b"PLAIN"));
        peer.send(0, &connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 0 });
        peer.send(0, &close(530, "NOT_ALLOWED"));
        assert!(matches!(peer.failure(), ConnectFailure::VirtualHost(_)));
    }
}

#[test]
fn a_timeout_names_what_was_tried_and_what_failed_before() {
    let mut peer = Peer::connected_to(Config::default().connect_timeout(Duration::from_secs(5)), 2);
    peer.send(0, &start(b"PLAIN"));
    peer.lose();
    peer.dial();
    peer.pass(Duration::from_secs(5));
    assert_eq!(
        peer.cause().to_string(),
        "not connected within 5 s: localhost (127.0.0.2:5672) timed out while waiting for \
         connection.start; before that: localhost (127.0.0.1:5672): closed by the peer after the \
         login, which it has probably refused: closed by the peer"
    );
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is_tried() {
    let refused = |config: Config| match Session::new(Arc::new(config), Instant::now(), 0) {
        Err(ConnectError::InvalidArgument(InvalidArgument { argument, .. })) => argument,
        other => panic!("{other:?}"),
    };
    let uri = |uri: &str| Config::from_uri(uri).unwrap();
    assert_eq!(refused(uri("amqp://a%00:b@h")), "user");
    assert_eq!(refused(uri("amqp://a:b%00@h")), "password");
    assert_eq!(refused(uri(&format!("amqp://h/{}", "v".repeat(256)))), "virtual-host");
    assert_eq!(refused(Config::default().locale("x".repeat(256))), "locale");
    let long = "x".repeat(17_000);
    assert_eq!(refused(Config::default().connection_name(&long)), "login");
    assert_eq!(refused(Config::default().hosts([""; 0])), "hosts");
    assert_eq!(refused(Config::default().hosts(["h", ""])), "host");
    assert_eq!(refused(Config::default().port(0)), "port");
    let nan = Config::default().client_property("nan", f64::NAN);
    assert_eq!(refused(nan), "client-properties");
}

#[test]
fn close_gives_up_connecting() {
    let mut peer = Peer::connected(Config::default());
    peer.session.close(peer.now);
    assert_eq!(peer.cause(), CloseCause::Connect(Arc::new(ConnectError::Aborted)));
    let Some(Action::Finish { attempt, .. }) = peer.session.poll_action() else { panic!() };
    assert_eq!(attempt, peer.attempt);
}

/// Whatever happens in the handshake, its caller hears of one end: opened, or failed.
#[test]
fn pk_20_pk_21_a_connection_opens_or_fails_once() {
    let steps: [&dyn Fn(&mut Peer); 3] = [
        &|peer| peer.send(0, &start(b"PLAIN")),
        &|peer| peer.send(0, &connection::Tune::default()),
        &|peer| peer.send(0, &connection::OpenOk::default()),
    ];
    for done in 0..=steps.len() {
        let mut peer = Peer::connected(Config::default().recovery(Recovery::never()));
        for step in &steps[..done] {
            assert!(!peer.session.connection().is_open());
            let early = peer.session.open_channel(peer.now).unwrap_err();
            assert_eq!(early, Error::Misuse(Misuse::NotConnected));
            step(&mut peer);
        }
        assert_eq!(peer.session.connection().is_open(), done == steps.len());
        peer.lose();
        peer.lose();
        let events = peer.events();
        let opened = events.iter().filter(|event| **event == Event::Opened).count();
        assert_eq!(opened, usize::from(done == steps.len()));
        let closed: Vec<_> =
            events.iter().filter(|event| matches!(event, Event::Closed(_))).collect();
        assert_eq!(closed.len(), 1, "{events:?}");
        let failed = matches!(closed[0], Event::Closed(CloseCause::Connect(_)));
        assert_eq!(failed, done < steps.len(), "{events:?}");
        assert!(!peer.session.connection().is_open());
    }
}
