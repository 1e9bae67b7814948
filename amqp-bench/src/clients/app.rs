//! An application of `amqp-app` with a handler that does nothing, on tokio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amqp_app::{App, Consume, Retry, Shutdown};
use amqp_tokio::Connector;

use super::check;
use crate::outcome::{Failure, Measured, Stopwatch};
use crate::workload::{QUEUE, Task};

/// Handles `count` messages, as many at the same time as there are workers.
pub(crate) async fn run(
    uri: String,
    task: Task,
    count: u64,
    workers: u16,
) -> Result<Measured, Failure> {
    let Task::Consume { prefetch: Some(prefetch), .. } = task else {
        return Err("it only consumes with acknowledgements".into());
    };
    let (stopper, shutdown) = Shutdown::manual();
    let left = Arc::new(AtomicU64::new(count));
    let handler = move || {
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            stopper.stop();
        }
        std::future::ready(())
    };
    let consume = Consume::new(QUEUE).prefetch(prefetch).concurrency(workers);
    let consume = consume.on_failure(Retry::none().then_dead_letter());
    let app = App::new(Connector::new(&uri)?).consume(consume, handler);
    let watch = Stopwatch::start();
    let report = app.run(shutdown).await?;
    check("messages that were handled", report.handled, count)?;
    Ok(watch.stop())
}
