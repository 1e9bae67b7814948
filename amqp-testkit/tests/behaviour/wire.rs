//! A raw connection with the methods that the cases use.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use amqp_proto::method::{Method, basic, channel, confirm, exchange, queue};
use amqp_proto::{
    ContentHeader, FieldTable, FieldValue, Properties, RawTable, ShortStr, TABLE_DEPTH_MAX,
};
use amqp_testkit::RawConnection;
use amqp_testkit::raw_connection::ReceivedFrame;

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with channel 1 open, and another connection that publishes with confirms.
pub(crate) struct Wire {
    pub(crate) raw: RawConnection,
    /// Frames that have arrived while another one was awaited.
    pending: VecDeque<ReceivedFrame>,
    publisher: RawConnection,
}

/// A message that was delivered.
#[derive(Debug)]
pub(crate) struct Got {
    /// Empty for a message of `basic.get`.
    pub(crate) consumer_tag: String,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) properties: Properties,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) fn open(port: u16) -> Self {
        let open = || {
            let mut raw = RawConnection::connect(port);
            raw.log_in(u16::MAX);
            raw
        };
        let mut publisher = open();
        publisher.send(1, &confirm::Select { nowait: false });
        publisher.expect("confirm.SelectOk");
        Self { raw: open(), pending: VecDeque::new(), publisher }
    }

    /// Returns the next frame.
    pub(crate) fn next(&mut self) -> ReceivedFrame {
        self.pending.pop_front().unwrap_or_else(|| self.raw.next_frame().unwrap())
    }

    /// Reads up to a method of this name. What comes before it is read later.
    pub(crate) fn expect(&mut self, name: &str) -> ReceivedFrame {
        if let Some(place) = self.pending.iter().position(|frame| frame.name() == name) {
            return self.pending.remove(place).unwrap();
        }
        loop {
            let frame = self.raw.next_frame().unwrap();
            if frame.name() == name {
                return frame;
            }
            self.pending.push_back(frame);
        }
    }

    /// Returns whether a frame has arrived that was not read.
    pub(crate) fn has_frame(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Waits until the broker has handled what was sent.
    pub(crate) fn sync(&mut self) {
        self.raw.send(1, &channel::Flow { active: true });
        self.expect("channel.FlowOk");
    }

    /// Declares an exclusive queue with arguments.
    pub(crate) fn declare(&mut self, name: &str, arguments: FieldTable) {
        self.declare_with(
            queue::Declare { queue: short(name), exclusive: true, ..queue::Declare::default() },
            arguments,
        );
        self.expect("queue.DeclareOk");
    }

    /// Sends `queue.declare` with arguments.
    pub(crate) fn declare_with(&mut self, declare: queue::Declare<'_>, arguments: FieldTable) {
        let table = encoded(&arguments);
        self.raw.send(1, &queue::Declare { arguments: RawTable::new(&table), ..declare });
    }

    pub(crate) fn declare_exchange(&mut self, name: &str, kind: &str, internal: bool) {
        let (exchange, r#type) = (short(name), short(kind));
        let declare = exchange::Declare { exchange, r#type, internal, ..Default::default() };
        self.raw.send(1, &exchange::Declare { auto_delete: true, ..declare });
        self.expect("exchange.DeclareOk");
    }

    pub(crate) fn bind(&mut self, exchange: &str, queue: &str, key: &str) {
        let (exchange, queue, routing_key) = (short(exchange), short(queue), short(key));
        self.raw.send(1, &queue::Bind { queue, exchange, routing_key, ..Default::default() });
        self.expect("queue.BindOk");
    }

    /// Returns the number of ready messages, `None` if the queue does not exist. The channel is open afterwards.
    pub(crate) fn count(&mut self, queue: &str) -> Option<u32> {
        let declare = queue::Declare { queue: short(queue), passive: true, ..Default::default() };
        self.raw.send(1, &declare);
        let frame = self.next();
        match frame.method() {
            Some(Method::QueueDeclareOk(ok)) => Some(ok.message_count),
            Some(Method::ChannelClose(close)) if close.reply_code == 404 => {
                self.reopen();
                None
            }
            other => panic!("{other:?} in place of queue.declare-ok"),
        }
    }

    /// Answers the broker's close of channel 1, and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.raw.send(1, &channel::CloseOk::default());
        self.raw.send(1, &channel::Open::default());
        self.expect("channel.OpenOk");
    }

    /// Waits until a queue has this number of ready messages.
    #[track_caller]
    pub(crate) fn expect_count(&mut self, queue: &str, expected: u32) {
        let begun = Instant::now();
        loop {
            let count = self.count(queue);
            if count == Some(expected) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{queue}: {count:?} messages, not {expected}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Publishes to a queue, and waits for the confirm. Returns whether it was an ack.
    pub(crate) fn publish(&mut self, queue: &str, properties: Properties, body: &[u8]) -> bool {
        self.publish_to("", queue, properties, body)
    }

    /// Publishes to an exchange, and waits for the confirm. Returns whether it was an ack.
    pub(crate) fn publish_to(
        &mut self,
        exchange: &str,
        key: &str,
        properties: Properties,
        body: &[u8],
    ) -> bool {
        let (exchange, routing_key) = (short(exchange), short(key));
        let publish = basic::Publish { exchange, routing_key, ..Default::default() };
        self.publisher.send(1, &publish);
        let mut encoded = Vec::new();
        properties.encode(&mut encoded).unwrap();
        self.publisher.send_content(1, &encoded, body);
        let frame = self.publisher.next_frame().unwrap();
        match frame.method() {
            Some(Method::BasicAck(_)) => true,
            Some(Method::BasicNack(_)) => false,
            other => panic!("{other:?} in place of a confirm"),
        }
    }

    /// Publishes, and returns the refusal that answers.
    pub(crate) fn publish_refused(&mut self, properties: Properties) -> (u16, String) {
        let mut encoded = Vec::new();
        properties.encode(&mut encoded).unwrap();
        self.raw.send(1, &basic::Publish { routing_key: short("none"), ..Default::default() });
        self.raw.send_content(1, &encoded, b"");
        let refusal = self.raw.expect_refusal();
        self.reopen();
        refusal
    }

    /// Gets a message, if there is one.
    pub(crate) fn try_get(&mut self, queue: &str, no_ack: bool) -> Option<Got> {
        self.raw.send(1, &basic::Get { queue: short(queue), no_ack, ..Default::default() });
        let frame = self.next();
        match frame.method() {
            Some(Method::BasicGetOk(ok)) => Some(self.content(basic::Deliver {
                consumer_tag: short(""),
                delivery_tag: ok.delivery_tag,
                redelivered: ok.redelivered,
                exchange: ok.exchange,
                routing_key: ok.routing_key,
            })),
            Some(Method::BasicGetEmpty(_)) => None,
            other => panic!("{other:?} in place of a message of {queue}"),
        }
    }

    /// Waits for a message, and gets it without acknowledgement.
    #[track_caller]
    pub(crate) fn take(&mut self, queue: &str) -> Got {
        self.wait(queue, true)
    }

    /// Waits for a message, and gets it. It is unacknowledged then.
    #[track_caller]
    pub(crate) fn get(&mut self, queue: &str) -> Got {
        self.wait(queue, false)
    }

    #[track_caller]
    fn wait(&mut self, queue: &str, no_ack: bool) -> Got {
        let begun = Instant::now();
        loop {
            if let Some(got) = self.try_get(queue, no_ack) {
                return got;
            }
            assert!(begun.elapsed() < PATIENCE, "{queue} never had a message");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Consumes with the tag `t`, with acknowledgements.
    pub(crate) fn consume(&mut self, queue: &str) {
        let (queue, consumer_tag) = (short(queue), short("t"));
        self.raw.send(1, &basic::Consume { queue, consumer_tag, ..Default::default() });
        self.expect("basic.ConsumeOk");
    }

    pub(crate) fn cancel(&mut self) {
        self.raw.send(1, &basic::Cancel { consumer_tag: short("t"), no_wait: false });
        self.expect("basic.CancelOk");
    }

    /// The next delivery to a consumer.
    pub(crate) fn delivery(&mut self) -> Got {
        let frame = self.next();
        let Some(Method::BasicDeliver(deliver)) = frame.method() else { panic!("{frame:?}") };
        self.content(deliver)
    }

    pub(crate) fn ack(&mut self, got: &Got) {
        self.raw.send(1, &basic::Ack { delivery_tag: got.tag, multiple: false });
        self.sync();
    }

    /// Closes channel 1, and opens it again.
    pub(crate) fn close_channel(&mut self) {
        self.raw.send(1, &channel::Close::default());
        self.expect("channel.CloseOk");
        self.raw.send(1, &channel::Open::default());
        self.expect("channel.OpenOk");
    }

    pub(crate) fn delete(&mut self, queue: &str) {
        self.raw.send(1, &queue::Delete { queue: short(queue), ..Default::default() });
        self.expect("queue.DeleteOk");
    }

    pub(crate) fn reject(&mut self, got: &Got, requeue: bool) {
        self.raw.send(1, &basic::Reject { delivery_tag: got.tag, requeue });
        self.sync();
    }

    fn content(&mut self, deliver: basic::Deliver<'_>) -> Got {
        let frame = self.next();
        let header = ContentHeader::decode(&frame.payload).unwrap();
        let properties = header.properties.decode().unwrap().to_owned(TABLE_DEPTH_MAX).unwrap();
        let mut body = Vec::new();
        while (body.len() as u64) < header.body_size {
            body.extend(self.next().payload);
        }
        Got {
            consumer_tag: deliver.consumer_tag.to_string(),
            tag: deliver.delivery_tag,
            redelivered: deliver.redelivered,
            exchange: deliver.exchange.to_string(),
            routing_key: deliver.routing_key.to_string(),
            properties,
            body,
        }
    }
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&FieldValue> {
        self.properties.headers.as_ref()?.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.header(name)?.as_str()
    }

    /// The entries of `x-death`: the queue, the reason and the count.
    pub(crate) fn deaths(&self) -> Vec<(&str, &str, i64)> {
        let entries = self.header("x-death").and_then(FieldValue::as_array).unwrap_or_default();
        entries.iter().map(death).collect()
    }

    /// The first entry of `x-death`.
    pub(crate) fn last_death(&self) -> &FieldTable {
        let entries = self.header("x-death").and_then(FieldValue::as_array).unwrap();
        let FieldValue::Table(death) = &entries[0] else { panic!("{entries:?}") };
        death
    }
}

/// The queue, the reason and the count of an entry of `x-death`.
fn death(entry: &FieldValue) -> (&str, &str, i64) {
    let FieldValue::Table(death) = entry else { panic!("{entry:?}") };
    let text = |name| death.get(name).and_then(FieldValue::as_str).unwrap();
    let count = death.get("count").and_then(FieldValue::as_i64).unwrap();
    (text("queue"), text("reason"), count)
}

pub(crate) fn short(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

/// The fields of a table.
pub(crate) fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut encoded = Vec::new();
    table.encode(&mut encoded).unwrap();
    encoded.split_off(4)
}

/// Arguments of a queue that dead-letters to another one.
pub(crate) fn to_queue(queue: &str) -> FieldTable {
    FieldTable::from([
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", queue.into()),
    ])
}

/// The table with one more field.
pub(crate) fn with(mut table: FieldTable, name: &str, value: impl Into<FieldValue>) -> FieldTable {
    table.insert(name, value);
    table
}

pub(crate) fn none() -> Properties {
    Properties::new()
}
