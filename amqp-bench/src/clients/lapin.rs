//! The workloads on lapin, as its examples use it: `Connection::connect` with default properties on
//! tokio's multi-thread runtime.
//!
//! One future at a time is the plain loop of its examples: each `basic_publish` and each `ack` is
//! awaited, and of confirms a window is open. With more in flight, each task awaits so many futures of
//! publish and confirm, or of acknowledgement, together, which is the best that its API gives; that
//! number is then the window. What is not a matter of rates is the same with both.

use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use super::recovery::{EXCHANGE, Losses, PREFETCH, Restored};
use super::{Laps, check, idle_growth, on_each};
use crate::outcome::{Failure, Measured, Stopwatch, resident_kib};
use crate::socket::split_authority;
use crate::workload::{CHANNELS_PER_CONNECTION, PAUSE, PAUSE_EVERY, QUEUE, SMALL, Task};

/// Between two looks at what is restored.
const POLL: Duration = Duration::from_millis(5);

/// Does the task `count` times with so many futures in flight.
pub(crate) async fn run(
    uri: String,
    task: Task,
    count: u64,
    in_flight: usize,
) -> Result<Measured, Failure> {
    let uri = uri.as_str();
    match task {
        Task::Connect => return connects(uri, count).await,
        Task::Idle => return idle(uri, count).await,
        Task::Recover(restored) => return recover(uri, restored, count).await,
        _ => {}
    }
    let connection = connect(uri).await?;
    // Whatever was to arrive has been counted by the peer; the connection ends with the process, because
    // closing it while it closes dropped channels by itself is refused.
    let measured = match task {
        Task::Publish { size, window: Some(window), .. } => {
            confirmed(&connection, count, size, window, in_flight).await
        }
        Task::Publish { size, window: None, channels } => {
            publish(&connection, count, size, channels, in_flight).await
        }
        Task::PublishAndWait => publish_and_wait(&connection, count).await,
        Task::PublishInFlood => publish_in_flood(&connection, count).await,
        Task::Consume { size, prefetch, pauses } => {
            consume(&connection, (count, size), prefetch, pauses, in_flight).await
        }
        Task::RoundTrip => {
            let channel = connection.create_channel().await?;
            let mut laps = Laps::start(count);
            for _ in 0..count {
                channel.basic_qos(1, BasicQosOptions::default()).await?;
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
    connect_with(uri, ConnectionProperties::default()).await
}

async fn connect_with(uri: &str, options: ConnectionProperties) -> Result<Connection, Failure> {
    let (uri, authority) = split_authority(uri);
    let cert_chain = authority.map(std::fs::read_to_string).transpose()?;
    let runtime = lapin::runtime::default_runtime()?;
    let config = OwnedTLSConfig { identity: None, cert_chain };
    Ok(Connection::connect_with_config(uri, options, config, runtime).await?)
}

async fn publish(
    connection: &Connection,
    count: u64,
    size: usize,
    channels: u16,
    in_flight: usize,
) -> Result<Measured, Failure> {
    let each = count / u64::from(channels);
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.create_channel().await?);
    }
    on_each::<amqp_tokio::runtime::Tokio, _, _>(opened, |channel| {
        publish_all(channel, each, size, in_flight)
    })
    .await
}

/// Publishes without confirms, and waits until the peer counted all of it.
async fn publish_all(
    channel: Channel,
    count: u64,
    size: usize,
    in_flight: usize,
) -> Result<(), Failure> {
    let body = vec![b'x'; size];
    spread(count, in_flight, || send_unconfirmed(&channel, &body)).await?;
    check("the peer counted", counted(&channel).await?, count)
}

async fn send(channel: &Channel, body: &[u8]) -> lapin::Result<lapin::PublisherConfirm> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), QUEUE.into(), options, body, properties).await
}

async fn send_unconfirmed(channel: &Channel, body: &[u8]) -> Result<(), Failure> {
    // Without confirms there is nothing to wait for behind the second future.
    send(channel, body).await?.await?;
    Ok(())
}

async fn send_confirmed(channel: &Channel, body: &[u8]) -> Result<(), Failure> {
    is_confirmed(send(channel, body).await?.await?.is_ack())
}

fn is_confirmed(ack: bool) -> Result<(), Failure> {
    if ack { Ok(()) } else { Err("a publish was not confirmed".into()) }
}

/// A passive declare: the messages that the peer counted.
async fn counted(channel: &Channel) -> Result<u64, Failure> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    Ok(queue.message_count().into())
}

async fn confirming(connection: &Connection) -> Result<Channel, Failure> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn confirmed(
    connection: &Connection,
    count: u64,
    size: usize,
    window: usize,
    in_flight: usize,
) -> Result<Measured, Failure> {
    let channel = confirming(connection).await?;
    let body = vec![b'x'; size];
    let watch = Stopwatch::start();
    if in_flight > 1 {
        spread(count, in_flight, || send_confirmed(&channel, &body)).await?;
        return Ok(watch.stop());
    }
    let mut open = VecDeque::with_capacity(window);
    for _ in 0..count {
        if open.len() == window
            && let Some(oldest) = open.pop_front()
        {
            let oldest: lapin::PublisherConfirm = oldest;
            is_confirmed(oldest.await?.is_ack())?;
        }
        open.push_back(send(&channel, &body).await?);
    }
    for confirm in open {
        is_confirmed(confirm.await?.is_ack())?;
    }
    Ok(watch.stop())
}

