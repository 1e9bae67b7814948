//! The promises that every seed keeps: I1 to I12, I14 and I15 at any moment, J1 to J6 once nothing fails any more. Each is
//! a function, called where what it looks at has changed. I3, I5, I11 and I14 are partly what [`wire`](super::wire),
//! [`truth`](super::truth) and the application expect of every frame, call and event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{channel, connection};
use amqp_core::types::Stats;
use amqp_core::{
    AckError, ChannelCause, CloseCause, Confirmation, Error, Retrying, Session, TimeoutReason,
};
use amqp_testkit::model::{Broker, Topology};

use super::application::Wanted;
use super::swarm::{MILLISECOND, Policy};
use super::truth::{Held, Lane, Published, Subscription, Truth, Verdict, Witness};
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

/// An ack that is accepted is of the message that the application has read.
pub(super) fn i2_the_tag_is_of_this_message(open: Option<&Held>, id: u64) {
    // It is not there if the rollback of its ack is not written yet.
    let found = open.map_or(id, |held| held.id);
    assert_eq!(found, id, "I2: the message that an ack is written for");
}

/// A delivery of a transport that was lost is known to be stale.
pub(super) fn i2_a_stale_delivery_is_not_open(stale: bool) {
    assert!(stale, "I2: a delivery of an earlier transport is open");
}

/// Its ack writes nothing, and says why.
pub(super) fn i2_a_late_ack_is_stale(result: &Result<(), AckError>) {
    assert!(matches!(result, Err(AckError::Stale(_))), "I2: a late ack: {result:?}");
}

/// Publishes without confirms that were not sent before a loss are reported before others are accepted.
pub(super) fn i3_lost_publishes_are_reported_first(lost: u64) {
    assert_eq!(lost, 0, "I3: publishes that were not sent, and not reported");
}

