//! `tx.select`, `tx.commit` and `tx.rollback`, and the publishes and acks that wait for a commit.

use amqp_proto::method::tx;

use super::acking::Acked;
use super::channel::{Channel, Mode};
use super::message::Message;
use super::refusal::Refusal;

/// What waits for a commit.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Whether each is mandatory, and the message.
    pub(super) publishes: Vec<(bool, Message)>,
    pub(super) acks: Vec<Acked>,
}

impl Channel<'_> {
    pub(super) fn select_transactions(&mut self) -> Result<(), Refusal> {
        match &mut self.state().mode {
            mode @ Mode::Plain => *mode = Mode::Transaction(Transaction::default()),
            Mode::Confirm(_) => {
                let text = "cannot switch from confirm to tx mode";
                return Err(Refusal::precondition_failed(text));
            }
            Mode::Transaction(_) => {}
        }
        self.send(&tx::SelectOk::default());
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), Refusal> {
        let Transaction { publishes, acks } = self.end_transaction()?;
        let mut taken = true;
        for (mandatory, message) in publishes {
            taken &= self.publish(mandatory, message)?;
        }
        for acked in acks {
            self.apply(acked)?;
        }
        if !taken {
            // A queue has refused a message. What it has answered takes effect all the same.
            return Err(Refusal::precondition_failed("partial tx completion"));
        }
        self.send(&tx::CommitOk::default());
        Ok(())
    }

    /// Rolls back. Deliveries that were acknowledged become unacknowledged again; they are neither requeued nor
    /// redelivered.
    pub(super) fn roll_back(&mut self) -> Result<(), Refusal> {
        let Transaction { acks, .. } = self.end_transaction()?;
        self.state().unacked.extend(acks.into_iter().flat_map(|acked| acked.deliveries));
        self.send(&tx::RollbackOk::default());
        Ok(())
    }

    /// Takes what waits for a commit, and begins the next transaction.
    fn end_transaction(&mut self) -> Result<Transaction, Refusal> {
        match &mut self.state().mode {
            Mode::Transaction(transaction) => Ok(std::mem::take(transaction)),
            _ => Err(Refusal::precondition_failed("channel is not transactional")),
        }
    }
}
