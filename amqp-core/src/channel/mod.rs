//! The record of one channel.
//!
//! The key of a channel is its [`ChannelId`](crate::ids::ChannelId), which remains valid longer than the
//! channel's number. The number is reused when the channel has closed on both sides. The record remains while
//! a handle may ask why the channel closed.

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
    /// `channel.open` is queued.
    Opening,
    Open,
    /// This side has queued `channel.close`.
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

/// `BrokerClose` while `Closing` ends the channel: both sides have sent a close, and RabbitMQ may have lost
/// ours. `BrokerClose` while `Opening` is a refusal. RabbitMQ does not send it: it closes the connection
/// instead.
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

/// The states of a channel as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(crate) number: u16,
    pub(crate) phase: Phase,
    /// Why it closed. Set when its phase is `Closing` or `Closed`.
    pub(crate) cause: Option<ChannelCause>,
    /// Whether its handle is dropped.
    pub(crate) released: bool,
    pub(crate) calls: ReplyQueue,
    /// Calls of `close` that wait for the reply to a close that was sent before.
    pub(crate) also_closing: BTreeSet<CallKey>,
    pub(crate) content: Content,
    /// The highest delivery tag received of deliveries that need an ack.
    pub(crate) delivered: u64,
    /// Created with the first delivery that needs an ack.
    unacked: Option<Box<Unacked>>,
    /// The number of `basic.recover` calls that await their reply. Deliveries that arrive before that reply
    /// are stale.
    pub(crate) recovering: u32,
    /// Deliveries up to this tag were requeued by `basic.recover`, unless they were acked or nacked before.
    pub(crate) recovered_to: u64,
    /// Whether the broker has asked to stop publishing (`channel.flow`).
    pub(crate) flow_stopped: bool,
    pub(crate) consumers: ConsumerTags,
    /// Created when the broker cancels a consumer, or sends a delivery for an unknown consumer.
    pub(crate) strays: Option<Box<Strays>>,
    pub(crate) prefetch: Prefetch,
    /// Whether it has had a consumer of a stream, or of a queue that may be one.
    pub(crate) streams: bool,
    pub(crate) mode: Mode,
    /// The returned messages of unconfirmed publishes, created with the first.
    returned: Option<Box<ReturnedMessages>>,
    /// Whether a reader has found no returned message since the last one arrived.
    pub(crate) awaits_returned: bool,
    pub(crate) tags_made: u32,
}

/// The mode of a channel. Confirm mode and transaction mode exclude each other.
#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    /// `confirm.select` is queued, or answered.
    Confirm(Box<Confirms>),
    /// `tx.select` is queued, or answered.
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

    /// Whether verbs are accepted: the channel is open, and neither it nor its connection is closing.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.cause.is_none()
    }

    pub(crate) fn step(&mut self, input: PhaseInput) {
        machine::step(TRANSITIONS, &mut self.phase, input);
    }

    /// The deliveries that need an ack or nack.
    #[inline]
    pub(crate) fn unacked(&mut self) -> &mut Unacked {
        match &mut self.unacked {
            Some(unacked) => unacked,
            none => none.insert(Box::default()),
        }
    }

    /// Records a delivery that needs an ack or nack.
    #[inline(always)]
    pub(crate) fn delivered(&mut self, tag: u64) -> Result<(), ProtocolDetail> {
        // No tag can follow the maximum.
        if tag <= self.delivered || tag == u64::MAX {
            return Err(ProtocolDetail::DeliveryTag(tag));
        }
        self.delivered = tag;
        // A delivery on a channel that closes or recovers is requeued by that. It is not recorded.
        if self.phase == Phase::Open && self.recovering == 0 {
            self.unacked().push(tag);
        }
        Ok(())
    }

    /// Forgets all deliveries, because the broker has requeued them.
    pub(crate) fn clear_unacked(&mut self) {
        self.unacked = None;
    }

    /// The number of deliveries whose holder may still ack or nack them.
    pub(crate) fn held(&self) -> usize {
        self.unacked.as_ref().map_or(0, |unacked| unacked.held())
    }

    /// Applies what a call changes in the channel at the moment it is sent.
    ///
    /// # Errors
    /// [`Misuse`] if RabbitMQ would close the channel or the connection because of the call. Confirm mode and
    /// transaction mode exclude each other.
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

    /// Records that no reader waits for a returned message. Returns how many waited: 1 or 0.
    pub(crate) fn stop_awaiting_returned(&mut self) -> usize {
        usize::from(std::mem::take(&mut self.awaits_returned))
    }

    /// Keeps a returned message of an unconfirmed publish. Above the limit, the oldest are dropped.
    pub(crate) fn keep_returned(&mut self, message: ReturnedMessage) {
        self.returned.get_or_insert_default().push(message);
    }

    /// Takes the oldest returned message.
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
    /// The consumer of the last delivery. In most cases, the next delivery is for the same one.
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
