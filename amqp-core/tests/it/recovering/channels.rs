//! Channels: they are opened again with their mode and limits, and calls and publishes wait for them.

use std::time::Duration;

use amqp_core::errors::{Misuse, TransportError};
use amqp_core::proto::method::{queue, tx};
use amqp_core::requests::{ConfirmSelect, TxCommit, TxSelect};
use amqp_core::{
    BasicQos, ChannelCause, ChannelId, CloseCause, Config, Confirmation, Error, Event, Publish,
    PublishRefused, QueuePurge, Recovery, Transmit,
};

use super::{has_recovered, recover, recovering, wire};
use crate::peer::Peer;

fn publish(peer: &mut Peer, id: ChannelId) -> Result<u64, PublishRefused> {
    peer.session.channel(id).publish(&Publish::new("", "q", b"hi")).map(|seq| seq.number())
}

/// A session with a channel 1 in transaction mode.
fn transactional() -> (Peer, ChannelId) {
    let mut peer = recovering();
    let id = peer.channel(1);
    let select = peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
    peer.send(1, &tx::SelectOk::default());
    peer.session.take_reply(&select).unwrap().unwrap();
    (peer, id)
}

fn cause() -> CloseCause {
    CloseCause::Transport(TransportError::end_of_file())
}

#[test]
fn r1_channels_go_on_with_their_mode_and_limits() {
    let mut peer = recovering();
    let plain = peer.channel(1);
    let confirming = peer.channel(2);
    let transactional = peer.channel(3);
    let now = peer.now;
    let _ = peer.session.channel(confirming).call(now, &ConfirmSelect::default()).unwrap();
    peer.send(2, &amqp_core::proto::method::confirm::SelectOk::default());
    let _ = peer.session.channel(transactional).call(now, &TxSelect::default()).unwrap();
    peer.send(3, &tx::SelectOk::default());
    for qos in [BasicQos::new(7), BasicQos::new(40).global()] {
        let _ = peer.session.channel(plain).call(now, &qos).unwrap();
        peer.send(1, &amqp_core::proto::method::basic::QosOk::default());
    }
    wire(&mut peer);
    peer.events();

    peer.lose();
    assert_eq!(peer.session.cause(), None);
    assert!(
        matches!(&peer.events()[..], [Event::Lost(lost), Event::Retrying(_)] if **lost == cause())
    );
    let frames = recover(&mut peer);
    let expected = [
        "1 channel.Open",
        "1 qos 7",
        "1 qos 40 global",
        "2 channel.Open",
        "2 confirm.Select",
        "3 channel.Open",
        "3 tx.Select",
    ];
    assert_eq!(frames, expected);
    assert!(matches!(&peer.events()[..], [Event::BufferSpace, Event::Recovered(_)]));
    for id in [plain, confirming, transactional] {
        assert!(peer.session.channel(id).is_open());
    }
    assert!(peer.session.channel(confirming).confirms());
    assert_eq!(publish(&mut peer, confirming), Ok(1));
    assert_eq!(wire(&mut peer), ["2 basic.Publish"]);
    // Nothing is left over: another loss sends the same.
    peer.lose();
    assert_eq!(recover(&mut peer), expected);
}

#[test]
fn a_call_that_was_sent_is_interrupted_and_one_that_was_not_is_sent() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let now = peer.now;
    let sent = peer.session.channel(id).call(now, &QueuePurge::new("a")).unwrap();
    wire(&mut peer);
    let unsent = peer.session.channel(id).call(now, &QueuePurge::new("b")).unwrap();
    peer.lose();
    let interrupted = Error::Interrupted { cause: cause(), maybe_executed: true };
    assert!(peer.events().contains(&Event::CallDone(sent.key())));
    assert_eq!(peer.session.take_reply(&sent), Some(Err(interrupted.clone())));
    assert!(interrupted.maybe_executed() && interrupted.is_retryable());
    assert_eq!(peer.session.take_reply(&unsent), None);
    let later = peer.session.channel(id).call(now, &QueuePurge::new("c")).unwrap();
    let gone = peer.session.channel(id).call(now, &QueuePurge::new("d")).unwrap();
    peer.session.forget(now, gone.key());

    assert_eq!(recover(&mut peer), ["1 channel.Open"]);
    assert_eq!(wire(&mut peer), ["1 purge b", "1 purge c"]);
    for call in [unsent, later] {
        peer.send(1, &queue::PurgeOk { message_count: 3 });
        assert_eq!(peer.session.take_reply(&call).unwrap().unwrap().message_count, 3);
    }
    assert_eq!(peer.session.connection().stats().open_calls, 0);
}

