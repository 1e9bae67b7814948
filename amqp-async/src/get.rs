//! `basic.get`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{BasicGet, Error};
use futures_core::FusedFuture;

use crate::call::Calling;
use crate::channel::Channel;
use crate::delivery::{Delivery, Origin};
use crate::trace::{Once, QueueName};

impl Channel {
    /// Fetches one message from a queue (`basic.get`; AMQP 0-9-1, 1.8.3.10;
    /// <https://www.rabbitmq.com/docs/consumers#polling>). Takes the name of the queue, or a [`BasicGet`].
    /// Resolves to `None` if the queue is empty.
    ///
    /// Each message costs a round trip. To read more than a few, start a consumer.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    ///
    /// # Cancel safety
    /// As for [`Getting`]: a message that arrives after the drop is requeued.
    pub fn basic_get(&self, get: impl Into<BasicGet>) -> Getting {
        let get = get.into();
        let (no_ack, requeue_on_drop) = (get.no_ack, get.requeue_on_drop);
        let queue = QueueName::new(&get.queue);
        Getting { calling: self.call(get), no_ack, requeue_on_drop, queue }
    }
}

/// A message that is being fetched. Resolves to `None` if the queue is empty: see [`Channel::basic_get`].
///
/// # Errors
/// Those of [`Calling`].
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the message is
/// requeued when it arrives. Without acknowledgement it is lost.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Getting {
    calling: Calling<BasicGet>,
    no_ack: bool,
    requeue_on_drop: bool,
    queue: QueueName,
}

impl Future for Getting {
    type Output = Result<Option<Delivery>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let got = Pin::new(&mut self.calling).poll(cx);
        got.map_ok(|got| {
            let channel = Arc::clone(self.calling.holder());
            let Self { no_ack, requeue_on_drop, .. } = *self;
            let origin = Origin {
                channel,
                consumer: None,
                message_count: None,
                no_ack,
                requeue_on_drop,
                queue: self.queue.clone(),
                drop_logged: Once::default(),
            };
            got.map(|got| Delivery::got(origin, got))
        })
    }
}

impl FusedFuture for Getting {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}
