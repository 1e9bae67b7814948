//! Calls that the application awaits, and what each is to be answered with.

use amqp_core::requests::{ConsumeOk, Got, MessageCount};
use amqp_core::{Call, CallKey, QueueDeclareOk};

#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) call: Typed,
    pub(crate) expected: Expected,
}

#[derive(Debug)]
pub(crate) enum Typed {
    Done(Call<()>),
    Get(Call<Option<Got>>),
    Consume(Call<ConsumeOk>),
    Declare(Call<QueueDeclareOk>),
    Count(Call<MessageCount>),
    Flow(Call<bool>),
}

/// The handle it was called on, and what tells its reply from others'.
#[derive(Debug)]
pub(crate) enum Expected {
    ChannelOpen(usize),
    ChannelClose(usize),
    Consume(usize),
    Cancel(usize, String),
    Get(usize, String),
    Count(usize, u32),
    Done(Option<usize>),
    Drain,
}

impl Typed {
    pub(crate) const fn key(&self) -> CallKey {
        match self {
            Self::Done(call) => call.key(),
            Self::Get(call) => call.key(),
            Self::Consume(call) => call.key(),
            Self::Declare(call) => call.key(),
            Self::Count(call) => call.key(),
            Self::Flow(call) => call.key(),
        }
    }
}

impl Expected {
    pub(crate) const fn handle(&self) -> Option<usize> {
        match self {
            Self::ChannelOpen(at)
            | Self::ChannelClose(at)
            | Self::Consume(at)
            | Self::Cancel(at, _)
            | Self::Get(at, _)
            | Self::Count(at, _) => Some(*at),
            Self::Done(at) => *at,
            Self::Drain => None,
        }
    }
}
