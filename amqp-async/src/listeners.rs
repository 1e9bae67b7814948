//! The queues of connection events, one for each listener.
//!
//! When a queue is full, its oldest event is dropped, and the number of missing events is reported to the
//! listener.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::limits::EVENTS_MAX;
use amqp_core::types::FailedEntity;
use amqp_core::{CloseCause, Error, Event};

use crate::wakers::{Released, register};

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The broker is low on memory or disk space. It reads nothing from this connection until
    /// [`Unblocked`](Self::Unblocked): publishes and calls wait, deliveries continue
    /// (<https://www.rabbitmq.com/docs/connection-blocked>). The text is the broker's reason.
    Blocked(Arc<str>),
    /// The connection closed. It is the last event.
    Closed(CloseCause),
    /// A consumer could not be started again when the connection was recovered: it has ended with the error.
    ConsumerLost {
        /// The queue that it consumed from.
        queue: Arc<str>,
        /// The consumer's tag.
        consumer_tag: Arc<str>,
        /// Why the broker refused it.
        error: Error,
    },
    /// The credentials in use are about to expire, and the
    /// [provider](crate::Connector::credentials_provider) returned no new ones, for this reason. It is called again.
    CredentialsNotRenewed(Arc<str>),
    /// Deliveries were dropped without an ack or nack. They stay unacknowledged until their channels close.
    /// The value is their number since the last event.
    DeliveriesDropped(u64),
    /// The connection was lost, for this reason, and is being recovered: [`Retrying`](Self::Retrying) follows. Channels
    /// and consumers continue after [`Recovered`](Self::Recovered), and what is called until then waits.
    Lost(CloseCause),
    /// Events were dropped because the listener did not take them. The value is their number.
    Missed(u64),
    /// A queue whose name the broker chooses has another name since the connection was recovered. Its bindings and
    /// consumers are restored under the new name.
    QueueRenamed {
        /// The name before the connection was lost.
        from: Arc<str>,
        /// The present name.
        to: Arc<str>,
    },
    /// Reading pauses because of unread deliveries that no prefetch bounds: consumers without acknowledgement
    /// or with prefetch 0 are slower than the broker.
    ///
    /// Emitted at the first pause (8 MiB), and again at 64 MiB, above which not even replies to calls are
    /// read. A flood pauses reading many times. That is reported once, until
    /// [`ReadingResumed`](Self::ReadingResumed).
    ReadingPaused {
        /// The number of bytes of these deliveries.
        unread_bytes: usize,
    },
    /// Reading continues after a pause: at most 4 MiB of these deliveries are unread.
    ReadingResumed,
    /// The connection is recovered: it is open again, and everything is restored that could be.
    Recovered {
        /// The exchanges, queues and bindings that could not be declared again.
        failed: Vec<FailedEntity>,
    },
    /// The connection waits before its next attempt to recover.
    Retrying {
        /// The number of the attempt since the connection was last open, from 1.
        attempt: u32,
        /// The delay before the attempt.
        delay: Duration,
        /// Why the connection was lost, or why the attempt before has failed.
        cause: CloseCause,
    },
    /// The broker reads from the connection again.
    Unblocked,
}

/// The listeners of a connection by number.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    next: u64,
    listeners: BTreeMap<u64, Listener>,
}

#[derive(Debug, Default)]
pub(crate) struct Listener {
    events: VecDeque<ConnectionEvent>,
    missed: u64,
    waker: Option<Waker>,
    ended: bool,
}

