//! What really happened, read from the bytes of each link: the truth that the client's answers are compared with.
//!
//! A [`Witness`] watches one link from the outside. It sees what the session hands over, and what the broker puts out. A
//! [`Lane`] is one channel of a link, from its `channel.open` to the next one on the same number. Because both sides keep
//! their order, a lane knows which message each confirm tag and each delivery tag means, without asking either side.
//! The application adds what it has asked for: publishes in the order of its calls, and acks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::proto::method::Method;

use super::invariants as check;
use super::trace::Trace;
use super::wire::{At, Carrier, Seen, Wire};

#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) links: BTreeMap<u64, Witness>,
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
    pub(super) offset: u64,
    pub(super) acked: Option<u64>,
    pub(super) returned: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Witness {
    up: Wire,
    down: Wire,
    pub(super) lanes: BTreeMap<u16, Lane>,
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
    phase: Phase,
    /// The code with which the broker has closed the channel.
    pub(super) closed: Option<u16>,
    /// The client has not answered that.
    unanswered: bool,
    /// The number of publishes in confirm mode.
    confirms: Option<u64>,
    /// Publishes by their number that were not confirmed.
    open: BTreeMap<u64, u64>,
    /// Messages that the application has published, and that are still to be handed over.
    pub(super) expected: VecDeque<u64>,
    /// The message that is handed over.
    current: Option<u64>,
    /// Whether each consumer needs no acknowledgement.
    consumers: BTreeMap<Vec<u8>, bool>,
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

/// A delivery that is neither acked nor nacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: u64,
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
        let lanes = &mut self.links.get_mut(&link).expect("a link").lanes;
        if let Method::ChannelOpen(_) = method {
            let old = lanes.insert(at.channel, Lane::default());
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
                let id = lane.expected.pop_front().expect("I5: a publish that was asked for");
                lane.current = Some(id);
                if let Some(last) = &mut lane.confirms {
                    *last += 1;
                    lane.open.insert(*last, id);
                }
                let place = Place { link, offset: at.start, acked: None, returned: None };
                self.published.entry(id).or_default().places.push(place);
            }
            Method::BasicConsume(consume) => {
                lane.consumers.insert(consume.consumer_tag.as_bytes().to_vec(), consume.no_ack);
            }
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
            }
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
        let (tag, no_ack) = match carrier {
            Carrier::Publish => return,
            Carrier::Return => {
                self.place(id, link).returned = Some(at.end);
                return;
            }
            Carrier::Deliver { consumer, tag } => (*tag, lane.consumers[consumer]),
            Carrier::Got { tag } => (*tag, lane.gets.pop_front().expect("a get")),
        };
        if !no_ack {
            lane.tags.insert(tag, Held { id, read: false });
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

    /// Returns whether a byte of it counts as written.
    pub(super) fn written(&self, links: &BTreeMap<u64, Witness>) -> bool {
        self.places.iter().any(|place| {
            let witness = &links[&place.link];
            place.offset < witness.end.unwrap_or(witness.handed)
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
            close_sent: false,
            close_ok_sent: false,
            closed: None,
            handed: 0,
            written: 0,
            end: None,
            read: 0,
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
