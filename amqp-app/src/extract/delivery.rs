//! The delivery as an argument: the handler acknowledges the message itself.

use amqp_async::Delivery;

use super::FromContext;
use crate::context::Context;
use crate::failure::Failure;

/// The handler takes the delivery, and acks, nacks or rejects it. The retry policy does not apply. What the handler returns
/// is not sent, and its failure is only counted. A delivery that is dropped goes back into its queue.
///
/// In a [transactional](crate::Consume::transactional) source, what the handler has answered when it returns is committed then.
/// What it answers later is committed with the next message of its worker, which may not come while the delivery takes the
/// place of the prefetch.
///
/// A source that [deduplicates](crate::Consume::deduplicate) has to know what became of a message: there this argument ends the
/// application, and the message goes back into its queue.
impl<S> FromContext<S> for Delivery {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        if context.deduplicates() {
            let text = "a source that deduplicates acknowledges its messages itself, and its handler cannot take the delivery";
            return Err(Failure::stop(text));
        }
        let missing = "the delivery was taken by another argument, or there is none in this test";
        context.take_delivery().ok_or_else(|| Failure::permanent(missing))
    }

    fn give_back(self, context: &Context<S>) {
        context.put_delivery(self);
    }
}

/// The same, with the methods of threads.
#[cfg(feature = "threads")]
impl<S> FromContext<S> for amqp_blocking::Delivery {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Delivery::from_context(context).map(Self::from)
    }

    fn give_back(self, context: &Context<S>) {
        context.put_delivery(self.into());
    }
}
