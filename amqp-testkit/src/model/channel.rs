//! One channel: its state, the view [`Channel`], and which function handles which method.
//!
//! The view borrows the broker for one frame of one open channel. The files `publishing`, `consuming`, `acking`,
//! `transactions` and `topology` add its methods. Only `close` removes the channel, and it consumes the view.

use std::collections::BTreeMap;

use amqp_proto::method::{Method, WireMethod, access, basic, channel};
use amqp_proto::{ReplyCode, ShortStr};

use super::acking::{Outcome, Unacked};
use super::broker::{Broker, ConnectionId};
use super::confirms::Confirms;
use super::connection::Connection;
use super::dead_letters::Reason;
use super::deadlines::Due;
use super::fields::text;
use super::message::Message;
use super::publishing::Content;
use super::queue::{ConsumerAt, Queue};
use super::queue_arguments::QueueKind;
use super::quorum::Publisher;
use super::refusal::Refusal;
use super::transactions::Transaction;

/// An open channel of a connection, with the broker that it belongs to.
#[derive(Debug)]
pub(super) struct Channel<'b> {
    pub(super) broker: &'b mut Broker,
    pub(super) id: ConnectionId,
    pub(super) number: u16,
}

#[derive(Debug, Default)]
pub(super) struct ChannelState {
    /// Whether `channel.close` was sent. Everything but the answer to it is ignored.
    pub(super) closing: bool,
    pub(super) mode: Mode,
    pub(super) prefetch: u16,
    /// The limit for all consumers of the channel together.
    pub(super) global_prefetch: u16,
    pub(super) consumers: BTreeMap<Vec<u8>, Consumer>,
    /// The tag of the consumer of direct replies.
    pub(super) reply_consumer: Option<Vec<u8>>,
    pub(super) unacked: BTreeMap<u64, Unacked>,
    /// Whether a deadline is set at which deliveries are unacknowledged for too long.
    pub(super) has_deadline: bool,
    /// The tag of the last delivery.
    pub(super) last_tag: u64,
    pub(super) content: Content,
    pub(super) last_queue: String,
    /// The number of consumers that the channel has had.
    pub(super) consumers_made: u64,
}

#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

#[derive(Debug)]
pub(super) struct Consumer {
    /// Distinguishes it from earlier consumers with the same tag.
    pub(super) number: u64,
    pub(super) queue: String,
    pub(super) no_ack: bool,
    pub(super) prefetch: u32,
    pub(super) unacked: u32,
    pub(super) priority: i64,
    /// The offset of the next message of a stream.
    pub(super) offset: u64,
}

impl Channel<'_> {
    /// Handles a method of this channel.
    pub(super) fn handle_method(mut self, method: &Method<'_>) -> Result<(), Refusal> {
        if let Method::ChannelOpen(_) = method {
            let text = "second 'channel.open' seen";
            return Err(Refusal::connection(ReplyCode::CHANNEL_ERROR, text));
        }
        if self.state().closing {
            self.handle_while_closing(method);
            return Ok(());
        }
        if !matches!(self.state().content, Content::None) {
            return Err(Refusal::unexpected_frame("a method where content is due"));
        }
        if !matches!(method, Method::BasicPublish(_)) {
            self.send_confirms();
        }
        match method {
            Method::ChannelClose(_) => self.close(),
            Method::ChannelFlow(flow) if flow.active => {
                self.send(&channel::FlowOk { active: true });
            }
            Method::ChannelFlow(_) => {
                return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "active=false"));
            }
            Method::AccessRequest(_) => self.send(&access::RequestOk { ticket: 1 }),
            Method::ConfirmSelect(select) => return self.select_confirms(select.nowait),
            Method::TxSelect(_) => return self.select_transactions(),
            Method::TxCommit(_) => return self.commit(),
            Method::TxRollback(_) => return self.roll_back(),
            Method::ExchangeDeclare(declare) => return self.exchange_declare(declare),
            Method::ExchangeDelete(delete) => return self.exchange_delete(delete),
            Method::ExchangeBind(bind) => return self.exchange_bind(bind),
            Method::ExchangeUnbind(unbind) => return self.exchange_unbind(unbind),
            Method::QueueDeclare(declare) => return self.queue_declare(declare),
            Method::QueueBind(bind) => return self.queue_bind(bind),
            Method::QueueUnbind(unbind) => return self.queue_unbind(unbind),
            Method::QueuePurge(purge) => return self.queue_purge(purge),
            Method::QueueDelete(delete) => return self.queue_delete(delete),
            Method::BasicPublish(publish) => return self.begin_publish(publish),
            Method::BasicQos(qos) => return self.qos(*qos),
            Method::BasicConsume(consume) => return self.consume(consume),
            Method::BasicCancel(cancel) => self.cancel(cancel),
            Method::BasicGet(get) => return self.get(get),
            Method::BasicAck(ack) => {
                return self.acknowledge(ack.delivery_tag, ack.multiple, Outcome::Acknowledged);
            }
            Method::BasicNack(nack) => {
                let outcome = Outcome::of_nack(nack.requeue);
                return self.acknowledge(nack.delivery_tag, nack.multiple, outcome);
            }
            Method::BasicReject(reject) => {
                let outcome = Outcome::of_nack(reject.requeue);
                return self.acknowledge(reject.delivery_tag, false, outcome);
            }
            Method::BasicRecover(basic::Recover { requeue: true }) => return self.recover(true),
            Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }) => {
                return self.recover(false);
            }
            Method::BasicRecover(_) | Method::BasicRecoverAsync(_) => {
                return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "requeue=false"));
            }
            method => return Err(Refusal::not_implemented(&method.id().to_string())),
        }
        Ok(())
    }

    /// Handles a method after this side has sent a close. If the client has sent one too, each is answered.
    fn handle_while_closing(mut self, method: &Method<'_>) {
        match method {
            Method::ChannelClose(_) => self.send(&channel::CloseOk::default()),
            Method::ChannelCloseOk(_) => {
                let number = self.number;
                self.connection().channels.remove(&number);
            }
            _ => {}
        }
    }

    fn close(mut self) {
        self.send(&channel::CloseOk::default());
        let Self { broker, id, number } = self;
        let connection = broker.connections.get_mut(&id);
        if let Some(state) = connection.and_then(|found| found.channels.remove(&number)) {
            broker.release_channel(id, number, state);
            broker.deliver_all();
        }
    }

    pub(super) fn state(&mut self) -> &mut ChannelState {
        let number = self.number;
        let state = self.connection().channels.get_mut(&number);
        state.expect("the channel of a view is open")
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        let connection = self.broker.connections.get_mut(&self.id);
        connection.expect("the connection of a view exists")
    }

    /// Returns the name of the queue that a method means. An empty name stands for the queue declared last on the channel.
    pub(super) fn named_queue(&mut self, name: ShortStr<'_>) -> Result<String, Refusal> {
        let last = &self.state().last_queue;
        match name.is_empty() {
            false => Ok(text(name)),
            true if !last.is_empty() => Ok(last.clone()),
            true => {
                let text = "no previously declared queue";
                Err(Refusal::channel(ReplyCode::NOT_FOUND, text))
            }
        }
    }

    /// Returns a queue, if it exists and this connection may use it.
    pub(super) fn queue(&mut self, name: &str) -> Result<&mut Queue, Refusal> {
        let queue = self.broker.queues.get_mut(name).ok_or_else(|| Refusal::no_queue(name))?;
        queue.check_owner(name, self.id)?;
        Ok(queue)
    }

    /// Sends the answer to a method, unless the client asked for none (`no-wait`).
    pub(super) fn answer<'a>(&mut self, no_wait: bool, method: &impl WireMethod<'a>) {
        if !no_wait {
            self.send(method);
        }
    }

    pub(super) fn send<'a>(&mut self, method: &impl WireMethod<'a>) {
        let number = self.number;
        self.connection().send(number, method);
    }

    pub(super) fn send_message<'a>(&mut self, method: &impl WireMethod<'a>, message: &Message) {
        let number = self.number;
        self.connection().send_message(number, method, message);
    }
}

