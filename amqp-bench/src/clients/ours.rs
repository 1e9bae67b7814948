//! The workloads on this workspace's asynchronous adapters.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Instant;

use amqp_async::{Connector, Runtime, Timer};
use amqp_tokio::{
    Backoff, BasicConsume, BasicQos, Body, Channel, Confirm, ConnectError, Connection,
    ConnectionEvent, Publish, QueueBind, QueueDeclare, Recovery,
};
use bytes::Bytes;

use super::recovery::{DIAL_AFTER, EXCHANGE, Losses, Restored};
use super::{Laps, check, idle_growth, on_each, spawn};
use crate::outcome::{Failure, Measured, Stopwatch, resident_kib};
use crate::workload::{CHANNELS_PER_CONNECTION, PAUSE, PAUSE_EVERY, QUEUE, SMALL, Task};

/// Where a body is better shared than copied.
const SHARED_FROM: usize = 4 << 10;

pub(super) const ENDED: &str = "the consumer ended early";

/// Does the task `count` times.
pub(crate) async fn run<R: Runtime + Default>(
    uri: String,
    task: Task,
    count: u64,
) -> Result<Measured, Failure> {
    let uri = uri.as_str();
    match task {
        Task::Connect => return connects::<R>(uri, count).await,
        Task::Idle => return idle::<R>(uri, count).await,
        Task::Recover(restored) => return recover::<R>(uri, restored, count).await,
        _ => {}
    }
    let connection = connect::<R>(uri).await?;
    let result = match task {
        Task::Publish { size, window: Some(window), .. } => {
            confirmed(&connection, count, size, window).await
        }
        Task::Publish { size, window: None, channels } => {
            publish::<R>(&connection, count, size, channels).await
        }
        Task::PublishAndWait => publish_and_wait(&connection, count).await,
        Task::PublishInFlood => publish_in_flood::<R>(&connection, count).await,
        Task::Consume { size, prefetch, pauses } => {
            consume::<R>(&connection, count, size, prefetch, pauses).await
        }
        Task::RoundTrip => {
            let channel = connection.open_channel().await?;
            let mut laps = Laps::start(count);
            for _ in 0..count {
                channel.basic_qos(BasicQos::new(1)).await?;
                laps.lap();
            }
            Ok(laps.stop())
        }
        Task::Connect | Task::Idle | Task::Recover(_) | Task::Answer => {
            Err("is done elsewhere".into())
        }
    };
    connection.close().await;
    result
}

async fn connect<R: Runtime + Default>(uri: &str) -> Result<Connection, ConnectError> {
    Connector::<R>::new(uri)?.connect().await
}

async fn publish<R: Runtime + Default>(
    connection: &Connection,
    count: u64,
    size: usize,
    channels: u16,
) -> Result<Measured, Failure> {
    let each = count / u64::from(channels);
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel().await?);
    }
    on_each::<R, _, _>(opened, |channel| publish_all(channel, each, size)).await
}

/// Publishes without confirms, and waits until the peer counted all of it.
async fn publish_all(channel: Channel, count: u64, size: usize) -> Result<(), Failure> {
    let body = Bytes::from(vec![b'x'; size]);
    for _ in 0..count {
        channel.basic_publish(message(&body)).await?;
    }
    let passive = channel.queue_declare(QueueDeclare::passive(QUEUE)).await?;
    check("the peer counted", passive.message_count.into(), count)
}

/// A message of the workloads.
pub(super) fn message(body: &Bytes) -> Publish<'_> {
    let large = body.len() >= SHARED_FROM;
    let body = if large { Body::Shared(body.clone()) } else { Body::Borrowed(body) };
    Publish::new("", QUEUE, body)
}

async fn confirmed(
    connection: &Connection,
    count: u64,
    size: usize,
    window: usize,
) -> Result<Measured, Failure> {
    let publisher = connection.open_channel().await?.confirm_select().await?;
    let body = Bytes::from(vec![b'x'; size]);
    let mut open: VecDeque<Confirm> = VecDeque::with_capacity(window);
    let watch = Stopwatch::start();
    for _ in 0..count {
        if open.len() == window
            && let Some(oldest) = open.pop_front()
        {
            oldest.await?;
        }
        open.push_back(publisher.send(message(&body)).await?);
    }
    for confirm in open {
        confirm.await?;
    }
    Ok(watch.stop())
}

async fn publish_and_wait(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let publisher = connection.open_channel().await?.confirm_select().await?;
    let body = Bytes::from(vec![b'x'; SMALL]);
    let mut laps = Laps::start(count);
    for _ in 0..count {
        publisher.publish(message(&body)).await?;
        laps.lap();
    }
    Ok(laps.stop())
}

