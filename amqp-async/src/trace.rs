//! What is logged, with the feature `tracing`: the guide's page on logging lists the targets, levels and fields.
//!
//! Nothing is logged under the lock, for a subscriber is the application's code. A step is noted under it, with the
//! log of its connection, and written when the lock is released ([`Steps`]). Nothing is logged for each publish,
//! delivery or ack.

use std::sync::Arc;

use amqp_core::errors::FailedAttempt;
use amqp_core::types::FailedEntity;
use amqp_core::{
    CancelledConsumer, ChannelCause, CloseCause, FieldTable, LostConsumer, RenamedQueue, Retrying,
    Target,
};

/// The target of everything that the `tracing` feature logs of connections, channels and consumers. It is stable.
///
/// Frames have the target [`FRAME_LOG_TARGET`].
pub const LOG_TARGET: &str = "amqp";

/// The target of frames, which the `tracing` feature logs at TRACE. A filter for [`LOG_TARGET`] includes it, because
/// filters compare the beginning of targets. It is stable.
pub const FRAME_LOG_TARGET: &str = "amqp::frame";

/// Something that is logged.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nothing is logged"))]
pub(crate) enum Step {
    AttemptFailed(Box<FailedAttempt>),
    Blocked(Arc<str>),
    ChannelClosed(u16, Box<ChannelCause>),
    ChannelOpened(u16),
    Closed {
        cause: CloseCause,
        /// Whether the connection was open before.
        was_opened: bool,
    },
    ConsumerCancelled(Box<CancelledConsumer>),
    ConsumerLost(Box<LostConsumer>),
    CredentialsNotRenewed(Arc<str>),
    /// A delivery stays unacknowledged; the consumer's tag is empty for one that was got.
    DeliveryDropped {
        channel: u16,
        queue: String,
        consumer_tag: String,
    },
    /// The driver was dropped before the end of the connection, or behind a close that was not confirmed.
    DriverDropped {
        unsent_bytes: u64,
        cause: CloseCause,
        close_requested: bool,
    },
    Lost(CloseCause),
    Opened {
        target: Box<Target>,
        server: FieldTable,
    },
    QueueRenamed(Box<RenamedQueue>),
    ReadingPaused(usize),
    ReadingResumed,
    Recovered {
        target: Box<Target>,
        failed: Vec<FailedEntity>,
    },
    Retrying(Box<Retrying>),
    Unblocked,
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
    use super::{Direction, Step};

    /// The log of a connection.
    #[derive(Clone, Debug)]
    pub(crate) struct Log;

    impl Log {
        pub(crate) const fn new(_: Option<&str>) -> Self {
            Self
        }
    }

    /// What is to be logged once the lock is released.
    #[derive(Debug, Default)]
    pub(crate) struct Steps;

    impl Steps {
        pub(crate) const ENABLED: bool = false;

        #[inline]
        pub(crate) fn add(&mut self, _: &Log, _: impl FnOnce() -> Step) {}

        #[inline]
        pub(crate) const fn write(&mut self) {}
    }

    /// The queue of deliveries.
    #[derive(Clone, Debug)]
    pub(crate) struct QueueName;

    impl QueueName {
        #[inline]
        pub(crate) const fn new(_: &str) -> Self {
            Self
        }

        pub(crate) const fn name(&self) -> String {
            String::new()
        }
    }

    /// Whether something was logged before.
    #[derive(Debug, Default)]
    pub(crate) struct Once(());

    impl Once {
        #[inline]
        pub(crate) const fn is_first(&self) -> bool {
            false
        }
    }

    /// The frames of one direction, logged as their bytes pass.
    #[derive(Debug)]
    pub(crate) struct Frames;

    impl Frames {
        pub(crate) const fn new(_: &Log, _: Direction) -> Self {
            Self
        }

        pub(crate) const fn restart(&mut self) {}

        #[inline]
        pub(crate) const fn wants_bytes(&self) -> bool {
            false
        }

        pub(crate) const fn pass(&mut self, _: &[u8]) {}
    }
}

#[cfg(feature = "tracing")]
mod logging {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use amqp_core::proto::frame::{FRAME_HEAD, FRAME_OVERHEAD, FrameHead, FrameKind, FrameLimits};
    use amqp_core::proto::method::MethodId;
    use amqp_core::types::FailedEntity;
    use amqp_core::{ChannelCause, CloseCause, FieldTable, FieldValue, Retrying, Target};
    use tracing::field::{Empty, display};
    use tracing::{Level, Span, debug, enabled, error_span, info, trace, warn};

