//! One channel: declarations, publishing, consuming, acknowledgement.

use std::collections::BTreeMap;

use amqp_proto::method::{Method, basic, channel as wire, confirm};
use amqp_proto::{ContentHeader, RawTable, ReplyCode, ShortStr};

use super::broker::{Broker, ConnectionId, Refusal, no_queue};
use super::connection::{short, unexpected};
use super::queue::{ConsumerAt, Message, Published, Queue, Queued};
use super::topology::locked;

#[derive(Debug, Default)]
pub(super) struct Channel {
    /// `channel.close` was sent: all but its answer is ignored.
    pub(super) closing: bool,
    /// The number of the last publish, in confirm mode.
    confirmed: Option<u64>,
    prefetch: u16,
    pub(super) consumers: BTreeMap<Vec<u8>, Consumer>,
    pub(super) unacked: BTreeMap<u64, Unacked>,
    pub(super) next_tag: u64,
    content: Content,
    pub(super) last_queue: String,
    /// The consumers that the channel has had.
    consumers_made: u64,
}

#[derive(Debug)]
pub(super) struct Consumer {
    /// Tells it from others that had its tag before.
    pub(super) number: u64,
    pub(super) queue: String,
    pub(super) no_ack: bool,
    pub(super) prefetch: u16,
    pub(super) unacked: u32,
}

#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) queue: String,
    pub(super) consumer: Vec<u8>,
    /// The consumer's number.
    pub(super) number: u64,
    pub(super) queued: Queued,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    None,
    Header {
        mandatory: bool,
        published: Published,
    },
    Body {
        mandatory: bool,
        published: Published,
        size: u64,
    },
}

