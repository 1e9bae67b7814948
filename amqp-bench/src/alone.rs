//! Codec and core by themselves: no socket, no runtime, no time. What the counts of instructions look
//! at, besides whole clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use amqp_core::requests::ConfirmSelect;
use amqp_core::{Action, BasicConsume, ChannelId, Config, Publish, PublishSeq, Session, Transmit};
use amqp_proto::frame::{self, FrameLimits, Peek};
use amqp_proto::method::{Method, WireMethod, basic, channel, confirm, connection};
use amqp_proto::{ContentHeader, RawProperties, ShortStr};
use bytes::BytesMut;

use crate::outcome::Failure;

/// What can be run by itself.
pub(crate) const NAMES: [&str; 4] =
    ["encode-publish", "decode-delivery", "core-publish-confirm", "core-deliver-ack"];

/// Messages laid down or fed at once.
const BATCH: u64 = 500;

const BODY: &[u8; 16] = b"sixteen bytes...";

/// Handles `count` messages; says whether that was all right.
pub(crate) fn run(name: &str, count: u64) -> Result<(), Failure> {
    match name {
        "encode-publish" => encode_publish(count),
        "decode-delivery" => decode_delivery(count),
        "core-publish-confirm" => publish_confirm(count),
        "core-deliver-ack" => deliver_ack(count),
        _ => Err(format!("{name} is none of {}", NAMES.join(", ")).into()),
    }
}

fn encode_publish(count: u64) -> Result<(), Failure> {
    let publish =
        basic::Publish { routing_key: ShortStr::new("bench")?, ..basic::Publish::default() };
    let mut out = Vec::new();
    let mut bytes = 0;
    for number in 0..count {
        if number % BATCH == 0 {
            bytes += out.len() as u64;
            out.clear();
        }
        frame::write_publish(&mut out, 1, &publish, None, BODY);
    }
    bytes += out.len() as u64;
    expect("bytes", bytes, count * 68)
}

fn decode_delivery(count: u64) -> Result<(), Failure> {
    let input = deliveries("t", 1, 1);
    let mut tags = 0;
    for _ in 0..count {
        tags += decode(&input).ok_or("a message is not decoded")?;
    }
    expect("tags", tags, count)
}

/// Reads every field of a message of three frames; returns its tag.
pub(crate) fn decode(input: &[u8]) -> Option<u64> {
    let limits = FrameLimits::default();
    let Ok(Peek::Complete(method)) = frame::peek(input, limits) else { return None };
    let Ok(Method::BasicDeliver(deliver)) = Method::decode(method.payload) else { return None };
    let input = input.get(method.frame_len()..)?;
    let Ok(Peek::Complete(header)) = frame::peek(input, limits) else { return None };
    let content = ContentHeader::decode(header.payload).ok()?;
    let properties = content.properties.decode().ok()?;
    let input = input.get(header.frame_len()..)?;
    let Ok(Peek::Complete(body)) = frame::peek(input, limits) else { return None };
    let whole = body.payload.len() as u64 == content.body_size;
    std::hint::black_box((deliver, properties));
    whole.then_some(deliver.delivery_tag)
}

/// Whole messages of [`BODY`] with rising tags.
pub(crate) fn deliveries(consumer: &str, first: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for delivery_tag in first..first + count {
        let deliver = basic::Deliver {
            consumer_tag: ShortStr::new(consumer).unwrap_or_default(),
            delivery_tag,
            routing_key: ShortStr::new("bench").unwrap_or_default(),
            ..basic::Deliver::default()
        };
        frame::write_method(&mut out, 1, &deliver);
        let properties = RawProperties::NONE;
        let header = ContentHeader { class_id: 60, body_size: BODY.len() as u64, properties };
        frame::write_header(&mut out, 1, &header);
        frame::write_body(&mut out, 1, BODY);
    }
    out
}

