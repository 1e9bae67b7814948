//! The application consumes: it reads deliveries, acks or nacks them, and cancels its consumers.

use std::collections::VecDeque;
use std::time::Instant;

use amqp_core::errors::Misuse;
use amqp_core::{AckError, BasicConsume, ConsumerKey, DeliveryTag, Error, Session};
use amqp_core::{ReceivedMessage, StreamOffset};

use super::application::{Application, Handle, is_dead};
use super::calls::{Expected, Typed};
use super::dice::Dice;
use super::log::{Intent, Log};

/// A queue whose messages are of no stream.
const QUEUE: &str = "q";
/// A queue that has messages which were read from a stream and published again, among others.
pub(super) const COPIES: &str = "copies";
pub(super) const STREAM: &str = "stream";

#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) key: ConsumerKey,
    pub(super) tag: String,
    /// An event has said that there is something. If not, it has looked, and found nothing.
    pub(super) flagged: bool,
    /// How many of the deliveries that it was sent it has read, or has missed for a reason.
    pub(crate) read: usize,
    pub(super) cancelled: bool,
}

/// A delivery that the application has to ack or nack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(super) tag: DeliveryTag,
    pub(crate) number: usize,
    /// `basic.recover` was called since.
    pub(super) stale: bool,
}

impl Application {
    pub(super) fn consume(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        // RabbitMQ does not recover what came from a stream.
        let queue = match dice.below(10) {
            0 | 1 if !handle.recovered => STREAM,
            2 if !handle.recovered => COPIES,
            _ => QUEUE,
        };
        let mut consume = BasicConsume::new(queue);
        match dice.below(6) {
            0 | 1 => {}
            _ if log.flood => consume = consume.prefetch(0),
            n => consume = consume.prefetch([0, 1, 3, 20][n - 2]),
        }
        if dice.chance(40) {
            consume = consume.no_ack();
        }
        if queue == STREAM && dice.chance(70) {
            consume = consume.stream_offset(StreamOffset::First);
        } else if queue == STREAM {
            // What nobody has said to be a stream is taken for a queue. The broker refuses what it may not do.
            consume = BasicConsume::new(STREAM).prefetch(1 + dice.below(20) as u16);
        }
        if dice.chance(30) {
            self.names += 1;
            consume = consume.consumer_tag(format!("custom-{}", self.names));
        }
        let limit = log.limits.entry(at).or_default().of(&consume, log.version);
        let misuse = match limit.own {
            _ if !consume.is_stream() => None,
            None => Some(Misuse::StreamNeedsAck),
            Some(0) => Some(Misuse::StreamNeedsPrefetch),
            Some(_) => None,
        };
        match (session.channel(handle.id).consume(now, &consume), misuse) {
            (Ok(call), None) => {
                log.limits.entry(at).or_default().start(limit);
                handle.streams |= queue != QUEUE;
                self.owe(Typed::Consume(call), Expected::Consume(at));
            }
            (Err(Error::Misuse(found)), Some(misuse)) if found == misuse => log.count("misuse"),
            (Err(error), _) => assert!(is_dead(session, handle), "{error}"),
            (Ok(_), Some(misuse)) => panic!("a consumer without {misuse}"),
        }
    }

