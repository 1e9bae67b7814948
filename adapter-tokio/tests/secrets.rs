//! Secrets are in nothing that a connection shows, returns or logs: raw, percent-encoded, in base64 or in hex.

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amqp_async::core::proto::ShortStr;
use amqp_async::core::proto::method::connection;
use amqp_testkit::raw_connection::start;
use amqp_testkit::{RawConnection, Scripted};
use amqp_tokio::types::{AuthExchange, AuthMechanism, Secret};
use amqp_tokio::{AmqpUri, Config, Connector, Credentials, ProvidedCredentials};

/// It has characters that a URI has to encode.
const CANARY: &str = "c4n/ry:P@ss w?rd";

/// Everything that was seen: what types show, and what is logged.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<String>>);

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seen {
    /// Records what this thread logs, until the guard is dropped.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn shown(&self, value: &impl Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?} {value:#?}").unwrap();
    }

    fn error(&self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            writeln!(self.0.lock().unwrap(), "{error} {error:?}").unwrap();
            next = error.source();
        }
    }

    /// Fails if a form of a secret was seen.
    #[track_caller]
    fn check(&self) {
        let text = self.0.lock().unwrap();
        assert!(text.len() > 100, "something was seen");
        for form in forms(CANARY) {
            assert!(!text.contains(&form), "{form} was seen in\n{text}");
        }
    }
}

/// A secret as it may be written.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent: String = bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let decimal: Vec<_> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![secret.to_owned(), percent.to_lowercase(), percent];
    forms.extend([hex(bytes), hex(bytes).to_uppercase(), decimal.join(", ")]);
    // Wherever it begins within groups of three bytes, with what depends on its neighbours cut off.
    for before in 0..3 {
        let all = [&b"\0\0\0"[..before], bytes].concat();
        let whole = base64(&all[..all.len() / 3 * 3]);
        forms.push(whole[4 * usize::from(before > 0)..].to_owned());
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let number = group.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        text.extend((0..4).rev().map(|digit| char::from(DIGITS[number >> (6 * digit) & 63])));
    }
    text
}

#[test]
fn forms_are_found() {
    assert_eq!(base64(b"Many hands m"), "TWFueSBoYW5kcyBt");
    let login = format!("x\0{CANARY}..");
    for encoded in [base64(login.as_bytes()), base64(&login.as_bytes()[1..])] {
        assert!(forms(CANARY).iter().any(|form| encoded.contains(form)), "{encoded}");
    }
}

fn canary() -> Credentials {
    Credentials::plain("app", CANARY)
}

/// A peer that plays this script, and a connector to it.
fn peer(script: impl FnOnce(RawConnection) + Send + 'static) -> (Scripted, Connector) {
    let peer = Scripted::start(script).unwrap();
    let connector = Connector::new(&peer.uri()).unwrap().credentials(canary());
    (peer, connector)
}

/// A peer's handshake up to the login, offering these mechanisms.
fn login(wire: &mut RawConnection, mechanisms: &'static [u8]) {
    wire.take(8);
    wire.send(0, &connection::Start { mechanisms, ..start() });
    wire.expect("connection.StartOk");
}

fn refuse(wire: &mut RawConnection) {
    let reply_text = ShortStr::new("ACCESS_REFUSED").unwrap();
    wire.send(0, &connection::Close { reply_code: 403, reply_text, ..Default::default() });
    wire.discard_to_end();
}

/// Connecting fails for a reason whose text begins so.
async fn fails(seen: &Seen, connector: Connector, reason: &str) {
    seen.shown(&connector);
    let error = connector.connect().await.unwrap_err();
    seen.error(&error);
    let failure = error.last_failure().map_or_else(|| error.to_string(), ToString::to_string);
    assert!(failure.starts_with(reason), "{failure}");
}

#[test]
fn what_holds_a_secret_does_not_show_it() {
    let seen = Seen::default();
    seen.shown(&Secret::new(CANARY));
    seen.shown(&canary().or(Credentials::amqplain("app", CANARY)));
    seen.shown(&ProvidedCredentials::new(canary()));
    seen.shown(&Config::default().credentials(canary()));
    let uri: AmqpUri = "amqp://app:c4n%2fry%3aP%40ss%20w%3frd@h".parse().unwrap();
    assert!(uri.to_string_with_password().contains("c4n%2"));
    seen.shown(&uri);
    seen.shown(&uri.to_string());
    seen.shown(&Connector::from(uri));
    seen.check();
}

#[test]
fn errors_of_uris_do_not_show_the_password() {
    let seen = Seen::default();
    let encoded = "c4n%2fry%3aP%40ss%20w%3frd";
    for uri in [
        format!("amqp://app:{CANARY}@h"),
        format!("amqp://app:{}@h", CANARY.replace(' ', "")),
        format!("amqp://app:{}@h", CANARY.replace(['@', ' '], "")),
        format!("amqp://app:{encoded}%zz@h"),
        format!("amqp://app:{encoded}@h:99999"),
        format!("amqp://app:{encoded}@h:port"),
        format!("amqp://app:{encoded}@h/a/b"),
        format!("amqp://app:{encoded}@h?bogus=1"),
        format!("amqp://app:{encoded}@h?heartbeat=many"),
        format!("amqp://app:{encoded}@h?heartbeat=1&heartbeat=2"),
        format!("amqp://app:{encoded}@[::1"),
        format!("amqp://app:{encoded}@h h"),
        format!("http://app:{encoded}@h"),
        format!("amqp://{encoded}@h"),
    ] {
        seen.error(&Connector::new(&uri).unwrap_err());
    }
    let text = seen.0.lock().unwrap().clone();
    for form in forms(CANARY).into_iter().chain(["c4n".into(), "w?rd".into(), "w%3frd".into()]) {
        assert!(!text.contains(&form), "{form} was seen in\n{text}");
    }
}

