use super::{Confirmation, Confirms};
use crate::error::{ChannelCause, CloseCause, ProtocolDetail};
use crate::ids::PublishSeq;
use crate::transmit::Sent;

const ALL: Sent = Sent { offset: u64::MAX, in_lane: u64::MAX };

fn confirms(publishes: u64) -> Confirms {
    let mut confirms = Confirms::new();
    for seq in 0..publishes {
        confirms.publish(seq * 100, None);
    }
    confirms
}

fn outcomes(confirms: &mut Confirms, last: u64) -> String {
    (1..=last)
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
    assert!(confirms.side.is_empty());
}

#[test]
fn a_loss_tells_what_was_not_sent_from_what_may_have_arrived() {
    let mut confirms = confirms(5);
    confirms.resolve(2, false, true, ALL).unwrap();
    let cause = ChannelCause::Connection(CloseCause::DriverGone);
    // The third publish begins at byte 200, the fourth at 300: one byte of it was written.
    assert_eq!(confirms.end(cause, 301), Some((1, 5)));
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
    let cause = ChannelCause::Connection(CloseCause::DriverGone);
    confirms.end(cause.clone(), 401);
    let lost = confirms.all_confirmed(all).unwrap().unwrap_err();
    assert_eq!((lost.unknown, lost.not_sent, lost.nacked), (1, 1, 0));
    assert_eq!(lost.cause, Some(cause.into_error()));
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
