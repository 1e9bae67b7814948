//! What is too large for the negotiated frame size is refused here, to the byte: RabbitMQ would end the
//! connection.

use std::sync::Arc;
use std::time::Instant;

use amqp_core::errors::InvalidReason;
use amqp_core::proto::method::{WireMethod, connection, queue};
use amqp_core::proto::{RawProperties, ShortStr, frame};
use amqp_core::requests::ChannelFlow;
use amqp_core::types::Secret;
use amqp_core::{
    BasicConsume, Config, ConnectError, Error, Event, FieldTable, Properties, Publish,
    PublishRefused, QueueDeclare, Session,
};

use crate::contents::{consuming, header, to};
use crate::peer::Peer;

const FRAME_MAX: usize = 4_096;

/// A value that takes `bytes` bytes in a table, with its name `x`, its type and its length.
fn value(bytes: usize) -> String {
    "v".repeat(bytes - 7)
}

fn length<'a>(method: &impl WireMethod<'a>) -> usize {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, 1, method);
    bytes.len()
}

fn too_large(error: &Error, size: usize) {
    let Error::InvalidArgument(invalid) = error else { panic!("{error:?}") };
    let frame_max = FRAME_MAX as u32;
    assert_eq!(invalid.reason, InvalidReason::FrameTooLarge { size, frame_max });
}

#[test]
fn a_call_fills_a_frame_and_no_more() {
    let queue = ShortStr::new("q").unwrap();
    let bare = length(&queue::Declare { queue, ..Default::default() });
    for (over, refused) in [(0, false), (1, true)] {
        let mut peer = Peer::open();
        let id = peer.channel(1);
        let request = QueueDeclare::new("q").argument("x", value(FRAME_MAX - bare + over));
        let (now, mut channel) = (peer.now, peer.session.channel(id));
        let (call, no_wait) = (channel.call(now, &request), channel.call_no_wait(&request));
        assert_eq!((call.is_err(), no_wait.is_err()), (refused, refused));
        if let (Err(call), Err(PublishRefused::Error(no_wait))) = (call, no_wait) {
            too_large(&call, FRAME_MAX + over);
            too_large(&no_wait, FRAME_MAX + over);
        }
        let frames = peer.methods();
        assert_eq!(frames.len(), if refused { 0 } else { 2 }, "{frames:?}");
        // What was refused awaits nothing.
        let call = peer.session.channel(id).call(peer.now, &ChannelFlow::new(true)).unwrap();
        assert!(peer.session.take_reply(&call).is_none());
    }
}

#[test]
fn a_consumer_that_does_not_fit_leaves_nothing() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let consume = BasicConsume::new("q").consumer_tag("t");
    let large = consume.clone().argument("x", "v".repeat(FRAME_MAX));
    let error = peer.session.channel(id).consume(peer.now, &large).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    assert!(peer.methods().is_empty());
    assert_eq!(
        (peer.session.connection().stats().consumers, peer.session.connection().stats().open_calls),
        (0, 0)
    );
    // The tag is free again.
    peer.session.channel(id).consume(peer.now, &consume).unwrap();
}

#[test]
fn properties_fill_a_frame_and_no_more() {
    // Frame, class, weight, body size, flags, and the table's length.
    let bare = 8 + 12 + 2 + 4;
    for (over, refused) in [(0, false), (1, true)] {
        let mut peer = Peer::open();
        let id = peer.channel(1);
        let value = value(FRAME_MAX - bare + over);
        let properties = Properties::new().headers(FieldTable::from([("x", value.into())]));
        let publish = Publish::new("", "q", b"").properties(&properties);
        let result = peer.session.channel(id).publish(&publish);
        assert_eq!(result.is_err(), refused);
        if let Err(PublishRefused::Error(error)) = result {
            too_large(&error, FRAME_MAX + over);
        }
        assert_eq!(peer.methods().len(), if refused { 0 } else { 2 });
        assert_eq!(peer.session.connection().stats().published, u64::from(!refused));
    }
}

#[test]
fn a_secret_fills_a_frame_and_no_more() {
    let reason = ShortStr::new("due").unwrap();
    let bare = length(&connection::UpdateSecret { new_secret: b"", reason });
    for (over, refused) in [(0, false), (1, true)] {
        let mut peer = Peer::open();
        let secret = Secret::new("s".repeat(FRAME_MAX - bare + over));
        let result = peer.session.update_secret(peer.now, &secret, "due");
        assert_eq!(result.is_err(), refused);
        if let Err(error) = result {
            too_large(&error, FRAME_MAX + over);
        }
        assert_eq!(peer.methods().len(), usize::from(!refused));
    }
}

/// In both directions, from the end of the handshake on.
#[test]
fn bodies_fill_frames_of_the_negotiated_size() {
    const BODY_MAX: usize = 20_000 - frame::FRAME_OVERHEAD;
    for (size, frames) in [(BODY_MAX, 1), (BODY_MAX + 1, 2)] {
        let mut peer = Peer::open_with_frames(20_000);
        let (id, consumer) = consuming(&mut peer, &BasicConsume::new("q"));
        let body = vec![7; size];
        peer.session.channel(id).publish(&Publish::new("", "q", &body)).unwrap();
        let bodies = peer.methods().iter().filter(|name| *name == "Body").count();
        assert_eq!(bodies, frames);
        // The broker's frame is one, and too large where two are due.
        peer.send(1, &to("t", 1));
        peer.send_bytes(&header(1, RawProperties::NONE.as_bytes(), size as u64));
        let mut bytes = Vec::new();
        frame::write_body(&mut bytes, 1, &body);
        peer.send_bytes(&bytes);
        let delivery = peer.session.channel(id).next_delivery(consumer);
        assert_eq!(delivery.is_some_and(|it| it.message.body() == body), frames == 1);
        assert_eq!(peer.session.cause().is_none(), frames == 1);
    }
}

/// The login goes out before a frame size is agreed on.
#[test]
fn the_login_fills_a_frame_and_no_more() {
    let length = |config: &Config| {
        let mut peer = Peer::connected(config.clone());
        peer.send(0, &crate::peer::start(b"PLAIN"));
        peer.write();
        peer.written.len()
    };
    let config =
        |name: usize| Config::default().initial_frame_max(4_096).connection_name(&"n".repeat(name));
    let fits = FRAME_MAX - length(&config(0));
    assert_eq!(length(&config(fits)), FRAME_MAX);
    let refused = Session::new(Arc::new(config(fits + 1)), Instant::now(), 0).unwrap_err();
    let ConnectError::InvalidArgument(invalid) = refused else { panic!("{refused:?}") };
    let (size, initial_frame_max) = (FRAME_MAX + 1, FRAME_MAX as u32);
    assert_eq!(invalid.reason, InvalidReason::InitialFrameTooLarge { size, initial_frame_max });
}

/// Whoever waits for room gets it, though others fill the buffer as fast as it is written.
#[test]
fn a_refused_publish_has_its_turn() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.events();
    let body = [0; 1_000];
    let publish = Publish::new("", "q", &body);
    while peer.session.channel(id).publish(&publish).is_ok() {}
    let mut out = amqp_core::Transmit::new();
    let mut rounds = 0;
    while !peer.events().contains(&Event::BufferSpace) {
        rounds += 1;
        assert!(rounds < 4, "no room after {rounds} writes");
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        out.advance(out.to_vec().len());
        // Another publisher, which never was refused.
        for _ in 0..400 {
            peer.session.channel(id).publish(&publish).unwrap();
        }
    }
}