    use super::{Direction, FRAME_LOG_TARGET, LOG_TARGET, Step};

    /// The log of a connection: its span.
    ///
    /// The span has no parent, for a connection outlives the work in which it is opened. Its level is the highest,
    /// so that no filter by level separates an event from it. A clone does not call the subscriber.
    #[derive(Clone, Debug)]
    pub(crate) struct Log(Arc<Span>);

    impl Log {
        pub(crate) fn new(name: Option<&str>) -> Self {
            let peer = Empty;
            Self(Arc::new(error_span!(target: LOG_TARGET, parent: None, "connection", name, peer)))
        }

        fn write(&self, step: Step) {
            let span = &*self.0;
            match step {
                Step::AttemptFailed(attempt) => {
                    debug!(target: LOG_TARGET, parent: span, %attempt, "attempt to connect failed");
                }
                Step::Blocked(reason) => {
                    let reason = &*reason;
                    warn!(target: LOG_TARGET, parent: span, reason, "connection blocked by the broker");
                }
                Step::ChannelClosed(channel, cause) => match *cause {
                    ChannelCause::ByBroker(error) => {
                        info!(target: LOG_TARGET, parent: span, channel, %error, "channel closed by the broker");
                    }
                    cause => {
                        debug!(target: LOG_TARGET, parent: span, channel, %cause, "channel closed");
                    }
                },
                Step::ChannelOpened(channel) => {
                    debug!(target: LOG_TARGET, parent: span, channel, "channel opened");
                }
                Step::Closed { cause, was_opened } => self.closed(&cause, was_opened),
                Step::ConsumerCancelled(consumer) => {
                    let channel = consumer.number;
                    let (queue, consumer_tag) = (&*consumer.queue, &*consumer.consumer_tag);
                    info!(
                        target: LOG_TARGET, parent: span, channel, queue, consumer_tag,
                        "consumer cancelled by the broker"
                    );
                }
                Step::ConsumerLost(consumer) => {
                    let (queue, consumer_tag) = (&*consumer.queue, &*consumer.consumer_tag);
                    let error = &consumer.error;
                    warn!(
                        target: LOG_TARGET, parent: span, queue, consumer_tag, %error,
                        "consumer not started again"
                    );
                }
                Step::CredentialsNotRenewed(reason) => {
                    let reason = &*reason;
                    warn!(
                        target: LOG_TARGET, parent: span, reason,
                        "credentials about to expire and not renewed"
                    );
                }
                Step::DeliveryDropped { channel, queue, consumer_tag } => {
                    let consumer_tag = Some(&*consumer_tag).filter(|tag| !tag.is_empty());
                    warn!(
                        target: LOG_TARGET, parent: span, channel, queue, consumer_tag,
                        "delivery dropped without ack or nack: it stays unacknowledged until the channel closes"
                    );
                }
                Step::DriverDropped { unsent_bytes: 0, cause, close_requested: true } => {
                    info!(target: LOG_TARGET, parent: span, %cause, "connection closed");
                }
                Step::DriverDropped { unsent_bytes: 0, cause, .. } => self.closed(&cause, true),
                Step::DriverDropped { unsent_bytes, cause, .. } => {
                    warn!(
                        target: LOG_TARGET, parent: span, %cause, unsent_bytes,
                        "connection ended with unsent bytes"
                    );
                }
                Step::Lost(cause) => {
                    warn!(target: LOG_TARGET, parent: span, %cause, "connection lost, recovering");
                }
                Step::Opened { target, server } => {
                    span.record("peer", display(Peer(&target)));
                    let (host, port) = (&*target.endpoint.host, target.endpoint.port);
                    let [product, version] = ["product", "version"].map(|key| text(&server, key));
                    info!(
                        target: LOG_TARGET, parent: span, host, port, product, version,
                        "connection opened"
                    );
                }
                Step::ReadingPaused(unread_bytes) => {
                    debug!(target: LOG_TARGET, parent: span, unread_bytes, "reading paused");
                }
                Step::ReadingResumed => {
                    debug!(target: LOG_TARGET, parent: span, "reading resumed");
                }
                Step::QueueRenamed(renamed) => {
                    let (from, to) = (&*renamed.from, &*renamed.to);
                    info!(target: LOG_TARGET, parent: span, from, to, "queue renamed");
                }
                Step::Recovered { target, failed } => {
                    for FailedEntity { entity, error, .. } in failed {
                        warn!(target: LOG_TARGET, parent: span, %entity, %error, "not declared again");
                    }
                    // Subscribers append what is recorded: with another peer at each loss, a span would grow.
                    let (host, port) = (&*target.endpoint.host, target.endpoint.port);
                    info!(target: LOG_TARGET, parent: span, host, port, "connection recovered");
                }
                Step::Retrying(retrying) => {
                    let Retrying { attempt, delay, cause, .. } = &*retrying;
                    info!(
                        target: LOG_TARGET, parent: span, attempt, ?delay, %cause,
                        "connection retry scheduled"
                    );
                }
                Step::Unblocked => {
                    info!(target: LOG_TARGET, parent: span, "connection unblocked by the broker");
                }
            }
        }

