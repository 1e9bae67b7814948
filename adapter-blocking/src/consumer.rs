use std::task::{Context, Poll};
use std::time::Duration;

use amqp_async::TryRecvError;
use amqp_async::core::{BasicConsume, Error};

use crate::channel::Channel;
use crate::delivery::Delivery;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Starts a consumer (`basic.consume`; AMQP 0-9-1, 1.8.3.3; <https://www.rabbitmq.com/docs/consumers>),
    /// and waits until the broker has started it. Takes the name of a queue, or a [`BasicConsume`].
    ///
    /// # Errors
    /// Those of a [call](Self#calls), and [`Misuse::DuplicateConsumerTag`](amqp_async::core::errors::Misuse).
    pub fn basic_consume(&self, consume: impl Into<BasicConsume>) -> Result<Consumer, Error> {
        wait(self.shared().basic_consume(consume)).map(Consumer::new)
    }
}

/// A consumer of a queue: an iterator that waits for the next delivery. Deliveries are in the order in which
/// the broker sent them.
///
/// It ends with `None` when the application has cancelled the consumer and all deliveries are read. It ends
/// with an error if the channel or connection closes, or if the broker cancels the consumer.
///
/// When it is dropped, it is cancelled in the background, and deliveries that were not taken from it are
/// requeued. Without acknowledgement they are lost, and those of a stream are acked.
///
/// ```
/// # use amqp_blocking::{BasicConsume, Channel};
/// # fn example(channel: &Channel) -> Result<(), Box<dyn std::error::Error>> {
/// for delivery in channel.basic_consume(BasicConsume::new("orders").prefetch(64))? {
///     let delivery = delivery?;
///     println!("{} bytes", delivery.body().len());
///     delivery.ack()?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a consumer that is dropped is cancelled"]
#[derive(Debug)]
pub struct Consumer(pub(crate) amqp_async::Consumer);

impl Consumer {
    pub(crate) const fn new(consumer: amqp_async::Consumer) -> Self {
        Self(consumer)
    }

    /// Returns the consumer tag.
    pub fn tag(&self) -> &str {
        self.0.tag()
    }

    /// Returns a buffered delivery without waiting.
    ///
    /// ```
    /// # use amqp_blocking::{Consumer, TryRecvError};
    /// # fn example(consumer: &mut Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// match consumer.try_recv() {
    ///     Ok(delivery) => delivery.ack()?,
    ///     Err(TryRecvError::Empty) => println!("nothing for now"),
    ///     Err(TryRecvError::Ended) => println!("cancelled, and everything is read"),
    ///     Err(failed) => return Err(failed.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError`]: nothing is buffered now, or the consumer has ended.
    pub fn try_recv(&mut self) -> Result<Delivery, TryRecvError> {
        self.0.try_recv().map(Delivery::new)
    }

    /// Waits for the next delivery for at most `timeout`. Returns `None` if none arrived, or if the consumer
    /// has ended (see [`is_ended`](Self::is_ended)).
    ///
    /// # Errors
    /// The reason why the consumer has ended, once: [`Error::Channel`], [`Error::Connection`],
    /// [`Error::ConsumerCancelled`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Delivery>, Error> {
        wrap(wait_timeout(self.0.next(), timeout).flatten()).transpose()
    }

    /// Returns the channel on which it consumes.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }

    /// Returns a handle that cancels the consumer from another thread, such as the one that waits for signals.
    ///
    /// ```
    /// # use amqp_blocking::Consumer;
    /// # fn example(consumer: Consumer, stop: std::sync::mpsc::Receiver<()>)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let canceller = consumer.canceller();
    /// std::thread::spawn(move || {
    ///     let _ = stop.recv();
    ///     canceller.cancel()
    /// });
    /// // The loop ends when everything that the broker had sent is read.
    /// for delivery in consumer {
    ///     delivery?.ack()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn canceller(&self) -> Canceller {
        Canceller(self.0.canceller())
    }

    /// Returns whether the last delivery, or the error that ended the consumer, was taken.
    pub fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    /// Cancels the consumer (`basic.cancel`; AMQP 0-9-1, 1.8.3.5), and waits until the broker has confirmed
    /// it. Deliveries that the broker had sent can still be read.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls).
    pub fn cancel(&mut self) -> Result<(), Error> {
        wait(self.0.cancel())
    }

    /// Cancels the consumer, and requeues the deliveries that were not taken from it. Returns the number of
    /// requeued messages.
    ///
    /// Without acknowledgement nothing can be requeued. Then it returns 0, and the deliveries that had
    /// arrived can still be read. A stream does not take messages back: its deliveries are acked.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls), and the reason why the consumer has ended, unless the
    /// application has cancelled it.
    pub fn cancel_and_requeue(&mut self) -> Result<usize, Error> {
        wait(self.0.cancel_and_requeue())
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, Error>>> {
        // A thread has no other tasks to yield to.
        match self.0.try_recv() {
            Ok(delivery) => return Poll::Ready(Some(Ok(Delivery::new(delivery)))),
            Err(TryRecvError::Failed(error)) => return Poll::Ready(Some(Err(error))),
            Err(_) => {}
        }
        std::pin::pin!(self.0.next()).poll(cx).map(wrap)
    }
}

impl Iterator for Consumer {
    type Item = Result<Delivery, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wrap(wait(self.0.next()))
    }
}

/// Cancels a consumer from another thread; see [`Consumer::canceller`].
///
/// Clones cancel the same consumer. Like every handle, it keeps the channel open.
#[derive(Clone, Debug)]
pub struct Canceller(amqp_async::Canceller);

impl Canceller {
    /// Cancels the consumer, as [`Consumer::cancel`] does. If it has ended before, nothing is sent.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls).
    pub fn cancel(&self) -> Result<(), Error> {
        wait(self.0.cancel())
    }
}

fn wrap(next: Option<Result<amqp_async::Delivery, Error>>) -> Option<Result<Delivery, Error>> {
    next.map(|delivery| delivery.map(Delivery::new))
}
