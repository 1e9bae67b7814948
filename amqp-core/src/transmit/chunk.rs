//! A run of output in wire order: flat bytes, with larger bodies inserted by reference.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;

use bytes::Bytes;

/// The bytes that the driver writes.
#[derive(Debug, Default)]
pub struct Transmit {
    pub(super) chunk: Chunk,
    /// The number of bytes of `chunk.flat` that were written.
    flat_written: usize,
    /// The number of bytes of the first insert that were written.
    insert_written: usize,
    /// Where the last insert was that is written and removed. A frame begins or ends there.
    removed_at: usize,
}

impl Transmit {
    /// Creates an empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether all bytes were written.
    pub fn is_empty(&self) -> bool {
        self.flat_written == self.chunk.flat.len() && self.chunk.inserts.is_empty()
    }

    /// Fills `slices` with the bytes to write next, for a vectored write. Returns the number of slices
    /// filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut flat_from = self.flat_written;
        let mut insert_from = self.insert_written;
        let mut fill = |bytes: &'a [u8]| match slices.get_mut(filled) {
            Some(slice) => {
                *slice = IoSlice::new(bytes);
                filled += 1;
                true
            }
            None => false,
        };
        for insert in &self.chunk.inserts {
            let before = self.chunk.flat.get(flat_from..insert.at).unwrap_or_default();
            let body = insert.bytes.get(insert_from..).unwrap_or_default();
            if (!before.is_empty() && !fill(before)) || !fill(body) {
                return filled;
            }
            (flat_from, insert_from) = (insert.at, 0);
        }
        let rest = self.chunk.flat.get(flat_from..).unwrap_or_default();
        if !rest.is_empty() {
            fill(rest);
        }
        filled
    }

    /// Records that `written` more bytes have reached the socket.
    pub fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let flat_to = self.chunk.inserts.front().map_or(self.chunk.flat.len(), |i| i.at);
            let from_flat = written.min(flat_to - self.flat_written);
            self.flat_written += from_flat;
            written -= from_flat;
            let Some(insert) = self.chunk.inserts.front() else { break };
            let from_insert = written.min(insert.bytes.len() - self.insert_written);
            self.insert_written += from_insert;
            written -= from_insert;
            if self.insert_written == insert.bytes.len() {
                self.removed_at = insert.at;
                self.chunk.inserts.pop_front();
                self.insert_written = 0;
            } else {
                break;
            }
        }
        if self.is_empty() {
            self.clear();
        }
    }

    /// Copies all bytes that are still to be written, for tests and simple loops.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().flatten().copied().collect()
    }

    /// Returns all bytes that are still to be written, in pieces and in their order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (mut flat_from, mut insert_from) = (self.flat_written, self.insert_written);
        let inserts = self.chunk.inserts.iter().flat_map(move |insert| {
            let before = self.chunk.flat.get(flat_from..insert.at).unwrap_or_default();
            let body = insert.bytes.get(insert_from..).unwrap_or_default();
            (flat_from, insert_from) = (insert.at, 0);
            [before, body]
        });
        let last = self.chunk.inserts.back().map_or(self.flat_written, |insert| insert.at);
        inserts.chain([self.chunk.flat.get(last..).unwrap_or_default()])
    }

    /// Returns the channel of each publish of which no byte was written.
    pub(crate) fn unsent_publishes(&self) -> impl Iterator<Item = u16> {
        self.chunk.publishes_from(self.removed_at, self.flat_written)
    }

    pub(super) fn clear(&mut self) {
        self.chunk.clear();
        (self.flat_written, self.insert_written, self.removed_at) = (0, 0, 0);
    }
}

/// Flat bytes, with larger ones inserted by reference.
///
/// `Debug` shows no bytes: they may be a login's.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) flat: Vec<u8>,
    pub(super) inserts: VecDeque<Insert>,
    inserted: usize,
}

pub(super) struct Insert {
    /// The position in the flat bytes where this is inserted.
    pub(super) at: usize,
    bytes: Bytes,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.flat.len() + self.inserted
    }

    pub(super) fn clear(&mut self) {
        self.flat.clear();
        self.inserts.clear();
        self.inserted = 0;
    }

    /// Appends bytes by reference.
    pub(super) fn insert(&mut self, bytes: Bytes) {
        self.inserted += bytes.len();
        self.inserts.push_back(Insert { at: self.flat.len(), bytes });
    }

    /// Removes the inserted bytes.
    pub(super) fn drain_inserts(&mut self) -> impl Iterator<Item = Bytes> {
        self.inserts.drain(..).map(|insert| insert.bytes)
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
