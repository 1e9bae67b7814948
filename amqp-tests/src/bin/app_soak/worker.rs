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

/// Whether a message waits for its second attempt.
pub(crate) const fn is_retried(number: u64) -> bool {
    number % 5 == 1
}

/// How messages are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Confirms,
    /// With several replies to each message.
    Transactions,
}

impl Mode {
    pub(crate) const fn replies(self) -> usize {
        match self {
            Self::Confirms => 1,
            Self::Transactions => 3,
        }
    }
}

/// Runs until a signal ends it.
pub(crate) async fn run(
    uri: &str,
    queue: &str,
    answers: &str,
    mode: Mode,
) -> Result<Report, Error> {
    let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
    let connector = Connector::new(uri)?.recovery(Recovery::automatic().backoff(backoff));
    // A message may be in work at any number of kills. Its outcome is the same all the same.
    let policy = Retry::after([DELAY; ATTEMPTS]).max_deliveries(u32::MAX);
    let consume = Consume::new(QueueDeclare::quorum(queue)).concurrency(16).on_failure(policy);
    let consume = if mode == Mode::Transactions { consume.transactional() } else { consume };
    App::with_state(connector, (answers.to_owned(), mode))
        .consume(consume, answer)
        .run(Shutdown::on_signals())
        .await
}

async fn answer(
    Text(text): Text,
    Attempt(attempt): Attempt,
    Redelivered(again): Redelivered,
    State((answers, mode)): State<(String, Mode)>,
) -> Result<Vec<Message>, Failure> {
    let number: u64 = text.parse().map_err(Failure::permanent)?;
    // So that messages are in work at each fault.
    tokio::time::sleep(Duration::from_millis(number % 7)).await;
    match number {
        number if is_parked(number) => Err(Failure::permanent(NEVER)),
        number if is_retried(number) && attempt == 1 => Err(Failure::retry("not yet")),
        _ => {
            let reply = Message::new(text).to_queue(answers).header("redelivered", again);
            Ok(vec![reply; mode.replies()])
        }
    }
}
