//! The smallest application: prints the texts of a queue. `cargo run -p amqp-app --example smallest` runs it on the broker that
//! `AMQP_URL` names, or on a model broker, until a signal. With the argument `demo` it sends itself two texts, and stops.

use amqp_app::prelude::*;
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;

#[tokio::main]
async fn main() -> Result<Report, Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let shutdown = demo(&broker.uri).await?;
    let app = App::new(Connector::new(&broker.uri)?).consume(
        QueueDeclare::classic("example-texts"),
        async |Text(text): Text| {
            println!("{text}");
        },
    );
    Ok(app.run(shutdown).await?)
}

/// Returns the shutdown: for a demonstration, when two texts are handled.
async fn demo(uri: &str) -> Result<Shutdown, Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() != Some("demo") {
        return Ok(Shutdown::on_signals());
    }
    let connection = amqp_tokio::connect(uri).await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::classic("example-texts")).await?;
    let publisher = connection.publisher().await?;
    for text in ["one", "two"] {
        publisher.publish(&Message::new(text).to_queue("example-texts")).await?;
    }
    Ok(Shutdown::when(async move {
        let ready = async || {
            let passive = QueueDeclare::passive("example-texts");
            channel.queue_declare(passive).await.map(|declared| declared.message_count)
        };
        // What is in work then is finished.
        while ready().await.is_ok_and(|messages| messages > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }))
}
