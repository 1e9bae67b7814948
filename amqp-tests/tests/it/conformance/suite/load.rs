//! A load: publishers with confirms that keep many publishes in flight, while a test loses their connection.
//!
//! Each publisher has a channel, and a window of publishes whose outcome it has not read. Every publish has an id, under
//! which its outcome is recorded. At the end the queue is drained, and compared with the outcomes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amqp_tests::ledger::{Balance, ID_BITS, Ledger};

use super::api::{
    At, BasicConsume, CloseCause, Connection, ConnectionEvent, Events, Publish, PublishError,
    QueueDeclare, QueueDelete,
};
use crate::support::{sleep, unique, within};

/// The least number of unconfirmed publishes when a fault begins.
pub(crate) const IN_FLIGHT: u64 = 100;
const PUBLISHERS: u64 = 4;
/// How many publishes of one publisher have outcomes that it has not read.
const WINDOW: usize = 250;
/// Larger than a frame.
const LARGE_BYTES: usize = 150_000;

pub(crate) struct Load {
    connection: Connection,
    events: Events,
    queue: String,
    stop: Arc<AtomicBool>,
    publishers: Vec<Pin<Box<dyn Future<Output = Ledger> + Send>>>,
    ledger: Ledger,
    least_in_flight: u64,
}

impl Load {
    /// Publishes to a new quorum queue from here on. The connection sends unconfirmed publishes again, or does not.
    pub(crate) async fn start(
        at: &At,
        connection: Connection,
        republishes: bool,
        seed: u64,
    ) -> Self {
        let (events, queue) = (connection.events(), unique("load"));
        let channel = connection.open_channel().await.unwrap();
        channel.queue_declare(QueueDeclare::quorum(&queue)).await.unwrap();
        let stop = Arc::default();
        let publishers = (1..=PUBLISHERS).map(|number| {
            let publisher = LoadPublisher {
                connection: connection.clone(),
                queue: queue.clone(),
                random: fastrand::Rng::with_seed(seed ^ number),
                stop: Arc::clone(&stop),
                ledger: Ledger::new(republishes),
            };
            at.spawn(publisher.run(number << ID_BITS))
        });
        let publishers = publishers.collect();
        Self {
            events,
            queue,
            publishers,
            connection,
            stop,
            ledger: Ledger::new(republishes),
            least_in_flight: u64::MAX,
        }
    }

    /// The number of publishes that were confirmed.
    pub(crate) fn confirmed(&self) -> u64 {
        self.connection.stats().confirmed
    }

    /// The least number of publishes that were in flight at a fault.
    pub(crate) const fn least_in_flight(&self) -> u64 {
        self.least_in_flight
    }

    /// Waits until this many more publishes are confirmed.
    pub(crate) async fn goes_on(&self, publishes: u64) {
        let goal = self.confirmed() + publishes;
        within("confirms", async {
            while self.confirmed() < goal {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until enough publishes are unconfirmed for a fault.
    pub(crate) async fn is_in_flight(&mut self) {
        let in_flight = within("publishes in flight", async {
            loop {
                let unconfirmed = self.connection.stats().unconfirmed;
                if unconfirmed >= IN_FLIGHT {
                    return unconfirmed;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        self.least_in_flight = self.least_in_flight.min(in_flight.await);
    }

    /// Waits until the connection is lost and recovered. Returns why it was lost.
    pub(crate) async fn is_recovered(&mut self) -> CloseCause {
        let (mut lost, mut recovered) = (None, false);
        loop {
            let event = match &lost {
                // It may have been lost again meanwhile.
                Some(cause) if recovered => match self.events.try_next() {
                    None => return CloseCause::clone(cause),
                    event => event,
                },
                _ => within("the recovery", self.events.next()).await,
            };
            match event {
                Some(ConnectionEvent::Lost(cause)) => (lost, recovered) = (Some(cause), false),
                Some(ConnectionEvent::Recovered { failed }) => {
                    assert_eq!(failed, []);
                    recovered = true;
                }
                None | Some(ConnectionEvent::Closed(_)) => {
                    panic!("not recovered: {:?}", self.connection.close_cause())
                }
                Some(_) => {}
            }
        }
    }

    /// Ends the publishers, closes the connection, and drains the queue.
    ///
    /// # Errors
    /// If an outcome is not true.
    pub(crate) async fn finish(mut self, at: &At) -> Result<Balance, String> {
        self.stop.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            self.ledger.extend(within("the last outcomes", publisher).await);
        }
        assert_eq!(self.connection.close().await, CloseCause::ByClient);
        self.ledger.balance(&drain(at, &self.queue).await)
    }
}

struct LoadPublisher {
    connection: Connection,
    queue: String,
    random: fastrand::Rng,
    stop: Arc<AtomicBool>,
    ledger: Ledger,
}

impl LoadPublisher {
    /// Publishes with ids from here on, until it is to stop and has all outcomes.
    async fn run(mut self, mut id: u64) -> Ledger {
        let body = vec![b'x'; LARGE_BYTES];
        let (mut publisher, mut channel) = (self.connection.publisher().await.unwrap(), 0);
        let mut open = VecDeque::with_capacity(WINDOW);
        loop {
            if open.len() == WINDOW || self.stop.load(Ordering::Relaxed) {
                let Some((id, its_channel, confirm)) = open.pop_front() else { return self.ledger };
                let outcome = within("an outcome", confirm).await;
                self.ledger.record(id, &outcome);
                // RabbitMQ 3.10 nacks everything on a channel whose first publish met a queue without a leader.
                if outcome == Err(PublishError::Nacked) && its_channel == channel {
                    channel += 1;
                    publisher = self.connection.publisher().await.unwrap();
                }
                continue;
            }
            let size = self.body_size();
            let publish = Publish::to_queue(&self.queue, &body[..size]).persistent();
            let publish = publish.message_id(id.to_string());
            let publish = if self.random.bool() { publish.mandatory() } else { publish };
            match publisher.send(publish).await {
                Ok(confirm) => open.push_back((id, channel, confirm)),
                Err(error) => {
                    assert_eq!(self.connection.close_cause(), None);
                    self.ledger.record(id, &Err(error));
                }
            }
            id += 1;
        }
    }

    /// Most are small. Some are written from where they are, and some are larger than a frame.
    fn body_size(&mut self) -> usize {
        match self.random.u32(..1_000) {
            0 => LARGE_BYTES,
            1..20 => 10_000,
            _ => self.random.usize(..500),
        }
    }
}

/// Takes all messages of a queue, and deletes it. Returns their ids in their order.
async fn drain(at: &At, queue: &str) -> Vec<u64> {
    let connection = at.open(|config| config).await.unwrap();
    let last = Publish::to_queue(queue, "last").persistent().mandatory();
    connection.publisher().await.unwrap().publish(last).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let consume = BasicConsume::new(queue).prefetch(1_000);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let mut ids = Vec::new();
    loop {
        let delivery = within("a message", consumer.next()).await.unwrap().unwrap();
        let Some(id) = delivery.properties().unwrap().message_id else { break };
        ids.push(id.parse().unwrap());
        delivery.ack().unwrap();
    }
    channel.queue_delete(QueueDelete::new(queue)).await.unwrap();
    connection.close().await;
    ids
}
