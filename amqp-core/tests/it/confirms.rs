//! What becomes of publishes.

use amqp_core::proto::method::{basic, confirm};
use amqp_core::proto::{RawProperties, ShortStr};
use amqp_core::{
    ChannelId, CloseCause, ConfirmSelect, Confirmation, Event, Publish, PublishRefused, PublishSeq,
    limits,
};
use bytes::Bytes;

use crate::peer::Peer;

fn confirming(peer: &mut Peer) -> ChannelId {
    let id = peer.channel(1);
    let call = peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
    peer.send(1, &confirm::SelectOk::default());
    peer.session.take_reply(&call).unwrap().unwrap();
    peer.methods();
    peer.events();
    id
}

fn publish(peer: &mut Peer, id: ChannelId, body: &Bytes) -> PublishSeq {
    let publish = Publish::new("", "q", body).mandatory();
    peer.session.channel(id).publish(&publish).unwrap()
}

/// Returns come before their acks, acks in any order; a nack may settle several.
#[test]
fn outcomes_find_their_publishes() {
    let mut peer = Peer::open();
    let id = confirming(&mut peer);
    let seqs: Vec<_> =
        (0..6).map(|number| publish(&mut peer, id, &Bytes::from(vec![number]))).collect();
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
    let id = confirming(&mut peer);
    let small = Bytes::from_static(b"small");
    let sent = publish(&mut peer, id, &small);
    let large = publish(&mut peer, id, &Bytes::from(vec![0; 300_000]));
    let behind = publish(&mut peer, id, &small);
    let mut out = amqp_core::Transmit::new();
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
    let settled = peer.events().iter().any(|event| matches!(event, Event::Settled { .. }));
    assert!(settled);
}

/// Publishes that queued behind a large content and were written are Unknown, not NotSent.
#[test]
fn what_left_a_lane_counts_as_written() {
    let mut peer = Peer::open();
    let id = confirming(&mut peer);
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
    let id = confirming(&mut peer);
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
    assert!(!peer.events().contains(&Event::Room));
    peer.methods();
    assert!(peer.events().contains(&Event::Room));

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
        let id = confirming(&mut peer);
        publish(&mut peer, id, &Bytes::from_static(b"x"));
        peer.methods();
        peer.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
        assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "tag {tag}");
        assert_eq!(peer.methods(), ["connection.Close"]);
    }
}

/// R2: bodies of the user's that will not be sent are handed out, not dropped inside.
#[test]
fn bodies_that_will_not_be_sent_are_handed_out() {
    let mut peer = Peer::open();
    let id = confirming(&mut peer);
    publish(&mut peer, id, &Bytes::from(vec![0; 4_096]));
    publish(&mut peer, id, &Bytes::from(vec![0; 400_000]));
    peer.session.abort(CloseCause::DriverGone);
    assert_eq!(peer.session.take_discarded().len(), 2);
}

/// What the broker settles twice is counted once.
#[test]
fn settled_publishes_are_counted_once() {
    let mut peer = Peer::open();
    let id = confirming(&mut peer);
    for _ in 0..5 {
        publish(&mut peer, id, &Bytes::new());
    }
    peer.send(1, &basic::Ack { delivery_tag: 3, multiple: false });
    peer.send(1, &basic::Nack { delivery_tag: 2, multiple: false, requeue: false });
    peer.send(1, &basic::Ack { delivery_tag: 5, multiple: true });
    let stats = peer.session.stats();
    assert_eq!((stats.published, stats.confirmed, stats.nacked), (5, 4, 1));
}

/// A peer that returns and never acks: beyond a limit, envelopes alone are kept.
#[test]
fn returns_without_acks_lose_their_bodies() {
    let mut peer = Peer::open();
    let id = confirming(&mut peer);
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
