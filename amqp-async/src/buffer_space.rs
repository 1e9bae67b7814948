//! Waiting for buffer space (backpressure on publishers).
//!
//! A publish either finds space in the buffers of the connection, or waits for it. Those that wait on the
//! same channel form a queue, first come first served. The first in the queue is woken, and tries again. A
//! publish that comes later joins the end of the queue. If a woken publish is dropped, the next is woken.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amqp_core::{Error, PublishRefused};

use crate::budget::{self, Cost};
use crate::holders::ChannelHolder;

/// A message that is sent as soon as there is buffer space for it.
#[derive(Debug)]
pub(crate) struct PendingSend<'a, M> {
    /// `None` when the message was sent or refused.
    pub(crate) channel: Option<&'a Arc<ChannelHolder>>,
    message: M,
    ticket: Option<u64>,
}

impl<'a, M> PendingSend<'a, M> {
    pub(crate) const fn new(channel: &'a Arc<ChannelHolder>, message: M) -> Self {
        Self { channel: Some(channel), message, ticket: None }
    }

    #[inline]
    pub(crate) fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&mut amqp_core::Channel<'_>, &M) -> Result<T, PublishRefused>,
    ) -> Poll<Result<T, Error>> {
        let Self { channel, message, ticket } = self;
        let Some(on) = *channel else { return Poll::Pending };
        ready!(budget::poll_spend(Cost::Publish, cx));
        let id = on.id();
        on.shared().with(|state| {
            let may_pass = state.channel(id).space.may_pass(*ticket);
            let result = if may_pass {
                send(&mut state.session.channel(id), message)
            } else if let Some(cause) = state.session.channel(id).cause() {
                // The queue of a closed channel does not move.
                Err(PublishRefused::Error(Error::from(cause)))
            } else {
                Err(PublishRefused::Full)
            };
            let done = match result {
                Ok(done) => Ok(done),
                Err(PublishRefused::Error(error)) => Err(error),
                // All other refusals are temporary.
                Err(_) => {
                    let space = &mut state.channels[id.index()].space;
                    space.wait(ticket, cx.waker(), &mut state.released);
                    return Poll::Pending;
                }
            };
            if ticket.is_some() {
                state.channels[id.index()].space.leave(ticket, &mut state.released);
            }
            *channel = None;
            Poll::Ready(done)
        })
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.channel.is_none()
    }

    /// Leaves the queue. It is not inlined, because nearly every publish is dropped without a ticket.
    #[cold]
    #[inline(never)]
    fn leave(&mut self) {
        let Self { channel, ticket, .. } = self;
        if let Some(channel) = channel {
            channel.shared().with(|state| {
                state.channels[channel.id().index()].space.leave(ticket, &mut state.released);
            });
        }
    }
}

impl<M> Drop for PendingSend<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.leave();
        }
    }
}