#[test]
fn calls_that_wait_have_their_own_deadline() {
    let mut peer = recovering();
    let id = peer.channel(1);
    peer.lose();
    let now = peer.now;
    let call = peer.session.channel(id).call(now, &QueuePurge::new("a")).unwrap();
    let (opened, open) = peer.session.open_channel(peer.now).unwrap();
    peer.redial();
    peer.now += Duration::from_secs(29);
    let too_late = peer.now + Duration::from_secs(1);
    peer.session.handle_timeout(too_late);
    for error in [
        peer.session.take_reply(&call).unwrap().unwrap_err(),
        peer.session.take_reply(&open).unwrap().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
    }
    assert_eq!(peer.session.channel(opened).closed_cause(), Some(ChannelCause::ByClient));
}

#[test]
fn publishes_wait_and_those_in_flight_are_resolved() {
    let mut peer = recovering();
    let id = peer.confirming();
    assert_eq!(publish(&mut peer, id), Ok(1));
    wire(&mut peer);
    assert_eq!(publish(&mut peer, id), Ok(2));
    peer.lose();
    let mut channel = peer.session.channel(id);
    let confirmed = [1, 2].map(|seq| channel.confirmed(amqp_core::PublishSeq::new(seq)).unwrap());
    let error = Error::ConnectionLost(cause());
    assert!(!error.is_connection() && error.is_retryable());
    assert_eq!(confirmed, [Confirmation::Unknown(error.clone()), Confirmation::NotSent(error)]);
    assert_eq!(publish(&mut peer, id), Err(PublishRefused::Full));

    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(publish(&mut peer, id), Err(PublishRefused::Full), "the gate is closed");
    super::grant(&mut peer, &frames);
    assert!(peer.events().contains(&Event::BufferSpace));
    assert_eq!(publish(&mut peer, id), Ok(3), "the numbers go on");
    wire(&mut peer);
    // The broker's tags begin anew.
    let ack = amqp_core::proto::method::basic::Ack { delivery_tag: 1, multiple: false };
    peer.send(1, &ack);
    let outcome = peer.session.channel(id).confirmed(amqp_core::PublishSeq::new(3));
    assert_eq!(outcome, Some(Confirmation::Confirmed));
    assert_eq!(peer.session.connection().stats().unconfirmed, 0);
}

#[test]
fn channels_may_be_opened_and_closed_meanwhile() {
    let mut peer = recovering();
    let first = peer.channel(1);
    let second = peer.channel(2);
    peer.lose();
    peer.events();
    let (third, opened) = peer.session.open_channel(peer.now).unwrap();
    let call = peer.session.channel(third).call(peer.now, &QueuePurge::new("q")).unwrap();
    let closed = peer.session.channel(first).close(peer.now);
    assert_eq!(peer.session.take_reply(&closed), Some(Ok(())));
    assert_eq!(peer.session.channel(first).closed_cause(), Some(ChannelCause::ByClient));

    assert_eq!(recover(&mut peer), ["1 channel.Open"]);
    assert_eq!(wire(&mut peer), ["2 channel.Open", "2 purge q"]);
    super::grant(&mut peer, &["2 channel.Open".into()]);
    assert_eq!(peer.session.take_reply(&opened), Some(Ok(())));
    peer.send(2, &queue::PurgeOk { message_count: 0 });
    assert!(peer.session.take_reply(&call).unwrap().is_ok());
    assert_eq!(peer.session.channel(second).number(), Some(1));
    assert_eq!(peer.session.channel(first).number(), None);
}

/// Only the channel that is closed before the loss is not opened again.
#[test]
fn r8_closed_channels_stay_closed() {
    let mut peer = recovering();
    let by_broker = peer.channel(1);
    let by_client = peer.channel(2);
    super::close(&mut peer, 1, 404, "NOT_FOUND");
    let call = peer.session.channel(by_client).close(peer.now);
    wire(&mut peer);
    peer.lose();
    assert_eq!(peer.session.take_reply(&call), Some(Ok(())));
    assert!(recover(&mut peer).is_empty());
    assert!(has_recovered(&peer.events()));
    for id in [by_broker, by_client] {
        assert!(peer.session.channel(id).closed_cause().is_some());
    }
}

