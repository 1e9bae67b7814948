//! The application consumes and gets, reads deliveries, and acks or nacks them. On a channel in transaction mode it
//! publishes a reply to each delivery that it acks.

use amqp_core::requests::{ConsumeOk, Got};
use amqp_core::{
    AckError, BasicConsume, BasicGet, ConsumerKey, Delivery, DeliveryTag, ReceivedMessage,
};

use super::calls::Call;
use super::{Application, Context, Mode};
use crate::sim::invariants as check;
use crate::sim::truth::{Intent, Lane, Subscription, Verdict};
use crate::sim::wire::message_id;

/// The queue of the replies.
const REPLIES: &str = "q-durable-3";

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) key: ConsumerKey,
    pub(super) tag: String,
    pub(super) wanted: Wanted,
    /// An event has said that there is something to read. If not, the application has looked, and found nothing.
    pub(super) flagged: bool,
    /// The lane and the tag of the last delivery that was read and needs an ack.
    last: (u64, u64),
}

/// What a consumer was started with.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Wanted {
    pub(in crate::sim) subscription: Subscription,
    /// Whether its prefetch is certain.
    pub(in crate::sim) is_certain: bool,
    /// Whether the prefetch is its own.
    own: bool,
}

/// A delivery that the application has to ack or nack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) tag: DeliveryTag,
    /// The message.
    id: u64,
}

impl Reader {
    pub(super) fn queue(&self) -> &str {
        &self.wanted.subscription.queue
    }
}

impl Wanted {
    /// The limit of its channel is not known.
    pub(super) const fn doubt_limit(&mut self) {
        self.is_certain &= self.own || self.subscription.no_ack;
    }
}

impl Application {
    pub(super) fn consume(&mut self, at: usize, cx: &mut Context<'_>) {
        let queue = self.source(at, cx);
        let no_ack = self.mode(at) != Mode::Tx && self.random.chance(25);
        let exclusive = self.random.chance(15);
        self.consume_from(at, cx, queue, no_ack, exclusive);
    }

    /// Returns a queue to consume from. What replies to its own replies never ends.
    fn source(&mut self, at: usize, cx: &Context<'_>) -> String {
        let queue = self.queue(cx);
        if self.mode(at) == Mode::Tx && queue == REPLIES { "q-durable-1".to_owned() } else { queue }
    }

    pub(super) fn consume_from(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        queue: String,
        no_ack: bool,
        exclusive: bool,
    ) {
        let mut consume =
            BasicConsume::new(queue.clone()).no_ack_if(no_ack).exclusive_if(exclusive);
        let own = self.random.chance(50).then(|| self.random.one_of(&[1, 3, 20]));
        if let Some(prefetch) = own {
            consume = consume.prefetch(prefetch);
        }
        let prefetch = own.or(self.channels[at].prefetch);
        let subscription = Subscription {
            queue,
            no_ack,
            exclusive,
            prefetch: prefetch.filter(|_| !no_ack).unwrap_or(0),
        };
        let is_certain = no_ack || prefetch.is_some();
        let wanted = Wanted { subscription, is_certain, own: own.is_some() };
        let called = cx.session.channel(self.channels[at].id).consume(cx.now, &consume);
        if let Some(call) = self.accepted(at, cx, called) {
            self.owe(cx, at, Call::Consume { call, wanted });
        }
    }

    pub(super) fn consumes(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        ok: ConsumeOk,
        wanted: Wanted,
    ) {
        let handle = &self.channels[at];
        if handle.released || handle.closed {
            return cx.session.channel(handle.id).release_consumer(cx.now, ok.consumer, []);
        }
        let reader = Reader {
            key: ok.consumer,
            tag: ok.consumer_tag,
            wanted,
            // Deliveries may have come before.
            flagged: true,
            last: (0, 0),
        };
        self.channels[at].readers.push(reader);
    }

    pub(super) fn get(&mut self, at: usize, cx: &mut Context<'_>) {
        let queue = self.source(at, cx);
        let no_ack = self.mode(at) != Mode::Tx && self.random.chance(30);
        let get = BasicGet::new(queue.clone()).no_ack_if(no_ack);
        let called = cx.session.channel(self.channels[at].id).call(cx.now, &get);
        if let Some(call) = self.accepted(at, cx, called) {
            self.owe(cx, at, Call::Get { call, queue, no_ack });
        }
    }

