//! Publishing: contents put together, routed, returned, confirmed, committed, dead-lettered.

use std::sync::Arc;

use amqp_proto::method::{basic, tx};
use amqp_proto::{
    ContentHeader, FieldTable, FieldValue, RawProperties, ReplyCode, ShortStr, TABLE_DEPTH_MAX,
};

use super::arguments::Overflow;
use super::broker::{Broker, ConnectionId, Refusal};
use super::channel::{Mode, Outcome, Transaction, text};
use super::connection::{short, unexpected};
use super::queue::{Message, Published};

/// The pseudo-queue of direct replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[derive(Debug, Default)]
pub(super) enum Content {
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

impl Broker {
    pub(super) fn begin_publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        publish: &basic::Publish<'_>,
    ) -> Result<(), Refusal> {
        if publish.immediate {
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "immediate=true"));
        }
        let published = Published {
            exchange: text(publish.exchange),
            routing_key: text(publish.routing_key),
            wire_key: publish.routing_key.as_bytes().to_vec(),
            properties: Vec::new(),
            body: Vec::new(),
        };
        if let Some(channel) = self.channel(id, number) {
            channel.content = Content::Header { mandatory: publish.mandatory, published };
        }
        Ok(())
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
        check_properties(header.properties)?;
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
        let Content::Body { mandatory, mut published, .. } = std::mem::take(&mut channel.content)
        else {
            return Ok(());
        };
        self.check_publish(id, number, &mut published)?;
        // Whether the exchange is there is known at once, also within a transaction.
        self.route(&published.exchange, &published.routing_key, &FieldTable::new())?;
        let Some(channel) = self.channel(id, number) else { return Ok(()) };
        let confirmed = match &mut channel.mode {
            Mode::Plain => None,
            Mode::Confirm(last) => {
                *last += 1;
                Some(*last)
            }
            Mode::Transaction(transaction) => {
                transaction.publishes.push((mandatory, published));
                return Ok(());
            }
        };
        let taken = self.publish(id, number, mandatory, published)?;
        let alarm = self.alarm.clone();
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        match confirmed {
            Some(delivery_tag) if taken => {
                connection.send(number, &basic::Ack { delivery_tag, multiple: false });
            }
            Some(delivery_tag) => {
                let nack = basic::Nack { delivery_tag, ..Default::default() };
                connection.send(number, &nack);
            }
            None => {}
        }
        if let Some(reason) = alarm {
            connection.block(&reason);
        }
        Ok(())
    }

    /// What RabbitMQ looks at in a message's properties.
    fn check_publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        published: &mut Published,
    ) -> Result<(), Refusal> {
        let view = published.view();
        let refused = |text: &str| Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text));
        let number_of = |text: ShortStr<'_>| text.as_str().ok()?.parse::<u32>().ok();
        if view.expiration.is_some_and(|it| number_of(it).is_none()) {
            return refused("invalid expiration: no_integer");
        }
        if view.expiration.is_some() {
            return Err(Refusal::not_implemented("clock, by which a message expires"));
        }
        if view.user_id.is_some_and(|user| user != *"guest") {
            return refused("user_id property set to another than the authenticated user 'guest'");
        }
        if view.reply_to.is_some_and(|it| it == *REPLY_TO) {
            let replies = self.channel(id, number).is_some_and(|it| it.reply_consumer.is_some());
            if !replies {
                return refused("fast reply consumer does not exist");
            }
            let address = format!("{REPLY_TO}.{}.{number}", id.0);
            if !published.change_properties(|it| it.reply_to = Some(address)) {
                return Err(Refusal::not_implemented("replies to what it cannot write"));
            }
        }
        Ok(())
    }

    /// Routes a message; whether every queue that it reached has taken it.
    fn publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        mandatory: bool,
        mut published: Published,
    ) -> Result<bool, Refusal> {
        let headers = published.headers();
        let queues = self.route(&published.exchange, &published.routing_key, &headers)?;
        if headers.get("BCC").is_some() {
            let without_copies = published.change_properties(|properties| {
                if let Some(headers) = &mut properties.headers {
                    headers.remove("BCC");
                }
            });
            if !without_copies {
                return Err(Refusal::not_implemented("copies of what it cannot write"));
            }
        }
        let message = Message(Arc::new(published));
        // A direct reply counts as not routed, though it arrives.
        self.reply_directly(&message);
        if queues.is_empty() && mandatory {
            let Some(connection) = self.connections.get_mut(&id) else { return Ok(true) };
            let returned = basic::Return {
                reply_code: ReplyCode::NO_ROUTE.code(),
                reply_text: short(b"NO_ROUTE"),
                exchange: short(message.0.exchange.as_bytes()),
                routing_key: short(&message.0.wire_key),
            };
            connection.send(number, &returned);
            connection.send_content(number, &message.0.properties, &message.0.body);
        }
        let mut taken = true;
        for queue in &queues {
            taken &= self.enqueue(queue, message.clone());
        }
        Ok(taken)
    }

    /// Puts a message into a queue; whether that takes it.
    fn enqueue(&mut self, name: &str, message: Message) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return true };
        if queue.is_full() && queue.arguments.overflow != Overflow::DropHead {
            if queue.arguments.overflow == Overflow::RejectPublishDlx {
                self.dead_letter(name, &message, "maxlen");
            }
            return false;
        }
        queue.push(message);
        self.deliver(name);
        while let Some(queue) = self.queues.get_mut(name)
            && queue.arguments.max_length.is_some_and(|most| queue.ready.len() as u64 > most)
            && let Some((_, oldest)) = queue.ready.pop_first()
        {
            self.dead_letter(name, &oldest.message, "maxlen");
        }
        true
    }

    /// Publishes a message that a queue got rid of to the queue's dead-letter exchange, with a record
    /// of that in its headers (<https://www.rabbitmq.com/docs/dlx>). The model's clock stands still.
    pub(super) fn dead_letter(&mut self, name: &str, message: &Message, reason: &str) {
        let Some(queue) = self.queues.get(name) else { return };
        let arguments = queue.arguments.clone();
        let Some(exchange) = arguments.dead_letter_exchange else { return };
        let mut published = Published::clone(&message.0);
        let mut headers = published.headers();
        let mut deaths = match headers.remove("x-death") {
            Some(FieldValue::Array(deaths)) => deaths,
            _ => Vec::new(),
        };
        let same = |death: &FieldValue| match death {
            FieldValue::Table(death) => {
                let is = |name, value| death.get(name).and_then(FieldValue::as_str) == Some(value);
                is("queue", name) && is("reason", reason)
            }
            _ => false,
        };
        let mut count = 1;
        if let Some(at) = deaths.iter().position(same)
            && let FieldValue::Table(death) = deaths.remove(at)
        {
            // A message that goes round without anybody's doing is dropped.
            if reason != "rejected" {
                return;
            }
            count += death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
        }
        let death = FieldTable::from([
            ("count", count.into()),
            ("reason", reason.into()),
            ("queue", name.into()),
            ("time", FieldValue::Timestamp(0)),
            ("exchange", published.exchange.as_str().into()),
            ("routing-keys", vec![published.routing_key.as_str().into()].into()),
        ]);
        deaths.insert(0, death.into());
        headers.insert("x-death", deaths);
        let first =
            [("exchange", published.exchange.as_str()), ("queue", name), ("reason", reason)];
        for (what, value) in first {
            let header = format!("x-first-death-{what}");
            if headers.get(&header).is_none() {
                headers.insert(header, value);
            }
        }
        // What cannot be written again could go round for ever.
        if !published.change_properties(|properties| properties.headers = Some(headers.clone())) {
            return;
        }
        published.exchange = exchange;
        if let Some(key) = arguments.dead_letter_routing_key {
            published.wire_key = key.clone().into_bytes();
            published.routing_key = key;
        }
        // A dead-letter exchange that is missing swallows the message.
        let queues = self.route(&published.exchange, &published.routing_key, &headers);
        let message = Message(Arc::new(published));
        for queue in queues.unwrap_or_default() {
            self.enqueue(&queue, message.clone());
        }
    }

    /// A reply goes to the consumer whose address is its routing key.
    fn reply_directly(&mut self, message: &Message) {
        let key = message.0.exchange.is_empty().then_some(&message.0.routing_key);
        let address = key.and_then(|key| key.strip_prefix(REPLY_TO));
        let Some((connection, number)) =
            address.and_then(|it| it.strip_prefix('.')).and_then(|it| it.split_once('.'))
        else {
            return;
        };
        let (Ok(connection), Ok(number)) = (connection.parse(), number.parse()) else {
            return;
        };
        let id = ConnectionId(connection);
        let Some(channel) = self.channel(id, number) else { return };
        let Some(tag) = channel.reply_consumer.clone() else { return };
        let deliver = basic::Deliver {
            consumer_tag: short(&tag),
            // As RabbitMQ does it, which counts such deliveries not at all.
            delivery_tag: channel.next_tag + 1,
            redelivered: false,
            exchange: short(message.0.exchange.as_bytes()),
            routing_key: short(&message.0.wire_key),
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(number, &deliver);
            connection.send_content(number, &message.0.properties, &message.0.body);
        }
        self.mark_dirty(id);
    }

    pub(super) fn commit(&mut self, id: ConnectionId, number: u16) -> Result<(), Refusal> {
        let Transaction { publishes, settlements } = self.end_transaction(id, number)?;
        for (settled, outcome) in settlements {
            self.apply(id, number, settled, outcome);
        }
        for (mandatory, published) in publishes {
            self.publish(id, number, mandatory, published)?;
        }
        self.answer(id, number, false, &tx::CommitOk::default());
        Ok(())
    }

    /// What was settled is unacknowledged as before: neither ready nor redelivered.
    pub(super) fn roll_back(&mut self, id: ConnectionId, number: u16) -> Result<(), Refusal> {
        let Transaction { settlements, .. } = self.end_transaction(id, number)?;
        if let Some(channel) = self.channel(id, number) {
            channel.unacked.extend(settlements.into_iter().flat_map(|(settled, _)| settled));
        }
        self.answer(id, number, false, &tx::RollbackOk::default());
        Ok(())
    }

    /// Takes what waited for a commit; the next transaction begins.
    fn end_transaction(&mut self, id: ConnectionId, number: u16) -> Result<Transaction, Refusal> {
        match self.channel(id, number).map(|channel| &mut channel.mode) {
            Some(Mode::Transaction(transaction)) => Ok(std::mem::take(transaction)),
            _ => {
                let text = "channel is not transactional";
                Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text))
            }
        }
    }

    /// Draws the consequences of settlements.
    pub(super) fn apply(
        &mut self,
        id: ConnectionId,
        number: u16,
        settled: Vec<(u64, super::channel::Unacked)>,
        outcome: Outcome,
    ) {
        for (_, unacked) in settled {
            if let Some(channel) = self.channel(id, number)
                && let Some(consumer) = channel.consumers.get_mut(&unacked.consumer)
                && consumer.number == unacked.number
            {
                consumer.unacked = consumer.unacked.saturating_sub(1);
            }
            match outcome {
                Outcome::Acknowledged => {}
                Outcome::Requeued => {
                    if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                        queue.requeue(unacked.queued);
                    }
                }
                Outcome::Rejected => {
                    self.dead_letter(&unacked.queue, &unacked.queued.message, "rejected");
                }
            }
            self.deliver(&unacked.queue);
        }
        let shared = self.channel(id, number).is_some_and(|channel| channel.global_prefetch > 0);
        if shared {
            self.deliver_all();
        }
    }
}