/// One that is opened meanwhile takes no number from those that were open before.
#[test]
fn a_channel_without_a_number_is_refused_or_closed() {
    let mut peer = recovering();
    let first = peer.channel(1);
    let channels: Vec<_> = (2..=10).map(|number| peer.channel(number)).collect();
    peer.lose();
    let refused = peer.session.open_channel(peer.now).unwrap_err();
    assert!(matches!(refused, Error::Misuse(Misuse::NoFreeChannels { channel_max: 10, .. })));
    let closed = peer.session.channel(first).close(peer.now);
    assert_eq!(peer.session.take_reply(&closed), Some(Ok(())));
    peer.session.channel(first).release(peer.now);
    let (extra, open) = peer.session.open_channel(peer.now).unwrap();
    peer.redial();
    // The broker permits fewer channels than before.
    peer.shake_hands_with(9);
    let frames = wire(&mut peer);
    assert_eq!(frames.len(), 9);
    super::grant(&mut peer, &frames);
    assert!(channels.iter().all(|id| peer.session.channel(*id).is_open()));
    let no_number = ChannelCause::NoFreeNumber { channel_max: 9 };
    assert_eq!(peer.session.take_reply(&open), Some(Err(Error::Channel(no_number.clone()))));
    assert_eq!(peer.session.channel(extra).closed_cause(), Some(no_number));
}

/// A transaction of which a part is lost is not committed in part.
#[test]
fn a_transaction_that_was_begun_cannot_be_committed() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let other = peer.channel(2);
    let select = peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
    wire(&mut peer);
    peer.send(1, &tx::SelectOk::default());
    peer.session.take_reply(&select).unwrap().unwrap();

    // Nothing was in it.
    peer.lose();
    recover(&mut peer);
    assert_eq!(commits(&mut peer, id), ["1 tx.Commit"]);

    peer.session.channel(id).publish(&Publish::new("", "q", b"1")).unwrap();
    peer.lose();
    recover(&mut peer);
    peer.session.channel(id).publish(&Publish::new("", "q", b"2")).unwrap();
    let refused = peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap_err();
    assert_eq!(refused, Error::Interrupted { cause: cause(), maybe_executed: false });
    assert_eq!(wire(&mut peer), ["1 basic.Publish", "1 tx.Rollback"]);
    peer.send(1, &tx::RollbackOk::default());
    // The next one is whole.
    peer.session.channel(id).publish(&Publish::new("", "q", b"3")).unwrap();
    assert_eq!(commits(&mut peer, id), ["1 basic.Publish", "1 tx.Commit"]);
    assert!(peer.session.channel(other).is_open());
}

/// Commits, and answers the commit. Returns what was sent.
fn commits(peer: &mut Peer, id: ChannelId) -> Vec<String> {
    let commit = peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap();
    let sent = wire(peer);
    peer.send(1, &tx::CommitOk::default());
    assert_eq!(peer.session.take_reply(&commit), Some(Ok(())));
    sent
}

/// Its commit would be refused otherwise, and what was acked in it after the loss would stay unacknowledged.
#[test]
fn what_other_channels_publish_is_not_in_a_transaction() {
    let (mut peer, id) = transactional();
    let other = peer.channel(2);
    for after_a_commit in [false, true] {
        if after_a_commit {
            commits(&mut peer, id);
        }
        publish(&mut peer, other).unwrap();
        // This one is refused, and nothing of it is sent.
        let long = "k".repeat(256);
        peer.session.channel(id).publish(&Publish::new("", &long, b"")).unwrap_err();
        wire(&mut peer);
        peer.lose();
        recover(&mut peer);
        assert_eq!(commits(&mut peer, id), ["1 tx.Commit"]);
    }
}

