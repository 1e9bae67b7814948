//! `Publisher` and `Confirm`: publishing in confirm mode.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amqp_core::requests::ConfirmSelect;
use amqp_core::{Error, Publish, PublishError, PublishRefused, PublishSeq, Unconfirmed};
use futures_core::FusedFuture;

use crate::budget::{self, Cost};
use crate::buffer_space::PendingSend;
use crate::call::Calling;
use crate::channel::Channel;
use crate::holders::ChannelHolder;
use crate::limits::UNCONFIRMED_SPAN;

impl Channel {
    /// Puts the channel into confirm mode (`confirm.select`;
    /// <https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Resolves to the [`Publisher`]. A second
    /// call resolves to another handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel
    /// is in confirm mode.
    pub fn confirm_select(&self) -> SelectingConfirms {
        SelectingConfirms { calling: self.call(ConfirmSelect::default()) }
    }
}

/// A channel in confirm mode, which publishes with publisher confirms.
///
/// The handle is thread-safe, and its clones are handles to the same channel. Messages are sent in the order
/// in which their futures put them into the output buffer. Each is confirmed separately.
///
/// ```
/// # use amqp_async::core::Publish;
/// # async fn example(channel: &amqp_async::Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = channel.confirm_select().await?;
/// // One message: wait for its confirm.
/// publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory()).await?;
/// // Many messages: send them, then wait for all confirms.
/// for body in ["two", "three"] {
///     drop(publisher.send(Publish::new("", "orders", body).persistent()).await?);
/// }
/// publisher.all_confirmed().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    channel: Arc<ChannelHolder>,
}

impl Publisher {
    /// Publishes a message, and waits until the broker has confirmed it. Takes a [`Publish`] or a
    /// `&`[`Message`](amqp_core::Message). Resolves to `Ok` when the broker has taken responsibility for the
    /// message.
    ///
    /// A message that is not [`mandatory`](Publish::mandatory) is confirmed even if it reached no queue
    /// (<https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>).
    ///
    /// # Errors
    /// [`PublishError`].
    ///
    /// # Cancel safety
    /// If the future is dropped before the message is buffered, nothing is sent. If it is dropped later, the
    /// message is sent, and its outcome is not reported.
    #[inline]
    pub fn publish<'a>(&'a self, publish: impl Into<Publish<'a>>) -> Publishing<'a> {
        Publishing { sending: self.send(publish), confirm: None }
    }

    /// Publishes a message, and waits for buffer space only. Resolves to a [`Confirm`], which waits for the
    /// outcome, when the message is in the output buffer.
    ///
    /// A program that ends without awaiting the [`Confirm`] and without [`close`](crate::Connection::close)
    /// may lose the message (see [graceful shutdown](crate::guide::shutdown)).
    ///
    /// # Errors
    /// [`PublishError`] if the message cannot be sent.
    ///
    /// # Cancel safety
    /// The message is buffered completely in the poll that resolves, or not at all.
    #[inline]
    pub fn send<'a>(&'a self, publish: impl Into<Publish<'a>>) -> Sending<'a> {
        Sending { send: PendingSend::new(&self.channel, publish.into()) }
    }

    /// Publishes a message without waiting, or returns an error if there is no buffer space. The returned
    /// [`Confirm`] waits for the outcome.
    ///
    /// ```
    /// # use amqp_async::{Publisher, TrySendError, core::{Publish, PublishError}};
    /// # async fn example(publisher: &Publisher, reading: &[u8]) -> Result<(), PublishError> {
    /// match publisher.try_send(Publish::new("", "readings", reading)) {
    ///     Ok(confirm) => confirm.await?,
    ///     Err(TrySendError::Failed(error)) => return Err(error),
    ///     Err(no_space) => eprintln!("reading dropped: {no_space}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TrySendError`]: nothing was sent.
    pub fn try_send<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<Confirm, TrySendError> {
        let publish = publish.into();
        let id = self.channel.id();
        let sent = self.channel.shared().with(|state| {
            let may_pass = state.channel(id).space.may_pass(None);
            let mut channel = state.session.channel(id);
            let refused = match may_pass || !channel.is_open() {
                true => channel.publish(&publish),
                false => Err(PublishRefused::Full),
            };
            refused.map_err(|refused| match refused {
                PublishRefused::Error(error) => TrySendError::Failed(PublishError::refused(error)),
                PublishRefused::Unconfirmed => TrySendError::TooManyUnconfirmed,
                _ => match state.session.connection().blocked() {
                    Some(reason) => TrySendError::Blocked(Arc::clone(reason)),
                    None if state.session.is_recovering() => TrySendError::Recovering,
                    None => TrySendError::BufferFull,
                },
            })
        });
        sent.map(|seq| Confirm { channel: Arc::clone(&self.channel), seq, done: false })
    }

