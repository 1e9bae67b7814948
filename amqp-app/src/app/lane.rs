//! `Lane`: a queue of a source, and what all of its workers share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::consume::Consume;
use crate::measure::Measures;
use crate::remember::Remembered;

pub(crate) struct Lane {
    pub(crate) queue: Arc<str>,
    /// Whether the queues beside it are quorum queues.
    pub(crate) is_quorum: bool,
    pub(crate) measures: Measures,
    /// The outcomes whose acknowledgement was lost.
    pub(crate) remembered: Mutex<Remembered>,
    /// How often in a row that could not be done.
    unstored: AtomicU32,
}

impl Lane {
    /// The queues of a source, in their order.
    pub(crate) fn all(consume: &Consume) -> Arc<[Self]> {
        let lanes = consume.queues.iter().map(|declare| {
            let queue: Arc<str> = declare.queue.as_str().into();
            let measures = Measures::of(&queue);
            let is_quorum = consume.is_quorum(declare);
            let (remembered, unstored) = (Mutex::default(), AtomicU32::new(0));
            Self { queue, is_quorum, measures, remembered, unstored }
        });
        lanes.collect()
    }

    /// What follows from a message is confirmed.
    pub(crate) fn stored(&self) {
        if self.unstored.load(Ordering::Relaxed) > 0 {
            self.unstored.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn times_unstored(&self) -> u32 {
        self.unstored.load(Ordering::Relaxed)
    }

    /// What follows from a message could not be stored, or confirmed.
    pub(crate) fn unstored(&self) {
        self.unstored.fetch_add(1, Ordering::Relaxed);
    }
}
