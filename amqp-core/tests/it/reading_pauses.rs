//! When reading pauses, for how long, and which events report it: N5, N6.

use std::collections::VecDeque;
use std::time::Duration;

use amqp_core::proto::method::{basic, channel, connection};
use amqp_core::proto::{RawProperties, ShortStr, frame};
use amqp_core::{
    BasicConsume, BasicQos, ChannelId, CloseCause, Config, ConsumerKey, Event, Fault, Heartbeat,
    Recovery, limits,
};

use crate::contents::{consume, consume_on, consuming, content, each_way, header, to};
use crate::peer::Peer;

const SECOND: Duration = Duration::from_secs(1);

/// A broker that delivers bodies of one size to the consumers of channel 1.
struct Source {
    peer: Peer,
    channel: ChannelId,
    tag: u64,
}

impl Source {
    fn new() -> Self {
        Self::with(Config::default().recovery(Recovery::never()))
    }

    fn with(config: Config) -> Self {
        let mut peer = Peer::open_with(config);
        let channel = peer.channel(1);
        Self { peer, channel, tag: 0 }
    }

    fn consume(&mut self, tag: &str, consume: BasicConsume) -> ConsumerKey {
        let Self { peer, channel, .. } = self;
        let consume = consume.consumer_tag(tag);
        let call = peer.session.channel(*channel).consume(peer.now, &consume).unwrap();
        for _ in peer.methods().iter().filter(|name| *name == "basic.Qos") {
            peer.send(1, &basic::QosOk::default());
        }
        peer.send(1, &basic::ConsumeOk { consumer_tag: ShortStr::new(tag).unwrap() });
        let key = peer.session.take_reply(&call).unwrap().unwrap().consumer;
        peer.events();
        key
    }

    fn deliver(&mut self, tag: &str, size: usize) {
        self.tag += 1;
        let properties = RawProperties::NONE.as_bytes();
        self.peer.send_content(1, &to(tag, self.tag), properties, &vec![7; size]);
    }

    /// Delivers until reading pauses, or `count` times. Returns the number of deliveries.
    fn flood(&mut self, tag: &str, size: usize, count: usize) -> usize {
        let mut delivered = 0;
        while delivered < count && self.reads() {
            self.deliver(tag, size);
            delivered += 1;
        }
        delivered
    }

    fn reads(&mut self) -> bool {
        self.peer.session.wants_input()
    }

    /// Reads everything that the consumer has.
    fn read(&mut self, consumer: ConsumerKey) -> usize {
        let mut channel = self.peer.session.channel(self.channel);
        std::iter::from_fn(|| channel.next_delivery(consumer)).count()
    }

    fn unread(&self) -> usize {
        self.peer.session.connection().stats().unread_bytes as usize
    }

    /// The bytes named by the pauses since this was last asked.
    fn told(&mut self) -> Vec<Option<usize>> {
        let told = |event| match event {
            Event::InputPaused { unread_bytes } => Some(Some(unread_bytes)),
            Event::InputResumed => Some(None),
            _ => None,
        };
        self.peer.events().into_iter().filter_map(told).collect()
    }
}

fn no_ack() -> BasicConsume {
    BasicConsume::new("q").no_ack()
}

/// N5: what a prefetch bounds is the application's own bound, whatever its size.
#[test]
fn deliveries_within_the_prefetch_never_pause_reading() {
    let mut source = Source::new();
    let consumer = source.consume("t", BasicConsume::new("q").prefetch(100));
    assert_eq!(source.flood("t", 1 << 20, 100), 100);
    assert!(source.reads() && source.unread() > 100 << 20);
    assert_eq!(source.told(), []);
    // A broker that heeds no prefetch is held to the mark.
    let beyond = source.flood("t", 1 << 20, 100);
    assert_eq!(beyond, 8);
    // What is read makes room in the prefetch for the first ones beyond it.
    assert!(source.peer.session.channel(source.channel).next_delivery(consumer).is_some());
    assert!(source.reads());
    assert_eq!(source.flood("t", 1 << 20, 100), 1);
    assert_eq!(source.read(consumer), 108);
    assert_eq!(source.unread(), 0);
}

/// N6: what no prefetch bounds pauses reading at 8 MiB.
#[test]
fn deliveries_that_no_prefetch_bounds_pause_reading() {
    for consume in [no_ack(), BasicConsume::new("q").prefetch(0)] {
        let mut source = Source::new();
        let consumer = source.consume("t", consume);
        let count = source.flood("t", 4_000, 10_000);
        assert!((2_000..2_200).contains(&count), "{count} deliveries of 4 KB in 8 MiB");
        assert_eq!(source.read(consumer), count);
        assert!(source.reads());
        assert_eq!(source.flood("t", 4_000, 10_000), count);
    }
}

