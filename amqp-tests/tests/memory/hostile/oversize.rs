//! Messages that are larger than is let in: they cost no memory, and the connection lives on.

use amqp_proto::frame::FRAME_END;
use amqp_testkit::{RawConnection, Scripted};
use amqp_tokio::{CloseCause, Error, Fault, limits};

use super::{Client, FLOOD_BYTES, body, bounded, client, deliver, header, method, played, set_up};

/// Row 20: what is announced costs nothing, and what arrives of it is thrown away.
pub(super) async fn announced_sizes() {
    for size in [1_u64 << 63, 1_000_000_000_000] {
        let peer = Scripted::open(move |mut wire| {
            set_up(&mut wire);
            wire.send_bytes(&[method(1, &deliver(1)), header(60, size)].concat());
            let piece = body(100_000);
            for _ in 0..FLOOD_BYTES / piece.len() {
                wire.send_bytes(&piece);
            }
        })
        .unwrap();
        let mut client = client(&peer).await;
        let end = bounded("an announced size", client.consumer.next()).await.unwrap().unwrap_err();
        assert!(matches!(end, Error::Connection(CloseCause::Transport(_))), "{end:?}");
        played(peer).await;
    }
}

/// Row 17: read past, at the cost of the message alone.
pub(super) async fn large_headers() {
    let peer = Scripted::open(|mut wire| {
        set_up(&mut wire);
        wire.send(1, &deliver(1));
        let size = FLOOD_BYTES as u32;
        let mut head = vec![2, 0, 1];
        head.extend(size.to_be_bytes());
        head.extend([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 0]);
        wire.send_bytes(&head);
        let noise = [0; 64 << 10];
        let mut left = size as usize - 14;
        while left > 0 {
            let take = left.min(noise.len());
            wire.send_bytes(&noise[..take]);
            left -= take;
        }
        wire.send_bytes(&[&[FRAME_END][..], &body(1)].concat());
        next_message(&mut wire);
    })
    .unwrap();
    costs_itself_alone(peer, Fault::HeaderTooLarge { size: FLOOD_BYTES as u32 }).await;
}

/// Row 20: a body just over the limit that does arrive is read past, and the next message comes.
pub(super) async fn large_bodies() {
    const SIZE: u64 = limits::MESSAGE_BYTES + 1;
    let peer = Scripted::open(|mut wire| {
        set_up(&mut wire);
        wire.send_bytes(&[method(1, &deliver(1)), header(60, SIZE)].concat());
        let piece = body(100_000);
        for _ in 0..SIZE / 100_000 {
            wire.send_bytes(&piece);
        }
        wire.send_bytes(&body(SIZE as usize % 100_000));
        next_message(&mut wire);
    })
    .unwrap();
    costs_itself_alone(peer, Fault::Oversize { size: SIZE }).await;
}

/// The peer hears that its message is rejected, and sends another.
fn next_message(wire: &mut RawConnection) {
    wire.expect("basic.Reject");
    wire.send(1, &deliver(2));
    wire.send_content(1, &[0, 0], b"next");
    wire.expect("basic.Ack");
}

/// The message comes with its fault, and the next one behind it.
async fn costs_itself_alone(peer: Scripted, fault: Fault) {
    let Client { mut consumer, .. } = client(&peer).await;
    let faulty = bounded("a large message", consumer.next()).await.unwrap().unwrap();
    assert_eq!(faulty.fault(), Some(fault));
    assert!(faulty.body().is_empty());
    faulty.reject(false).unwrap();
    let next = bounded("the next message", consumer.next()).await.unwrap().unwrap();
    assert_eq!(next.body(), b"next");
    next.ack().unwrap();
    let end = bounded("the end", consumer.next()).await;
    assert!(matches!(end, Some(Err(_))), "the peer has gone: {end:?}");
    played(peer).await;
}
