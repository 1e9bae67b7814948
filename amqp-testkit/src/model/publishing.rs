//! Publishing: assembles a message from its frames, checks it, routes and returns it.

use std::sync::Arc;
use std::time::Duration;

use amqp_proto::method::basic;
use amqp_proto::{ContentHeader, ReplyCode, ShortStr};

use super::broker::Broker;
use super::channel::{Channel, Mode};
use super::dead_letters::{Reason, copy_keys};
use super::fields::{short, text};
use super::message::Message;
use super::queue_arguments::{Overflow, QueueKind, TIME_MAX_MS};
use super::quorum::Publisher;
use super::readable::check_properties;
use super::refusal::Refusal;
use super::users::Permission;

/// A publish of which a part has arrived.
#[derive(Debug, Default)]
pub(super) enum Content {
    #[default]
    None,
    Header {
        mandatory: bool,
        message: Message,
    },
    Body {
        mandatory: bool,
        message: Message,
        size: u64,
    },
}

impl Channel<'_> {
    pub(super) fn begin_publish(&mut self, publish: &basic::Publish<'_>) -> Result<(), Refusal> {
        if publish.immediate {
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, "immediate=true"));
        }
        let message = Message {
            exchange: text(publish.exchange),
            routing_key: text(publish.routing_key),
            wire_key: publish.routing_key.as_bytes().to_vec(),
            properties: Vec::new(),
            body: Vec::new(),
            copies: Vec::new(),
            expiration: None,
        };
        self.state().content = Content::Header { mandatory: publish.mandatory, message };
        Ok(())
    }

    pub(super) fn handle_header(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let header = ContentHeader::decode(payload)
            .map_err(|error| Refusal::unexpected_frame(&error.to_string()))?;
        let Content::Header { mandatory, mut message } = self.take_content() else {
            return Err(Refusal::unexpected_frame("a content header where none is due"));
        };
        check_properties(header.properties)?;
        message.properties = header.properties.as_bytes().to_vec();
        self.publish_if_complete(mandatory, message, header.body_size)
    }

    pub(super) fn handle_body(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let Content::Body { mandatory, mut message, size } = self.take_content() else {
            return Err(Refusal::unexpected_frame("a content body where none is due"));
        };
        message.body.extend_from_slice(payload);
        if message.body.len() as u64 > size {
            return Err(Refusal::unexpected_frame("a content body longer than announced"));
        }
        self.publish_if_complete(mandatory, message, size)
    }

    fn take_content(&mut self) -> Content {
        std::mem::take(&mut self.state().content)
    }

    /// Publishes a message, or waits for the rest of its body.
    fn publish_if_complete(
        &mut self,
        mandatory: bool,
        message: Message,
        size: u64,
    ) -> Result<(), Refusal> {
        if message.body.len() as u64 == size {
            return self.publish_and_confirm(mandatory, message);
        }
        self.state().content = Content::Body { mandatory, message, size };
        Ok(())
    }

    fn publish_and_confirm(
        &mut self,
        mandatory: bool,
        mut message: Message,
    ) -> Result<(), Refusal> {
        // A missing exchange is refused at once, also within a transaction.
        self.check_exchange(Permission::Write, &message.exchange)?;
        self.broker.check_publish(&message.exchange)?;
        self.address_reply(&mut message)?;
        check_message(&mut message, &self.connection().user)?;
        match &mut self.state().mode {
            Mode::Transaction(transaction) => transaction.publishes.push((mandatory, message)),
            mode => {
                let confirmed = match mode {
                    Mode::Confirm(confirms) => Some(confirms.count()),
                    _ => None,
                };
                let taken = self.publish(mandatory, message)?;
                if let Some(number) = confirmed {
                    self.confirm(number, taken);
                }
            }
        }
        if let Some(reason) = self.broker.alarm.clone() {
            self.connection().block(&reason);
        }
        Ok(())
    }

    /// Routes a message. Returns whether every queue that it reached has taken it.
    pub(super) fn publish(
        &mut self,
        mandatory: bool,
        mut message: Message,
    ) -> Result<bool, Refusal> {
        let headers = message.headers();
        message.copies = copy_keys(&headers).map(str::to_owned).collect();
        let queues = self.broker.route(&message, &headers);
        if headers.get("BCC").is_some() {
            remove_blind_copies(&mut message)?;
        }
        let message = Arc::new(message);
        // RabbitMQ 3.10 returns a mandatory direct reply, although it arrives.
        self.broker.reply_directly(&message);
        if queues.is_empty() && mandatory {
            let returned = basic::Return {
                reply_code: ReplyCode::NO_ROUTE.code(),
                reply_text: short(b"NO_ROUTE"),
                exchange: short(message.exchange.as_bytes()),
                routing_key: short(&message.wire_key),
            };
            self.send_message(&returned, &message);
        }
        let mut taken = true;
        for queue in &queues {
            let publisher = Publisher::Channel(self.id, self.number);
            taken &= self.broker.enqueue(queue, Arc::clone(&message), Some(publisher));
        }
        Ok(taken)
    }
}

