//! The record of one channel.
//!
//! The key of a channel is its [`ChannelId`](crate::ids::ChannelId), which remains valid longer than the
//! channel's number. The number is reused when the channel has closed on both sides. The record remains while
//! a handle may ask why the channel closed.
//!
//! **Two lifetimes.** What ends with the transport is in one value, the [`Wire`]: the number, the phase, the
//! calls in flight, the deliveries. When the transport is lost and the session reconnects, that value is
//! replaced. Everything else goes on: the mode, the consumers, the publishes' numbers, the calls that wait.
//!
//! **The gate** decides whether the application's publishes and calls are accepted. It is closed from the
//! loss of the transport until everything that the channel had is restored, and permanently when the channel
//! closes.

mod calls;
mod confirms;
mod consumer_tags;
mod consumers;
mod content;
mod fingerprint;
mod inbox;
mod numbers;
mod outbox;
mod prefetch;
mod reply_queue;
mod returns;
mod strays;
mod unacked;
mod waiting;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::costs::count;
use crate::error::{ChannelCause, Misuse, ProtocolDetail};
use crate::ids::{CallKey, ConsumerKey, Epoch};
use crate::limits::{RETURNED_BYTES, RETURNED_MESSAGES};
use crate::machine::{self, Transition};
use crate::message::ReturnedMessage;
use crate::request::Pending;

pub(crate) use calls::{Calls, SessionReply};
pub(crate) use confirms::Confirms;
pub use confirms::{Confirmation, Unconfirmed};
use consumer_tags::ConsumerTags;
pub(crate) use consumers::diagram as consumer_diagram;
pub(crate) use consumers::{Consumer, ConsumerInput, ConsumerPhase, Consumers};
pub(crate) use content::{Complete, Content, Piece, Staging, Target};
pub(crate) use fingerprint::{Fingerprint, Returned};
pub(crate) use inbox::Inbox;
pub(crate) use numbers::Numbers;
pub(crate) use prefetch::{Limits, Prefetch};
pub(crate) use reply_queue::ReplyQueue;
pub(crate) use strays::Fate;
use strays::Strays;
use unacked::Unacked;
pub(crate) use waiting::{Request, Waiting};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `channel.open` is queued.
    Opening,
    Open,
    /// This side has queued `channel.close`.
    Closing,
    Closed,
    /// There is no transport, or the channel is to be opened on it.
    Detached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseInput {
    OpenOk,
    Close,
    CloseOk,
    BrokerClose,
    ConnectionLost,
    /// The channel is to be opened on the next transport, or once more on this one.
    Detach,
    /// `channel.open` is queued.
    Attach,
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
    (Phase::Opening, PhaseInput::Detach, Phase::Detached),
    (Phase::Open, PhaseInput::Detach, Phase::Detached),
    (Phase::Detached, PhaseInput::Attach, Phase::Opening),
    (Phase::Detached, PhaseInput::CloseOk, Phase::Closed),
    (Phase::Detached, PhaseInput::ConnectionLost, Phase::Closed),
];

/// The states of a channel as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(crate) wire: Wire,
    pub(crate) gate: Gate,
    pub(crate) origin: Origin,
    /// Whether its handle is dropped.
    pub(crate) released: bool,
    /// Calls of `close` that wait for the reply to a close that was sent before.
    #[expect(clippy::box_collection, reason = "few channels have any, and a box is smaller")]
    pub(crate) also_closing: Option<Box<BTreeSet<CallKey>>>,
    /// The calls that wait for the gate to open.
    pub(crate) waiting: Option<Box<Waiting>>,
    /// What is known for restoring the channel, from the loss of its transport until it is restored.
    pub(crate) restoring: Option<Box<Restoring>>,
    pub(crate) consumers: ConsumerTags,
    pub(crate) prefetch: Prefetch,
    /// Whether it has had a consumer of a stream, or of a queue that may be one.
    pub(crate) streams: bool,
    pub(crate) mode: Mode,
    /// The name in the last `queue.declare-ok`: what an empty queue name means.
    pub(crate) last_queue: Option<Arc<str>>,
    /// The returned messages of unconfirmed publishes, created with the first.
    returned: Option<Box<ReturnedMessages>>,
    /// Whether a reader has found no returned message since the last one arrived.
    pub(crate) awaits_returned: bool,
    pub(crate) tags_made: u32,
}

