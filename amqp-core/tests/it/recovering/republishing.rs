//! Publishes that are sent again when the connection is lost before their confirm.

use amqp_core::proto::method::{basic, confirm};
use amqp_core::proto::{Properties, ShortStr};
use amqp_core::requests::ConfirmSelect;
use amqp_core::{
    Body, ChannelId, Config, Confirmation, Event, Publish, PublishRefused, PublishSeq, Recovery,
    Transmit,
};
use bytes::Bytes;

use super::{close, grant, has_recovered, wire};
use crate::contents::encoded;
use crate::peer::Peer;

fn republishing(recovery: Recovery) -> (Peer, ChannelId) {
    let mut peer = Peer::open_with(Config::default().recovery(recovery));
    let id = peer.confirming();
    (peer, id)
}

fn publish(peer: &mut Peer, id: ChannelId, body: &[u8]) -> Result<u64, PublishRefused> {
    peer.session.channel(id).publish(&Publish::new("", "q", body)).map(PublishSeq::number)
}

fn outcome(peer: &mut Peer, id: ChannelId, seq: u64) -> Option<Confirmation> {
    peer.session.channel(id).confirmed(PublishSeq::new(seq))
}

fn ack(peer: &mut Peer, delivery_tag: u64, multiple: bool) {
    peer.send(1, &basic::Ack { delivery_tag, multiple });
}

/// The bodies of what the session has written.
fn bodies(peer: &mut Peer) -> Vec<Vec<u8>> {
    use amqp_core::proto::frame::{FrameKind, FrameLimits, Peek, peek};
    peer.write();
    let written = std::mem::take(&mut peer.written);
    let (mut rest, mut bodies) = (written.as_slice(), Vec::new());
    while let Ok(Peek::Complete(frame)) = peek(rest, FrameLimits::default()) {
        rest = &rest[frame.frame_len()..];
        if frame.kind == FrameKind::Body {
            bodies.push(frame.payload.to_vec());
        }
    }
    bodies
}

#[test]
fn r13_unconfirmed_publishes_are_sent_again_before_new_ones() {
    let (mut peer, id) = republishing(Recovery::automatic().republish(true));
    for (seq, body) in [(1, b"a"), (2, b"b"), (3, b"c"), (4, b"d")] {
        assert_eq!(publish(&mut peer, id, body), Ok(seq));
    }
    assert_eq!(bodies(&mut peer), [b"a", b"b", b"c", b"d"]);
    // Out of order, so that there is a hole among those that are sent again.
    ack(&mut peer, 2, false);
    assert_eq!(publish(&mut peer, id, b"e"), Ok(5));
    peer.lose();
    peer.events();
    for seq in [1, 3, 4, 5] {
        assert_eq!(outcome(&mut peer, id, seq), None, "{seq} stays open");
    }
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(publish(&mut peer, id, b"x"), Err(PublishRefused::Full));
    grant(&mut peer, &frames);
    assert!(has_recovered(&peer.events()));
    assert_eq!(publish(&mut peer, id, b"f"), Ok(6));
    assert_eq!(bodies(&mut peer), [b"a", b"c", b"d", b"e", b"f"]);
    // The tags of the new transport are those of 1, 3, 4, 5, 6.
    ack(&mut peer, 2, true);
    assert_eq!(outcome(&mut peer, id, 1), Some(Confirmation::Confirmed));
    assert_eq!(outcome(&mut peer, id, 3), Some(Confirmation::Confirmed));
    assert_eq!(outcome(&mut peer, id, 4), None);
    peer.send(1, &basic::Nack { delivery_tag: 4, multiple: false, requeue: false });
    assert_eq!(outcome(&mut peer, id, 5), Some(Confirmation::Nacked));
    ack(&mut peer, 0, true);
    assert_eq!(outcome(&mut peer, id, 4), Some(Confirmation::Confirmed));
    assert_eq!(outcome(&mut peer, id, 6), Some(Confirmation::Confirmed));
    assert_eq!(peer.session.connection().stats().unconfirmed, 0);
    // Nothing is left to be sent once more.
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    assert!(bodies(&mut peer).is_empty());
}

/// More than the output buffer holds, and bodies that are shared.
#[test]
fn a_large_outbox_is_sent_as_there_is_space() {
    let (mut peer, id) = republishing(Recovery::automatic().republish(true));
    let body = Bytes::from(vec![7; 4_000]);
    let large = Bytes::from(vec![8; 20_000]);
    let mut published = 0;
    for _ in 0..600 {
        for body in [&body, &large] {
            let publish = Publish::new("", "q", Body::Shared(body.clone()));
            while peer.session.channel(id).publish(&publish) == Err(PublishRefused::Full) {
                peer.write();
            }
            published += body.len();
        }
    }
    peer.write();
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    assert!(!has_recovered(&peer.events()), "they do not fit the buffer");
    let resent: usize = bodies(&mut peer).iter().map(Vec::len).sum();
    assert_eq!(resent, published);
    assert!(has_recovered(&peer.events()));
    ack(&mut peer, 1_200, true);
    assert_eq!(outcome(&mut peer, id, 1_200), Some(Confirmation::Confirmed));
    peer.session.take_discarded();
    assert!(body.is_unique() && large.is_unique(), "nothing is kept");
}

