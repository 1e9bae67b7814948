//! A broker that breaks the protocol: the connection ends with a local code, and the broker is told.

use amqp_core::proto::frame::{self, HEARTBEAT};
use amqp_core::proto::method::{basic, channel, confirm, connection, queue};
use amqp_core::proto::{ContentHeader, RawProperties, ShortStr};
use amqp_core::{CloseCause, Fault, limits};

use crate::contents::{consume, consuming, each_way, to};
use crate::peer::Peer;

fn header(number: u16, class_id: u16, body_size: u64) -> Vec<u8> {
    let header = ContentHeader { class_id, body_size, properties: RawProperties::NONE };
    let mut bytes = Vec::new();
    frame::write_header(&mut bytes, number, &header);
    bytes
}

fn body(number: u16, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_body(&mut bytes, number, &vec![0; size]);
    bytes
}

#[track_caller]
fn ends_with(code: u16, act: impl FnOnce(&mut Peer)) {
    let mut peer = Peer::open();
    peer.channel(1);
    act(&mut peer);
    let CloseCause::Protocol(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
    assert_eq!(error.code.code(), code, "{error}");
    assert_eq!(peer.methods(), ["connection.Close"]);
}

/// K15 and rows 16 to 19 and 23 of the fault matrix.
#[test]
fn breaches_of_the_protocol_have_their_codes() {
    let mut bad_end = HEARTBEAT;
    bad_end[7] = 0;
    ends_with(501, |peer| peer.send_bytes(&bad_end));
    ends_with(501, |peer| peer.send_bytes(&[9, 0, 0, 0, 0, 0, 0]));
    ends_with(501, |peer| peer.send_bytes(&[3, 0, 1, 0, 0, 0x0f, 0xf9]));
    ends_with(501, |peer| peer.send_bytes(&[1, 0, 1, 0xff, 0xff, 0xff, 0xf0]));
    ends_with(501, |peer| peer.send_bytes(&[8, 0, 0, 0, 0, 0, 1]));
    ends_with(505, |peer| peer.send_bytes(&[8, 0, 1, 0, 0, 0, 0, 0xce]));
    ends_with(503, |peer| peer.send_bytes(&[1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 99, 0xce]));
    ends_with(502, |peer| peer.send_bytes(&[1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 60, 0xce]));
    ends_with(503, |peer| peer.send(1, &basic::QosOk::default()));
    ends_with(503, |peer| peer.send(1, &basic::Publish::default()));
    ends_with(503, |peer| peer.send(0, &connection::Start::default()));
    ends_with(503, |peer| peer.send(0, &channel::OpenOk::default()));
    ends_with(503, |peer| peer.send(0, &connection::CloseOk::default()));
    ends_with(504, |peer| peer.send(2, &basic::QosOk::default()));
    ends_with(504, |peer| peer.send(65_535, &channel::CloseOk::default()));
    ends_with(505, |peer| peer.send_bytes(&header(1, 60, 1)));
    ends_with(505, |peer| peer.send_bytes(&body(1, 1)));
    ends_with(504, |peer| peer.send_bytes(&header(0, 60, 1)));
    for size in [0, 1] {
        ends_with(505, |peer| {
            peer.send(1, &basic::Deliver { delivery_tag: 1, ..Default::default() });
            peer.send_bytes(&body(1, size));
        });
    }
    ends_with(505, |peer| {
        peer.send(1, &basic::Deliver { delivery_tag: 1, ..Default::default() });
        peer.send_bytes(&header(1, 50, 1));
    });
    ends_with(505, |peer| {
        peer.send(1, &basic::Deliver { delivery_tag: 1, ..Default::default() });
        peer.send(1, &queue::BindOk::default());
    });
    ends_with(501, |peer| {
        peer.send(1, &basic::Deliver { delivery_tag: 1, ..Default::default() });
        peer.send_bytes(&header(1, 60, 3));
        peer.send_bytes(&body(1, 4));
    });
    ends_with(503, |peer| {
        for _ in 0..2 {
            peer.send(1, &basic::Deliver { delivery_tag: 1, ..Default::default() });
            peer.send_bytes(&header(1, 60, 0));
        }
    });
    ends_with(503, |peer| peer.send(1, &confirm::SelectOk::default()));
    ends_with(503, |peer| peer.send(1, &basic::GetOk { delivery_tag: 1, ..Default::default() }));
}

/// N12: the body is discarded as it arrives, and the delivery is acked like any other.
#[test]
fn an_oversize_message_costs_that_message_alone() {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer, &consume());
    let size = limits::MESSAGE_BYTES + 1;
    peer.send(1, &to("t", 1));
    peer.send_bytes(&header(1, 60, size));
    let piece = body(1, 4_088);
    let mut left = size;
    while left > 0 {
        let take = left.min(4_088);
        if take == 4_088 {
            peer.send_bytes(&piece);
        } else {
            peer.send_bytes(&body(1, take as usize));
        }
        left -= take;
    }
    peer.deliver(1, 2, b"");
    let faulty = peer.session.channel(id).next_delivery(consumer).unwrap();
    assert_eq!(faulty.fault(), Some(Fault::Oversize { size }));
    assert_eq!(faulty.message.body(), b"");
    peer.session.channel(id).reject(faulty.tag, false).unwrap();
    let next = peer.session.channel(id).next_delivery(consumer).unwrap();
    assert_eq!((next.tag.number(), next.fault()), (2, None));
}

/// A consumer that this side does not know is cancelled, and the message goes back to its queue.
#[test]
fn a_delivery_for_nobody_is_requeued() {
    each_way(|mut peer| {
        consuming(&mut peer, &consume());
        peer.methods();
        peer.send_content(1, &to("unknown", 1), RawProperties::NONE.as_bytes(), b"");
        assert_eq!(peer.methods(), ["basic.Cancel", "basic.Nack"]);
        assert_eq!(peer.session.cause(), None);
    });
}

/// Text of the broker's ends up in logs: it is cut and escaped.
#[test]
fn the_peers_text_is_tamed() {
    let mut peer = Peer::open();
    let reply_text = ShortStr::from_bytes(b"\x1b[31m\xff").unwrap();
    peer.send(0, &connection::Close { reply_code: 541, reply_text, ..Default::default() });
    assert_eq!(peer.cause().to_string(), "by the broker: 541 \\u{1b}[31m\u{fffd}");
}

/// Answers to a peer that does not listen wait behind a large content too: no more is read.
#[test]
fn answers_behind_a_large_content_pause_reading() {
    use amqp_core::proto::frame::FRAME_OVERHEAD;
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let large = vec![0; 100_000];
    peer.session.channel(id).publish(&amqp_core::Publish::new("", "q", &large)).unwrap();
    let mut flows = 0;
    while peer.session.wants_input() {
        peer.send(1, &channel::Flow { active: true });
        peer.events();
        flows += 1;
    }
    let answer = FRAME_OVERHEAD + 5;
    assert!(flows * answer <= limits::OUTBOUND_HARD_BYTES + answer, "{flows} answers wait");
}