/// It has no effect on the broker, which would commit the rest.
#[test]
fn a_second_select_does_not_hide_what_a_transaction_has_lost() {
    let (mut peer, id) = transactional();
    publish(&mut peer, id).unwrap();
    wire(&mut peer);
    peer.lose();
    recover(&mut peer);
    publish(&mut peer, id).unwrap();
    let select = peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
    peer.send(1, &tx::SelectOk::default());
    peer.session.take_reply(&select).unwrap().unwrap();
    let refused = peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap_err();
    assert_eq!(refused, Error::Interrupted { cause: cause(), maybe_executed: false });
}

/// Its transaction was sent on the transport that is lost.
#[test]
fn a_commit_that_was_not_sent_is_not_sent_for_another_transaction() {
    let (mut peer, id) = transactional();
    publish(&mut peer, id).unwrap();
    wire(&mut peer);
    let commit = peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap();
    peer.lose();
    let interrupted = Error::Interrupted { cause: cause(), maybe_executed: false };
    assert_eq!(peer.session.take_reply(&commit), Some(Err(interrupted)));
    assert_eq!(recover(&mut peer), ["1 channel.Open", "1 tx.Select"]);
    // The next one is whole.
    publish(&mut peer, id).unwrap();
    assert_eq!(commits(&mut peer, id), ["1 basic.Publish", "1 tx.Commit"]);
}

/// The mode holds since the call, so the broker has to know it.
#[test]
fn a_mode_that_is_selected_meanwhile_is_sent_though_its_caller_is_gone() {
    let mut peer = recovering();
    let confirming = peer.channel(1);
    let transactional = peer.channel(2);
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    let select = peer.session.channel(confirming).call(peer.now, &ConfirmSelect::default());
    peer.session.forget(peer.now, select.unwrap().key());
    let select = peer.session.channel(transactional).call(peer.now, &TxSelect::default());
    peer.session.forget(peer.now, select.unwrap().key());
    super::grant(&mut peer, &frames);
    let selects = wire(&mut peer);
    assert_eq!(selects, ["1 confirm.Select", "2 tx.Select"]);
    super::grant(&mut peer, &selects);
    assert_eq!(peer.session.connection().stats().open_calls, 0);
}

/// What was acked on the new transport before the commit is not part of the next transaction.
#[test]
fn an_interrupted_transaction_is_rolled_back_also_while_the_connection_is_restored() {
    let (mut peer, id) = transactional();
    publish(&mut peer, id).unwrap();
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    let refused = peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap_err();
    assert_eq!(refused, Error::Interrupted { cause: cause(), maybe_executed: false });
    super::grant(&mut peer, &frames);
    assert_eq!(wire(&mut peer), ["1 tx.Rollback"]);
}

/// They have no outcome of their own.
#[test]
fn r13_publishes_without_confirms_that_were_not_sent_are_reported_once() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let other = peer.channel(2);
    publish(&mut peer, id).unwrap();
    wire(&mut peer);
    for _ in 0..3 {
        publish(&mut peer, id).unwrap();
    }
    peer.lose();
    recover(&mut peer);
    assert!(peer.session.channel(id).is_open());
    let lost = Error::PublishesLost { count: 3, cause: cause() };
    // It is not lost once more with the next transport.
    peer.lose();
    recover(&mut peer);
    assert_eq!(publish(&mut peer, other), Ok(0));
    assert_eq!(publish(&mut peer, id), Err(PublishRefused::Error(lost)));
    assert_eq!(publish(&mut peer, id), Ok(0));
    assert_eq!(wire(&mut peer), ["2 basic.Publish", "1 basic.Publish"]);
}

/// Neither another mode nor another loss hides them.
#[test]
fn r13_lost_publishes_are_reported_in_any_mode() {
    let policy = Recovery::automatic().republish(true);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    let channels = [peer.channel(1), peer.channel(2)];
    for id in channels {
        publish(&mut peer, id).unwrap();
    }
    peer.lose();
    recover(&mut peer);
    let [confirming, transactional] = channels;
    let _ = peer.session.channel(confirming).call(peer.now, &ConfirmSelect::default()).unwrap();
    let _ = peer.session.channel(transactional).call(peer.now, &TxSelect::default()).unwrap();
    for id in [confirming, transactional] {
        if id == transactional {
            peer.lose();
            recover(&mut peer);
        }
        let lost = Error::PublishesLost { count: 1, cause: cause() };
        assert_eq!(publish(&mut peer, id), Err(PublishRefused::Error(lost)));
        assert!(publish(&mut peer, id).is_ok());
    }
    assert_eq!(peer.session.connection().stats().unconfirmed, 1);
}