/// Heartbeats are not missed during a pause, and are again after it.
#[test]
fn silence_counts_from_the_end_of_a_pause() {
    let mut source = Source::new();
    let consumer = source.consume("t", no_ack());
    source.flood("t", 100_000, 1_000);
    source.peer.pass(2 * SECOND);
    source.read(consumer);
    assert!(source.reads());
    source.peer.session.handle_timeout(source.peer.now);
    source.peer.pass(20 * SECOND - Duration::from_millis(1));
    assert_eq!(source.peer.session.cause(), None);
    source.peer.pass(Duration::from_millis(1));
    assert!(matches!(source.peer.cause(), CloseCause::HeartbeatTimeout { .. }));
}

/// What a handle took counts until all of it is read.
#[test]
fn what_was_pulled_counts_until_the_next_pull() {
    let mut source = Source::new();
    let consumer = source.consume("t", no_ack());
    let count = source.flood("t", 4_000, 10_000);
    let unread = source.unread();
    let mut pulled = VecDeque::new();
    let channel = source.channel;
    let pull = |source: &mut Source, pulled: &mut VecDeque<_>| {
        source.peer.session.channel(channel).pull_deliveries(consumer, pulled)
    };
    let bytes = pull(&mut source, &mut pulled);
    assert!((limits::PULLED_BYTES..limits::PULLED_BYTES + 8_000).contains(&bytes));
    assert!(!source.reads() && source.unread() == unread);
    let mut read = pulled.len();
    pulled.clear();
    pull(&mut source, &mut pulled);
    assert!(source.reads() && source.unread() == unread - bytes);
    while !pulled.is_empty() {
        read += pulled.len();
        pulled.clear();
        pull(&mut source, &mut pulled);
    }
    assert_eq!((read, source.unread()), (count, 0));
}

/// N5: a reader that found nothing waits for what only reading can bring, up to the hard mark.
#[test]
fn a_reader_that_found_nothing_keeps_reading_going() {
    let mut source = Source::new();
    source.consume("flood", no_ack());
    let waiting = source.consume("quiet", no_ack());
    assert_eq!(source.read(waiting), 0);
    let count = source.flood("flood", 100_000, 1_000);
    assert!((660..680).contains(&count), "{count} deliveries of 100 KB in 64 MiB");
    assert_eq!(source.told().len(), 1);

    let mut source = Source::new();
    source.consume("flood", no_ack());
    let waiting = source.consume("quiet", no_ack());
    let mut pulled = VecDeque::new();
    let channel = source.channel;
    source.peer.session.channel(channel).pull_deliveries(waiting, &mut pulled);
    assert_eq!(source.flood("flood", 100_000, 200), 200);
    // It has what it waited for.
    source.deliver("quiet", 10);
    assert!(!source.reads());
    source.peer.session.channel(channel).pull_deliveries(waiting, &mut pulled);
    assert!(!source.reads(), "it has that to read");
    source.peer.session.channel(channel).pull_deliveries(waiting, &mut VecDeque::new());
    assert!(source.reads());
    // Nobody is left to wait.
    let now = source.peer.now;
    source.peer.session.channel(channel).release_consumer(now, waiting, []);
    source.peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("quiet").unwrap() });
    assert!(!source.reads());
}

#[test]
fn a_consumer_that_has_ended_waits_for_nothing() {
    let mut source = Source::new();
    source.consume("flood", no_ack());
    let waiting = source.consume("quiet", no_ack());
    source.read(waiting);
    assert_eq!(source.flood("flood", 100_000, 200), 200);
    let consumer_tag = ShortStr::new("quiet").unwrap();
    source.peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
    source.read(waiting);
    assert!(!source.reads());
}

/// Whoever looked for a returned message and found none waits for one.
#[test]
fn returned_messages_are_waited_for() {
    let mut source = Source::new();
    source.consume("flood", no_ack());
    let returning = source.peer.channel(2);
    assert!(source.peer.session.channel(returning).take_returned().is_none());
    assert_eq!(source.flood("flood", 100_000, 200), 200);
    let returned = basic::Return { reply_code: 312, ..Default::default() };
    source.peer.send_content(2, &returned, RawProperties::NONE.as_bytes(), b"back");
    assert!(!source.reads());
    assert!(source.peer.session.channel(returning).take_returned().is_some());
    assert!(!source.reads());
    assert!(source.peer.session.channel(returning).take_returned().is_none());
    assert!(source.reads());
    let now = source.peer.now;
    source.peer.session.channel(returning).release(now);
    source.peer.send(2, &channel::CloseOk::default());
    source.peer.events();
    assert!(!source.reads());
}

