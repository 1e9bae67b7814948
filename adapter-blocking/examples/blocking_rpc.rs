//! Requests and replies over RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>): a server that squares numbers, on a thread of its
//! own, and a client that asks it.
//!
//! `cargo run --example blocking_rpc` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::thread;
use std::time::Duration;

use amqp_blocking::{BasicConsume, Channel, Consumer, Properties, Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let serving = connection.open_channel()?;
    let queue = serving.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    let requests = serving.basic_consume(BasicConsume::new(&queue).prefetch(1))?;
    let server = thread::spawn(move || serve(&serving, requests));

    // Replies come to the channel that asked.
    let channel = connection.open_channel()?;
    let mut replies = channel.basic_consume(BasicConsume::new(REPLY_TO).no_ack())?;
    let mut sum = 0;
    for number in 0..100_u64 {
        let id = number.to_string();
        let properties = Properties::new().reply_to(REPLY_TO).correlation_id(id.as_str());
        channel.basic_publish(Publish::new("", &queue, &id).properties(&properties))?;
        let reply = loop {
            let reply = replies.recv_timeout(Duration::from_secs(10))?.ok_or("no reply")?;
            // An answer that came after its request had timed out is skipped.
            if reply.properties()?.correlation_id.as_ref() == Some(&id) {
                break reply;
            }
        };
        sum += std::str::from_utf8(reply.body())?.parse::<u64>()?;
    }
    println!("100 requests answered; the squares add up to {sum}");

    // The server's consumer ends when it is cancelled.
    connection.drain(Duration::from_secs(10))?;
    server.join().map_err(|_| "the server panicked")??;
    connection.close();
    Ok(())
}

/// Answers each request to where it asks to be answered. One that is not a number is refused, so that it
/// ends neither the server nor its queue.
fn serve(channel: &Channel, requests: Consumer) -> Result<(), Failure> {
    for request in requests {
        let request = request?;
        let asked = request.properties()?;
        let text = std::str::from_utf8(request.body()).ok();
        let Some(number) = text.and_then(|text| text.parse::<u64>().ok()) else {
            request.reject(false)?;
            continue;
        };
        if let (Some(address), Some(id)) = (asked.reply_to, asked.correlation_id) {
            let properties = Properties::new().correlation_id(id);
            let answer = number.wrapping_mul(number).to_string();
            channel.basic_publish(Publish::new("", &address, answer).properties(&properties))?;
        }
        request.ack()?;
    }
    Ok(())
}