#[test]
fn a_channel_that_opens_after_a_recovery_says_so() {
    let mut peer = recovering();
    peer.lose();
    recover(&mut peer);
    let (id, _) = peer.session.open_channel(peer.now).unwrap();
    let refused = publish(&mut peer, id);
    assert_eq!(refused, Err(PublishRefused::Error(Misuse::ChannelNotOpen.into())));
}

/// The callers of `channel.open` have gone, or have seen their deadline pass, before the loss.
#[test]
fn a_channel_without_a_handle_is_not_opened_again() {
    let mut peer = recovering();
    let (_, forgotten) = peer.session.open_channel(peer.now).unwrap();
    let (_, expired) = peer.session.open_channel(peer.now).unwrap();
    let (_, unread) = peer.session.open_channel(peer.now).unwrap();
    wire(&mut peer);
    peer.session.forget(peer.now, forgotten.key());
    for _ in 0..30 {
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
        peer.pass(Duration::from_secs(1));
    }
    assert!(matches!(peer.session.take_reply(&expired), Some(Err(Error::Deadline { .. }))));
    let (late, opened) = peer.session.open_channel(peer.now).unwrap();
    peer.lose();
    assert_eq!(recover(&mut peer), ["1 channel.Open"]);
    assert!(matches!(peer.session.take_reply(&unread), Some(Err(Error::Deadline { .. }))));
    assert_eq!(peer.session.take_reply(&opened), Some(Ok(())));
    assert!(peer.session.channel(late).is_open());
    assert_eq!(peer.session.connection().stats().open_calls, 0);
}

/// Applications whose own timeouts are shorter than an outage.
#[test]
fn calls_that_are_given_up_meanwhile_take_no_space() {
    let mut peer = recovering();
    let id = peer.channel(1);
    peer.lose();
    // There are ten channels.
    for _ in 0..20 {
        let (_, open) = peer.session.open_channel(peer.now).unwrap();
        peer.session.forget(peer.now, open.key());
    }
    for _ in 0..2 {
        let opens: Vec<_> =
            (0..9).map(|_| peer.session.open_channel(peer.now).unwrap().1).collect();
        peer.pass(Duration::from_secs(30));
        for open in opens {
            let result = peer.session.take_reply(&open).unwrap();
            assert!(matches!(result, Err(Error::Deadline { .. })), "{result:?}");
        }
    }
    for _ in 0..=amqp_core::limits::CALLS_MAX {
        let call = peer.session.channel(id).call(peer.now, &QueuePurge::new("q")).unwrap();
        peer.session.forget(peer.now, call.key());
    }
    let kept = peer.session.channel(id).call(peer.now, &QueuePurge::new("q")).unwrap();
    assert_eq!(peer.session.connection().stats().open_calls, 2);
    assert_eq!(peer.session.take_reply(&kept), None);
}

/// The driver took them, and the transport was lost before it wrote them. It reports them when it drops the transport,
/// which may be when it dials the next one.
#[test]
fn r13_publishes_that_the_driver_has_not_written_are_reported() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let closed = peer.channel(2);
    for id in [id, id, closed] {
        publish(&mut peer, id).unwrap();
    }
    let mut taken = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut taken));
    // A part of the first one is written.
    taken.advance(5);
    publish(&mut peer, id).unwrap();
    let (lost, written) = (peer.attempt, peer.written_in_all + 5);
    let error = TransportError::end_of_file();
    peer.session.handle_disconnected(peer.now, lost, error, written);
    let _ = peer.session.channel(closed).close(peer.now);
    peer.resolve();
    peer.session.handle_unwritten(lost, &taken);
    peer.dial();
    peer.shake_hands();
    let frames = wire(&mut peer);
    super::grant(&mut peer, &frames);
    // A report about another transport counts nothing.
    peer.session.handle_unwritten(peer.attempt, &taken);
    let refused = publish(&mut peer, id);
    let lost = Error::PublishesLost { count: 2, cause: cause() };
    assert_eq!(refused, Err(PublishRefused::Error(lost)));
    assert_eq!(publish(&mut peer, id), Ok(0));
    assert!(peer.session.channel(closed).closed_cause().is_some(), "it stays closed");
}
