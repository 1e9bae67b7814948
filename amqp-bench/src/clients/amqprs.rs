//! The workloads on amqprs, as its examples use it: default callbacks on the connection, a consumer of
//! its trait, and a callback of ours where confirms are to be seen, which it tells of in no other way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use amqprs::callbacks::{ChannelCallback, DefaultChannelCallback, DefaultConnectionCallback};
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConfirmSelectArguments, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::consumer::AsyncConsumer;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Deliver, Nack, Return};
use tokio::sync::{Notify, oneshot};

use super::{Laps, check, idle_growth, on_each};
use crate::outcome::{Failure, Measured, Stopwatch, resident_kib};
use crate::socket::address;
use crate::tags::Tags;
use crate::workload::{CHANNELS_PER_CONNECTION, PAUSE, PAUSE_EVERY, QUEUE, SMALL, Task};

/// Does the task `count` times.
pub(crate) async fn run(uri: String, task: Task, count: u64) -> Result<Measured, Failure> {
    let uri = uri.as_str();
    match task {
        Task::Connect => return connects(uri, count).await,
        Task::Idle => return idle(uri, count).await,
        _ => {}
    }
    let connection = connect(uri).await?;
    // Whatever was to arrive has been counted by the peer; the connection ends with the process, because
    // closing it while it closes dropped channels by itself is refused.
    let measured = match task {
        Task::Publish { size, window: Some(window), .. } => {
            confirmed(&connection, count, size, window as u64).await
        }
        Task::Publish { size, window: None, channels } => {
            publish(&connection, count, size, channels).await
        }
        Task::PublishAndWait => publish_and_wait(&connection, count).await,
        Task::PublishInFlood => publish_in_flood(&connection, count).await,
        Task::Consume { size, prefetch, pauses } => {
            consume(&connection, count, size, prefetch, pauses).await
        }
        Task::RoundTrip => {
            let channel = open(&connection).await?;
            let qos = || BasicQosArguments::new(0, 1, false);
            let mut laps = Laps::start(count);
            for _ in 0..count {
                channel.basic_qos(qos()).await?;
                laps.lap();
            }
            Ok(laps.stop())
        }
        Task::Connect | Task::Idle | Task::Recover(_) | Task::Answer => {
            Err("is done elsewhere".into())
        }
    }?;
    Ok(measured)
}

async fn connect(uri: &str) -> Result<Connection, Failure> {
    let (host, port) = address(uri).split_once(':').ok_or("a URI without a port")?;
    let arguments = OpenConnectionArguments::new(host, port.parse()?, "guest", "guest");
    let connection = Connection::open(&arguments).await?;
    connection.register_callback(DefaultConnectionCallback).await?;
    Ok(connection)
}

async fn open(connection: &Connection) -> Result<Channel, Failure> {
    let channel = connection.open_channel(None).await?;
    channel.register_callback(DefaultChannelCallback).await?;
    Ok(channel)
}

async fn publish(
    connection: &Connection,
    count: u64,
    size: usize,
    channels: u16,
) -> Result<Measured, Failure> {
    let each = count / u64::from(channels);
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(open(connection).await?);
    }
    on_each::<amqp_tokio::runtime::Tokio, _, _>(opened, |channel| publish_all(channel, each, size))
        .await
}

/// Publishes without confirms, and waits until the peer counted all of it.
async fn publish_all(channel: Channel, count: u64, size: usize) -> Result<(), Failure> {
    let body = vec![b'x'; size];
    for _ in 0..count {
        send(&channel, &body).await?;
    }
    check("the peer counted", counted(&channel).await?, count)
}

/// It takes a body of its own for each publish.
async fn send(channel: &Channel, body: &[u8]) -> Result<(), Failure> {
    let arguments = BasicPublishArguments::new("", QUEUE);
    channel.basic_publish(BasicProperties::default(), body.to_vec(), arguments).await?;
    Ok(())
}

/// A passive declare: the messages that the peer counted.
async fn counted(channel: &Channel) -> Result<u64, Failure> {
    let arguments = QueueDeclareArguments::new(QUEUE).passive(true).finish();
    let (_, messages, _) = channel.queue_declare(arguments).await?.ok_or("no answer")?;
    Ok(messages.into())
}

/// The confirms of a channel.
#[derive(Clone, Default)]
struct Confirms(Arc<Confirmed>);

#[derive(Default)]
struct Confirmed {
    /// What was confirmed, or what went wrong.
    outcome: Mutex<(Tags, Option<String>)>,
    more: Notify,
}

impl Confirms {
    /// Waits until so many publishes are confirmed.
    async fn wait_for(&self, count: u64) -> Result<(), Failure> {
        loop {
            let more = self.0.more.notified();
            {
                let outcome = self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(error) = &outcome.1 {
                    return Err(error.as_str().into());
                }
                if outcome.0.count() >= count {
                    return Ok(());
                }
            }
            more.await;
        }
    }

    fn resolve(&self, resolve: impl FnOnce(&mut Tags) -> Result<(), String>) {
        let mut outcome = self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = resolve(&mut outcome.0) {
            outcome.1.get_or_insert(error);
        }
        drop(outcome);
        self.0.more.notify_one();
    }
}

async fn confirming(connection: &Connection) -> Result<(Channel, Confirms), Failure> {
    let channel = connection.open_channel(None).await?;
    let confirms = Confirms::default();
    channel.register_callback(confirms.clone()).await?;
    channel.confirm_select(ConfirmSelectArguments::default()).await?;
    Ok((channel, confirms))
}

