//! A loss at every byte of a recovery. The next recovery restores the same as one that is not interrupted.
//!
//! The broker is the model of the testkit. A session with a bit of everything loses its transport, and while it recovers
//! it loses the next one, after a number of bytes in one direction. Then nothing fails any more. What both sides have in
//! the end, and what they do with messages, is compared with a recovery that was not cut.
//!
//! A broker may notice the end of a transport late. Until then it holds the connection's exclusive queues and consumers.
//! When it notices, it deletes what the connection alone has used.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::TransportError;
use amqp_core::requests::{ConfirmSelect, FromReply, Rpc, TxCommit, TxSelect};
use amqp_core::{
    Action, Attempt, BasicConsume, BasicQos, ChannelId, Config, Confirmation, ConsumerKey, Event,
    ExchangeBind, ExchangeDeclare, Publish, QueueBind, QueueDeclare, Recovery, Session, Transmit,
};
use amqp_testkit::model::{Broker, ConnectionId, Held, Topology};
use bytes::BytesMut;

/// The side whose bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Broker,
}

/// What both sides have and do after a recovery.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    held: Held,
    /// With "named" for the queue whose name the broker has chosen.
    topology: Topology,
    /// The bodies that each consumer has received, as far as its prefetch permits.
    delivered: Vec<Vec<u8>>,
    confirmed: Vec<Option<Confirmation>>,
    /// How many messages of a transaction its queue has before and after the commit.
    committed: [Option<usize>; 2],
    /// Everything that a recovery without a failure does not report.
    troubles: Vec<Event>,
}

struct World {
    session: Session,
    broker: Broker,
    now: Instant,
    attempt: Option<Attempt>,
    link: Option<ConnectionId>,
    /// The number of bytes that have passed on the link, by the side that sent them.
    passed: [usize; 2],
    /// When the link is lost.
    cut: Option<(Side, usize)>,
    /// How long the broker takes to notice a loss, and the connections of which it has not.
    notices_after: Duration,
    unnoticed: VecDeque<(Instant, ConnectionId)>,
    out: Transmit,
    input: BytesMut,
    /// The channel in confirm mode, and the one in transaction mode.
    channels: Vec<ChannelId>,
    consumers: Vec<ConsumerKey>,
    /// The present name of the queue whose name the broker has chosen.
    named: String,
    recoveries: usize,
    troubles: Vec<Event>,
}

#[test]
fn r3_a_loss_at_every_byte_of_a_recovery_changes_nothing() {
    every_byte(Duration::ZERO);
}

#[test]
fn r3_a_loss_at_every_byte_that_the_broker_notices_late_changes_nothing() {
    every_byte(Duration::from_secs(3));
}

fn every_byte(notices_after: Duration) {
    let expected = World::set_up(notices_after).recover(None).outcome();
    assert_eq!(expected.troubles, []);
    for side in [Side::Client, Side::Broker] {
        let cuts = (0..).take_while(|bytes| {
            let mut world = World::set_up(notices_after).recover(Some((side, *bytes)));
            let was_cut = world.cut.take().is_none();
            assert_eq!(world.outcome(), expected, "{side:?} is cut after {bytes} bytes");
            was_cut
        });
        let cuts = cuts.count();
        assert!(cuts > 500, "{side:?} sends more than {cuts} bytes");
    }
}

impl World {
    /// A session that recovers, with everything that it is to restore.
    fn set_up(notices_after: Duration) -> Self {
        let now = Instant::now();
        let config = Config::default().recovery(Recovery::automatic());
        let mut world = Self {
            session: Session::new(Arc::new(config), now, 0).unwrap(),
            broker: Broker::new(),
            now,
            attempt: None,
            link: None,
            passed: [0; 2],
            cut: None,
            notices_after,
            unnoticed: VecDeque::new(),
            out: Transmit::new(),
            input: BytesMut::new(),
            channels: Vec::new(),
            consumers: Vec::new(),
            named: String::new(),
            recoveries: 0,
            troubles: Vec::new(),
        };
        world.settle();
        for _ in 0..2 {
            let (id, call) = world.session.open_channel(now).unwrap();
            world.settle();
            world.session.take_reply(&call).unwrap().unwrap();
            world.channels.push(id);
        }
        world.declare();
        world.consume();
        world
    }