/// All of them are, once.
pub(super) fn i3_lost_publishes_are_counted(reported: u64, lost: u64) {
    assert_eq!(reported, lost, "I3: publishes that are reported as lost, and that were");
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
        Confirmation::NotSent(Error::Channel(_)) => {
            !acked && channel_closed && !published.begun(links)
        }
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

/// What is sent again after a loss has its outcome from the broker.
pub(super) fn i1_what_is_sent_again_is_not_lost(outcome: &Confirmation, policy: Policy) {
    let lost = matches!(
        outcome,
        Confirmation::NotSent(Error::ConnectionLost(_))
            | Confirmation::Unknown(Error::ConnectionLost(_))
    );
    assert!(!(lost && policy.republishes()), "I1: it is to be sent again: {outcome:?}");
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

/// A session that is open has not been lost, and one that was lost recovers.
pub(super) fn k16_the_state_is_what_events_say(session: &Session, recovering: bool, closed: bool) {
    let right = closed || session.is_recovering() == recovering;
    assert!(right, "K16: events say that it recovers: {recovering}: {session:#?}");
}

/// No delivery is handed to two holders.
pub(super) fn i15_a_delivery_is_read_once(truth: &mut Truth, id: u64) {
    let copies = truth.copies.entry(id).or_default();
    copies.read += 1;
    assert!(copies.read <= copies.sent, "I15: message {id} was sent and read: {copies:?}");
}

/// A delivery goes to the consumer for which it was sent.
pub(super) fn i15_a_delivery_is_the_consumers(sent: Held, id: u64, consumer: Option<u64>) {
    assert_eq!((sent.id, Some(sent.consumer)), (id, consumer), "I15: message and consumer");
}

/// Each consumer's deliveries are in order. Both are a lane and a tag.
pub(super) fn i15_deliveries_are_in_order(last: (u64, u64), next: (u64, u64)) {
    assert!(next > last, "I15: delivery {next:?} after {last:?}");
}

/// The session ends for a reason that it was given, and that its policy does not recover.
pub(super) fn j3_the_session_ends_for_a_reason(
    cause: &CloseCause,
    closed: bool,
    disturbed: bool,
    policy: Policy,
    opened: bool,
) {
    let right = match cause {
        CloseCause::ByClient | CloseCause::Aborted => closed,
        CloseCause::ByClientForced => closed && disturbed,
        CloseCause::Connect(_) if !opened => disturbed || closed,
        cause => is_disturbance(cause) && disturbed && !policy.goes_on_after(cause),
    };
    assert!(right, "J3: ended {cause:?}, closed {closed}, disturbed {disturbed}, {policy:?}");
}

/// A connection is lost because something has failed.
pub(super) fn j3_a_connection_is_lost_for_a_reason(cause: &CloseCause, disturbed: bool) {
    assert!(is_disturbance(cause) && disturbed, "J3: lost {cause:?}, disturbed {disturbed}");
}

/// A session recovers only what its policy says.
pub(super) fn j3_the_policy_recovers(policy: Policy, cause: &CloseCause) {
    let by_broker = matches!(cause, CloseCause::ByBroker(_));
    let right = policy.recovers && !(by_broker && policy.ends_when_closed);
    assert!(right, "J3: {cause:?} is recovered, {policy:?}");
}

const fn is_disturbance(cause: &CloseCause) -> bool {
    matches!(
        cause,
        CloseCause::ByBroker(_)
            | CloseCause::Transport(_)
            | CloseCause::HeartbeatTimeout { .. }
            | CloseCause::WriteTimeout { .. }
            | CloseCause::Connect(_)
    )
}

/// What the broker refuses to restore is gone, or held by another connection or consumer.
pub(super) fn j3_a_restore_fails_for_a_reason(error: &Error) {
    let right = match error {
        Error::Channel(ChannelCause::ByBroker(refused)) => {
            matches!(refused.code.code(), 403..=405)
        }
        _ => false,
    };
    assert!(right, "J3: not restored: {error}");
}

/// Each channel has the consumers that it had, with their tags, queues and limits.
pub(super) fn j2_consumers_are_as_before<'a>(
    mut subscribed: BTreeMap<String, Subscription>,
    wanted: impl Iterator<Item = (&'a str, &'a Wanted)>,
) {
    for (tag, wanted) in wanted {
        let found = subscribed.remove(tag);
        let mut expected = wanted.subscription.clone();
        if let Some(found) = found.as_ref().filter(|_| !wanted.is_certain) {
            expected.prefetch = found.prefetch;
        }
        assert_eq!(found, Some(expected), "J2: consumer {tag}");
    }
    assert!(subscribed.is_empty(), "J2: consumers without a handle: {subscribed:?}");
}

/// The queues whose name the broker chose have been declared again, and their present names are known.
pub(super) fn j3_named_queues_exist(topology: &Topology, named: &[String]) {
    for name in named {
        assert!(topology.queues.contains_key(name), "J3: {name} is not declared: {topology:?}");
    }
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

/// A session that has nothing under way has the channels and consumers that have a handle, and no others.
pub(super) fn j4_no_record_is_left(stats: &Stats, channels: usize, consumers: usize) {
    let open = (stats.channels as usize, stats.consumers as usize);
    assert_eq!(open, (channels, consumers), "J4: channels and consumers, and their handles");
}

/// There are no more attempts to recover than the policy allows, and none before its delay has passed.
pub(super) fn j5_attempts_keep_to_the_policy(retrying: &Retrying, policy: Policy) {
    let (shortest, longest) = Policy::delays(retrying.attempt);
    let right = (shortest..=longest).contains(&retrying.delay)
        && policy.attempts.is_none_or(|most| retrying.attempt <= most);
    assert!(right, "J5: {retrying:?}, {policy:?}");
}

/// A session that waits before its next attempt to recover does not dial before.
pub(super) fn j5_attempts_wait(waits_until: Option<u64>, now: u64) {
    assert!(waits_until.is_none_or(|until| now >= until), "J5: dialled too early");
}

/// An attempt to recover dials each host once.
pub(super) fn j5_attempts_are_short(dials: u64, hosts: usize) {
    assert!(dials <= hosts as u64, "J5: {dials} dials of one attempt to recover");
}

/// A recovery ends what began with a loss, once.
pub(super) fn i12_a_recovery_follows_a_loss(recovering: bool) {
    assert!(recovering, "I12: recovered, and was not lost");
}

/// A connection is set up before anything else uses it.
pub(super) fn i12_the_hook_is_done(policy: Policy, is_done: bool) {
    assert!(is_done || !policy.has_hook, "I12: open, and not set up");
}

/// A session does not dial in a hot loop.
pub(super) fn j5_dials_are_bounded(dials: u64) {
    assert!(dials <= DIALS_MAX, "J5: {dials} dials of one session");
}
