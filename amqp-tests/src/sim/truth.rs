//! What really happened, read from the bytes of each link: the truth that the client's answers are compared with.
//!
//! A [`Witness`] watches one link from the outside. It sees what the session hands over, and what the broker puts out. A
//! [`Lane`] is one channel of a link, from its `channel.open` to the next one on the same number. Because both sides keep
//! their order, a lane knows which message each confirm tag and each delivery tag means, without asking either side.
//! The application adds what it has asked for: publishes in the order of its calls, and acks.
//!
//! A [`Flow`] is what the application publishes on one channel, over all of its links. It knows which message is written
//! next. After a loss these are the ones that are sent again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::proto::method::{Method, basic};

use super::application::Mode;
use super::invariants as check;
use super::trace::Trace;
use super::wire::{At, Carrier, Seen, Wire};

#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) links: BTreeMap<u64, Witness>,
    /// What the application publishes on each of its channels, by the number that it gives them.
    pub(super) flows: BTreeMap<u64, Flow>,
    /// The application's channels that have a number on the present link.
    pub(super) owners: BTreeMap<u16, u64>,
    /// The number of lanes so far.
    lanes: u64,
    pub(super) published: BTreeMap<u64, Published>,
    /// The delivery tag that each reply answers, for replies published in a transaction.
    pub(super) replies: BTreeMap<u64, u64>,
    /// Queues and exchanges that the application has deleted and not declared again.
    pub(super) deleted: BTreeSet<String>,
    /// How often the broker has sent each message, and the application has read it.
    pub(super) copies: BTreeMap<u64, Copies>,
    /// Messages that were acked or rejected, or sent to a consumer without acknowledgement.
    pub(super) settled: BTreeSet<u64>,
    /// Whether an operator has closed connections.
    pub(super) forced: bool,
    /// Messages of which the session has said that no byte was written.
    pub(super) not_sent: Vec<u64>,
}

/// The publishes of one channel of the application.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Messages that are still to be handed over, in their order.
    pub(super) expected: VecDeque<u64>,
    /// Those in confirm mode that may be open.
    pub(super) confirming: BTreeSet<u64>,
    /// Those without confirms since the last loss.
    pub(super) plain: Vec<u64>,
    /// Those without confirms of which no byte was written before a loss, and of which the session has not told.
    pub(super) lost: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    pub(super) sent: u64,
    pub(super) read: u64,
}

/// A message that the application has published.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) persistent: bool,
    /// The durable queue that has it once it is confirmed, if that is certain.
    pub(super) stored_in: Option<String>,
    pub(super) confirmed: bool,
    /// The links on which it was sent.
    pub(super) places: Vec<Place>,
}

/// A publish on a link: offsets in the client's stream, and in the broker's.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) link: u64,
    /// The lane.
    lane: u64,
    pub(super) offset: u64,
    pub(super) acked: Option<u64>,
    pub(super) returned: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Witness {
    up: Wire,
    down: Wire,
    pub(super) lanes: BTreeMap<u16, Lane>,
    /// The lanes that the broker has closed: where that ends in its stream, and how many bytes of the client's stream were
    /// handed over when the session had read it.
    closed_lanes: BTreeMap<u64, (u64, Option<u64>)>,
    close_sent: bool,
    close_ok_sent: bool,
    /// The code with which the broker has closed the connection.
    pub(super) closed: Option<u16>,
    /// Bytes of the client's stream that were handed over, and of those that reached the socket.
    pub(super) handed: u64,
    pub(super) written: u64,
    /// Bytes of the client's stream that count as written, once the connection has ended.
    pub(super) end: Option<u64>,
    /// Bytes of the broker's stream that the session has taken.
    pub(super) read: u64,
}

