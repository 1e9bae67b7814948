//! `basic.qos`, `basic.consume`, `basic.cancel` and `basic.get`.

use std::sync::Arc;

use amqp_proto::ReplyCode;
use amqp_proto::method::basic;

use super::acking::Unacked;
use super::acknowledgement_timeout::AcknowledgementTimer;
use super::broker::Broker;
use super::channel::{Channel, Consumer};
use super::consumer_arguments::ConsumerArguments;
use super::direct_replies::REPLY_TO;
use super::fields::{short, table};
use super::queue::ConsumerAt;
use super::queue_arguments::QueueKind;
use super::quorum::DEFAULT_PREFETCH;
use super::refusal::Refusal;
use super::users::Permission;

impl Channel<'_> {
    pub(super) fn qos(&mut self, qos: basic::Qos) -> Result<(), Refusal> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text));
        }
        let state = self.state();
        if qos.global {
            state.global_prefetch = qos.prefetch_count;
        } else {
            state.prefetch = qos.prefetch_count;
            state.global_prefetch = 0;
        }
        self.send(&basic::QosOk::default());
        self.broker.deliver_all();
        Ok(())
    }

    pub(super) fn consume(&mut self, consume: &basic::Consume<'_>) -> Result<(), Refusal> {
        let arguments = table(consume.arguments)?;
        let name = self.named_queue(consume.queue)?;
        if name == REPLY_TO {
            self.check_reply_consumer(consume.no_ack)?;
            let tag = self.add_consumer(consume, &name, ConsumerArguments::default())?;
            self.state().reply_consumer = Some(tag.clone());
            self.answer(consume.no_wait, &basic::ConsumeOk { consumer_tag: short(&tag) });
            return Ok(());
        }
        self.check_queue(Permission::Read, &name)?;
        let now = self.broker.now;
        let kind = self.queue(&name)?.arguments.kind;
        let arguments = ConsumerArguments::new(&name, kind, &arguments, now)?;
        self.check_consumer(&name, kind, consume.no_ack)?;
        let queue = self.queue(&name)?;
        let alone = queue.arguments.single_active_consumer || !queue.consumers.is_empty();
        // Only classic queues know exclusive consumers.
        let is_classic = kind == QueueKind::Classic;
        if is_classic && (queue.taken || (consume.exclusive && alone)) {
            let text = format!("queue '{name}' in vhost '/' in exclusive use");
            return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
        }
        let tag = self.add_consumer(consume, &name, arguments)?;
        let at = self.consumer_at(&tag, arguments.priority);
        let queue = self.queue(&name)?;
        queue.consumed = true;
        queue.taken = consume.exclusive && is_classic;
        queue.consumers.push_back(at);
        self.answer(consume.no_wait, &basic::ConsumeOk { consumer_tag: short(&tag) });
        self.broker.deliver(&name);
        Ok(())
    }

    /// Returns an error if the channel cannot consume from this kind of queue.
    fn check_consumer(&mut self, name: &str, kind: QueueKind, no_ack: bool) -> Result<(), Refusal> {
        let state = self.state();
        let text = match kind {
            QueueKind::Stream if state.prefetch == 0 => {
                let text =
                    format!("consumer prefetch count is not set for 'queue '{name}' in vhost '/''");
                return Err(Refusal::precondition_failed(text));
            }
            QueueKind::Stream if no_ack => format!(
                "automatic acknowledgement not supported by stream queues queue '{name}' in vhost '/'"
            ),
            QueueKind::Quorum | QueueKind::Stream if state.global_prefetch > 0 => {
                format!("queue '{name}' in vhost '/' does not support global qos")
            }
            _ => return Ok(()),
        };
        Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text))
    }

    pub(super) fn get(&mut self, get: &basic::Get<'_>) -> Result<(), Refusal> {
        let name = self.named_queue(get.queue)?;
        self.check_queue(Permission::Read, &name)?;
        let queue = self.queue(&name)?;
        let is_quorum = queue.arguments.is_quorum();
        if is_quorum && queue.arguments.single_active_consumer {
            return Err(Refusal::channel(
                ReplyCode::RESOURCE_LOCKED,
                format!(
                    "cannot obtain access to locked queue '{name}' in vhost '/'. basic.get \
                     operations are not supported by quorum queues with single active consumer"
                ),
            ));
        }
        if queue.arguments.kind == QueueKind::Stream {
            let text =
                format!("basic.get not supported by stream queues queue '{name}' in vhost '/'");
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text));
        }
        let first = queue.pop_first();
        self.broker.postpone_queue_expiry(&name);
        self.broker.drop_expired(&name);
        let queue = self.queue(&name)?;
        queue.limit_publishers();
        let message_count = queue.len();
        let now = self.broker.now;
        let Some(queued) = first else {
            self.send(&basic::GetEmpty::default());
            return Ok(());
        };
        let state = self.state();
        state.last_tag += 1;
        let delivery_tag = state.last_tag;
        let redelivered = queued.redelivered;
        // A quorum queue counts from the first `basic.get` on, and from the second delivery to a consumer.
        let message = match is_quorum {
            true => queued.with_delivery_count(),
            false => Arc::clone(&queued.message),
        };
        if !get.no_ack {
            let (consumer, number) = (Vec::new(), 0);
            let unacked = Unacked { queue: name, consumer, number, delivered_at: now, queued };
            state.unacked.insert(delivery_tag, unacked);
            self.time_acknowledgements();
        }
        let get_ok = basic::GetOk {
            delivery_tag,
            redelivered,
            exchange: short(message.exchange.as_bytes()),
            routing_key: short(&message.wire_key),
            message_count,
        };
        self.send_message(&get_ok, &message);
        Ok(())
    }

    pub(super) fn cancel(&mut self, cancel: &basic::Cancel<'_>) {
        let tag = cancel.consumer_tag.as_bytes();
        let state = self.state();
        let consumer = state.consumers.remove(tag);
        if state.reply_consumer.as_deref() == Some(tag) {
            state.reply_consumer = None;
        }
        self.answer(cancel.no_wait, &basic::CancelOk { consumer_tag: cancel.consumer_tag });
        if let Some(Consumer { queue, priority, .. }) = consumer {
            let at = self.consumer_at(tag, priority);
            self.broker.remove_consumer(&queue, &at);
            // Another consumer may get what this one did not take.
            self.broker.deliver(&queue);
        }
    }

    /// Sets the deadline for the deliveries of the channel, unless it has one.
    fn time_acknowledgements(&mut self) {
        let (id, number) = (self.id, self.number);
        let Broker { connections, deadlines, now, consumer_timeout, .. } = &mut *self.broker;
        let connection = connections.get_mut(&id);
        if let Some(state) = connection.and_then(|found| found.channels.get_mut(&number)) {
            let (now, timeout) = (*now, *consumer_timeout);
            AcknowledgementTimer { now, timeout, deadlines }.start(id, number, state);
        }
    }

    /// Adds a consumer. Returns its tag.
    fn add_consumer(
        &mut self,
        consume: &basic::Consume<'_>,
        queue: &str,
        arguments: ConsumerArguments,
    ) -> Result<Vec<u8>, Refusal> {
        let number = self.number;
        let found = self.broker.queues.get(queue);
        let is_quorum = found.is_some_and(|it| it.arguments.is_quorum());
        let offset = found.map_or(0, |it| it.log.offset(arguments.offset));
        let state = self.state();
        let mut tag = consume.consumer_tag.as_bytes().to_vec();
        if tag.is_empty() {
            tag = format!("amq.ctag-{number}-{}", state.consumers_made).into_bytes();
        }
        if state.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{}'", tag.escape_ascii());
            return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
        }
        state.consumers_made += 1;
        let prefetch = match u32::from(state.prefetch) {
            0 if is_quorum => DEFAULT_PREFETCH,
            prefetch => prefetch,
        };
        let consumer = Consumer {
            number: state.consumers_made,
            queue: queue.to_owned(),
            no_ack: consume.no_ack,
            prefetch,
            unacked: 0,
            priority: arguments.priority,
            offset,
        };
        state.consumers.insert(tag.clone(), consumer);
        Ok(tag)
    }

    fn consumer_at(&self, tag: &[u8], priority: i64) -> ConsumerAt {
        ConsumerAt { connection: self.id, channel: self.number, tag: tag.to_vec(), priority }
    }
}

impl Broker {
    /// Removes a consumer from a queue. An auto-delete queue is deleted with its last one.
    pub(super) fn remove_consumer(&mut self, queue: &str, at: &ConsumerAt) {
        let Some(found) = self.queues.get_mut(queue) else { return };
        found.remove_consumer(at);
        if found.auto_delete && found.consumed && found.consumers.is_empty() {
            self.delete_queue(queue);
        } else {
            self.postpone_queue_expiry(queue);
        }
    }
}
