//! Which reply a call awaits, and what the broker's method becomes as that reply.

use std::hash::{DefaultHasher, Hash, Hasher};

use amqp_proto::method::{
    Method, MethodId, MethodSpec, TABLE, WireMethod, basic, channel, confirm, connection, queue, tx,
};

use crate::error::ProtocolDetail;
use crate::ids::{ChannelId, ConsumerKey};
use crate::request::{ConsumeOk, Got, MessageCount, QueueDeclareOk, kept_name};

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
        let name = kept_name(name);
        Self::QueueDeclare { name: (!name.is_empty()).then(|| digest(name.as_bytes())) }
    }

    /// Whether a reply to this declaration may name that queue.
    fn names(self, queue: &[u8]) -> bool {
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

    /// Whether it is sent even if its caller is gone: the channel is in this mode since the call, or the session has
    /// made it for the application.
    pub(crate) const fn outlives_caller(self) -> bool {
        matches!(self, Self::ConfirmSelect | Self::TxSelect | Self::TxRollback)
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

    /// The reply that this method is, whose kind was checked.
    pub(crate) fn read(self, method: &Method<'_>) -> Result<Reply, ProtocolDetail> {
        Ok(match (self, method) {
            (declare, Method::QueueDeclareOk(ok)) if !declare.names(ok.queue.as_bytes()) => {
                return Err(ProtocolDetail::QueueName);
            }
            (Self::QueueDeclare { .. }, Method::QueueDeclareOk(ok)) => {
                Reply::Queue(QueueDeclareOk {
                    queue: ok.queue.as_str()?.to_owned(),
                    message_count: ok.message_count,
                    consumer_count: ok.consumer_count,
                })
            }
            (Self::QueueDelete, Method::QueueDeleteOk(ok)) => {
                Reply::Count(MessageCount { message_count: ok.message_count })
            }
            (Self::QueuePurge, Method::QueuePurgeOk(ok)) => {
                Reply::Count(MessageCount { message_count: ok.message_count })
            }
            (Self::Consume(consumer), Method::BasicConsumeOk(ok)) => {
                let consumer_tag = ok.consumer_tag.as_str()?.to_owned();
                Reply::Consume(ConsumeOk { consumer, consumer_tag })
            }
            (Self::Get { .. }, _) => Reply::Got(None),
            (Self::Flow { .. }, Method::ChannelFlowOk(ok)) => Reply::Flow(ok.active),
            _ => Reply::Done,
        })
    }
}

/// The reply to a call of any type.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub enum Reply {
    Done,
    Queue(QueueDeclareOk),
    Count(MessageCount),
    Consume(ConsumeOk),
    Flow(bool),
    Got(Option<Box<Got>>),
}

fn digest(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
