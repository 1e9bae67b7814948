//! What clients are measured against: a sink that counts what is published, and a source that floods
//! whoever consumes. Both check every frame, and are fast enough to be no one's limit.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use amqp_proto::frame::{self, FRAME_END, FRAME_OVERHEAD, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{
    Method, MethodId, WireMethod, basic, channel, confirm, connection, queue,
};
use amqp_proto::{ContentHeader, RawProperties, ShortStr};

/// Bytes that are read or written at once.
const BUFFER: usize = 256 << 10;

/// Serves on a free port of 127.0.0.1 for as long as the process lives; returns the port.
///
/// A connection that publishes is counted and confirmed; one that consumes is sent messages of
/// `body_size` bytes, as many as `count` in all.
pub(crate) fn serve(body_size: usize, count: u64) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A client that leaves in the middle is its own affair.
                let _ = Peer::new(stream, body_size, count).and_then(|mut peer| peer.run());
            });
        }
    });
    Ok(port)
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    channels: Vec<Channel>,
    body_size: usize,
    count: u64,
}

#[derive(Clone, Default)]
struct Channel {
    published: u64,
    acknowledged: u64,
    confirms: bool,
    /// Publishes that are confirmed with the next write.
    unconfirmed: bool,
    prefetch: u64,
    flood: Option<Flood>,
}

/// A consumer's deliveries: one message laid down many times, with its tag filled in.
#[derive(Clone)]
struct Flood {
    message: Vec<u8>,
    tag_at: usize,
    sent: u64,
    settled: u64,
    no_ack: bool,
}

impl Peer {
    fn new(stream: TcpStream, body_size: usize, count: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: vec![0; BUFFER],
            filled: 0,
            output: Vec::with_capacity(2 * BUFFER),
            channels: vec![Channel::default(); 64],
            body_size,
            count,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut greeting = [0; 8];
        self.stream.read_exact(&mut greeting)?;
        let start = connection::Start {
            version_minor: 9,
            mechanisms: b"PLAIN",
            locales: b"en_US",
            ..Default::default()
        };
        self.send(0, &start);
        loop {
            self.flood();
            self.write()?;
            let flooding = self.channels.iter().any(|channel| channel.may_send(self.count) > 0);
            self.stream.set_nonblocking(flooding)?;
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    self.filled += read;
                    self.handle_input()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn handle_input(&mut self) -> io::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        loop {
            let rest = &input[at..self.filled];
            match frame::peek(rest, FrameLimits::default()) {
                Ok(Peek::Complete(found)) => {
                    at += found.frame_len();
                    self.handle_frame(&found)?;
                }
                Ok(Peek::Incomplete(_)) => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        for number in 1..self.channels.len() {
            if std::mem::take(&mut self.channels[number].unconfirmed) {
                let delivery_tag = self.channels[number].published;
                self.send(number as u16, &basic::Ack { delivery_tag, multiple: true });
            }
        }
        Ok(())
    }

    #[inline]
    fn handle_frame(&mut self, found: &frame::Frame<'_>) -> io::Result<()> {
        let number = found.channel;
        match found.kind {
            FrameKind::Method => {}
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => return Ok(()),
        }
        let (id, arguments) = MethodId::split(found.payload).map_err(io::Error::other)?;
        let channel = &mut self.channels[usize::from(number)];
        match id {
            basic::Publish::ID => {
                channel.published += 1;
                channel.unconfirmed = channel.confirms;
                return Ok(());
            }
            basic::Ack::ID => {
                let ack = basic::Ack::decode(arguments).map_err(io::Error::other)?;
                if let Some(flood) = &mut channel.flood {
                    let before = flood.settled;
                    flood.settled = if ack.multiple { ack.delivery_tag } else { flood.settled + 1 };
                    channel.acknowledged += flood.settled - before;
                }
                return Ok(());
            }
            _ => {}
        }
        let method = Method::decode(found.payload).map_err(io::Error::other)?;
        match method {
            Method::ConnectionStartOk(_) => {
                let tune = connection::Tune { channel_max: 63, frame_max: 131_072, heartbeat: 0 };
                self.send(0, &tune);
            }
            Method::ConnectionOpen(_) => self.send(0, &connection::OpenOk::default()),
            Method::ConnectionClose(_) => self.send(0, &connection::CloseOk::default()),
            Method::ChannelOpen(_) => {
                self.channels[usize::from(number)] = Channel::default();
                self.send(number, &channel::OpenOk::default());
            }
            Method::ChannelClose(_) => self.send(number, &channel::CloseOk::default()),
            Method::ConfirmSelect(_) => {
                channel.confirms = true;
                self.send(number, &confirm::SelectOk::default());
            }
            Method::BasicQos(qos) => {
                channel.prefetch = qos.prefetch_count.into();
                self.send(number, &basic::QosOk::default());
            }
            Method::QueueDeclare(declare) => {
                // What was counted: publishes as messages, settled deliveries as consumers.
                let ok = queue::DeclareOk {
                    queue: declare.queue,
                    message_count: channel.published as u32,
                    consumer_count: channel.acknowledged as u32,
                };
                self.send(number, &ok);
            }
            Method::BasicConsume(consume) => {
                channel.flood = Some(Flood::new(number, &consume, self.body_size));
                self.send(number, &basic::ConsumeOk { consumer_tag: consume.consumer_tag });
            }
            Method::BasicCancel(cancel) => {
                channel.flood = None;
                self.send(number, &basic::CancelOk { consumer_tag: cancel.consumer_tag });
            }
            _ => {}
        }
        Ok(())
    }

    fn send<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        frame::write_method(&mut self.output, channel, method);
    }

    /// Lays down what consumers may have, one buffer at most.
    fn flood(&mut self) {
        for channel in &mut self.channels {
            let mut left = channel.may_send(self.count);
            let Some(flood) = &mut channel.flood else { continue };
            while left > 0 && self.output.len() < BUFFER {
                flood.sent += 1;
                left -= 1;
                let start = self.output.len();
                self.output.extend_from_slice(&flood.message);
                let tag = start + flood.tag_at;
                self.output[tag..tag + 8].copy_from_slice(&flood.sent.to_be_bytes());
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.set_nonblocking(false)?;
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }
}

impl Channel {
    fn may_send(&self, count: u64) -> u64 {
        let Some(flood) = &self.flood else { return 0 };
        let left = count - flood.sent;
        if flood.no_ack || self.prefetch == 0 {
            left
        } else {
            left.min(self.prefetch.saturating_sub(flood.sent - flood.settled))
        }
    }
}

impl Flood {
    fn new(number: u16, consume: &basic::Consume<'_>, body_size: usize) -> Self {
        let deliver = basic::Deliver {
            consumer_tag: consume.consumer_tag,
            routing_key: ShortStr::new("bench").unwrap_or_default(),
            ..Default::default()
        };
        let mut message = Vec::new();
        frame::write_method(&mut message, number, &deliver);
        let properties = RawProperties::NONE;
        let header = ContentHeader { class_id: 60, body_size: body_size as u64, properties };
        frame::write_header(&mut message, number, &header);
        for piece in vec![b'x'; body_size].chunks(131_072 - FRAME_OVERHEAD) {
            frame::write_body(&mut message, number, piece);
        }
        debug_assert_eq!(message.last(), Some(&FRAME_END));
        // Frame head, ids, the tag's length and the tag come before it.
        let tag_at = 7 + 4 + 1 + consume.consumer_tag.len();
        Self { message, tag_at, sent: 0, settled: 0, no_ack: consume.no_ack }
    }
}