        fn closed(&self, cause: &CloseCause, was_opened: bool) {
            let span = &*self.0;
            match cause {
                CloseCause::ByClient | CloseCause::ByClientForced | CloseCause::Aborted => {
                    info!(target: LOG_TARGET, parent: span, %cause, "connection closed");
                }
                // The error is returned by the connector.
                CloseCause::Connect(_) if !was_opened => {
                    debug!(target: LOG_TARGET, parent: span, %cause, "connection not opened");
                }
                _ => warn!(target: LOG_TARGET, parent: span, %cause, "connection lost"),
            }
        }
    }

    /// The address of a peer, or its host and port if the address is not known.
    struct Peer<'a>(&'a Target);

    impl fmt::Display for Peer<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let endpoint = &self.0.endpoint;
            match self.0.address {
                Some(address) => address.fmt(f),
                None => write!(f, "{}:{}", endpoint.host, endpoint.port),
            }
        }
    }

    fn text<'a>(table: &'a FieldTable, key: &str) -> Option<&'a str> {
        table.get(key).and_then(FieldValue::as_str)
    }

    /// What is to be logged once the lock is released.
    #[derive(Debug, Default)]
    pub(crate) struct Steps(Vec<(Log, Step)>);

    impl Steps {
        pub(crate) const ENABLED: bool = true;

        pub(crate) fn add(&mut self, log: &Log, step: impl FnOnce() -> Step) {
            self.0.push((log.clone(), step()));
        }

        /// Calls the subscriber, which may panic.
        pub(crate) fn write(&mut self) {
            for (log, step) in self.0.drain(..) {
                log.write(step);
            }
        }
    }

    /// The queue of deliveries.
    #[derive(Clone, Debug)]
    pub(crate) struct QueueName(Arc<str>);

    impl QueueName {
        pub(crate) fn new(name: &str) -> Self {
            Self(name.into())
        }

        pub(crate) fn name(&self) -> String {
            self.0.as_ref().into()
        }
    }

    /// Whether something was logged before.
    #[derive(Debug, Default)]
    pub(crate) struct Once(AtomicBool);

    impl Once {
        pub(crate) fn is_first(&self) -> bool {
            !self.0.swap(true, Ordering::Relaxed)
        }
    }

    /// What is too large is logged too.
    const ANY_SIZE: FrameLimits =
        FrameLimits { body: u32::MAX, header: u32::MAX, method: u32::MAX };

    /// The frames of one direction, logged as their bytes pass.
    #[derive(Debug)]
    pub(crate) struct Frames {
        log: Log,
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
        pub(crate) fn new(log: &Log, direction: Direction) -> Self {
            let enabled = enabled!(target: FRAME_LOG_TARGET, Level::TRACE);
            Self { log: log.clone(), direction, enabled, head: Vec::new(), skipped: 0 }
        }

        /// Another transport begins.
        pub(crate) fn restart(&mut self) {
            *self = Self::new(&self.log, self.direction);
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
                    self.write();
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

        fn write(&mut self) {
            let span = &*self.log.0;
            let direction = match self.direction {
                Direction::Received => "received",
                Direction::Sent => "sent",
            };
            let head = std::mem::take(&mut self.head);
            let Ok(Some(frame)) = FrameHead::parse(&head, ANY_SIZE) else {
                trace!(target: FRAME_LOG_TARGET, parent: span, direction, "protocol header");
                return;
            };
            let (channel, size) = (frame.channel, frame.size as usize);
            self.skipped = (size + FRAME_OVERHEAD).saturating_sub(head.len());
            match MethodId::split(&head[FRAME_HEAD..]) {
                Ok((method, _)) => {
                    trace!(target: FRAME_LOG_TARGET, parent: span, direction, channel, %method, size, "frame");
                }
                Err(_) => {
                    let kind = frame.kind;
                    trace!(target: FRAME_LOG_TARGET, parent: span, direction, channel, ?kind, size, "frame");
                }
            }
        }
    }
}

pub(crate) use logging::{Frames, Log, Once, QueueName, Steps};
