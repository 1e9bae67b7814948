//! One future for everything that has an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use amqp_core::{
    BasicConsume, Call, ChannelId, ConsumeOk, ConsumerKey, Error, FromReply, Rpc, Session,
};

use crate::channel::ChannelInner;

/// A call on a channel that awaits its reply.
///
/// Nothing is sent before the first poll.
///
/// # Errors
/// [`Error`]: the channel or the connection is closed or closes meanwhile, an argument cannot be
/// sent, or no reply comes within the call time-out (30 s unless configured).
///
/// # Cancel safety
/// Dropped before the first poll, nothing was sent. Dropped later, the request was sent and its reply
/// is consumed; what the reply opens is closed again.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Calling<S: Start> {
    channel: Arc<ChannelInner>,
    state: State<S>,
}

#[derive(Debug)]
enum State<S: Start> {
    Initial(S),
    Sent(Call<S::Reply>),
    Done,
}

/// A request that can begin a call: sealed.
pub trait Start: sealed::Start {}

pub(crate) mod sealed {
    use super::{Call, ChannelId, Error, FromReply, Instant, Session};

    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait Start: Unpin {
        type Reply: FromReply;
        fn start(
            &self,
            session: &mut Session,
            channel: ChannelId,
            now: Instant,
        ) -> Result<Call<Self::Reply>, Error>;
    }
}

impl<S: Start> Calling<S> {
    pub(crate) const fn new(channel: Arc<ChannelInner>, start: S) -> Self {
        Self { channel, state: State::Initial(start) }
    }

    pub(crate) const fn channel(&self) -> &Arc<ChannelInner> {
        &self.channel
    }
}

impl<S: Start> Future for Calling<S> {
    type Output = Result<S::Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { channel, state } = &mut *self;
        let now = channel.shared().now();
        let result = channel.shared().with(|shared| {
            let started = match state {
                State::Initial(start) => Some(start.start(&mut shared.session, channel.id(), now)),
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

impl<S: Start> Drop for Calling<S> {
    fn drop(&mut self) {
        if let State::Sent(call) = &self.state {
            let now = self.channel.shared().now();
            self.channel.shared().with(|shared| {
                let waker = shared.calls.take(call.key().index());
                shared.released.drop_waker(waker);
                shared.session.forget(now, call.key());
            });
        }
    }
}

impl<R: Rpc + Unpin> Start for R {}

impl<R: Rpc + Unpin> sealed::Start for R {
    type Reply = R::Reply;

    fn start(
        &self,
        session: &mut Session,
        channel: ChannelId,
        now: Instant,
    ) -> Result<Call<R::Reply>, Error> {
        session.channel(channel).call(now, self)
    }
}

macro_rules! starts {
    ($($(#[$doc:meta])* $name:ident$(($field:ty))? -> $reply:ty,
        |$this:ident, $channel:ident, $now:ident| $start:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            #[allow(unreachable_pub, reason = "it stands in the type of a public future")]
            pub struct $name$((pub(crate) $field))?;

            impl Start for $name {}

            impl sealed::Start for $name {
                type Reply = $reply;

                fn start(
                    &self,
                    session: &mut Session,
                    channel: ChannelId,
                    $now: Instant,
                ) -> Result<Call<$reply>, Error> {
                    let $this = self;
                    let _ = $this;
                    let mut $channel = session.channel(channel);
                    $start
                }
            }
        )*
    };
}

starts! {
    /// Starts a consumer.
    StartConsumer(BasicConsume) -> ConsumeOk, |this, channel, now| channel.consume(now, &this.0);
    /// Ends a consumer.
    CancelConsumer(ConsumerKey) -> (), |this, channel, now| channel.cancel(now, this.0);
    /// Closes the channel.
    CloseChannel -> (), |this, channel, now| Ok(channel.close(now));
}
