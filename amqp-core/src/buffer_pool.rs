//! Memory that is used again once nobody holds a part of it any more.
//!
//! Messages share the buffers that they arrived in or were copied to. While they are read about as
//! fast as they come, a few such buffers go round and round: they stay in the processor's cache, and
//! the allocator, which might give them back to the system each time, has nothing to do.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Buffers that were given out in parts, the oldest first.
///
/// ```
/// use amqp_core::BufferPool;
/// use bytes::BytesMut;
///
/// let mut pool = BufferPool::new(2);
/// let mut buffer = BytesMut::with_capacity(1_000);
/// buffer.extend_from_slice(&[7; 600]);
/// let part = buffer.split_to(500).freeze();
/// pool.retire(buffer);
/// assert!(pool.reclaim(1_000).is_none(), "a part of it is in use");
/// drop(part);
/// assert!(pool.reclaim(1_000).unwrap().is_empty());
/// ```
#[derive(Debug)]
pub struct BufferPool {
    buffers: VecDeque<BytesMut>,
    max: usize,
}

impl BufferPool {
    /// A pool of `max` buffers at most.
    pub const fn new(max: usize) -> Self {
        Self { buffers: VecDeque::new(), max }
    }

    /// Keeps a buffer that is used up, whose parts may still be in use. What it holds itself is
    /// dropped. If there are too many, the oldest is forgotten: its memory goes with its last part.
    pub fn retire(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if self.buffers.len() == self.max {
            self.buffers.pop_front();
        }
        self.buffers.push_back(buffer);
    }

    /// Returns the oldest buffer, emptied, if it has space for `size` bytes and no part of it is in use.
    pub fn reclaim(&mut self, size: usize) -> Option<BytesMut> {
        let oldest = self.buffers.front_mut()?;
        if oldest.try_reclaim(size) { self.buffers.pop_front() } else { None }
    }

    /// Whether it has no buffers.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Forgets all buffers.
    pub fn clear(&mut self) {
        self.buffers = VecDeque::new();
    }

    /// Forgets the oldest buffer.
    pub fn shrink(&mut self) {
        self.buffers.pop_front();
        if self.buffers.is_empty() {
            self.buffers = VecDeque::new();
        }
    }
}
