//! Memory for small deliveries: many share one chunk, each keeps it by reference.
//!
//! Deliveries that lie in the input one behind the other are copied together, a run at a time, and
//! each takes its part of the copy. A run is known by its distance from the end of the input, which
//! stays the same while frames are taken off the front.
//!
//! A chunk that is full waits for its messages to go, and is then used again.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::limits::{ARENA_CHUNK_BYTES, ARENA_CHUNKS_MAX, ARENA_IDLE_INPUTS_MAX, ARENA_RUN_BYTES};
use crate::recycler::Recycler;

#[derive(Debug)]
pub(crate) struct Arena {
    chunk: Option<BytesMut>,
    full: Recycler,
    /// Inputs since a chunk was needed.
    idle_inputs: u8,
    run: Run,
}

/// A copy of a part of the input.
#[derive(Debug, Default)]
struct Run {
    bytes: Bytes,
    /// Where it begins, counted from the end of the input.
    from_end: usize,
}

impl Default for Arena {
    fn default() -> Self {
        let full = Recycler::new(ARENA_CHUNKS_MAX);
        Self { chunk: None, full, idle_inputs: 0, run: Run::default() }
    }
}

impl Arena {
    /// A copy of `data`. One that would take a good part of a chunk gets memory of its own.
    #[inline]
    pub(crate) fn store(&mut self, data: &[u8]) -> Bytes {
        if data.len() > ARENA_CHUNK_BYTES / 4 {
            return Bytes::copy_from_slice(data);
        }
        let chunk = match &mut self.chunk {
            Some(chunk) if chunk.capacity() >= data.len() => chunk,
            _ => self.next_chunk(),
        };
        chunk.extend_from_slice(data);
        chunk.split().freeze()
    }

    fn next_chunk(&mut self) -> &mut BytesMut {
        if let Some(full) = self.chunk.take() {
            self.full.retire(full);
        }
        self.idle_inputs = 0;
        let again = self.full.reclaim(ARENA_CHUNK_BYTES);
        self.chunk.insert(again.unwrap_or_else(|| BytesMut::with_capacity(ARENA_CHUNK_BYTES)))
    }

    /// The input is another, or has another end.
    pub(crate) fn begin_input(&mut self) {
        self.run = Run::default();
        self.idle_inputs = self.idle_inputs.saturating_add(1);
        if self.idle_inputs > ARENA_IDLE_INPUTS_MAX {
            self.full.clear();
        }
    }

    /// A copy of a part of `input`, of which frames may have been taken off the front since the last
    /// time, and nothing else. `more` tells whether another part is likely to follow, so that what
    /// comes next is worth copying.
    #[inline]
    pub(crate) fn store_part(
        &mut self,
        input: &[u8],
        whole: Range<usize>,
        more: impl FnOnce() -> bool,
    ) -> Bytes {
        let (length, from_end) = (whole.len(), input.len() - whole.start);
        if let Some(at) = self.run.from_end.checked_sub(from_end)
            && at + length <= self.run.bytes.len()
        {
            return self.run.bytes.slice(at..at + length);
        }
        let rest = input.get(whole.start..).unwrap_or_default();
        let run = if more() { length.max(ARENA_RUN_BYTES) } else { length };
        let run = rest.get(..run).unwrap_or(rest);
        self.run = Run { bytes: self.store(run), from_end };
        self.run.bytes.slice(..length)
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;
    use crate::limits::{ARENA_CHUNK_BYTES, ARENA_RUN_BYTES};

    /// Whatever lies between, and however long the parts are.
    #[test]
    fn parts_are_what_the_input_had_there() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 3) as u8).collect();
        let mut arena = Arena::default();
        let mut kept = Vec::new();
        for (input, gap) in [(&bytes[..70_000], 30), (&bytes[20_000..], 900)] {
            arena.begin_input();
            let mut taken = 0;
            for length in [16, 100, 0, ARENA_RUN_BYTES, 3, ARENA_RUN_BYTES + 1, ARENA_CHUNK_BYTES]
                .into_iter()
                .cycle()
                .take(30)
            {
                let rest = &input[taken..];
                if rest.len() < gap + length {
                    break;
                }
                let whole = gap..gap + length;
                let stored = arena.store_part(rest, whole.clone(), || length % 2 == 0);
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