async fn publish_in_flood<R: Runtime + Default>(
    connection: &Connection,
    count: u64,
) -> Result<Measured, Failure> {
    let channel = connection.open_channel().await?;
    let mut consumer = channel.basic_consume(BasicConsume::new(QUEUE).no_ack()).await?;
    consumer.next().await.ok_or(ENDED)??;
    // It ends with the connection.
    let mut flooded =
        spawn::<R, _>(async move { while let Some(Ok(_)) = consumer.next().await {} });
    let measured = publish_and_wait(connection, count).await?;
    if flooded.try_recv().is_ok() {
        return Err(ENDED.into());
    }
    Ok(measured)
}

async fn consume<R: Runtime + Default>(
    connection: &Connection,
    count: u64,
    size: usize,
    prefetch: Option<u16>,
    pauses: bool,
) -> Result<Measured, Failure> {
    let channel = connection.open_channel().await?;
    let consume = match prefetch {
        Some(prefetch) => BasicConsume::new(QUEUE).prefetch(prefetch),
        None => BasicConsume::new(QUEUE).no_ack(),
    };
    let watch = Stopwatch::start();
    let mut consumer = channel.basic_consume(consume).await?;
    for number in 1..=count {
        let delivery = consumer.next().await.ok_or(ENDED)??;
        if delivery.body().len() != size {
            return Err(format!("a body of {} bytes", delivery.body().len()).into());
        }
        if prefetch.is_some() {
            delivery.ack()?;
        }
        if pauses && number % PAUSE_EVERY == 0 {
            let (mut timer, until) = (R::default().timer(), Instant::now() + PAUSE);
            poll_fn(|cx| timer.poll_until(cx, until)).await;
        }
    }
    if prefetch.is_some() {
        // Answered when the peer has all acknowledgements, which the peer itself counts.
        channel.queue_declare(QueueDeclare::passive(QUEUE)).await?;
    }
    Ok(watch.stop())
}

async fn connects<R: Runtime + Default>(uri: &str, count: u64) -> Result<Measured, Failure> {
    let mut latencies = Vec::with_capacity(count as usize);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let begun = Instant::now();
        let connection = connect::<R>(uri).await?;
        connection.open_channel().await?;
        latencies.push(begun.elapsed());
        connection.close().await;
    }
    Ok(watch.stop().with_latencies(latencies))
}

async fn idle<R: Runtime + Default>(uri: &str, count: u64) -> Result<Measured, Failure> {
    let first = connect::<R>(uri).await?;
    let _warm = first.open_channel().await?;
    let watch = Stopwatch::start();
    let before = resident_kib()?;
    let mut connections = Vec::with_capacity(count as usize);
    for _ in 0..count {
        connections.push(connect::<R>(uri).await?);
    }
    let connected = resident_kib()?;
    let mut channels = Vec::new();
    for _ in 0..count * CHANNELS_PER_CONNECTION {
        channels.push(first.open_channel().await?);
    }
    let opened = resident_kib()?;
    Ok(idle_growth(&watch, count, [before, connected, opened]))
}

async fn recover<R: Runtime + Default>(
    uri: &str,
    restored: Restored,
    count: u64,
) -> Result<Measured, Failure> {
    let mut losses = Losses::before(uri, restored)?;
    let connector = Connector::<R>::new(&losses.uri())?.recovery(recovery());
    let connection = connector.connect().await?;
    let mut consumers = Vec::new();
    for queues in restored.shared() {
        let channel = connection.open_channel().await?;
        for queue in &queues {
            channel.queue_declare(QueueDeclare::new(queue).durable()).await?;
            channel.queue_bind(QueueBind::new(queue, EXCHANGE, queue)).await?;
        }
        let consumer = channel.basic_consume(BasicConsume::new(&queues[0])).await?;
        consumers.push((channel, consumer));
    }
    let mut events = connection.events();
    for _ in 0..count {
        losses.lose();
        while !is_recovered(events.next().await)? {}
        losses.restored(Instant::now())?;
    }
    connection.close().await;
    Ok(losses.stop())
}

/// As an application has it, but for the delay, which is not measured.
pub(super) fn recovery() -> Recovery {
    Recovery::automatic().backoff(Backoff::fixed(DIAL_AFTER))
}

/// Whether everything is restored. An error if something cannot be.
pub(super) fn is_recovered(event: Option<ConnectionEvent>) -> Result<bool, Failure> {
    match event {
        Some(ConnectionEvent::Recovered { failed }) if failed.is_empty() => Ok(true),
        Some(ConnectionEvent::Lost(_) | ConnectionEvent::Retrying { .. }) => Ok(false),
        event => Err(format!("not recovered: {event:?}").into()),
    }
}
