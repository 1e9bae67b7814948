//! A pool of buffers that are reused when no message refers to them.
//!
//! Messages share the buffers that they arrived in or were copied to. While messages are read about as fast
//! as they arrive, a few buffers are reused in turn. They stay in the processor's cache. Without the pool,
//! the allocator might return the memory to the system each time.

use std::collections::VecDeque;

use bytes::BytesMut;

/// A pool of used buffers, oldest first. Parts of them may still be in use.
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
    /// Creates a pool of at most `max` buffers.
    pub const fn new(max: usize) -> Self {
        Self { buffers: VecDeque::new(), max }
    }

    /// Adds a used buffer, whose parts may still be in use. Its own contents are dropped. If the pool is
    /// full, it releases its oldest buffer: the memory is freed with the last part.
    pub fn retire(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if self.buffers.len() == self.max {
            self.buffers.pop_front();
        }
        self.buffers.push_back(buffer);
    }

    /// Returns the oldest buffer, emptied, if it has a capacity of `size` bytes and no part of it is in use.
    pub fn reclaim(&mut self, size: usize) -> Option<BytesMut> {
        let oldest = self.buffers.front_mut()?;
        if oldest.try_reclaim(size) { self.buffers.pop_front() } else { None }
    }

    /// Returns whether the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Releases all buffers.
    pub fn clear(&mut self) {
        self.buffers = VecDeque::new();
    }

    /// Releases the oldest buffer.
    pub fn shrink(&mut self) {
        self.buffers.pop_front();
        if self.buffers.is_empty() {
            self.buffers = VecDeque::new();
        }
    }
}