/// What ends with the transport.
#[derive(Debug)]
pub(crate) struct Wire {
    /// 0 while the channel is detached.
    pub(crate) number: u16,
    /// That of the deliveries, which differs from those of what this replaces.
    pub(crate) epoch: Epoch,
    pub(crate) phase: Phase,
    pub(crate) calls: ReplyQueue,
    pub(crate) content: Content,
    /// The highest delivery tag received of deliveries that need an ack.
    pub(crate) delivered: u64,
    /// Created with the first delivery that needs an ack.
    unacked: Option<Box<Unacked>>,
    /// The number of `basic.recover` calls that await their reply. Deliveries that arrive before that reply
    /// are stale.
    pub(crate) recovering: u16,
    /// Deliveries up to this tag were requeued by `basic.recover`, unless they were acked or nacked before.
    pub(crate) recovered_to: u64,
    /// Whether the broker has asked to stop publishing (`channel.flow`).
    pub(crate) flow_stopped: bool,
    /// Created when the broker cancels a consumer, or sends a delivery for an unknown consumer.
    pub(crate) strays: Option<Box<Strays>>,
}

/// What is known for restoring a channel.
#[derive(Debug)]
pub(crate) struct Restoring {
    /// The limits that the application had set.
    limits: Limits,
    /// The number of publishes without confirms that were accepted and not sent.
    pub(crate) lost_publishes: u64,
    /// Whether consumers are started one after the other. So it is known which of them the broker refuses.
    pub(crate) singly: bool,
    /// The consumer that is started before the others, because the broker has put it off.
    pub(crate) held: Option<ConsumerKey>,
}

/// Whether publishes and calls are accepted.
#[derive(Debug)]
pub(crate) enum Gate {
    Open,
    /// The transport was lost. Calls wait, and publishes are refused, until the channel is restored.
    Recovering,
    /// Everything is accepted but the next publish: it reports this many publishes without confirms, which were
    /// accepted before a loss and not sent.
    LostPublishes(u64),
    /// Everything is accepted, and publishes are stored to be sent again after a loss.
    Storing,
    /// Everything is accepted, and nothing is published in the open transaction. The next publish changes that: so publishes
    /// of all other channels need no check for it.
    EmptyTransaction,
    /// The channel is closed or closing, for this reason.
    Closed(ChannelCause),
}

/// Who has opened a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The application. The channel is restored on the next transport.
    User,
    /// The application, while it sets up the transport. The channel ends with the transport.
    Setup,
    /// The session, to restore topology. No event reports it, and it ends with the transport.
    Session,
}

/// The mode of a channel. Confirm mode and transaction mode exclude each other.
#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    /// `confirm.select` is queued, or answered.
    Confirm(Box<Confirms>),
    /// `tx.select` is queued, or answered.
    Tx(Transaction),
}

/// The transaction that is open on a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transaction {
    /// Whether a part of it was lost with a transport.
    pub(crate) poisoned: bool,
}

impl Mode {
    #[inline]
    pub(crate) fn confirms(&self) -> Option<&Confirms> {
        match self {
            Self::Confirm(confirms) => Some(confirms),
            Self::Plain | Self::Tx(_) => None,
        }
    }

    #[inline]
    pub(crate) fn confirms_mut(&mut self) -> Option<&mut Confirms> {
        match self {
            Self::Confirm(confirms) => Some(confirms),
            Self::Plain | Self::Tx(_) => None,
        }
    }

    #[inline]
    pub(crate) const fn is_tx(&self) -> bool {
        matches!(self, Self::Tx(_))
    }
}

impl ChannelState {
    /// Creates the record of a channel whose `channel.open` is queued.
    pub(crate) fn new(number: u16, origin: Origin) -> Self {
        Self::with(Wire::opening(number), Gate::Open, origin)
    }

    /// Creates the record of a channel that is to be opened when the transport is there.
    pub(crate) fn detached() -> Self {
        Self::with(Wire::detached(), Gate::Recovering, Origin::User)
    }

    fn with(wire: Wire, gate: Gate, origin: Origin) -> Self {
        Self {
            wire,
            gate,
            origin,
            released: false,
            also_closing: None,
            waiting: None,
            restoring: None,
            consumers: ConsumerTags::default(),
            prefetch: Prefetch::default(),
            streams: false,
            mode: Mode::Plain,
            last_queue: None,
            returned: None,
            awaits_returned: false,
            tags_made: 0,
        }
    }

