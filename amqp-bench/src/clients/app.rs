//! An application of `amqp-app` on tokio: its handler does nothing, or returns a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amqp_app::{App, Batch, Body, Consume, Message, Outcomes, Retry, Shutdown};
use amqp_tokio::Connector;

use super::check;
use crate::outcome::{Failure, Measured, Stopwatch};
use crate::workload::{QUEUE, Task};

/// How an application consumes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) workers: u16,
    pub(crate) transactional: bool,
    pub(crate) batches: bool,
}

/// The messages that are handled at once.
const BATCH: u16 = 100;
/// The last batch ends with the last message: the counts are multiples of the size.
const NEVER: Duration = Duration::from_secs(60);

/// Handles `count` messages, as many at the same time as there are workers.
pub(crate) async fn run(
    uri: String,
    task: Task,
    count: u64,
    Rules { workers, transactional, batches }: Rules,
) -> Result<Measured, Failure> {
    let consume = match task {
        Task::Consume { prefetch: Some(prefetch), .. } => Consume::new(QUEUE).prefetch(prefetch),
        Task::Answer => Consume::new(QUEUE),
        _ => return Err("it only consumes with acknowledgements, and answers".into()),
    };
    let consume = consume.concurrency(workers).on_failure(Retry::none().then_dead_letter());
    let consume = if transactional { consume.transactional() } else { consume };
    let (stopper, shutdown) = Shutdown::manual();
    let left = Arc::new(AtomicU64::new(count));
    let handled = move |messages: u64| {
        if left.fetch_sub(messages, Ordering::Relaxed) == messages {
            stopper.stop();
        }
    };
    let app = App::new(Connector::new(&uri)?);
    let app = match (task, batches) {
        (Task::Answer, true) => {
            let handler = move |Batch(bodies): Batch<Body>| {
                handled(bodies.len() as u64);
                let replies = bodies.into_iter().map(|Body(body)| reply(body));
                std::future::ready(Outcomes(replies.collect()))
            };
            app.consume(consume.batches(BATCH, NEVER), handler)
        }
        (Task::Answer, false) => {
            let handler = move |Body(body): Body| {
                handled(1);
                std::future::ready(reply(body))
            };
            app.consume(consume, handler)
        }
        _ => {
            let handler = move || {
                handled(1);
                std::future::ready(())
            };
            app.consume(consume, handler)
        }
    };
    let watch = Stopwatch::start();
    let report = app.run(shutdown).await?;
    check("messages that were handled", report.handled, count)?;
    Ok(watch.stop())
}

fn reply(body: impl Into<bytes::Bytes>) -> Message {
    Message::new(body).to("amq.topic", "bench.unbound").optional()
}
