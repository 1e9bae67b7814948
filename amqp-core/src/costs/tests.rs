//! Compares the tables with counted steps, for a number of open things and for four times that number.

#[allow(dead_code, unreachable_pub, reason = "the integration tests use the rest")]
#[path = "../../tests/it/contents.rs"]
mod contents;
#[allow(dead_code, unreachable_pub, reason = "the integration tests use the rest")]
#[path = "../../tests/it/peer.rs"]
mod peer;

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use amqp_proto::frame;
use amqp_proto::method::{WireMethod, basic, channel, confirm, connection};
use amqp_proto::{PropertiesRef, ShortStr};

use crate::requests::{BasicRecover, ConfirmSelect, ConsumeOk};
use crate::types::Secret;
use crate::{
    BasicConsume, BasicGet, BasicQos, Call, ChannelId, Config, ConsumerKey, DeliveryTag, Publish,
    PublishSeq, QueueDelete, Recovery, Transmit,
};
use peer::{Peer, start};

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn count(steps: usize) {
    STEPS.with(|all| all.set(all.get() + steps));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Constant,
    Linear,
    /// The operation is repeated for each of the things.
    Amortized,
}
use Growth::{Amortized, Constant, Linear};

/// A name as in the table, the expected growth, the preparation, and the operation that is counted.
type Scenario = (&'static str, Growth, fn(&mut World), fn(&mut World));

/// `size` channels with one thing of each kind, and one channel that has `size` of each.
struct World {
    peer: Peer,
    size: u64,
    own: ChannelId,
    /// All channels, from number 1.
    channels: Vec<ChannelId>,
    /// A consumer of the channel `own`. Most of its deliveries are unread.
    consumer: ConsumerKey,
    /// Deliveries of this consumer that need an ack, in order.
    tags: Vec<DeliveryTag>,
    /// Consumers that await consume-ok.
    consuming: Vec<Call<ConsumeOk>>,
    calls: Vec<Call<()>>,
}

fn text(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

impl World {
    /// One consumer on each channel, with one delivery that needs an ack.
    fn sparse(size: u64) -> Self {
        let config = Config::default().channel_max(u16::MAX).recovery(Recovery::never());
        let mut peer = Peer::connected(config);
        peer.send(0, &start(b"PLAIN"));
        peer.send(0, &connection::Tune { channel_max: 0, frame_max: 4_096, heartbeat: 10 });
        peer.send(0, &connection::OpenOk::default());
        let channels: Vec<_> = (1..=size as u16 + 1).map(|number| peer.channel(number)).collect();
        let (mut consumers, mut tags) = (Vec::new(), Vec::new());
        for (number, id) in (1..).zip(&channels) {
            let consume = BasicConsume::new("q").consumer_tag("main");
            let consume = peer.session.channel(*id).consume(peer.now, &consume).unwrap();
            peer.send(number, &basic::QosOk::default());
            peer.send(number, &basic::ConsumeOk { consumer_tag: text("main") });
            let consumer = peer.session.take_reply(&consume).unwrap().unwrap().consumer;
            deliver(&mut peer, number, 1);
            tags.push(peer.session.channel(*id).next_delivery(consumer).unwrap().tag);
            consumers.push(consumer);
        }
        peer.write();
        peer.events();
        Self {
            peer,
            size,
            own: channels[0],
            channels,
            consumer: consumers[0],
            tags,
            consuming: Vec::new(),
            calls: Vec::new(),
        }
    }

    fn new(size: u64) -> Self {
        let mut world = Self::sparse(size);
        world.tags.clear();
        for (number, id) in (1..).zip(world.channels.clone()) {
            let peer = &mut world.peer;
            peer.session.channel(id).call(peer.now, &ConfirmSelect {}).unwrap();
            peer.send(number, &confirm::SelectOk::default());
            deliver(peer, number, 2);
            publish(peer, id);
            if id != world.own {
                peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
            }
        }
        world.fill();
        world
    }

    /// Adds its things to the channel `own`.
    fn fill(&mut self) {
        let Self { peer, own, .. } = self;
        for tag in 3..=2 * self.size + 2 {
            deliver(peer, 1, tag);
        }
        for _ in 0..self.size {
            let delivery = peer.session.channel(*own).next_delivery(self.consumer).unwrap();
            self.tags.push(delivery.tag);
            publish(peer, *own);
            let consume = peer.session.channel(*own).consume(peer.now, &BasicConsume::new("q"));
            self.consuming.push(consume.unwrap());
        }
        peer.write();
        peer.events();
    }

    /// Adds calls that await their replies, after those of the scenario.
    fn backlog(&mut self) {
        for _ in 0..self.size {
            let mut channel = self.peer.session.channel(self.own);
            // The scenario may have closed the channel.
            let _ = channel.call(self.peer.now, &BasicQos::new(1));
        }
        self.peer.write();
        self.peer.events();
    }

    fn own(&mut self) -> crate::Channel<'_> {
        self.peer.session.channel(self.own)
    }
}

fn deliver(peer: &mut Peer, number: u16, tag: u64) {
    let mut bytes = Vec::new();
    let deliver = basic::Deliver {
        consumer_tag: text("main"),
        delivery_tag: tag,
        redelivered: false,
        exchange: text(""),
        routing_key: text("q"),
    };
    frame::write_method(&mut bytes, number, &deliver);
    peer.send_bytes(&with_content(bytes, number));
}

fn with_content(mut method: Vec<u8>, number: u16) -> Vec<u8> {
    frame::write_header_ref(&mut method, number, 4, &PropertiesRef::default());
    frame::write_body(&mut method, number, b"body");
    method
}

fn content<'a>(world: &mut World, method: &impl WireMethod<'a>) {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, 1, method);
    world.peer.send_bytes(&with_content(bytes, 1));
}

