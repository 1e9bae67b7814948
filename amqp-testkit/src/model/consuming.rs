//! `basic.qos`, `basic.consume`, `basic.cancel` and `basic.get`.

use amqp_proto::method::basic;
use amqp_proto::{FieldTable, ReplyCode};

use super::acking::Unacked;
use super::broker::Broker;
use super::channel::{Channel, Consumer};
use super::direct_replies::REPLY_TO;
use super::fields::{short, table};
use super::queue::ConsumerAt;
use super::refusal::Refusal;

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
        let priority = consumer_priority(&table(consume.arguments)?)?;
        let name = self.named_queue(consume.queue)?;
        if name == REPLY_TO {
            self.check_reply_consumer(consume.no_ack)?;
            let tag = self.add_consumer(consume, &name, priority)?;
            self.state().reply_consumer = Some(tag.clone());
            self.answer(consume.no_wait, &basic::ConsumeOk { consumer_tag: short(&tag) });
            return Ok(());
        }
        let queue = self.queue(&name)?;
        if queue.taken || (consume.exclusive && !queue.consumers.is_empty()) {
            let text = format!("queue '{name}' in vhost '/' in exclusive use");
            return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
        }
        let tag = self.add_consumer(consume, &name, priority)?;
        let at = self.consumer_at(&tag, priority);
        let queue = self.queue(&name)?;
        queue.consumed = true;
        queue.taken = consume.exclusive;
        queue.consumers.push_back(at);
        self.answer(consume.no_wait, &basic::ConsumeOk { consumer_tag: short(&tag) });
        self.broker.deliver(&name);
        Ok(())
    }

    pub(super) fn get(&mut self, get: &basic::Get<'_>) -> Result<(), Refusal> {
        let name = self.named_queue(get.queue)?;
        let first = self.queue(&name)?.ready.pop_first();
        self.broker.postpone_queue_expiry(&name);
        self.broker.drop_expired(&name);
        let message_count = self.queue(&name)?.ready.len() as u32;
        let Some((_, queued)) = first else {
            self.send(&basic::GetEmpty::default());
            return Ok(());
        };
        let state = self.state();
        state.last_tag += 1;
        let delivery_tag = state.last_tag;
        let (redelivered, message) = (queued.redelivered, queued.message.clone());
        if !get.no_ack {
            let unacked = Unacked { queue: name, consumer: Vec::new(), number: 0, queued };
            state.unacked.insert(delivery_tag, unacked);
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

    /// Adds a consumer. Returns its tag.
    fn add_consumer(
        &mut self,
        consume: &basic::Consume<'_>,
        queue: &str,
        priority: i64,
    ) -> Result<Vec<u8>, Refusal> {
        let number = self.number;
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
        let consumer = Consumer {
            number: state.consumers_made,
            queue: queue.to_owned(),
            no_ack: consume.no_ack,
            prefetch: state.prefetch,
            unacked: 0,
            priority,
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
        found.consumers.retain(|consumer| consumer != at);
        found.taken &= !found.consumers.is_empty();
        if found.auto_delete && found.consumed && found.consumers.is_empty() {
            self.delete_queue(queue);
        } else {
            self.postpone_queue_expiry(queue);
        }
    }
}

/// Returns a consumer's priority, 0 by default.
fn consumer_priority(arguments: &FieldTable) -> Result<i64, Refusal> {
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(value) => value.as_i64().ok_or_else(|| {
            Refusal::precondition_failed("invalid arg 'x-priority': expected integer")
        }),
    }
}
