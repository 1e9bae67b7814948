//! One connection of the peer: frames in, answers and deliveries out.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use amqp_proto::PROTOCOL_HEADER;
use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{
    Method, MethodId, WireMethod, basic, channel, confirm, connection, queue,
};

use super::channel::{Channel, FRAME_MAX, Flood, wrong};
use super::{Deliveries, Ended, Totals};
use crate::socket::Socket;

/// Bytes that are read or written at once.
const BUFFER: usize = 256 << 10;
/// RabbitMQ's default.
const CHANNEL_MAX: u16 = 2047;
/// Messages up to this size are recognised when they come again.
const KNOWN_MAX: usize = 2 << 10;

pub(super) struct Conversation<'a> {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    channels: Vec<Channel>,
    known: Known,
    deliveries: Deliveries,
    totals: &'a Mutex<Totals>,
    told: Totals,
}

/// The bytes of the last message that was published, all of whose frames were checked: the same bytes
/// need no second look.
#[derive(Default)]
struct Known {
    frames: Vec<u8>,
    channel: u16,
    body_size: u64,
    /// Where in the input, and on which channel, a message began that nothing else has interrupted.
    begun: Option<(usize, u16)>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        socket: Box<dyn Socket>,
        deliveries: Deliveries,
        totals: &'a Mutex<Totals>,
    ) -> Self {
        Self {
            socket,
            input: vec![0; BUFFER],
            filled: 0,
            output: Vec::with_capacity(2 * BUFFER),
            channels: Vec::new(),
            known: Known::default(),
            deliveries,
            totals,
            told: Totals::default(),
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Ended> {
        let mut greeting = [0; 8];
        self.socket.read_exact(&mut greeting)?;
        if greeting != PROTOCOL_HEADER {
            return Err(Ended::Wrong(format!("the protocol header {greeting:?}")));
        }
        let start = connection::Start {
            version_minor: 9,
            mechanisms: b"PLAIN",
            locales: b"en_US",
            ..Default::default()
        };
        self.send(0, &start);
        loop {
            for channel in &mut self.channels {
                channel.flood(&mut self.output, BUFFER);
            }
            self.write()?;
            let flooding = self.channels.iter().any(|channel| channel.may_send() > 0);
            self.socket.set_nonblocking(flooding)?;
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    self.filled += read;
                    let handled = self.handle_input();
                    self.tell();
                    handled?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn handle_input(&mut self) -> Result<(), Ended> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        self.known.begun = None;
        loop {
            let rest = &input[at..self.filled];
            if self.takes_known(rest) {
                at += self.known.frames.len();
                continue;
            }
            match frame::peek(rest, FrameLimits::default()).map_err(wrong)? {
                Peek::Complete(found) => {
                    self.handle_frame(&found, at)?;
                    at += found.frame_len();
                    self.learn(&input, at, found.channel);
                }
                Peek::Incomplete(_) => break,
            }
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        for number in 0..self.channels.len() {
            if std::mem::take(&mut self.channels[number].unconfirmed) {
                let delivery_tag = self.channels[number].published;
                self.send(number as u16 + 1, &basic::Ack { delivery_tag, multiple: true });
            }
        }
        Ok(())
    }

    /// Whether the input goes on with the known message, which is then counted.
    #[inline]
    fn takes_known(&mut self, rest: &[u8]) -> bool {
        let known = &self.known;
        if known.frames.is_empty() || !rest.starts_with(&known.frames) {
            return false;
        }
        let Some(channel) = self.channels.get_mut(usize::from(known.channel) - 1) else {
            return false;
        };
        if !channel.open || channel.expects_method().is_err() {
            return false;
        }
        channel.published(known.body_size);
        true
    }

    /// Keeps the message that ends here, if one does.
    #[inline]
    fn learn(&mut self, input: &[u8], end: usize, number: u16) {
        let Some((begun_at, begun_on)) = self.known.begun else { return };
        if number != begun_on || end - begun_at > KNOWN_MAX {
            self.known.begun = None;
            return;
        }
        let Some(channel) = self.channels.get(usize::from(number) - 1) else { return };
        if channel.expects_method().is_ok() {
            let known = &mut self.known;
            known.begun = None;
            known.frames.clear();
            known.frames.extend_from_slice(&input[begun_at..end]);
            known.channel = number;
            known.body_size = channel.last_size();
        }
    }

    #[inline]
    fn handle_frame(&mut self, found: &frame::Frame<'_>, at: usize) -> Result<(), Ended> {
        let number = found.channel;
        if number == 0 {
            return match found.kind {
                FrameKind::Heartbeat => Ok(()),
                FrameKind::Method => self.handle_connection(found.payload),
                kind => Err(Ended::Wrong(format!("{kind:?} on channel 0"))),
            };
        }
        let index = usize::from(number) - 1;
        if number > CHANNEL_MAX {
            return Err(Ended::Wrong(format!("channel {number}")));
        }
        if index >= self.channels.len() {
            self.channels.resize(index + 1, Channel::default());
        }
        let channel = &mut self.channels[index];
        match found.kind {
            FrameKind::Header => return channel.header(found.payload),
            FrameKind::Body => return channel.body(found.payload),
            FrameKind::Heartbeat => return Err(Ended::Wrong("a heartbeat on a channel".into())),
            FrameKind::Method => channel.expects_method()?,
        }
        let (id, arguments) = MethodId::split(found.payload).map_err(wrong)?;
        if !channel.open && id != channel::Open::ID {
            return Err(Ended::Wrong(format!("{id:?} on the closed channel {number}")));
        }
        match id {
            basic::Publish::ID => {
                channel.publish(arguments)?;
                self.known.begun = Some((at, number));
                Ok(())
            }
            basic::Ack::ID => channel.ack(arguments),
            _ => self.handle_call(number, found.payload),
        }
    }

    fn handle_connection(&mut self, payload: &[u8]) -> Result<(), Ended> {
        match Method::decode(payload).map_err(wrong)? {
            Method::ConnectionStartOk(_) => {
                let tune = connection::Tune {
                    channel_max: CHANNEL_MAX,
                    frame_max: FRAME_MAX,
                    heartbeat: 0,
                };
                self.send(0, &tune);
            }
            Method::ConnectionTuneOk(_) | Method::ConnectionCloseOk(_) => {}
            Method::ConnectionOpen(_) => self.send(0, &connection::OpenOk::default()),
            Method::ConnectionClose(_) => self.send(0, &connection::CloseOk::default()),
            other => return Err(Ended::Wrong(format!("unexpected {other:?}"))),
        }
        Ok(())
    }

    fn handle_call(&mut self, number: u16, payload: &[u8]) -> Result<(), Ended> {
        let channel = &mut self.channels[usize::from(number) - 1];
        match Method::decode(payload).map_err(wrong)? {
            Method::ChannelOpen(_) => {
                channel.open = true;
                self.send(number, &channel::OpenOk::default());
            }
            Method::ChannelClose(_) => {
                channel.cancel();
                channel.open = false;
                self.send(number, &channel::CloseOk::default());
            }
            Method::ConfirmSelect(_) => {
                channel.confirms = true;
                self.send(number, &confirm::SelectOk::default());
            }
            Method::BasicQos(qos) => {
                channel.prefetch = qos.prefetch_count.into();
                self.send(number, &basic::QosOk::default());
            }
            Method::QueueDeclare(declare) => {
                // What was counted: publishes as messages, acked deliveries as consumers.
                let ok = queue::DeclareOk {
                    queue: declare.queue,
                    message_count: channel.published as u32,
                    consumer_count: channel.acked() as u32,
                };
                self.send(number, &ok);
            }
            Method::BasicConsume(consume) => {
                channel.flood = Some(Flood::new(number, &consume, self.deliveries));
                self.send(number, &basic::ConsumeOk { consumer_tag: consume.consumer_tag });
            }
            Method::BasicCancel(cancel) => {
                channel.cancel();
                self.send(number, &basic::CancelOk { consumer_tag: cancel.consumer_tag });
            }
            other => return Err(Ended::Wrong(format!("unexpected {other:?}"))),
        }
        Ok(())
    }

    fn send<'m>(&mut self, channel: u16, method: &impl WireMethod<'m>) {
        frame::write_method(&mut self.output, channel, method);
    }

    fn write(&mut self) -> Result<(), Ended> {
        if !self.output.is_empty() {
            self.socket.set_nonblocking(false)?;
            self.socket.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Adds what is new to the totals of all connections.
    fn tell(&mut self) {
        let mut seen = Totals::default();
        for channel in &self.channels {
            seen.published += channel.published;
            seen.body_bytes += channel.body_bytes;
            seen.acked += channel.acked();
        }
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.published += seen.published - self.told.published;
        totals.body_bytes += seen.body_bytes - self.told.body_bytes;
        totals.acked += seen.acked - self.told.acked;
        self.told = seen;
    }
}