fn publish(peer: &mut Peer, channel: ChannelId) {
    peer.session.channel(channel).publish(&Publish::new("", "q", b"body").mandatory()).unwrap();
}

const fn nothing(_: &mut World) {}

fn drain(world: &mut World) {
    let call = world.peer.session.drain(world.peer.now, Duration::from_secs(60)).unwrap();
    world.calls.push(call);
}

const VERBS: &[Scenario] = &[
    ("`open_channel`", Constant, nothing, |it| {
        it.peer.session.open_channel(it.peer.now).unwrap();
    }),
    ("`update_secret`", Constant, nothing, |it| {
        it.peer.session.update_secret(it.peer.now, &Secret::new("new"), "due").unwrap();
    }),
    ("`take_reply`", Constant, nothing, |it| {
        assert!(it.peer.session.take_reply(&it.consuming[0]).is_none());
    }),
    ("`forget`", Constant, nothing, |it| {
        it.peer.session.forget(it.peer.now, it.consuming[1].key());
    }),
    (
        "`forget` of a drain or of a second close",
        Amortized,
        |it| {
            for _ in 0..it.size {
                drain(it);
                let now = it.peer.now;
                let close = it.peer.session.channel(it.channels[1]).close(now);
                it.calls.push(close);
            }
        },
        |it| {
            for call in std::mem::take(&mut it.calls) {
                it.peer.session.forget(it.peer.now, call.key());
            }
        },
    ),
    ("`close`", Linear, nothing, |it| it.peer.session.close(it.peer.now)),
    ("`drain`", Linear, nothing, drain),
    ("`poll_event`", Constant, nothing, |it| {
        it.peer.session.poll_event();
    }),
    ("`poll_event` beside a drain", Amortized, begin_sparse_drain, |it| {
        for tag in std::mem::take(&mut it.tags) {
            it.peer.session.channel(tag.channel()).ack(tag, false).unwrap();
            it.peer.session.poll_event();
        }
    }),
    ("`poll_timeout`", Constant, nothing, |it| {
        it.peer.session.poll_timeout();
    }),
    ("`poll_transmit`", Constant, nothing, |it| {
        it.peer.session.poll_transmit(it.peer.now, &mut Transmit::new());
    }),
    ("`handle_written`", Constant, nothing, |it| {
        it.peer.session.handle_written(it.peer.now, it.peer.attempt, 1_000_000);
    }),
    ("`handle_disconnected`", Linear, nothing, |it| it.peer.lose()),
    ("`wants_input`", Constant, nothing, |it| {
        it.peer.session.wants_input();
    }),
    ("`stats`", Linear, nothing, |it| {
        it.peer.session.connection().stats();
    }),
    ("`Channel::call`", Constant, nothing, |it| {
        let now = it.peer.now;
        it.own().call(now, &BasicGet::new("q")).unwrap();
    }),
    ("`Channel::call_no_wait`", Constant, nothing, |it| {
        it.own().call_no_wait(&QueueDelete::new("q")).unwrap();
    }),
    ("`Channel::consume`", Constant, nothing, |it| {
        let now = it.peer.now;
        it.own().consume(now, &BasicConsume::new("q")).unwrap();
    }),
    ("`Channel::cancel`", Constant, nothing, |it| {
        let (now, consumer) = (it.peer.now, it.consumer);
        it.own().cancel(now, consumer).unwrap();
    }),
    ("`Channel::release_consumer`", Linear, nothing, |it| {
        let (now, consumer) = (it.peer.now, it.consumer);
        it.own().release_consumer(now, consumer, []);
    }),
    ("`Channel::next_delivery`", Constant, nothing, |it| {
        let consumer = it.consumer;
        it.own().next_delivery(consumer).unwrap();
    }),
    ("`Channel::pull_deliveries`", Constant, nothing, |it| {
        let consumer = it.consumer;
        assert!(it.own().pull_deliveries(consumer, &mut VecDeque::new()) > 0);
    }),
    ("`Channel::consumer_end`", Constant, nothing, |it| {
        let consumer = it.consumer;
        assert!(it.own().consumer_end(consumer).is_none());
    }),
    ("`Channel::ack`, `nack`, `reject` in order", Constant, nothing, |it| {
        let first = DeliveryTag { tag: 1, ..it.tags[0] };
        it.own().nack(first, false, true).unwrap();
    }),
    ("`Channel::ack`, `nack`, `reject` in any order", Amortized, nothing, |it| {
        for tag in std::mem::take(&mut it.tags).into_iter().rev() {
            it.own().reject(tag, true).unwrap();
        }
    }),
    ("`Channel::ack`, `nack` with `multiple`", Amortized, nothing, |it| {
        for tag in std::mem::take(&mut it.tags).into_iter().skip(2) {
            it.own().ack(tag, true).unwrap();
        }
    }),
    ("`Channel::requeue`", Amortized, nothing, |it| {
        for tag in std::mem::take(&mut it.tags).into_iter().rev() {
            it.own().requeue(tag);
        }
    }),
    ("`Channel::drop_unacked`", Amortized, nothing, |it| {
        for tag in std::mem::take(&mut it.tags).into_iter().rev() {
            it.own().drop_unacked(tag);
        }
    }),
    ("`Channel::publish`", Constant, nothing, |it| publish(&mut it.peer, it.own)),
    ("`Channel::confirmed`", Constant, nothing, |it| {
        assert!(it.own().confirmed(PublishSeq::new(2)).is_none());
    }),
    ("`Channel::all_confirmed`", Constant, nothing, |it| {
        assert!(it.own().all_confirmed(PublishSeq::new(2)).is_none());
    }),
    ("`Channel::forget_publish`", Constant, nothing, |it| {
        it.own().forget_publish(PublishSeq::new(2));
    }),
    ("`Channel::take_returned`", Constant, nothing, |it| {
        it.own().take_returned();
    }),
    ("`Channel::close`", Constant, nothing, |it| {
        let now = it.peer.now;
        it.own().close(now);
    }),
    ("`Channel::release`", Constant, nothing, |it| {
        let now = it.peer.now;
        it.own().release(now);
    }),
];