    pub(super) fn got(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        queue: &str,
        no_ack: bool,
        got: &Got,
    ) {
        self.delivered(at, cx, queue, no_ack, None, &got.delivery);
    }

    /// Reads deliveries of a consumer that has some.
    pub(super) fn read(&mut self, at: usize, cx: &mut Context<'_>) {
        let readers = &self.channels[at].readers;
        let flagged: Vec<usize> = (0..readers.len()).filter(|it| readers[*it].flagged).collect();
        let Some(which) = self.random.place(flagged.len()) else { return };
        let which = flagged[which];
        let id = self.channels[at].id;
        for _ in 0..1 + self.random.below(5) {
            let Reader { key, ref wanted, .. } = self.channels[at].readers[which];
            let (queue, no_ack) = (wanted.subscription.queue.clone(), wanted.subscription.no_ack);
            let Some(delivery) = cx.session.channel(id).next_delivery(key) else {
                let end = cx.session.channel(id).consumer_end(key);
                let reader = &mut self.channels[at].readers[which];
                reader.flagged = false;
                if end.is_some() {
                    self.channels[at].readers.swap_remove(which);
                    cx.session.channel(id).release_consumer(cx.now, key, []);
                }
                return;
            };
            self.delivered(at, cx, &queue, no_ack, Some(which), &delivery);
        }
    }

    /// A delivery was read: it is one that the broker has sent, of this queue, and to the consumer at this place.
    fn delivered(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        queue: &str,
        no_ack: bool,
        reader: Option<usize>,
        delivery: &Delivery,
    ) {
        let id = message_id(delivery.message.body());
        let tag = delivery.tag;
        cx.trace.line(|| format!("  read message {id} of {queue}, tag {}", tag.number()));
        cx.totals.delivered += 1;
        cx.totals.redelivered += u64::from(delivery.redelivered);
        check_message(&delivery.message, cx, id);
        check::i15_a_delivery_is_read_once(cx.truth, id);
        assert_eq!(tag.needs_ack(), !no_ack, "message {id} of {queue}");
        if no_ack {
            return;
        }
        let name = reader.map(|which| self.channels[at].readers[which].tag.clone());
        // The answer to a get may be that of a transport that is lost by now.
        if let Some(lane) = self.lane(at, cx) {
            let consumer = name.map_or(Some(0), |name| lane.consumer(&name));
            let serial = lane.serial;
            // An ack of all up to another delivery may have covered it.
            if let Some(held) = lane.tags.get_mut(&tag.number()) {
                check::i15_a_delivery_is_the_consumers(*held, id, consumer);
                held.read = true;
            }
            if let Some(which) = reader {
                let last = &mut self.channels[at].readers[which].last;
                check::i15_deliveries_are_in_order(*last, (serial, tag.number()));
                *last = (serial, tag.number());
            }
        } else {
            assert!(reader.is_none(), "I15: message {id} was delivered before the loss");
        }
        self.channels[at].held.push(Held { tag, id });
    }

    /// Acks, nacks or drops a delivery.
    pub(super) fn acknowledge(&mut self, at: usize, cx: &mut Context<'_>) {
        let Some(which) = self.random.place(self.channels[at].held.len()) else { return };
        if self.mode(at) == Mode::Tx {
            return self.reply(at, cx, which);
        }
        let held = self.channels[at].held[which];
        let tag = held.tag;
        let multiple = self.random.chance(25);
        let verdict = match self.random.below(20) {
            0 | 1 if !self.finishing => Verdict::Requeue,
            2 => Verdict::Reject,
            _ => Verdict::Ack,
        };
        let (dropped, singly) = (self.random.chance(5) && !self.finishing, self.random.chance(50));
        self.channels[at].held.swap_remove(which);
        let mut channel = cx.session.channel(self.channels[at].id);
        let result = match verdict {
            _ if dropped => {
                channel.drop_unacked(tag);
                return;
            }
            Verdict::Ack => channel.ack(tag, multiple),
            Verdict::Requeue if !multiple && singly => channel.reject(tag, true),
            Verdict::Reject if !multiple && singly => channel.reject(tag, false),
            Verdict::Requeue => channel.nack(tag, multiple, true),
            Verdict::Reject => channel.nack(tag, multiple, false),
        };
        self.acked(at, cx, held, multiple, verdict, result);
    }

