//! Memory for small deliveries. The deliveries of one consumer share chunks, and each delivery keeps a
//! reference to its chunk.
//!
//! **Each chunk belongs to one consumer** (its [`Shelf`]). Otherwise a few unread deliveries of a slow
//! consumer would keep many deliveries of another consumer in memory. A consumer starts with a small chunk.
//! It gets large chunks once it fills the small one before its reader finds the queue empty. A full large
//! chunk moves to the [`Arena`], and is reused when its deliveries are dropped.
//!
//! **Runs.** Deliveries that are adjacent in the input are copied together, in one run, and each takes its
//! part of the copy. The position of a run is its distance from the end of the input, which does not change
//! while frames are taken from the front. A run may include deliveries of another consumer, for which the
//! copy is wasted. So the first run contains one delivery, and the length doubles while the deliveries belong
//! to the same consumer. At most as many bytes are wasted as were useful before.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::buffer_pool::BufferPool;
use crate::ids::ConsumerKey;
use crate::limits::{
    ARENA_CHUNK_BYTES, ARENA_CHUNKS_MAX, ARENA_FIRST_BYTES, ARENA_IDLE_INPUTS_MAX, ARENA_RUN_BYTES,
};

/// The memory that the consumers of a connection share.
#[derive(Debug)]
pub(crate) struct Arena {
    full: BufferPool,
    /// The number of inputs since a chunk was last needed.
    idle_inputs: u8,
    run: Run,
}

/// The chunk of one consumer.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    chunk: BytesMut,
    /// Whether the chunk has `ARENA_CHUNK_BYTES`.
    is_large: bool,
    /// The number of bytes stored since the reader last found the queue empty.
    stored: usize,
}

/// A copy of a part of the input.
#[derive(Debug, Default)]
struct Run {
    bytes: Bytes,
    /// The position of its start, counted from the end of the input.
    from_end: usize,
    /// The consumer for whose deliveries it was made.
    owner: Option<ConsumerKey>,
    /// The maximum length of the owner's next run.
    next: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self { full: BufferPool::new(ARENA_CHUNKS_MAX), idle_inputs: 0, run: Run::default() }
    }
}

impl Arena {
    /// Forgets the run, because the input is a new one or its end has moved.
    pub(crate) fn begin_input(&mut self) {
        (self.run.bytes, self.run.from_end) = (Bytes::new(), 0);
        self.idle_inputs = self.idle_inputs.saturating_add(1);
        if self.idle_inputs > ARENA_IDLE_INPUTS_MAX {
            self.full.clear();
        }
    }

    /// Returns a copy of a part of `input`. Since the last call, frames may have been taken from the front of
    /// the input, but nothing else may have changed. `more` returns whether another delivery for this
    /// consumer seems to follow, so that copying the bytes behind this one is worthwhile.
    #[inline(always)]
    pub(crate) fn store_part(
        &mut self,
        owner: ConsumerKey,
        shelf: &mut Shelf,
        input: &[u8],
        whole: Range<usize>,
        more: impl FnOnce() -> bool,
    ) -> Bytes {
        let (length, from_end) = (whole.len(), input.len() - whole.start);
        if let Some(at) = self.run.from_end.checked_sub(from_end)
            && at + length <= self.run.bytes.len()
            && self.run.owner == Some(owner)
        {
            return self.run.bytes.slice(at..at + length);
        }
        let rest = input.get(whole.start..).unwrap_or_default();
        self.begin_run(owner, shelf, rest, length, more())
    }