    /// Waits until the broker has confirmed or refused every publish that was sent on the channel before this
    /// call, by this publisher, its clones and other handles to the channel.
    ///
    /// Resolves to `Ok` if all of them were confirmed. Otherwise [`Unconfirmed`] counts those that were not,
    /// including those whose [`Confirm`] was dropped. Each failure is reported by one call only. A call also
    /// counts failures of publishes that were sent after it, if they are known when it resolves.
    ///
    /// ```
    /// # use amqp_async::{Publisher, core::Publish};
    /// # async fn example(publisher: &Publisher, lines: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    /// for line in lines {
    ///     drop(publisher.send(Publish::new("", "lines", *line).persistent()).await?);
    /// }
    /// publisher.all_confirmed().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unconfirmed`], also if the channel or the connection closes meanwhile and publishes are unanswered.
    ///
    /// # Cancel safety
    /// Cancel-safe: dropping the future has no effect.
    pub fn all_confirmed(&self) -> AllConfirmed {
        let id = self.channel.id();
        let last = self.channel.shared().with(|state| state.session.channel(id).last_publish());
        AllConfirmed { channel: Arc::clone(&self.channel), last, ticket: None, done: false }
    }

    /// Returns the channel on which it publishes.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.channel))
    }

    /// Returns whether its channel is open, and neither it nor its connection is closing. `false` while the
    /// connection is being recovered.
    pub fn is_open(&self) -> bool {
        self.channel.shared().with(|state| state.session.channel(self.channel.id()).is_open())
    }
}

/// A channel that is being put into confirm mode. Resolves to the [`Publisher`]. For errors and cancel safety
/// see [`Calling`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SelectingConfirms {
    calling: Calling<ConfirmSelect>,
}

impl Future for SelectingConfirms {
    type Output = Result<Publisher, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let selected = Pin::new(&mut self.calling).poll(cx);
        selected.map_ok(|()| Publisher { channel: Arc::clone(self.calling.holder()) })
    }
}

impl FusedFuture for SelectingConfirms {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

/// A publish that waits for buffer space. Resolves to its [`Confirm`]: see [`Publisher::send`].
///
/// # Errors
/// [`PublishError`] if the message cannot be sent.
///
/// # Cancel safety
/// The message is buffered completely in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Sending<'a> {
    send: PendingSend<'a, Publish<'a>>,
}

impl Future for Sending<'_> {
    type Output = Result<Confirm, PublishError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(channel) = self.send.channel else { return Poll::Pending };
        let result = ready!(self.send.poll_send(cx, |channel, publish| channel.publish(publish)));
        Poll::Ready(match result {
            Ok(seq) => Ok(Confirm { channel: Arc::clone(channel), seq, done: false }),
            Err(error) => Err(PublishError::refused(error)),
        })
    }
}

impl FusedFuture for Sending<'_> {
    fn is_terminated(&self) -> bool {
        self.send.is_done()
    }
}

/// A publish that waits for buffer space, and then for its confirm: see [`Publisher::publish`].
///
/// # Errors
/// [`PublishError`].
///
/// # Cancel safety
/// If the future is dropped before the message is buffered, nothing is sent. If it is dropped later, the
/// message is sent, and its outcome is not reported.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Publishing<'a> {
    sending: Sending<'a>,
    confirm: Option<Confirm>,
}

impl Future for Publishing<'_> {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { sending, confirm } = &mut *self;
        let confirm = match confirm {
            Some(confirm) => confirm,
            None => match ready!(Pin::new(sending).poll(cx)) {
                Ok(sent) => confirm.insert(sent),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        Pin::new(confirm).poll(cx)
    }
}

impl FusedFuture for Publishing<'_> {
    fn is_terminated(&self) -> bool {
        let confirmed = |confirm: &Confirm| confirm.is_terminated();
        self.confirm.as_ref().map_or_else(|| self.sending.is_terminated(), confirmed)
    }
}

