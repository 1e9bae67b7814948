//! A conversation with RabbitMQ is recorded, then fed to the core again in other pieces: it must see
//! the same events and write the same bytes, however the stream is cut.
//!
//! The client acts in phases, each of which begins when all answers of the one before are there, so
//! that what it writes depends on what it has read alone.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use amqp_async::core::requests::{ConfirmSelect, ConsumeOk, MessageCount};
use amqp_async::core::{
    Action, BasicConsume, Call, ChannelId, Config, ConsumerKey, Delivery, Event, Publish,
    PublishSeq, QueueDeclare, QueueDeclareOk, QueueDelete, Session, Transmit,
};
use amqp_proto::frame::{self, FrameLimits, Peek};
use bytes::BytesMut;

use crate::support::rabbitmq;

const MESSAGES: u64 = 400;

#[test]
fn any_cut_of_the_stream_gives_the_same_events_and_bytes() {
    let (recording, expected) = record();
    assert!(recording.frames() >= 1_000, "{} frames", recording.frames());
    for size in [usize::MAX, 1, 7, 4096] {
        assert_eq!(recording.replay(|segment| cut(segment, size)), expected, "pieces of {size}");
    }
    let total: usize = recording.segments.iter().map(Vec::len).sum();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (recording, expected) = (&recording, &expected);
            scope.spawn(move || {
                for point in (half..total).step_by(2) {
                    let mut before = point;
                    let actual = recording.replay(|segment| {
                        let (first, second) = segment.split_at(before.min(segment.len()));
                        before = before.saturating_sub(segment.len());
                        vec![first, second]
                    });
                    assert_eq!(&actual, expected, "split at {point}");
                }
            });
        }
    });
}

fn cut(segment: &[u8], size: usize) -> Vec<&[u8]> {
    segment.chunks(size.min(segment.len().max(1))).collect()
}

/// What the broker sent, phase by phase.
struct Recording {
    config: Arc<Config>,
    segments: Vec<Vec<u8>>,
}

/// What a client saw and wrote.
#[derive(Debug, PartialEq)]
struct Trace {
    events: Vec<String>,
    deliveries: Vec<Delivery>,
    written: Vec<u8>,
}

impl Recording {
    fn frames(&self) -> usize {
        let all = self.segments.concat();
        let mut rest = all.as_slice();
        let mut count = 0;
        while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
            rest = &rest[frame.frame_len()..];
            count += 1;
        }
        assert!(rest.is_empty());
        count
    }

    fn replay<'r>(&'r self, mut pieces: impl FnMut(&'r [u8]) -> Vec<&'r [u8]>) -> Trace {
        let mut client = Client::new(&self.config);
        for segment in &self.segments {
            client.advance();
            for piece in pieces(segment) {
                client.feed(piece);
            }
        }
        client.finish()
    }
}

fn record() -> (Recording, Trace) {
    let config = Arc::new(Config::from_uri(&rabbitmq().uri()).unwrap());
    let mut client = Client::new(&config);
    let mut socket = TcpStream::connect(("127.0.0.1", rabbitmq().port())).unwrap();
    let mut segments = Vec::new();
    let mut sent = 0;
    while client.cause().is_none() {
        client.advance();
        socket.write_all(&client.trace.written[sent..]).unwrap();
        sent = client.trace.written.len();
        let mut segment = Vec::new();
        let phase = client.phase;
        while client.phase == phase && client.cause().is_none() {
            let mut buffer = [0; 4096];
            let count = socket.read(&mut buffer).unwrap();
            segment.extend_from_slice(&buffer[..count]);
            client.feed(&buffer[..count]);
            // The handshake answers within its phase.
            socket.write_all(&client.trace.written[sent..]).unwrap();
            sent = client.trace.written.len();
        }
        segments.push(segment);
    }
    (Recording { config, segments }, client.finish())
}

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Open,
    Channel,
    Declared,
    Confirms,
    Resolved,
    Delivered,
    Cancelled,
    Deleted,
    Closed,
}

struct Client {
    now: Instant,
    session: Session,
    input: BytesMut,
    out: Transmit,
    phase: Phase,
    channel: Option<ChannelId>,
    calls: Calls,
    consumer: Option<ConsumerKey>,
    open_publishes: BTreeSet<u64>,
    trace: Trace,
}

#[derive(Default)]
struct Calls {
    plain: Option<Call<()>>,
    declare: Option<Call<QueueDeclareOk>>,
    consume: Option<Call<ConsumeOk>>,
    delete: Option<Call<MessageCount>>,
}