/// RabbitMQ ends the connection on properties that it cannot read, or that hold what it never writes;
/// texts it does not look into, and depth it does not mind.
fn check_properties(properties: RawProperties<'_>) -> Result<(), Refusal> {
    let known = properties.decode().is_ok_and(|view| {
        view.headers.is_none_or(|headers| is_readable(headers.as_bytes(), true, TABLE_DEPTH_MAX))
    });
    if known {
        return Ok(());
    }
    Err(Refusal::connection(ReplyCode::INTERNAL_ERROR, "properties that cannot be read"))
}

/// Whether the fields of a table, or the values of an array, are of types and lengths that RabbitMQ
/// reads; what is nested deeper than `levels` passes unread.
fn is_readable(bytes: &[u8], named: bool, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return true };
    let mut rest = bytes;
    let take = |rest: &mut &[u8], count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        *rest = left;
        Some(taken.to_vec())
    };
    while !rest.is_empty() {
        let value = (|| {
            if named {
                let length = take(&mut rest, 1)?[0];
                take(&mut rest, length.into())?;
            }
            let kind = take(&mut rest, 1)?[0];
            Some(match kind {
                b't' | b'b' | b'B' => take(&mut rest, 1).is_some(),
                b's' | b'u' => take(&mut rest, 2).is_some(),
                b'I' | b'i' => take(&mut rest, 4).is_some(),
                b'f' => take(&mut rest, 4)?
                    .try_into()
                    .is_ok_and(|it| f32::from_be_bytes(it).is_finite()),
                b'd' => take(&mut rest, 8)?
                    .try_into()
                    .is_ok_and(|it| f64::from_be_bytes(it).is_finite()),
                b'D' => take(&mut rest, 5).is_some(),
                b'l' | b'L' | b'T' => take(&mut rest, 8).is_some(),
                b'S' | b'x' | b'A' | b'F' => {
                    let length = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
                    let value = take(&mut rest, length as usize)?;
                    match kind {
                        b'A' => is_readable(&value, false, inner),
                        b'F' => is_readable(&value, true, inner),
                        _ => true,
                    }
                }
                b'V' => true,
                _ => false,
            })
        })();
        if value != Some(true) {
            return false;
        }
    }
    true
}
