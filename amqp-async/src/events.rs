//! The `Events` handle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedFuture, FusedStream, Stream};

use crate::listeners::ConnectionEvent;
use crate::shared::Shared;

/// The events of a connection from the time of the call to `events`: a stream that ends after
/// [`ConnectionEvent::Closed`].
///
/// It keeps the newest 256 events that were not taken. It does not keep the connection open.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    number: u64,
}

impl Events {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let number = shared.with(|state| {
            let cause = state.session.cause().cloned();
            state.listeners.add(cause)
        });
        Self { shared: Arc::clone(shared), number }
    }

    /// Waits for the next event. Resolves to `None` after [`ConnectionEvent::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: an event is taken in the poll that resolves, or not at all.
    #[allow(clippy::should_implement_trait, reason = "the stream's name for it")]
    pub fn next(&mut self) -> NextEvent<'_> {
        NextEvent { events: Some(self) }
    }

    /// Returns the next event without waiting, `None` if there is none.
    pub fn try_next(&mut self) -> Option<ConnectionEvent> {
        let number = self.number;
        self.shared.with(|state| state.listeners.get_mut(number)?.take())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectionEvent>> {
        let number = self.number;
        self.shared.with(|state| {
            let Some(listener) = state.listeners.get_mut(number) else {
                return Poll::Ready(None);
            };
            if let Some(event) = listener.take() {
                return Poll::Ready(Some(event));
            }
            if listener.is_ended() {
                return Poll::Ready(None);
            }
            listener.wait(cx.waker(), &mut state.released);
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
            state.listeners.get_mut(number).is_none_or(|listener| listener.is_ended())
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.listeners.remove(self.number, &mut state.released);
        });
    }
}

/// Resolves to the next event of a connection: see [`Events::next`].
///
/// # Cancel safety
/// Cancel-safe: an event is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct NextEvent<'a> {
    /// `None` when it has resolved.
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