    /// Publishes a reply to a delivery, and acks it, in one transaction.
    fn reply(&mut self, at: usize, cx: &mut Context<'_>, which: usize) {
        if !self.is_usable(at, cx) {
            return;
        }
        let Held { tag, .. } = self.channels[at].held[which];
        let queue = REPLIES.to_owned();
        let Some(id) = self.publish_to(at, cx, String::new(), queue) else { return };
        cx.truth.replies.insert(id, tag.number());
        // A reply that is not committed is not stored.
        if let Some(published) = cx.truth.published.get_mut(&id) {
            published.stored_in = None;
        }
        let result = cx.session.channel(self.channels[at].id).ack(tag, false);
        let held = self.channels[at].held.swap_remove(which);
        if result.is_ok() {
            self.channels[at].uncommitted.push(held);
        }
        self.acked(at, cx, held, false, Verdict::Ack, result);
    }

    fn acked(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        held: Held,
        multiple: bool,
        verdict: Verdict,
        result: Result<(), AckError>,
    ) {
        let tag = held.tag;
        match result {
            Ok(()) => {
                let lane = self.lane(at, cx).expect("a channel that is open");
                check::i2_the_tag_is_of_this_message(lane.tags.get(&tag.number()), held.id);
                lane.intents.push(Intent { tag: tag.number(), multiple, verdict });
                if multiple {
                    let held = &mut self.channels[at].held;
                    held.retain(|it| it.tag.number() > tag.number());
                }
                let again = cx.session.channel(self.channels[at].id).ack(tag, false);
                assert!(again.is_err(), "I2: {tag:?} was acked twice");
            }
            Err(error) => {
                let is_stale = matches!(error, AckError::Stale(_));
                // The channel may have been opened again on the same link, when the broker had refused a consumer.
                let gone = |lane: &mut Lane| {
                    lane.tags.get(&tag.number()).is_none_or(|open| open.id != held.id)
                };
                let usable = self.is_usable(at, cx);
                let stale = is_stale && (!usable || self.lane(at, cx).is_none_or(gone));
                let mut intents = self.lane(at, cx).into_iter().flat_map(|lane| &lane.intents);
                // It was not read when another ack has covered it.
                let covered = matches!(error, AckError::AlreadyAcked(_))
                    && intents.any(|it| it.multiple && tag.number() < it.tag);
                assert!(stale || covered, "an ack on channel {at}: {error}");
            }
        }
    }

    /// Acks, nacks, rejects, drops or requeues a delivery of a transport that was lost: nothing is written.
    pub(super) fn acknowledge_stale(&mut self, at: usize, cx: &mut Context<'_>) {
        let handle = &mut self.channels[at];
        let Some(held) = handle.stale.pop() else { return };
        let (multiple, requeue) = (self.random.chance(50), self.random.chance(50));
        let way = self.random.below(4);
        let mut channel = cx.session.channel(handle.id);
        cx.trace.line(|| format!("  channel {at}: a late ack of {held:?}"));
        check::i2_a_stale_delivery_is_not_open(channel.is_stale(held.tag));
        let result = match way {
            0 => channel.ack(held.tag, multiple),
            1 => channel.nack(held.tag, multiple, requeue),
            2 => channel.reject(held.tag, requeue),
            _ => {
                let dropped = channel.drop_unacked(held.tag) || channel.requeue(held.tag);
                return check::i2_a_stale_delivery_is_not_open(!dropped);
            }
        };
        check::i2_a_late_ack_is_stale(&result);
        cx.totals.stale += 1;
    }

    pub(super) fn cancel(&mut self, at: usize, cx: &mut Context<'_>) {
        let Some(which) = self.random.place(self.channels[at].readers.len()) else { return };
        let key = self.channels[at].readers[which].key;
        let id = self.channels[at].id;
        if self.random.chance(40) {
            self.called += 1;
            self.channels[at].readers.swap_remove(which);
            cx.session.channel(id).release_consumer(cx.now, key, []);
            return;
        }
        let called = cx.session.channel(id).cancel(cx.now, key);
        if let Some(call) = self.accepted(at, cx, called) {
            self.owe(cx, at, Call::Cancel(call));
        }
    }
}

/// The message is the one that was published.
fn check_message(message: &ReceivedMessage, cx: &Context<'_>, id: u64) {
    let published = &cx.truth.published[&id];
    let exchange = message.exchange() == *published.exchange;
    assert!(exchange && message.routing_key() == *published.routing_key, "message {id} changed");
}
