//! Calls that the application awaits, and what each answer must be.

use amqp_core::requests::{ConsumeOk, FromReply, Got, MessageCount, Rpc};
use amqp_core::{Call as Key, CallKey, ChannelCause, Error, QueueDeclareOk, Session};

use super::consuming::Wanted;
use super::mirror::{Change, Entity};
use super::{Application, Context};
use crate::sim::CALL_TIMEOUT;

/// A call that is not answered.
#[derive(Debug)]
pub(super) struct Awaited {
    /// The channel that it was made on.
    pub(super) at: usize,
    pub(super) call: Call,
    made: std::time::Instant,
    /// The losses before.
    losses: usize,
}

impl Awaited {
    /// Returns whether messages may be delivered because of it.
    pub(super) const fn delivers(&self) -> bool {
        matches!(self.call, Call::Consume { .. } | Call::Get { .. })
    }
}

#[derive(Debug)]
pub(super) enum Call {
    Open(Key<()>),
    Close(Key<()>),
    Done(Key<()>),
    /// `basic.qos`.
    Limit(Key<()>),
    Change(Key<()>, Change),
    /// An empty name stands for one that the broker chooses.
    Declare(Key<QueueDeclareOk>, Option<Change>),
    Count(Key<MessageCount>, Change),
    Consume {
        call: Key<ConsumeOk>,
        wanted: Wanted,
    },
    Cancel(Key<()>),
    Get {
        call: Key<Option<Got>>,
        queue: String,
        no_ack: bool,
    },
}

impl Call {
    const fn key(&self) -> CallKey {
        match self {
            Self::Open(call)
            | Self::Close(call)
            | Self::Done(call)
            | Self::Limit(call)
            | Self::Change(call, _)
            | Self::Cancel(call) => call.key(),
            Self::Declare(call, _) => call.key(),
            Self::Count(call, _) => call.key(),
            Self::Consume { call, .. } => call.key(),
            Self::Get { call, .. } => call.key(),
        }
    }

    fn change(&self) -> Option<&Change> {
        match self {
            Self::Change(_, change) | Self::Count(_, change) => Some(change),
            Self::Declare(_, change) => change.as_ref(),
            _ => None,
        }
    }

    /// The broker has given a queue another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        match self {
            Self::Change(_, change) => change.rename(from, to),
            Self::Consume { wanted, .. } if wanted.subscription.queue == from => {
                wanted.subscription.queue.replace_range(.., to);
            }
            _ => {}
        }
    }
}

impl Application {
    pub(super) fn owe(&mut self, cx: &Context<'_>, at: usize, call: Call) {
        self.called += 1;
        let key = call.key();
        cx.trace.line(|| format!("  channel {at}: {call:?}"));
        let known = self.owed.insert(key, Awaited { at, call, made: cx.now, losses: self.losses });
        assert!(known.is_none(), "I3: the key of a call that is not answered: {key:?}");
    }

    /// Calls what has no other result than success. Returns whether it was accepted.
    pub(super) fn done<R: Rpc<Reply = ()>>(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        request: &R,
    ) -> bool {
        let called = cx.session.channel(self.channels[at].id).call(cx.now, request);
        let called = self.accepted(at, cx, called);
        let accepted = called.is_some();
        if let Some(call) = called {
            self.owe(cx, at, Call::Done(call));
        }
        accepted
    }

    /// Returns what was queued. A channel that is open refuses nothing, nor does one that is being restored.
    pub(super) fn accepted<T>(
        &self,
        at: usize,
        cx: &mut Context<'_>,
        called: Result<T, Error>,
    ) -> Option<T> {
        match called {
            Ok(call) => Some(call),
            Err(error) => {
                let waits = self.recovering && !self.closed && self.lives(at);
                let usable = waits || self.is_usable(at, cx);
                assert!(!usable, "channel {at} is open or waits, and refuses: {error}");
                None
            }
        }
    }

    /// Forgets a call.
    pub(super) fn forget(&mut self, cx: &mut Context<'_>) {
        let Some(place) = self.random.place(self.owed.len()) else { return };
        let key = *self.owed.keys().nth(place).expect("a place in it");
        let Some(awaited) = self.owed.remove(&key) else { return };
        cx.trace.line(|| format!("  forget {key:?}: {awaited:?}"));
        if let Call::Open(_) = awaited.call {
            self.channels[awaited.at].released = true;
            self.channels[awaited.at].outcomes.clear();
        }
        if let Call::Close(_) = awaited.call {
            // It is not awaited any more, and closes all the same.
            self.channels[awaited.at].closing = true;
        }
        if let Some(change) = awaited.call.change() {
            self.mirror.doubt(change, self.link);
        }
        if let Call::Limit(_) = awaited.call {
            self.doubt_limit(awaited.at);
        }
        self.called += 1;
        self.forgotten.insert(key);
        cx.session.forget(cx.now, key);
    }

