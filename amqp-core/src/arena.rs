//! Memory for small deliveries: many share one chunk, each keeps it by reference.

use bytes::{Bytes, BytesMut};

use crate::limits::ARENA_CHUNK_BYTES;

#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunk: BytesMut,
}

impl Arena {
    /// A copy of `data`. One that would take a good part of a chunk gets memory of its own.
    #[inline]
    pub(crate) fn store(&mut self, data: &[u8]) -> Bytes {
        if data.len() > ARENA_CHUNK_BYTES / 4 {
            return Bytes::copy_from_slice(data);
        }
        if self.chunk.capacity() < data.len() {
            self.chunk = BytesMut::with_capacity(ARENA_CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(data);
        self.chunk.split().freeze()
    }
}
