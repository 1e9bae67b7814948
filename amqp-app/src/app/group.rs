//! `Group`: the consumers of a source, one for each queue, on one channel. They end together.

use std::pin::Pin;
use std::task::{Context, Poll};

use amqp_async::{Consumer, Delivery, Error, Tx};

use super::intake::Feed;

#[derive(Debug)]
pub(crate) struct Group {
    /// In the order of the queues of the source.
    consumers: Vec<Consumer>,
    /// The one whose turn it is, so that a full queue does not keep the others waiting.
    turn: usize,
    /// The transaction mode of their channel, if it is in it.
    tx: Option<Tx>,
    /// The number of their channel among those of the source.
    number: u64,
}

/// A delivery, and where it comes from.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) delivery: Delivery,
    /// The number of its queue.
    pub(crate) queue: usize,
    /// The transaction mode of its channel.
    pub(crate) tx: Option<Tx>,
    /// The number of its channel among those of the source.
    pub(crate) channel: u64,
}

impl Group {
    pub(crate) const fn of(consumers: Vec<Consumer>, tx: Option<Tx>, number: u64) -> Self {
        Self { consumers, turn: 0, tx, number }
    }

    /// Cancels the consumers, and requeues what was not taken from them. `requeued` gets the number of a queue, and how many
    /// messages went back into it.
    pub(crate) async fn cancel_and_requeue(
        &mut self,
        mut requeued: impl FnMut(usize, usize),
    ) -> Result<(), Error> {
        for (queue, consumer) in self.consumers.iter_mut().enumerate() {
            requeued(queue, consumer.cancel_and_requeue().await?);
        }
        Ok(())
    }
}

impl Feed for Group {
    type Delivery = Arrived;

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arrived, Error>>> {
        let count = self.consumers.len();
        for offset in 0..count {
            let queue = (self.turn + offset) % count;
            match Pin::new(&mut self.consumers[queue].next()).poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(delivery))) => {
                    self.turn = (queue + 1) % count;
                    let (tx, channel) = (self.tx.clone(), self.number);
                    return Poll::Ready(Some(Ok(Arrived { delivery, queue, tx, channel })));
                }
                Poll::Ready(end) => return Poll::Ready(end.and_then(Result::err).map(Err)),
            }
        }
        Poll::Pending
    }

    fn is_stale(arrived: &Arrived) -> bool {
        arrived.delivery.is_stale()
    }
}
