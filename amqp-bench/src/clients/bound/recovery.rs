//! Recovery by hand: everything at once, as this client does, or one call at a time, as the Java client does.

use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame::write_method;
use amqp_proto::method::{MethodId, WireMethod, basic, channel, queue};

use super::wire::{Arrived, Id, Wire};
use crate::clients::recovery::{EXCHANGE, Losses, PREFETCH, Restored};
use crate::outcome::{Failure, Measured};

/// How frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The topology on a channel of its own, and then the channels with their consumers, each at once.
    AtOnce,
    /// The channels, the topology, the consumers: each call when the one before is answered.
    OneByOne,
}

/// Restores everything after each of `count` losses.
pub(super) fn recover(
    uri: &str,
    restored: Restored,
    order: Order,
    count: u64,
) -> Result<Measured, Failure> {
    let mut losses = Losses::before(uri, restored)?;
    let uri = losses.uri();
    let restore = || match order {
        Order::AtOnce => at_once(&uri, restored),
        Order::OneByOne => one_by_one(&uri, restored),
    };
    let mut wire = restore()?;
    for _ in 0..count {
        losses.lose();
        drop(wire);
        wire = restore()?;
        losses.restored(Instant::now())?;
    }
    Ok(losses.stop())
}

/// The number of consumers of each of these queues.
pub(crate) fn consumers(
    uri: &str,
    queues: impl Iterator<Item = String>,
) -> Result<Vec<u64>, Failure> {
    let mut wire = Wire::connect(uri)?;
    let counts = queues.map(|queue| wire.declare_passive(&queue).map(|found| found.consumers));
    let counts = counts.collect::<Result<_, _>>()?;
    wire.close()?;
    Ok(counts)
}

fn at_once(uri: &str, restored: Restored) -> Result<Wire, Failure> {
    let mut wire = Wire::open(uri)?;
    lay(&mut wire, 1, &channel::Open::default())?;
    for queue in restored.queues() {
        lay(&mut wire, 1, &declare(&queue)?)?;
    }
    for queue in restored.queues() {
        lay(&mut wire, 1, &bind(&queue)?)?;
    }
    lay(&mut wire, 1, &close())?;
    wire.flush()?;
    let queues = usize::from(restored.queues);
    for (answer, count) in [
        (id(channel::OpenOk::ID), 1),
        (id(queue::DeclareOk::ID), queues),
        (id(queue::BindOk::ID), queues),
        (id(channel::CloseOk::ID), 1),
    ] {
        for _ in 0..count {
            wire.expect(answer)?;
        }
    }
    for (number, queue) in (1..).zip(restored.consumed()) {
        lay(&mut wire, number, &channel::Open::default())?;
        lay(&mut wire, number, &qos())?;
        lay(&mut wire, number, &consume(&queue)?)?;
    }
    wire.flush()?;
    let answers = [channel::OpenOk::ID, basic::QosOk::ID, basic::ConsumeOk::ID].map(id);
    for _ in 0..3 * restored.channels {
        match wire.next()? {
            Arrived::Method { id, .. } if answers.contains(&id) => {}
            other => return Err(super::unexpected(&other)),
        }
    }
    Ok(wire)
}

fn one_by_one(uri: &str, restored: Restored) -> Result<Wire, Failure> {
    let mut wire = Wire::open(uri)?;
    for number in 1..=restored.channels {
        call(&mut wire, number, &channel::Open::default(), channel::OpenOk::ID)?;
        call(&mut wire, number, &qos(), basic::QosOk::ID)?;
    }
    for (number, queues) in (1..).zip(restored.shared()) {
        for queue in queues {
            call(&mut wire, number, &declare(&queue)?, queue::DeclareOk::ID)?;
        }
    }
    for (number, queues) in (1..).zip(restored.shared()) {
        for queue in queues {
            call(&mut wire, number, &bind(&queue)?, queue::BindOk::ID)?;
        }
    }
    for (number, queue) in (1..).zip(restored.consumed()) {
        call(&mut wire, number, &consume(&queue)?, basic::ConsumeOk::ID)?;
    }
    Ok(wire)
}

fn lay<'a>(wire: &mut Wire, number: u16, method: &impl WireMethod<'a>) -> Result<(), Failure> {
    let mut frame = Vec::new();
    write_method(&mut frame, number, method);
    wire.lay(&frame)
}

fn call<'a>(
    wire: &mut Wire,
    number: u16,
    method: &impl WireMethod<'a>,
    answer: MethodId,
) -> Result<(), Failure> {
    lay(wire, number, method)?;
    wire.flush()?;
    wire.expect(id(answer)).map(drop)
}

const fn id(method: MethodId) -> Id {
    let [c0, c1] = method.class.to_be_bytes();
    let [m0, m1] = method.method.to_be_bytes();
    [c0, c1, m0, m1]
}

fn declare(name: &str) -> Result<queue::Declare<'_>, Failure> {
    Ok(queue::Declare { queue: ShortStr::new(name)?, durable: true, ..Default::default() })
}

fn bind(name: &str) -> Result<queue::Bind<'_>, Failure> {
    let (queue, exchange) = (ShortStr::new(name)?, ShortStr::new(EXCHANGE)?);
    Ok(queue::Bind { queue, exchange, routing_key: queue, ..Default::default() })
}

fn close() -> channel::Close<'static> {
    channel::Close { reply_code: 200, ..Default::default() }
}

fn qos() -> basic::Qos {
    basic::Qos { prefetch_count: PREFETCH, ..Default::default() }
}

fn consume(name: &str) -> Result<basic::Consume<'_>, Failure> {
    let queue = ShortStr::new(name)?;
    Ok(basic::Consume { queue, consumer_tag: queue, ..Default::default() })
}
