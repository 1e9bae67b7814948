//! The application: answers some messages at once, some at the second attempt, and parks some.

use std::time::Duration;

use amqp_app::prelude::*;
use amqp_tokio::{Backoff, Connector, Recovery};

/// The text of the failure of a message that is parked.
pub(crate) const NEVER: &str = "never";
/// How long a failed message waits. Several times, so that a message that the broker has counted as delivered is not parked.
const DELAY: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 50;

/// Whether a message is parked, and not answered.
pub(crate) const fn is_parked(number: u64) -> bool {
    number.is_multiple_of(20)
}

/// Runs until a signal ends it.
pub(crate) async fn run(uri: &str, queue: &str, answers: &str) -> Result<Report, Error> {
    let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
    let connector = Connector::new(uri)?.recovery(Recovery::automatic().backoff(backoff));
    // A message may be in work at any number of kills. Its outcome is the same all the same.
    let policy = Retry::after([DELAY; ATTEMPTS]).max_deliveries(u32::MAX);
    let consume = Consume::new(QueueDeclare::quorum(queue)).concurrency(16).on_failure(policy);
    App::with_state(connector, answers.to_owned())
        .consume(consume, answer)
        .run(Shutdown::on_signals())
        .await
}

async fn answer(
    Text(text): Text,
    Attempt(attempt): Attempt,
    Redelivered(again): Redelivered,
    State(answers): State<String>,
) -> Result<Message, Failure> {
    let number: u64 = text.parse().map_err(Failure::permanent)?;
    // So that messages are in work at each fault.
    tokio::time::sleep(Duration::from_millis(number % 7)).await;
    match number {
        number if is_parked(number) => Err(Failure::permanent(NEVER)),
        number if number % 5 == 1 && attempt == 1 => Err(Failure::retry("not yet")),
        _ => Ok(Message::new(text).to_queue(answers).header("redelivered", again)),
    }
}
