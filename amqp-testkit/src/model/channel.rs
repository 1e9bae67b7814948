//! One channel: its state, and who handles which method.

use std::collections::BTreeMap;

use amqp_proto::method::{Method, access, basic, channel as wire, confirm, tx};
use amqp_proto::{ReplyCode, ShortStr};

use super::broker::{Broker, ConnectionId, Refusal};
use super::connection::unexpected;
use super::publishing::Content;
use super::queue::{ConsumerAt, Published, Queue, Queued};
use super::topology::locked;

#[derive(Debug, Default)]
pub(super) struct Channel {
    /// `channel.close` was sent: all but its answer is ignored.
    pub(super) closing: bool,
    pub(super) mode: Mode,
    pub(super) prefetch: u16,
    /// For all consumers of the channel together.
    pub(super) global_prefetch: u16,
    pub(super) consumers: BTreeMap<Vec<u8>, Consumer>,
    /// The consumer of direct replies.
    pub(super) reply_consumer: Option<Vec<u8>>,
    pub(super) unacked: BTreeMap<u64, Unacked>,
    pub(super) next_tag: u64,
    pub(super) content: Content,
    pub(super) last_queue: String,
    /// The consumers that the channel has had.
    pub(super) consumers_made: u64,
}

#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    /// The number of the last publish.
    Confirm(u64),
    Transaction(Transaction),
}

/// What waits for a commit.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<(bool, Published)>,
    pub(super) settlements: Vec<(Vec<(u64, Unacked)>, Outcome)>,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Requeued,
    Rejected,
}

#[derive(Debug)]
pub(super) struct Consumer {
    /// Tells it from others that had its tag before.
    pub(super) number: u64,
    pub(super) queue: String,
    pub(super) no_ack: bool,
    pub(super) prefetch: u16,
    pub(super) unacked: u32,
    pub(super) priority: i64,
}

#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) queue: String,
    pub(super) consumer: Vec<u8>,
    /// The consumer's number.
    pub(super) number: u64,
    pub(super) queued: Queued,
}

impl Channel {
    /// A channel that awaits the answer to its close.
    pub(super) fn closing() -> Self {
        Self { closing: true, ..Self::default() }
    }

    /// Deliveries that are not acknowledged; those that wait for a commit are among them.
    pub(super) fn unacknowledged(&self) -> usize {
        let uncommitted = match &self.mode {
            Mode::Transaction(transaction) => {
                transaction.settlements.iter().map(|(settled, _)| settled.len()).sum()
            }
            _ => 0,
        };
        self.unacked.len() + uncommitted
    }
}

