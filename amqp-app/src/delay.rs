//! `Delays`: messages that arrive later, through queues of the broker.
//!
//! For each delay there is a fanout exchange with one queue. The queue has one time to live for all of its messages, so that
//! none waits behind one with a longer delay. It dead-letters them to the exchange that they were for. The exchange in front
//! keeps their routing keys: a message to the queue itself would have the queue's name as its key.

use std::time::Duration;

use amqp_async::{Channel, ExchangeDeclare, PublishError, QueueBind, QueueDeclare};

use crate::copy;
use crate::error::Error;
use crate::limits::DELAY_MAX;
use crate::message::Message;
use crate::platform::Asynchronous;
use crate::pool::Member;
use crate::retry;

/// Delays for messages to one exchange: messages wait in queues of the broker, and survive restarts of it and of the
/// application.
///
/// A message waits for the shortest of the delays that is long enough. It then goes to its exchange with its own routing key.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_tokio::Connector;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = amqp_testkit::ModelBroker::start()?;
/// # let uri = broker.uri();
/// # let pool = Pool::new(Connector::new(&uri)?, 1).connect().await?;
/// # let connection = pool.connection().await?;
/// let delays = Delays::to("amq.topic", [1, 60, 3_600].map(Duration::from_secs));
/// delays.declare(&connection.open_channel().await?).await?;
///
/// let reminder = Message::new("pay").to("amq.topic", "invoice.reminder");
/// // Rounded up to a minute.
/// delays.publish(&connection, reminder.clone(), Duration::from_secs(45)).await?;
///
/// // A handler may return a delayed message: it is confirmed before the request is acknowledged.
/// let delayed = delays.delay(reminder, Duration::from_secs(3_600))?;
/// # assert_eq!(delayed.exchange(), "delay.amq.topic.1h");
/// # Ok(())
/// # }
/// ```
///
/// The time is counted by the broker, from the arrival in its queue. A message whose delay has passed and that reaches no queue
/// then is not returned: see [`classic`](Self::classic).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    exchange: String,
    /// In whole milliseconds, the shortest first.
    delays: Vec<Duration>,
    is_classic: bool,
}

/// Why a message is not delayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DelayError {
    /// The message has an expiration, which would end its delay early, and which the broker removes then.
    #[error("a message with an expiration of {0} ms cannot be delayed")]
    Expires(String),
    /// The message is for another exchange.
    #[error("the message is for exchange {actual:?}, and these delays are for {expected:?}")]
    OtherExchange {
        /// The exchange of the delays.
        expected: String,
        /// The exchange of the message.
        actual: String,
    },
    /// The message is a [reply](Message::reply), whose exchange and key are those of its request.
    #[error("a reply cannot be delayed")]
    Reply,
    /// The delay is longer than the longest that is declared.
    #[error("a delay of {delay:?} is longer than the longest, which is {longest:?}")]
    TooLong {
        /// The delay that was asked for.
        delay: Duration,
        /// The longest delay that there is.
        longest: Duration,
    },
    /// The message was not confirmed.
    #[error("the message was not confirmed: {0}")]
    Unconfirmed(PublishError),
}

impl Delays {
    /// Creates delays of these times for messages to this exchange, which may be the default exchange `""`. They are rounded
    /// up to milliseconds.
    pub fn to(exchange: impl Into<String>, delays: impl IntoIterator<Item = Duration>) -> Self {
        let whole = |delay: Duration| {
            let milliseconds = delay.as_nanos().div_ceil(1_000_000);
            Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
        };
        let mut delays: Vec<_> = delays.into_iter().map(whole).collect();
        delays.sort_unstable();
        delays.dedup();
        Self { exchange: exchange.into(), delays, is_classic: false }
    }

    /// Uses classic queues. By default they are quorum queues, which keep a message until the queues behind the exchange have
    /// it: also while there are none, and when the broker crashes on the way. Classic queues drop such a message.
    #[must_use]
    pub fn classic(self) -> Self {
        Self { is_classic: true, ..self }
    }