    /// Reads deliveries of a consumer that was announced to have some.
    pub(super) fn read(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        if std::mem::take(&mut handle.returned) {
            while session.channel(handle.id).take_returned().is_some() {}
        }
        let flagged: Vec<usize> =
            (0..handle.consumers.len()).filter(|at| handle.consumers[*at].flagged).collect();
        let Some(which) = dice.place(flagged.len()) else { return };
        let which = flagged[which];
        let reader = &mut handle.consumers[which];
        let mut pulled = VecDeque::new();
        if dice.chance(30) {
            session.channel(handle.id).pull_deliveries(reader.key, &mut pulled);
        } else {
            let next = |_| session.channel(handle.id).next_delivery(reader.key);
            pulled.extend((0..1 + dice.below(5)).map_while(next));
        }
        for delivery in &pulled {
            let number = read_number(&delivery.message);
            let sent = &mut log.sent[number];
            let of_it = (sent.channel, sent.consumer.as_deref()) == (at, Some(&reader.tag));
            assert!(of_it, "{sent:?} was delivered to {reader:?} of handle {at}");
            assert!(!std::mem::replace(&mut sent.seen, true), "delivered twice: {number}");
            assert!(delivery.message.body() == sent.body, "the body of delivery {number}");
            assert_eq!(delivery.message.raw_properties().as_bytes(), sent.properties);
            assert_eq!(delivery.redelivered, sent.redelivered);
            if !sent.no_ack {
                handle.held.push(Held { tag: delivery.tag, number, stale: false });
            } else if dice.chance(10) {
                // Its tag may be that of another delivery.
                let (tag, multiple) = (delivery.tag, dice.chance(50));
                assert!(session.channel(handle.id).ack(tag, multiple).is_err(), "{number}");
                session.channel(handle.id).requeue(tag);
                session.channel(handle.id).drop_unacked(tag);
            }
            log.count("read");
            log.read_in_order(at, &reader.tag, number, &mut reader.read);
        }
        if pulled.is_empty() {
            reader.flagged = false;
            if let Some(end) = session.channel(handle.id).consumer_end(reader.key) {
                let dead = is_dead(session, handle);
                let reader = handle.consumers.swap_remove(which);
                let cancelled = reader.cancelled || handle.drained;
                assert!(end.is_err() || cancelled || dead, "{reader:?} ended");
                // Recovering drops what comes before its answer.
                log.read_all(at, &reader.tag, reader.read, dead || handle.recovered);
                session.channel(handle.id).release_consumer(now, reader.key, []);
            }
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        at: usize,
        session: &mut Session,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.held.len()) else { return };
        let held = handle.held[which];
        let (mut multiple, requeue) = (dice.chance(30), dice.chance(50));
        let origin = log.sent[held.number].origin;
        let refusal = origin.refusal(requeue);
        let mut channel = session.channel(handle.id);
        let (result, intent) = match dice.below(10) {
            0..=4 => (channel.ack(held.tag, multiple), Intent::Ack),
            5..=6 => (channel.nack(held.tag, multiple, requeue), refusal),
            7 => {
                multiple = false;
                (channel.reject(held.tag, requeue), refusal)
            }
            8 => {
                channel.drop_unacked(held.tag);
                handle.given_up.insert(held.number);
                handle.held.swap_remove(which);
                return;
            }
            _ => {
                // Dropped by a handle that was told to requeue.
                channel.requeue(held.tag);
                handle.requeued(at, held, log);
                handle.held.swap_remove(which);
                return;
            }
        };
        match result {
            Ok(()) => {
                assert!(!held.stale, "{held:?} was acked after recover");
                let refused = intent != Intent::Ack;
                assert!(!refused || origin.may_be_refused(), "{origin:?} was refused: {held:?}");
                log.intend(at, held.tag.number(), multiple, intent);
                let covered = |it: &mut Held| match multiple {
                    true => it.tag.number() <= held.tag.number(),
                    false => it.tag == held.tag,
                };
                let covered: Vec<Held> = handle.held.extract_if(.., covered).collect();
                if handle.transactional {
                    handle.uncommitted.extend(covered.iter().filter(|held| !held.stale));
                }
                let again = session.channel(handle.id).ack(held.tag, false);
                assert!(again.is_err(), "{held:?} was acked twice");
            }
            Err(AckError::Stream(_)) => {
                log.count("a stream's, not refused");
                assert!(multiple && handle.streams, "{held:?}");
            }
            Err(AckError::MaybeStream(_)) => {
                log.count("maybe a stream's, not refused");
                assert!(origin.may_be_suspected(), "{origin:?}: {held:?}");
            }
            Err(error) => {
                let dead = is_dead(session, handle);
                let recovered = handle.recovered && matches!(error, AckError::Recovered(_));
                // A `multiple` covers what is unread as well.
                let covered = matches!(error, AckError::AlreadyAcked(_))
                    && !log.sent[held.number].intents.is_empty();
                assert!(dead || recovered || covered, "{held:?}: {error}");
                handle.held.swap_remove(which);
            }
        }
    }

    /// Cancels a consumer, at times more than once.
    pub(super) fn cancel(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
    ) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.consumers.len()) else { return };
        let reader = &mut handle.consumers[which];
        reader.cancelled = true;
        let (id, key, tag) = (handle.id, reader.key, reader.tag.clone());
        for _ in 0..1 + dice.below(2) {
            if let Ok(call) = session.channel(id).cancel(now, key) {
                self.owe(Typed::Done(call), Expected::Cancel(at, tag.clone()));
            }
        }
    }

    pub(super) fn release_consumer(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.consumers.len()) else { return };
        let reader = handle.consumers.swap_remove(which);
        // What its handle had taken and nobody has read.
        let of_it = |held: &mut Held| {
            log.sent[held.number].consumer.as_deref() == Some(&reader.tag) && dice.chance(30)
        };
        let taken: Vec<Held> = handle.held.extract_if(.., of_it).collect();
        for held in &taken {
            handle.requeued(at, *held, log);
        }
        let taken = taken.into_iter().map(|held| held.tag);
        session.channel(handle.id).release_consumer(now, reader.key, taken);
    }
}

impl Handle {
    /// A delivery goes back to its queue, if it is certain that it is no stream's.
    fn requeued(&mut self, at: usize, held: Held, log: &mut Log) {
        let origin = log.sent[held.number].origin;
        if origin.may_be_refused() {
            log.intend(at, held.tag.number(), false, origin.refusal(true));
        }
        if origin.may_be_suspected() {
            self.given_up.insert(held.number);
        }
    }
}

pub(super) fn read_number(message: &ReceivedMessage) -> usize {
    message.routing_key().as_str().unwrap().parse().unwrap()
}
