//! A capricious broker that keeps to the protocol.
//!
//! It understands what it reads: each channel keeps its mode, its consumers, what is unacknowledged
//! and unconfirmed. Commands of a channel are taken in their order, and frames of a channel are written
//! in their order; everything else is chance: when, how far, between which frames of other channels.

use std::collections::{BTreeMap, VecDeque};

use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::{Method, WireMethod, basic, channel, connection};
use amqp_core::proto::{ContentHeader, RawProperties, ShortStr};
use bytes::BytesMut;

use super::channel::{Channel, State};
use super::dice::Dice;
use super::log::Log;

/// Bytes on their way to the client, beyond which a flood waits.
const WIRE_BYTES: usize = 4 << 20;

/// What is true once a frame was written.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Acked {
        channel: usize,
        first: u64,
        last: u64,
    },
    Nacked {
        channel: usize,
        first: u64,
        last: u64,
    },
    Returned(u64),
    Sent(usize),
    /// A consumer has ended: its cancel is answered, or it is cancelled.
    Ended {
        channel: usize,
        tag: String,
    },
}

/// A frame to be written.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) effect: Option<Effect>,
    /// More frames of its content follow.
    pub(crate) more: bool,
}

/// What was read of a channel, in its order.
#[derive(Debug)]
pub(crate) enum Command {
    Method(Vec<u8>),
    Publish {
        mandatory: bool,
        exchange: Vec<u8>,
        routing_key: Vec<u8>,
        properties: Vec<u8>,
        body: Vec<u8>,
    },
}

#[derive(Debug)]
struct Incoming {
    publish: Vec<u8>,
    header: Option<(u64, Vec<u8>)>,
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Broker {
    frame_max: usize,
    input: Vec<u8>,
    incoming: BTreeMap<u16, Incoming>,
    pub(crate) channels: BTreeMap<u16, Channel>,
    /// Channels that were opened so far.
    opened: usize,
    /// Frames of each channel that are to be written; those of a closed one come before its next.
    out: BTreeMap<u16, VecDeque<Outgoing>>,
    /// The last frame written on these channels was not the last of its content.
    half: BTreeMap<u16, bool>,
    /// What is on its way to the client.
    pub(crate) wire: BytesMut,
    written: u64,
    blocked: bool,
    /// It has sent `connection.close`, or answered one.
    pub(crate) closed: bool,
    /// It makes no trouble: everything is answered, and nothing ends.
    pub(crate) calm: bool,
}

impl Broker {
    pub(crate) fn new(frame_max: usize) -> Self {
        Self {
            frame_max,
            input: Vec::new(),
            incoming: BTreeMap::new(),
            channels: BTreeMap::new(),
            opened: 0,
            out: BTreeMap::new(),
            half: BTreeMap::new(),
            wire: BytesMut::new(),
            written: 0,
            blocked: false,
            closed: false,
            calm: false,
        }
    }

    /// Bytes have arrived.
    pub(crate) fn receive(&mut self, bytes: &[u8], dice: &mut Dice, log: &mut Log) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Peek::Complete(frame) = frame::peek(&input[at..], FrameLimits::default()).unwrap()
        {
            at += frame.frame_len();
            self.frame(&frame, dice, log);
        }
        self.input = input[at..].to_vec();
    }

    fn frame(&mut self, frame: &frame::Frame<'_>, dice: &mut Dice, log: &mut Log) {
        let number = frame.channel;
        match frame.kind {
            FrameKind::Method => {
                let method = Method::decode(frame.payload).unwrap();
                log.line(|| format!("> {number} {method:?}"));
                if number == 0 {
                    self.connection_method(&method, dice, log);
                } else if matches!(method, Method::BasicPublish(_)) {
                    let publish = frame.payload.to_vec();
                    self.incoming.insert(number, Incoming { publish, header: None, body: vec![] });
                } else if matches!(method, Method::ChannelOpen(_)) {
                    // The channel that had the number before is closed by what was read before.
                    while self.process_on(number, dice, log) {}
                    let used = self.channels.insert(number, Channel::new(number, self.opened));
                    assert!(used.is_none(), "channel {number} was opened twice");
                    self.opened += 1;
                    self.command(number, Command::Method(frame.payload.to_vec()));
                } else {
                    self.command(number, Command::Method(frame.payload.to_vec()));
                }
            }
            FrameKind::Header => {
                let header = ContentHeader::decode(frame.payload).unwrap();
                let properties = header.properties.as_bytes().to_vec();
                let incoming = self.incoming.get_mut(&number).unwrap();
                incoming.header = Some((header.body_size, properties));
            }
            FrameKind::Body => {
                self.incoming.get_mut(&number).unwrap().body.extend_from_slice(frame.payload);
            }
            FrameKind::Heartbeat => {}
        }
        let complete = |incoming: &Incoming| {
            incoming.header.as_ref().is_some_and(|(size, _)| *size == incoming.body.len() as u64)
        };
        if self.incoming.get(&number).is_some_and(complete) {
            let Incoming { publish, header, body } = self.incoming.remove(&number).unwrap();
            let Method::BasicPublish(publish) = Method::decode(&publish).unwrap() else { panic!() };
            let command = Command::Publish {
                mandatory: publish.mandatory,
                exchange: publish.exchange.as_bytes().to_vec(),
                routing_key: publish.routing_key.as_bytes().to_vec(),
                properties: header.unwrap().1,
                body,
            };
            log.line(|| format!("> {number} content complete"));
            self.command(number, command);
        }
    }