/// A channel on the wire.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) serial: u64,
    /// What the application publishes on it. The session's own channels have none.
    flow: Option<u64>,
    phase: Phase,
    /// The code with which the broker has closed the channel.
    pub(super) closed: Option<u16>,
    /// The client has not answered that.
    unanswered: bool,
    /// The number of publishes in confirm mode.
    confirms: Option<u64>,
    /// Publishes by their number that were not confirmed.
    open: BTreeMap<u64, u64>,
    /// The message that is handed over.
    current: Option<u64>,
    /// The limit that `basic.qos` has set for later consumers.
    prefetch: u16,
    consumers: BTreeMap<Vec<u8>, Consumer>,
    gets: VecDeque<bool>,
    pub(super) tags: BTreeMap<u64, Held>,
    pub(super) intents: Vec<Intent>,
    transacted: bool,
    acks: Vec<(u64, Held, Verdict)>,
    replies: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Closing,
    Closed,
}

/// A consumer as it was started.
#[derive(Debug)]
struct Consumer {
    /// Consumers of a lane by their order, from 1.
    serial: u64,
    subscription: Subscription,
    cancelled: bool,
}

/// What a consumer has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) queue: String,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    /// The limit for it alone; 0 for none, and where none applies.
    pub(super) prefetch: u16,
}

/// A delivery that is neither acked nor nacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: u64,
    /// The consumer, 0 for the answer to a `basic.get`.
    pub(super) consumer: u64,
    /// The application has read it.
    pub(super) read: bool,
}

/// The application has asked to ack a delivery, or all up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intent {
    pub(super) tag: u64,
    pub(super) multiple: bool,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Requeue,
    Reject,
}

impl Truth {
    /// A link is connected.
    pub(super) fn connected(&mut self, link: u64, frame_max: usize) {
        self.links.insert(link, Witness::new(frame_max));
    }

    /// The session has handed over bytes for the link.
    pub(super) fn handed(&mut self, link: u64, bytes: &[u8], trace: &Trace) {
        let witness = self.links.get_mut(&link).expect("a link");
        witness.handed += bytes.len() as u64;
        let mut up = std::mem::replace(&mut witness.up, Wire::new(0, 0));
        up.take(bytes, |at, seen| {
            trace.line(|| format!("{link} {} -> {seen:?}", at.channel));
            self.up(link, at, &seen);
        });
        self.links.get_mut(&link).expect("a link").up = up;
    }

    /// The broker has put out bytes for the link.
    pub(super) fn put_out(&mut self, link: u64, bytes: &[u8], trace: &Trace) {
        let witness = self.links.get_mut(&link).expect("a link");
        let mut down = std::mem::replace(&mut witness.down, Wire::new(0, 0));
        down.take(bytes, |at, seen| {
            trace.line(|| format!("{link} {} <- {seen:?}", at.channel));
            self.down(link, at, seen);
        });
        self.links.get_mut(&link).expect("a link").down = down;
    }

    /// The link of a flow is lost, and the session goes on.
    pub(super) fn lost(&mut self, flow: u64, link: u64, mode: Mode, republishes: bool) {
        let Self { flows, links, published, .. } = self;
        let Some(flow) = flows.get_mut(&flow) else { return };
        let written = links.get(&link).map_or(0, |witness| witness.written);
        let unwritten = |id: &&u64| {
            published[id].places.iter().all(|place| place.link != link || place.offset >= written)
        };
        match mode {
            Mode::Plain => flow.lost += flow.plain.iter().filter(unwritten).count() as u64,
            // Others have an outcome, or a commit that fails.
            Mode::Confirm | Mode::Tx => {}
        }
        flow.plain.clear();
        flow.expected.clear();
        if republishes {
            flow.confirming.retain(|id| !published[id].is_answered(links));
            flow.expected.extend(&flow.confirming);
        } else {
            flow.confirming.clear();
        }
    }

    /// Returns the current lane of a channel number.
    pub(super) fn lane(&mut self, link: u64, number: u16) -> Option<&mut Lane> {
        self.links.get_mut(&link)?.lanes.get_mut(&number)
    }

    fn up(&mut self, link: u64, at: At, seen: &Seen<'_>) {
        let witness = self.links.get_mut(&link).expect("a link");
        check::i11_nothing_follows_close_ok(witness.close_ok_sent, seen);
        match seen {
            Seen::Heartbeat => {}
            Seen::Method(method) if at.channel == 0 => witness.up_connection(method),
            Seen::Method(method) => self.up_channel(link, at, method),
            Seen::Message(_, id) => {
                let lane = witness.lanes.get_mut(&at.channel).expect("a channel");
                check::i5_publishes_are_in_order(lane.current.take(), *id);
                if lane.transacted {
                    lane.replies.push(*id);
                }
            }
        }
    }