impl Client {
    fn new(config: &Arc<Config>) -> Self {
        let now = Instant::now();
        let mut session = Session::new(Arc::clone(config), now, 0).unwrap();
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
        session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 1).into()]));
        let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
        session.handle_connected(now, attempt);
        let trace = Trace { events: Vec::new(), deliveries: Vec::new(), written: Vec::new() };
        Self {
            now,
            session,
            input: BytesMut::new(),
            out: Transmit::new(),
            phase: Phase::Open,
            channel: None,
            calls: Calls::default(),
            consumer: None,
            open_publishes: BTreeSet::new(),
            trace,
        }
    }

    fn cause(&self) -> Option<String> {
        self.session.cause().map(ToString::to_string)
    }

    /// Does what the present phase begins with.
    fn advance(&mut self) {
        let now = self.now;
        match self.phase {
            Phase::Open => {}
            Phase::Channel => {
                let (channel, call) = self.session.open_channel(now).unwrap();
                self.channel = Some(channel);
                self.calls.plain = Some(call);
            }
            Phase::Declared => {
                let declare = QueueDeclare::new("recorded").exclusive();
                self.calls.declare = Some(self.channel().call(now, &declare).unwrap());
            }
            Phase::Confirms => {
                let select = ConfirmSelect::default();
                self.calls.plain = Some(self.channel().call(now, &select).unwrap());
            }
            Phase::Resolved => {
                for number in 0..MESSAGES {
                    // One in ten comes back.
                    let key = if number % 10 == 0 { "nowhere" } else { "recorded" };
                    let body = number.to_string().repeat(1 + number as usize % 7);
                    let publish = Publish::new("", key, &body).mandatory();
                    self.channel().publish(&publish).unwrap();
                }
                self.open_publishes = (1..=MESSAGES).collect();
            }
            Phase::Delivered => {
                let consume = BasicConsume::new("recorded").consumer_tag("t").prefetch(0);
                self.calls.consume = Some(self.channel().consume(now, &consume).unwrap());
            }
            Phase::Cancelled => {
                let tags: Vec<_> = self.trace.deliveries.iter().map(|it| it.tag).collect();
                for tag in tags {
                    self.channel().ack(tag, false).unwrap();
                }
                let consumer = self.consumer.unwrap();
                self.calls.plain = Some(self.channel().cancel(now, consumer).unwrap());
            }
            Phase::Deleted => {
                let delete = QueueDelete::new("recorded");
                self.calls.delete = Some(self.channel().call(now, &delete).unwrap());
            }
            Phase::Closed => self.session.close(now),
        }
        self.drain();
    }

    fn feed(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        while self.session.handle_input(self.now, &mut self.input) {}
        self.drain();
    }

    fn drain(&mut self) {
        while self.session.poll_transmit(self.now, &mut self.out) {
            let bytes = self.out.to_vec();
            self.out.advance(bytes.len());
            self.trace.written.extend(bytes);
        }
        while let Some(event) = self.session.poll_event() {
            self.handle(&event);
        }
        if self.phase == Phase::Delivered && self.consumer.is_some() {
            let consumer = self.consumer.unwrap();
            while let Some(delivery) = self.channel().next_delivery(consumer) {
                self.trace.deliveries.push(delivery);
            }
            if self.trace.deliveries.len() as u64 == MESSAGES * 9 / 10 {
                self.phase = Phase::Cancelled;
            }
        }
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Opened => self.phase = Phase::Channel,
            Event::CallDone(_) => self.call_done(),
            Event::Resolved { first, last, .. } => {
                for seq in first.number()..=last.number() {
                    self.resolved(seq);
                }
                return;
            }
            // How many deliveries there are at a time depends on the cut.
            Event::Deliverable(_) => return,
            _ => {}
        }
        self.trace.events.push(format!("{event:?}"));
    }

    fn call_done(&mut self) {
        if let Some(call) = self.calls.plain.take() {
            self.session.take_reply(&call).unwrap().unwrap();
        } else if let Some(call) = self.calls.declare.take() {
            let ok = self.session.take_reply(&call).unwrap().unwrap();
            self.trace.events.push(format!("{ok:?}"));
        } else if let Some(call) = self.calls.delete.take() {
            let ok = self.session.take_reply(&call).unwrap().unwrap();
            self.trace.events.push(format!("{ok:?}"));
        } else if let Some(call) = self.calls.consume.take() {
            let ok = self.session.take_reply(&call).unwrap().unwrap();
            self.consumer = Some(ok.consumer);
            return;
        }
        self.phase = match self.phase {
            Phase::Channel => Phase::Declared,
            Phase::Declared => Phase::Confirms,
            Phase::Confirms => Phase::Resolved,
            Phase::Cancelled => Phase::Deleted,
            _ => Phase::Closed,
        };
    }

    fn resolved(&mut self, seq: u64) {
        // An event may cover publishes that were resolved before.
        if !self.open_publishes.remove(&seq) {
            return;
        }
        let seq: PublishSeq = PublishSeq::new(seq);
        let outcome = self.channel().confirmed(seq).unwrap();
        self.trace.events.push(format!("{seq:?}: {outcome:?}"));
        if self.open_publishes.is_empty() {
            self.phase = Phase::Delivered;
        }
    }

    fn channel(&mut self) -> amqp_async::core::Channel<'_> {
        self.session.channel(self.channel.unwrap())
    }

    fn finish(self) -> Trace {
        assert_eq!(self.cause().as_deref(), Some("by this client"));
        self.trace
    }
}
