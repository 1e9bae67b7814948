//! What is known of the input that is not taken yet.

use bytes::BytesMut;

use crate::limits::READ_BUFFER_SLACK_BYTES;

/// The frame at the front of the input that is not there in whole.
#[derive(Debug, Default)]
pub(super) struct PartialInput {
    /// Bytes of a frame that are still to be read past.
    pub(super) skipped: usize,
    /// Bytes of an incomplete frame that were there at the last input.
    pub(super) incomplete: usize,
    /// Bytes that this frame lacks.
    pub(super) lacking: usize,
    pub(super) buffer: InputBuffer,
}

/// The allocation in which the input lies, as far as it was seen.
///
/// Frames are taken off the front, and the buffer may be moved or replaced between two inputs. Its end
/// tells whether it is still the same.
#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    start: usize,
    end: usize,
}

impl InputBuffer {
    pub(super) fn see(&mut self, input: &BytesMut) {
        let start = input.as_ptr().addr();
        let end = start + input.capacity();
        self.start = if end == self.end { start.min(self.start) } else { start };
        self.end = end;
    }

    /// Whether a part of `length` bytes holds little memory beside its own.
    pub(super) const fn is_mostly(&self, length: usize) -> bool {
        2 * length + READ_BUFFER_SLACK_BYTES >= self.end - self.start
    }
}
