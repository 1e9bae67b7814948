mod properties;

use super::{Confirmation, Confirms};
use crate::error::{ChannelCause, CloseCause, Error, ProtocolDetail};
use crate::ids::PublishSeq;
use crate::limits::{LOST_EPOCHS_MAX, LOST_RUNS_MAX};
use crate::transmit::Sent;

const ALL: Sent = Sent { offset: u64::MAX, in_lane: u64::MAX };

fn confirms(publishes: u64) -> Confirms {
    let mut confirms = Confirms::new();
    for seq in 0..publishes {
        confirms.publish(seq * 100, None);
    }
    confirms
}

fn lost() -> Error {
    Error::Connection(CloseCause::DriverGone)
}

fn outcomes(confirms: &mut Confirms, last: u64) -> String {
    outcomes_of(confirms, 1..=last)
}

fn outcomes_of(confirms: &mut Confirms, numbers: impl IntoIterator<Item = u64>) -> String {
    numbers
        .into_iter()
        .map(|seq| match confirms.take(PublishSeq(seq)) {
            None => '.',
            Some(Confirmation::Confirmed) => 'c',
            Some(Confirmation::Nacked) => 'n',
            Some(Confirmation::NotSent(_)) => 's',
            Some(Confirmation::Unknown(_)) => 'u',
            Some(Confirmation::Returned(_)) => 'r',
        })
        .collect()
}

#[test]
fn out_of_order_and_multiple() {
    let mut confirms = confirms(8);
    assert_eq!(confirms.resolve(3, false, true, ALL), Ok(Some((3, 3, 1))));
    assert_eq!(outcomes(&mut confirms, 8), "..c.....");
    assert_eq!(confirms.resolve(1, false, true, ALL), Ok(Some((1, 1, 1))));
    assert_eq!(confirms.resolve(2, false, true, ALL), Ok(Some((2, 2, 1))));
    assert_eq!(confirms.span(), 5);
    assert_eq!(confirms.resolve(6, true, false, ALL), Ok(Some((4, 6, 3))));
    assert_eq!(outcomes(&mut confirms, 8), "cccnnn..");
    assert_eq!(confirms.resolve(0, true, true, ALL), Ok(Some((7, 8, 2))));
    assert_eq!(confirms.resolve(0, true, true, ALL), Ok(None));
    assert_eq!(confirms.span(), 0);
}

#[test]
fn unknown_and_repeated_tags_are_refused() {
    let mut confirms = confirms(3);
    for (tag, multiple) in [(4, false), (4, true), (0, false)] {
        assert_eq!(
            confirms.resolve(tag, multiple, true, ALL),
            Err(ProtocolDetail::ConfirmUnknown(tag))
        );
    }
    confirms.resolve(2, false, true, ALL).unwrap();
    assert_eq!(confirms.resolve(2, false, false, ALL), Err(ProtocolDetail::ConfirmUnknown(2)));
    assert_eq!(outcomes(&mut confirms, 3), ".c.");
}

#[test]
fn a_nack_is_reported_once_and_not_kept_for_callers_that_left() {
    let mut confirms = confirms(2);
    confirms.forget(PublishSeq(1));
    confirms.resolve(2, true, false, ALL).unwrap();
    assert_eq!(confirms.take(PublishSeq(2)), Some(Confirmation::Nacked));
    assert_eq!(confirms.failures.end(), 0);
}

#[test]
fn a_loss_tells_what_was_not_sent_from_what_may_have_arrived() {
    let mut confirms = confirms(5);
    confirms.resolve(2, false, true, ALL).unwrap();
    // The third publish begins at byte 200, the fourth at 300: one byte of it was written.
    assert_eq!(confirms.end(lost(), 301), Some((1, 5)));
    assert_eq!(confirms.end(lost(), 0), None);
    assert_eq!(outcomes(&mut confirms, 5), "ucuus");
}

#[test]
fn all_are_confirmed_or_counted_by_what_became_of_them() {
    let mut confirms = confirms(6);
    let all = PublishSeq(6);
    assert_eq!(confirms.all_confirmed(PublishSeq(0)), Some(Ok(())));
    confirms.forget(PublishSeq(1));
    confirms.resolve(2, true, false, ALL).unwrap();
    confirms.resolve(4, false, true, ALL).unwrap();
    assert_eq!(confirms.all_confirmed(all), None);
    confirms.resolve(3, false, true, ALL).unwrap();
    let nacked = confirms.all_confirmed(PublishSeq(4)).unwrap().unwrap_err();
    assert_eq!((nacked.nacked, nacked.count()), (2, 2), "also the one that is not asked for");
    assert_eq!(confirms.all_confirmed(PublishSeq(4)), Some(Ok(())), "they are reported once");
    assert_eq!(confirms.all_confirmed(all), None);
    // The fifth publish begins at byte 400, the sixth at 500.
    confirms.end(lost(), 401);
    for _ in 0..2 {
        let failed = confirms.all_confirmed(all).unwrap().unwrap_err();
        assert_eq!((failed.unknown, failed.not_sent, failed.nacked), (1, 1, 0));
        assert_eq!(failed.cause, Some(lost()));
    }
}

