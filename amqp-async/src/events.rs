//! What happens to a connection, for whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use amqp_core::limits::EVENTS_MAX;
use amqp_core::{CloseCause, Event};
use futures_core::{FusedFuture, FusedStream, Stream};

use crate::shared::Shared;
use crate::wakers::{Released, register};

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The broker is short of memory or disk, and reads nothing of this connection until
    /// [`Unblocked`](Self::Unblocked): publishes and calls wait, deliveries go on
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    Blocked(Arc<str>),
    /// The connection closed. It is the last event.
    Closed(CloseCause),
    /// So many deliveries were dropped without being settled: they stay unacknowledged until their
    /// channels close.
    DeliveriesDropped(u64),
    /// So many events were lost, for nobody had taken them.
    Missed(u64),
    /// Reading pauses because of unread deliveries that no prefetch bounds: consumers without
    /// acknowledgement or with prefetch 0 are slower than the broker.
    ///
    /// Emitted at the first pause (8 MiB), and again at 64 MiB, from where on not even replies to calls
    /// are read. A flood pauses reading many times; that is reported once, until
    /// [`ReadingResumed`](Self::ReadingResumed).
    ReadingPaused {
        /// Bytes of those deliveries.
        unread_bytes: usize,
    },
    /// Reading goes on after a pause: 4 MiB or less of those deliveries are unread.
    ReadingResumed,
    /// The broker reads again.
    Unblocked,
}

/// The events of a connection, from the moment of asking: a stream that ends after
/// [`ConnectionEvent::Closed`].
///
/// The newest 256 that were not taken are kept. It is no handle: it does not keep the connection.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    number: u64,
}

/// Those who listen to a connection's events.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    next: u64,
    listeners: BTreeMap<u64, Listener>,
}

#[derive(Debug, Default)]
struct Listener {
    events: VecDeque<ConnectionEvent>,
    missed: u64,
    waker: Option<Waker>,
    ended: bool,
}

impl Events {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let number = shared.with(|state| {
            let cause = state.session.cause().cloned();
            let listeners = &mut state.listeners;
            listeners.next += 1;
            let closed = cause.map(ConnectionEvent::Closed);
            let listener = Listener { events: closed.into_iter().collect(), ..Listener::default() };
            listeners.listeners.insert(listeners.next, listener);
            listeners.next
        });
        Self { shared: Arc::clone(shared), number }
    }

    /// The next event; `None` after [`ConnectionEvent::Closed`].
    #[allow(clippy::should_implement_trait, reason = "the stream's name for it")]
    pub fn next(&mut self) -> NextEvent<'_> {
        NextEvent { events: Some(self) }
    }

    /// The next event, if one is there.
    pub fn try_next(&mut self) -> Option<ConnectionEvent> {
        let number = self.number;
        self.shared.with(|state| state.listeners.listeners.get_mut(&number)?.take())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectionEvent>> {
        let number = self.number;
        self.shared.with(|state| {
            let Some(listener) = state.listeners.listeners.get_mut(&number) else {
                return Poll::Ready(None);
            };
            if let Some(event) = listener.take() {
                return Poll::Ready(Some(event));
            }
            if listener.ended {
                return Poll::Ready(None);
            }
            register(&mut listener.waker, cx.waker(), &mut state.released);
            Poll::Pending
        })
    }
}

impl Stream for Events {
    type Item = ConnectionEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl FusedStream for Events {
    fn is_terminated(&self) -> bool {
        let number = self.number;
        self.shared.with(|state| {
            let listener = state.listeners.listeners.get(&number);
            listener.is_none_or(|listener| listener.ended && listener.events.is_empty())
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.with(|state| {
            if let Some(listener) = state.listeners.listeners.remove(&self.number) {
                state.released.drop_waker(listener.waker);
            }
        });
    }
}

/// The next event of a connection.
///
/// # Cancel safety
/// An event is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct NextEvent<'a> {
    /// Nothing once it has resolved.
    events: Option<&'a mut Events>,
}

impl Future for NextEvent<'_> {
    type Output = Option<ConnectionEvent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(events) = &mut self.events else { return Poll::Pending };
        let event = ready!(events.poll_event(cx));
        self.events = None;
        Poll::Ready(event)
    }
}

impl FusedFuture for NextEvent<'_> {
    fn is_terminated(&self) -> bool {
        self.events.is_none()
    }
}

impl Listeners {
    /// Tells everyone of an event, if it is one that an application is told.
    pub(crate) fn tell(&mut self, event: &Event, released: &mut Released) {
        if self.listeners.is_empty() {
            return;
        }
        let event = match event {
            Event::Blocked(reason) => ConnectionEvent::Blocked(Arc::clone(reason)),
            Event::Closed(cause) => ConnectionEvent::Closed(cause.clone()),
            Event::Dropped(_) => ConnectionEvent::DeliveriesDropped(1),
            Event::InputPaused { unread_bytes } => {
                ConnectionEvent::ReadingPaused { unread_bytes: *unread_bytes }
            }
            Event::InputResumed => ConnectionEvent::ReadingResumed,
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

    fn take(&mut self) -> Option<ConnectionEvent> {
        if self.missed > 0 {
            return Some(ConnectionEvent::Missed(std::mem::take(&mut self.missed)));
        }
        let event = self.events.pop_front()?;
        self.ended |= matches!(event, ConnectionEvent::Closed(_));
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectionEvent, Listener};
    use amqp_core::limits::EVENTS_MAX;

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
    fn dropped_deliveries_are_told_together() {
        let mut listener = Listener::default();
        for _ in 0..1_000 {
            listener.push(ConnectionEvent::DeliveriesDropped(1));
        }
        assert_eq!(listener.take(), Some(ConnectionEvent::DeliveriesDropped(1_000)));
        assert_eq!(listener.take(), None);
    }
}