impl Channel {
    /// A channel that awaits the answer to its close.
    pub(super) fn closing() -> Self {
        Self { closing: true, ..Self::default() }
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
            Method::ConfirmSelect(select) => {
                channel.confirmed.get_or_insert(0);
                self.answer(id, number, select.nowait, &confirm::SelectOk::default());
                Ok(())
            }
            Method::BasicQos(qos) if qos.prefetch_size != 0 => Err(Refusal::connection(
                ReplyCode::NOT_IMPLEMENTED,
                format!("prefetch_size!=0 ({})", qos.prefetch_size),
            )),
            Method::BasicQos(qos) if qos.global => Err(Refusal::not_implemented("global prefetch")),
            Method::BasicQos(qos) => {
                channel.prefetch = qos.prefetch_count;
                self.answer(id, number, false, &basic::QosOk::default());
                Ok(())
            }
            Method::BasicPublish(publish) if publish.immediate => {
                Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "immediate=true"))
            }
            Method::BasicPublish(publish) => {
                channel.content = Content::Header {
                    mandatory: publish.mandatory,
                    published: Published {
                        exchange: text(publish.exchange),
                        routing_key: text(publish.routing_key),
                        properties: Vec::new(),
                        body: Vec::new(),
                    },
                };
                Ok(())
            }
            Method::ExchangeDeclare(declare) => self.exchange_declare(id, number, declare),
            Method::ExchangeDelete(delete) => self.exchange_delete(id, number, delete),
            Method::QueueDeclare(declare) => self.queue_declare(id, number, declare),
            Method::QueueBind(bind) => self.queue_bind(id, number, bind),
            Method::QueueUnbind(unbind) => self.queue_unbind(id, number, unbind),
            Method::QueuePurge(purge) => self.queue_purge(id, number, purge),
            Method::QueueDelete(delete) => self.queue_delete(id, number, delete),
            Method::BasicConsume(consume) => self.consume(id, number, consume),
            Method::BasicGet(get) => self.get(id, number, get),
            Method::BasicCancel(cancel) => self.cancel_consumer(id, number, cancel),
            Method::BasicAck(ack) => self.settle(id, number, ack.delivery_tag, ack.multiple, false),
            Method::BasicNack(nack) => {
                self.settle(id, number, nack.delivery_tag, nack.multiple, nack.requeue)
            }
            Method::BasicReject(reject) => {
                self.settle(id, number, reject.delivery_tag, false, reject.requeue)
            }
            method => Err(Refusal::not_implemented(&method.id().to_string())),
        }
    }

    pub(super) fn handle_header(
        &mut self,
        id: ConnectionId,
        number: u16,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let header =
            ContentHeader::decode(payload).map_err(|error| unexpected(&error.to_string()))?;
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        if channel.closing {
            return Ok(());
        }
        let Content::Header { mandatory, mut published } = std::mem::take(&mut channel.content)
        else {
            return Err(unexpected("a content header where none is due"));
        };
        published.properties = header.properties.as_bytes().to_vec();
        channel.content = Content::Body { mandatory, published, size: header.body_size };
        self.publish_if_complete(id, number)
    }

    pub(super) fn handle_body(
        &mut self,
        id: ConnectionId,
        number: u16,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        if channel.closing {
            return Ok(());
        }
        let Content::Body { published, size, .. } = &mut channel.content else {
            return Err(unexpected("a content body where none is due"));
        };
        published.body.extend_from_slice(payload);
        if published.body.len() as u64 > *size {
            return Err(unexpected("a content body longer than announced"));
        }
        self.publish_if_complete(id, number)
    }

    fn publish_if_complete(&mut self, id: ConnectionId, number: u16) -> Result<(), Refusal> {
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        match &channel.content {
            Content::Body { published, size, .. } if published.body.len() as u64 == *size => {}
            _ => return Ok(()),
        }
        let Content::Body { mandatory, published, .. } = std::mem::take(&mut channel.content)
        else {
            return Ok(());
        };
        let confirmed = channel.confirmed.as_mut().map(|last| {
            *last += 1;
            *last
        });
        let queues = self.route(&published.exchange, &published.routing_key)?;
        let message = Message(std::sync::Arc::new(published));
        for queue in &queues {
            self.enqueue(queue, message.clone());
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if mandatory && queues.is_empty() {
            let returned = basic::Return {
                reply_code: ReplyCode::NO_ROUTE.code(),
                reply_text: short(b"NO_ROUTE"),
                exchange: short(message.0.exchange.as_bytes()),
                routing_key: short(message.0.routing_key.as_bytes()),
            };
            connection.send(number, &returned);
            connection.send_content(number, &message.0.properties, &message.0.body);
        }
        if let Some(delivery_tag) = confirmed {
            connection.send(number, &basic::Ack { delivery_tag, multiple: false });
        }
        Ok(())
    }

    fn consume(
        &mut self,
        id: ConnectionId,
        number: u16,
        consume: &basic::Consume<'_>,
    ) -> Result<(), Refusal> {
        if consume.exclusive {
            return Err(Refusal::not_implemented("exclusive consumers"));
        }
        no_arguments(consume.arguments)?;
        let name = self.named_queue(id, number, consume.queue)?;
        let Some(queue) = self.queues.get_mut(&name) else { return Err(no_queue(&name)) };
        check_owner(queue, &name, id)?;
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let Some(channel) = connection.channels.get_mut(&number) else { return Ok(()) };
        let mut tag = consume.consumer_tag.as_bytes().to_vec();
        if tag.is_empty() {
            tag = format!("amq.ctag-{number}-{}", channel.consumers_made).into_bytes();
        }
        if channel.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{}'", tag.escape_ascii());
            return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
        }
        let (no_ack, prefetch) = (consume.no_ack, channel.prefetch);
        channel.consumers_made += 1;
        let consumer = Consumer {
            number: channel.consumers_made,
            queue: name.clone(),
            no_ack,
            prefetch,
            unacked: 0,
        };
        channel.consumers.insert(tag.clone(), consumer);
        queue.consumed = true;
        let at = ConsumerAt { connection: id, channel: number, tag: tag.clone() };
        queue.consumers.push_back(at);
        let consume_ok = basic::ConsumeOk { consumer_tag: short(&tag) };
        self.answer(id, number, consume.no_wait, &consume_ok);
        self.deliver(&name);
        Ok(())
    }

    fn get(&mut self, id: ConnectionId, number: u16, get: &basic::Get<'_>) -> Result<(), Refusal> {
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
            routing_key: short(published.0.routing_key.as_bytes()),
            message_count,
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(number, &get_ok);
            connection.send_content(number, &published.0.properties, &published.0.body);
        }
        Ok(())
    }

    fn cancel_consumer(
        &mut self,
        id: ConnectionId,
        number: u16,
        cancel: &basic::Cancel<'_>,
    ) -> Result<(), Refusal> {
        let tag = cancel.consumer_tag.as_bytes();
        let consumer = self.channel(id, number).and_then(|channel| channel.consumers.remove(tag));
        let cancel_ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
        self.answer(id, number, cancel.no_wait, &cancel_ok);
        if let Some(consumer) = consumer {
            let at = ConsumerAt { connection: id, channel: number, tag: tag.to_vec() };
            self.remove_consumer(&consumer.queue, &at);
        }
        Ok(())
    }

    fn settle(
        &mut self,
        id: ConnectionId,
        number: u16,
        tag: u64,
        multiple: bool,
        requeue: bool,
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
        let mut settled = Vec::new();
        for tag in tags {
            let Some(unacked) = channel.unacked.remove(&tag) else { continue };
            let consumer = channel.consumers.get_mut(&unacked.consumer);
            if let Some(consumer) = consumer.filter(|it| it.number == unacked.number) {
                consumer.unacked -= 1;
            }
            settled.push(unacked);
        }
        for unacked in settled {
            if requeue && let Some(queue) = self.queues.get_mut(&unacked.queue) {
                queue.requeue(unacked.queued);
            }
            self.deliver(&unacked.queue);
        }
        Ok(())
    }

    /// A channel is gone: its deliveries are requeued, its consumers leave.
    pub(super) fn release_channel(&mut self, id: ConnectionId, number: u16, channel: Channel) {
        for unacked in channel.unacked.into_values() {
            if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                queue.requeue(unacked.queued);
            }
        }
        for (tag, consumer) in channel.consumers {
            let at = ConsumerAt { connection: id, channel: number, tag };
            self.remove_consumer(&consumer.queue, &at);
        }
    }

    fn remove_consumer(&mut self, name: &str, at: &ConsumerAt) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.consumers.retain(|consumer| consumer != at);
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

pub(super) fn no_arguments(arguments: RawTable<'_>) -> Result<(), Refusal> {
    if arguments.as_bytes().is_empty() {
        Ok(())
    } else {
        Err(Refusal::not_implemented("arguments"))
    }
}

pub(super) fn check_owner(queue: &Queue, name: &str, id: ConnectionId) -> Result<(), Refusal> {
    if queue.exclusive.is_some_and(|owner| owner != id) { Err(locked(name)) } else { Ok(()) }
}
