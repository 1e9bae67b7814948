//! Memory for small deliveries: those of one consumer share chunks, and each keeps its chunk by
//! reference.
//!
//! **A chunk holds deliveries of one consumer** (its [`Shelf`]), so that the few that a slow consumer has
//! not read do not keep the memory of another consumer's many. A consumer begins with a small chunk, and
//! gets large ones once it has filled that without its reader having found nothing. A large chunk that is
//! used up waits in the [`Arena`] for its deliveries to go, and is then used again.
//!
//! **Runs.** Deliveries that lie in the input one behind the other are copied together, a run at a time,
//! and each takes its part of the copy. A run is known by its distance from the end of the input, which
//! stays the same while frames are taken off the front. A run may cover deliveries of another consumer,
//! which are then copied in vain. So a run begins with one delivery, and doubles while the deliveries
//! belong to the same consumer: what is in vain is at most what was of use before.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::buffer_pool::BufferPool;
use crate::ids::ConsumerKey;
use crate::limits::{
    ARENA_CHUNK_BYTES, ARENA_CHUNKS_MAX, ARENA_FIRST_BYTES, ARENA_IDLE_INPUTS_MAX, ARENA_RUN_BYTES,
};

/// What the consumers of a connection share.
#[derive(Debug)]
pub(crate) struct Arena {
    full: BufferPool,
    /// Inputs since a chunk was needed.
    idle_inputs: u8,
    run: Run,
}

/// The memory of one consumer.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    chunk: BytesMut,
    /// It is one of `ARENA_CHUNK_BYTES`.
    is_large: bool,
    /// Bytes stored since its reader found nothing.
    stored: usize,
}

/// A copy of a part of the input.
#[derive(Debug, Default)]
struct Run {
    bytes: Bytes,
    /// Where it begins, counted from the end of the input.
    from_end: usize,
    /// Whose deliveries it was made for.
    owner: Option<ConsumerKey>,
    /// How long the owner's next one may be.
    next: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self { full: BufferPool::new(ARENA_CHUNKS_MAX), idle_inputs: 0, run: Run::default() }
    }
}

impl Arena {
    /// The input is another, or has another end.
    pub(crate) fn begin_input(&mut self) {
        (self.run.bytes, self.run.from_end) = (Bytes::new(), 0);
        self.idle_inputs = self.idle_inputs.saturating_add(1);
        if self.idle_inputs > ARENA_IDLE_INPUTS_MAX {
            self.full.clear();
        }
    }

    /// A copy of a part of `input`, of which frames may have been taken off the front since the last
    /// time, and nothing else. `more` returns whether another part for this consumer seems to follow, so
    /// that what comes next is worth copying.
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

    /// Begins a run with the delivery of `length` bytes at the front of `rest`; returns the copy of that.
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
        // A run with space for less than three deliveries would be half in vain.
        let is_run = more && length <= ARENA_RUN_BYTES / 3;
        let run = if is_run { self.run.next.max(length) } else { length };
        let part = rest.get(..run).unwrap_or(rest);
        let bytes = self.store(shelf, part);
        let delivery = bytes.slice(..length);
        let next = if is_run { (2 * run).min(ARENA_RUN_BYTES) } else { self.run.next };
        self.run = Run { bytes, from_end: rest.len(), owner: Some(owner), next };
        delivery
    }

    /// A copy of `data`. One that would take a good part of a chunk gets memory of its own.
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

    /// The consumer is quiet: it keeps no more than a small chunk.
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

    /// Whatever lies between, however long the parts are, and whose they are.
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
