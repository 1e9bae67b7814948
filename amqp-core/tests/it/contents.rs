//! Contents that the played broker sends: deliveries, got messages, returned ones.
//!
//! The core has two paths for a delivery. One that lies in the input whole is taken in one step, and
//! nearly every delivery of a real broker does. Any other is taken frame by frame. Both must have the
//! same outcome, so a test in which a delivery matters runs [`each_way`].

use amqp_core::proto::method::{WireMethod, basic};
use amqp_core::proto::{ContentHeader, Properties, RawProperties, ShortStr, frame};
use amqp_core::{BasicConsume, ChannelId, ConsumerKey};

use super::peer::Peer;

/// How the bytes of a content are cut into inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All frames in one input.
    Whole,
    /// One frame in each input.
    Frames,
    /// Inputs of this many bytes, wherever frames begin.
    Bytes(usize),
}

const CUTS: [Cut; 5] = [Cut::Whole, Cut::Frames, Cut::Bytes(1), Cut::Bytes(7), Cut::Bytes(29)];

/// Runs a test once for each way in which contents may arrive, with an open session.
pub(crate) fn each_way(test: impl Fn(Peer)) {
    each_way_with(Peer::open, test);
}

/// As [`each_way`], with a session of the test's choice.
pub(crate) fn each_way_with(open: impl Fn() -> Peer, test: impl Fn(Peer)) {
    for cut in CUTS {
        println!("contents arrive as {cut:?}");
        let mut peer = open();
        peer.cut = cut;
        test(peer);
    }
}

impl Peer {
    /// The broker delivers a message to the consumer "t" of the channel.
    pub(crate) fn deliver(&mut self, channel: u16, delivery_tag: u64, body: &[u8]) {
        self.send_content(channel, &to("t", delivery_tag), RawProperties::NONE.as_bytes(), body);
    }

    /// The broker sends a method with its content, cut as [`Peer::cut`] says.
    pub(crate) fn send_content<'a>(
        &mut self,
        channel: u16,
        method: &impl WireMethod<'a>,
        properties: &[u8],
        body: &[u8],
    ) {
        self.send_frames(&content(channel, method, properties, body));
    }

    /// The broker sends frames, cut as [`Peer::cut`] says.
    pub(crate) fn send_frames(&mut self, frames: &[Vec<u8>]) {
        match self.cut {
            Cut::Whole => self.send_bytes(&frames.concat()),
            Cut::Frames => frames.iter().for_each(|frame| self.send_bytes(frame)),
            Cut::Bytes(size) => {
                frames.concat().chunks(size).for_each(|piece| self.send_bytes(piece));
            }
        }
    }
}

/// The frames of a content, with bodies as large as a frame of 4,096 bytes may carry.
pub(crate) fn content<'a>(
    channel: u16,
    method: &impl WireMethod<'a>,
    properties: &[u8],
    body: &[u8],
) -> Vec<Vec<u8>> {
    content_in_frames(4_096, channel, method, properties, body)
}

/// The frames of a content, with bodies as large as a frame of this many bytes may carry.
pub(crate) fn content_in_frames<'a>(
    frame_max: usize,
    channel: u16,
    method: &impl WireMethod<'a>,
    properties: &[u8],
    body: &[u8],
) -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new(), header(channel, properties, body.len() as u64)];
    frame::write_method(&mut frames[0], channel, method);
    for piece in body.chunks(frame_max - frame::FRAME_OVERHEAD) {
        frames.push(Vec::new());
        frame::write_body(frames.last_mut().unwrap(), channel, piece);
    }
    frames
}

/// A content header frame.
pub(crate) fn header(channel: u16, properties: &[u8], body_size: u64) -> Vec<u8> {
    let properties = RawProperties::new(properties);
    let mut bytes = Vec::new();
    frame::write_header(
        &mut bytes,
        channel,
        &ContentHeader { class_id: 60, body_size, properties },
    );
    bytes
}

/// A `basic.deliver` to a consumer.
pub(crate) fn to(consumer_tag: &str, delivery_tag: u64) -> basic::Deliver<'_> {
    let consumer_tag = ShortStr::new(consumer_tag).unwrap();
    basic::Deliver { consumer_tag, delivery_tag, ..Default::default() }
}

/// A consumer with everything by default.
pub(crate) fn consume() -> BasicConsume {
    BasicConsume::new("q")
}

/// Properties as on the wire.
pub(crate) fn encoded(properties: &Properties) -> Vec<u8> {
    let mut raw = Vec::new();
    properties.encode(&mut raw).unwrap();
    raw
}

/// An open channel 1 with a consumer whose tag is "t".
pub(crate) fn consuming(peer: &mut Peer, consume: &BasicConsume) -> (ChannelId, ConsumerKey) {
    let id = peer.channel(1);
    let consumer = consume_on(peer, 1, id, consume);
    (id, consumer)
}

/// Starts a consumer whose tag is "t".
pub(crate) fn consume_on(
    peer: &mut Peer,
    number: u16,
    id: ChannelId,
    consume: &BasicConsume,
) -> ConsumerKey {
    let consume = consume.clone().consumer_tag("t");
    let call = peer.session.channel(id).consume(peer.now, &consume).unwrap();
    if !consume.no_ack {
        peer.send(number, &basic::QosOk::default());
    }
    peer.send(number, &basic::ConsumeOk { consumer_tag: ShortStr::new("t").unwrap() });
    let consumer = peer.session.take_reply(&call).unwrap().unwrap().consumer;
    peer.methods();
    peer.events();
    consumer
}
