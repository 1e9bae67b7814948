//! The unread deliveries of a consumer, and the memory that they take.
//!
//! With a prefetch of n, the first n unread deliveries of a consumer are *within* the limit that its
//! application has chosen. All others are *beyond* a limit: deliveries without acknowledgement, with a
//! prefetch of 0, and those that a broker sends although the prefetch is used up. Only these pause reading
//! (`connection/read_pause.rs`). [`Backlog`] has the sums over all consumers, so that no loop over consumers
//! is needed.
//!
//! A handle takes up to [`PULLED_BYTES`] of deliveries under one lock, and does not report when it reads each
//! of them. They count as unread until the handle comes for more. So if a broker ignores the prefetch, a
//! consumer may hold this many bytes more.
//!
//! A reader that finds its inbox empty *waits*, until a delivery arrives or the consumer ends.

use std::collections::VecDeque;

use crate::arena::{Arena, Shelf};
use crate::limits::{IDLE_UNREAD_MAX, PULLED_BYTES};
use crate::message::Delivery;

/// The unread deliveries of one consumer.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The number of deliveries that are within the limit.
    window: usize,
    unread: VecDeque<Delivery>,
    bytes: Bytes,
    /// The number of bytes of the deliveries that the handle took last.
    pulled: usize,
    /// Whether the reader has found no delivery since the last one arrived.
    waiting: bool,
    /// The memory for its small deliveries.
    pub(crate) shelf: Shelf,
}

/// The sums over all inboxes of a connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    unread: Bytes,
    pulled: Bytes,
    waiting: usize,
}

/// The number of bytes of unread deliveries.
#[derive(Debug, Default)]
struct Bytes {
    within: usize,
    beyond: usize,
}

impl Inbox {
    /// Creates an inbox whose first `window` deliveries are within the limit of its prefetch.
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

    /// Changes the number of deliveries that are within the limit, while the inbox is empty.
    pub(crate) const fn set_window(&mut self, window: usize) {
        self.window = window;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Queues a delivery. Returns whether it is the first unread one.
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
        // One less is unread. So the first delivery beyond the limit, if there is one, moves within it.
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

    /// Moves all deliveries, or `PULLED_BYTES` of them, behind those in `into`. They count as unread until
    /// the next call. Returns the number of their bytes.
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

    /// Takes all unread deliveries, because they will not be read.
    pub(crate) fn clear(&mut self, backlog: &mut Backlog) -> VecDeque<Delivery> {
        backlog.unread.subtract(&std::mem::take(&mut self.bytes));
        std::mem::take(&mut self.unread)
    }

    /// Stops counting the deliveries that the handle took last.
    pub(crate) fn forget_pulled(&mut self, backlog: &mut Backlog) {
        let pulled = std::mem::take(&mut self.pulled);
        *self.pulled_sum(backlog) -= pulled;
    }

    /// Records that the reader found no delivery, and releases memory that is only useful under load.
    #[inline]
    pub(crate) fn wait(&mut self, backlog: &mut Backlog, arena: &mut Arena) {
        if !self.waiting {
            self.waiting = true;
            backlog.waiting += 1;
            arena.clear(&mut self.shelf);
            self.unread.shrink_to(IDLE_UNREAD_MAX);
        }
    }

    /// Records that the reader no longer waits: it has a delivery, or the consumer has ended.
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
    /// The number of bytes of all unread deliveries, including those that handles have taken and may have
    /// read.
    pub(crate) const fn bytes(&self) -> usize {
        self.unread.sum() + self.pulled.sum()
    }

    /// The number of bytes of deliveries beyond a limit.
    #[inline]
    pub(crate) const fn beyond(&self) -> usize {
        self.unread.beyond + self.pulled.beyond
    }

    /// Whether there are deliveries that no handle has taken.
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

/// The number of bytes of memory that an unread delivery takes.
#[inline(always)]
fn cost(delivery: &Delivery) -> usize {
    delivery.message.size() + size_of::<Delivery>()
}
