//! Requests and replies over RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>): a server that squares numbers, and a client that
//! asks it for many at once.
//!
//! `cargo run --example rpc` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    BasicConsume, Channel, Connection, Consumer, Fault, Publish, QueueDeclare, connect,
};
use tokio::sync::oneshot;

const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const REQUESTS: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let serving = connection.open_channel().await?;
    let queue = serving.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    let requests = serving.basic_consume(BasicConsume::new(&queue).prefetch(10)).await?;
    let server = tokio::spawn(serve(serving, requests));

    let client = RpcClient::new(&connection, queue).await?;
    let mut calls = Vec::new();
    for number in 0..REQUESTS {
        let client = client.clone();
        calls.push(tokio::spawn(async move { client.call(&number.to_string()).await }));
    }
    let mut sum = 0;
    for call in calls {
        let reply = call.await?.map_err(|error| error.to_string())?;
        sum += std::str::from_utf8(&reply)?.parse::<u64>()?;
    }
    println!("{REQUESTS} requests answered; the squares add up to {sum}");

    // The server refuses what is not a number. A call that is dropped leaves nothing behind.
    let unanswered = tokio::time::timeout(Duration::from_millis(10), client.call("seven")).await;
    if unanswered.is_ok() {
        return Err("the server should not have answered".into());
    }
    println!("{} calls are waiting", client.waiting());

    // The server's stream ends when its consumer is cancelled, with its last replies on their way.
    connection.drain(Duration::from_secs(10)).await?;
    server.await?.map_err(|error| error.to_string())?;
    connection.close().await;
    Ok(())
}

type Failure = Box<dyn Error + Send + Sync>;

/// Answers each request. One that cannot be answered, because it is not a number or has no `reply_to`, is discarded, so that
/// it ends neither the server nor its queue.
async fn serve(channel: Channel, mut requests: Consumer) -> Result<(), Failure> {
    while let Some(request) = requests.next().await {
        let request = request?;
        let text = std::str::from_utf8(request.body()).ok();
        let number = text.and_then(|text| text.parse::<u64>().ok());
        let square = number.map(|number| number.wrapping_mul(number).to_string());
        let Some(Ok(answer)) = square.map(|square| request.answer(square)) else {
            request.discard()?;
            continue;
        };
        channel.basic_publish(answer).await?;
        request.ack()?;
    }
    Ok(())
}

/// Asks, and gives each caller its own reply.
#[derive(Clone)]
struct RpcClient {
    channel: Channel,
    queue: Arc<str>,
    pending: Arc<Mutex<Pending>>,
}

type Reply = Result<Vec<u8>, Fault>;

#[derive(Default)]
struct Pending {
    next: u64,
    callers: HashMap<String, oneshot::Sender<Reply>>,
    /// Replies come no more.
    ended: bool,
}

/// A caller's place among those who wait. It is left when the call ends, in whatever way: a request that
/// timed out, failed or was dropped leaves no entry behind.
struct Place<'a> {
    pending: &'a Mutex<Pending>,
    id: String,
}

impl<'a> Place<'a> {
    fn take(pending: &'a Mutex<Pending>) -> Result<(Self, oneshot::Receiver<Reply>), Failure> {
        let (reply, replied) = oneshot::channel();
        let mut waiting = lock(pending);
        if waiting.ended {
            return Err("replies come no more".into());
        }
        waiting.next += 1;
        let id = waiting.next.to_string();
        waiting.callers.insert(id.clone(), reply);
        Ok((Self { pending, id }, replied))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.pending).callers.remove(&self.id);
    }
}

/// No code panics while it holds the lock.
fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RpcClient {
    /// Consumes replies and publishes requests on one channel: RabbitMQ sends a reply to the channel
    /// that asked.
    async fn new(connection: &Connection, queue: String) -> Result<Self, amqp_tokio::Error> {
        let channel = connection.open_channel().await?;
        let mut replies = channel.basic_consume(BasicConsume::new(REPLY_TO).no_ack()).await?;
        let pending = Arc::new(Mutex::new(Pending::default()));
        let client = Self { channel, queue: queue.into(), pending: Arc::clone(&pending) };
        tokio::spawn(async move {
            while let Some(Ok(reply)) = replies.next().await {
                let id = reply.properties().ok().and_then(|properties| properties.correlation_id);
                let caller = id.and_then(|id| lock(&pending).callers.remove(&id));
                if let Some(caller) = caller {
                    // The body of an oversize reply is empty.
                    let body = reply.fault().map_or_else(|| Ok(reply.body().to_vec()), Err);
                    // The caller may have stopped waiting.
                    let _ = caller.send(body);
                }
            }
            // Calls that still wait end with an error.
            let mut waiting = lock(&pending);
            waiting.ended = true;
            waiting.callers.clear();
        });
        Ok(client)
    }

    async fn call(&self, body: &str) -> Result<Vec<u8>, Failure> {
        let (place, replied) = Place::take(&self.pending)?;
        let request = Publish::to_queue(&self.queue, body).reply_to(REPLY_TO);
        self.channel.basic_publish(request.correlation_id(place.id.as_str())).await?;
        Ok(tokio::time::timeout(Duration::from_secs(10), replied).await???)
    }

    /// How many calls wait for their reply.
    fn waiting(&self) -> usize {
        lock(&self.pending).callers.len()
    }
}
