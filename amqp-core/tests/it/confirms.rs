//! What becomes of publishes.

use std::time::Duration;

use amqp_core::errors::{InvalidReason, Misuse};
use amqp_core::proto::method::{basic, channel, confirm};
use amqp_core::proto::{FieldTable, Properties, RawProperties, ShortStr};
use amqp_core::requests::ConfirmSelect;
use amqp_core::{
    ChannelId, CloseCause, Confirmation, Error, Event, Publish, PublishRefused, PublishSeq,
    Transmit, limits,
};
use bytes::Bytes;

use crate::peer::Peer;

fn publish(peer: &mut Peer, id: ChannelId, body: &Bytes) -> PublishSeq {
    let publish = Publish::new("", "q", body).mandatory();
    peer.session.channel(id).publish(&publish).unwrap()
}

/// Returns come before their acks, acks in any order; a nack may resolve several.
#[test]
fn outcomes_find_their_publishes() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let seqs: Vec<_> =
        (0..6).map(|number| publish(&mut peer, id, &Bytes::from(vec![number]))).collect();
    peer.write();
    for number in [1_u8, 4] {
        let returned = basic::Return {
            reply_code: 312,
            reply_text: ShortStr::new("NO_ROUTE").unwrap(),
            routing_key: ShortStr::new("q").unwrap(),
            ..Default::default()
        };
        peer.send_content(1, &returned, RawProperties::NONE.as_bytes(), &[number]);
    }
    peer.send(1, &basic::Ack { delivery_tag: 5, multiple: true });
    peer.send(1, &basic::Nack { delivery_tag: 6, multiple: true, requeue: true });
    let outcomes: Vec<_> =
        seqs.iter().map(|seq| peer.session.channel(id).confirmed(*seq).unwrap()).collect();
    for (number, outcome) in outcomes.iter().enumerate() {
        match (number, outcome) {
            (1 | 4, Confirmation::Returned(returned)) => {
                assert_eq!(returned.message.body(), [number as u8]);
            }
            (0 | 2 | 3, Confirmation::Confirmed) | (5, Confirmation::Nacked) => {}
            _ => panic!("{number}: {outcome:?}"),
        }
    }
}

/// What was published before `confirm.select` comes back as unconfirmed, even if it overtakes
/// `select-ok`.
#[test]
fn returns_before_select_ok_are_of_unconfirmed_publishes() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let lost = Publish::new("", "q", b"1").mandatory();
    peer.session.channel(id).publish(&lost).unwrap();
    let select = peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
    let routed =
        peer.session.channel(id).publish(&Publish::new("", "q", b"2").mandatory()).unwrap();
    peer.write();
    let routing_key = ShortStr::new("q").unwrap();
    let returned = basic::Return { reply_code: 312, routing_key, ..Default::default() };
    peer.send_content(1, &returned, RawProperties::NONE.as_bytes(), b"1");
    peer.send(1, &confirm::SelectOk::default());
    peer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    peer.session.take_reply(&select).unwrap().unwrap();
    assert_eq!(peer.session.channel(id).confirmed(routed), Some(Confirmation::Confirmed));
    assert_eq!(peer.session.channel(id).take_returned().unwrap().message.body(), b"1");
}

/// P8: NotSent only where no byte was written.
#[test]
fn a_loss_tells_not_sent_from_unknown() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let small = Bytes::from_static(b"small");
    let sent = publish(&mut peer, id, &small);
    let large = publish(&mut peer, id, &Bytes::from(vec![0; 300_000]));
    let behind = publish(&mut peer, id, &small);
    let mut out = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    // The first publish and a little of the large one reach the socket.
    peer.written_in_all += 200;
    let later = publish(&mut peer, id, &small);
    peer.lose();
    assert!(matches!(peer.cause(), CloseCause::Transport(_)));
    let outcome = |peer: &mut Peer, seq| peer.session.channel(id).confirmed(seq).unwrap();
    assert!(matches!(outcome(&mut peer, sent), Confirmation::Unknown(_)));
    assert!(matches!(outcome(&mut peer, large), Confirmation::Unknown(_)));
    assert!(matches!(outcome(&mut peer, behind), Confirmation::NotSent(_)));
    assert!(matches!(outcome(&mut peer, later), Confirmation::NotSent(_)));
    let resolved = peer.events().iter().any(|event| matches!(event, Event::Resolved { .. }));
    assert!(resolved);
}

