//! Calls: one future type for all requests to which the broker replies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use amqp_core::requests::{ConsumeOk, FromReply, Rpc};
use amqp_core::types::Secret;
use amqp_core::{BasicConsume, Call, ConsumerKey, Error, Session};
use futures_core::FusedFuture;

use crate::holders::{ChannelHolder, ConnectionHolder, Holder};

/// A call on a channel or on its connection. Resolves to the broker's reply.
///
/// Nothing is sent before the first poll.
///
/// # Errors
/// [`Error`]: the channel or the connection is closed or closes meanwhile, an argument cannot be sent, or no
/// reply arrives within the call timeout (30 s by default). [`Error::Interrupted`] if the connection is lost before the
/// reply, and is being recovered. A call that is made while it is being recovered waits, within its timeout.
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the request was
/// sent. Its reply is consumed, and what the reply opens is closed again.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Calling<S: Start> {
    holder: S::Holder,
    state: State<S>,
}

#[derive(Debug)]
enum State<S: Start> {
    Initial(S),
    Sent(Call<S::Reply>),
    Done,
}

/// A request that can begin a call. Sealed: the protocol defines the calls.
pub trait Start: sealed::Start {}

pub(crate) mod sealed {
    use super::{Call, Error, FromReply, Holder, Instant, Session};

    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait Start: Unpin {
        type Reply: FromReply;
        type Holder: Holder;
        fn start(
            &self,
            session: &mut Session,
            holder: &Self::Holder,
            now: Instant,
        ) -> Result<Call<Self::Reply>, Error>;
    }
}

impl<S: Start> Calling<S> {
    pub(crate) const fn new(holder: S::Holder, start: S) -> Self {
        Self { holder, state: State::Initial(start) }
    }

    pub(crate) const fn holder(&self) -> &S::Holder {
        &self.holder
    }
}

impl<S: Start> Future for Calling<S> {
    type Output = Result<S::Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { holder, state } = &mut *self;
        let now = holder.shared().now();
        let result = holder.shared().with(|shared| {
            let started = match state {
                State::Initial(start) => Some(start.start(&mut shared.session, holder, now)),
                _ => None,
            };
            match started {
                Some(Ok(call)) => *state = State::Sent(call),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {}
            }
            let State::Sent(call) = state else { return Poll::Pending };
            if let Some(result) = shared.session.take_reply(call) {
                return Poll::Ready(result);
            }
            shared.calls.register(call.key().index(), cx.waker(), &mut shared.released);
            Poll::Pending
        });
        if result.is_ready() {
            *state = State::Done;
        }
        result
    }
}

impl<S: Start> FusedFuture for Calling<S> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

impl<S: Start> Drop for Calling<S> {
    fn drop(&mut self) {
        if let State::Sent(call) = &self.state {
            let now = self.holder.shared().now();
            self.holder.shared().with(|shared| {
                let waker = shared.calls.take(call.key().index());
                shared.released.drop_waker(waker);
                shared.session.forget(now, call.key());
            });
        }
    }
}

/// A call that cancels a consumer. Resolves when the broker has confirmed it. For errors and cancel safety
/// see [`Calling`].
pub type Cancelling = Calling<CancelConsumer>;

impl<R: Rpc + Unpin> Start for R {}

impl<R: Rpc + Unpin> sealed::Start for R {
    type Reply = R::Reply;
    type Holder = Arc<ChannelHolder>;

    fn start(
        &self,
        session: &mut Session,
        channel: &Arc<ChannelHolder>,
        now: Instant,
    ) -> Result<Call<R::Reply>, Error> {
        session.channel(channel.id()).call(now, self)
    }
}

macro_rules! starts {
    ($($(#[$doc:meta])* $visibility:vis $name:ident$(($($field:ty),*))? on $holder:ty => $reply:ty,
        |$this:ident, $session:ident, $on:ident, $now:ident| $start:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            $visibility struct $name$(($(pub(crate) $field),*))?;

            impl Start for $name {}

            impl sealed::Start for $name {
                type Reply = $reply;
                type Holder = Arc<$holder>;

                fn start(
                    &self,
                    $session: &mut Session,
                    $on: &Arc<$holder>,
                    $now: Instant,
                ) -> Result<Call<$reply>, Error> {
                    let $this = self;
                    let _ = ($this, $on);
                    $start
                }
            }
        )*
    };
}

starts! {
    /// The request that starts a consumer.
    pub(crate) StartConsumer(BasicConsume) on ChannelHolder => ConsumeOk,
    |this, session, on, now| session.channel(on.id()).consume(now, &this.0);
    /// The request that cancels a consumer.
    pub CancelConsumer(Option<ConsumerKey>) on ChannelHolder => (),
    |this, session, on, now| session.channel(on.id()).cancel(now, this.0);
    /// The request that closes a channel.
    pub CloseChannel on ChannelHolder => (),
    |this, session, on, now| Ok(session.channel(on.id()).close(now));
    /// The request that updates the secret of the login.
    pub UpdateSecret(Secret, String) on ConnectionHolder => (),
    |this, session, on, now| session.update_secret(now, &this.0, &this.1);
    /// The request to wait until nothing is outstanding.
    pub Drain(Duration) on ConnectionHolder => (), |this, session, on, now| session.drain(now, this.0);
}