    fn declare(&mut self) {
        let [first, second] = self.channels[..] else { panic!() };
        self.call(first, &ExchangeDeclare::topic("durable").durable());
        self.call(first, &ExchangeDeclare::fanout("transient"));
        self.call(second, &ExchangeDeclare::direct("unused").auto_delete());
        self.call(second, &ExchangeBind::new("transient", "durable", "#"));
        self.call(first, &QueueDeclare::new("durable").durable());
        self.call(second, &QueueDeclare::new("unused").auto_delete());
        self.call(first, &QueueDeclare::new("mine").exclusive());
        self.named = self.call(second, &QueueDeclare::new("").exclusive()).queue;
        self.call(first, &QueueDeclare::new("plain").durable());
        self.call(first, &QueueBind::new("durable", "durable", "a"));
        self.call(second, &QueueBind::new("", "durable", "b"));
        self.call(second, &QueueBind::new("unused", "transient", ""));
        // The exchange goes with the queue, and the queue with its connection.
        self.call(first, &QueueBind::new("mine", "unused", "c"));
    }

    fn consume(&mut self) {
        let [first, second] = self.channels[..] else { panic!() };
        self.call(first, &ConfirmSelect::default());
        self.call(first, &BasicQos::new(3));
        self.call(second, &TxSelect::default());
        self.call(second, &BasicQos::new(5));
        let named = self.named.clone();
        let consume = |queue: &str| BasicConsume::new(queue).consumer_tag(format!("of {queue}"));
        for (id, consume) in [
            (first, consume("durable")),
            (first, consume(&named).consumer_tag("of named").prefetch(2)),
            (second, consume("unused")),
            (second, consume("mine").no_ack()),
            (second, consume("plain").exclusive()),
        ] {
            let call = self.session.channel(id).consume(self.now, &consume).unwrap();
            self.settle();
            self.consumers.push(self.session.take_reply(&call).unwrap().unwrap().consumer);
        }
    }

    /// Makes a call that the broker grants.
    fn call<R: Rpc>(&mut self, id: ChannelId, request: &R) -> R::Reply
    where
        R::Reply: FromReply,
    {
        let call = self.session.channel(id).call(self.now, request).unwrap();
        self.settle();
        self.session.take_reply(&call).unwrap().unwrap()
    }

    /// Loses the transport, loses the next one where `cut` says, and goes on until everything is restored.
    fn recover(mut self, cut: Option<(Side, usize)>) -> Self {
        self.lose();
        self.cut = cut;
        for _ in 0..1_000 {
            self.settle();
            let noticed = self.unnoticed.front().map(|it| it.0);
            let timeout = self.session.poll_timeout().map(|it| it.0);
            let timeout = timeout.filter(|_| !self.session.is_open());
            let Some(due) = [noticed, timeout].into_iter().flatten().min() else { return self };
            self.now = self.now.max(due);
            while let Some((_, id)) = self.unnoticed.front().copied().filter(|it| it.0 <= self.now)
            {
                self.unnoticed.pop_front();
                self.broker.disconnect(id);
            }
            self.session.handle_timeout(self.now);
        }
        panic!("not recovered: {:?}", self.troubles);
    }

