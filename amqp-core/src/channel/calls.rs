//! Calls and their replies.
//!
//! A call takes a place here when its frame is queued, and the channel keeps the calls' order: the
//! broker answers each channel in the order of its requests, but for consumers (see `reply`).
//! The place is freed once the reply has come (or never will) and nobody wants it any more. A call
//! whose caller has gone, or whose time is over, still awaits its reply: what that reply opened is
//! closed again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use amqp_proto::method::{
    MethodId, MethodSpec, TABLE, WireMethod, basic, channel, confirm, connection, queue, tx,
};

use crate::error::Error;
use crate::ids::{CallKey, ChannelId, ConsumerKey};
use crate::request::Reply;
use crate::slab::Slab;

/// What a call awaits.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub enum Pending {
    /// A close of a channel that is closing already: no frame answers it.
    AlsoClose(ChannelId),
    ChannelClose,
    ChannelOpen(ChannelId),
    ConfirmSelect,
    Consume(ConsumerKey),
    Cancel(ConsumerKey),
    /// The connection is idle: no frame answers it.
    Drain,
    Flow {
        active: bool,
    },
    /// Answered by `get-ok` with a message, or by `get-empty`.
    Get {
        no_ack: bool,
    },
    /// `basic.qos`.
    Qos {
        count: u16,
        global: bool,
    },
    /// A reply without fields that matter.
    Done(MethodId),
    /// With a digest of the queue's name, unless the broker is to choose one.
    QueueDeclare {
        name: Option<u64>,
    },
    QueueDelete,
    QueuePurge,
    Recover,
    TxCommit,
    TxRollback,
    TxSelect,
    UpdateSecret,
}

impl Pending {
    pub(crate) const fn done(reply: MethodId) -> Self {
        Self::Done(reply)
    }

    /// A declaration of the queue of this name.
    pub(crate) fn queue_declare(name: &str) -> Self {
        // RabbitMQ drops line ends from names.
        let name = name.replace(['\r', '\n'], "");
        Self::QueueDeclare { name: (!name.is_empty()).then(|| digest(name.as_bytes())) }
    }

    /// Whether a reply to this declaration may name that queue.
    pub(crate) fn names(self, queue: &[u8]) -> bool {
        match self {
            Self::QueueDeclare { name: Some(name) } => name == digest(queue),
            _ => true,
        }
    }

    /// The method that was sent.
    pub(crate) fn request(self) -> MethodId {
        let reply = self.reply();
        let answers = |spec: &&MethodSpec| {
            let name = reply.spec().map(|reply| reply.name);
            spec.id.class == reply.class && name.is_some_and(|name| spec.replies.contains(&name))
        };
        TABLE.iter().find(answers).map_or(reply, |spec| spec.id)
    }

    /// The consumer whose tag the reply names.
    pub(crate) const fn consumer(self) -> Option<ConsumerKey> {
        match self {
            Self::Consume(consumer) | Self::Cancel(consumer) => Some(consumer),
            _ => None,
        }
    }

    /// The reply that is due.
    pub(crate) const fn reply(self) -> MethodId {
        match self {
            Self::AlsoClose(_) | Self::ChannelClose => channel::CloseOk::ID,
            Self::ChannelOpen(_) => channel::OpenOk::ID,
            Self::ConfirmSelect => confirm::SelectOk::ID,
            Self::Consume(_) => basic::ConsumeOk::ID,
            Self::Cancel(_) => basic::CancelOk::ID,
            // What it ends with is a close.
            Self::Drain => connection::CloseOk::ID,
            Self::Flow { .. } => channel::FlowOk::ID,
            Self::Get { .. } => basic::GetEmpty::ID,
            Self::Qos { .. } => basic::QosOk::ID,
            Self::Done(reply) => reply,
            Self::QueueDeclare { .. } => queue::DeclareOk::ID,
            Self::QueueDelete => queue::DeleteOk::ID,
            Self::QueuePurge => queue::PurgeOk::ID,
            Self::Recover => basic::RecoverOk::ID,
            Self::TxCommit => tx::CommitOk::ID,
            Self::TxRollback => tx::RollbackOk::ID,
            Self::TxSelect => tx::SelectOk::ID,
            Self::UpdateSecret => connection::UpdateSecretOk::ID,
        }
    }
}