#[tokio::test]
async fn failing_logins_show_no_secret() {
    let seen = Seen::default();
    let _guard = seen.listen();
    let refused = |mut wire: RawConnection| {
        login(&mut wire, b"PLAIN AMQPLAIN");
        refuse(&mut wire);
    };
    let (_peer, connector) = peer(refused);
    fails(&seen, connector, "login refused: 403").await;
    let (_peer, connector) = peer(refused);
    let amqplain = Credentials::amqplain("app", CANARY);
    fails(&seen, connector.credentials(amqplain), "login refused: 403").await;
    let (_peer, connector) = peer(|mut wire| login(&mut wire, b"PLAIN"));
    fails(&seen, connector, "closed by the peer after the login").await;
    let (_peer, connector) = peer(|mut wire| drop(wire.take(8)));
    fails(&seen, connector, "connection lost while waiting for connection.start").await;
    let (_peer, connector) = peer(|mut wire| {
        login(&mut wire, b"PLAIN");
        wire.discard_to_end();
    });
    let timeout = Duration::from_millis(500);
    fails(&seen, connector.address_timeout(timeout), "timed out after 0.5 s").await;
    let (_peer, connector) = peer(|mut wire| {
        wire.take(8);
        wire.send(0, &connection::Start { mechanisms: b"EXTERNAL", ..start() });
        wire.discard_to_end();
    });
    fails(&seen, connector, "the broker does not offer PLAIN").await;
    let (_peer, connector) = peer(|mut wire| {
        wire.send_bytes(b"HTTP/1.1 400 Bad Request");
        wire.discard_to_end();
    });
    fails(&seen, connector, "the peer does not speak AMQP").await;
    // Refused before anything is sent.
    let local = |credentials| Connector::default().credentials(credentials);
    let invalid = "invalid configuration: ";
    fails(&seen, local(Credentials::plain("app", format!("{CANARY}\0"))), invalid).await;
    fails(&seen, local(Credentials::plain("app", CANARY.repeat(5_000))), invalid).await;
    fails(&seen, local(Credentials::external().or(canary())), "the mechanism EXTERNAL").await;
    seen.check();
}

/// A mechanism whose every response is the canary, until it fails.
struct Telling;

impl AuthMechanism for Telling {
    fn name(&self) -> &str {
        "TELLING"
    }

    fn begin(&self) -> Box<dyn AuthExchange> {
        let mut steps = 0;
        Box::new(move |_: Option<&[u8]>| {
            steps += 1;
            if steps < 3 { Ok(CANARY.into()) } else { Err("out of words".into()) }
        })
    }
}

#[tokio::test]
async fn mechanisms_and_providers_show_no_secret() {
    let seen = Seen::default();
    let _guard = seen.listen();
    let (_peer, connector) = peer(|mut wire| {
        login(&mut wire, b"TELLING");
        wire.send(0, &connection::Secure { challenge: b"who" });
        wire.expect("connection.SecureOk");
        wire.send(0, &connection::Secure { challenge: b"why" });
        wire.discard_to_end();
    });
    let connector = connector.credentials(Credentials::mechanism(Telling));
    fails(&seen, connector, "the authentication mechanism TELLING failed: out of words").await;

    let (_peer, connector) = peer(|mut wire| {
        login(&mut wire, b"PLAIN");
        refuse(&mut wire);
    });
    let providing = connector.credentials_provider(|| async { Ok::<_, io::Error>(canary()) });
    fails(&seen, providing, "login refused: 403").await;
    let failing = Connector::default()
        .credentials(canary())
        .credentials_provider(|| async { Err::<Credentials, _>("no token today") });
    fails(&seen, failing, "cannot fetch the credentials: no token today").await;
    seen.check();
}

#[tokio::test]
async fn passing_logins_show_no_secret() {
    let seen = Seen::default();
    let _guard = seen.listen();
    let (peer, connector) = peer(|mut wire| {
        wire.accept(connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
        let update = wire.expect("connection.UpdateSecret");
        assert!(String::from_utf8_lossy(&update.payload).contains(CANARY));
        wire.send(0, &connection::UpdateSecretOk::default());
        wire.expect("connection.Close");
        wire.send(0, &connection::CloseOk::default());
    });
    let (connecting, driver) = connector.driver().unwrap();
    seen.shown(&driver);
    tokio::spawn(driver);
    let connection = connecting.await.unwrap();
    seen.shown(&connection);
    let updating = connection.update_secret(CANARY, "renewed");
    seen.shown(&updating);
    updating.await.unwrap();
    connection.close().await;
    seen.shown(&connection);
    peer.join();
    assert!(seen.0.lock().unwrap().contains("connection.start-ok"), "frames are logged");
    seen.check();
}