impl Broker {
    pub(super) fn handle_channel_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Refusal> {
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        if !matches!(channel.content, Content::None) {
            return Err(unexpected("a method where content is due"));
        }
        match method {
            Method::ChannelClose(_) => {
                self.answer(id, number, false, &wire::CloseOk::default());
                let connection = self.connections.get_mut(&id);
                let channel = connection.and_then(|found| found.channels.remove(&number));
                if let Some(channel) = channel {
                    self.release_channel(id, number, channel);
                    self.deliver_all();
                }
                Ok(())
            }
            Method::ChannelFlow(flow) if flow.active => {
                self.answer(id, number, false, &wire::FlowOk { active: true });
                Ok(())
            }
            Method::ChannelFlow(_) => {
                Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "active=false"))
            }
            Method::AccessRequest(_) => {
                self.answer(id, number, false, &access::RequestOk { ticket: 1 });
                Ok(())
            }
            Method::ConfirmSelect(select) => {
                match channel.mode {
                    Mode::Plain => channel.mode = Mode::Confirm(0),
                    Mode::Confirm(_) => {}
                    Mode::Transaction(_) => {
                        return Err(mode("cannot switch from tx to confirm mode"));
                    }
                }
                self.answer(id, number, select.nowait, &confirm::SelectOk::default());
                Ok(())
            }
            Method::TxSelect(_) => {
                match channel.mode {
                    Mode::Plain => channel.mode = Mode::Transaction(Transaction::default()),
                    Mode::Confirm(_) => return Err(mode("cannot switch from confirm to tx mode")),
                    Mode::Transaction(_) => {}
                }
                self.answer(id, number, false, &tx::SelectOk::default());
                Ok(())
            }
            Method::TxCommit(_) => self.commit(id, number),
            Method::TxRollback(_) => self.roll_back(id, number),
            Method::BasicQos(qos) => self.qos(id, number, *qos),
            Method::BasicPublish(publish) => self.begin_publish(id, number, publish),
            Method::ExchangeDeclare(declare) => self.exchange_declare(id, number, declare),
            Method::ExchangeDelete(delete) => self.exchange_delete(id, number, delete),
            Method::ExchangeBind(bind) => self.exchange_bind(id, number, bind),
            Method::ExchangeUnbind(unbind) => self.exchange_unbind(id, number, unbind),
            Method::QueueDeclare(declare) => self.queue_declare(id, number, declare),
            Method::QueueBind(bind) => self.queue_bind(id, number, bind),
            Method::QueueUnbind(unbind) => self.queue_unbind(id, number, unbind),
            Method::QueuePurge(purge) => self.queue_purge(id, number, purge),
            Method::QueueDelete(delete) => self.queue_delete(id, number, delete),
            Method::BasicConsume(consume) => self.consume(id, number, consume),
            Method::BasicGet(get) => self.get(id, number, get),
            Method::BasicCancel(cancel) => self.cancel_consumer(id, number, cancel),
            Method::BasicAck(ack) => {
                let outcome = Outcome::Acknowledged;
                self.settle(id, number, ack.delivery_tag, ack.multiple, outcome)
            }
            Method::BasicNack(nack) => {
                let outcome = refused(nack.requeue);
                self.settle(id, number, nack.delivery_tag, nack.multiple, outcome)
            }
            Method::BasicReject(reject) => {
                let outcome = refused(reject.requeue);
                self.settle(id, number, reject.delivery_tag, false, outcome)
            }
            Method::BasicRecover(basic::Recover { requeue: true }) => {
                self.recover(id, number, true);
                Ok(())
            }
            Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }) => {
                self.recover(id, number, false);
                Ok(())
            }
            Method::BasicRecover(_) | Method::BasicRecoverAsync(_) => {
                Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "requeue=false"))
            }
            method => Err(Refusal::not_implemented(&method.id().to_string())),
        }
    }

    /// A channel is gone: its deliveries are requeued, its consumers leave.
    pub(super) fn release_channel(&mut self, id: ConnectionId, number: u16, mut channel: Channel) {
        if let Mode::Transaction(transaction) = channel.mode {
            let settled = transaction.settlements.into_iter().flat_map(|(settled, _)| settled);
            channel.unacked.extend(settled);
        }
        for unacked in channel.unacked.into_values() {
            if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                queue.requeue(unacked.queued);
            }
        }
        for (tag, consumer) in channel.consumers {
            let at =
                ConsumerAt { connection: id, channel: number, tag, priority: consumer.priority };
            self.remove_consumer(&consumer.queue, &at);
        }
    }

    pub(super) fn remove_consumer(&mut self, name: &str, at: &ConsumerAt) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.consumers.retain(|consumer| consumer != at);
        queue.taken &= !queue.consumers.is_empty();
        if queue.auto_delete && queue.consumed && queue.consumers.is_empty() {
            self.delete_queue(name);
        }
    }

    /// The queue that a method means: an empty name is the one declared last on the channel.
    pub(super) fn named_queue(
        &mut self,
        id: ConnectionId,
        number: u16,
        name: ShortStr<'_>,
    ) -> Result<String, Refusal> {
        if !name.is_empty() {
            return Ok(text(name));
        }
        match self.channel(id, number) {
            Some(channel) if !channel.last_queue.is_empty() => Ok(channel.last_queue.clone()),
            _ => Err(Refusal::channel(ReplyCode::NOT_FOUND, "no previously declared queue")),
        }
    }

    pub(super) fn answer<'a>(
        &mut self,
        id: ConnectionId,
        number: u16,
        no_wait: bool,
        method: &impl amqp_proto::method::WireMethod<'a>,
    ) {
        if let (false, Some(connection)) = (no_wait, self.connections.get_mut(&id)) {
            connection.send(number, method);
        }
    }

    pub(super) fn channel(&mut self, id: ConnectionId, number: u16) -> Option<&mut Channel> {
        self.connections.get_mut(&id)?.channels.get_mut(&number)
    }
}

pub(super) fn text(name: ShortStr<'_>) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

pub(super) fn check_owner(queue: &Queue, name: &str, id: ConnectionId) -> Result<(), Refusal> {
    if queue.exclusive.is_some_and(|owner| owner != id) { Err(locked(name)) } else { Ok(()) }
}

fn mode(text: &str) -> Refusal {
    Refusal::channel(ReplyCode::PRECONDITION_FAILED, text)
}

const fn refused(requeue: bool) -> Outcome {
    if requeue { Outcome::Requeued } else { Outcome::Rejected }
}