impl Listeners {
    /// Adds a listener. If the connection has ended, it receives only the cause.
    pub(crate) fn add(&mut self, cause: Option<CloseCause>) -> u64 {
        self.next += 1;
        let closed = cause.map(ConnectionEvent::Closed);
        let listener = Listener { events: closed.into_iter().collect(), ..Listener::default() };
        self.listeners.insert(self.next, listener);
        self.next
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Listener> {
        self.listeners.get_mut(&number)
    }

    pub(crate) fn remove(&mut self, number: u64, released: &mut Released) {
        if let Some(listener) = self.listeners.remove(&number) {
            released.drop_waker(listener.waker);
        }
    }

    /// Reports an event to every listener, if it is one for applications.
    pub(crate) fn report(&mut self, event: &Event, released: &mut Released) {
        if self.listeners.is_empty() {
            return;
        }
        let event = match event {
            Event::Blocked(reason) => ConnectionEvent::Blocked(Arc::clone(reason)),
            Event::Closed(cause) => ConnectionEvent::Closed(cause.clone()),
            Event::ConsumerLost(consumer) => ConnectionEvent::ConsumerLost {
                queue: Arc::clone(&consumer.queue),
                consumer_tag: Arc::clone(&consumer.consumer_tag),
                error: consumer.error.clone(),
            },
            Event::CredentialsNotRenewed(reason) => {
                ConnectionEvent::CredentialsNotRenewed(Arc::clone(reason))
            }
            Event::Dropped(_) => ConnectionEvent::DeliveriesDropped(1),
            Event::InputPaused { unread_bytes } => {
                ConnectionEvent::ReadingPaused { unread_bytes: *unread_bytes }
            }
            Event::InputResumed => ConnectionEvent::ReadingResumed,
            Event::Lost(cause) => ConnectionEvent::Lost((**cause).clone()),
            Event::QueueRenamed(renamed) => ConnectionEvent::QueueRenamed {
                from: Arc::clone(&renamed.from),
                to: Arc::clone(&renamed.to),
            },
            Event::Recovered(report) => {
                ConnectionEvent::Recovered { failed: report.failed.clone() }
            }
            Event::Retrying(retrying) => ConnectionEvent::Retrying {
                attempt: retrying.attempt,
                delay: retrying.delay,
                cause: retrying.cause.clone(),
            },
            Event::Unblocked => ConnectionEvent::Unblocked,
            _ => return,
        };
        for listener in self.listeners.values_mut() {
            listener.push(event.clone());
            released.wake(listener.waker.take());
        }
    }
}

impl Listener {
    /// Takes the oldest event.
    pub(crate) fn take(&mut self) -> Option<ConnectionEvent> {
        if self.missed > 0 {
            return Some(ConnectionEvent::Missed(std::mem::take(&mut self.missed)));
        }
        let event = self.events.pop_front()?;
        self.ended |= matches!(event, ConnectionEvent::Closed(_));
        Some(event)
    }

    /// Registers a waker, which is woken with the next event.
    pub(crate) fn wait(&mut self, waker: &Waker, released: &mut Released) {
        register(&mut self.waker, waker, released);
    }

    /// Whether the last event was taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended && self.events.is_empty()
    }

    fn push(&mut self, event: ConnectionEvent) {
        if let (ConnectionEvent::DeliveriesDropped(more), Some(last)) =
            (&event, self.events.back_mut())
            && let ConnectionEvent::DeliveriesDropped(count) = last
        {
            *count += more;
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectionEvent, Listener};
    use crate::limits::EVENTS_MAX;

    #[test]
    fn the_newest_events_are_kept_and_the_rest_counted() {
        let mut listener = Listener::default();
        for _ in 0..EVENTS_MAX + 3 {
            listener.push(ConnectionEvent::Unblocked);
        }
        assert_eq!(listener.take(), Some(ConnectionEvent::Missed(3)));
        assert_eq!(std::iter::from_fn(|| listener.take()).count(), EVENTS_MAX);
    }

    #[test]
    fn dropped_deliveries_are_reported_together() {
        let mut listener = Listener::default();
        for _ in 0..1_000 {
            listener.push(ConnectionEvent::DeliveriesDropped(1));
        }
        assert_eq!(listener.take(), Some(ConnectionEvent::DeliveriesDropped(1_000)));
        assert_eq!(listener.take(), None);
    }
}
