//! The workloads on our own adapter.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use adapter_tokio::{BasicConsume, BasicQos, Connection, Publish, QueueDeclare, connect};

use crate::workload::{Outcome, Workload};

/// Runs a workload; what is measured lies between set-up and the last answer.
pub(crate) async fn run(uri: &str, workload: &Workload) -> Result<Outcome, io::Error> {
    let connection = connect(uri).await.map_err(io::Error::other)?;
    let result = match *workload {
        Workload::Publish { count, size, confirm: None } => publish(&connection, count, size).await,
        Workload::Publish { count, size, confirm: Some(window) } => {
            confirmed(&connection, count, size, window).await
        }
        Workload::Consume { count, prefetch } => consume(&connection, count, prefetch).await,
        Workload::RoundTrip { count } => round_trips(&connection, count).await,
    };
    connection.close().await;
    result.map_err(io::Error::other)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn publish(connection: &Connection, count: u64, size: usize) -> Result<Outcome, Failure> {
    let channel = connection.open_channel().await?;
    let body = vec![b'x'; size];
    let begun = Instant::now();
    for _ in 0..count {
        channel.basic_publish(Publish::new("", "bench", &body)).await?;
    }
    let counted = channel.queue_declare(QueueDeclare::passive("bench")).await?.message_count;
    Outcome::new(begun.elapsed(), count, counted.into())
}

async fn confirmed(
    connection: &Connection,
    count: u64,
    size: usize,
    window: usize,
) -> Result<Outcome, Failure> {
    let publisher = connection.open_channel().await?.confirm_select().await?;
    let body = vec![b'x'; size];
    let mut open = VecDeque::with_capacity(window);
    let mut confirmed = 0;
    let begun = Instant::now();
    for _ in 0..count {
        if open.len() == window
            && let Some(oldest) = open.pop_front()
        {
            let oldest: adapter_tokio::Confirm = oldest;
            oldest.await?;
            confirmed += 1;
        }
        open.push_back(publisher.send(Publish::new("", "bench", &body)).await?);
    }
    for confirm in open {
        confirm.await?;
        confirmed += 1;
    }
    Outcome::new(begun.elapsed(), count, confirmed)
}

async fn consume(
    connection: &Connection,
    count: u64,
    prefetch: Option<u16>,
) -> Result<Outcome, Failure> {
    let channel = connection.open_channel().await?;
    let consume = match prefetch {
        Some(prefetch) => BasicConsume::new("bench").prefetch(prefetch),
        None => BasicConsume::new("bench").no_ack(),
    };
    let begun = Instant::now();
    let mut consumer = channel.basic_consume(consume).await?;
    for _ in 0..count {
        let delivery = consumer.next().await.ok_or("the consumer ended early")??;
        if prefetch.is_some() {
            delivery.ack()?;
        }
    }
    let mut counted = count;
    if prefetch.is_some() {
        let passive = channel.queue_declare(QueueDeclare::passive("bench")).await?;
        counted = passive.consumer_count.into();
    }
    Outcome::new(begun.elapsed(), count, counted)
}

async fn round_trips(connection: &Connection, count: u64) -> Result<Outcome, Failure> {
    let channel = connection.open_channel().await?;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..count {
        let asked = Instant::now();
        channel.basic_qos(BasicQos::new(1)).await?;
        longest = longest.max(asked.elapsed());
    }
    Outcome::new(begun.elapsed(), count, count)
}