impl Broker {
    /// Adds a message to a queue. Returns false if the queue is full and refuses it. A quorum queue refuses nothing if no
    /// publisher is named.
    pub(super) fn enqueue(
        &mut self,
        name: &str,
        message: Arc<Message>,
        publisher: Option<Publisher>,
    ) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return true };
        let refused = match queue.arguments.kind {
            QueueKind::Classic => queue.refuses(message.size()),
            QueueKind::Quorum => publisher.is_some_and(|publisher| queue.blocks(publisher)),
            QueueKind::Stream => {
                queue.log.append(message, self.now);
                self.deliver(name);
                return true;
            }
        };
        if refused {
            if queue.arguments.overflow == Overflow::RejectPublishDlx {
                self.dead_letter(name, &message, Reason::MaxLength);
            }
            return false;
        }
        queue.push(message, self.now);
        self.deliver(name);
        self.drop_head(name);
        if let Some(queue) = self.queues.get_mut(name) {
            queue.limit_publishers();
        }
        true
    }

    /// Drops the first messages of a queue that has more than its maximum.
    pub(super) fn drop_head(&mut self, name: &str) {
        while let Some(queue) = self.queues.get_mut(name)
            && queue.arguments.overflow == Overflow::DropHead
            && queue.is_over(0, 0)
            && let Some(oldest) = queue.pop_first()
        {
            self.dead_letter(name, &oldest.message, Reason::MaxLength);
        }
        self.drop_expired(name);
    }
}

/// Checks the properties that RabbitMQ checks, and reads the expiration.
fn check_message(message: &mut Message, user: &str) -> Result<(), Refusal> {
    let properties = message.properties();
    let expiration = properties.expiration.map(expiration).transpose()?;
    if let Some(claimed) = properties.user_id.filter(|claimed| *claimed != *user) {
        let text =
            format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
        return Err(Refusal::precondition_failed(text));
    }
    message.expiration = expiration;
    Ok(())
}

/// Reads the property `expiration`: milliseconds as decimal text.
fn expiration(text: ShortStr<'_>) -> Result<Duration, Refusal> {
    let text = text.to_string();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let end = unsigned.find(|it: char| !it.is_ascii_digit()).unwrap_or(unsigned.len());
    let (digits, rest) = unsigned.split_at(end);
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    let wrong = match digits.parse() {
        _ if digits.is_empty() => "no_integer".to_owned(),
        _ if !rest.is_empty() => format!("{{leftover_string,\"{rest}\"}}"),
        _ if text.starts_with('-') && !is_zero => format!("{{value_negative,-{digits}}}"),
        Ok(time @ 0..=TIME_MAX_MS) => return Ok(Duration::from_millis(time)),
        _ => format!("{{value_too_large,{digits}}}"),
    };
    Err(Refusal::precondition_failed(format!("invalid expiration '{text}': {wrong}")))
}

/// Removes the header `BCC`, which routes a message and is not delivered.
fn remove_blind_copies(message: &mut Message) -> Result<(), Refusal> {
    let removed = message.change_properties(|properties| {
        if let Some(headers) = &mut properties.headers {
            headers.remove("BCC");
        }
    });
    if removed { Ok(()) } else { Err(Refusal::not_implemented("copies of what it cannot write")) }
}
