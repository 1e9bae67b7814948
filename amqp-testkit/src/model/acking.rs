//! Acknowledging: ack, nack, reject, recover, and what becomes of the deliveries.

use std::collections::BTreeMap;

use amqp_proto::method::basic;

use super::channel::{Channel, Mode};
use super::dead_letters::Reason;
use super::queue::Queued;
use super::refusal::Refusal;

/// A delivery that is not acknowledged.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) queue: String,
    pub(super) consumer: Vec<u8>,
    /// The consumer's number. 0 is the number of no consumer: the delivery answered a `basic.get`.
    pub(super) number: u64,
    pub(super) queued: Queued,
}

/// Deliveries by their tags, and what the client has decided about them.
#[derive(Debug)]
pub(super) struct Acked {
    pub(super) deliveries: BTreeMap<u64, Unacked>,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Requeued,
    Rejected,
}

impl Outcome {
    /// The outcome of `basic.nack` and `basic.reject`.
    pub(super) const fn of_nack(requeue: bool) -> Self {
        if requeue { Self::Requeued } else { Self::Rejected }
    }
}

impl Channel<'_> {
    pub(super) fn acknowledge(
        &mut self,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<(), Refusal> {
        let state = self.state();
        // Tag 0 stands for all deliveries, of which there may be none.
        let all = multiple && tag == 0;
        if !all && !state.unacked.contains_key(&tag) {
            return Err(Refusal::precondition_failed(format!("unknown delivery tag {tag}")));
        }
        let first = if multiple { 0 } else { tag };
        let last = if all { u64::MAX } else { tag };
        let tags: Vec<u64> = state.unacked.range(first..=last).map(|(tag, _)| *tag).collect();
        let taken = tags.into_iter().filter_map(|tag| state.unacked.remove_entry(&tag));
        let acked = Acked { deliveries: taken.collect(), outcome };
        match &mut state.mode {
            Mode::Transaction(transaction) => transaction.acks.push(acked),
            _ => self.apply(acked),
        }
        Ok(())
    }

    /// Requeues everything unacknowledged on the channel.
    pub(super) fn recover(&mut self, answered: bool) {
        self.answer(!answered, &basic::RecoverOk::default());
        let state = self.state();
        for consumer in state.consumers.values_mut() {
            consumer.unacked = 0;
        }
        for unacked in std::mem::take(&mut state.unacked).into_values() {
            self.broker.requeue(unacked);
        }
        self.broker.deliver_all();
    }

    /// Does what the client has decided about deliveries.
    pub(super) fn apply(&mut self, acked: Acked) {
        let Acked { deliveries, outcome } = acked;
        for unacked in deliveries.into_values() {
            if let Some(consumer) = self.state().consumers.get_mut(&unacked.consumer)
                && consumer.number == unacked.number
            {
                consumer.unacked = consumer.unacked.saturating_sub(1);
            }
            let queue = unacked.queue.clone();
            match outcome {
                Outcome::Acknowledged => {}
                Outcome::Requeued => self.broker.requeue(unacked),
                Outcome::Rejected => {
                    self.broker.dead_letter(&queue, &unacked.queued.message, Reason::Rejected);
                }
            }
            self.broker.deliver(&queue);
        }
        // A prefetch of the channel may have held up consumers of other queues.
        if self.state().global_prefetch > 0 {
            self.broker.deliver_all();
        }
    }
}
