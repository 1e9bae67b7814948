//! What a consumer has not read, and the bytes of memory that it takes.
//!
//! A prefetch of n bounds a consumer by what its application asked for: its first n unread deliveries are
//! *within* the bound. Everything else is *beyond* it: deliveries without acknowledgement, with a
//! prefetch of 0, and what a broker sends although the prefetch is used up. Reading pauses for the latter
//! alone (`connection/read_pause.rs`). The sums of all consumers stand in one [`Backlog`], so that no walk
//! is needed to know them.
//!
//! A handle takes up to [`PULLED_BYTES`] under one lock, and does not report each one that is read.
//! What it took counts until it comes for more. Where the deliveries are within a bound, a broker that
//! ignores the prefetch can thus make a consumer hold that much more.
//!
//! A reader that finds its inbox empty *waits*, until a delivery comes or the consumer ends.

use std::collections::VecDeque;

use crate::arena::{Arena, Shelf};
use crate::limits::{IDLE_UNREAD_MAX, PULLED_BYTES};
use crate::message::Delivery;

/// The unread deliveries of one consumer.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Unread deliveries that are within the bound.
    window: usize,
    unread: VecDeque<Delivery>,
    bytes: Bytes,
    /// Bytes of those that were last handed over together.
    pulled: usize,
    /// Its reader has found nothing since the last delivery.
    waiting: bool,
    /// Where its small deliveries are kept.
    pub(crate) shelf: Shelf,
}

/// The sums over all inboxes of a connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    unread: Bytes,
    pulled: Bytes,
    waiting: usize,
}

/// Bytes of unread deliveries.
#[derive(Debug, Default)]
struct Bytes {
    within: usize,
    beyond: usize,
}

impl Inbox {
    /// An inbox whose first `window` deliveries are within the bound of its prefetch.
    pub(crate) fn new(window: usize) -> Self {
        Self {
            window,
            unread: VecDeque::new(),
            bytes: Bytes::default(),
            pulled: 0,
            waiting: false,
            shelf: Shelf::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Queues a delivery. Whether it is the first unread one.
    #[inline(always)]
    pub(crate) fn push(&mut self, backlog: &mut Backlog, delivery: Delivery) -> bool {
        let (cost, before) = (cost(&delivery), self.unread.len());
        self.unread.push_back(delivery);
        if before < self.window {
            self.bytes.within += cost;
            backlog.unread.within += cost;
        } else {
            self.bytes.beyond += cost;
            backlog.unread.beyond += cost;
        }
        if before == 0 {
            self.stop_waiting(backlog);
        }
        before == 0
    }

    /// Takes the oldest delivery.
    #[inline(always)]
    pub(crate) fn pop(&mut self, backlog: &mut Backlog) -> Option<Delivery> {
        // The first one beyond the bound takes the place that becomes free, or is the one that goes.
        let moved = self.unread.get(self.window).map(cost);
        let delivery = self.unread.pop_front()?;
        let cost = cost(&delivery);
        if let Some(moved) = moved {
            self.bytes.move_within(moved);
            backlog.unread.move_within(moved);
        }
        self.bytes.within -= cost;
        backlog.unread.within -= cost;
        Some(delivery)
    }

    /// Hands deliveries over, behind those in `into`: all, or `PULLED_BYTES` of them. They count until
    /// the next time. Returns their bytes.
    #[inline]
    pub(crate) fn pull(&mut self, backlog: &mut Backlog, into: &mut VecDeque<Delivery>) -> usize {
        self.forget_pulled(backlog);
        let mut pulled = self.bytes.sum();
        if pulled <= PULLED_BYTES && into.is_empty() {
            std::mem::swap(&mut self.unread, into);
            backlog.unread.subtract(&std::mem::take(&mut self.bytes));
        } else {
            pulled = 0;
            while pulled < PULLED_BYTES
                && let Some(delivery) = self.pop(backlog)
            {
                pulled += cost(&delivery);
                into.push_back(delivery);
            }
        }
        self.pulled = pulled;
        *self.pulled_sum(backlog) += pulled;
        pulled
    }

    /// Takes everything that is unread: it will not be read.
    pub(crate) fn clear(&mut self, backlog: &mut Backlog) -> VecDeque<Delivery> {
        backlog.unread.subtract(&std::mem::take(&mut self.bytes));
        std::mem::take(&mut self.unread)
    }

    /// What was handed over is read, or will not be.
    pub(crate) fn forget_pulled(&mut self, backlog: &mut Backlog) {
        let pulled = std::mem::take(&mut self.pulled);
        *self.pulled_sum(backlog) -= pulled;
    }

    /// Its reader found nothing: memory that it needed to be fast is given back.
    #[inline]
    pub(crate) fn wait(&mut self, backlog: &mut Backlog, arena: &mut Arena) {
        if !self.waiting {
            self.waiting = true;
            backlog.waiting += 1;
            arena.clear(&mut self.shelf);
            self.unread.shrink_to(IDLE_UNREAD_MAX);
        }
    }

    /// Its reader has something to read, or nothing to wait for.
    #[inline]
    pub(crate) fn stop_waiting(&mut self, backlog: &mut Backlog) {
        if std::mem::take(&mut self.waiting) {
            backlog.waiting -= 1;
        }
    }

    fn pulled_sum<'a>(&self, backlog: &'a mut Backlog) -> &'a mut usize {
        match self.window {
            0 => &mut backlog.pulled.beyond,
            _ => &mut backlog.pulled.within,
        }
    }
}

impl Backlog {
    /// Bytes of all unread deliveries, as far as is known here.
    pub(crate) const fn bytes(&self) -> usize {
        self.unread.sum() + self.pulled.sum()
    }

    /// Bytes of those that no prefetch bounds.
    #[inline]
    pub(crate) const fn beyond(&self) -> usize {
        self.unread.beyond + self.pulled.beyond
    }

    /// Whether deliveries are here that no handle has taken.
    pub(crate) const fn has_unread(&self) -> bool {
        self.unread.sum() > 0
    }

    /// Whether a reader waits for a delivery.
    #[inline]
    pub(crate) const fn is_awaited(&self) -> bool {
        self.waiting > 0
    }
}

impl Bytes {
    const fn sum(&self) -> usize {
        self.within + self.beyond
    }

    const fn move_within(&mut self, bytes: usize) {
        self.beyond -= bytes;
        self.within += bytes;
    }

    fn subtract(&mut self, part: &Self) {
        self.within -= part.within;
        self.beyond -= part.beyond;
    }
}

/// Bytes of memory that an unread delivery takes.
#[inline(always)]
fn cost(delivery: &Delivery) -> usize {
    delivery.message.size() + size_of::<Delivery>()
}