/// Publishes that queued behind a large content and were written are Unknown, not NotSent.
#[test]
fn what_left_a_lane_counts_as_written() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let large = publish(&mut peer, id, &Bytes::from(vec![0; 50_000]));
    let behind = publish(&mut peer, id, &Bytes::from_static(b"behind"));
    peer.write();
    peer.lose();
    for seq in [large, behind] {
        let outcome = peer.session.channel(id).confirmed(seq).unwrap();
        assert!(matches!(outcome, Confirmation::Unknown(_)), "{outcome:?}");
    }
}

/// P10
#[test]
fn publishes_wait_at_the_limits() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let body = Bytes::from(vec![0; 1_000]);
    let mut published = 0_u64;
    let refused = loop {
        let publish = Publish::new("", "q", &body);
        match peer.session.channel(id).publish(&publish) {
            Ok(seq) => published = seq.number(),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, PublishRefused::Full);
    assert!((950..1_050).contains(&published), "{published} publishes of 1 KB in 1 MiB");
    assert!(!peer.events().contains(&Event::BufferSpace));
    peer.methods();
    assert!(peer.events().contains(&Event::BufferSpace));

    let refused = loop {
        match peer.session.channel(id).publish(&Publish::new("", "q", b"")) {
            Ok(seq) => published = seq.number(),
            Err(PublishRefused::Full) => peer.write(),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, published), (PublishRefused::Unconfirmed, limits::UNCONFIRMED_SPAN));
    peer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    peer.session.channel(id).publish(&Publish::new("", "q", b"")).unwrap();
}

/// P5
#[test]
fn a_confirm_of_nothing_is_a_protocol_error() {
    for tag in [0, 2, u64::MAX] {
        let mut peer = Peer::open();
        let id = peer.confirming();
        publish(&mut peer, id, &Bytes::from_static(b"x"));
        peer.methods();
        peer.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
        assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "tag {tag}");
        assert_eq!(peer.methods(), ["connection.Close"]);
    }
}

/// The publish that an ack of several names may be confirmed already, and so may all before it.
#[test]
fn an_ack_of_several_may_name_a_confirmed_publish() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let seqs = [(); 4].map(|()| publish(&mut peer, id, &Bytes::from_static(b"x")));
    peer.write();
    let confirmed = |peer: &mut Peer| {
        let mut channel = peer.session.channel(id);
        seqs.map(|seq| channel.confirmed(seq).is_some())
    };
    peer.send(1, &basic::Ack { delivery_tag: 3, multiple: false });
    assert_eq!(confirmed(&mut peer), [false, false, true, false]);
    for delivery_tag in [3, 3, 2] {
        peer.send(1, &basic::Ack { delivery_tag, multiple: true });
        assert_eq!(confirmed(&mut peer), [true, true, true, false]);
    }
    let stats = peer.session.connection().stats();
    assert_eq!((stats.confirmed, stats.unconfirmed), (3, 1));
    peer.send(1, &basic::Ack { delivery_tag: 4, multiple: false });
    assert_eq!(peer.session.cause(), None);
    // The next one has not been made.
    peer.send(1, &basic::Ack { delivery_tag: 5, multiple: true });
    assert!(matches!(peer.cause(), CloseCause::Protocol(_)));
}

/// The quick look may miss a confirm, and takes nothing else for one.
#[test]
fn a_confirm_is_plain_to_see_while_there_is_nothing_else() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let seqs = [(); 3].map(|()| publish(&mut peer, id, &Bytes::from_static(b"x")));
    peer.write();
    let plain = |peer: &mut Peer| seqs.map(|seq| peer.session.channel(id).is_confirmed(seq));
    assert_eq!(plain(&mut peer), [false, false, false]);
    peer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    assert_eq!(plain(&mut peer), [true, false, false]);
    peer.send(1, &basic::Nack { delivery_tag: 2, multiple: false, requeue: false });
    assert_eq!(plain(&mut peer), [false, false, false]);
    assert_eq!(peer.session.channel(id).confirmed(seqs[1]), Some(Confirmation::Nacked));
    assert_eq!(plain(&mut peer), [true, true, false]);
}

/// R2: bodies of the user's that will not be sent are handed out, not dropped inside.
#[test]
fn bodies_that_will_not_be_sent_are_handed_out() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    publish(&mut peer, id, &Bytes::from(vec![0; 4_096]));
    publish(&mut peer, id, &Bytes::from(vec![0; 400_000]));
    peer.session.abort(CloseCause::DriverGone);
    assert_eq!(peer.session.take_discarded().len(), 2);
}

