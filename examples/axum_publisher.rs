//! A web service that answers only when the broker has taken the message.
//!
//! `cargo run --example axum_publisher` runs on an embedded broker, or on the one that `AMQP_URL` names. Then:
//! `curl -i -d '{"item": 1}' http://127.0.0.1:PORT/orders`, with the port that it prints.

use std::future::poll_fn;
use std::task::Poll;

use amqp_testkit::EnvBroker;
use amqp_tokio::{Publish, Publisher, QueueDeclare, connect};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;

const QUEUE: &str = "example-web-orders";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::new(QUEUE)).await?;
    // One publisher for all requests: it is a handle that can be cloned, and each publish is confirmed by itself.
    let publisher = connection.open_channel().await?.confirm_select().await?;

    let service = Router::new().route("/orders", post(order)).with_state(publisher);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut stop = Box::pin(async { tokio::signal::ctrl_c().await.unwrap_or(()) });
    // The first poll installs the signal handler.
    if poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await {
        return Err("interrupted".into());
    }
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;

    // Every request is answered: nothing is on its way.
    let taken = channel.queue_declare(QueueDeclare::passive(QUEUE)).await?.message_count;
    println!("{taken} orders taken");
    connection.close().await;
    Ok(())
}

async fn order(State(publisher): State<Publisher>, body: Bytes) -> (StatusCode, String) {
    let publish = Publish::to_queue(QUEUE, body).content_type("application/json");
    match publisher.publish(publish.persistent().mandatory()).await {
        Ok(()) => (StatusCode::ACCEPTED, "taken\n".into()),
        Err(error) if error.is_retryable() => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("try again: {error}\n"))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