fn publish_confirm(count: u64) -> Result<(), Failure> {
    let mut open = Open::new()?;
    let id = open.channel()?;
    let call = open.session.channel(id).call(open.now, &ConfirmSelect::default())?;
    open.feed(1, &confirm::SelectOk::default());
    open.session.take_reply(&call).ok_or("no answer")??;
    let mut waiting: VecDeque<PublishSeq> = VecDeque::new();
    for number in 1..=count {
        waiting.push_back(open.session.channel(id).publish(&Publish::new("", "bench", BODY))?);
        if number % BATCH == 0 || number == count {
            open.write();
            open.feed(1, &basic::Ack { delivery_tag: number, multiple: true });
            for seq in waiting.drain(..) {
                let confirmation = open.session.channel(id).confirmed(seq);
                confirmation.ok_or("a publish is not confirmed")?;
            }
        }
    }
    expect("confirmed", open.session.connection().stats().confirmed, count)
}

fn deliver_ack(count: u64) -> Result<(), Failure> {
    let mut open = Open::new()?;
    let id = open.channel()?;
    let consume = BasicConsume::new("bench").consumer_tag("t");
    let call = open.session.channel(id).consume(open.now, &consume)?;
    open.feed(1, &basic::QosOk::default());
    open.feed(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("t")? });
    let consumer = open.session.take_reply(&call).ok_or("no answer")??.consumer;
    let mut pulled = VecDeque::new();
    // The tags alone differ, and stand where the first message has its own.
    let mut bytes = deliveries("t", 1, BATCH);
    let (length, tag_at) = (bytes.len() / BATCH as usize, 7 + 4 + 2);
    for batch in 0..count / BATCH {
        for (number, message) in (batch * BATCH + 1..).zip(bytes.chunks_exact_mut(length)) {
            message[tag_at..tag_at + 8].copy_from_slice(&number.to_be_bytes());
        }
        open.input.extend_from_slice(&bytes);
        while open.session.handle_input(open.now, &mut open.input) {}
        open.session.channel(id).pull_deliveries(consumer, &mut pulled);
        for delivery in pulled.drain(..) {
            open.session.channel(id).ack(delivery.tag, false)?;
        }
        open.write();
    }
    expect("acked", open.session.connection().stats().acks_sent, count / BATCH * BATCH)
}

fn expect(what: &str, found: u64, wanted: u64) -> Result<(), Failure> {
    if found == wanted { Ok(()) } else { Err(format!("{found} {what} instead of {wanted}").into()) }
}

/// An open connection whose other end is played frame by frame.
struct Open {
    session: Session,
    now: Instant,
    input: BytesMut,
    out: Transmit,
}

impl Open {
    fn new() -> Result<Self, Failure> {
        let now = Instant::now();
        let mut session = Session::new(Arc::new(Config::default()), now, 0)?;
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else {
            return Err("no address is asked for".into());
        };
        session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 5672).into()]));
        let Some(Action::Dial { attempt, .. }) = session.poll_action() else {
            return Err("no address is dialled".into());
        };
        session.handle_connected(now, attempt);
        let mut open = Self { session, now, input: BytesMut::new(), out: Transmit::new() };
        let start =
            connection::Start { version_minor: 9, mechanisms: b"PLAIN", ..Default::default() };
        open.feed(0, &connection::Start { locales: b"en_US", ..start });
        open.feed(0, &connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
        open.feed(0, &connection::OpenOk::default());
        Ok(open)
    }

    fn channel(&mut self) -> Result<ChannelId, Failure> {
        let (id, call) = self.session.open_channel(self.now)?;
        self.feed(1, &channel::OpenOk::default());
        self.session.take_reply(&call).ok_or("no answer")??;
        Ok(id)
    }

    fn feed<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        self.write();
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        self.input.extend_from_slice(&bytes);
        while self.session.handle_input(self.now, &mut self.input) {}
    }

    /// Everything is written, and the events are looked at.
    fn write(&mut self) {
        while self.session.poll_transmit(self.now, &mut self.out) {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            while !self.out.is_empty() {
                let filled = self.out.slices(&mut slices);
                let length = slices[..filled].iter().map(|slice| slice.len()).sum();
                self.out.advance(length);
                slices = [std::io::IoSlice::new(&[]); 8];
            }
        }
        while self.session.poll_event().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH, NAMES, run};

    #[test]
    fn everything_runs_by_itself() {
        for name in NAMES {
            run(name, 2 * BATCH).unwrap();
        }
        assert!(run("nothing", 1).is_err());
    }
}
