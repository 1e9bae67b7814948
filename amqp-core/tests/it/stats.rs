//! What the statistics count.

use amqp_core::Publish;

use crate::contents::{consume, consuming, each_way};

/// PK-33.
#[test]
fn what_happens_is_counted() {
    each_way(|mut peer| {
        let before = peer.session.connection().stats();
        assert_eq!((before.frames_received, before.frames_sent), (3, 3));
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        peer.session.channel(id).publish(&Publish::new("", "q", vec![0; 10_000])).unwrap();
        peer.write();
        let stats = peer.session.connection().stats();
        assert_eq!((stats.channels, stats.consumers, stats.open_calls), (1, 1, 0));
        assert_eq!((stats.delivered, stats.acks_sent, stats.published), (1, 1, 1));
        // Open-ok, qos-ok, consume-ok, and a delivery without a body.
        assert_eq!(stats.frames_received - before.frames_received, 5);
        // Open, qos, consume, ack, publish, header, three pieces of body.
        assert_eq!(stats.frames_sent - before.frames_sent, 9);
        assert_eq!(stats.bytes_sent, peer.written_in_all);
    });
}
