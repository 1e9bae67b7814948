//! Deliveries for consumers that are not there.
//!
//! A broker that cancels a consumer is answered by `basic.cancel`, without asking for an answer: RabbitMQ
//! 4.3 keeps a consumer that timed out until then. A delivery whose tag is not a consumer's is answered
//! in the same way, once for each tag. Deliveries that were on their way go back to their queue, so that
//! others get them. But a broker that went on delivering would get each of them back again and again. So
//! only as many are requeued as it may have sent before the cancel reached it: twice the prefetch, once
//! for the deliveries that it may send, and once for acknowledgements on their way that let it send
//! more. What comes beyond stays unacknowledged until the channel closes, and the prefetch stops it.
//!
//! Tags are remembered up to a limit; the oldest is forgotten first. A tag is forgotten when a consumer
//! starts with it.

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
    /// Deliveries that may yet be requeued.
    requeues: u32,
}

/// What is to be done with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes back to its queue. The first one for its tag is answered by a cancel.
    Requeue {
        /// Whether it is the first one for its tag.
        first: bool,
    },
    /// It stays unacknowledged.
    Keep,
    /// It needs no acknowledgement.
    Drop,
}

impl Strays {
    /// A consumer has ended, and its cancel is sent.
    pub(crate) fn remember(&mut self, tag: &[u8], no_ack: bool, prefetch: u16) {
        let prefetch = if prefetch == 0 { u16::MAX } else { prefetch };
        if self.tags.len() >= STRAY_TAGS_MAX {
            self.tags.pop_front();
        }
        self.tags.push_back(Stray { tag: tag.into(), no_ack, requeues: 2 * u32::from(prefetch) });
    }

    /// A consumer starts.
    pub(crate) fn forget(&mut self, tag: &[u8]) {
        self.tags.retain(|stray| *stray.tag != *tag);
    }

    /// A delivery has come.
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