/// That the broker reads again is to be heard, or `blocked_timeout` would end a sound connection.
#[test]
fn a_blocked_broker_is_listened_to() {
    let mut source = Source::new();
    source.consume("flood", no_ack());
    source.flood("flood", 100_000, 1_000);
    assert!(!source.reads());
    source.peer.send(0, &connection::Blocked::default());
    assert!(source.reads());
    source.peer.send(0, &connection::Unblocked::default());
    assert!(!source.reads());
}

/// A broker that can write nothing for a whole interval of heartbeats ends the connection: it gets rid of
/// a little at every quarter, until the hard mark.
#[test]
fn a_pause_ends_for_a_moment_every_quarter_of_an_interval() {
    let mut source = Source::new();
    source.consume("t", no_ack());
    source.flood("t", 100_000, 1_000);
    assert!(!source.reads());
    let mut times = 0;
    while source.unread() < limits::INBOUND_HARD_BYTES {
        let before = source.unread();
        source.peer.pass(2 * SECOND);
        assert!(!source.reads(), "not yet");
        source.peer.pass(SECOND / 2);
        assert!(source.reads());
        source.flood("t", 100_000, 1_000);
        let read = source.unread() - before;
        assert!(read < limits::TRICKLE_BYTES + 120_000, "{read} bytes at once");
        times += 1;
    }
    let room = limits::INBOUND_HARD_BYTES - limits::INBOUND_HIGH_BYTES;
    assert!((room / limits::TRICKLE_BYTES).abs_diff(times) <= 2, "{times} times");
    assert!(source.unread() < limits::INBOUND_HARD_BYTES + 200_000);
    // At the hard mark it ends no more, and silence still proves nothing.
    source.peer.pass(100 * SECOND);
    assert!(!source.reads());
    assert_eq!(source.peer.session.cause(), None);
    // That bytes can be written is watched.
    let channel = source.channel;
    let call = BasicQos::new(1);
    source.peer.session.channel(channel).call(source.peer.now, &call).unwrap();
    let mut taken = amqp_core::Transmit::new();
    assert!(source.peer.session.poll_transmit(source.peer.now, &mut taken));
    source.peer.pass(20 * SECOND);
    assert!(matches!(source.peer.cause(), CloseCause::WriteTimeout { .. }));
}

/// What may be read in an interruption stays open until it is, and a peer that is silent meanwhile is dead.
#[test]
fn silence_while_a_pause_is_interrupted_counts() {
    let mut source = Source::new();
    source.consume("t", no_ack());
    source.flood("t", 100_000, 1_000);
    assert!(!source.reads());
    source.peer.pass(Duration::from_millis(2_500));
    assert!(source.reads());
    source.peer.pass(19 * SECOND);
    source.deliver("t", 100_000);
    assert!(source.reads(), "less than may be read");
    source.peer.pass(20 * SECOND);
    assert!(matches!(source.peer.cause(), CloseCause::HeartbeatTimeout { .. }));
}

#[test]
fn without_heartbeats_a_pause_lasts_until_deliveries_are_read() {
    let mut source = Source::with(Config::default().heartbeat(Heartbeat::Seconds(0)));
    source.consume("t", no_ack());
    source.flood("t", 100_000, 1_000);
    assert!(!source.reads());
    assert_eq!(source.peer.session.poll_timeout(), None);
}

/// A flood that a consumer keeps up with more or less is told once, and once when it is over.
#[test]
fn a_flood_is_told_once() {
    let mut source = Source::new();
    let consumer = source.consume("t", no_ack());
    let mut told = Vec::new();
    for _ in 0..100 {
        source.flood("t", 100_000, 1_000);
        assert!(!source.reads());
        told.extend(source.told());
        let mut channel = source.peer.session.channel(source.channel);
        for _ in 0..10 {
            channel.next_delivery(consumer).unwrap();
        }
    }
    let [Some(unread)] = told[..] else { panic!("{told:?}") };
    let mark = limits::INBOUND_HIGH_BYTES;
    assert!((mark..mark + 200_000).contains(&unread), "{unread}");
    source.read(consumer);
    assert!(source.reads());
    assert_eq!(source.told(), [None]);
}

