//! The workloads on this workspace's blocking adapter.

use std::collections::VecDeque;
use std::thread;
use std::time::Instant;

use amqp_blocking::{
    BasicConsume, BasicQos, Channel, Confirm, Connection, Connector, QueueBind, QueueDeclare,
    connect,
};
use bytes::Bytes;

use super::ours::{ENDED, is_recovered, message, recovery};
use super::recovery::{EXCHANGE, Losses, Restored};
use super::{Laps, check, idle_growth};
use crate::outcome::{Failure, Measured, Stopwatch, resident_kib};
use crate::workload::{CHANNELS_PER_CONNECTION, PAUSE, PAUSE_EVERY, QUEUE, SMALL, Task};

/// Does the task `count` times.
pub(crate) fn run(uri: &str, task: Task, count: u64) -> Result<Measured, Failure> {
    match task {
        Task::Connect => return connects(uri, count),
        Task::Idle => return idle(uri, count),
        Task::Recover(restored) => return recover(uri, restored, count),
        _ => {}
    }
    let connection = connect(uri)?;
    let result = match task {
        Task::Publish { size, window: Some(window), .. } => {
            confirmed(&connection, count, size, window)
        }
        Task::Publish { size, window: None, channels } => {
            publish(&connection, count, size, channels)
        }
        Task::PublishAndWait => publish_and_wait(&connection, count),
        Task::PublishInFlood => publish_in_flood(&connection, count),
        Task::Consume { size, prefetch, pauses } => {
            consume(&connection, count, size, prefetch, pauses)
        }
        Task::RoundTrip => {
            let channel = connection.open_channel()?;
            let mut laps = Laps::start(count);
            for _ in 0..count {
                channel.basic_qos(BasicQos::new(1))?;
                laps.lap();
            }
            Ok(laps.stop())
        }
        Task::Connect | Task::Idle | Task::Recover(_) | Task::Answer => {
            Err("is done elsewhere".into())
        }
    };
    connection.close();
    result
}

/// On several channels, from a thread each.
fn publish(
    connection: &Connection,
    count: u64,
    size: usize,
    channels: u16,
) -> Result<Measured, Failure> {
    let each = count / u64::from(channels);
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel()?);
    }
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        let threads: Vec<_> = opened
            .into_iter()
            .map(|channel| scope.spawn(move || publish_all(&channel, each, size)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(watch.stop())
}

/// Publishes without confirms, and waits until the peer counted all of it.
fn publish_all(channel: &Channel, count: u64, size: usize) -> Result<(), Failure> {
    let body = Bytes::from(vec![b'x'; size]);
    for _ in 0..count {
        channel.basic_publish(message(&body))?;
    }
    let passive = channel.queue_declare(QueueDeclare::passive(QUEUE))?;
    check("the peer counted", passive.message_count.into(), count)
}

fn confirmed(
    connection: &Connection,
    count: u64,
    size: usize,
    window: usize,
) -> Result<Measured, Failure> {
    let publisher = connection.open_channel()?.confirm_select()?;
    let body = Bytes::from(vec![b'x'; size]);
    let mut open: VecDeque<Confirm> = VecDeque::with_capacity(window);
    let watch = Stopwatch::start();
    for _ in 0..count {
        if open.len() == window
            && let Some(oldest) = open.pop_front()
        {
            oldest.wait()?;
        }
        open.push_back(publisher.send(message(&body))?);
    }
    for confirm in open {
        confirm.wait()?;
    }
    Ok(watch.stop())
}

fn publish_and_wait(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let publisher = connection.open_channel()?.confirm_select()?;
    let body = Bytes::from(vec![b'x'; SMALL]);
    let mut laps = Laps::start(count);
    for _ in 0..count {
        publisher.publish(message(&body))?;
        laps.lap();
    }
    Ok(laps.stop())
}

fn publish_in_flood(connection: &Connection, count: u64) -> Result<Measured, Failure> {
    let channel = connection.open_channel()?;
    let mut consumer = channel.basic_consume(BasicConsume::new(QUEUE).no_ack())?;
    consumer.next().ok_or(ENDED)??;
    // It ends with the connection.
    let flooded = thread::spawn(move || consumer.by_ref().take_while(Result::is_ok).count());
    let measured = publish_and_wait(connection, count)?;
    if flooded.is_finished() {
        return Err(ENDED.into());
    }
    Ok(measured)
}

fn consume(
    connection: &Connection,
    count: u64,
    size: usize,
    prefetch: Option<u16>,
    pauses: bool,
) -> Result<Measured, Failure> {
    let channel = connection.open_channel()?;
    let consume = match prefetch {
        Some(prefetch) => BasicConsume::new(QUEUE).prefetch(prefetch),
        None => BasicConsume::new(QUEUE).no_ack(),
    };
    let watch = Stopwatch::start();
    let mut consumer = channel.basic_consume(consume)?;
    for number in 1..=count {
        let delivery = consumer.next().ok_or(ENDED)??;
        if delivery.body().len() != size {
            return Err(format!("a body of {} bytes", delivery.body().len()).into());
        }
        if prefetch.is_some() {
            delivery.ack()?;
        }
        if pauses && number % PAUSE_EVERY == 0 {
            thread::sleep(PAUSE);
        }
    }
    if prefetch.is_some() {
        // Answered when the peer has all acknowledgements, which the peer itself counts.
        channel.queue_declare(QueueDeclare::passive(QUEUE))?;
    }
    Ok(watch.stop())
}

fn connects(uri: &str, count: u64) -> Result<Measured, Failure> {
    let mut latencies = Vec::with_capacity(count as usize);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let begun = Instant::now();
        let connection = connect(uri)?;
        connection.open_channel()?;
        latencies.push(begun.elapsed());
        connection.close();
    }
    Ok(watch.stop().with_latencies(latencies))
}

fn idle(uri: &str, count: u64) -> Result<Measured, Failure> {
    let first = connect(uri)?;
    let _warm = first.open_channel()?;
    let watch = Stopwatch::start();
    let before = resident_kib()?;
    let mut connections = Vec::with_capacity(count as usize);
    for _ in 0..count {
        connections.push(connect(uri)?);
    }
    let connected = resident_kib()?;
    let mut channels = Vec::new();
    for _ in 0..count * CHANNELS_PER_CONNECTION {
        channels.push(first.open_channel()?);
    }
    let opened = resident_kib()?;
    Ok(idle_growth(&watch, count, [before, connected, opened]))
}

fn recover(uri: &str, restored: Restored, count: u64) -> Result<Measured, Failure> {
    let mut losses = Losses::before(uri, restored)?;
    let connection = Connector::new(&losses.uri())?.recovery(recovery()).connect()?;
    let mut consumers = Vec::new();
    for queues in restored.shared() {
        let channel = connection.open_channel()?;
        for queue in &queues {
            channel.queue_declare(QueueDeclare::new(queue).durable())?;
            channel.queue_bind(QueueBind::new(queue, EXCHANGE, queue))?;
        }
        let consumer = channel.basic_consume(BasicConsume::new(&queues[0]))?;
        consumers.push((channel, consumer));
    }
    let mut events = connection.events();
    for _ in 0..count {
        losses.lose();
        while !is_recovered(events.next())? {}
        losses.restored(Instant::now())?;
    }
    connection.close();
    Ok(losses.stop())
}
