//! One channel of a connection.
//!
//! A channel is known by its [`ChannelId`](crate::ids::ChannelId), which outlives its number: the
//! number goes back to the broker when the channel has closed on both sides, while the record stays
//! for as long as a handle may ask why it closed.

mod calls;
mod confirms;
mod consumers;
mod content;
mod fingerprint;
mod inbox;
mod numbers;
mod prefetch;
mod reply_queue;
mod returns;
mod strays;
mod unacked;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::costs::count;
use crate::error::{ChannelCause, Misuse, ProtocolDetail};
use crate::ids::{CallKey, ConsumerKey};
use crate::limits::{RETURNED_BYTES, RETURNED_MESSAGES};
use crate::machine::{self, Transition};
use crate::message::ReturnedMessage;
use crate::request::Pending;

pub(crate) use calls::Calls;
pub(crate) use confirms::Confirms;
pub use confirms::{Confirmation, Unconfirmed};
pub(crate) use consumers::diagram as consumer_diagram;
pub(crate) use consumers::{Consumer, ConsumerInput, ConsumerPhase, Consumers};
pub(crate) use content::{Complete, Content, Piece, Staging, Target};
pub(crate) use fingerprint::{Fingerprint, Returned};
pub(crate) use inbox::Inbox;
pub(crate) use numbers::Numbers;
use prefetch::Prefetch;
pub(crate) use reply_queue::ReplyQueue;
pub(crate) use strays::Fate;
use strays::Strays;
use unacked::Unacked;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `channel.open` is on its way.
    Opening,
    Open,
    /// Our `channel.close` is on its way.
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseInput {
    OpenOk,
    Close,
    CloseOk,
    BrokerClose,
    ConnectionLost,
}

/// `BrokerClose` while `Closing` is the end: both sides have sent one, and RabbitMQ may have lost ours.
/// `BrokerClose` while `Opening` is a refusal; RabbitMQ refuses by closing the connection instead.
const TRANSITIONS: &[Transition<Phase, PhaseInput>] = &[
    (Phase::Opening, PhaseInput::OpenOk, Phase::Open),
    (Phase::Opening, PhaseInput::Close, Phase::Closing),
    (Phase::Opening, PhaseInput::BrokerClose, Phase::Closed),
    (Phase::Opening, PhaseInput::ConnectionLost, Phase::Closed),
    (Phase::Open, PhaseInput::Close, Phase::Closing),
    (Phase::Open, PhaseInput::BrokerClose, Phase::Closed),
    (Phase::Open, PhaseInput::ConnectionLost, Phase::Closed),
    (Phase::Closing, PhaseInput::OpenOk, Phase::Closing),
    (Phase::Closing, PhaseInput::BrokerClose, Phase::Closed),
    (Phase::Closing, PhaseInput::CloseOk, Phase::Closed),
    (Phase::Closing, PhaseInput::ConnectionLost, Phase::Closed),
];

/// The life of a channel as a diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(crate) number: u16,
    pub(crate) phase: Phase,
    /// Why it closed, once its phase is `Closing` or `Closed`.
    pub(crate) cause: Option<ChannelCause>,
    /// Its handle is gone.
    pub(crate) released: bool,
    pub(crate) calls: ReplyQueue,
    /// Closes that wait for the one that was sent.
    pub(crate) also_closing: BTreeSet<CallKey>,
    pub(crate) content: Content,
    /// The highest tag received of a delivery that is to be acked or nacked.
    pub(crate) delivered: u64,
    /// Present from the first delivery on that is to be acked or nacked.
    unacked: Option<Box<Unacked>>,
    /// Calls of `basic.recover` on their way: what was delivered before their answers is stale.
    pub(crate) recovering: u32,
    /// What was delivered up to this tag was requeued by `basic.recover`, unless it was acked or nacked.
    pub(crate) recovered_to: u64,
    /// The broker has asked for no more publishes.
    pub(crate) flow_stopped: bool,
    pub(crate) consumers: ConsumerTags,
    /// Present once a consumer was cancelled by the broker, or a delivery found none.
    pub(crate) strays: Option<Box<Strays>>,
    pub(crate) prefetch: Prefetch,
    /// It has had a consumer of a stream, or one that may have been of a stream.
    pub(crate) streams: bool,
    pub(crate) mode: Mode,
    /// Returned messages of unconfirmed publishes, from the first one on.
    returned: Option<Box<ReturnedMessages>>,
    /// Whoever looked for a returned message found none, and none has come since.
    pub(crate) awaits_returned: bool,
    pub(crate) tags_made: u32,
}

/// Confirm mode and transaction mode exclude each other.
#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    /// From the moment `confirm.select` is queued.
    Confirm(Box<Confirms>),
    /// From the moment `tx.select` is queued.
    Tx,
}

impl Mode {
    #[inline]
    pub(crate) fn confirms(&self) -> Option<&Confirms> {
        match self {
            Self::Confirm(confirms) => Some(confirms),
            Self::Plain | Self::Tx => None,
        }
    }

    #[inline]
    pub(crate) fn confirms_mut(&mut self) -> Option<&mut Confirms> {
        match self {
            Self::Confirm(confirms) => Some(confirms),
            Self::Plain | Self::Tx => None,
        }
    }

    #[inline]
    pub(crate) const fn is_tx(&self) -> bool {
        matches!(self, Self::Tx)
    }
}

