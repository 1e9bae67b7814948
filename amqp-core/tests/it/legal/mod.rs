//! Random conversations with a broker that is capricious and keeps to the protocol.
//!
//! A seed decides everything: what the [application](application) does, when the [broker](broker) takes
//! a command and what it answers, between which frames of other channels each frame is written, where
//! the [transport](world) cuts the bytes, and how the connection ends. Whatever it decides, these hold:
//! * The client writes whole frames of at most `frame_max` bytes, contents unbroken within their channel
//!   ([`scan`]).
//! * Each call completes once, with its own reply; each publish has its own outcome, `NotSent` if and
//!   only if no byte of it was written; each delivery is read once, in its order ([`log`]).
//! * Each ack or nack that is written was requested, and covers no other delivery
//!   ([`channel`]). What may be a stream's is not refused where that ends the connection ([`delivering`]).
//! * Consumers have the limits that the application asked for, on each version of the broker
//!   ([`prefetch`], [`versions`]).
//! * Reading pauses for unread deliveries alone that no prefetch bounds, not while something is awaited,
//!   and not for too long; it goes on when they are read ([`pauses`]).
//! * Events announce all of that, each thing once, and nothing else is looked at.
//! * In the end no call, publish, delivery, byte or channel is left in any record.
//!
//! `AMQP_LEGAL_SEEDS` is the number of conversations, 5,000 by default, and `AMQP_LEGAL_FIRST` the first
//! seed, 0 by default. `AMQP_LEGAL_SEED` replays one conversation, with a line for each frame and event.

mod application;
mod broker;
mod calls;
mod channel;
mod consuming;
mod delivering;
mod dice;
mod events;
mod log;
mod pauses;
mod prefetch;
mod publishing;
mod scan;
mod versions;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// What the conversations reach together.
const REACHED: [&str; 26] = [
    "a stream's, not refused",
    "acked",
    "channel closed by the broker",
    "closed by the broker",
    "closed by the client",
    "confirmed",
    "consumer cancelled by the broker",
    "lost",
    "maybe a stream's, not refused",
    "misuse",
    "nacked",
    "no room",
    "not sent",
    "open refused",
    "out of time",
    "read",
    "reading paused",
    "reading paused at the hard mark",
    "reading paused for long",
    "reading resumed",
    "recovered",
    "refused",
    "requeued",
    "returned",
    "rolled back",
    "unknown",
];

#[test]
fn every_legal_conversation_keeps_the_promises() {
    if let Some(seed) = number("AMQP_LEGAL_SEED") {
        world::play(seed, true);
        return;
    }
    let first = number("AMQP_LEGAL_FIRST").unwrap_or(0);
    let count = number("AMQP_LEGAL_SEEDS").unwrap_or(5_000);
    let (next, end) = (AtomicU64::new(first), first + count);
    let counts = Mutex::new(BTreeMap::<&str, u64>::new());
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            match catch_unwind(|| world::play(seed, false)) {
                Ok(reached) => {
                    let mut counts = counts.lock().unwrap();
                    reached.into_iter().for_each(|it| *counts.entry(it.0).or_default() += it.1);
                }
                Err(panic) => {
                    next.store(end, Ordering::Relaxed);
                    println!("seed {seed} fails; AMQP_LEGAL_SEED={seed} replays it:");
                    let _ = catch_unwind(AssertUnwindSafe(|| world::play(seed, true)));
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let counts = counts.into_inner().unwrap();
    println!("{counts:#?}");
    if count >= 5_000 {
        assert_eq!(counts.into_keys().collect::<Vec<_>>(), REACHED);
    }
}
