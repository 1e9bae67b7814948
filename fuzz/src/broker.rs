//! What a broker has read and not answered: for each request the frame of its answer, and what is
//! published. The fuzzer decides when an answer leaves, and in which order among the channels.

use std::collections::{BTreeMap, VecDeque};

use amqp_core::proto::frame::{self, Frame, FrameKind};
use amqp_core::proto::method::{Method, basic, channel, confirm, connection, queue, tx};
use amqp_core::proto::{ContentHeader, RawProperties, ShortStr};

/// Channels of which answers are kept; a client has no more.
const NUMBERS: usize = 4;
/// Publishes of a channel that may yet be returned.
const RETURNABLE: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Broker {
    numbers: BTreeMap<u16, Number>,
}

/// One channel.
#[derive(Debug, Default)]
struct Number {
    owed: VecDeque<Owed>,
    confirming: bool,
    published: u64,
    /// Mandatory publishes, the newest last.
    returnable: VecDeque<Published>,
    /// A publish whose content is being read.
    reading: Option<Published>,
}

#[derive(Debug)]
enum Owed {
    Frame(Vec<u8>),
    Get,
}

#[derive(Debug)]
struct Published {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    mandatory: bool,
    /// The payload of the header frame.
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Broker {
    /// Reads a frame of the client's.
    pub(crate) fn read(&mut self, frame: &Frame<'_>) {
        if usize::from(frame.channel) >= NUMBERS {
            return;
        }
        let number = self.numbers.entry(frame.channel).or_default();
        match frame.kind {
            FrameKind::Method => {
                let method =
                    Method::decode(frame.payload).expect("a client writes what it can read");
                number.method(frame.channel, &method);
            }
            FrameKind::Header => number.header(frame.payload),
            FrameKind::Body => number.body(frame.payload),
            FrameKind::Heartbeat => {}
        }
    }

    /// The answer to the oldest request of a channel. A `basic.get` finds a message of `size` bytes with
    /// this delivery tag, or with 0 none; returns whether there was one beside the frames.
    pub(crate) fn answer(&mut self, number: u16, tag: u64, size: usize) -> (Vec<u8>, bool) {
        let mut wire = Vec::new();
        match self.numbers.get_mut(&number).and_then(|number| number.owed.pop_front()) {
            None => {}
            Some(Owed::Frame(frame)) => wire = frame,
            Some(Owed::Get) if tag == 0 => {
                frame::write_method(&mut wire, number, &basic::GetEmpty::default());
            }
            Some(Owed::Get) => {
                let got = basic::GetOk { delivery_tag: tag, ..Default::default() };
                frame::write_method(&mut wire, number, &got);
                let properties = RawProperties::NONE;
                let header = ContentHeader { class_id: 60, body_size: size as u64, properties };
                frame::write_header(&mut wire, number, &header);
                if size > 0 {
                    frame::write_body(&mut wire, number, &vec![0; size]);
                }
                return (wire, true);
            }
        }
        (wire, false)
    }

    /// An ack or a nack of the newest publishes but `but`.
    pub(crate) fn confirm(&mut self, number: u16, but: u64, multiple: bool, ack: bool) -> Vec<u8> {
        let mut wire = Vec::new();
        let published = self.numbers.get(&number).map_or(0, |number| number.published);
        let delivery_tag = published.saturating_sub(but);
        if delivery_tag > 0 && ack {
            frame::write_method(&mut wire, number, &basic::Ack { delivery_tag, multiple });
        } else if delivery_tag > 0 {
            let nack = basic::Nack { delivery_tag, multiple, requeue: false };
            frame::write_method(&mut wire, number, &nack);
        }
        wire
    }

    /// Returns the oldest or the newest mandatory publish.
    pub(crate) fn give_back(&mut self, number: u16, oldest: bool, body_max: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        let returnable = self.numbers.get_mut(&number).map(|number| &mut number.returnable);
        let published = returnable.and_then(|kept| match oldest {
            true => kept.pop_front(),
            false => kept.pop_back(),
        });
        let Some(published) = published else { return wire };
        let returned = basic::Return {
            reply_code: 312,
            reply_text: ShortStr::new("NO_ROUTE").unwrap_or_default(),
            exchange: ShortStr::from_bytes(&published.exchange).unwrap_or_default(),
            routing_key: ShortStr::from_bytes(&published.routing_key).unwrap_or_default(),
        };
        frame::write_method(&mut wire, number, &returned);
        let header = ContentHeader::decode(&published.header).expect("it was decoded before");
        frame::write_header(&mut wire, number, &header);
        for piece in published.body.chunks(body_max) {
            frame::write_body(&mut wire, number, piece);
        }
        wire
    }
}

impl Number {
    fn method(&mut self, number: u16, method: &Method<'_>) {
        assert!(self.reading.is_none(), "{method:?} stands within a content");
        let mut frame = Vec::new();
        let out = &mut frame;
        match method {
            Method::ConnectionClose(_) => {
                frame::write_method(out, number, &connection::CloseOk::default());
            }
            Method::ConnectionUpdateSecret(_) => {
                frame::write_method(out, number, &connection::UpdateSecretOk::default());
            }
            Method::ChannelOpen(_) => {
                *self = Self::default();
                frame::write_method(out, number, &channel::OpenOk::default());
            }
            Method::ChannelClose(_) => {
                frame::write_method(out, number, &channel::CloseOk::default());
            }
            Method::QueueDeclare(declare) if !declare.no_wait => {
                let queue = declare.queue;
                frame::write_method(out, number, &queue::DeclareOk { queue, ..Default::default() });
            }
            Method::BasicQos(_) => frame::write_method(out, number, &basic::QosOk::default()),
            Method::BasicConsume(consume) if !consume.no_wait => {
                let consumer_tag = consume.consumer_tag;
                frame::write_method(out, number, &basic::ConsumeOk { consumer_tag });
            }
            Method::BasicCancel(cancel) if !cancel.no_wait => {
                let consumer_tag = cancel.consumer_tag;
                frame::write_method(out, number, &basic::CancelOk { consumer_tag });
            }
            Method::BasicRecover(_) => {
                frame::write_method(out, number, &basic::RecoverOk::default());
            }
            Method::ConfirmSelect(_) => {
                self.confirming = true;
                frame::write_method(out, number, &confirm::SelectOk::default());
            }
            Method::TxSelect(_) => frame::write_method(out, number, &tx::SelectOk::default()),
            Method::TxCommit(_) => frame::write_method(out, number, &tx::CommitOk::default()),
            Method::TxRollback(_) => frame::write_method(out, number, &tx::RollbackOk::default()),
            Method::BasicGet(_) => return self.owed.push_back(Owed::Get),
            Method::BasicPublish(publish) => {
                self.published += u64::from(self.confirming);
                self.reading = Some(Published {
                    exchange: publish.exchange.as_bytes().to_vec(),
                    routing_key: publish.routing_key.as_bytes().to_vec(),
                    mandatory: publish.mandatory,
                    header: Vec::new(),
                    body: Vec::new(),
                });
            }
            _ => {}
        }
        if !frame.is_empty() {
            self.owed.push_back(Owed::Frame(frame));
        }
    }

    fn header(&mut self, payload: &[u8]) {
        let reading = self.reading.as_mut().expect("a header follows a publish");
        assert!(reading.header.is_empty(), "a content has one header");
        reading.header = payload.to_vec();
        self.finish_content();
    }

    fn body(&mut self, payload: &[u8]) {
        let reading = self.reading.as_mut().expect("a body follows a header");
        reading.body.extend_from_slice(payload);
        self.finish_content();
    }

    fn finish_content(&mut self) {
        let Some(reading) = &self.reading else { return };
        let header = ContentHeader::decode(&reading.header).expect("a body follows a header");
        let length = reading.body.len() as u64;
        assert!(length <= header.body_size, "a body is no longer than its header says");
        if length < header.body_size {
            return;
        }
        if let Some(published) = self.reading.take().filter(|published| published.mandatory) {
            self.returnable.push_back(published);
            if self.returnable.len() > RETURNABLE {
                self.returnable.pop_front();
            }
        }
    }
}
