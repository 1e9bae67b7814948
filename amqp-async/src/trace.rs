//! What is logged, with the feature `tracing`: the lifecycle of connections and channels at DEBUG, what is lost
//! without an error at WARN, every frame at TRACE. Names and sizes only: no argument, no body, no secret.
//!
//! Nothing is logged under the lock, for a subscriber is the application's code.

use amqp_core::{ChannelCause, ChannelId, CloseCause};

/// A step in the lifecycle of a connection or a channel.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nothing is logged"))]
pub(crate) enum Lifecycle {
    Blocked(std::sync::Arc<str>),
    ChannelClosed(ChannelId, Option<ChannelCause>),
    ChannelOpened(ChannelId),
    Closed(CloseCause),
    Opened,
    Unblocked,
    /// The driver was dropped with this many bytes to be sent.
    Unsent(u64),
}

/// A direction of frames.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nothing is logged"))]
pub(crate) enum Direction {
    Received,
    Sent,
}

#[cfg(not(feature = "tracing"))]
mod logging {
    use super::{Direction, Lifecycle};

    pub(crate) const IS_ENABLED: bool = false;

    #[inline]
    pub(crate) fn log(_: impl FnOnce() -> Lifecycle) {}

    /// The frames of one direction, logged as their bytes pass.
    #[derive(Debug)]
    pub(crate) struct Frames;

    impl Frames {
        pub(crate) const fn new(_: Direction) -> Self {
            Self
        }

        #[inline]
        pub(crate) const fn wants_bytes(&self) -> bool {
            false
        }

        pub(crate) const fn pass(&mut self, _: &[u8]) {}
    }
}

#[cfg(feature = "tracing")]
mod logging {
    use amqp_core::proto::frame::{FRAME_HEAD, FRAME_OVERHEAD, FrameHead, FrameKind, FrameLimits};
    use amqp_core::proto::method::MethodId;
    use tracing::{Level, debug, enabled, trace, warn};

    use super::{Direction, Lifecycle};

    /// Whether steps may be logged. Subscribers are not asked under the lock: their answer is the
    /// application's code too.
    pub(crate) const IS_ENABLED: bool = true;

    /// Logs one step.
    pub(crate) fn log(step: impl FnOnce() -> Lifecycle) {
        match step() {
            Lifecycle::Blocked(reason) => debug!(%reason, "connection blocked"),
            Lifecycle::ChannelClosed(channel, Some(cause)) => {
                debug!(?channel, %cause, "channel closed");
            }
            Lifecycle::ChannelClosed(channel, None) => debug!(?channel, "channel closed"),
            Lifecycle::ChannelOpened(channel) => debug!(?channel, "channel opened"),
            Lifecycle::Closed(cause) => debug!(%cause, "connection closed"),
            Lifecycle::Opened => debug!("connection opened"),
            Lifecycle::Unblocked => debug!("connection unblocked"),
            Lifecycle::Unsent(bytes) => {
                warn!(
                    bytes,
                    "driver dropped with unsent bytes: close or drain the connection first"
                );
            }
        }
    }

    /// What is too large is logged too.
    const ANY_SIZE: FrameLimits =
        FrameLimits { body: u32::MAX, header: u32::MAX, method: u32::MAX };

    /// The frames of one direction, logged as their bytes pass.
    #[derive(Debug)]
    pub(crate) struct Frames {
        direction: Direction,
        /// Whether frames were logged when the transport was connected. Whoever enables them later does not
        /// know where a frame begins.
        enabled: bool,
        /// The beginning of a frame, as far as it is looked at.
        head: Vec<u8>,
        /// Bytes of a frame that are not looked at.
        skipped: usize,
    }

    impl Frames {
        pub(crate) fn new(direction: Direction) -> Self {
            let enabled = enabled!(Level::TRACE);
            Self { direction, enabled, head: Vec::new(), skipped: 0 }
        }

        pub(crate) const fn wants_bytes(&self) -> bool {
            self.enabled
        }

        pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
            while self.enabled && !bytes.is_empty() {
                let skipped = self.skipped.min(bytes.len());
                self.skipped -= skipped;
                bytes = &bytes[skipped..];
                let Some(wanted) = self.wanted() else { return };
                let taken = (wanted - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if self.skipped == 0 && self.wanted() == Some(self.head.len()) {
                    self.log();
                }
            }
        }

        /// How much of a frame's beginning is looked at; `None` if it is no frame.
        fn wanted(&mut self) -> Option<usize> {
            match FrameHead::parse(&self.head, ANY_SIZE) {
                // The protocol header is no frame.
                Err(_) if self.head.first() == Some(&b'A') => Some(8),
                Err(_) => {
                    self.enabled = false;
                    None
                }
                Ok(Some(head)) if head.kind == FrameKind::Method => Some(FRAME_HEAD + 4),
                Ok(_) => Some(FRAME_HEAD),
            }
        }

        fn log(&mut self) {
            let direction = match self.direction {
                Direction::Received => "received",
                Direction::Sent => "sent",
            };
            let head = std::mem::take(&mut self.head);
            match FrameHead::parse(&head, ANY_SIZE) {
                Ok(Some(frame)) => {
                    let method = MethodId::split(&head[FRAME_HEAD..]).ok();
                    let size = frame.size as usize;
                    self.skipped = (size + FRAME_OVERHEAD).saturating_sub(head.len());
                    let channel = frame.channel;
                    match method {
                        Some((method, _)) => trace!(direction, channel, %method, size, "frame"),
                        None => trace!(direction, channel, kind = ?frame.kind, size, "frame"),
                    }
                }
                _ => trace!(direction, "protocol header"),
            }
        }
    }
}

pub(crate) use logging::{Frames, IS_ENABLED, log};
