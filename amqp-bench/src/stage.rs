//! What a run needs around it: a peer, or a queue on RabbitMQ, and afterwards a look at its counts.

use std::time::{Duration, Instant};

use amqp_testkit::RabbitMq;
use amqp_tokio::{Connection, Publish, QueueDeclare, QueueDelete, connect};

use crate::child::PeerProcess;
use crate::clients::check;
use crate::outcome::Failure;
use crate::peer::{Deliveries, Totals};
use crate::workload::{Against, QUEUE, SMALL, Workload};

/// How long a broker may take to notice that a client is gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Unconfirmed publishes while a queue is filled.
const FILL_WINDOW: usize = 1_000;

/// The opposite side of one run.
#[derive(Debug)]
pub(crate) enum Stage {
    Own(PeerProcess),
    RabbitMq { uri: String },
}

impl Stage {
    /// Makes everything ready for one run.
    pub(crate) fn set(
        workload: &Workload,
        count: u64,
        node: Option<&RabbitMq>,
    ) -> Result<Self, Failure> {
        if !workload.needs_rabbitmq() {
            let size = workload.task.body_size();
            let deliveries = Deliveries { size, count: workload.task.deliveries(count) };
            return Ok(Self::Own(PeerProcess::start(deliveries, workload.is_over_tls())?));
        }
        let uri = node.ok_or("it needs a RabbitMQ node")?.uri();
        if workload.against == Against::RabbitMqOwn {
            return Ok(Self::RabbitMq { uri });
        }
        with_connection(&uri, async |connection| {
            prepare_queue(connection, workload.against, count).await
        })?;
        Ok(Self::RabbitMq { uri })
    }

    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Own(peer) => peer.uri.clone(),
            Self::RabbitMq { uri } => uri.clone(),
        }
    }

    /// Checks what was counted in a run that a client calls good, or says what was wrong with it.
    pub(crate) fn check(self, workload: &Workload, count: u64) -> Result<(), Failure> {
        match self {
            Self::Own(peer) => compare(&peer.finish()?, workload, count),
            Self::RabbitMq { uri } => with_connection(&uri, async |connection| {
                let left = match workload.against {
                    Against::RabbitMqQueue => count,
                    Against::RabbitMqFilled => 0,
                    Against::RabbitMqNoQueue
                    | Against::RabbitMqOwn
                    | Against::Own
                    | Against::OwnTls => return Ok(()),
                };
                check("messages in the queue", messages_left(connection).await?, left)
            }),
        }
    }
}

/// An error unless a peer counted what the workload does.
pub(crate) fn compare(totals: &Totals, workload: &Workload, count: u64) -> Result<(), Failure> {
    if let Some(error) = &totals.error {
        return Err(format!("the peer was sent {error}").into());
    }
    let task = workload.task;
    let published = task.published(count);
    check("publishes that the sink counted", totals.published, published)?;
    let bytes = published * task.body_size() as u64;
    check("body bytes that the sink counted", totals.body_bytes, bytes)?;
    check("acks that the source counted", totals.acked, task.acked(count))
}

/// The version of a broker, as it says itself.
pub(crate) fn broker_version(uri: &str) -> Result<String, Failure> {
    with_connection(uri, async |connection| {
        let properties = connection.server_properties();
        let version = properties.get("version").and_then(|value| value.as_str());
        Ok(version.unwrap_or("unknown").to_owned())
    })
}

fn with_connection<T>(
    uri: &str,
    work: impl AsyncFnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connection = connect(uri).await?;
        let result = work(&connection).await;
        connection.close().await;
        result
    })
}

async fn prepare_queue(
    connection: &Connection,
    against: Against,
    count: u64,
) -> Result<(), Failure> {
    let channel = connection.open_channel().await?;
    channel.queue_delete(QueueDelete::new(QUEUE)).await?;
    if against == Against::RabbitMqNoQueue {
        return Ok(());
    }
    channel.queue_declare(QueueDeclare::new(QUEUE)).await?;
    if against != Against::RabbitMqFilled {
        return Ok(());
    }
    let publisher = channel.confirm_select().await?;
    let mut open = std::collections::VecDeque::with_capacity(FILL_WINDOW);
    for _ in 0..count {
        if open.len() == FILL_WINDOW
            && let Some(oldest) = open.pop_front()
        {
            let oldest: amqp_tokio::Confirm = oldest;
            oldest.await?;
        }
        open.push_back(publisher.send(Publish::new("", QUEUE, &[b'x'; SMALL])).await?);
    }
    for confirm in open {
        confirm.await?;
    }
    Ok(())
}

/// What is in the queue once no consumer holds anything of it any longer.
async fn messages_left(connection: &Connection) -> Result<u64, Failure> {
    let channel = connection.open_channel().await?;
    let begun = Instant::now();
    loop {
        let queue = channel.queue_declare(QueueDeclare::passive(QUEUE)).await?;
        if queue.consumer_count == 0 {
            return Ok(queue.message_count.into());
        }
        if begun.elapsed() > GONE_TIMEOUT {
            return Err("the broker still has a consumer".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::peer::Totals;
    use crate::workload::{WORKLOADS, named};

    #[test]
    fn whatever_a_peer_counted_otherwise_is_an_error() {
        let right = Totals { published: 5, body_bytes: 80, ..Totals::default() };
        let publishing = named("w2").unwrap_or(&WORKLOADS[0]);
        assert!(compare(&right, publishing, 5).is_ok());
        let wrong = [
            Totals { published: 4, ..right.clone() },
            Totals { body_bytes: 79, ..right.clone() },
            Totals { acked: 1, ..right.clone() },
            Totals { error: Some("a method instead of a body".into()), ..right.clone() },
        ];
        assert!(wrong.iter().all(|totals| compare(totals, publishing, 5).is_err()));
        let consuming = named("w5").unwrap_or(&WORKLOADS[0]);
        let acked = Totals { acked: 5, ..Totals::default() };
        assert!(compare(&acked, consuming, 5).is_ok());
        assert!(compare(&acked, consuming, 6).is_err());
    }
}