#[test]
fn what_was_not_sent_whole_cannot_be_confirmed() {
    // The third publish begins at byte 200; the second one is still in a lane.
    for sent in [Sent { offset: 101, in_lane: 3 }, Sent { offset: 300, in_lane: 3 }] {
        for (tag, multiple) in [(3, false), (3, true), (4, true), (5, false)] {
            let mut confirms = confirms(5);
            confirms.forget(PublishSeq(3));
            let refused = confirms.resolve(tag, multiple, true, sent);
            assert_eq!(refused, Err(ProtocolDetail::ConfirmUnknown(tag)), "{sent:?}");
            assert_eq!(confirms.resolve(0, true, true, sent), Ok(Some((1, 2, 2))), "{sent:?}");
            assert_eq!(confirms.resolve(0, true, true, sent), Ok(None), "{sent:?}");
            assert_eq!(outcomes(&mut confirms, 5), "cc...");
        }
    }
}

#[test]
fn numbers_continue_on_the_next_transport_whose_tags_begin_again() {
    let mut confirms = confirms(5);
    confirms.selected();
    confirms.resolve(2, false, true, ALL).unwrap();
    confirms.resolve(4, false, false, ALL).unwrap();
    assert_eq!(confirms.lose(lost(), 201), [(1, 5)]);
    assert_eq!((confirms.next(), confirms.span(), confirms.is_selected()), (6, 0, false));
    for tag in [1, 6, u64::MAX] {
        let refused = confirms.resolve(tag, true, true, ALL);
        assert_eq!(refused, Err(ProtocolDetail::ConfirmUnknown(tag)), "nothing is published yet");
    }
    (0..3).for_each(|seq| confirms.publish(seq * 100, None));
    assert_eq!(confirms.resolve(1, false, true, ALL), Ok(Some((6, 6, 1))));
    assert_eq!(confirms.resolve(1, true, true, ALL), Ok(None));
    assert_eq!(confirms.resolve(3, true, false, ALL), Ok(Some((7, 8, 2))));
    assert!(!confirms.is_confirmed(PublishSeq(6)), "a later one has failed");
    assert_eq!(outcomes(&mut confirms, 8), "ucunscnn");
    assert_eq!(outcomes(&mut confirms, 8), "ucucsccc", "what was lost stays lost");
    assert!(confirms.is_confirmed(PublishSeq(6)) && !confirms.is_confirmed(PublishSeq(2)));
}

#[test]
fn a_loss_is_counted_once_and_the_end_of_the_channel_each_time() {
    let mut confirms = confirms(3);
    confirms.forget(PublishSeq(2));
    confirms.lose(lost(), 101);
    let all = PublishSeq(4);
    let counted = |confirms: &mut Confirms| {
        let failed = confirms.all_confirmed(all).map(|result| result.err().unwrap_or_default());
        failed.map(|failed| (failed.unknown, failed.not_sent, failed.cause.is_some()))
    };
    confirms.publish(0, None);
    assert_eq!(counted(&mut confirms), None);
    assert_eq!(confirms.all_confirmed(PublishSeq(3)).unwrap().unwrap_err().count(), 3);
    assert_eq!(confirms.all_confirmed(PublishSeq(3)), Some(Ok(())));
    assert_eq!(confirms.lose(lost(), 0), [(4, 4)]);
    assert_eq!(confirms.lose(lost(), 0), []);
    confirms.publish(0, None);
    assert_eq!(confirms.end(Error::Channel(ChannelCause::ByClient), 100), Some((5, 5)));
    assert_eq!(counted(&mut confirms), Some((1, 1, true)));
    assert_eq!(counted(&mut confirms), Some((1, 0, true)));
    assert_eq!(outcomes(&mut confirms, 5), "uussu");
}

/// Publishes `count` times, of which every second is confirmed, and loses the transport.
fn lose_every_second(confirms: &mut Confirms, count: u64) {
    (0..count).for_each(|offset| confirms.publish(offset, None));
    for tag in (2..=count).step_by(2) {
        confirms.resolve(tag, false, true, ALL).unwrap();
    }
    confirms.lose(lost(), 0);
}

#[test]
fn the_outcomes_of_the_oldest_transports_become_unknown() {
    let mut confirms = confirms(0);
    let transports = LOST_EPOCHS_MAX as u64 + 2;
    (0..transports).for_each(|_| lose_every_second(&mut confirms, 6));
    let outcomes = outcomes(&mut confirms, 6 * transports);
    // What is confirmed between the publishes of the two oldest looks unknown, too.
    assert!(outcomes.starts_with("uuuuuuuuuuuc"), "{outcomes}");
    assert_eq!(outcomes[12..], "scscsc".repeat(LOST_EPOCHS_MAX), "{outcomes}");
}

#[test]
fn the_runs_of_lost_publishes_are_limited_and_the_last_transport_is_exact() {
    let mut confirms = confirms(0);
    lose_every_second(&mut confirms, 6);
    lose_every_second(&mut confirms, LOST_RUNS_MAX as u64 * 2);
    assert_eq!(outcomes(&mut confirms, 10), "uuuuucscsc");
    assert_eq!(outcomes_of(&mut confirms, [65_541, 65_542, 65_543]), "sc.");
}
