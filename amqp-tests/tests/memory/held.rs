//! M1: what is counted is what is held, within a factor of two. What counts is unread deliveries and contents
//! of which a part has arrived.

use amqp_async::core::{BasicConsume, BufferPool, ChannelId, CloseCause, ConsumerKey, Delivery};
use amqp_async::limits::{READ_BUFFER_BYTES, READ_BUFFERS_MAX, READ_MAX_BYTES};
use amqp_proto::method::{basic, channel, connection};
use amqp_proto::{ContentHeader, RawProperties, ShortStr, frame};
use amqp_testkit::alloc::live_bytes;
use amqp_testkit::raw_connection::start;
use bytes::{Bytes, BytesMut};

use crate::{ALLOCATOR, Peer};

/// What a connection holds besides: buffers that are used again.
const BESIDE_BYTES: usize = 5 << 18;

/// What is read at once.
const PIECES: [usize; 2] = [1_500, 64 << 10];

const SIZES: [usize; 7] = [50, 1_000, 3_900, 4_096, 4_200, 40_000, 130_000];

const SLOW: &str = "slow";
const FAST: &str = "fast";

pub(crate) fn every_size() {
    for size in SIZES {
        for piece in PIECES {
            for slow_of in [1, 4, 20] {
                unread(size, piece, slow_of);
            }
            kept_bodies(size, piece);
        }
    }
    half_received();
}

/// One of `slow_of` deliveries is a slow consumer's, who reads nothing; the others are read at once.
fn unread(size: usize, piece: usize, slow_of: usize) {
    let mut reader = Reader::new(piece);
    let [slow, fast] = [SLOW, FAST].map(|tag| reader.consume(tag));
    let mut held = 0;
    while reader.unread() < 5 << 20 {
        for number in 0..slow_of {
            reader.deliver(if number == 0 { SLOW } else { FAST }, size);
        }
        reader.read(fast, |_| {});
        held = reader.held();
    }
    let counted = reader.unread();
    assert!(
        held <= 2 * counted + BESIDE_BYTES,
        "{size} bytes in pieces of {piece}, one of {slow_of}: {held} held, {counted} counted"
    );
    assert!(
        counted <= 2 * held,
        "{size} bytes in pieces of {piece}: {held} held, {counted} counted"
    );
    reader.read(slow, |_| {});
    let left = reader.held();
    assert!(left <= 2 * BESIDE_BYTES, "{size} bytes in pieces of {piece}: {left} held for nothing");
}

/// A body that is kept keeps no more than twice its size, whatever arrived around it.
fn kept_bodies(size: usize, piece: usize) {
    let mut reader = Reader::new(piece);
    let fast = reader.consume(FAST);
    let mut kept: Vec<Bytes> = Vec::with_capacity(100);
    for _ in 0..50 {
        for _ in 0..20 {
            reader.deliver(FAST, size);
        }
        let before = kept.len();
        reader.read(fast, |delivery| {
            if kept.len() == before {
                kept.push(delivery.message.into_body());
            }
        });
    }
    assert!(kept.iter().all(|body| body.len() == size) && kept.len() > 10);
    let (held, bodies) = (reader.held(), kept.len() * (size + 64));
    assert!(
        held <= 2 * bodies + BESIDE_BYTES,
        "{size} bytes in pieces of {piece}: {held} held for bodies of {bodies}"
    );
}

/// Ten channels, each with a message of which all but the last frame has arrived.
fn half_received() {
    const SIZE: usize = 8_000_000;
    let mut reader = Reader::new(64 << 10);
    for number in 1..=10 {
        if number > 1 {
            reader.open(number);
        }
        reader.consume_on(number, SLOW);
        let header = ContentHeader {
            class_id: 60,
            body_size: SIZE as u64 + 1,
            properties: RawProperties::NONE,
        };
        let deliver = basic::Deliver {
            consumer_tag: ShortStr::new(SLOW).unwrap(),
            delivery_tag: 1,
            ..Default::default()
        };
        reader.wire.clear();
        frame::write_method(&mut reader.wire, number, &deliver);
        frame::write_header(&mut reader.wire, number, &header);
        reader.feed();
    }
    for _ in 0..SIZE / 100_000 {
        for number in 1..=10 {
            reader.wire.clear();
            frame::write_body(&mut reader.wire, number, &[7; 100_000]);
            reader.feed();
        }
    }
    let (held, counted) =
        (reader.held(), reader.peer.session.connection().stats().incomplete_bytes as usize);
    assert!(counted >= 10 * SIZE && held >= counted, "{held} held, {counted} counted");
    assert!(held <= 2 * counted + BESIDE_BYTES, "{held} held, {counted} counted");
    reader.peer.session.abort(CloseCause::DriverGone);
    assert_eq!(reader.peer.session.connection().stats().incomplete_bytes, 0);
    assert!(reader.held() < BESIDE_BYTES, "{} held", reader.held());
}

