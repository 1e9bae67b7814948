//! The producer: publishes with confirms, and publishes again what was not confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use amqp_app::Message;
use amqp_tokio::{Connection, Publisher};
use tokio::task::JoinHandle;

/// The number of messages that are published at once.
const WINDOW: usize = 16;
/// How many messages may be unfinished, so that there always is work, and never more than the application can catch up with.
const UNFINISHED: u64 = 400;
/// The pause before a message is published again.
const PAUSE: Duration = Duration::from_millis(20);

/// Publishes until it is stopped. The ids of its messages are the numbers below `confirmed`.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The number of messages that were begun.
    begun: AtomicU64,
    /// The number of messages that are done, as far as is known.
    done: AtomicU64,
    /// The number of messages that are confirmed.
    confirmed: AtomicU64,
    /// The number of publishes that were not confirmed.
    again: AtomicU64,
    stop: AtomicBool,
}

impl Producer {
    pub(crate) fn start(connection: &Connection, queue: &str) -> Self {
        let shared = Arc::<Shared>::default();
        let start = |_| {
            let publishing = publish(Arc::clone(&shared), connection.clone(), queue.to_owned());
            tokio::spawn(publishing)
        };
        let tasks = (0..WINDOW).map(start).collect();
        Self { shared, tasks }
    }

    /// Notes how many messages are done.
    pub(crate) fn done(&self, done: u64) {
        self.shared.done.fetch_max(done, Ordering::Relaxed);
    }

    /// Stops. Returns the number of messages, which all are confirmed, and of the publishes that were repeated.
    pub(crate) async fn stop(&mut self) -> Result<(u64, u64), String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.map_err(|error| error.to_string())?;
        }
        let [begun, confirmed, again] =
            [&self.shared.begun, &self.shared.confirmed, &self.shared.again]
                .map(|it| it.load(Ordering::Relaxed));
        if begun == confirmed {
            Ok((confirmed, again))
        } else {
            Err(format!("{begun} messages were begun, and {confirmed} confirmed"))
        }
    }
}

/// The id of a message.
pub(crate) fn id(number: u64) -> String {
    format!("m{number}")
}

async fn publish(shared: Arc<Shared>, connection: Connection, queue: String) {
    let mut publisher: Option<Publisher> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let [begun, done] = [&shared.begun, &shared.done].map(|it| it.load(Ordering::Relaxed));
        if begun >= done + UNFINISHED {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let number = shared.begun.fetch_add(1, Ordering::Relaxed);
        let message = Message::new(number.to_string()).message_id(id(number)).to_queue(&queue);
        loop {
            let open = match publisher.take().filter(|it| it.channel().close_cause().is_none()) {
                Some(publisher) => Ok(publisher),
                None => connection.publisher().await,
            };
            if let Ok(open) = open {
                let published = open.publish(&message).await;
                publisher = Some(open);
                if published.is_ok() {
                    break;
                }
            }
            shared.again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        shared.confirmed.fetch_add(1, Ordering::Relaxed);
    }
}
