//! Callbacks for a connection that is lost, and for one that has closed.
//!
//! `cargo run --example on_close` runs on an embedded broker, or on the local one that `AMQP_URL` names. A proxy before the
//! broker cuts the connection once. It is recovered, and then closed.

use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{AmqpUri, Backoff, CloseCause, ConnectionEvent, Connector, Endpoint, Recovery};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let (closes, mut closed) = mpsc::unbounded_channel();
    let connection = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(Recovery::automatic().backoff(Backoff::fixed(Duration::from_millis(100))))
        .on_error(|_, cause| {
            println!("lost");
            eprintln!("{cause}");
        })
        .on_close(move |_, cause| {
            // The receiver is dropped if `main` has failed.
            let _ = closes.send(cause.clone());
        })
        .connect()
        .await?;
    let mut events = connection.events();
    proxy.inject(Direction::ToClient, Fault::Cut);
    while !matches!(events.next().await, Some(ConnectionEvent::Recovered { .. }) | None) {}
    println!("recovered");
    connection.close().await;
    let cause: Option<CloseCause> = closed.recv().await;
    println!("closed: {}", cause.ok_or("the callback was not called")?);
    Ok(())
}