async fn confirmed(
    connection: &Connection,
    count: u64,
    size: usize,
    window: u64,
) -> Result<Measured, Failure> {
    let (channel, confirms) = confirming(connection).await?;
    let body = vec![b'x'; size];
    let watch = Stopwatch::start();
    for sent in 0..count {
        confirms.wait_for((sent + 1).saturating_sub(window)).await?;
        send(&channel, &body).await?;
    }
    confirms.wait_for(count).await?;
    Ok(watch.stop())
}

async fn publish_and_wait(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let (channel, confirms) = confirming(connection).await?;
    let mut sent = 0;
    let mut laps = Laps::start(count);
    for _ in 0..count {
        sent += 1;
        send(&channel, &[b'x'; SMALL]).await?;
        confirms.wait_for(sent).await?;
        laps.lap();
    }
    Ok(laps.stop())
}

async fn publish_in_flood(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let channel = open(connection).await?;
    let (begun, first) = oneshot::channel();
    let counter = Counter::new(1, SMALL, false, false, begun);
    channel.basic_consume(counter, consuming(true)).await?;
    first.await??;
    publish_and_wait(connection, count).await
}

async fn consume(
    connection: &Connection,
    count: u64,
    size: usize,
    prefetch: Option<u16>,
    pauses: bool,
) -> Result<Measured, Failure> {
    let channel = open(connection).await?;
    if let Some(prefetch) = prefetch {
        channel.basic_qos(BasicQosArguments::new(0, prefetch, false)).await?;
    }
    let (done, all) = oneshot::channel();
    let counter = Counter::new(count, size, prefetch.is_some(), pauses, done);
    let watch = Stopwatch::start();
    channel.basic_consume(counter, consuming(prefetch.is_none())).await?;
    all.await??;
    if prefetch.is_some() {
        // Answered when the peer has all acknowledgements, which the peer itself counts.
        counted(&channel).await?;
    }
    Ok(watch.stop())
}

fn consuming(no_ack: bool) -> BasicConsumeArguments {
    BasicConsumeArguments::new(QUEUE, "bench").manual_ack(!no_ack).finish()
}

/// Counts deliveries, and tells when there were enough of them.
struct Counter {
    number: u64,
    count: u64,
    size: usize,
    acks: bool,
    pauses: bool,
    done: Option<oneshot::Sender<Result<(), Failure>>>,
}

impl Counter {
    const fn new(
        count: u64,
        size: usize,
        acks: bool,
        pauses: bool,
        done: oneshot::Sender<Result<(), Failure>>,
    ) -> Self {
        Self { number: 0, count, size, acks, pauses, done: Some(done) }
    }

    fn tell(&mut self, result: Result<(), Failure>) {
        if let Some(done) = self.done.take() {
            // Whoever awaited it has failed already.
            let _ = done.send(result);
        }
    }
}

#[async_trait::async_trait]
impl AsyncConsumer for Counter {
    async fn consume(
        &mut self,
        channel: &Channel,
        deliver: Deliver,
        _: BasicProperties,
        content: Vec<u8>,
    ) {
        self.number += 1;
        if let Err(failure) = check("a body's size", content.len() as u64, self.size as u64) {
            self.tell(Err(failure));
        }
        if self.acks {
            let ack = BasicAckArguments::new(deliver.delivery_tag(), false);
            if let Err(error) = channel.basic_ack(ack).await {
                self.tell(Err(error.into()));
            }
        }
        if self.pauses && self.number.is_multiple_of(PAUSE_EVERY) {
            tokio::time::sleep(PAUSE).await;
        }
        if self.number == self.count {
            self.tell(Ok(()));
        }
    }
}

#[async_trait::async_trait]
impl ChannelCallback for Confirms {
    async fn close(
        &mut self,
        _: &Channel,
        close: CloseChannel,
    ) -> Result<(), amqprs::error::Error> {
        self.resolve(|_| Err(close.to_string()));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, _: bool) -> Result<bool, amqprs::error::Error> {
        Ok(true)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.resolve(|tags| tags.ack(ack.delivery_tag(), ack.mutiple(), u64::MAX));
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.resolve(|_| Err(format!("refused: {}", nack.delivery_tag())));
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}

async fn connects(uri: &str, count: u64) -> Result<Measured, Failure> {
    let mut latencies = Vec::with_capacity(count as usize);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let begun = Instant::now();
        let connection = connect(uri).await?;
        let channel = connection.open_channel(None).await?;
        latencies.push(begun.elapsed());
        channel.close().await?;
        connection.close().await?;
    }
    Ok(watch.stop().with_latencies(latencies))
}

async fn idle(uri: &str, count: u64) -> Result<Measured, Failure> {
    let first = connect(uri).await?;
    let _warm = open(&first).await?;
    let watch = Stopwatch::start();
    let before = resident_kib()?;
    let mut connections = Vec::with_capacity(count as usize);
    for _ in 0..count {
        connections.push(connect(uri).await?);
    }
    let connected = resident_kib()?;
    let mut channels = Vec::new();
    for _ in 0..count * CHANNELS_PER_CONNECTION {
        channels.push(open(&first).await?);
    }
    let opened = resident_kib()?;
    Ok(idle_growth(&watch, count, [before, connected, opened]))
}
