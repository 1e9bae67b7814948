//! What programs on gocept.amqprun do: a handler that is bound to a routing key of `amq.topic`, whose answers and
//! acknowledgement are one transaction, ten workers on threads, and the original's configuration file.
//!
//! `cargo run -p amqp-app --features compat,threads,tracing --example amqprun` runs it on the broker that `AMQP_URL` names, or
//! on a model broker, until a signal. With the argument `demo` it sends itself some messages, and stops. Without the feature
//! `tracing` it logs nothing.

use std::error::Error;
use std::{io, thread};

use amqp_app::config::{ConfigOptions, Format, Settings};
use amqp_app::prelude::*;
use amqp_blocking::{BasicConsume, Connection, Connector};
use amqp_testkit::EnvBroker;
use tracing_subscriber::filter::LevelFilter;

#[allow(clippy::needless_pass_by_value, reason = "handlers take their arguments by value")]
fn log_message_body(Text(body): Text, settings: Settings) -> Result<Vec<Message>, Failure> {
    println!("{body}");
    let thanks = Message::new(settings.require("greeting")?.to_owned()).content_type("text/plain");
    Ok(vec![thanks.to("amq.topic", "test.thank.messages")])
}

fn main() -> Result<Report, Box<dyn Error>> {
    let broker = EnvBroker::start()?;
    // A program in production loads its file: `Config::load("queue.conf")`.
    let url = [("AMQP_APP__CONNECTION__URL", broker.uri.as_str())];
    let options = ConfigOptions::new().variables(url);
    let config = options.parse(Format::ZConfig, include_str!("amqprun.conf"))?;
    let level = config.log_level().map_or(Ok(LevelFilter::WARN), |level| level.as_str().parse())?;
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    let (stopper, manual) = Shutdown::manual();
    let demo_asked = std::env::args().nth(1).as_deref() == Some("demo");
    let shutdown = if demo_asked { manual } else { Shutdown::on_signals() };
    let demonstration = demo_asked.then(|| {
        let connecting = config.connector(Connector::new).map(|connector| connector.connect());
        thread::spawn(move || {
            let result = connecting.map_err(Into::into).and_then(|it| demo(&it?));
            result.unwrap_or_else(|error: Box<dyn Error>| eprintln!("demo: {error}"));
            stopper.stop();
        })
    });
    // Ten threads, as the file says. A message that fails is held, and comes again on the next channel.
    let consume = Consume::topic("test.queue", ["test.routing"])
        .transactional()
        .on_failure(Retry::none().then_hold());
    let report = App::configured(&config, Connector::new)?
        .consume(consume, log_message_body)
        .run(shutdown)?;
    println!("{} handled", report.handled);
    if let Some(demonstration) = demonstration {
        let _ = demonstration.join();
    }
    Ok(report)
}

/// Sends three messages, and waits until each is answered.
fn demo(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let channel = connection.open_channel()?;
    let thanks = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    channel.queue_bind(QueueBind::new(&thanks, "amq.topic", "test.thank.messages"))?;
    let publisher = connection.publisher()?;
    for text in ["first", "second", "third"] {
        let message = Message::new(text).to("amq.topic", "test.routing");
        // Until the application has bound its queue.
        while publisher.publish(&message).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }
    for delivery in connection.consume(BasicConsume::new(&thanks))?.take(3) {
        let delivery = delivery?;
        println!("{}", String::from_utf8_lossy(delivery.body()));
        delivery.ack()?;
    }
    Ok(())
}