fn digest(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct Slot {
    pending: Pending,
    deadline: Instant,
    /// The reply has not come.
    in_flight: bool,
    /// Somebody will take the result.
    wanted: bool,
    result: Option<Result<Reply, Error>>,
}

#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Slot>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    /// Calls whose reply has not come, those whose time is over among them.
    awaited: usize,
    /// One was added since they were last looked at.
    moved: bool,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self { slots: Slab::new(), deadlines: BTreeSet::new(), awaited: 0, moved: false }
    }

    pub(crate) fn insert(&mut self, pending: Pending, deadline: Instant) -> CallKey {
        let slot = Slot { pending, deadline, in_flight: true, wanted: true, result: None };
        let key = CallKey(self.slots.insert(slot));
        self.deadlines.insert((deadline, key));
        self.awaited += 1;
        self.moved = true;
        key
    }

    /// A call that needs no reply.
    pub(crate) fn insert_done(&mut self, pending: Pending, now: Instant, reply: Reply) -> CallKey {
        let result = Some(Ok(reply));
        let slot = Slot { pending, deadline: now, in_flight: false, wanted: true, result };
        CallKey(self.slots.insert(slot))
    }

    /// The pending call, and whether its result is still awaited.
    pub(crate) fn pending(&self, key: CallKey) -> Option<(Pending, bool)> {
        let slot = self.slots.find(key.0)?;
        Some((slot.pending, slot.wanted && slot.result.is_none()))
    }

    /// The reply has come or never will. Whether somebody is to be told.
    pub(crate) fn complete(&mut self, key: CallKey, result: Result<Reply, Error>) -> bool {
        let Some(slot) = self.slots.find_mut(key.0) else { return false };
        self.deadlines.remove(&(slot.deadline, key));
        self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
        if slot.wanted {
            if slot.result.is_none() {
                slot.result = Some(result);
                return true;
            }
        } else {
            self.slots.remove(key.0);
        }
        false
    }

    /// The deadline is over, while the reply may still come.
    pub(crate) fn expire(&mut self, key: CallKey, error: Error) -> bool {
        match self.slots.find_mut(key.0) {
            Some(slot) if slot.wanted && slot.result.is_none() => {
                slot.result = Some(Err(error));
                true
            }
            _ => false,
        }
    }

    /// No reply will come to a call whose time is over.
    pub(crate) fn abandon(&mut self, key: CallKey) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
            if !slot.wanted {
                self.slots.remove(key.0);
            }
        }
    }

    pub(crate) fn take(&mut self, key: CallKey) -> Option<Result<Reply, Error>> {
        let slot = self.slots.find_mut(key.0)?;
        let result = slot.result.take()?;
        slot.wanted = false;
        if !slot.in_flight {
            self.slots.remove(key.0);
        }
        Some(result)
    }

    /// Nobody will take the result. A result that was there already is returned.
    pub(crate) fn forget(&mut self, key: CallKey) -> Option<(Pending, Result<Reply, Error>)> {
        let slot = self.slots.find_mut(key.0)?;
        slot.wanted = false;
        let result = slot.result.take();
        let pending = slot.pending;
        if !slot.in_flight {
            self.slots.remove(key.0);
        }
        result.map(|result| (pending, result))
    }

    /// Whether a deadline was added since the last [`look`](Self::look).
    #[inline]
    pub(crate) const fn moved(&self) -> bool {
        self.moved
    }

    /// The earliest deadline, for whoever waits for it.
    pub(crate) fn look(&mut self) -> Option<Instant> {
        self.moved = false;
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a call whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(CallKey, Pending)> {
        let (deadline, key) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.remove(&(deadline, key));
        self.slots.find(key.0).map(|slot| (key, slot.pending))
    }

    /// The number of calls whose reply has not come, those whose time is over among them.
    pub(crate) const fn awaited(&self) -> usize {
        self.awaited
    }

    /// The calls whose reply is due, within its time.
    pub(crate) fn in_flight(&self) -> usize {
        self.deadlines.len()
    }
}
