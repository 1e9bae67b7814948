//! Logins: mechanisms, their order, several steps, and credentials that are fetched and renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::{ConnectFailure, ConnectStep, InvalidReason, TransportError};
use amqp_core::proto::method::{Method, connection};
use amqp_core::types::{AuthExchange, AuthMechanism, Challenge};
use amqp_core::{
    Action, Attempt, Config, ConnectError, Credentials, Event, ProvidedCredentials, Session,
    TimeoutReason,
};

use crate::peer::{Peer, start};

fn config(credentials: Credentials) -> Config {
    Config::default().credentials(credentials)
}

type Create = fn(&str, &str) -> Credentials;

const CREATE: [Create; 2] = [
    |user, password| Credentials::plain(user, password),
    |user, password| Credentials::amqplain(user, password),
];

/// The mechanism and the response with which a session answers an offer.
fn login(credentials: Credentials, offered: &'static [u8]) -> (String, Vec<u8>) {
    let mut peer = Peer::connected(config(credentials));
    peer.send(0, &start(offered));
    peer.last_method(|method| {
        let Method::ConnectionStartOk(start_ok) = method else { panic!("{method:?}") };
        (start_ok.mechanism.to_string(), start_ok.response.to_vec())
    })
}

fn invalid(config: Config) -> InvalidReason {
    match Session::new(Arc::new(config), Instant::now(), 0) {
        Err(ConnectError::InvalidArgument(error)) => error.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pk_4_each_mechanism_has_its_response() {
    let plain = login(Credentials::plain("u", "p"), b"AMQPLAIN PLAIN");
    assert_eq!(plain, ("PLAIN".into(), b"\0u\0p".to_vec()));
    let amqplain = login(Credentials::amqplain("us", "pwd"), b"AMQPLAIN PLAIN");
    let table = b"\x05LOGINS\0\0\0\x02us\x08PASSWORDS\0\0\0\x03pwd".to_vec();
    assert_eq!(amqplain, ("AMQPLAIN".into(), table));
    let external = login(Credentials::external(), b"PLAIN EXTERNAL");
    assert_eq!(external, ("EXTERNAL".into(), Vec::new()));
}

#[test]
fn our_order_decides_among_what_is_offered() {
    let both = || Credentials::amqplain("u", "p").or(Credentials::plain("u", "p"));
    assert_eq!(login(both(), b"PLAIN AMQPLAIN").0, "AMQPLAIN");
    assert_eq!(login(both(), b"PLAIN").0, "PLAIN");
    let last = Credentials::plain("u", "p").or(Credentials::external());
    assert_eq!(login(last, b"EXTERNAL").0, "EXTERNAL");

    // The name of one is the beginning of another's.
    let mut peer = Peer::connected(config(both()));
    peer.send(0, &start(b"PLAIN-X XAMQPLAIN"));
    let failure = peer.failure();
    assert_eq!(
        failure.to_string(),
        "the broker does not offer AMQPLAIN or PLAIN, only PLAIN-X XAMQPLAIN"
    );
}

#[test]
fn external_has_no_fallback() {
    let mut peer = Peer::connected(config(Credentials::external()));
    peer.send(0, &start(b"PLAIN AMQPLAIN"));
    assert!(matches!(peer.failure(), ConnectFailure::NoSharedMechanism { .. }));
    assert_eq!(peer.methods(), Vec::<String>::new());

    let credentials = Credentials::external().or(Credentials::plain("u", "p"));
    assert_eq!(invalid(config(credentials)), InvalidReason::BehindExternal);
}

#[test]
fn nul_is_refused_in_every_mechanism() {
    for create in CREATE {
        for (user, password) in [("u\0", "p"), ("u", "\0p")] {
            let reason = invalid(config(create(user, password)));
            assert_eq!(reason, InvalidReason::ContainsNul);
        }
        let second = Credentials::plain("u", "p").or(create("u", "\0"));
        assert_eq!(invalid(config(second)), InvalidReason::ContainsNul);
    }
}

#[test]
fn a_token_of_8_kb_fits_and_the_limit_can_be_set() {
    let token = "t".repeat(8_192);
    for create in CREATE {
        let (_, response) = login(create("", &token), b"PLAIN AMQPLAIN");
        assert!(response.ends_with(token.as_bytes()));
        let limited = config(create("", &token)).initial_frame_max(4_096);
        let InvalidReason::InitialFrameTooLarge { size, initial_frame_max: 4_096 } =
            invalid(limited)
        else {
            panic!()
        };
        assert!((8_192..9_000).contains(&size), "{size}");
        let huge = "t".repeat(100_000);
        let error = invalid(config(create("", &huge)));
        assert!(matches!(error, InvalidReason::InitialFrameTooLarge { .. }));
        let raised = config(create("", &huge)).initial_frame_max(131_072);
        Session::new(Arc::new(raised), Instant::now(), 0).unwrap();
    }
}

/// A mechanism that answers with these texts.
struct Scripted(&'static str, Vec<Result<&'static str, &'static str>>);

impl AuthMechanism for Scripted {
    fn name(&self) -> &str {
        self.0
    }

    fn begin(&self) -> Box<dyn AuthExchange> {
        let mut answers = self.1.clone().into_iter();
        Box::new(move |challenge: Option<&[u8]>| match answers.next().unwrap() {
            Ok(text) => {
                let challenge = challenge.map(String::from_utf8_lossy).unwrap_or_default();
                Ok(format!("{text}{challenge}").into_bytes())
            }
            Err(text) => Err(text.into()),
        })
    }
}

/// Answers the challenges of a session as a driver does.
#[derive(Default)]
struct Answers(Option<Box<dyn AuthExchange>>);

impl Answers {
    fn answer(&mut self, peer: &mut Peer) -> Attempt {
        let Some(Action::Authenticate { attempt, challenge }) = peer.session.poll_action() else {
            panic!()
        };
        let Challenge { mechanism, challenge, .. } = challenge;
        let exchange = match challenge {
            None => self.0.insert(mechanism.begin()),
            Some(_) => self.0.as_mut().unwrap(),
        };
        let response = exchange.respond(challenge.as_deref());
        peer.session.handle_response(peer.now, attempt, response);
        attempt
    }
}

#[test]
fn a_mechanism_of_the_application_takes_several_steps() {
    let mechanism = Scripted("STEPS", vec![Ok("first"), Ok("second"), Ok("third")]);
    let credentials = Credentials::mechanism(mechanism).or(Credentials::plain("u", "p"));
    let mut peer = Peer::connected(config(credentials));
    let mut answers = Answers::default();
    peer.send(0, &start(b"PLAIN STEPS"));
    assert_eq!(peer.methods(), Vec::<String>::new(), "nothing before the mechanism has spoken");
    answers.answer(&mut peer);
    peer.last_method(|method| {
        let Method::ConnectionStartOk(start_ok) = method else { panic!("{method:?}") };
        assert_eq!(start_ok.mechanism, *"STEPS");
        assert_eq!(start_ok.response, b"first");
    });
    for (challenge, response) in [(b"A", &b"secondA"[..]), (b"B", b"thirdB")] {
        peer.send(0, &connection::Secure { challenge });
        answers.answer(&mut peer);
        peer.last_method(|method| {
            let Method::ConnectionSecureOk(secure_ok) = method else { panic!("{method:?}") };
            assert_eq!(secure_ok.response, response);
        });
    }
    peer.send(0, &connection::Tune { channel_max: 10, frame_max: 4_096, heartbeat: 10 });
    peer.send(0, &connection::OpenOk::default());
    assert_eq!(peer.events(), [Event::Opened]);
}

#[test]
fn a_mechanism_that_fails_ends_connecting() {
    let mechanism = Scripted("STEPS", vec![Ok("first"), Err("no such realm")]);
    let mut peer = Peer::connected_to(config(Credentials::mechanism(mechanism)), 2);
    let mut answers = Answers::default();
    peer.send(0, &start(b"STEPS"));
    answers.answer(&mut peer);
    peer.send(0, &connection::Secure { challenge: b"" });
    answers.answer(&mut peer);
    let failure = peer.failure();
    let text = "the authentication mechanism STEPS failed: no such realm";
    assert_eq!(failure.to_string(), text);
    assert!(peer.session.cause().is_some(), "the other address is not tried");
}

#[test]
fn a_broker_that_does_not_wait_for_the_mechanism_violates_the_protocol() {
    let tune = connection::Tune { channel_max: 10, frame_max: 4_096, heartbeat: 10 };
    for early in [true, false] {
        let mechanism = Scripted("STEPS", vec![Ok("first")]);
        let mut peer = Peer::connected(config(Credentials::mechanism(mechanism)));
        peer.send(0, &start(b"STEPS"));
        if early {
            peer.send(0, &tune);
        } else {
            peer.send(0, &connection::Secure { challenge: b"" });
        }
        assert!(matches!(peer.failure(), ConnectFailure::Protocol(_)));
    }
    // PLAIN has one step.
    let mut peer = Peer::connected(Config::default());
    peer.send(0, &start(b"PLAIN"));
    peer.send(0, &connection::Secure { challenge: b"" });
    assert!(matches!(peer.failure(), ConnectFailure::Protocol(_)));
}

#[test]
fn a_response_of_an_earlier_attempt_changes_nothing() {
    let mechanism = Scripted("STEPS", vec![Ok("first")]);
    let mut peer = Peer::connected_to(config(Credentials::mechanism(mechanism)), 2);
    peer.send(0, &start(b"STEPS"));
    let Some(Action::Authenticate { attempt, .. }) = peer.session.poll_action() else { panic!() };
    peer.session.handle_disconnected(peer.now, attempt, TransportError::end_of_file(), 0);
    peer.events();
    peer.dial();
    peer.send(0, &start(b"STEPS"));
    peer.session.handle_response(peer.now, attempt, Ok(b"stale".to_vec()));
    assert_eq!(peer.methods(), Vec::<String>::new());
    Answers::default().answer(&mut peer);
    assert_eq!(peer.methods(), ["connection.StartOk"]);
}

#[test]
fn what_a_mechanism_says_must_fit_the_frame() {
    let long: &'static str = "x".repeat(20_000).leak();
    for answers in [vec![Ok(long)], vec![Ok("first"), Ok(long)]] {
        let steps = answers.len();
        let mechanism = Scripted("STEPS", answers);
        let mut peer = Peer::connected(config(Credentials::mechanism(mechanism)));
        let mut answers = Answers::default();
        peer.send(0, &start(b"STEPS"));
        answers.answer(&mut peer);
        if steps == 2 {
            peer.send(0, &connection::Secure { challenge: b"" });
            answers.answer(&mut peer);
        }
        let ConnectFailure::InvalidCredentials(error) = peer.failure() else { panic!() };
        assert!(matches!(error.reason, InvalidReason::InitialFrameTooLarge { .. }));
    }
    let space = InvalidReason::SpaceOrControl;
    for (name, reason) in [("", InvalidReason::Empty), ("TWO WORDS", space), ("N\0", space)] {
        let mechanism = Scripted(name, Vec::new());
        assert_eq!(invalid(config(Credentials::mechanism(mechanism))), reason);
    }
}

/// A session that fetches its credentials, at its first action.
fn fetching(addresses: u8) -> (Session, Instant, Attempt) {
    let now = Instant::now();
    let config = Config::default().fetch_credentials(true);
    let mut session = Session::new(Arc::new(config), now, 0).unwrap();
    let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
    let addresses = (1..=addresses).map(|last| ([127, 0, 0, last], 5672).into()).collect();
    session.handle_resolved(now, attempt, Ok(addresses));
    let attempt = asked(&mut session);
    (session, now, attempt)
}

fn asked(session: &mut Session) -> Attempt {
    let Some(Action::FetchCredentials { attempt }) = session.poll_action() else { panic!() };
    attempt
}

fn token(token: &str) -> ProvidedCredentials {
    Credentials::plain("", token).into()
}

#[test]
fn each_attempt_fetches_its_credentials() {
    let (mut session, now, first) = fetching(2);
    assert_eq!(session.handle_credentials(now, first, Ok(token("one"))), None);
    let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
    session.handle_disconnected(now, attempt, TransportError::end_of_file(), 0);

    let second = asked(&mut session);
    // The answer to the first attempt comes again, and changes nothing.
    let returned = session.handle_credentials(now, first, Ok(token("late")));
    assert_eq!(returned, Some(token("late").credentials));
    assert_eq!(session.poll_action(), None);
    let replaced = session.handle_credentials(now, second, Ok(token("two")));
    assert_eq!(replaced, Some(token("one").credentials), "the caller drops them");
    let mut peer = Peer::dialled(session, now);
    peer.send(0, &start(b"PLAIN"));
    peer.last_method(|method| {
        let Method::ConnectionStartOk(start_ok) = method else { panic!("{method:?}") };
        assert_eq!(start_ok.response, b"\0\0two");
    });
}

#[test]
fn credentials_that_cannot_be_fetched_fail_the_attempt_alone() {
    let (mut session, now, attempt) = fetching(2);
    let error = TransportError::new(std::io::ErrorKind::Other, "token server down");
    session.handle_credentials(now, attempt, Err(error));
    let attempt = asked(&mut session);
    let timeout = now + Duration::from_secs(10);
    session.handle_timeout(timeout);
    assert_eq!(
        session.poll_action().map(|action| matches!(action, Action::Finish { .. })),
        Some(true)
    );
    assert_eq!(
        session.handle_credentials(timeout, attempt, Ok(token("late"))),
        Some(token("late").credentials)
    );
    let Some(amqp_core::CloseCause::Connect(error)) = session.cause() else { panic!() };
    let ConnectError::Failed { attempts } = &**error else { panic!("{error}") };
    assert_eq!(attempts[0].failure.to_string(), "cannot fetch the credentials: token server down");
    let step = ConnectStep::Credentials;
    assert!(matches!(&attempts[1].failure, ConnectFailure::TimedOut { step: s, .. } if *s == step));
}

#[test]
fn a_transport_that_is_connected_waits_for_the_credentials() {
    let connected = || {
        let config = Config::default().fetch_credentials(true);
        let now = Instant::now();
        let (mut session, attempt) = Session::connected(Arc::new(config), now).unwrap();
        assert_eq!(asked(&mut session), attempt);
        (session, now, attempt)
    };
    let (mut session, now, attempt) = connected();
    assert!(!session.wants_input());
    session.handle_credentials(now, attempt, Ok(token("one")));
    assert_eq!(session.poll_action(), None);
    assert!(session.wants_input());

    let (mut session, now, attempt) = connected();
    session.handle_disconnected(now, attempt, TransportError::end_of_file(), 0);
    let Some(amqp_core::CloseCause::Connect(error)) = session.cause() else { panic!() };
    let step = ConnectStep::Credentials;
    let failure = error.last_failure();
    assert!(matches!(failure, Some(ConnectFailure::Lost { step: s, .. }) if *s == step));
}

#[test]
fn credentials_that_cannot_be_sent_end_connecting() {
    let (mut session, now, attempt) = fetching(2);
    let refused = session.handle_credentials(now, attempt, Ok(token("a\0b")));
    assert_eq!(refused, Some(token("a\0b").credentials), "the caller drops them");
    let Some(amqp_core::CloseCause::Connect(error)) = session.cause() else { panic!() };
    assert_eq!(
        error.last_failure().unwrap().to_string(),
        "invalid credentials: password: contains NUL"
    );
}

/// An open connection whose token is valid for 100 s.
fn open_with_token() -> Peer {
    let (mut session, now, attempt) = fetching(1);
    let provided = token("one").valid_for(Duration::from_secs(100));
    session.handle_credentials(now, attempt, Ok(provided));
    let mut peer = Peer::dialled(session, now);
    peer.send(0, &start(b"PLAIN"));
    peer.tune_without_heartbeats();
    peer
}

/// Lets the time pass until a renewal is due.
fn due(peer: &mut Peer) -> Duration {
    let begun = peer.now;
    let Some((at, TimeoutReason::Credentials)) = peer.session.poll_timeout() else { panic!() };
    peer.now = at;
    peer.session.handle_timeout(at);
    at - begun
}

fn secret_sent(peer: &mut Peer) -> String {
    peer.last_method(|method| {
        let Method::ConnectionUpdateSecret(update) = method else { panic!("{method:?}") };
        String::from_utf8(update.new_secret.to_vec()).unwrap()
    })
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    let mut peer = open_with_token();
    for renewed in ["two", "three"] {
        assert_eq!(due(&mut peer), Duration::from_secs(80));
        let attempt = asked(&mut peer.session);
        let provided = token(renewed).valid_for(Duration::from_secs(100));
        peer.session.handle_credentials(peer.now, attempt, Ok(provided));
        assert_eq!(secret_sent(&mut peer), renewed);
        peer.send(0, &connection::UpdateSecretOk::default());
        assert_eq!(peer.events(), []);
    }
    // One that is valid for no time is not renewed all the time.
    due(&mut peer);
    let attempt = asked(&mut peer.session);
    let provided = token("none").valid_for(Duration::ZERO);
    peer.session.handle_credentials(peer.now, attempt, Ok(provided));
    assert_eq!(secret_sent(&mut peer), "none");
    peer.send(0, &connection::UpdateSecretOk::default());
    assert_eq!(due(&mut peer), Duration::from_secs(1));

    // The last one does not expire.
    let attempt = asked(&mut peer.session);
    peer.session.handle_credentials(peer.now, attempt, Ok(token("four")));
    assert_eq!(secret_sent(&mut peer), "four");
    peer.send(0, &connection::UpdateSecretOk::default());
    assert_eq!(peer.session.poll_timeout(), None);
}

#[test]
fn a_renewal_that_fails_is_tried_again_in_ever_shorter_time() {
    let mut peer = open_with_token();
    let mut waits = vec![due(&mut peer)];
    for _ in 0..5 {
        let attempt = asked(&mut peer.session);
        let error = TransportError::new(std::io::ErrorKind::Other, "down");
        peer.session.handle_credentials(peer.now, attempt, Err(error));
        assert_eq!(peer.events(), [Event::CredentialsNotRenewed("down".into())]);
        waits.push(due(&mut peer));
    }
    let seconds: Vec<f32> = waits.iter().map(Duration::as_secs_f32).collect();
    assert_eq!(seconds, [80., 10., 5., 2.5, 1.25, 1.]);

    // A provider that hangs is given up, and its late answer is not taken.
    let late = asked(&mut peer.session);
    assert_eq!(due(&mut peer), Duration::from_secs(30));
    let text = "timed out after 30 s".into();
    assert_eq!(peer.events(), [Event::CredentialsNotRenewed(text)]);
    let returned = peer.session.handle_credentials(peer.now, late, Ok(token("late")));
    assert_eq!(returned, Some(token("late").credentials));
    assert_eq!(due(&mut peer), Duration::from_secs(1));

    // Credentials without a password cannot replace one.
    let attempt = asked(&mut peer.session);
    let external = Credentials::external();
    peer.session.handle_credentials(peer.now, attempt, Ok(external.into()));
    let text = "the new credentials have no password".into();
    assert_eq!(peer.events(), [Event::CredentialsNotRenewed(text)]);
    due(&mut peer);
    let attempt = asked(&mut peer.session);
    peer.session.handle_credentials(peer.now, attempt, Ok(token("good")));
    assert_eq!(secret_sent(&mut peer), "good");
}

#[test]
fn nothing_is_renewed_after_the_end() {
    let mut peer = open_with_token();
    due(&mut peer);
    let attempt = asked(&mut peer.session);
    peer.session.close(peer.now);
    peer.session.handle_credentials(peer.now, attempt, Ok(token("two")));
    assert_eq!(peer.methods(), ["connection.Close"]);
    let renewals = |event: &Event| matches!(event, Event::CredentialsNotRenewed(_));
    assert!(!peer.events().iter().any(renewals));
    peer.send(0, &connection::CloseOk::default());
    assert_eq!(peer.session.poll_timeout(), None);
}

/// Nor does a session show it that has it queued, or the output that is being written.
#[test]
fn debug_shows_no_secret_that_is_on_its_way() {
    let hidden = |shown: &dyn std::fmt::Debug| {
        let text = format!("{shown:?}");
        let decimal = "canary".bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        assert!(!text.contains("canary") && !text.contains(&decimal), "{text}");
    };
    let mut peer = Peer::connected(config(Credentials::plain("app", "canary")));
    let mut start_frame = Vec::new();
    amqp_core::proto::frame::write_method(&mut start_frame, 0, &start(b"PLAIN"));
    peer.session.handle_input(peer.now, &mut bytes::BytesMut::from(&start_frame[..]));
    hidden(&peer.session);
    let mut out = amqp_core::Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    assert!(String::from_utf8_lossy(&out.to_vec()).contains("canary"));
    hidden(&out);

    let mut peer = Peer::open();
    let secret = amqp_core::types::Secret::new("canary");
    peer.session.update_secret(peer.now, &secret, "renewed").unwrap();
    hidden(&peer.session);
    assert_eq!(secret_sent(&mut peer), "canary");
}

#[test]
fn debug_shows_no_secret() {
    let credentials = Credentials::plain("app", "canary").or(Credentials::amqplain("b", "canary"));
    let provided = ProvidedCredentials::new(credentials.clone());
    let mechanism = Scripted("STEPS", Vec::new());
    let all = credentials.or(Credentials::mechanism(mechanism)).or(Credentials::external());
    let text = format!("{all:?}");
    assert_eq!(text, r#"[PLAIN as "app", AMQPLAIN as "b", STEPS, EXTERNAL]"#);
    let texts = [text, format!("{provided:?}"), format!("{:?}", config(all))];
    assert!(texts.iter().all(|text| !text.contains("canary")), "{texts:?}");
}