/// Starts a drain that waits for one delivery of each channel.
fn begin_sparse_drain(it: &mut World) {
    *it = World::sparse(it.size);
    drain(it);
    for number in (1..).take(it.channels.len()) {
        it.peer.send(number, &basic::CancelOk { consumer_tag: text("main") });
    }
    finish_write(it);
    assert!(it.peer.session.poll_event().is_none());
}

fn finish_write(it: &mut World) {
    it.peer.write();
    let written = it.peer.written_in_all;
    it.peer.session.handle_written(it.peer.now, it.peer.attempt, written);
    it.peer.events();
}

const FRAMES: &[Scenario] = &[
    ("`basic.deliver`", Constant, nothing, |it| {
        let tag = 2 * it.size + 3;
        deliver(&mut it.peer, 1, tag);
    }),
    (
        "`basic.get-ok`",
        Constant,
        |it| {
            let now = it.peer.now;
            it.own().call(now, &BasicGet::new("q")).unwrap();
        },
        |it| content(it, &basic::GetOk { delivery_tag: 2 * it.size + 3, ..Default::default() }),
    ),
    ("`basic.ack`, `basic.nack`", Constant, nothing, |it| {
        it.peer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
        it.peer.send(1, &basic::Nack { delivery_tag: 3, multiple: false, requeue: false });
    }),
    ("`basic.ack`, `basic.nack` with `multiple`", Amortized, nothing, |it| {
        for delivery_tag in 1..=it.size {
            it.peer.send(1, &basic::Ack { delivery_tag, multiple: true });
        }
    }),
    ("`basic.return`", Constant, nothing, |it| {
        let routing_key = text("q");
        content(it, &basic::Return { reply_code: 312, routing_key, ..Default::default() });
    }),
    ("`basic.cancel`", Constant, nothing, |it| {
        it.peer.send(2, &basic::Cancel { consumer_tag: text("main"), no_wait: true });
    }),
    ("`basic.consume-ok`, `basic.cancel-ok`", Constant, nothing, |it| {
        let tag = format!("ctag-1.{}", it.size);
        it.peer.send(1, &basic::ConsumeOk { consumer_tag: text(&tag) });
    }),
    (
        "`basic.recover-ok`",
        Linear,
        |it| {
            let now = it.peer.now;
            it.own().call(now, &BasicRecover {}).unwrap();
        },
        |it| it.peer.send(1, &basic::RecoverOk::default()),
    ),
    (
        "any other reply",
        Constant,
        |it| {
            let now = it.peer.now;
            it.own().call(now, &BasicQos::new(1)).unwrap();
        },
        |it| it.peer.send(1, &basic::QosOk::default()),
    ),
    ("`channel.flow`", Constant, nothing, |it| {
        it.peer.send(1, &channel::Flow { active: true });
    }),
    ("`channel.close`, `channel.close-ok`", Linear, nothing, |it| {
        it.peer.send(1, &channel::Close::default());
    }),
    ("`connection.blocked`, `connection.unblocked`", Constant, nothing, |it| {
        it.peer.send(0, &connection::Blocked { reason: text("memory") });
        it.peer.send(0, &connection::Unblocked::default());
    }),
    ("`connection.close`, `connection.close-ok`", Linear, nothing, |it| {
        it.peer.send(0, &connection::Close::default());
    }),
    ("heartbeat", Constant, nothing, |it| it.peer.send_bytes(&frame::HEARTBEAT)),
];