/// A session that is fed in pieces, with its input kept as a driver keeps it.
struct Reader {
    peer: Peer,
    channel: ChannelId,
    piece: usize,
    full: BufferPool,
    wire: Vec<u8>,
    tag: u64,
    before: isize,
}

impl Reader {
    fn new(piece: usize) -> Self {
        let mut wire = Vec::with_capacity(256 << 10);
        frame::write_method(&mut wire, 0, &start());
        let tune = connection::Tune { channel_max: 20, frame_max: 131_072, heartbeat: 0 };
        frame::write_method(&mut wire, 0, &tune);
        frame::write_method(&mut wire, 0, &connection::OpenOk::default());
        let mut peer = Peer::new();
        peer.feed(&wire);
        let (channel, _) = peer.session.open_channel(peer.now).unwrap();
        wire.clear();
        frame::write_method(&mut wire, 1, &channel::OpenOk::default());
        peer.feed(&wire);
        let full = BufferPool::new(READ_BUFFERS_MAX);
        let before = live_bytes(ALLOCATOR);
        Self { peer, channel, piece, full, wire, tag: 0, before }
    }

    fn open(&mut self, number: u16) {
        let (id, _) = self.peer.session.open_channel(self.peer.now).unwrap();
        self.wire.clear();
        frame::write_method(&mut self.wire, number, &channel::OpenOk::default());
        self.channel = id;
        self.feed();
    }

    fn consume(&mut self, tag: &str) -> ConsumerKey {
        self.consume_on(1, tag)
    }

    fn consume_on(&mut self, number: u16, tag: &str) -> ConsumerKey {
        let Peer { session, now, .. } = &mut self.peer;
        let consume = BasicConsume::new("q").consumer_tag(tag).no_ack();
        let call = session.channel(self.channel).consume(*now, &consume).unwrap();
        self.wire.clear();
        let consumer_tag = ShortStr::new(tag).unwrap();
        frame::write_method(&mut self.wire, number, &basic::ConsumeOk { consumer_tag });
        self.feed();
        self.peer.session.take_reply(&call).unwrap().unwrap().consumer
    }

    fn deliver(&mut self, tag: &str, size: usize) {
        self.tag += 1;
        let consumer_tag = ShortStr::new(tag).unwrap();
        let deliver = basic::Deliver { consumer_tag, delivery_tag: self.tag, ..Default::default() };
        let body_size = size as u64;
        let header = ContentHeader { class_id: 60, body_size, properties: RawProperties::NONE };
        static BODY: [u8; 130_000] = [7; 130_000];
        if self.wire.len() > 100_000 {
            self.feed();
        }
        frame::write_method(&mut self.wire, 1, &deliver);
        frame::write_header(&mut self.wire, 1, &header);
        frame::write_body(&mut self.wire, 1, &BODY[..size]);
    }

    fn read(&mut self, key: ConsumerKey, mut each: impl FnMut(Delivery)) {
        self.feed();
        while let Some(delivery) = self.peer.session.channel(self.channel).next_delivery(key) {
            each(delivery);
        }
    }

    fn unread(&self) -> usize {
        self.peer.session.connection().stats().unread_bytes as usize
    }

    fn held(&self) -> usize {
        (live_bytes(ALLOCATOR) - self.before).try_into().unwrap_or(0)
    }

    /// Hands in what waits, piece by piece.
    fn feed(&mut self) {
        let mut wire = std::mem::take(&mut self.wire);
        for piece in wire.chunks(self.piece) {
            self.make_room(piece.len());
            self.peer.feed(piece);
        }
        wire.clear();
        self.wire = wire;
    }

    /// As a driver does: a buffer that cannot be used again is replaced.
    fn make_room(&mut self, length: usize) {
        let want = self.peer.session.connection().lacking().max(length);
        let input = &mut self.peer.input;
        if input.capacity() - input.len() >= want || input.try_reclaim(want) {
            return;
        }
        let large = self.piece >= READ_MAX_BYTES || want >= READ_MAX_BYTES;
        let room = (input.len() + want).max(if large { READ_BUFFER_BYTES } else { 0 });
        let mut next = self.full.reclaim(room).unwrap_or_else(|| BytesMut::with_capacity(room));
        next.extend_from_slice(input);
        let full = std::mem::replace(input, next);
        if large {
            self.full.retire(full);
        }
    }
}