/// A publish that the broker acks or nacks twice is counted once.
#[test]
fn resolved_publishes_are_counted_once() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    for _ in 0..5 {
        publish(&mut peer, id, &Bytes::new());
    }
    peer.write();
    peer.send(1, &basic::Ack { delivery_tag: 3, multiple: false });
    peer.send(1, &basic::Nack { delivery_tag: 2, multiple: false, requeue: false });
    peer.send(1, &basic::Ack { delivery_tag: 5, multiple: true });
    let stats = peer.session.connection().stats();
    assert_eq!((stats.published, stats.confirmed, stats.nacked), (5, 4, 1));
}

/// A peer that returns and never acks: beyond a limit, envelopes alone are kept.
#[test]
fn returns_without_acks_lose_their_bodies() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let body = vec![0; 4_000];
    let count = limits::RETURNED_UNCLAIMED_BYTES / 4_000 + 100;
    for _ in 0..count {
        let publish = Publish::new("", "k", &body).mandatory();
        peer.session.channel(id).publish(&publish).unwrap();
        peer.written.clear();
        peer.write();
    }
    peer.written.clear();
    for _ in 0..count {
        let routing_key = ShortStr::new("k").unwrap();
        let returned = basic::Return { reply_code: 312, routing_key, ..Default::default() };
        peer.send_content(1, &returned, RawProperties::NONE.as_bytes(), &body);
    }
    peer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    let mut stripped = 0;
    for seq in 1..=count {
        let outcome = peer.session.channel(id).confirmed(PublishSeq::new(seq as u64));
        let Some(Confirmation::Returned(returned)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(returned.message.routing_key(), *"k");
        assert_eq!(returned.message.body().is_empty(), returned.is_stripped);
        stripped += usize::from(returned.is_stripped);
    }
    assert!((100..200).contains(&stripped), "{stripped} of {count}");
}

/// Nothing is confirmed that the driver has not taken whole, whether or not anyone still asks.
#[test]
fn a_confirm_of_what_was_not_sent_is_a_protocol_error() {
    for (delivery_tag, multiple) in [(2, false), (2, true), (3, false), (3, true)] {
        let mut peer = Peer::open();
        let id = peer.confirming();
        let sent = publish(&mut peer, id, &Bytes::from_static(b"sent"));
        peer.methods();
        let unsent = publish(&mut peer, id, &Bytes::from_static(b"waits"));
        let forgotten = publish(&mut peer, id, &Bytes::from_static(b"waits"));
        peer.session.channel(id).forget_publish(forgotten);
        peer.send(1, &basic::Ack { delivery_tag, multiple });
        assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "tag {delivery_tag}");
        let outcome = |peer: &mut Peer, seq| peer.session.channel(id).confirmed(seq).unwrap();
        assert!(matches!(outcome(&mut peer, sent), Confirmation::Unknown(_)));
        assert!(matches!(outcome(&mut peer, unsent), Confirmation::NotSent(_)));
    }
}

/// A large content that is on its way, and what waits behind it.
#[test]
fn a_confirm_of_what_is_half_sent_is_a_protocol_error() {
    for delivery_tag in [2, 3] {
        let mut peer = Peer::open();
        let id = peer.confirming();
        let first = publish(&mut peer, id, &Bytes::from_static(b"first"));
        publish(&mut peer, id, &Bytes::from(vec![0; 600_000]));
        publish(&mut peer, id, &Bytes::from_static(b"behind"));
        let mut out = Transmit::new();
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        peer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
        assert_eq!(peer.session.channel(id).confirmed(first), Some(Confirmation::Confirmed));
        assert!(peer.session.cause().is_none());
        peer.send(1, &basic::Ack { delivery_tag, multiple: true });
        assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "tag {delivery_tag}");
    }
    let mut peer = Peer::open();
    let id = peer.confirming();
    publish(&mut peer, id, &Bytes::from(vec![0; 600_000]));
    let behind = publish(&mut peer, id, &Bytes::from_static(b"behind"));
    peer.write();
    peer.send(1, &basic::Ack { delivery_tag: 2, multiple: true });
    assert_eq!(peer.session.channel(id).confirmed(behind), Some(Confirmation::Confirmed));
}