impl ChannelState {
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            phase: Phase::Opening,
            cause: None,
            released: false,
            calls: ReplyQueue::default(),
            also_closing: BTreeSet::new(),
            content: Content::default(),
            delivered: 0,
            unacked: None,
            recovering: 0,
            recovered_to: 0,
            flow_stopped: false,
            consumers: ConsumerTags::default(),
            strays: None,
            prefetch: Prefetch::default(),
            streams: false,
            mode: Mode::Plain,
            returned: None,
            awaits_returned: false,
            tags_made: 0,
        }
    }

    /// Whether verbs are let in: the channel is open, and neither it nor its connection is closing.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.cause.is_none()
    }

    pub(crate) fn step(&mut self, input: PhaseInput) {
        machine::step(TRANSITIONS, &mut self.phase, input);
    }

    /// The deliveries that are to be acked or nacked.
    #[inline]
    pub(crate) fn unacked(&mut self) -> &mut Unacked {
        match &mut self.unacked {
            Some(unacked) => unacked,
            none => none.insert(Box::default()),
        }
    }

    /// A delivery that is to be acked or nacked has come.
    #[inline(always)]
    pub(crate) fn delivered(&mut self, tag: u64) -> Result<(), ProtocolDetail> {
        // Nothing could come after the highest number there is.
        if tag <= self.delivered || tag == u64::MAX {
            return Err(ProtocolDetail::DeliveryTag(tag));
        }
        self.delivered = tag;
        // What comes on a channel that closes or recovers goes back to its queue by that.
        if self.phase == Phase::Open && self.recovering == 0 {
            self.unacked().push(tag);
        }
        Ok(())
    }

    /// The broker has taken all deliveries back.
    pub(crate) fn clear_unacked(&mut self) {
        self.unacked = None;
    }

    /// The number of deliveries whose holder may yet ack or nack them.
    pub(crate) fn held(&self) -> usize {
        self.unacked.as_ref().map_or(0, |unacked| unacked.held())
    }

    /// What a call does to the channel from the moment it is sent; refused if RabbitMQ would close
    /// the channel or the connection for it. Confirms and transactions exclude each other.
    pub(crate) fn begin(&mut self, pending: Pending) -> Result<(), Misuse> {
        match pending {
            Pending::Flow { active: false } => Err(Misuse::FlowInactive),
            Pending::Qos { count, global } => {
                self.prefetch.ask(count, global);
                Ok(())
            }
            Pending::Recover => {
                self.recovering += 1;
                self.unacked().recover();
                Ok(())
            }
            Pending::ConfirmSelect => match self.mode {
                Mode::Plain => {
                    self.mode = Mode::Confirm(Box::new(Confirms::new()));
                    Ok(())
                }
                Mode::Confirm(_) => Ok(()),
                Mode::Tx => Err(Misuse::TransactionMode),
            },
            Pending::TxSelect if self.mode.confirms().is_some() => Err(Misuse::ConfirmMode),
            Pending::TxSelect => {
                self.mode = Mode::Tx;
                Ok(())
            }
            Pending::TxCommit | Pending::TxRollback if !self.mode.is_tx() => {
                Err(Misuse::NotTransactionMode)
            }
            Pending::TxCommit => {
                self.unacked().commit();
                Ok(())
            }
            Pending::TxRollback => {
                self.unacked().roll_back();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The number of readers, 1 or none, that awaited a returned message.
    pub(crate) fn stop_awaiting_returned(&mut self) -> usize {
        usize::from(std::mem::take(&mut self.awaits_returned))
    }

    /// Keeps a returned message of an unconfirmed publish; the oldest go if there are too many.
    pub(crate) fn keep_returned(&mut self, message: ReturnedMessage) {
        self.returned.get_or_insert_default().push(message);
    }

    /// Takes the oldest returned message that was kept.
    pub(crate) fn take_returned(&mut self) -> Option<ReturnedMessage> {
        self.returned.as_mut()?.pop()
    }
}

#[derive(Debug, Default)]
struct ReturnedMessages {
    messages: VecDeque<ReturnedMessage>,
    bytes: usize,
}

impl ReturnedMessages {
    fn push(&mut self, message: ReturnedMessage) {
        self.bytes += message.message.size();
        self.messages.push_back(message);
        while self.messages.len() > RETURNED_MESSAGES
            || (self.bytes > RETURNED_BYTES && self.messages.len() > 1)
        {
            count(1);
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<ReturnedMessage> {
        let oldest = self.messages.pop_front()?;
        self.bytes -= oldest.message.size();
        Some(oldest)
    }
}

/// The consumers of a channel by their tags.
#[derive(Debug, Default)]
pub(crate) struct ConsumerTags {
    by_tag: BTreeMap<Arc<[u8]>, ConsumerKey>,
    /// The one that had the last delivery: most often it has the next one too.
    last: Option<(Arc<[u8]>, ConsumerKey)>,
}

impl ConsumerTags {
    pub(crate) fn contains(&self, tag: &[u8]) -> bool {
        self.by_tag.contains_key(tag)
    }

    pub(crate) fn insert(&mut self, tag: Arc<str>, key: ConsumerKey) {
        self.by_tag.insert(tag.into(), key);
    }

    pub(crate) fn remove(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        self.last = None;
        self.by_tag.remove(tag)
    }

    #[inline(always)]
    pub(crate) fn find(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        match &self.last {
            Some((last, key)) if **last == *tag => Some(*key),
            _ => self.look_up(tag),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        self.last = self.by_tag.get_key_value(tag).map(|(tag, key)| (Arc::clone(tag), *key));
        self.last.as_ref().map(|(_, key)| *key)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