    fn command(&mut self, number: u16, command: Command) {
        let channel = self.channels.get_mut(&number);
        let channel =
            channel.unwrap_or_else(|| panic!("{command:?} on channel {number}, not open"));
        channel.todo.push_back(command);
    }

    fn connection_method(&mut self, method: &Method<'_>, dice: &mut Dice, log: &mut Log) {
        match method {
            Method::ConnectionClose(_) => {
                // What came before is done, or is not.
                if dice.chance(70) {
                    while self.process(dice, log) {}
                    while self.write(dice, log) {}
                }
                if !self.closed {
                    self.put_now(0, &connection::CloseOk::default(), log);
                }
                self.closed = true;
            }
            Method::ConnectionCloseOk(_) => assert!(self.closed, "close-ok of nothing"),
            Method::ConnectionUpdateSecret(_) => {
                self.put(0, &connection::UpdateSecretOk::default(), None);
            }
            method => panic!("{method:?}"),
        }
    }

    /// Takes the next command of some channel; whether there was one.
    pub(crate) fn process(&mut self, dice: &mut Dice, log: &mut Log) -> bool {
        if self.closed {
            return false;
        }
        let busy: Vec<u16> =
            self.channels.iter().filter(|it| !it.1.todo.is_empty()).map(|it| *it.0).collect();
        let Some(at) = dice.place(busy.len()) else { return false };
        self.process_on(busy[at], dice, log)
    }

    fn process_on(&mut self, number: u16, dice: &mut Dice, log: &mut Log) -> bool {
        let Some(channel) = self.channels.get_mut(&number) else { return false };
        let Some(command) = channel.todo.pop_front() else { return false };
        let mut out = Vec::new();
        channel.handle(command, self.calm, &mut out, dice, log);
        if channel.state == State::Closed {
            self.channels.remove(&number);
        }
        self.out.entry(number).or_default().extend(out);
        true
    }

    /// Does something that nothing asked for.
    pub(crate) fn act(&mut self, dice: &mut Dice, log: &mut Log) {
        if self.closed {
            return;
        }
        match dice.below(600) {
            0 if !self.calm => {
                log.line(|| "! connection.close".to_owned());
                let reply_text = ShortStr::new("CONNECTION_FORCED - bye").unwrap();
                let close = connection::Close { reply_code: 320, reply_text, ..Default::default() };
                // Frames that were to come may still, at a frame's end.
                for _ in 0..dice.below(10) {
                    self.write(dice, log);
                }
                self.put_now(0, &close, log);
                self.closed = true;
            }
            1..=4 if !self.blocked && !self.calm => {
                let reason = ShortStr::new("low on memory").unwrap();
                self.put(0, &connection::Blocked { reason }, None);
                self.blocked = true;
            }
            1..=20 if self.blocked => {
                self.put(0, &connection::Unblocked::default(), None);
                self.blocked = false;
            }
            21..=30 => self.out.entry(0).or_default().push_back(heartbeat()),
            _ => {
                let numbers: Vec<u16> = self.channels.keys().copied().collect();
                let Some(at) = dice.place(numbers.len()) else { return };
                let number = numbers[at];
                let half = self.half.get(&number).copied().unwrap_or_default();
                let queue = self.out.entry(number).or_default();
                let Some(channel) = self.channels.get_mut(&number) else { return };
                let mut out = Vec::new();
                let ended = channel.act(self.calm, self.frame_max, &mut out, dice, log);
                // A content may be cut short by the close of its channel.
                if ended && (half || queue.front().is_some_and(|it| it.more)) && dice.chance(50) {
                    queue.clear();
                }
                queue.extend(out);
            }
        }
    }

    /// Delivers to some consumer, unless much is on its way.
    pub(crate) fn flood(&mut self, dice: &mut Dice, log: &mut Log) {
        let Some(at) = dice.place(self.channels.len()) else { return };
        let (number, channel) = self.channels.iter_mut().nth(at).unwrap();
        if channel.state == State::Open && self.wire.len() < WIRE_BYTES {
            let out = self.out.entry(*number).or_default();
            let mut frames = Vec::new();
            channel.deliver(self.frame_max, &mut frames, dice, log);
            out.extend(frames);
            while self.write(dice, log) {}
        }
    }