/// At the hard mark nothing is read whatever is awaited, which is told.
#[test]
fn the_hard_mark_is_told() {
    let mut source = Source::new();
    let consumer = source.consume("t", no_ack());
    source.flood("t", 100_000, 1_000);
    assert!(matches!(source.told()[..], [Some(_)]));
    // Something is awaited, so that the first mark does not count.
    let channel = source.channel;
    source.peer.session.channel(channel).call(source.peer.now, &BasicQos::new(1)).unwrap();
    source.flood("t", 100_000, 1_000);
    assert!(!source.reads());
    let [Some(unread)] = source.told()[..] else { panic!("not told once") };
    let mark = limits::INBOUND_HARD_BYTES;
    assert!((mark..mark + 200_000).contains(&unread), "{unread}");
    // The call has its time: below the hard mark reading stays paused down to the first one.
    source.peer.pass(30 * SECOND);
    let mut told = Vec::new();
    while told.is_empty() {
        let reads = source.reads();
        assert_eq!(reads, source.unread() < limits::INBOUND_HIGH_BYTES);
        told = source.told();
        source.peer.session.channel(channel).next_delivery(consumer).unwrap();
    }
    assert_eq!(told, [None]);
    assert!(source.unread() <= limits::INBOUND_LOW_BYTES);
}

/// Contents of which a part has come have a bound of their own: they can only be completed by reading. A
/// message that would go beyond it comes without its body.
#[test]
fn half_received_contents_are_bounded() {
    let size = 30 << 20;
    let mut source = Source::new();
    let mut consumers = Vec::new();
    for number in 1..=10 {
        let Source { peer, channel, .. } = &mut source;
        let id = if number == 1 { *channel } else { peer.channel(number) };
        let consume = BasicConsume::new("q").prefetch(9);
        consumers.push((id, consume_on(peer, number, id, &consume)));
        peer.send(number, &to("t", 1));
        peer.send_bytes(&header(number, RawProperties::NONE.as_bytes(), size));
    }
    // A frame of each in turn.
    let body = vec![7; 4_088];
    let mut left = size as usize;
    while left > 0 {
        let length = left.min(4_088);
        left -= length;
        for number in 1..=10 {
            let mut bytes = Vec::new();
            frame::write_body(&mut bytes, number, &body[..length]);
            source.peer.send_bytes(&bytes);
            let held = source.peer.session.connection().stats().incomplete_bytes as usize;
            assert!(held <= limits::INCOMPLETE_BYTES, "{held} bytes");
        }
    }
    assert!(source.reads());
    assert_eq!(source.peer.session.connection().stats().incomplete_bytes, 0);
    let mut whole = 0;
    for (id, key) in consumers {
        let delivery = source.peer.session.channel(id).next_delivery(key).unwrap();
        match delivery.fault() {
            None => whole += delivery.message.body().len(),
            Some(fault) => assert_eq!(fault, Fault::Crowded { size }),
        }
        source.peer.session.channel(id).ack(delivery.tag, false).unwrap();
    }
    assert!(whole >= 6 * size as usize, "{whole} bytes");
}

/// A channel that ends in the middle of a content takes what there is of it along.
#[test]
fn half_a_content_goes_with_its_channel() {
    let ends: [fn(&mut Peer); 2] =
        [|peer| peer.send(1, &channel::Close::default()), |peer| peer.lose()];
    for end in ends {
        let mut source = Source::new();
        source.consume("t", no_ack());
        let frames = content(1, &to("t", 1), RawProperties::NONE.as_bytes(), &[7; 100_000]);
        source.peer.send_frames(&frames[..12]);
        let held = source.peer.session.connection().stats().incomplete_bytes;
        assert!((40_000..45_000).contains(&held), "{held}");
        end(&mut source.peer);
        assert_eq!(source.peer.session.connection().stats().incomplete_bytes, 0);
    }
}

/// What was handed over counts until its reader comes again.
#[test]
fn deliveries_that_were_read_do_not_keep_reading_paused() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        let unread = |peer: &Peer| peer.session.connection().stats().unread_bytes;
        (1..=5).for_each(|tag| peer.deliver(1, tag, b""));
        let all = unread(&peer);
        assert!(all > 0);
        let mut pulled = VecDeque::new();
        let bytes = peer.session.channel(id).pull_deliveries(consumer, &mut pulled);
        assert_eq!((bytes as u64, unread(&peer), pulled.len()), (all, all, 5));
        assert_eq!(peer.session.channel(id).pull_deliveries(consumer, &mut pulled), 0);
        assert_eq!((unread(&peer), pulled.len()), (0, 5));
        peer.deliver(1, 6, b"");
        peer.session.channel(id).pull_deliveries(consumer, &mut pulled);
        peer.session.channel(id).release_consumer(peer.now, consumer, []);
        assert_eq!(unread(&peer), 0);
    });
}
