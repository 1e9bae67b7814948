//! Passwords of a configuration are in nothing that an application logs, shows or returns.

use std::error::Error as StdError;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amqp_app::prelude::*;
use amqp_testkit::ModelBroker;
use amqp_tokio::Connector;
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;

/// It has characters that a URI has to encode.
const CANARY: &str = "c4n/ry:P@ss w?rd";
const ENCODED: &str = "c4n%2Fry%3AP%40ss%20w%3Frd";

/// Everything that was logged, shown or returned.
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
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn shown(&self, value: &impl Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?} {value:#?}").unwrap();
    }

    fn error(&self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            writeln!(self.0.lock().unwrap(), "{error} {error:?}").unwrap();
            next = error.source();
        }
    }

    async fn until(&self, logged: &str) {
        while !self.text().contains(logged) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn configuration(port: u16) -> String {
    format!(
        "[connection]\nhostname = \"127.0.0.1\"\nport = {port}\nusername = \"app\"\npassword = \"{CANARY}\"\n\
         [pools.publish]\nurl = \"amqp://app:{ENCODED}@127.0.0.1:{port}\"\nsize = 1\n\
         [topology]\nqueues = [{{ name = \"orders\", type = \"classic\" }}]\n\
         [settings]\ntoken = \"{CANARY}\"\n"
    )
}

#[tokio::test]
async fn no_log_and_no_error_has_a_password_of_the_configuration() {
    let script = Box::pin(script());
    tokio::time::timeout(Duration::from_secs(60), script).await.expect("nothing within 60 s");
}

async fn script() {
    let seen = Seen::default();
    let writer = seen.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    subscriber.with_writer(move || writer.clone()).with_ansi(false).init();
    let broker = ModelBroker::start().unwrap();
    broker.add_user("app", CANARY);
    broker.set_permissions("app", ".*", ".*", ".*").unwrap();
    let file = configuration(broker.port());
    let config: Config = file.parse().unwrap();
    seen.shown(&config);

    // It starts, a handler fails, the connection is lost, and its password is refused when it is recovered.
    let (handled, mut messages) = mpsc::unbounded_channel();
    let handler = move |Text(text): Text, settings: Settings| {
        let token = settings.require("token").map(str::to_owned);
        handled.send(()).unwrap();
        async move {
            assert_eq!(token?, CANARY);
            if text == "bad" { Err(Failure::permanent("it is bad")) } else { Ok(()) }
        }
    };
    let app = || App::configured(&config, Connector::new).unwrap();
    let consuming = app().consume(Consume::new("orders"), handler);
    seen.shown(&consuming);
    let health = consuming.health();
    let (stopper, shutdown) = Shutdown::manual();
    let running = tokio::spawn(consuming.run(shutdown));
    let pools = Pools::from_config(&config, Connector::new).unwrap();
    let member = pools.get("publish").await.unwrap().connection().await.unwrap();
    while !health.is_ready() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for text in ["good", "bad"] {
        member.publish(&Message::new(text).to_queue("orders")).await.unwrap();
        messages.recv().await.unwrap();
    }
    seen.until("message not handled").await;
    seen.shown(&health.report());
    seen.shown(&(&pools, &member));
    pools.close().await;
    broker.add_user("app", "another one");
    broker.close_all("maintenance");
    seen.until("ACCESS_REFUSED").await;
    stopper.stop_now();
    if let Err(error) = running.await.unwrap() {
        seen.error(&error);
    }

    // It cannot start.
    let refused = app().consume("orders", async |_: Text| ()).run(Shutdown::never()).await;
    seen.error(&refused.unwrap_err());
    seen.error(&pools.get("publish").await.unwrap().connection().await.err().unwrap());
    let ended = app().consume("other", async |_: Text| ()).run(Shutdown::never()).await;
    seen.error(&ended.unwrap_err());

    // What is wrong in the file.
    for (right, wrong) in
        [("port = ", "port = -"), ("password = ", "pasword = "), ("username = \"app\"\n", "")]
    {
        seen.error(&file.replace(right, wrong).parse::<Config>().unwrap_err());
    }

    let text = seen.text();
    for logged in
        ["consumer started", "it is bad", "maintenance", "403", "did you mean", "basic.ack"]
    {
        assert!(text.contains(logged), "{logged:?} was not seen in\n{text}");
    }
    for secret in [CANARY, ENCODED, &ENCODED.to_lowercase()] {
        assert!(!text.contains(secret), "{secret:?} was seen in\n{text}");
    }
}