    /// Writes the next frame of some channel; whether there was one.
    pub(crate) fn write(&mut self, dice: &mut Dice, log: &mut Log) -> bool {
        if self.closed {
            return false;
        }
        let ready: Vec<u16> =
            self.out.iter().filter(|it| !it.1.is_empty()).map(|it| *it.0).collect();
        let Some(at) = dice.place(ready.len()) else { return false };
        let number = ready[at];
        let Some(outgoing) = self.out.get_mut(&number).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.half.insert(number, outgoing.more);
        self.append(number, outgoing, log);
        true
    }

    /// A sign of life goes out at once.
    pub(crate) fn write_heartbeat(&mut self, log: &mut Log) {
        if !self.closed {
            self.append(0, heartbeat(), log);
        }
    }

    /// Whether nothing is left to be done or written.
    pub(crate) fn is_idle(&self) -> bool {
        self.wire.is_empty()
            && self.out.values().all(VecDeque::is_empty)
            && self.channels.values().all(Channel::is_idle)
    }

    fn append(&mut self, number: u16, outgoing: Outgoing, log: &mut Log) {
        log.line(|| {
            format!(
                "< {number} {} until {}",
                outgoing.name,
                self.written + outgoing.bytes.len() as u64
            )
        });
        self.written += outgoing.bytes.len() as u64;
        self.wire.extend_from_slice(&outgoing.bytes);
        let at = Some(self.written);
        match outgoing.effect {
            Some(Effect::Acked { channel, first, last }) => {
                log.numbered(channel, first, last).for_each(|it| it.acked = at);
            }
            Some(Effect::Nacked { channel, first, last }) => {
                log.numbered(channel, first, last).for_each(|it| it.nacked = at);
            }
            Some(Effect::Returned(id)) => {
                if let Some(published) = log.published.get_mut(&id) {
                    published.returned = at;
                    if published.twin {
                        log.twins.entry(published.channel).or_default().0.push(self.written);
                    }
                }
            }
            Some(Effect::Sent(number)) => log.sent[number].written = at,
            Some(Effect::Ended { channel, tag }) => {
                log.ended.entry((channel, tag)).or_insert(self.written);
            }
            None => {}
        }
    }

    fn put<'a>(&mut self, number: u16, method: &impl WireMethod<'a>, effect: Option<Effect>) {
        let outgoing = outgoing(number, method, effect);
        self.out.entry(number).or_default().push_back(outgoing);
    }

    fn put_now<'a>(&mut self, number: u16, method: &impl WireMethod<'a>, log: &mut Log) {
        self.append(number, outgoing(number, method, None), log);
    }
}

fn heartbeat() -> Outgoing {
    let bytes = frame::HEARTBEAT.to_vec();
    Outgoing { name: "heartbeat".to_owned(), bytes, effect: None, more: false }
}

/// A method frame.
pub(crate) fn outgoing<'a>(
    number: u16,
    method: &impl WireMethod<'a>,
    effect: Option<Effect>,
) -> Outgoing {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, number, method);
    let payload = &bytes[frame::FRAME_HEAD..bytes.len() - 1];
    let name = format!("{:?}", Method::decode(payload).unwrap());
    Outgoing { name, bytes, effect, more: false }
}

/// Method, header and body of a content, cut as chance will have it; the effect is that of the frame that
/// completes it.
pub(crate) fn content<'a>(
    number: u16,
    frame_max: usize,
    method: &impl WireMethod<'a>,
    properties: &[u8],
    body: &[u8],
    effect: Effect,
    dice: &mut Dice,
) -> Vec<Outgoing> {
    let mut frames = vec![outgoing(number, method, None)];
    let mut bytes = Vec::new();
    let properties = RawProperties::new(properties);
    let header = ContentHeader { class_id: 60, body_size: body.len() as u64, properties };
    frame::write_header(&mut bytes, number, &header);
    frames.push(Outgoing { name: "header".to_owned(), bytes, effect: None, more: true });
    let mut rest = body;
    while !rest.is_empty() {
        let most = rest.len().min(frame_max - frame::FRAME_OVERHEAD);
        let size = match dice.below(8) {
            0 => 0,
            1 => dice.below(most + 1),
            _ => most,
        };
        let mut bytes = Vec::new();
        frame::write_body(&mut bytes, number, &rest[..size]);
        frames.push(Outgoing { name: format!("body {size}"), bytes, effect: None, more: true });
        rest = &rest[size..];
    }
    frames[0].more = true;
    let last = frames.last_mut().unwrap();
    (last.more, last.effect) = (false, Some(effect));
    // A body frame may follow where nothing is to come.
    if body.is_empty() && dice.chance(30) {
        last.more = true;
        let mut bytes = Vec::new();
        frame::write_body(&mut bytes, number, &[]);
        frames.push(Outgoing { name: "empty body".to_owned(), bytes, effect: None, more: false });
    }
    frames
}

/// Texts of the protocol.
pub(crate) fn short(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

/// A close of a channel.
pub(crate) fn close() -> channel::Close<'static> {
    channel::Close {
        reply_code: 406,
        reply_text: short("PRECONDITION_FAILED"),
        class_id: basic::Ack::ID.class,
        method_id: basic::Ack::ID.method,
    }
}