async fn publish_and_wait(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let channel = confirming(connection).await?;
    let mut laps = Laps::start(count);
    for _ in 0..count {
        send_confirmed(&channel, &[b'x'; SMALL]).await?;
        laps.lap();
    }
    Ok(laps.stop())
}

async fn publish_in_flood(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let channel = connection.create_channel().await?;
    let mut consumer = consumer(&channel, true).await?;
    next(&mut consumer, SMALL).await?;
    let flooded = tokio::spawn(async move {
        // It has no end of its own: the task is stopped.
        loop {
            if let Err(failure) = next(&mut consumer, SMALL).await {
                return failure;
            }
        }
    });
    let measured = publish_and_wait(connection, count).await?;
    if flooded.is_finished() {
        return Err(flooded.await?);
    }
    flooded.abort();
    Ok(measured)
}

async fn consume(
    connection: &Connection,
    (count, size): (u64, usize),
    prefetch: Option<u16>,
    pauses: bool,
    in_flight: usize,
) -> Result<Measured, Failure> {
    let channel = connection.create_channel().await?;
    if let Some(prefetch) = prefetch {
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    }
    let watch = Stopwatch::start();
    let mut consumer = consumer(&channel, prefetch.is_none()).await?;
    let mut acks = FuturesUnordered::new();
    for number in 1..=count {
        let delivery = next(&mut consumer, size).await?;
        if prefetch.is_some() {
            acks.push(ack(delivery));
            if acks.len() == in_flight
                && let Some(acked) = acks.next().await
            {
                acked?;
            }
        }
        if pauses && number % PAUSE_EVERY == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    while let Some(acked) = acks.next().await {
        acked?;
    }
    if prefetch.is_some() {
        // Answered when the peer has all acknowledgements, which the peer itself counts.
        counted(&channel).await?;
    }
    Ok(watch.stop())
}

async fn consumer(channel: &Channel, no_ack: bool) -> Result<Consumer, Failure> {
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    let (queue, tag) = (QUEUE.into(), "bench".into());
    Ok(channel.basic_consume(queue, tag, options, FieldTable::default()).await?)
}

async fn next(consumer: &mut Consumer, size: usize) -> Result<Delivery, Failure> {
    let delivery = consumer.next().await.ok_or("the consumer ended early")??;
    check("a body's size", delivery.data.len() as u64, size as u64)?;
    Ok(delivery)
}

async fn ack(delivery: Delivery) -> Result<(), Failure> {
    if delivery.ack(BasicAckOptions::default()).await? {
        Ok(())
    } else {
        Err("a delivery was not acknowledged".into())
    }
}

async fn connects(uri: &str, count: u64) -> Result<Measured, Failure> {
    let mut latencies = Vec::with_capacity(count as usize);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let begun = Instant::now();
        let connection = connect(uri).await?;
        let channel = connection.create_channel().await?;
        latencies.push(begun.elapsed());
        // A connection that is closed while a dropped channel still closes is an error to it.
        channel.close(200, "".into()).await?;
        connection.close(200, "".into()).await?;
    }
    Ok(watch.stop().with_latencies(latencies))
}

async fn idle(uri: &str, count: u64) -> Result<Measured, Failure> {
    let first = connect(uri).await?;
    let _warm = first.create_channel().await?;
    let watch = Stopwatch::start();
    let before = resident_kib()?;
    let mut connections = Vec::with_capacity(count as usize);
    for _ in 0..count {
        connections.push(connect(uri).await?);
    }
    let connected = resident_kib()?;
    let mut channels = Vec::new();
    for _ in 0..count * CHANNELS_PER_CONNECTION {
        channels.push(first.create_channel().await?);
    }
    let opened = resident_kib()?;
    Ok(idle_growth(&watch, count, [before, connected, opened]))
}

/// With its automatic recovery. It reports when a channel is open again, and not when what the channel has declared is
/// restored. So the time is that of the broker's answer to the last consumer.
async fn recover(uri: &str, restored: Restored, count: u64) -> Result<Measured, Failure> {
    let mut losses = Losses::before(uri, restored)?;
    let options = ConnectionProperties::default().enable_auto_recover();
    let connection = connect_with(&losses.uri(), options).await?;
    let mut consumers = Vec::new();
    for queues in restored.shared() {
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        for queue in &queues {
            let (name, none) = (queue.as_str(), FieldTable::default());
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.into(), options, none.clone()).await?;
            let options = QueueBindOptions::default();
            channel.queue_bind(name.into(), EXCHANGE.into(), name.into(), options, none).await?;
        }
        let (queue, options) = (queues[0].as_str(), BasicConsumeOptions::default());
        let consumer =
            channel.basic_consume(queue.into(), queue.into(), options, FieldTable::default());
        let consumer = consumer.await?;
        consumers.push((channel, consumer));
    }
    for _ in 0..count {
        losses.lose();
        let started = loop {
            match losses.consumers_started() {
                Some(started) => break started,
                None => tokio::time::sleep(POLL).await,
            }
        };
        losses.restored(started)?;
    }
    Ok(losses.stop())
}

/// Does something `count` times with so many at once.
async fn spread<F: Future<Output = Result<(), Failure>>>(
    count: u64,
    in_flight: usize,
    work: impl Fn() -> F,
) -> Result<(), Failure> {
    let mut running = FuturesUnordered::new();
    for _ in 0..count {
        running.push(work());
        if running.len() == in_flight
            && let Some(done) = running.next().await
        {
            done?;
        }
    }
    while let Some(done) = running.next().await {
        done?;
    }
    Ok(())
}