    /// Declares the exchange and the queue of each delay, which are durable. A second time changes nothing.
    ///
    /// They are named `delay.<exchange>.<delay>`, such as `delay.amq.topic.1m`. Other delays have other names: delete those
    /// that are not used any more when they are empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] without delays, and for one that is zero or longer than [`DELAY_MAX`]. [`Error::Setup`] if the broker
    /// refuses one of them: the channel is closed then.
    ///
    /// # Cancel safety
    /// If the future is dropped, some of them may be declared.
    pub async fn declare(&self, channel: &Channel) -> Result<(), Error> {
        self.check()?;
        for delay in &self.delays {
            let name = self.name(*delay);
            let failed = |error| Error::Setup { what: format!("the delay {name:?}"), error };
            channel.exchange_declare(ExchangeDeclare::fanout(&name)).await.map_err(failed)?;
            channel.queue_declare(self.queue(&name, *delay)).await.map_err(failed)?;
            channel.queue_bind(QueueBind::new(&name, &name, "")).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Publishes a message that arrives after this delay, and waits for the confirm. Resolves to `Ok` when the broker has the
    /// message in a queue for delays.
    ///
    /// # Errors
    /// Those of [`delay`](Self::delay), and [`DelayError::Unconfirmed`], such as for delays that are not declared.
    ///
    /// # Cancel safety
    /// As for [`Member::publish`].
    pub async fn publish<P: Asynchronous>(
        &self,
        connection: &Member<P>,
        message: Message,
        delay: Duration,
    ) -> Result<(), DelayError> {
        let delayed = self.delay(message, delay)?;
        connection.publish(&delayed).await.map_err(DelayError::Unconfirmed)
    }

    /// Returns the message that arrives after this delay when it is published now. It is addressed to the exchange of the
    /// shortest delay that is long enough. A delay of zero leaves the message as it is.
    ///
    /// The broker's records of earlier deaths are removed from its headers: with them, RabbitMQ before 4.0 drops a message that
    /// is delayed for the second time. When it arrives, it has new ones (`x-death`).
    ///
    /// # Errors
    /// [`DelayError`].
    pub fn delay(&self, message: Message, delay: Duration) -> Result<Message, DelayError> {
        if message.is_reply() {
            return Err(DelayError::Reply);
        }
        if message.exchange() != self.exchange {
            let actual = message.exchange().to_owned();
            return Err(DelayError::OtherExchange { expected: self.exchange.clone(), actual });
        }
        if let Some(expiration) = &message.properties().expiration {
            return Err(DelayError::Expires(expiration.clone()));
        }
        if delay.is_zero() {
            return Ok(message);
        }
        let declared = self.delays.iter().find(|it| **it >= delay).ok_or_else(|| {
            let longest = self.delays.last().copied().unwrap_or_default();
            DelayError::TooLong { delay, longest }
        })?;
        let key = message.routing_key().to_owned();
        let delayed = message.to(self.name(*declared), key);
        Ok(delayed.property(|properties| {
            let headers = properties.headers.take().map(copy::without_records);
            properties.headers = headers.filter(|headers| !headers.is_empty());
        }))
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |text: String| Err(Error::Invalid(text));
        match (self.delays.first(), self.delays.last()) {
            (Some(first), _) if first.is_zero() => invalid("a delay of zero".into()),
            (_, Some(last)) if *last > DELAY_MAX => {
                invalid(format!("a delay of {last:?}: the longest is {DELAY_MAX:?}"))
            }
            (Some(_), _) => Ok(()),
            (None, _) => invalid(format!("no delays for exchange {:?}", self.exchange)),
        }
    }

    /// The name of the exchange and of the queue of a delay. The broker reserves names that begin with `amq.`.
    fn name(&self, delay: Duration) -> String {
        let delay = retry::short(delay);
        match self.exchange.as_str() {
            "" => format!("delay.{delay}"),
            exchange => format!("delay.{exchange}.{delay}"),
        }
    }

    fn queue(&self, name: &str, delay: Duration) -> QueueDeclare {
        let queue = match self.is_classic {
            true => QueueDeclare::classic(name),
            false => QueueDeclare::quorum(name).dead_letter_at_least_once(),
        };
        queue.message_ttl(delay).dead_letter_exchange(&self.exchange)
    }
}

#[cfg(feature = "threads")]
impl Delays {
    /// [`declare`](Self::declare) on threads: blocks until everything is declared.
    ///
    /// # Errors
    /// Those of [`declare`](Self::declare).
    pub fn declare_blocking(&self, channel: &amqp_blocking::Channel) -> Result<(), Error> {
        amqp_blocking::runtime::Threads.block_on(self.declare(&channel.clone().into()))
    }

    /// [`publish`](Self::publish) on threads: blocks until the message is confirmed.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_blocking(
        &self,
        connection: &Member<amqp_blocking::Connector>,
        message: Message,
        delay: Duration,
    ) -> Result<(), DelayError> {
        connection.publish(&self.delay(message, delay)?).map_err(DelayError::Unconfirmed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DelayError, Delays};
    use crate::{Error, Message};

    fn delays() -> Delays {
        Delays::to("amq.topic", [60, 1, 3_600, 60].map(Duration::from_secs))
    }

    #[test]
    fn a_delay_is_rounded_up_to_one_that_is_declared() {
        let message = || Message::new("m").to("amq.topic", "some.key").header("a", "b");
        for (milliseconds, exchange) in [
            (1, "delay.amq.topic.1s"),
            (1_000, "delay.amq.topic.1s"),
            (1_001, "delay.amq.topic.1m"),
            (60_000, "delay.amq.topic.1m"),
            (60_001, "delay.amq.topic.1h"),
            (3_600_000, "delay.amq.topic.1h"),
            (0, "amq.topic"),
        ] {
            let delayed = delays().delay(message(), Duration::from_millis(milliseconds)).unwrap();
            assert_eq!((delayed.exchange(), delayed.routing_key()), (exchange, "some.key"));
            assert_eq!(delayed.properties(), message().to("", "").properties());
            assert!(delayed.is_mandatory());
        }
        let to_queues = Delays::to("", [Duration::from_micros(1_500_001)]);
        let delayed = |seconds| {
            to_queues.delay(Message::new("m").to_queue("q"), Duration::from_secs(seconds))
        };
        assert_eq!(delayed(1).unwrap().exchange(), "delay.1501ms");
        assert!(matches!(delayed(2), Err(DelayError::TooLong { .. })));
    }

    #[test]
    fn what_cannot_be_delayed_is_an_error() {
        let message = || Message::new("m").to("amq.topic", "key");
        let text = |message, seconds| {
            let error = delays().delay(message, Duration::from_secs(seconds)).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            text(message(), 3_601),
            "a delay of 3601s is longer than the longest, which is 3600s"
        );
        let other = "the message is for exchange \"\", and these delays are for \"amq.topic\"";
        assert_eq!(text(Message::new("m").to_queue("q"), 1), other);
        assert_eq!(text(message().reply(), 1), "a reply cannot be delayed");
        let expires = message().expires(Duration::from_secs(1));
        assert_eq!(text(expires, 1), "a message with an expiration of 1000 ms cannot be delayed");
    }

    #[test]
    fn records_of_the_broker_are_removed_and_keys_of_the_publisher_are_kept() {
        let message = Message::new("m").to("amq.topic", "key");
        let message = message.header("x-death", "d").header("x-first-death-queue", "q");
        let message = message.header("x-last-death-reason", "r").header("x-delivery-count", 1);
        let delayed = delays().delay(message.clone(), Duration::from_secs(1)).unwrap();
        assert_eq!(delayed.properties().headers, None);
        let delayed = delays().delay(message.header("CC", "copy"), Duration::from_secs(1)).unwrap();
        let headers = delayed.properties().headers.as_ref().unwrap();
        assert_eq!(
            (headers.len(), headers.get("CC").and_then(|it| it.as_str())),
            (1, Some("copy"))
        );
    }

    #[test]
    fn delays_that_no_queue_can_have_are_refused() {
        let invalid = |delays: &[Duration]| match Delays::to("x", delays.to_vec()).check() {
            Err(Error::Invalid(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(invalid(&[]), "no delays for exchange \"x\"");
        assert_eq!(invalid(&[Duration::ZERO, Duration::from_secs(1)]), "a delay of zero");
        let text = invalid(&[Duration::from_secs(1), Duration::from_secs(5_000_000)]);
        assert!(text.starts_with("a delay of 5000000s: the longest is "), "{text}");
        assert!(invalid(&[Duration::MAX]).starts_with("a delay of"));
        Delays::to("x", [Duration::from_nanos(1)]).check().unwrap();
    }
}
