//! C5, C6, N12: a faulty message costs that message alone.

use amqp_core::errors::Malformed;
use amqp_core::proto::method::basic;
use amqp_core::proto::{ShortStr, frame};
use amqp_core::{Fault, limits};
use amqp_testkit::raw_connection::nested_headers;

use crate::contents::{consume, consuming, each_way, to};
use crate::peer::Peer;

fn deliver(peer: &mut Peer, tag: u64, routing_key: &[u8], properties: &[u8], body: &[u8]) {
    let routing_key = ShortStr::from_bytes(routing_key).unwrap();
    peer.send_content(1, &basic::Deliver { routing_key, ..to("t", tag) }, properties, body);
}

#[test]
fn malformed_properties_are_a_fault_and_the_body_is_there() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        let header_name = [&[0x20, 0, 0, 0, 0, 4, 2, 0xff, 0xfe, b'V'][..]].concat();
        let cases: [(&[u8], Vec<u8>, Malformed); 7] = [
            (b"k", nested_headers(33), Malformed::TooDeep),
            (b"k", nested_headers(5_000), Malformed::TooDeep),
            (b"\xff\xfe", vec![0, 0], Malformed::NotUtf8),
            (b"k", vec![0x80, 0, 2, 0xff, 0xfe], Malformed::NotUtf8),
            (b"k", header_name, Malformed::NotUtf8),
            (b"k", vec![0x20, 0, 0, 0, 0, 3, 1, b'a', b'Z'], Malformed::UnknownFieldType(b'Z')),
            (b"k", vec![0x80, 0, 9, b'x'], Malformed::Truncated),
        ];
        let mut tag = 0;
        for (routing_key, properties, malformed) in cases {
            tag += 1;
            deliver(&mut peer, tag, routing_key, &properties, b"body");
            let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
            assert_eq!(delivery.fault(), Some(Fault::Malformed(malformed)));
            assert_eq!(delivery.message.body(), b"body");
            peer.session.channel(id).ack(delivery.tag, false).unwrap();
        }
        deliver(&mut peer, tag + 1, b"k", &nested_headers(32), b"body");
        let sound = peer.session.channel(id).next_delivery(consumer).unwrap();
        assert_eq!(sound.fault(), None);
        assert_eq!(sound.message.headers().unwrap().len(), 1);
        assert_eq!(peer.session.cause(), None);
    });
}

/// A header frame of `size` bytes of properties, fed in pieces.
fn large_header(peer: &mut Peer, size: usize, body_size: u64, end: u8) {
    let payload_size = (12 + size) as u32;
    let mut bytes = vec![2, 0, 1];
    bytes.extend(payload_size.to_be_bytes());
    bytes.extend([0, 60, 0, 0]);
    bytes.extend(body_size.to_be_bytes());
    bytes.extend([0x20, 0]);
    // One byte at a time where the frame is looked at, then as a socket would give it.
    for byte in bytes {
        peer.send_bytes(&[byte]);
    }
    let mut left = size - 2;
    while left > 0 {
        let take = left.min(60_000);
        peer.send_bytes(&vec![0; take]);
        left -= take;
    }
    peer.send_bytes(&[end]);
}

#[test]
fn a_header_frame_up_to_the_limit_is_kept_and_one_above_is_read_past() {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer, &consume());
    let most = limits::HEADER_FRAME_BYTES as usize - 12;
    for (tag, size) in [(1, most), (2, most + 1), (3, 5 << 20)] {
        peer.send(1, &to("t", tag));
        large_header(&mut peer, size, 3, frame::FRAME_END);
        let mut body = Vec::new();
        frame::write_body(&mut body, 1, b"abc");
        peer.send_bytes(&body);
    }
    deliver(&mut peer, 4, b"k", &[0, 0], b"next");
    let mut faults = Vec::new();
    while let Some(delivery) = peer.session.channel(id).next_delivery(consumer) {
        faults.push((delivery.tag.number(), delivery.fault(), delivery.message.body().len()));
        peer.session.channel(id).reject(delivery.tag, false).unwrap();
    }
    let too_large = |size| Some(Fault::HeaderTooLarge { size });
    assert_eq!(faults.len(), 4);
    assert!(matches!(faults[0], (1, Some(Fault::Malformed(_)), 3)), "{:?}", faults[0]);
    assert_eq!(faults[1], (2, too_large(limits::HEADER_FRAME_BYTES + 1), 0));
    assert_eq!(faults[2], (3, too_large((5 << 20) + 12), 0));
    assert_eq!(faults[3], (4, None, 4));
}

#[test]
fn a_frame_that_is_read_past_must_end_as_frames_do() {
    let mut peer = Peer::open();
    consuming(&mut peer, &consume());
    peer.send(1, &to("t", 1));
    large_header(&mut peer, 2 << 20, 0, 0xcf);
    assert_eq!(peer.breach(), 501);
}