/// A broker may acknowledge all that it has received at any time: that is no more than was sent.
#[test]
fn a_confirm_of_all_covers_what_was_sent() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    peer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    let mut seqs = vec![publish(&mut peer, id, &Bytes::from_static(b"1"))];
    peer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    assert_eq!(peer.session.channel(id).confirmed(seqs[0]), None);
    seqs.push(publish(&mut peer, id, &Bytes::from_static(b"2")));
    peer.write();
    seqs.push(publish(&mut peer, id, &Bytes::from_static(b"3")));
    peer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    let outcomes: Vec<_> =
        seqs.iter().map(|seq| peer.session.channel(id).confirmed(*seq)).collect();
    assert_eq!(outcomes, [Some(Confirmation::Confirmed), Some(Confirmation::Confirmed), None]);
    assert!(peer.session.cause().is_none());
}

fn closed_by_broker(peer: &mut Peer, reply_code: u16) {
    peer.send(1, &channel::Close { reply_code, ..Default::default() });
}

/// As at a loss: what the driver had not begun to take was not sent, and the rest may have arrived.
#[test]
fn a_closed_channel_tells_not_sent_from_unknown() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let small = Bytes::from_static(b"small");
    let large = Bytes::from(vec![0; 600_000]);
    let sent = publish(&mut peer, id, &small);
    let begun = publish(&mut peer, id, &large);
    let mut out = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    let bodies = [&small, &large, &small];
    let waiting = bodies.map(|body| publish(&mut peer, id, body));
    peer.events();
    closed_by_broker(&mut peer, 404);
    let resolved = Event::Resolved { channel: id, first: sent, last: waiting[2] };
    assert!(peer.events().contains(&resolved));
    for seq in [sent, begun] {
        let outcome = peer.session.channel(id).confirmed(seq);
        let Some(Confirmation::Unknown(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.reply_code().unwrap().code(), 404);
    }
    for seq in waiting {
        let outcome = peer.session.channel(id).confirmed(seq);
        let Some(Confirmation::NotSent(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.reply_code().unwrap().code(), 404);
    }
    // What was dropped takes no buffer space, and is not waited for.
    assert_eq!(peer.session.take_discarded().len(), 1);
    assert!(peer.session.connection().stats().unsent_bytes < 600_000);
    assert_eq!(peer.session.connection().stats().unconfirmed, 0);
    let drain = peer.session.drain(peer.now, Duration::from_secs(1)).unwrap();
    peer.write();
    assert_eq!(peer.session.connection().stats().unsent_bytes, 0);
    peer.events();
    assert_eq!(peer.session.take_reply(&drain), Some(Ok(())));
}

/// The same where nothing but the flat buffer holds the publish.
#[test]
fn a_publish_that_a_closed_channel_left_in_the_buffer_was_not_sent() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let sent = publish(&mut peer, id, &Bytes::from_static(b"sent"));
    peer.write();
    let unsent = publish(&mut peer, id, &Bytes::from_static(b"unsent"));
    let forgotten = publish(&mut peer, id, &Bytes::from_static(b"forgotten"));
    peer.session.channel(id).forget_publish(forgotten);
    closed_by_broker(&mut peer, 406);
    let mut channel = peer.session.channel(id);
    assert!(matches!(channel.confirmed(sent), Some(Confirmation::Unknown(_))));
    assert!(matches!(channel.confirmed(unsent), Some(Confirmation::NotSent(_))));
}

/// Lanes give back what a closed channel had in them: others get as much as before.
#[test]
fn a_closed_channel_leaves_its_buffer_space_to_others() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    let other = peer.channel(2);
    let large = Bytes::from(vec![0; 200_000]);
    let fill = |peer: &mut Peer, id| {
        let publish = Publish::new("", "q", &large);
        (0..).take_while(|_| peer.session.channel(id).publish(&publish).is_ok()).count()
    };
    assert_eq!(fill(&mut peer, id), 6);
    let behind = Publish::new("", "q", b"behind");
    assert_eq!(peer.session.channel(id).publish(&behind), Err(PublishRefused::Full));
    assert_eq!(fill(&mut peer, other), 0);
    closed_by_broker(&mut peer, 404);
    assert_eq!(fill(&mut peer, other), 6);
}