    /// Whether publishes are accepted. For other verbs, see [`is_open`](Self::is_open).
    #[inline]
    pub(crate) fn takes_publishes(&self) -> bool {
        self.wire.phase == Phase::Open && matches!(self.gate, Gate::Open)
    }

    /// Whether verbs are accepted: the channel is open, and neither it nor its connection is closing.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.wire.phase == Phase::Open && !matches!(self.gate, Gate::Recovering | Gate::Closed(_))
    }

    /// Whether acks of the present transport are accepted: also before the gate opens.
    pub(crate) fn takes_acks(&self) -> bool {
        self.wire.phase == Phase::Open && !matches!(self.gate, Gate::Closed(_))
    }

    /// Whether consumers can be cancelled: also before the gate opens.
    pub(crate) fn takes_cancels(&self) -> bool {
        let attached = matches!(self.wire.phase, Phase::Opening | Phase::Open);
        self.is_open() || (self.is_recovering() && attached)
    }

    /// Closes the gate until the channel is restored. This many publishes were accepted and not sent.
    pub(crate) fn lose_publishes(&mut self, unsent: u64) {
        let before = match std::mem::replace(&mut self.gate, Gate::Recovering) {
            Gate::LostPublishes(before) => before,
            _ => 0,
        };
        if let Some(restoring) = &mut self.restoring {
            restoring.lost_publishes += before;
        }
        self.count_lost(unsent);
    }

    /// Counts publishes that were accepted and not sent, if the channel is to be restored.
    pub(crate) fn count_lost(&mut self, publishes: u64) {
        // Others have an outcome, or a commit that reports it.
        if let (Mode::Plain, Some(restoring)) = (&self.mode, &mut self.restoring) {
            restoring.lost_publishes += publishes;
        }
    }

    /// Opens the gate. The first publish reports those that were lost.
    pub(crate) fn open_gate(&mut self) {
        let lost = self.restoring.take().map_or(0, |restoring| restoring.lost_publishes);
        self.gate = if lost > 0 { Gate::LostPublishes(lost) } else { self.accepting() };
    }

    /// Takes the number of publishes that were lost, to be reported. Further ones are accepted.
    pub(crate) fn take_lost_publishes(&mut self) -> Option<u64> {
        let Gate::LostPublishes(count) = self.gate else { return None };
        self.gate = self.accepting();
        Some(count)
    }

    fn accepting(&self) -> Gate {
        match &self.mode {
            Mode::Confirm(confirms) if confirms.has_outbox() => Gate::Storing,
            Mode::Tx(_) => Gate::EmptyTransaction,
            Mode::Confirm(_) | Mode::Plain => Gate::Open,
        }
    }

    /// Stores publishes from now on, so that they can be sent again after a loss.
    pub(crate) fn open_outbox(&mut self, limit: usize) {
        if let Some(confirms) = self.mode.confirms_mut() {
            confirms.open_outbox(limit);
            if matches!(self.gate, Gate::Open) {
                self.gate = Gate::Storing;
            }
        }
    }

    /// Whether calls wait for the channel to be restored.
    pub(crate) const fn is_recovering(&self) -> bool {
        matches!(self.gate, Gate::Recovering)
    }

    /// Whether it is being restored, and consumers are still to be started, one after the other.
    pub(crate) fn starts_singly(&self) -> bool {
        self.is_recovering() && self.restoring.as_ref().is_some_and(|it| it.singly)
    }

    /// Why it is closed or closing.
    pub(crate) const fn cause(&self) -> Option<&ChannelCause> {
        match &self.gate {
            Gate::Closed(cause) => Some(cause),
            _ => None,
        }
    }

    /// Closes the gate permanently, unless it has closed before.
    pub(crate) fn close_gate(&mut self, cause: ChannelCause) {
        if self.cause().is_none() {
            self.gate = Gate::Closed(cause);
        }
    }

    /// Keeps the limits that are to be set again, unless they are kept already.
    pub(crate) fn remember_limits(&mut self) {
        let limits = std::mem::take(&mut self.prefetch).limits();
        self.restoring.get_or_insert_with(|| {
            Box::new(Restoring { limits, lost_publishes: 0, singly: false, held: None })
        });
    }

    /// The limits that the restored channel is to have.
    pub(crate) fn remembered_limits(&self) -> Limits {
        self.restoring.as_ref().map_or_else(|| self.prefetch.limits(), |restoring| restoring.limits)
    }

    pub(crate) fn step(&mut self, input: PhaseInput) {
        machine::step(TRANSITIONS, &mut self.wire.phase, input);
    }

    /// The number of calls that await replies, or wait to be sent.
    pub(crate) fn calls_open(&self) -> usize {
        self.wire.calls.len() + self.waiting.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// The deliveries that need an ack or nack.
    #[inline]
    pub(crate) fn unacked(&mut self) -> &mut Unacked {
        match &mut self.wire.unacked {
            Some(unacked) => unacked,
            none => none.insert(Box::default()),
        }
    }

    /// Records a delivery that needs an ack or nack.
    #[inline(always)]
    pub(crate) fn delivered(&mut self, tag: u64) -> Result<(), ProtocolDetail> {
        // No tag can follow the maximum.
        if tag <= self.wire.delivered || tag == u64::MAX {
            return Err(ProtocolDetail::DeliveryTag(tag));
        }
        self.wire.delivered = tag;
        // A delivery on a channel that closes or recovers is requeued by that. It is not recorded.
        if self.wire.phase == Phase::Open && self.wire.recovering == 0 {
            self.unacked().push(tag);
        }
        Ok(())
    }

    /// Forgets all deliveries, because the broker has requeued them.
    pub(crate) fn clear_unacked(&mut self) {
        self.wire.unacked = None;
    }

    /// The number of deliveries whose holder may still ack or nack them.
    pub(crate) fn held(&self) -> usize {
        self.wire.unacked.as_ref().map_or(0, |unacked| unacked.held())
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
                self.wire.recovering += 1;
                self.unacked().recover();
                Ok(())
            }
            Pending::ConfirmSelect => match self.mode {
                Mode::Plain => {
                    self.mode = Mode::Confirm(Box::new(Confirms::new()));
                    Ok(())
                }
                Mode::Confirm(_) => Ok(()),
                Mode::Tx(_) => Err(Misuse::TransactionMode),
            },
            Pending::TxSelect if self.mode.confirms().is_some() => Err(Misuse::ConfirmMode),
            Pending::TxSelect => {
                if !self.mode.is_tx() {
                    self.mode = Mode::Tx(Transaction::default());
                    self.begin_transaction();
                }
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

    /// Applies what a call changes that waits until the channel is restored. The rest is applied when it is sent.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub(crate) fn begin_later(&mut self, pending: Pending) -> Result<(), Misuse> {
        match pending {
            Pending::Qos { .. } | Pending::Recover => Ok(()),
            Pending::TxCommit | Pending::TxRollback if self.mode.is_tx() => Ok(()),
            pending => self.begin(pending),
        }
    }

    /// A call ends the open transaction, if it does, and begins the next.
    pub(crate) fn end_transaction(&mut self, pending: Pending) {
        if let (Pending::TxCommit | Pending::TxRollback, Mode::Tx(transaction)) =
            (pending, &mut self.mode)
        {
            transaction.poisoned = false;
            self.begin_transaction();
        }
    }

    fn begin_transaction(&mut self) {
        if matches!(self.gate, Gate::Open) {
            self.gate = Gate::EmptyTransaction;
        }
    }

    /// The transport is lost, and with it what the open transaction had sent.
    pub(crate) fn poison_transaction(&mut self) {
        let acked = self.wire.unacked.as_ref().is_some_and(|unacked| unacked.has_uncommitted());
        if let Mode::Tx(transaction) = &mut self.mode {
            transaction.poisoned |= acked || matches!(self.gate, Gate::Open);
        }
    }

    /// Whether a part of the open transaction was lost.
    pub(crate) const fn is_poisoned(&self) -> bool {
        matches!(self.mode, Mode::Tx(Transaction { poisoned: true, .. }))
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

impl Wire {
    fn opening(number: u16) -> Self {
        Self {
            number,
            epoch: Epoch::default(),
            phase: Phase::Opening,
            calls: ReplyQueue::default(),
            content: Content::default(),
            delivered: 0,
            unacked: None,
            recovering: 0,
            recovered_to: 0,
            flow_stopped: false,
            strays: None,
        }
    }

    pub(crate) fn detached() -> Self {
        Self { phase: Phase::Detached, ..Self::opening(0) }
    }

    /// What replaces it when the channel is to be opened again.
    pub(crate) fn successor(&self) -> Self {
        Self { epoch: self.epoch.next(), ..Self::detached() }
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
