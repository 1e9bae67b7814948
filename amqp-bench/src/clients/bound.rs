//! The mark: one blocking thread, hand-laid bytes, one buffer each way.
//!
//! It does what a workload says and nothing else: no heartbeats, no recovery, no handles. Every message
//! is laid down field by field, and of what it reads, every frame is parsed.

mod recovery;
mod wire;

use std::time::Instant;

use crate::outcome::{Failure, Measured, Stopwatch};
use crate::tags::Tags;
use crate::workload::{PAUSE, PAUSE_EVERY, QUEUE, SMALL, Task};

use super::{Laps, check};
use wire::{Arrived, Wire};

use recovery::Order;
pub(super) use recovery::consumers;

/// Does the task `count` times.
pub(crate) fn run(uri: &str, task: Task, count: u64) -> Result<Measured, Failure> {
    match task {
        Task::Connect => return connects(uri, count),
        Task::Recover(restored) => return recovery::recover(uri, restored, Order::AtOnce, count),
        _ => {}
    }
    let mut wire = Wire::connect(uri)?;
    match task {
        Task::Publish { size, window: None, .. } => publish(&mut wire, count, size),
        Task::Publish { size, window: Some(window), .. } => {
            confirmed(&mut wire, count, size, window as u64)
        }
        Task::PublishAndWait => {
            wire.call(wire::CONFIRM_SELECT, wire::CONFIRM_SELECT_OK)?;
            let body = [b'x'; SMALL];
            let mut tag = 0;
            timed(count, || {
                tag += 1;
                wire.publish(&body)?;
                wire.flush()?;
                match wire.next()? {
                    Arrived::Ack { tag: acked, .. } => check("a confirm's tag", acked, tag),
                    other => Err(unexpected(&other)),
                }
            })
        }
        Task::Consume { size, prefetch, pauses } => {
            consume(&mut wire, count, size, prefetch, pauses)
        }
        Task::RoundTrip => timed(count, || wire.call(&wire::qos(1), wire::QOS_OK)),
        Task::Connect | Task::PublishInFlood | Task::Idle | Task::Recover(_) | Task::Answer => {
            Err("cannot do it".into())
        }
    }
}

/// Recovers `count` times as a client does that makes one call at a time.
pub(crate) fn run_one_by_one(uri: &str, task: Task, count: u64) -> Result<Measured, Failure> {
    match task {
        Task::Recover(restored) => recovery::recover(uri, restored, Order::OneByOne, count),
        _ => Err("cannot do it".into()),
    }
}

fn publish(wire: &mut Wire, count: u64, size: usize) -> Result<Measured, Failure> {
    let body = vec![b'x'; size];
    let watch = Stopwatch::start();
    for _ in 0..count {
        wire.publish(&body)?;
    }
    let counted = wire.declare_passive(QUEUE)?.messages;
    let measured = watch.stop();
    check("the peer counted", counted, count)?;
    Ok(measured)
}

fn confirmed(wire: &mut Wire, count: u64, size: usize, window: u64) -> Result<Measured, Failure> {
    wire.call(wire::CONFIRM_SELECT, wire::CONFIRM_SELECT_OK)?;
    let body = vec![b'x'; size];
    let mut confirmed = Tags::default();
    let mut sent = 0;
    let watch = Stopwatch::start();
    while confirmed.count() < count {
        while sent < count && sent - confirmed.count() < window {
            wire.publish(&body)?;
            sent += 1;
        }
        wire.flush()?;
        // All that was read is taken in before more is written.
        loop {
            match wire.next()? {
                Arrived::Ack { tag, multiple } => confirmed.ack(tag, multiple, sent)?,
                other => return Err(unexpected(&other)),
            }
            if !wire.has_more() {
                break;
            }
        }
    }
    Ok(watch.stop())
}

fn consume(
    wire: &mut Wire,
    count: u64,
    size: usize,
    prefetch: Option<u16>,
    pauses: bool,
) -> Result<Measured, Failure> {
    if let Some(prefetch) = prefetch {
        wire.call(&wire::qos(prefetch), wire::QOS_OK)?;
    }
    let watch = Stopwatch::start();
    wire.call(&wire::consume(prefetch.is_none()), wire::CONSUME_OK)?;
    for number in 1..=count {
        match wire.next()? {
            Arrived::Delivery { tag, size: arrived } if (tag, arrived) == (number, size as u64) => {
            }
            other => return Err(unexpected(&other)),
        }
        if prefetch.is_some() {
            wire.lay(&wire::ack(number))?;
            if !wire.has_more() {
                wire.flush()?;
            }
        }
        if pauses && number % PAUSE_EVERY == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    if prefetch.is_some() {
        wire.declare_passive(QUEUE)?;
    }
    Ok(watch.stop())
}

fn connects(uri: &str, count: u64) -> Result<Measured, Failure> {
    let mut latencies = Vec::with_capacity(count as usize);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let begun = Instant::now();
        let mut wire = Wire::connect(uri)?;
        latencies.push(begun.elapsed());
        wire.close()?;
    }
    Ok(watch.stop().with_latencies(latencies))
}

fn timed(count: u64, mut work: impl FnMut() -> Result<(), Failure>) -> Result<Measured, Failure> {
    let mut laps = Laps::start(count);
    for _ in 0..count {
        work()?;
        laps.lap();
    }
    Ok(laps.stop())
}

fn unexpected(arrived: &Arrived) -> Failure {
    format!("unexpected {arrived:?}").into()
}