impl ChannelState {
    /// Returns the state of a channel that awaits the answer to its close.
    pub(super) fn closing() -> Self {
        Self { closing: true, ..Self::default() }
    }

    /// Returns the number of unacknowledged deliveries, with those whose acknowledgement waits for a commit.
    pub(super) fn unacknowledged(&self) -> usize {
        let uncommitted = match &self.mode {
            Mode::Transaction(transaction) => {
                transaction.acks.iter().map(|acked| acked.deliveries.len()).sum()
            }
            _ => 0,
        };
        self.unacked.len() + uncommitted
    }

    /// Returns the unacknowledged deliveries, with those whose acknowledgement waits for a commit.
    pub(super) fn all_unacked(&self) -> impl Iterator<Item = &Unacked> {
        let uncommitted = match &self.mode {
            Mode::Transaction(transaction) => transaction.acks.as_slice(),
            _ => &[],
        };
        let uncommitted = uncommitted.iter().flat_map(|acked| acked.deliveries.values());
        self.unacked.values().chain(uncommitted)
    }

    /// The same, of a channel that is gone.
    pub(super) fn into_unacked(mut self) -> impl Iterator<Item = Unacked> {
        if let Mode::Transaction(transaction) = self.mode {
            self.unacked.extend(transaction.acks.into_iter().flat_map(|acked| acked.deliveries));
        }
        self.unacked.into_values()
    }
}

impl Broker {
    pub(super) fn channel(&mut self, id: ConnectionId, number: u16) -> Option<Channel<'_>> {
        let connection = self.connections.get(&id)?;
        let known = connection.channels.contains_key(&number);
        known.then_some(Channel { broker: self, id, number })
    }

    /// Requeues the deliveries of a channel that has closed, and removes its consumers.
    pub(super) fn release_channel(
        &mut self,
        id: ConnectionId,
        number: u16,
        mut state: ChannelState,
    ) {
        let consumers = std::mem::take(&mut state.consumers);
        for unacked in state.into_unacked() {
            self.requeue(unacked, false);
        }
        self.deadlines.set(Due::Acknowledgement(id, number), None);
        let publisher = Publisher::Channel(id, number);
        self.queues.values_mut().for_each(|queue| queue.quorum.forget(publisher));
        for (tag, Consumer { queue, priority, .. }) in consumers {
            let at = ConsumerAt { connection: id, channel: number, tag, priority };
            self.remove_consumer(&queue, &at);
        }
    }

    /// Requeues a delivery, which a client has returned or which was lost with its channel.
    pub(super) fn requeue(&mut self, unacked: Unacked, by_client: bool) {
        let Unacked { queue: name, queued, .. } = unacked;
        let Some(queue) = self.queues.get_mut(&name) else { return };
        let too_often = match queue.arguments.kind {
            QueueKind::Classic => {
                queue.requeue(queued);
                None
            }
            QueueKind::Quorum => queue.take_back(queued, by_client),
            // A stream keeps what it has delivered.
            QueueKind::Stream => return,
        };
        if let Some(queued) = too_often {
            self.dead_letter(&name, &queued.message, Reason::DeliveryLimit);
        }
        self.drop_head(&name);
    }
}