#[test]
fn the_outbox_is_bounded() {
    let (mut peer, id) = republishing(Recovery::automatic().republish_bytes(1_000));
    let mut count = 0;
    let refused = loop {
        match publish(&mut peer, id, &[0; 100]) {
            Ok(seq) => count = seq,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, PublishRefused::Unconfirmed);
    assert!((3..10).contains(&count), "{count}");
    peer.write();
    ack(&mut peer, 1, false);
    assert_eq!(publish(&mut peer, id, b"more"), Ok(count + 1));
    assert!(peer.events().iter().any(|event| matches!(event, Event::Resolved { .. })));
}

/// A publish that was returned needs no ack to be resolved. The others are sent again.
#[test]
fn r13_a_loss_reports_only_what_it_resolves() {
    let (mut peer, id) = republishing(Recovery::automatic().republish(true));
    publish(&mut peer, id, b"a").unwrap();
    let mandatory = Publish::new("", "nowhere", b"b").mandatory();
    let seq = peer.session.channel(id).publish(&mandatory).unwrap();
    publish(&mut peer, id, b"c").unwrap();
    peer.write();
    let routing_key = ShortStr::new("nowhere").unwrap();
    let returned = basic::Return { reply_code: 312, routing_key, ..Default::default() };
    peer.send_content(1, &returned, &encoded(&Properties::default()), b"b");
    peer.events();
    peer.lose();
    let is_resolved = |event: &Event| matches!(event, Event::Resolved { .. });
    let resolved: Vec<_> = peer.events().into_iter().filter(is_resolved).collect();
    assert_eq!(resolved, [Event::Resolved { channel: id, first: seq, last: seq }]);
    assert!(matches!(outcome(&mut peer, id, 2), Some(Confirmation::Returned(_))));
}

/// The application ends while the broker is away.
#[test]
fn what_is_not_sent_again_has_its_outcome() {
    let (mut peer, id) = republishing(Recovery::automatic().republish(true));
    publish(&mut peer, id, b"a").unwrap();
    peer.write();
    publish(&mut peer, id, b"b").unwrap();
    peer.lose();
    peer.session.close(peer.now);
    assert!(matches!(outcome(&mut peer, id, 1), Some(Confirmation::Unknown(_))));
    assert!(matches!(outcome(&mut peer, id, 2), Some(Confirmation::NotSent(_))));
}

/// The broker takes smaller frames than before.
#[test]
fn r13_what_no_longer_fits_into_a_frame_has_its_outcome() {
    let policy = Recovery::automatic().republish_bytes(1);
    let mut peer = Peer::connected(Config::default().recovery(policy));
    peer.send(0, &crate::peer::start(b"PLAIN"));
    peer.tune_to(100_000, 10);
    let id = peer.confirming();
    let large = Publish::new("", "q", b"hi").header("large", "x".repeat(5_000));
    peer.session.channel(id).publish(&large).unwrap();
    assert!(peer.session.channel(id).publish(&large).is_err(), "the outbox is full");
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    assert!(has_recovered(&peer.events()));
    assert!(matches!(outcome(&mut peer, id, 1), Some(Confirmation::NotSent(_))));
    assert_eq!(peer.session.connection().stats().unconfirmed, 0);
    assert_eq!(publish(&mut peer, id, b"next"), Ok(2));
}

/// The broker refuses one of the publishes that are sent again, while others wait for buffer space.
#[test]
fn r13_what_was_sent_again_before_a_refusal_is_unknown() {
    let (mut peer, first) = republishing(Recovery::automatic().republish(true));
    let second = peer.channel(2);
    let select = peer.session.channel(second).call(peer.now, &ConfirmSelect::default()).unwrap();
    peer.send(2, &confirm::SelectOk::default());
    peer.session.take_reply(&select).unwrap().unwrap();
    let large = [7; 3_000];
    for _ in 0..1_000 {
        publish(&mut peer, second, &large).unwrap();
        peer.write();
    }
    publish(&mut peer, first, b"stored").unwrap();
    publish(&mut peer, first, b"refused").unwrap();
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    peer.events();
    let mut out = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    assert!(peer.session.is_recovering(), "not all of them fit");
    close(&mut peer, 1, 404, "NOT_FOUND - no exchange");
    for seq in [1, 2] {
        let outcome = outcome(&mut peer, first, seq);
        assert!(matches!(outcome, Some(Confirmation::Unknown(_))), "{outcome:?}");
    }
}