    /// Carries out what both sides have to do now.
    fn settle(&mut self) {
        loop {
            let mut progress = false;
            while let Some(action) = self.session.poll_action() {
                self.carry_out(action);
                progress = true;
            }
            while self.session.poll_transmit(self.now, &mut self.out) {
                let bytes = self.out.to_vec();
                self.out.advance(bytes.len());
                self.pass(Side::Client, &bytes);
                progress = true;
            }
            if let Some(id) = self.link {
                let bytes = self.broker.take_output(id);
                progress |= !bytes.is_empty();
                self.pass(Side::Broker, &bytes);
            }
            while let Some(event) = self.session.poll_event() {
                self.note(event);
                progress = true;
            }
            if !progress {
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Resolve { attempt, .. } => {
                let addresses = vec![([127, 0, 0, 1], 5672).into()];
                self.session.handle_resolved(self.now, attempt, Ok(addresses));
            }
            Action::Dial { attempt, .. } => {
                assert_eq!(self.link, None, "one transport at a time");
                (self.attempt, self.passed) = (Some(attempt), [0; 2]);
                (self.out, self.input) = (Transmit::new(), BytesMut::new());
                self.link = Some(self.broker.connect());
                self.session.handle_connected(self.now, attempt);
                self.pass(Side::Client, b"");
            }
            Action::Disconnect { .. } => self.drop_link(),
            action => panic!("{action:?}"),
        }
    }

    /// Passes bytes to the other side. Loses the link behind the last byte before the cut.
    fn pass(&mut self, from: Side, bytes: &[u8]) {
        let Some(id) = self.link else { return };
        let passed = &mut self.passed[from as usize];
        let left = match self.cut {
            Some((side, cut)) if side == from => cut - *passed,
            _ => usize::MAX,
        };
        let bytes = &bytes[..bytes.len().min(left)];
        *passed += bytes.len();
        match from {
            Side::Client => {
                self.broker.receive(id, bytes);
                let written = self.passed[Side::Client as usize] as u64;
                self.session.handle_written(self.now, self.attempt.unwrap(), written);
            }
            Side::Broker => {
                self.input.extend_from_slice(bytes);
                while self.session.handle_input(self.now, &mut self.input) {}
            }
        }
        if bytes.len() == left {
            self.lose();
        }
    }

    /// The client sees the end of the link, and the broker does so now or later.
    fn lose(&mut self) {
        self.cut = None;
        self.drop_link();
        let (error, written) = (TransportError::end_of_file(), self.passed[Side::Client as usize]);
        let attempt = self.attempt.unwrap();
        self.session.handle_disconnected(self.now, attempt, error, written as u64);
    }

    fn drop_link(&mut self) {
        let Some(id) = self.link.take() else { return };
        match self.notices_after {
            Duration::ZERO => self.broker.disconnect(id),
            later => self.unnoticed.push_back((self.now + later, id)),
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Recovered(report) if report.failed.is_empty() => self.recoveries += 1,
            Event::QueueRenamed(renamed) if *renamed.from == *self.named => {
                renamed.to.as_ref().clone_into(&mut self.named);
            }
            Event::AttemptFailed(_)
            | Event::BufferSpace
            | Event::CallDone(_)
            | Event::Deliverable(_)
            | Event::Lost(_)
            | Event::Opened
            | Event::Resolved { .. }
            | Event::Retrying(_) => {}
            trouble => self.troubles.push(trouble),
        }
    }

    /// Publishes to everything that is restored, and looks at what arrives.
    fn outcome(mut self) -> Outcome {
        assert!(self.recoveries > 0 && self.session.is_open());
        let (held, topology) = (self.broker.held(), self.topology());
        let [first, second] = self.channels[..] else { panic!() };
        let keys = ["a", "b", "a", "b", "a", "b", "a", "b"].map(|key| ("durable", key));
        let messages = keys.into_iter().chain([("unused", "c"); 2]).chain([("", "plain"); 4]);
        let mut seqs = Vec::new();
        for (number, (exchange, key)) in messages.enumerate() {
            let body = [number as u8];
            let publish = Publish::new(exchange, key, &body);
            seqs.push(self.session.channel(first).publish(&publish).unwrap());
        }
        self.settle();
        let confirmed = seqs.into_iter().map(|seq| self.session.channel(first).confirmed(seq));
        let confirmed = confirmed.collect();
        let mut delivered = Vec::new();
        for (consumer, id) in self.consumers.iter().zip([first, first, second, second, second]) {
            let mut channel = self.session.channel(id);
            let deliveries = std::iter::from_fn(|| channel.next_delivery(*consumer));
            delivered.push(deliveries.flat_map(|it| it.message.body().to_vec()).collect());
        }
        let before = self.broker.ready("plain");
        self.session.channel(second).publish(&Publish::new("", "plain", b"tx")).unwrap();
        self.settle();
        assert_eq!(self.broker.ready("plain"), before, "a transaction that is not committed");
        self.call(second, &TxCommit::default());
        let committed = [before, self.broker.ready("plain")];
        Outcome { held, topology, delivered, confirmed, committed, troubles: self.troubles }
    }

    fn topology(&self) -> Topology {
        let mut topology = self.broker.topology();
        let named = topology.queues.remove(&self.named).expect("the name that was reported");
        topology.queues.insert("named".to_owned(), named);
        let bindings = std::mem::take(&mut topology.bindings).into_iter();
        let bindings = bindings.map(|(exchange, queue, key)| {
            (exchange, if queue == self.named { "named".to_owned() } else { queue }, key)
        });
        topology.bindings = bindings.collect();
        topology
    }
}