    /// Begins a run with the delivery of `length` bytes at the front of `rest`. Returns the copy of that
    /// delivery.
    #[inline(never)]
    fn begin_run(
        &mut self,
        owner: ConsumerKey,
        shelf: &mut Shelf,
        rest: &[u8],
        length: usize,
        more: bool,
    ) -> Bytes {
        if self.run.owner != Some(owner) {
            self.run.next = length;
        }
        // A run that holds fewer than three deliveries would waste half of its copy.
        let is_run = more && length <= ARENA_RUN_BYTES / 3;
        let run = if is_run { self.run.next.max(length) } else { length };
        let part = rest.get(..run).unwrap_or(rest);
        let bytes = self.store(shelf, part);
        let delivery = bytes.slice(..length);
        let next = if is_run { (2 * run).min(ARENA_RUN_BYTES) } else { self.run.next };
        self.run = Run { bytes, from_end: rest.len(), owner: Some(owner), next };
        delivery
    }

    /// Returns a copy of `data`. Data that would take a large part of a chunk gets an allocation of its own.
    fn store(&mut self, shelf: &mut Shelf, data: &[u8]) -> Bytes {
        shelf.stored = shelf.stored.saturating_add(data.len());
        let is_large = shelf.stored > ARENA_FIRST_BYTES;
        let size = if is_large { ARENA_CHUNK_BYTES } else { ARENA_FIRST_BYTES };
        if data.len() > size / 4 {
            return Bytes::copy_from_slice(data);
        }
        if shelf.chunk.capacity() < data.len() && !shelf.chunk.try_reclaim(size) {
            self.next_chunk(shelf, is_large);
        }
        shelf.chunk.extend_from_slice(data);
        shelf.chunk.split().freeze()
    }

    fn next_chunk(&mut self, shelf: &mut Shelf, is_large: bool) {
        self.idle_inputs = 0;
        let again = if is_large { self.full.reclaim(ARENA_CHUNK_BYTES) } else { None };
        let size = if is_large { ARENA_CHUNK_BYTES } else { ARENA_FIRST_BYTES };
        let next = again.unwrap_or_else(|| BytesMut::with_capacity(size));
        let full = std::mem::replace(&mut shelf.chunk, next);
        if std::mem::replace(&mut shelf.is_large, is_large) {
            self.full.retire(full);
        }
    }

    /// Shrinks the memory of a consumer that is idle: it keeps at most a small chunk.
    pub(crate) fn clear(&mut self, shelf: &mut Shelf) {
        shelf.stored = 0;
        if std::mem::take(&mut shelf.is_large) {
            self.full.retire(std::mem::take(&mut shelf.chunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Shelf};
    use crate::ids::ConsumerKey;
    use crate::limits::{ARENA_CHUNK_BYTES, ARENA_RUN_BYTES};
    use crate::slab::Key;

    /// For any distance between the parts, any length and any owner.
    #[test]
    fn parts_are_what_the_input_had_there() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 3) as u8).collect();
        for consumers in [1, 2, 5] {
            let mut arena = Arena::default();
            let mut shelves: Vec<Shelf> = (0..consumers).map(|_| Shelf::default()).collect();
            let mut kept = Vec::new();
            for (input, gap) in [(&bytes[..70_000], 30), (&bytes[20_000..], 900)] {
                arena.begin_input();
                let mut taken = 0;
                let lengths =
                    [16, 100, 0, ARENA_RUN_BYTES, 3, ARENA_RUN_BYTES + 1, ARENA_CHUNK_BYTES];
                for (number, length) in lengths.into_iter().cycle().take(30).enumerate() {
                    let rest = &input[taken..];
                    if rest.len() < gap + length {
                        break;
                    }
                    let whole = gap..gap + length;
                    let index = number / 3 % consumers;
                    let owner = ConsumerKey(Key { index: index as u32, generation: 0 });
                    let shelf = &mut shelves[index];
                    let more = || length % 2 == 0;
                    let stored = arena.store_part(owner, shelf, rest, whole.clone(), more);
                    kept.push((stored, &rest[whole]));
                    taken += gap + length;
                }
            }
            assert!(kept.len() > 30);
            for (stored, part) in kept {
                assert_eq!(stored, part);
            }
        }
    }
}
