//! What is known of the incomplete frame at the front of the input.

use bytes::BytesMut;

use crate::limits::READ_BUFFER_SLACK_BYTES;

/// The incomplete frame at the front of the input.
#[derive(Debug, Default)]
pub(super) struct PartialInput {
    /// The number of bytes of a frame that are still to be skipped.
    pub(super) skipped: usize,
    /// The number of bytes of the incomplete frame that had arrived with the last input.
    pub(super) incomplete: usize,
    /// The number of bytes that the incomplete frame lacks.
    pub(super) lacking: usize,
    pub(super) buffer: InputBuffer,
}

/// The allocation that contains the input, as far as it was seen.
///
/// Frames are taken off the front, and the buffer may be moved or replaced between two inputs. The address of
/// its end shows whether it is still the same.
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

    /// Whether a body of `length` bytes makes up about half of the buffer or more, so that it may keep the
    /// buffer's memory alive.
    pub(super) const fn is_mostly(&self, length: usize) -> bool {
        2 * length + READ_BUFFER_SLACK_BYTES >= self.end - self.start
    }
}
