//! `Sender`: publishes what messages cause, confirmed and mandatory, on a connection that does nothing else. A broker that
//! is low on memory stops to read connections that publish: acknowledgements on the same connection would stand still.
//!
//! All workers share two channels: one for messages to queues, such as the copies of failed ones, and one for messages to
//! exchanges. A publish to a missing exchange would close the latter, and the confirms of all others on it would be unknown.
//! So an exchange is looked up on a channel of its own before its first use, and from time to time. If the channel closes all
//! the same, each message without a confirm is sent again on a channel of its own, and the broker refuses the guilty one alone.
//! Messages may be duplicated, with the same ids.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use amqp_async::errors::InvalidArgument;
use amqp_async::{Connection, PublishError, Publisher};

use crate::exchanges::{Exchanges, is_refused};
use crate::limits::IN_PLACE_PAUSE;
use crate::measure::Sending;
use crate::runner::Runner;
use crate::sync::lock;

pub(crate) struct Sender {
    runner: Runner,
    connection: Connection,
    exchanges: Exchanges,
    /// The one of messages to exchanges, and the one of messages to queues.
    publishers: Mutex<[Option<Publisher>; 2]>,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// The connection has ended, and is not recovered.
    #[error("the connection has ended: {0}")]
    Ended(amqp_async::Error),
    #[error("cannot be sent: {0}")]
    Invalid(InvalidArgument),
    #[error("refused by the broker: a queue is full")]
    Nacked,
    /// The exchange is missing, or may not be used.
    #[error("exchange {exchange:?} cannot be used: {error}")]
    Refused { exchange: String, error: amqp_async::Error },
    #[error("reached no queue (exchange {exchange:?}, routing key {routing_key:?})")]
    Unroutable { exchange: String, routing_key: String },
}

#[cfg(feature = "metrics")]
impl Unsent {
    /// The attribute `error.type`.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Ended(_) => "connection_ended",
            Self::Invalid(_) => "invalid",
            Self::Nacked => "nacked",
            Self::Refused { .. } => "refused",
            Self::Unroutable { .. } => "unroutable",
        }
    }
}

impl Sender {
    pub(crate) fn new(runner: Runner, connection: Connection) -> Self {
        Self { runner, connection, exchanges: Exchanges::default(), publishers: Mutex::default() }
    }

    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Publishes messages at once, and waits until all are confirmed. While the connection is recovered, it waits.
    pub(crate) async fn send_all(
        &self,
        messages: &[amqp_async::Message],
    ) -> Vec<Result<(), Unsent>> {
        let mut sending = Sending::begin(&self.runner, messages);
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            confirms.push(self.put(message).await);
        }
        let mut results = Vec::with_capacity(messages.len());
        for (message, confirm) in messages.iter().zip(confirms) {
            let outcome = match confirm {
                Ok(confirm) => outcome(message, confirm.await),
                Err(outcome) => outcome,
            };
            let result = match outcome {
                Outcome::Known(result) => result,
                Outcome::Unknown => self.send_alone(message).await,
            };
            sending.done(&result);
            results.push(result);
        }
        results
    }

    pub(crate) async fn send(&self, message: &amqp_async::Message) -> Result<(), Unsent> {
        let results = self.send_all(std::slice::from_ref(message)).await;
        results.into_iter().collect()
    }

    /// Puts a message into the output buffer.
    async fn put(&self, message: &amqp_async::Message) -> Result<amqp_async::Confirm, Outcome> {
        let known = |unsent| Outcome::Known(Err(unsent));
        self.find(&message.exchange).await.map_err(known)?;
        let publisher = self.publisher(&message.exchange).await.map_err(known)?;
        publisher.send(message).await.map_err(|error| outcome(message, Err(error)))
    }

    /// Publishes a message on a channel of its own, because the one of all has closed, or the connection was lost. If this
    /// channel closes too, it is this message that the broker refuses.
    async fn send_alone(&self, message: &amqp_async::Message) -> Result<(), Unsent> {
        self.forget();
        loop {
            let publisher = match self.connection.publisher().await {
                Ok(publisher) => publisher,
                Err(error) => {
                    self.pause(error).await?;
                    continue;
                }
            };
            let published = publisher.publish(message).await;
            if let Err(PublishError::NotSent(error) | PublishError::Unknown(error)) = &published
                && error.is_channel()
            {
                let exchange = message.exchange.clone();
                return Err(Unsent::Refused { exchange, error: error.clone() });
            }
            if let Outcome::Known(result) = outcome(message, published) {
                return result;
            }
        }
    }

    /// Waits a moment before a call is repeated, unless its error is final.
    async fn pause(&self, error: amqp_async::Error) -> Result<(), Unsent> {
        match error {
            amqp_async::Error::InvalidArgument(invalid) => return Err(Unsent::Invalid(invalid)),
            error if error.is_connection() || !error.is_retryable() => {
                return Err(Unsent::Ended(error));
            }
            _ => {}
        }
        self.runner.sleep(IN_PLACE_PAUSE).await;
        Ok(())
    }

    /// The open publisher of all workers.
    async fn publisher(&self, exchange: &str) -> Result<Publisher, Unsent> {
        let index = usize::from(exchange.is_empty());
        let present = || {
            let publishers = lock(&self.publishers);
            let closed = |it: &&Publisher| it.channel().close_cause().is_none();
            publishers[index].as_ref().filter(closed).cloned()
        };
        loop {
            if let Some(publisher) = present() {
                return Ok(publisher);
            }
            match self.connection.publisher().await {
                Ok(opened) => {
                    // Another worker may have been faster.
                    let publisher = present().unwrap_or(opened);
                    lock(&self.publishers)[index] = Some(publisher.clone());
                    return Ok(publisher);
                }
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// What was looked up is out of date.
    pub(crate) fn forget(&self) {
        self.exchanges.forget();
    }

    /// Looks an exchange up, unless it was found a moment ago.
    pub(crate) async fn find(&self, exchange: &str) -> Result<(), Unsent> {
        loop {
            match self.exchanges.find(exchange, &self.connection, &self.runner).await {
                Ok(()) => return Ok(()),
                Err(error) if is_refused(&error) => {
                    return Err(Unsent::Refused { exchange: exchange.to_owned(), error });
                }
                Err(error) => self.pause(error).await?,
            }
        }
    }
}

/// What is known of a publish.
enum Outcome {
    Known(Result<(), Unsent>),
    /// The channel has closed, or the connection was lost, and is recovered.
    Unknown,
}

fn outcome(message: &amqp_async::Message, published: Result<(), PublishError>) -> Outcome {
    let amqp_async::Message { exchange, routing_key, .. } = message;
    let unsent = match published {
        Ok(()) => return Outcome::Known(Ok(())),
        Err(PublishError::Nacked) => Unsent::Nacked,
        Err(PublishError::Invalid(invalid)) => Unsent::Invalid(invalid),
        Err(PublishError::Returned(_)) => {
            Unsent::Unroutable { exchange: exchange.clone(), routing_key: routing_key.clone() }
        }
        Err(PublishError::NotSent(error) | PublishError::Unknown(error)) => {
            if !error.is_connection() {
                return Outcome::Unknown;
            }
            Unsent::Ended(error)
        }
        // The channel is in confirm mode, and open.
        Err(other) => Unsent::Refused { exchange: exchange.clone(), error: other.into() },
    };
    Outcome::Known(Err(unsent))
}

/// The time in seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