/// Why [`Publisher::try_send`] did not send the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The broker is low on memory or disk space and reads no publishes, for this reason, and the output
    /// buffer is full (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[error("no buffer space: the broker blocks publishes: {0}")]
    Blocked(Arc<str>),
    /// The output buffer is full, other publishes wait for buffer space before this one, or the broker has
    /// stopped the channel (`channel.flow`).
    #[error("no buffer space: the output buffer is full")]
    BufferFull,
    /// The message cannot be sent now or later: it is invalid, or the channel is closed.
    #[error(transparent)]
    Failed(PublishError),
    /// The connection was lost, and is being recovered.
    #[error("no buffer space: the connection is being recovered")]
    Recovering,
    /// 65,536 publishes of the channel, counted from the oldest unconfirmed one, await their confirm.
    #[error(
        "{UNCONFIRMED_SPAN} publishes of the channel await their confirms: await some of them first"
    )]
    TooManyUnconfirmed,
}

/// Resolves when all publishes of a channel have an outcome: see [`Publisher::all_confirmed`].
///
/// # Errors
/// [`Unconfirmed`].
///
/// # Cancel safety
/// Cancel-safe: dropping the future has no effect.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct AllConfirmed {
    channel: Arc<ChannelHolder>,
    last: PublishSeq,
    ticket: Option<u64>,
    done: bool,
}

impl Future for AllConfirmed {
    type Output = Result<(), Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { channel, last, ticket, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let id = channel.id();
        let result = channel.shared().with(|state| {
            if let Some(result) = state.session.channel(id).all_confirmed(*last) {
                return Poll::Ready(result);
            }
            state.channel(id);
            let waiting = &mut state.channels[id.index()].all_confirmed;
            waiting.wait(ticket, cx.waker(), &mut state.released);
            Poll::Pending
        });
        *done = result.is_ready();
        result
    }
}

impl FusedFuture for AllConfirmed {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for AllConfirmed {
    fn drop(&mut self) {
        let Self { channel, ticket, .. } = self;
        if ticket.is_some() {
            channel.shared().with(|state| {
                let waiting = &mut state.channels[channel.id().index()].all_confirmed;
                waiting.leave(ticket, &mut state.released);
            });
        }
    }
}

/// The confirm of a publish. Resolves to `Ok` when the broker has taken responsibility for the message.
///
/// # Errors
/// [`PublishError`].
///
/// # Cancel safety
/// If the future is dropped, the message is still sent, and its outcome is not reported.
#[must_use = "a publish whose confirm is dropped may be lost unnoticed"]
#[derive(Debug)]
pub struct Confirm {
    channel: Arc<ChannelHolder>,
    seq: PublishSeq,
    done: bool,
}

impl Confirm {
    /// Returns the number of the publish on its channel, starting at 1.
    pub const fn seq(&self) -> PublishSeq {
        self.seq
    }

    #[cold]
    #[inline(never)]
    fn forget(&self) {
        let (id, seq) = (self.channel.id(), self.seq);
        self.channel.shared().with(|state| {
            state.session.channel(id).forget_publish(seq);
            if let Some(wakers) = state.channels.get_mut(id.index()) {
                wakers.confirms.forget(seq, &mut state.released);
            }
        });
    }
}

impl Future for Confirm {
    type Output = Result<(), PublishError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The outcome is reported once. If asked again, the core would report the publish as confirmed.
        if self.done {
            return Poll::Pending;
        }
        ready!(budget::poll_spend(Cost::Publish, cx));
        let (id, seq) = (self.channel.id(), self.seq);
        let failure = ready!(self.channel.shared().with(|state| {
            let mut channel = state.session.channel(id);
            if channel.is_confirmed(seq) {
                return Poll::Ready(None);
            }
            match channel.confirmed(seq) {
                // The value is large, so it is boxed.
                Some(confirmation) => Poll::Ready(Some(Box::new(confirmation))),
                None => {
                    state.channel(id);
                    let confirms = &mut state.channels[id.index()].confirms;
                    confirms.register(seq, cx.waker(), &mut state.released);
                    Poll::Pending
                }
            }
        }));
        self.done = true;
        Poll::Ready(failure.map_or(Ok(()), |failure| failure.into_result()))
    }
}

impl FusedFuture for Confirm {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Confirm {
    #[inline]
    fn drop(&mut self) {
        if !self.done {
            self.forget();
        }
    }
}
