use std::task::{Context, Poll};
use std::time::Duration;

use amqp_async::TryRecvError;
use amqp_async::core::{BasicConsume, Error};

use crate::channel::Channel;
use crate::delivery::Delivery;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Starts a consumer (AMQP 0-9-1, 1.8.3.3).
    ///
    /// # Errors
    /// Those of a [call](Self#calls), and [`Misuse::DuplicateConsumerTag`](amqp_async::core::Misuse).
    pub fn basic_consume(&self, consume: impl Into<BasicConsume>) -> Result<Consumer, Error> {
        wait(self.shared().basic_consume(consume)).map(Consumer::new)
    }
}

/// A consumer of a queue: an iterator that waits for the next delivery, in the order in which the broker
/// sent them.
///
/// It ends with `None` once it was cancelled from here. An error ends it: the channel or connection
/// closed, or the broker cancelled it.
///
/// Dropped, it is cancelled in the background, and deliveries that were not taken from it are
/// requeued; without acknowledgement they are lost, and of a stream they are acknowledged.
#[must_use = "a consumer that is dropped is cancelled"]
#[derive(Debug)]
pub struct Consumer(amqp_async::Consumer);

impl Consumer {
    pub(crate) const fn new(consumer: amqp_async::Consumer) -> Self {
        Self(consumer)
    }

    /// The consumer's tag on its channel.
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

    /// Waits for the next delivery for `timeout` at most: `None` if none came, or the consumer has ended
    /// (see [`is_ended`](Self::is_ended)).
    ///
    /// # Errors
    /// Why the consumer has ended, once: [`Error::Channel`], [`Error::Connection`],
    /// [`Error::ConsumerCancelled`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Delivery>, Error> {
        wrap(wait_timeout(self.0.next(), timeout).flatten()).transpose()
    }

    /// The channel that it consumes on.
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

    /// Whether the last delivery, or the error that ended the consumer, has been taken.
    pub fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    /// Cancels the consumer (`basic.cancel`). Deliveries that the broker had sent can still be taken,
    /// then it ends.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls).
    pub fn cancel(&mut self) -> Result<(), Error> {
        wait(self.0.cancel())
    }

    /// Cancels the consumer, and gives back what was delivered and not taken: it is requeued. Returns the
    /// number of those messages. Without acknowledgement nothing can be given back: 0, and what had come
    /// can still be taken. A stream takes nothing back: of it they are acknowledged.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls), and why the consumer has ended, if not by a cancel from
    /// here.
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