    fn up_channel(&mut self, link: u64, at: At, method: &Method<'_>) {
        let Self { links, lanes: opened, owners, flows, .. } = self;
        let lanes = &mut links.get_mut(&link).expect("a link").lanes;
        if let Method::ChannelOpen(_) = method {
            *opened += 1;
            let flow = owners.get(&at.channel).copied();
            let lane = Lane { serial: *opened, flow, ..Lane::default() };
            let old = lanes.insert(at.channel, lane);
            let free = old.as_ref().is_none_or(|lane| lane.phase == Phase::Closed);
            assert!(free, "I11: channel {} is opened again: {old:?}", at.channel);
            return;
        }
        let lane = lanes.get_mut(&at.channel).expect("I11: a channel that was opened");
        // Closes of both sides may cross.
        let answer = matches!(method, Method::ChannelCloseOk(_)) && lane.unanswered;
        let open = answer || lane.phase == Phase::Open;
        assert!(open, "I11: {method:?} on channel {}, which is closed", at.channel);
        match method {
            Method::ChannelClose(_) => lane.phase = Phase::Closing,
            Method::ChannelCloseOk(_) => {
                (lane.phase, lane.unanswered) = (Phase::Closed, false);
            }
            Method::ConfirmSelect(_) => {
                lane.confirms.get_or_insert(0);
            }
            Method::TxSelect(_) => lane.transacted = true,
            Method::TxCommit(_) => {
                let (acks, replies) =
                    (std::mem::take(&mut lane.acks), std::mem::take(&mut lane.replies));
                check::i7_each_ack_has_its_reply(&acks, &replies, &self.replies);
            }
            Method::TxRollback(_) => {
                lane.tags.extend(lane.acks.drain(..).map(|(tag, held, _)| (tag, held)));
                lane.replies.clear();
            }
            Method::QueueDeclare(declare) if !declare.passive => {
                check::i8_no_deleted_name_is_declared(declare.queue, &self.deleted);
            }
            Method::ExchangeDeclare(declare) if !declare.passive => {
                check::i8_no_deleted_name_is_declared(declare.exchange, &self.deleted);
            }
            Method::BasicPublish(_) => {
                let flow = lane.flow.and_then(|flow| flows.get_mut(&flow));
                let next = flow.and_then(|flow| flow.expected.pop_front());
                let id = next.expect("I5: a publish that was asked for");
                lane.current = Some(id);
                if let Some(last) = &mut lane.confirms {
                    *last += 1;
                    lane.open.insert(*last, id);
                }
                let (lane, offset) = (lane.serial, at.start);
                let place = Place { link, lane, offset, acked: None, returned: None };
                self.published.entry(id).or_default().places.push(place);
            }
            // The limit of all consumers together is for those of brokers that have it.
            Method::BasicQos(qos) if !qos.global => lane.prefetch = qos.prefetch_count,
            Method::BasicConsume(consume) => lane.consume(consume),
            Method::BasicCancel(cancel) => lane.cancel(cancel.consumer_tag.as_bytes()),
            Method::BasicGet(get) => lane.gets.push_back(get.no_ack),
            Method::BasicAck(ack) => {
                self.acked(link, at, ack.delivery_tag, ack.multiple, Verdict::Ack);
            }
            Method::BasicNack(nack) => {
                let verdict = Verdict::of_nack(nack.requeue);
                self.acked(link, at, nack.delivery_tag, nack.multiple, verdict);
            }
            Method::BasicReject(reject) => {
                let verdict = Verdict::of_nack(reject.requeue);
                self.acked(link, at, reject.delivery_tag, false, verdict);
            }
            _ => {}
        }
    }

