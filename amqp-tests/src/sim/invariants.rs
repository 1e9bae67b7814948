//! The promises that every seed keeps: I1 to I12, I14 and I15 at any moment, J1 to J6 once nothing fails any more. Each is
//! a function, called where what it looks at has changed. I3, I5, I11 and I14 are partly what [`wire`](super::wire),
//! [`truth`](super::truth) and the application expect of every frame, call and event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{channel, connection};
use amqp_core::types::Stats;
use amqp_core::{CloseCause, Confirmation, Error, TimeoutReason};
use amqp_testkit::model::{Broker, Topology};

use super::swarm::MILLISECOND;
use super::truth::{Held, Lane, Published, Truth, Verdict, Witness};
use super::wire::Seen;

/// More than the session may hold in its output: both of its limits, and the largest message of each channel.
const UNSENT_MAX: u64 = 4 << 20;

/// How late a heartbeat may be.
const TICK: u64 = 10 * MILLISECOND;

/// The number of transports that a session may dial without one of them reaching the broker's greeting.
const DIALS_MAX: u64 = 20;

/// No confirmed message is lost: what a durable queue took is still there, or was settled.
pub(super) fn i1_no_confirmed_message_is_lost(truth: &Truth, broker: &Broker) {
    let mut stored = BTreeMap::<&str, BTreeSet<u64>>::new();
    for (id, published) in &truth.published {
        let Some(queue) = published.stored_in.as_deref().filter(|_| published.confirmed) else {
            continue;
        };
        let ids = stored.entry(queue).or_insert_with(|| {
            broker.bodies(queue).into_iter().map(super::wire::message_id).collect()
        });
        let kept = ids.contains(id) || truth.settled.contains(id);
        assert!(kept, "I1: message {id} was confirmed, and is not in {queue}: {published:?}");
    }
}

/// No ack is written whose delivery was not made on this channel and is still open, and none that nobody has asked for. The
/// session may requeue by itself what the application has not read.
pub(super) fn i2_an_ack_is_of_an_open_delivery(
    lane: &Lane,
    tag: u64,
    multiple: bool,
    verdict: Verdict,
) {
    assert!(lane.tags.contains_key(&tag), "I2: {verdict:?} of {tag}, which is not open: {lane:?}");
    let first = if multiple { 0 } else { tag };
    for (covered, held) in lane.tags.range(first..=tag) {
        let asked = lane.intents.iter().any(|it| {
            it.verdict == verdict && (it.tag == *covered || (it.multiple && *covered < it.tag))
        });
        let by_itself = verdict == Verdict::Requeue && !held.read;
        assert!(asked || by_itself, "I2: {verdict:?} of {covered} was not asked for: {lane:?}");
    }
}

/// Each publish has the outcome that the broker gave it. It is `NotSent` only if no byte of it was written.
pub(super) fn i4_the_outcome_is_the_brokers(
    published: &Published,
    links: &BTreeMap<u64, Witness>,
    outcome: &Confirmation,
    channel_closed: bool,
) {
    let acked = published.answered(links, |place| place.acked);
    let returned = published.answered(links, |place| place.returned);
    let written = published.written(links);
    let right = match outcome {
        Confirmation::Confirmed => acked && !returned,
        Confirmation::Returned(_) => returned,
        Confirmation::NotSent(Error::Channel(_)) => !acked && channel_closed,
        Confirmation::NotSent(_) => !acked && !written,
        Confirmation::Unknown(Error::Channel(_)) => {
            !acked && !published.places.is_empty() && channel_closed
        }
        Confirmation::Unknown(_) => !acked && written,
        _ => false,
    };
    assert!(
        right,
        "I4: {outcome:?}, acked {acked}, returned {returned}, written {written}: {published:?}"
    );
}

/// What was `NotSent` never reaches a socket.
pub(super) fn i4_what_was_not_sent_is_never_written(truth: &Truth) {
    for id in &truth.not_sent {
        let places = &truth.published[id].places;
        let written = places.iter().find(|it| it.offset < truth.links[&it.link].written);
        assert!(written.is_none(), "I4: message {id} was reported as not sent: {written:?}");
    }
}

/// Publishes are written in the order of the calls.
pub(super) fn i5_publishes_are_in_order(called: Option<u64>, written: u64) {
    assert_eq!(called, Some(written), "I5: the message that was called next, and the one written");
}

/// The broker never closes the connection because of what this client has sent.
pub(super) fn i6_the_broker_has_no_reason_to_close(close: &connection::Close<'_>, forced: bool) {
    assert!(close.reply_code == 320 && forced, "I6: the broker closes the connection: {close:?}");
}

/// It refuses calls only where another one, or a fault, has changed what they are about.
pub(super) fn i6_the_broker_may_refuse(close: &channel::Close<'_>) {
    let legal = matches!(close.reply_code, 403..=405);
    assert!(legal, "I6: the broker closes a channel: {close:?}");
}

