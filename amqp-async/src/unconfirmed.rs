//! Publishing without confirms, and returned messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::errors::Misuse;
use amqp_core::{Error, Publish, PublishRefused, ReturnedMessage};
use futures_core::FusedFuture;

use crate::buffer_space::PendingSend;
use crate::channel::Channel;
use crate::holders::ChannelHolder;

impl Channel {
    /// Publishes a message without a publisher confirm (`basic.publish`; AMQP 0-9-1, 1.8.3.7). Resolves when
    /// the message is in the output buffer.
    ///
    /// `Ok` does not mean that the message was sent. It is lost if the program ends before the driver has
    /// written it. Before that, [`close`](crate::Connection::close) or [`drain`](crate::Connection::drain)
    /// the connection (see [graceful shutdown](crate::guide::shutdown)).
    ///
    /// # Errors
    /// Those of [`BasicPublish`].
    ///
    /// # Cancel safety
    /// The message is buffered completely in the poll that resolves, or not at all.
    #[inline]
    pub fn basic_publish<'a>(&'a self, publish: impl Into<Publish<'a>>) -> BasicPublish<'a> {
        BasicPublish { send: PendingSend::new(self.holder(), publish.into()) }
    }

    /// Waits for the next returned message (`basic.return`; AMQP 0-9-1, 1.8.3.8) of a
    /// [`basic_publish`](Self::basic_publish). Keeps the newest 256 returned messages that were not taken,
    /// and at most 1 MiB of them.
    ///
    /// In confirm mode, the outcome of the publish reports its return. This method then reports only returns
    /// that match no publish awaiting its confirm.
    ///
    /// # Errors
    /// The reason why the channel is closed, after all messages that were returned before are taken.
    ///
    /// # Cancel safety
    /// Cancel-safe: a message is taken in the poll that resolves, or not at all.
    pub fn returned(&self) -> Returned {
        Returned { channel: Arc::clone(self.holder()), ticket: None, done: false }
    }

    /// Takes the oldest returned message of a [`basic_publish`](Self::basic_publish) without waiting. `None`
    /// if there is none.
    pub fn take_returned(&self) -> Option<ReturnedMessage> {
        self.with(|channel| channel.take_returned())
    }

    /// Returns the oldest returned message of a [`basic_publish`](Self::basic_publish) as an error, once.
    /// Messages are returned in the order of publishing, before the reply to any later call.
    ///
    /// # Errors
    /// [`Error::Returned`].
    pub fn check_returned(&self) -> Result<(), Error> {
        self.take_returned().map_or(Ok(()), |message| Err(Error::Returned(Box::new(message))))
    }
}

/// An unconfirmed publish that waits for buffer space: see [`Channel::basic_publish`].
///
/// # Errors
/// [`Error`] if the channel or the connection is closed, or an argument cannot be sent;
/// [`Misuse::ConfirmModeUsePublisher`] in confirm mode. `Ok` does not mean that the broker has taken the
/// message.
///
/// # Cancel safety
/// The message is buffered completely in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct BasicPublish<'a> {
    send: PendingSend<'a, Publish<'a>>,
}

impl Future for BasicPublish<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.send.poll_send(cx, |channel, publish| {
            if channel.confirms() && channel.cause().is_none() {
                return Err(PublishRefused::Error(Misuse::ConfirmModeUsePublisher.into()));
            }
            channel.publish(publish).map(|_| ())
        })
    }
}

impl FusedFuture for BasicPublish<'_> {
    fn is_terminated(&self) -> bool {
        self.send.is_done()
    }
}

/// Resolves to the next returned message of an unconfirmed publish: see [`Channel::returned`].
///
/// # Errors
/// The reason why the channel is closed, after all messages that were returned before are taken.
///
/// # Cancel safety
/// Cancel-safe: a message is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Returned {
    channel: Arc<ChannelHolder>,
    ticket: Option<u64>,
    done: bool,
}

impl Future for Returned {
    type Output = Result<ReturnedMessage, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { channel, ticket, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let id = channel.id();
        let result = channel.shared().with(|state| {
            let may_pass = state.channel(id).returned.may_pass(*ticket);
            let mut core = state.session.channel(id);
            let result = match (if may_pass { core.take_returned() } else { None }, core.cause()) {
                (Some(message), _) => Ok(message),
                (None, Some(cause)) => Err(Error::from(cause)),
                (None, None) => {
                    let returned = &mut state.channels[id.index()].returned;
                    returned.wait(ticket, cx.waker(), &mut state.released);
                    return Poll::Pending;
                }
            };
            state.channels[id.index()].returned.leave(ticket, &mut state.released);
            Poll::Ready(result)
        });
        *done = result.is_ready();
        result
    }
}

impl FusedFuture for Returned {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        let Self { channel, ticket, .. } = self;
        if ticket.is_some() {
            channel.shared().with(|state| {
                state.channels[channel.id().index()].returned.leave(ticket, &mut state.released);
            });
        }
    }
}
