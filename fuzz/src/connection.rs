//! An arbitrary peer that can also answer as a [broker](Broker) does, and an application that does as
//! it pleases, with a clock and a socket that they turn.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::TransportError;
use amqp_core::proto::frame::{self, FrameLimits, Peek};
use amqp_core::proto::method::{TABLE, basic, channel, connection};
use amqp_core::proto::{ContentHeader, PROTOCOL_HEADER, RawProperties, ShortStr};
use amqp_core::requests::{BasicRecover, ConfirmSelect, TxCommit, TxRollback, TxSelect};
use amqp_core::types::Secret;
use amqp_core::{
    Action, Attempt, BasicConsume, BasicGet, BasicQos, Call, ChannelId, Config, ConsumerKey,
    DeliveryTag, Event, Publish, PublishSeq, QueueDeclare, Recovery, Session, Transmit,
};
use bytes::BytesMut;

use crate::broker::Broker;
use crate::ops::Ops;

const FRAME_MAX: u32 = 4_096;

/// Any bytes from a peer, between any commands, whole or cut: the session never panics, whatever it
/// writes is whole frames within the limit, and once the transport is lost every call and every
/// publish has its end.
pub fn connection_bytes(data: &[u8]) {
    let mut ops = Ops(data);
    let Some(mut world) = World::new(ops.byte().unwrap_or(0)) else { return };
    for _ in 0..400 {
        let Some(op) = ops.byte() else { break };
        world.step(op, &mut ops);
        world.turn();
    }
    world.finish();
}

struct World {
    session: Session,
    attempt: Attempt,
    now: Instant,
    input: BytesMut,
    out: Transmit,
    written: Vec<u8>,
    written_in_all: u64,
    /// The socket takes no bytes.
    stalled: bool,
    broker: Broker,
    greeted: bool,
    lost: bool,
    channels: Vec<ChannelId>,
    calls: Vec<Call<()>>,
    consumes: Vec<(ChannelId, Call<amqp_core::requests::ConsumeOk>)>,
    gets: Vec<(ChannelId, Call<Option<amqp_core::requests::Got>>)>,
    declares: Vec<Call<amqp_core::QueueDeclareOk>>,
    consumers: Vec<(ChannelId, ConsumerKey)>,
    tags: Vec<(ChannelId, DeliveryTag)>,
    publishes: Vec<(ChannelId, PublishSeq)>,
    next_tag: [u64; 4],
}