/// A transaction commits each ack together with the reply that was published for it.
pub(super) fn i7_each_ack_has_its_reply(
    acks: &[(u64, Held, Verdict)],
    replies: &[u64],
    answers: &BTreeMap<u64, u64>,
) {
    let acks = acks.iter().filter(|(.., verdict)| *verdict == Verdict::Ack);
    let acked: BTreeSet<u64> = acks.map(|(tag, ..)| *tag).collect();
    let answered: BTreeSet<u64> =
        replies.iter().filter_map(|id| answers.get(id)).copied().collect();
    assert_eq!(acked, answered, "I7: the deliveries that one commit acks, and those it replies to");
}

/// What the application has deleted is not declared again.
pub(super) fn i8_no_deleted_name_is_declared(name: ShortStr<'_>, deleted: &BTreeSet<String>) {
    let name = String::from_utf8_lossy(name.as_bytes());
    assert!(!deleted.contains(&*name), "I8: {name} was deleted, and is declared again");
}

/// The session holds no more than its limits and what the application has asked for.
pub(super) fn i9_memory_is_bounded(stats: &Stats, called: usize, outcomes: usize) {
    assert!(stats.unsent_bytes <= UNSENT_MAX, "I9: {stats:?}");
    // A consume comes with two `basic.qos` at most.
    assert!(stats.open_calls as usize <= 3 * called, "I9: {called} calls were made: {stats:?}");
    assert!(stats.unconfirmed as usize >= outcomes, "I9: {outcomes} outcomes are open: {stats:?}");
}

/// Something is written at least every half heartbeat interval, while the transport takes bytes.
pub(super) fn i10_heartbeats_are_in_time(gap: u64, heartbeat: Duration) {
    let most = heartbeat.as_nanos() as u64 / 2 + TICK;
    assert!(heartbeat.is_zero() || gap <= most, "I10: nothing was written for {gap} ns");
}

/// Nothing follows a `connection.close-ok`.
pub(super) fn i11_nothing_follows_close_ok(close_ok_sent: bool, seen: &Seen<'_>) {
    assert!(!close_ok_sent, "I11: after connection.close-ok: {seen:?}");
}

/// A session has one transport at most.
pub(super) fn i12_one_transport_at_a_time(open: usize) {
    assert!(open <= 1, "I12: {open} transports are open");
}

/// No delivery is handed to two holders, and each consumer's are in order.
pub(super) fn i15_a_delivery_is_read_once(truth: &mut Truth, id: u64, last: u64, tag: u64) {
    let copies = truth.copies.entry(id).or_default();
    copies.read += 1;
    assert!(copies.read <= copies.sent, "I15: message {id} was sent and read: {copies:?}");
    assert!(tag > last, "I15: delivery {tag} after {last}");
}

/// The session ends for a reason that it was given.
pub(super) fn j3_the_session_ends_for_a_reason(cause: &CloseCause, closed: bool, disturbed: bool) {
    let right = match cause {
        CloseCause::ByClient | CloseCause::Aborted => closed,
        CloseCause::ByClientForced => closed && disturbed,
        CloseCause::ByBroker(_)
        | CloseCause::Transport(_)
        | CloseCause::HeartbeatTimeout { .. }
        | CloseCause::WriteTimeout { .. } => disturbed,
        CloseCause::Connect(_) => disturbed || closed,
        _ => false,
    };
    assert!(right, "J3: ended {cause:?}, closed {closed}, disturbed {disturbed}");
}

/// Every queue is drained by a consumer.
pub(super) fn j2_queues_are_drained(broker: &Broker) {
    for queue in broker.topology().queues.keys() {
        let left = broker.bodies(queue).len();
        assert_eq!(left, 0, "J2: messages that are left in {queue}");
    }
}

/// The broker has exactly what the application has declared, as far as that is certain.
pub(super) fn j3_the_topology_is_what_was_declared(
    topology: &Topology,
    certain: impl Iterator<Item = (String, bool)>,
) {
    let mut names: BTreeSet<String> =
        topology.queues.keys().chain(topology.exchanges.keys()).cloned().collect();
    names.extend(topology.bindings.iter().map(|it| format!("{} -> {} ({})", it.0, it.1, it.2)));
    for (name, present) in certain {
        assert_eq!(names.contains(&name), present, "J3: {name} is declared: {topology:?}");
    }
}

/// A session that has nothing to do has no timers but those of its heartbeats.
pub(super) fn j4_only_heartbeats_are_timed(timeout: Option<TimeoutReason>, heartbeat: u16) -> bool {
    let heartbeats = [TimeoutReason::HeartbeatReceive, TimeoutReason::HeartbeatSend];
    timeout.map_or(heartbeat == 0, |it| heartbeat > 0 && heartbeats.contains(&it))
}

/// A session that has ended has no timers, and nothing is owed.
pub(super) fn j4_nothing_is_left(stats: &Stats, timeout: Option<TimeoutReason>) {
    assert_eq!(timeout, None, "J4: a timer of a session that has ended");
    let calls = stats.open_calls + stats.unconfirmed + stats.unacked;
    let bytes = stats.unread_bytes + stats.incomplete_bytes + stats.unsent_bytes;
    let left = calls + bytes + stats.channels + stats.consumers;
    assert_eq!(left, 0, "J4: a session that has ended holds {stats:?}");
}

/// A session does not dial in a hot loop.
pub(super) fn j5_dials_are_bounded(dials: u64) {
    assert!(dials <= DIALS_MAX, "J5: {dials} dials of one session");
}
