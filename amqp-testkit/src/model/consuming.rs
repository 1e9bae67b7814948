//! Consuming, getting, settling.

use amqp_proto::ReplyCode;
use amqp_proto::method::basic;

use super::arguments::{arguments, consumer_priority};
use super::broker::{Broker, ConnectionId, Refusal, no_queue};
use super::channel::{Channel, Consumer, Mode, Outcome, Unacked, check_owner};
use super::connection::short;
use super::publishing::REPLY_TO;
use super::queue::ConsumerAt;

impl Broker {
    pub(super) fn qos(
        &mut self,
        id: ConnectionId,
        number: u16,
        qos: basic::Qos,
    ) -> Result<(), Refusal> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text));
        }
        if let Some(channel) = self.channel(id, number) {
            if qos.global {
                channel.global_prefetch = qos.prefetch_count;
            } else {
                channel.prefetch = qos.prefetch_count;
                channel.global_prefetch = 0;
            }
        }
        self.answer(id, number, false, &basic::QosOk::default());
        self.deliver_all();
        Ok(())
    }

    pub(super) fn consume(
        &mut self,
        id: ConnectionId,
        number: u16,
        consume: &basic::Consume<'_>,
    ) -> Result<(), Refusal> {
        let priority = consumer_priority(&arguments(consume.arguments)?)?;
        let replies = consume.queue.as_bytes() == REPLY_TO.as_bytes();
        let name = self.named_queue(id, number, consume.queue)?;
        if replies {
            let taken = self.channel(id, number).is_some_and(|it| it.reply_consumer.is_some());
            let refused = |text| Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text));
            if !consume.no_ack {
                return refused("reply consumer cannot acknowledge");
            } else if taken {
                return refused("reply consumer already set");
            }
        } else {
            let Some(queue) = self.queues.get(&name) else { return Err(no_queue(&name)) };
            check_owner(queue, &name, id)?;
            if queue.taken || (consume.exclusive && !queue.consumers.is_empty()) {
                let text = format!("queue '{name}' in vhost '/' in exclusive use");
                return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
            }
        }
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        let tag = channel.add_consumer(number, consume, &name, priority)?;
        if replies {
            channel.reply_consumer = Some(tag.clone());
        } else if let Some(queue) = self.queues.get_mut(&name) {
            queue.consumed = true;
            queue.taken = consume.exclusive;
            let at = ConsumerAt { connection: id, channel: number, tag: tag.clone(), priority };
            queue.consumers.push_back(at);
        }
        let consume_ok = basic::ConsumeOk { consumer_tag: short(&tag) };
        self.answer(id, number, consume.no_wait, &consume_ok);
        self.deliver(&name);
        Ok(())
    }

    pub(super) fn get(
        &mut self,
        id: ConnectionId,
        number: u16,
        get: &basic::Get<'_>,
    ) -> Result<(), Refusal> {
        let name = self.named_queue(id, number, get.queue)?;
        let Some(queue) = self.queues.get_mut(&name) else { return Err(no_queue(&name)) };
        check_owner(queue, &name, id)?;
        let first = queue.ready.pop_first();
        let message_count = queue.ready.len() as u32;
        let Some((_, queued)) = first else {
            self.answer(id, number, false, &basic::GetEmpty::default());
            return Ok(());
        };
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        channel.next_tag += 1;
        let delivery_tag = channel.next_tag;
        let (redelivered, published) = (queued.redelivered, queued.message.clone());
        if !get.no_ack {
            // No consumer has the number 0.
            let unacked = Unacked { queue: name, consumer: Vec::new(), number: 0, queued };
            channel.unacked.insert(delivery_tag, unacked);
        }
        let get_ok = basic::GetOk {
            delivery_tag,
            redelivered,
            exchange: short(published.0.exchange.as_bytes()),
            routing_key: short(&published.0.wire_key),
            message_count,
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(number, &get_ok);
            connection.send_content(number, &published.0.properties, &published.0.body);
        }
        Ok(())
    }

    pub(super) fn cancel_consumer(
        &mut self,
        id: ConnectionId,
        number: u16,
        cancel: &basic::Cancel<'_>,
    ) -> Result<(), Refusal> {
        let tag = cancel.consumer_tag.as_bytes();
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        let consumer = channel.consumers.remove(tag);
        if channel.reply_consumer.as_deref() == Some(tag) {
            channel.reply_consumer = None;
        }
        let cancel_ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
        self.answer(id, number, cancel.no_wait, &cancel_ok);
        if let Some(Consumer { queue, priority, .. }) = consumer {
            let tag = tag.to_vec();
            let at = ConsumerAt { connection: id, channel: number, tag, priority };
            self.remove_consumer(&queue, &at);
            // Another one may be served in its place.
            self.deliver(&queue);
        }
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        id: ConnectionId,
        number: u16,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<(), Refusal> {
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        let last = if multiple && tag == 0 { u64::MAX } else { tag };
        let known = (multiple && tag == 0) || channel.unacked.contains_key(&tag);
        if !known {
            let text = format!("unknown delivery tag {tag}");
            return Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text));
        }
        let first = if multiple { 0 } else { tag };
        let tags: Vec<u64> = channel.unacked.range(first..=last).map(|(tag, _)| *tag).collect();
        let unacked = &mut channel.unacked;
        let settled =
            tags.into_iter().filter_map(|tag| Some((tag, unacked.remove(&tag)?))).collect();
        match &mut channel.mode {
            Mode::Transaction(transaction) => transaction.settlements.push((settled, outcome)),
            _ => self.apply(id, number, settled, outcome),
        }
        Ok(())
    }

    /// Everything unacknowledged on the channel is requeued.
    pub(super) fn recover(&mut self, id: ConnectionId, number: u16, answered: bool) {
        self.answer(id, number, !answered, &basic::RecoverOk::default());
        let Some(channel) = self.channel(id, number) else { return };
        for consumer in channel.consumers.values_mut() {
            consumer.unacked = 0;
        }
        for unacked in std::mem::take(&mut channel.unacked).into_values() {
            if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                queue.requeue(unacked.queued);
            }
        }
        self.deliver_all();
    }
}

impl Channel {
    /// Adds a consumer; returns its tag.
    fn add_consumer(
        &mut self,
        number: u16,
        consume: &basic::Consume<'_>,
        queue: &str,
        priority: i64,
    ) -> Result<Vec<u8>, Refusal> {
        let mut tag = consume.consumer_tag.as_bytes().to_vec();
        if tag.is_empty() {
            tag = format!("amq.ctag-{number}-{}", self.consumers_made).into_bytes();
        }
        if self.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{}'", tag.escape_ascii());
            return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
        }
        self.consumers_made += 1;
        let consumer = Consumer {
            number: self.consumers_made,
            queue: queue.to_owned(),
            no_ack: consume.no_ack,
            prefetch: self.prefetch,
            unacked: 0,
            priority,
        };
        self.consumers.insert(tag.clone(), consumer);
        Ok(tag)
    }
}
