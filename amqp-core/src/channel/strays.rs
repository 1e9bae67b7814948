//! Deliveries for unknown consumers.
//!
//! When the broker cancels a consumer, it is answered with a `basic.cancel` that requests no reply: RabbitMQ
//! 4.3 keeps a consumer that timed out until then. A delivery with an unknown consumer tag is answered in the
//! same way, once for each tag. Deliveries that were in flight are requeued, so that other consumers get
//! them.
//!
//! A broker that continued to deliver would get each of them back in an endless loop. So the number of
//! requeues is limited to what the broker may have sent before the cancel reached it. That is twice the
//! prefetch: once for the deliveries that it may send at any time, and once for those that acknowledgements
//! in flight allow it to send. Further deliveries stay unacknowledged until the channel closes, so that the
//! prefetch stops them.
//!
//! The number of remembered tags is limited; the oldest is forgotten first. A tag is also forgotten when a
//! consumer starts with it.

use std::collections::VecDeque;

use crate::limits::{PREFETCH, STRAY_TAGS_MAX};

#[derive(Debug, Default)]
pub(crate) struct Strays {
    tags: VecDeque<Stray>,
}

#[derive(Debug)]
struct Stray {
    tag: Box<[u8]>,
    no_ack: bool,
    /// The number of deliveries that may still be requeued.
    requeues: u32,
}

/// What happens to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is requeued. The first one for its tag is also answered by a cancel.
    Requeue {
        /// Whether it is the first one for its tag.
        first: bool,
    },
    /// It stays unacknowledged.
    Keep,
    /// It needs no acknowledgement, and is dropped.
    Drop,
}

impl Strays {
    /// Remembers a consumer that has ended and whose cancel is sent.
    pub(crate) fn remember(&mut self, tag: &[u8], no_ack: bool, prefetch: u16) {
        let prefetch = if prefetch == 0 { u16::MAX } else { prefetch };
        if self.tags.len() >= STRAY_TAGS_MAX {
            self.tags.pop_front();
        }
        self.tags.push_back(Stray { tag: tag.into(), no_ack, requeues: 2 * u32::from(prefetch) });
    }

    /// Forgets a tag, because a consumer starts with it.
    pub(crate) fn forget(&mut self, tag: &[u8]) {
        self.tags.retain(|stray| *stray.tag != *tag);
    }

    /// Decides what happens to a delivery.
    pub(crate) fn delivered(&mut self, tag: &[u8]) -> Fate {
        let first = self.tags.iter().all(|stray| *stray.tag != *tag);
        if first {
            self.remember(tag, false, PREFETCH);
        }
        let Some(stray) = self.tags.iter_mut().find(|stray| *stray.tag == *tag) else {
            return Fate::Keep;
        };
        if stray.no_ack {
            return Fate::Drop;
        }
        match stray.requeues.checked_sub(1) {
            Some(left) => {
                stray.requeues = left;
                Fate::Requeue { first }
            }
            None => Fate::Keep,
        }
    }
}