    fn acked(&mut self, link: u64, at: At, tag: u64, multiple: bool, verdict: Verdict) {
        let Some(lane) = self.lane(link, at.channel) else { return };
        check::i2_an_ack_is_of_an_open_delivery(lane, tag, multiple, verdict);
        let first = if multiple { 0 } else { tag };
        let tags: Vec<u64> = lane.tags.range(first..=tag).map(|(tag, _)| *tag).collect();
        let held: Vec<_> = tags.iter().filter_map(|tag| lane.tags.remove_entry(tag)).collect();
        if lane.transacted {
            lane.acks.extend(held.iter().map(|(tag, held)| (*tag, *held, verdict)));
        }
        if verdict != Verdict::Requeue {
            self.settled.extend(held.iter().map(|(_, held)| held.id));
        }
    }

    fn down(&mut self, link: u64, at: At, seen: Seen<'_>) {
        match seen {
            Seen::Method(Method::ConnectionClose(close)) => {
                check::i6_the_broker_has_no_reason_to_close(close, self.forced);
                self.links.get_mut(&link).expect("a link").closed = Some(close.reply_code);
            }
            Seen::Method(method) if at.channel > 0 => self.down_channel(link, at, method),
            Seen::Message(carrier, id) => self.message(link, at, &carrier, id),
            Seen::Heartbeat | Seen::Method(_) => {}
        }
    }

    fn down_channel(&mut self, link: u64, at: At, method: &Method<'_>) {
        let lane = self.lane(link, at.channel).expect("a channel that was opened");
        match method {
            Method::ChannelClose(close) => {
                check::i6_the_broker_may_refuse(close);
                (lane.closed, lane.unanswered) = (Some(close.reply_code), true);
                let serial = lane.serial;
                let witness = self.links.get_mut(&link).expect("a link");
                witness.closed_lanes.entry(serial).or_insert((at.end, None));
            }
            Method::BasicCancel(cancel) => lane.cancel(cancel.consumer_tag.as_bytes()),
            // The answer to a close that the broker's has crossed may come when the number is in use again.
            Method::ChannelCloseOk(_) if lane.phase == Phase::Closing => lane.phase = Phase::Closed,
            Method::BasicGetEmpty(_) => {
                lane.gets.pop_front();
            }
            Method::BasicAck(ack) => {
                self.confirmed(link, at, ack.delivery_tag, ack.multiple);
            }
            method => {
                assert!(!matches!(method, Method::BasicNack(_)), "no queue of these is ever full");
            }
        }
    }

    fn confirmed(&mut self, link: u64, at: At, tag: u64, multiple: bool) {
        let lane = self.lane(link, at.channel).expect("a channel");
        let first = if multiple { 0 } else { tag };
        let numbers: Vec<u64> = lane.open.range(first..=tag).map(|(number, _)| *number).collect();
        let ids: Vec<u64> = numbers.iter().filter_map(|number| lane.open.remove(number)).collect();
        for id in ids {
            self.place(id, link).acked = Some(at.end);
        }
    }

    fn message(&mut self, link: u64, at: At, carrier: &Carrier, id: u64) {
        let lane = self.lane(link, at.channel).expect("a channel");
        let (tag, no_ack, consumer) = match carrier {
            Carrier::Publish => return,
            Carrier::Return => {
                self.place(id, link).returned = Some(at.end);
                return;
            }
            Carrier::Deliver { consumer, tag } => {
                let found = &lane.consumers[consumer];
                (*tag, found.subscription.no_ack, found.serial)
            }
            Carrier::Got { tag } => (*tag, lane.gets.pop_front().expect("a get"), 0),
        };
        if !no_ack {
            lane.tags.insert(tag, Held { id, consumer, read: false });
        } else {
            self.settled.insert(id);
        }
        self.copies.entry(id).or_default().sent += 1;
    }

    /// Returns the publish of a message on a link.
    fn place(&mut self, id: u64, link: u64) -> &mut Place {
        let published = self.published.get_mut(&id).expect("a message that was published");
        let place = published.places.iter_mut().find(|place| place.link == link);
        place.expect("a message that was sent on this link")
    }
}

impl Lane {
    /// Returns the number of a consumer.
    pub(super) fn consumer(&self, tag: &str) -> Option<u64> {
        self.consumers.get(tag.as_bytes()).map(|consumer| consumer.serial)
    }