/// Scenarios whose cost does not depend on the rest of the connection.
const ON_A_SMALL_CHANNEL: &[Scenario] = &[
    ("the end of a channel", Constant, nothing, |it| {
        it.peer.send(2, &channel::Close::default());
    }),
    (
        "recover",
        Constant,
        |it| {
            let mut channel = it.peer.session.channel(it.channels[1]);
            channel.call(it.peer.now, &BasicRecover {}).unwrap();
            it.peer.send(2, &basic::QosOk::default());
        },
        |it| it.peer.send(2, &basic::RecoverOk::default()),
    ),
    (
        "a close-ok that is owed for many channels",
        Amortized,
        |it| {
            for id in it.channels.clone() {
                it.peer.session.channel(id).close(it.peer.now);
            }
            for number in (1..).take(it.channels.len()) {
                it.peer.send(number, &channel::Close::default());
            }
        },
        |it| {
            for number in (1..).take(it.channels.len()) {
                it.peer.send(number, &channel::CloseOk::default());
            }
        },
    ),
];

fn steps(size: u64, (_, _, prepare, act): &Scenario) -> usize {
    let mut world = World::new(size);
    prepare(&mut world);
    world.backlog();
    STEPS.set(0);
    act(&mut world);
    STEPS.get()
}

fn check(scenarios: &[Scenario]) {
    const SIZE: u64 = 40;
    for scenario in scenarios {
        let (name, growth, ..) = scenario;
        let (few, many) = (steps(SIZE, scenario), steps(4 * SIZE, scenario));
        match growth {
            Constant => assert!(many <= few + 4, "{name}: {few} steps, then {many}"),
            Linear => {
                assert!(many <= 4 * few + 40, "{name}: {few} steps, then {many}");
                assert!(many > 3 * few, "{name} costs less than the table says: {few}, {many}");
            }
            Amortized => assert!(many <= 4 * few + 40, "{name}: {few} steps, then {many}"),
        }
    }
}

#[test]
fn each_operation_costs_what_the_table_says() {
    check(VERBS);
    check(FRAMES);
    check(ON_A_SMALL_CHANNEL);
}

#[test]
fn the_tables_have_each_operation_that_is_counted() {
    let growth = |cost: &str| match cost {
        _ if cost.starts_with("constant") => Constant,
        _ if cost.starts_with("amortized") => Amortized,
        _ => Linear,
    };
    let rows = include_str!("costs.md").lines().filter_map(|line| {
        let (name, cost) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        (!["verb", "frame", "---"].contains(&name)).then(|| (name, growth(cost)))
    });
    let counted = VERBS.iter().chain(FRAMES).map(|(name, growth, ..)| (*name, *growth));
    assert_eq!(rows.collect::<Vec<_>>(), counted.collect::<Vec<_>>());
}