impl World {
    /// With an odd first byte the peer has opened the connection as a broker does.
    fn new(first: u8) -> Option<Self> {
        let now = Instant::now();
        let config =
            Config::default().blocked_timeout(Duration::from_secs(90)).recovery(Recovery::never());
        let mut session = Session::new(Arc::new(config), now, 0).ok()?;
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { return None };
        session.handle_resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 5672).into()]));
        let Some(Action::Dial { attempt, .. }) = session.poll_action() else { return None };
        session.handle_connected(now, attempt);
        let mut world = Self {
            session,
            attempt,
            now,
            input: BytesMut::new(),
            out: Transmit::new(),
            written: Vec::new(),
            written_in_all: 0,
            stalled: false,
            broker: Broker::default(),
            greeted: false,
            lost: false,
            channels: Vec::new(),
            calls: Vec::new(),
            consumes: Vec::new(),
            gets: Vec::new(),
            declares: Vec::new(),
            consumers: Vec::new(),
            tags: Vec::new(),
            publishes: Vec::new(),
            next_tag: [1; 4],
        };
        world.turn();
        if first % 2 == 1 {
            let mut wire = Vec::new();
            let start = connection::Start {
                version_minor: 9,
                mechanisms: b"PLAIN",
                locales: b"en_US",
                ..Default::default()
            };
            frame::write_method(&mut wire, 0, &start);
            let tune = connection::Tune { channel_max: 3, frame_max: FRAME_MAX, heartbeat: 10 };
            frame::write_method(&mut wire, 0, &tune);
            frame::write_method(&mut wire, 0, &connection::OpenOk::default());
            for number in 1..=3 {
                world.receive(&wire);
                wire.clear();
                world.open_channel();
                frame::write_method(&mut wire, number, &channel::OpenOk::default());
            }
            world.receive(&wire);
            world.turn();
        }
        Some(world)
    }

    fn step(&mut self, op: u8, ops: &mut Ops<'_>) {
        let (now, which) = (self.now, usize::from(op >> 5));
        match op & 31 {
            0 => self.receive(ops.piece(usize::from(op) + 1)),
            1 => {
                let length = usize::from(ops.byte().unwrap_or(0));
                self.receive(ops.piece(length));
            }
            // A whole frame of any payload.
            2 | 3 => {
                let kind = [1, 2, 3, 8][which % 4];
                let number = ops.byte().unwrap_or(1) % 5;
                let length = usize::from(ops.byte().unwrap_or(0));
                self.receive_frame(kind, number, ops.piece(length));
            }
            // Any method, with any arguments.
            4 | 5 => {
                let index = usize::from(ops.byte().unwrap_or(0)) % TABLE.len();
                let id = TABLE[index].id;
                let length = usize::from(ops.byte().unwrap_or(0)) % 64;
                let [class, method] = [id.class.to_be_bytes(), id.method.to_be_bytes()];
                let payload = [&class, &method, ops.piece(length)].concat();
                let number = if id.class == 10 { 0 } else { 1 + which as u8 % 3 };
                self.receive_frame(1, number, &payload);
            }
            6 | 7 => self.deliver(which, ops),
            8 => self.reply(which, ops.byte().unwrap_or(0)),
            9 => {
                let seconds = u64::from(ops.byte().unwrap_or(0));
                self.now += Duration::from_millis(seconds * 500);
                self.session.handle_timeout(self.now);
            }
            10 => self.lose(),
            11 => self.open_channel(),
            12 => self.publish(which, ops),
            13 => {
                let Some(id) = self.channel(which) else { return };
                let call = self.session.channel(id).call(now, &ConfirmSelect::default());
                self.calls.extend(call.ok());
            }
            14 => {
                let Some(id) = self.channel(which) else { return };
                let mut consume = BasicConsume::new("q");
                if ops.byte().is_some_and(|byte| byte % 2 == 0) {
                    consume = consume.consumer_tag("t");
                }
                if which > 5 {
                    consume = consume.no_ack();
                }
                let call = self.session.channel(id).consume(now, &consume);
                self.consumes.extend(call.ok().map(|call| (id, call)));
            }
            15 => {
                let Some(id) = self.channel(which) else { return };
                let call = self.session.channel(id).call(now, &BasicGet::new("q"));
                self.gets.extend(call.ok().map(|call| (id, call)));
            }
            16 => {
                let Some(id) = self.channel(which) else { return };
                let call = self.session.channel(id).call(now, &QueueDeclare::new("q"));
                self.declares.extend(call.ok());
            }
            17 => self.acknowledge(ops.byte().unwrap_or(0)),
            18 => {
                let Some((id, key)) = self.consumers.get(which % self.consumers.len().max(1))
                else {
                    return;
                };
                self.calls.extend(self.session.channel(*id).cancel(now, *key).ok());
            }
            19 => {
                if let Some((id, key)) = self.consumers.pop() {
                    self.session.channel(id).release_consumer(now, key, []);
                }
            }
            20 => {
                let Some(id) = self.channel(which) else { return };
                let call = self.session.channel(id).close(now);
                self.calls.push(call);
            }
            21 if self.channels.len() > which => {
                let id = self.channels.remove(which);
                self.session.channel(id).release(now);
                self.publishes.retain(|(channel, _)| *channel != id);
            }
            22 => {
                if let Some(call) = self.calls.pop() {
                    self.session.forget(now, call.key());
                }
                if let Some((_, call)) = self.gets.pop() {
                    self.session.forget(now, call.key());
                }
                if let Some((_, call)) = self.consumes.pop() {
                    self.session.forget(now, call.key());
                }
            }
            23 => self.session.close(now),
            24 => {
                let Some(id) = self.channel(which) else { return };
                let mut channel = self.session.channel(id);
                let call = match ops.byte().unwrap_or(0) % 6 {
                    0 => channel.call(now, &TxSelect::default()),
                    1 => channel.call(now, &TxCommit::default()),
                    2 => channel.call(now, &TxRollback::default()),
                    3 => channel.call(now, &BasicRecover::default()),
                    4 => channel.call(now, &BasicQos::new(7)),
                    _ => {
                        let _ = channel.call_no_wait(&QueueDeclare::new("q"));
                        return;
                    }
                };
                self.calls.extend(call.ok());
            }
            25 => {
                let secret = Secret::new("s");
                self.calls.extend(self.session.update_secret(now, &secret, "r").ok());
            }
            26 => self.calls.extend(self.session.drain(now, Duration::from_secs(9)).ok()),
            27 => {
                let _ = self.session.wants_input();
                if let Some((id, seq)) = self.publishes.pop() {
                    self.session.channel(id).forget_publish(seq);
                }
            }
            28 => {
                if let Some(id) = self.channel(which) {
                    while self.session.channel(id).take_returned().is_some() {}
                }
            }
            29 => self.answer(which, ops),
            // The socket takes a few bytes, and no more until it is asked again without a limit.
            30 => {
                let limit = usize::from(ops.byte().unwrap_or(0));
                self.stalled = limit > 0;
                self.write(limit);
            }
            _ => self.receive(&frame::HEARTBEAT),
        }
    }

    /// A broker answers what it has read.
    fn answer(&mut self, which: usize, ops: &mut Ops<'_>) {
        let (what, number) = (ops.byte().unwrap_or(0), which % self.next_tag.len());
        let more = usize::from(what >> 3);
        let wire = match what & 7 {
            0..=3 => {
                let tag = if more % 4 > 0 { self.next_tag[number] } else { 0 };
                let (wire, got) = self.broker.answer(number as u16, tag, more * 8);
                self.next_tag[number] += u64::from(got);
                wire
            }
            4 => self.broker.confirm(number as u16, more as u64 % 4, more & 4 > 0, true),
            5 => self.broker.confirm(number as u16, more as u64 % 4, more & 4 > 0, false),
            6 => {
                let body_max = FRAME_MAX as usize - frame::FRAME_OVERHEAD;
                self.broker.give_back(number as u16, more & 1 > 0, body_max)
            }
            _ => {
                let mut wire = Vec::new();
                let flow = channel::Flow { active: more & 1 > 0 };
                frame::write_method(&mut wire, number.max(1) as u16, &flow);
                wire
            }
        };
        self.receive(&wire);
    }

    fn open_channel(&mut self) {
        if let Ok((id, call)) = self.session.open_channel(self.now) {
            self.channels.push(id);
            self.calls.push(call);
        }
    }

    fn channel(&self, which: usize) -> Option<ChannelId> {
        self.channels.get(which % self.channels.len().max(1)).copied()
    }

    fn publish(&mut self, which: usize, ops: &mut Ops<'_>) {
        let Some(id) = self.channel(which) else { return };
        let size = usize::from(ops.byte().unwrap_or(0)) * 64;
        let body = vec![0; size];
        let mut publish = Publish::new("", "q", &body);
        if which % 2 == 1 {
            publish = publish.mandatory();
        }
        let mut channel = self.session.channel(id);
        if let Ok(seq) = channel.publish(&publish)
            && channel.confirms()
        {
            self.publishes.push((id, seq));
        }
    }

    /// A delivery that is sound but for what the fuzzer puts into it.
    fn deliver(&mut self, which: usize, ops: &mut Ops<'_>) {
        let number = 1 + which % 3;
        let tag = self.next_tag[number];
        self.next_tag[number] += 1;
        let consumer_tag = ShortStr::new("t").unwrap_or_default();
        let deliver = basic::Deliver { consumer_tag, delivery_tag: tag, ..Default::default() };
        let size = usize::from(ops.byte().unwrap_or(0));
        let length = usize::from(ops.byte().unwrap_or(0)) % 32;
        let mut properties = ops.piece(length);
        if properties.len() < 2 {
            properties = &[0, 0];
        }
        let properties = RawProperties::new(properties);
        let header = ContentHeader { class_id: 60, body_size: size as u64, properties };
        let mut wire = Vec::new();
        frame::write_method(&mut wire, number as u16, &deliver);
        frame::write_header(&mut wire, number as u16, &header);
        if size > 0 {
            frame::write_body(&mut wire, number as u16, &vec![0; size]);
        }
        self.receive(&wire);
    }

    /// What a broker answers most often.
    fn reply(&mut self, which: usize, what: u8) {
        let number = 1 + which as u16 % 3;
        let consumer_tag = ShortStr::new("t").unwrap_or_default();
        let mut wire = Vec::new();
        match what % 8 {
            0 => frame::write_method(&mut wire, number, &basic::QosOk::default()),
            1 => frame::write_method(&mut wire, number, &basic::ConsumeOk { consumer_tag }),
            2 => frame::write_method(&mut wire, number, &basic::CancelOk { consumer_tag }),
            3 => frame::write_method(&mut wire, number, &channel::CloseOk::default()),
            4 => {
                let close = channel::Close { reply_code: 404, ..Default::default() };
                frame::write_method(&mut wire, number, &close);
            }
            5 => {
                let ack = basic::Ack { delivery_tag: u64::from(what >> 4), multiple: what & 8 > 0 };
                frame::write_method(&mut wire, number, &ack);
            }
            6 => frame::write_method(&mut wire, number, &channel::OpenOk::default()),
            _ => frame::write_method(&mut wire, number, &basic::GetEmpty::default()),
        }
        self.receive(&wire);
    }

    fn acknowledge(&mut self, how: u8) {
        let Some((id, tag)) = self.tags.get(usize::from(how) % self.tags.len().max(1)) else {
            return;
        };
        let mut channel = self.session.channel(*id);
        let _ = match how % 5 {
            0 => channel.ack(*tag, false),
            1 => channel.ack(*tag, true),
            2 => channel.nack(*tag, how & 64 > 0, true),
            3 => channel.reject(*tag, false),
            _ => {
                channel.drop_unacked(*tag);
                return;
            }
        };
    }

    fn receive_frame(&mut self, kind: u8, number: u8, payload: &[u8]) {
        let mut wire = vec![kind, 0, number];
        wire.extend((payload.len() as u32).to_be_bytes());
        wire.extend_from_slice(payload);
        wire.push(frame::FRAME_END);
        self.receive(&wire);
    }

    fn receive(&mut self, bytes: &[u8]) {
        if !self.lost {
            self.input.extend_from_slice(bytes);
            while self.session.handle_input(self.now, &mut self.input) {}
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        let error = TransportError::end_of_file();
        self.session.handle_disconnected(self.now, self.attempt, error, self.written_in_all);
        (self.out, self.stalled) = (Transmit::new(), false);
        self.written.clear();
    }

    /// What a driver does between two steps.
    fn turn(&mut self) {
        while let Some(action) = self.session.poll_action() {
            self.lost |= matches!(action, Action::Finish { .. });
        }
        while let Some(event) = self.session.poll_event() {
            if let Event::Deliverable(key) = event
                && let Some((id, _)) = self.consumers.iter().find(|(_, known)| *known == key)
            {
                let id = *id;
                let mut pulled = VecDeque::new();
                while self.session.channel(id).pull_deliveries(key, &mut pulled) > 0 {}
                for delivery in pulled {
                    let _ = delivery.fault();
                    self.tags.push((id, delivery.tag));
                }
                let _ = self.session.channel(id).consumer_end(key);
            }
        }
        self.take_results();
        if !self.stalled {
            self.write(usize::MAX);
        }
        self.session.handle_written(self.now, self.attempt, self.written_in_all);
        self.check_written();
        while self.session.poll_event().is_some() {}
        let _ = self.session.poll_timeout();
        drop(self.session.take_discarded());
    }

    /// The socket takes at most so many bytes.
    fn write(&mut self, limit: usize) {
        let mut left = limit;
        while left > 0
            && (!self.out.is_empty() || self.session.poll_transmit(self.now, &mut self.out))
        {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = self.out.slices(&mut slices);
            let mut count = 0;
            for slice in &slices[..filled] {
                let taken = slice.len().min(left - count);
                self.written.extend_from_slice(&slice[..taken]);
                count += taken;
            }
            self.out.advance(count);
            self.written_in_all += count as u64;
            left -= count;
        }
    }

    fn take_results(&mut self) {
        let session = &mut self.session;
        self.calls.retain(|call| session.take_reply(call).is_none());
        self.declares.retain(|call| session.take_reply(call).is_none());
        let consumers = &mut self.consumers;
        self.consumes.retain(|(id, call)| match session.take_reply(call) {
            None => true,
            Some(result) => {
                consumers.extend(result.ok().map(|ok| (*id, ok.consumer)));
                false
            }
        });
        let tags = &mut self.tags;
        self.gets.retain(|(id, call)| match session.take_reply(call) {
            None => true,
            Some(result) => {
                tags.extend(result.ok().flatten().map(|got| (*id, got.delivery.tag)));
                false
            }
        });
        self.publishes.retain(|(id, seq)| session.channel(*id).confirmed(*seq).is_none());
    }

    /// Whole frames within the limit, behind the protocol header; the last one may be under way.
    fn check_written(&mut self) {
        let mut rest = self.written.as_slice();
        if !self.greeted && !rest.is_empty() {
            rest = rest.strip_prefix(&PROTOCOL_HEADER).expect("the protocol header comes first");
            self.greeted = true;
        }
        // Before the handshake is done, no more than the least.
        let frame_max = self.session.connection().tuning().frame_max.max(FRAME_MAX);
        let other = frame_max - 8;
        let limits = FrameLimits { body: other, header: other, method: other };
        while !rest.is_empty() {
            match frame::peek(rest, limits) {
                Ok(Peek::Complete(frame)) => {
                    self.broker.read(&frame);
                    rest = &rest[frame.frame_len()..];
                }
                Ok(Peek::Incomplete(_)) if !self.out.is_empty() => break,
                wrong => panic!("half a frame, or none: {wrong:?}"),
            }
        }
        let read = self.written.len() - rest.len();
        self.written.drain(..read);
    }

    /// Whatever was begun has an end.
    fn finish(mut self) {
        self.lose();
        self.turn();
        assert!(self.session.cause().is_some(), "a session without a transport has ended");
        assert!(self.calls.is_empty() && self.declares.is_empty(), "calls without an end");
        assert!(self.consumes.is_empty() && self.gets.is_empty(), "calls without an end");
        assert!(self.publishes.is_empty(), "publishes without an end");
        for (id, key) in &self.consumers {
            let mut channel = self.session.channel(*id);
            while channel.next_delivery(*key).is_some() {}
            assert!(channel.consumer_end(*key).is_some(), "a consumer without an end");
        }
        assert!(!self.session.connection().wants_transmit(), "an ended session writes no more");
        assert_eq!(self.session.poll_timeout(), None);
        let stats = self.session.connection().stats();
        assert_eq!((stats.unacked, stats.unconfirmed, stats.open_calls), (0, 0, 0));
        assert_eq!(stats.unread_bytes, 0);
    }
}