/// Acks in a row make one event; a gap, another order or another channel begin a new one.
#[test]
fn runs_of_confirms_make_one_event() {
    let mut peer = Peer::open();
    let id = peer.confirming();
    for _ in 0..8 {
        publish(&mut peer, id, &Bytes::from_static(b"x"));
    }
    peer.write();
    peer.events();
    for (delivery_tag, multiple) in [(1, false), (3, true), (4, false), (6, false), (5, false)] {
        peer.send(1, &basic::Ack { delivery_tag, multiple });
    }
    peer.send(1, &basic::Nack { delivery_tag: 8, multiple: true, requeue: false });
    let resolved = |first, last| {
        let (first, last) = (PublishSeq::new(first), PublishSeq::new(last));
        Event::Resolved { channel: id, first, last }
    };
    assert_eq!(peer.events(), [resolved(1, 4), resolved(6, 6), resolved(5, 5), resolved(7, 8)]);

    let others = [peer.channel(2), peer.channel(3)];
    for id in others {
        peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
        publish(&mut peer, id, &Bytes::from_static(b"1"));
        publish(&mut peer, id, &Bytes::from_static(b"2"));
    }
    peer.write();
    peer.send(2, &basic::Ack { delivery_tag: 1, multiple: false });
    peer.send(3, &basic::Ack { delivery_tag: 1, multiple: false });
    peer.send(2, &basic::Ack { delivery_tag: 2, multiple: false });
    assert_eq!(peer.events().len(), 3, "no two of them are of the same channel");
}

/// Frames are as large as `frame_max` lets them be. A header beyond is refused, and leaves nothing behind.
#[test]
fn a_header_must_fit_a_frame() {
    let properties = |length: usize| {
        let value = "x".repeat(length);
        Properties::new().headers(FieldTable::from([("n", value.as_str().into())]))
    };
    // The frame's head and end, the fixed part, the table's length, a name, a type and a length.
    let fits = 4_096 - (8 + 14 + 4 + 2 + 1 + 4);
    for waits_in_lane in [false, true] {
        let mut peer = Peer::open();
        let id = peer.confirming();
        let mut expected = Vec::new();
        if waits_in_lane {
            publish(&mut peer, id, &Bytes::from(vec![0; 4_089]));
            expected.extend(["basic.Publish", "Header", "Body", "Body"]);
        }
        let too_large = properties(fits + 1);
        let refused = Publish::new("", "q", b"x").properties(&too_large).mandatory();
        let refused = peer.session.channel(id).publish(&refused);
        let Err(PublishRefused::Error(Error::InvalidArgument(invalid))) = refused else {
            panic!("{refused:?}")
        };
        let reason = InvalidReason::FrameTooLarge { size: 4_097, frame_max: 4_096 };
        assert_eq!(invalid.reason, reason);
        let largest = properties(fits);
        let body = vec![0; 4_088];
        let whole = Publish::new("", "q", &body).properties(&largest);
        peer.session.channel(id).publish(&whole).unwrap();
        expected.extend(["basic.Publish", "Header", "Body"]);
        assert_eq!(peer.methods(), expected);
    }
}

/// It is not closed, and nothing was sent.
#[test]
fn a_publish_before_open_ok_says_so() {
    let mut peer = Peer::open();
    let (id, _) = peer.session.open_channel(peer.now).unwrap();
    let refused = peer.session.channel(id).publish(&Publish::new("", "q", b"x"));
    assert_eq!(refused, Err(PublishRefused::Error(Misuse::ChannelNotOpen.into())));
    assert_eq!(peer.methods(), ["channel.Open"]);
}

/// Where it was published to is what its publisher wants to know.
#[test]
fn a_returned_message_is_printed_with_its_address() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    for (reply_text, printed) in [("NO_ROUTE", "312 NO_ROUTE"), ("why", "312 NO_ROUTE why")] {
        let returned = basic::Return {
            reply_code: 312,
            reply_text: ShortStr::new(reply_text).unwrap(),
            exchange: ShortStr::new("e").unwrap(),
            routing_key: ShortStr::new("k").unwrap(),
        };
        peer.send_content(1, &returned, RawProperties::NONE.as_bytes(), b"");
        let message = Box::new(peer.session.channel(id).take_returned().unwrap());
        let expected = format!("{printed} (exchange \"e\", routing key \"k\")");
        assert_eq!(message.to_string(), expected);
        let error = Error::Returned(message);
        assert_eq!(error.to_string(), format!("returned by the broker: {expected}"));
    }
}
