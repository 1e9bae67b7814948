//! What applications on nucleon.amqp do, in one program: pools by name, topology at the start, publishing with a confirm and
//! with a callback, taking one message, a listener, a daemon of listeners, and the tear-down.
//!
//! `cargo run -p amqp-app --features config --example nucleon` runs it on the broker that `AMQP_URL` names, or on a model broker.

use std::future;

use amqp_app::config::{ConfigOptions, Format};
use amqp_app::prelude::*;
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;
use tokio::sync::mpsc;

const ROOM: &str = "unit_test_room";
const LISTENERS: [(&str, &str); 2] = [("listener1", "user1"), ("listener2", "user2")];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    // Each pool has a kind and a number of connections, which all tasks share. A program in production loads a file, with
    // the variables of the process: `Config::load("app.toml")`.
    let url = [("AMQP_APP__CONNECTION__URL", broker.uri.as_str())];
    let config = ConfigOptions::new().variables(url);
    let config = config.parse(Format::Toml, include_str!("nucleon.toml"))?;
    let pools = Pools::from_config(&config, Connector::new)?;

    // The topology, by any connection.
    let publish = pools.get("publish").await?;
    let connection = publish.connection().await?;
    let channel = connection.open_channel().await?;
    channel.exchange_declare(ExchangeDeclare::direct(ROOM)).await?;
    for (queue, key) in LISTENERS {
        channel.queue_declare(QueueDeclare::classic(queue)).await?;
        channel.queue_bind(QueueBind::new(queue, ROOM, key)).await?;
    }

    // Publish: wait until the broker has the message, or be called with the outcome.
    connection.publish(&Message::new("WithHello1").to(ROOM, "user1")).await?;
    for text in ["WithHello2", "WithHello3"] {
        let message = Message::new(text).to(ROOM, "user1");
        connection.publish_with(&message, move |sent| println!("{text} sent: {sent:?}")).await;
    }
    connection.flush().await;

    // Consume one message.
    let listen = pools.get("listen").await?;
    let connection = listen.connection().await?;
    let first = connection.consume_one("listener1", Duration::from_secs(5)).await?;
    let first = first.ok_or("no message within 5 s")?;
    println!("taken: {}", String::from_utf8_lossy(first.body()));
    first.ack()?;

    // Or each as it comes. A handler that takes the delivery acknowledges it.
    let consume = Consume::new("listener1").on_failure(Retry::none().then_dead_letter());
    let (done, mut handled) = mpsc::unbounded_channel();
    let handler = move |delivery: Delivery| {
        println!("received: {}", String::from_utf8_lossy(delivery.body()));
        let done = done.clone();
        async move {
            delivery.ack()?;
            done.send(())?;
            Ok::<_, Failure>(())
        }
    };
    let listening = connection.consume_with(consume, handler).await?;
    for _ in 0..2 {
        handled.recv().await;
    }
    listening.cancel().await?;

    // A daemon: three listeners share the messages of each queue, until a shutdown.
    let (stopper, shutdown) = Shutdown::manual();
    let mut app = App::on(listen.clone())
        .on_started(async |_| {
            println!("listening");
            Ok::<_, Error>(())
        })
        .on_stopping(async |_| {
            println!("stopping");
            Ok::<_, Error>(())
        });
    let (done, mut handled) = mpsc::unbounded_channel();
    for (queue, _) in LISTENERS {
        let consume = Consume::new(queue).concurrency(3);
        let consume = consume.on_failure(Retry::none().then_dead_letter());
        let done = done.clone();
        app = app.consume(consume, move |_: Text| future::ready(done.send(())));
    }
    let daemon = tokio::spawn(app.run(shutdown));
    let connection = publish.connection().await?;
    for number in 0..10 {
        let key = LISTENERS[number % 2].1;
        connection.publish(&Message::new(number.to_string()).to(ROOM, key)).await?;
    }
    for _ in 0..10 {
        handled.recv().await;
    }
    stopper.stop();
    println!("{} handled", daemon.await??.handled);

    for (queue, _) in LISTENERS {
        channel.queue_delete(QueueDelete::new(queue)).await?;
    }
    channel.exchange_delete(ExchangeDelete::new(ROOM)).await?;
    pools.close().await;
    Ok(())
}
