//! `basic.ack`, `basic.nack`, `basic.reject` and `basic.recover`.

use std::collections::BTreeMap;
use std::time::Duration;

use amqp_proto::ReplyCode;
use amqp_proto::method::basic;

use super::channel::{Channel, Mode};
use super::dead_letters::Reason;
use super::queue::Queued;
use super::queue_arguments::QueueKind;
use super::refusal::Refusal;

/// An unacknowledged delivery.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) queue: String,
    pub(super) consumer: Vec<u8>,
    /// The consumer's number, 0 if the delivery answered a `basic.get`.
    pub(super) number: u64,
    pub(super) delivered_at: Duration,
    pub(super) queued: Queued,
}

/// Deliveries, by their tags, and what the client has done with them.
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
        // Tag 0 stands for all deliveries. There may be none.
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
            Mode::Transaction(transaction) => {
                transaction.acks.push(acked);
                Ok(())
            }
            _ => self.apply(acked),
        }
    }

    /// Requeues all unacknowledged deliveries of the channel.
    pub(super) fn recover(&mut self, answered: bool) -> Result<(), Refusal> {
        let unacked: Vec<_> = self.state().unacked.values().map(|it| it.queue.clone()).collect();
        unacked.iter().try_for_each(|queue| self.check_return(queue))?;
        self.answer(!answered, &basic::RecoverOk::default());
        let state = self.state();
        for consumer in state.consumers.values_mut() {
            consumer.unacked = 0;
        }
        for unacked in std::mem::take(&mut state.unacked).into_values() {
            self.broker.requeue(unacked, true);
        }
        self.broker.deliver_all();
        Ok(())
    }

    /// Removes, requeues or dead-letters the deliveries.
    pub(super) fn apply(&mut self, acked: Acked) -> Result<(), Refusal> {
        let Acked { deliveries, outcome } = acked;
        for unacked in deliveries.into_values() {
            if let Some(consumer) = self.state().consumers.get_mut(&unacked.consumer)
                && consumer.number == unacked.number
            {
                consumer.unacked = consumer.unacked.saturating_sub(1);
            }
            let queue = unacked.queue.clone();
            if outcome != Outcome::Acknowledged {
                self.check_return(&queue)?;
            }
            match outcome {
                Outcome::Acknowledged => {}
                Outcome::Requeued => self.broker.requeue(unacked, true),
                Outcome::Rejected => {
                    self.broker.dead_letter(&queue, &unacked.queued.message, Reason::Rejected);
                }
            }
            self.broker.deliver(&queue);
        }
        // The channel's prefetch may have held up consumers of other queues.
        if self.state().global_prefetch > 0 {
            self.broker.deliver_all();
        }
        Ok(())
    }

    /// Returns an error if nothing can be returned to this queue, because it is a stream.
    fn check_return(&self, queue: &str) -> Result<(), Refusal> {
        let kind = self.broker.queues.get(queue).map(|found| found.arguments.kind);
        if kind != Some(QueueKind::Stream) {
            return Ok(());
        }
        let text = format!(
            "basic.nack and basic.reject not supported by stream queues queue '{queue}' in vhost '/'"
        );
        Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text))
    }
}