    /// A call has its result (I3: once).
    pub(super) fn answered(&mut self, key: CallKey, cx: &mut Context<'_>) {
        let Some(Awaited { at, call, made, losses }) = self.owed.remove(&key) else {
            assert!(self.forgotten.remove(&key), "I3: {key:?} is answered twice");
            return;
        };
        let error = match call {
            Call::Open(call) => match reply(cx.session, &call) {
                Ok(()) => {
                    self.channels[at].opened = true;
                    None
                }
                Err(error) => {
                    self.release(at, cx);
                    Some(error)
                }
            },
            Call::Close(call) => reply(cx.session, &call).err(),
            Call::Done(call) | Call::Cancel(call) => reply(cx.session, &call).err(),
            Call::Limit(call) => {
                let error = reply(cx.session, &call).err();
                if matches!(error, Some(Error::Deadline { .. })) {
                    self.doubt_limit(at);
                }
                error
            }
            Call::Change(call, change) => {
                let error = reply(cx.session, &call).err();
                self.changed(&change, error.as_ref(), cx);
                error
            }
            Call::Count(call, change) => {
                let error = reply(cx.session, &call).err();
                self.changed(&change, error.as_ref(), cx);
                error
            }
            Call::Declare(call, change) => {
                let result = reply(cx.session, &call);
                match (&change, &result) {
                    (Some(change), Ok(ok)) => {
                        let asked = Entity::Queue(ok.queue.clone());
                        assert_eq!(change.entity, asked, "H1: the reply to another declare");
                    }
                    (None, Ok(ok)) => {
                        self.mirror.add_named(&ok.queue);
                        self.named.push(ok.queue.clone());
                    }
                    _ => {}
                }
                let error = result.err();
                if let Some(change) = &change {
                    self.changed(change, error.as_ref(), cx);
                }
                error
            }
            Call::Consume { call, wanted } => match reply(cx.session, &call) {
                Ok(ok) => {
                    self.consumes(at, cx, ok, wanted);
                    None
                }
                Err(error) => Some(error),
            },
            Call::Get { call, queue, no_ack } => match reply(cx.session, &call) {
                Ok(Some(got)) => {
                    self.got(at, cx, &queue, no_ack, &got);
                    None
                }
                Ok(None) => None,
                Err(error) => Some(error),
            },
        };
        if let Some(error) = error {
            let late = cx.now - made >= CALL_TIMEOUT;
            self.check_error(at, cx, &error, late, losses < self.losses);
        }
    }

    /// A call about an entity has its result.
    fn changed(&mut self, change: &Change, error: Option<&Error>, cx: &mut Context<'_>) {
        match error {
            None => self.note_deleted(change, cx),
            // The broker ignores what follows a refusal on its channel. Everything else it may still do.
            Some(Error::Channel(_)) => {}
            Some(_) => self.mirror.doubt(change, self.link),
        }
        self.mirror.finish(change, error.is_none());
    }

    /// A call fails only with its channel or connection, or when its time is over.
    fn check_error(&self, at: usize, cx: &mut Context<'_>, error: &Error, late: bool, lost: bool) {
        let handle = &self.channels[at];
        let right = match error {
            Error::Deadline { .. } => late,
            Error::Channel(ChannelCause::ByBroker(broker)) => {
                let closed = self.lane(at, cx).and_then(|lane| lane.closed);
                closed.is_none_or(|code| code == broker.code.code())
            }
            Error::Channel(ChannelCause::ByClient) => handle.closing || handle.released,
            Error::Connection(_) => !cx.session.connection().is_open(),
            Error::Interrupted { .. } => lost,
            _ => false,
        };
        assert!(right, "a call on channel {at} fails: {error} ({handle:?})");
    }
}

/// Returns the reply of a call that is done, which is there once (I3).
fn reply<R: FromReply>(session: &mut Session, call: &Key<R>) -> Result<R, Error> {
    let reply = session.take_reply(call).expect("I3: the reply of a call that is done");
    assert!(session.take_reply(call).is_none(), "I3: a reply taken twice");
    reply
}