    /// Returns the consumers that the broker has, by their tags.
    pub(super) fn subscriptions(&self) -> BTreeMap<String, Subscription> {
        let live = self.consumers.iter().filter(|(_, consumer)| !consumer.cancelled);
        let name = |tag: &[u8]| String::from_utf8_lossy(tag).into_owned();
        live.map(|(tag, consumer)| (name(tag), consumer.subscription.clone())).collect()
    }

    fn consume(&mut self, consume: &basic::Consume<'_>) {
        let subscription = Subscription {
            queue: String::from_utf8_lossy(consume.queue.as_bytes()).into_owned(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: if consume.no_ack { 0 } else { self.prefetch },
        };
        let tag = consume.consumer_tag.as_bytes().to_vec();
        // One that has been cancelled by the broker starts again with its tag.
        let serial = self.consumers.len() as u64 + 1;
        let serial = self.consumers.get(&tag).map_or(serial, |before| before.serial);
        let consumer = Consumer { serial, subscription, cancelled: false };
        let before = self.consumers.insert(tag, consumer);
        let free = before.as_ref().is_none_or(|before| before.cancelled);
        assert!(free, "I11: the tag of a consumer that is not cancelled: {before:?}");
    }

    fn cancel(&mut self, tag: &[u8]) {
        if let Some(consumer) = self.consumers.get_mut(tag) {
            consumer.cancelled = true;
        }
    }
}

impl Published {
    /// Returns whether one of the sendings has this answer of the broker, and the session has read it.
    pub(super) fn answered(
        &self,
        links: &BTreeMap<u64, Witness>,
        answer: impl Fn(&Place) -> Option<u64>,
    ) -> bool {
        let read = |link| links.get(&link).map_or(0, |witness| witness.read);
        self.places.iter().any(|place| answer(place).is_some_and(|end| end <= read(place.link)))
    }

    /// Returns whether the session knows its outcome from the broker.
    fn is_answered(&self, links: &BTreeMap<u64, Witness>) -> bool {
        self.answered(links, |place| place.acked) || self.answered(links, |place| place.returned)
    }

    /// Returns whether a byte of it counts as written.
    pub(super) fn written(&self, links: &BTreeMap<u64, Witness>) -> bool {
        self.places.iter().any(|place| {
            let witness = &links[&place.link];
            place.offset < witness.end.unwrap_or(witness.handed)
        })
    }

    /// Returns whether the broker may have taken it: a byte of it was handed over on a link that has ended, or before the
    /// session had read that the broker has closed its channel. What is written later the broker ignores.
    pub(super) fn begun(&self, links: &BTreeMap<u64, Witness>) -> bool {
        self.places.iter().any(|place| {
            let witness = &links[&place.link];
            let closed = witness.closed_lanes.get(&place.lane).and_then(|(_, handed)| *handed);
            let end = witness.end.unwrap_or(witness.handed);
            place.offset < closed.map_or(end, |closed| closed.min(end))
        })
    }
}

impl Witness {
    fn new(frame_max: usize) -> Self {
        Self {
            up: Wire::new(frame_max, 8),
            // The broker's header frames may be larger than what was agreed on.
            down: Wire::new(1 << 20, 0),
            lanes: BTreeMap::new(),
            closed_lanes: BTreeMap::new(),
            close_sent: false,
            close_ok_sent: false,
            closed: None,
            handed: 0,
            written: 0,
            end: None,
            read: 0,
        }
    }

    /// The session has read this many more bytes of the broker's stream.
    pub(super) fn has_read(&mut self, count: u64) {
        self.read += count;
        for (end, handed) in self.closed_lanes.values_mut() {
            if *end <= self.read {
                handed.get_or_insert(self.handed);
            }
        }
    }

    fn up_connection(&mut self, method: &Method<'_>) {
        match method {
            Method::ConnectionCloseOk(_) => self.close_ok_sent = true,
            method => {
                assert!(!self.close_sent, "I11: {method:?} after the close");
                self.close_sent = matches!(method, Method::ConnectionClose(_));
            }
        }
    }
}

impl Verdict {
    const fn of_nack(requeue: bool) -> Self {
        if requeue { Self::Requeue } else { Self::Reject }
    }
}
