//! Requests and replies over RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>): a server that squares numbers, on a thread of its
//! own, and a client that asks it.
//!
//! `cargo run --example blocking_rpc` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::thread;
use std::time::Duration;

use amqp_blocking::{BasicConsume, Channel, Consumer, Publish, QueueDeclare, connect};
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
        let request = Publish::to_queue(&queue, &id).reply_to(REPLY_TO);
        channel.basic_publish(request.correlation_id(id.as_str()))?;
        let reply = loop {
            let reply = replies.recv_timeout(Duration::from_secs(10))?.ok_or("no reply")?;
            // An answer that came after its request had timed out is skipped.
            if reply.properties()?.correlation_id.as_ref() == Some(&id) {
                break reply;
            }
        };
        // The body of an oversize reply is empty.
        if let Some(fault) = reply.fault() {
            return Err(fault.into());
        }
        sum += std::str::from_utf8(reply.body())?.parse::<u64>()?;
    }
    println!("100 requests answered; the squares add up to {sum}");

    // The server's consumer ends when it is cancelled.
    connection.drain(Duration::from_secs(10))?;
    server.join().map_err(|_| "the server panicked")??;
    connection.close();
    Ok(())
}

/// Answers each request. One that cannot be answered, because it is not a number or has no `reply_to`, is discarded, so that
/// it ends neither the server nor its queue.
fn serve(channel: &Channel, requests: Consumer) -> Result<(), Failure> {
    for request in requests {
        let request = request?;
        let text = std::str::from_utf8(request.body()).ok();
        let number = text.and_then(|text| text.parse::<u64>().ok());
        let square = number.map(|number| number.wrapping_mul(number).to_string());
        let Some(Ok(answer)) = square.map(|square| request.answer(square)) else {
            request.discard()?;
            continue;
        };
        channel.basic_publish(answer)?;
        request.ack()?;
    }
    Ok(())
}
