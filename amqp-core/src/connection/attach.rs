//! Opens the channels again on a new link: with their mode, their limits and their consumers.
//!
//! Everything that a channel needs is sent at once, as calls of the session. The gates stay closed until all of them
//! are answered. If the broker refuses a consumer, it closes the channel. Then the channel is opened once more, and
//! starts one consumer after the other, so that the refused one is known. It ends with the error; the others go on.
//!
//! If the broker may grant a moment later what it refuses (`held.rs`), the channel is opened again then, and begins with
//! the consumer that was refused. The others of the channel start when that one has started, so that their messages are
//! not delivered and requeued each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::ReplyCode;
use amqp_proto::frame;
use amqp_proto::method::{WireMethod, channel as wire, queue};

use crate::channel::{
    ChannelState, Consumer, ConsumerInput, ConsumerPhase, Mode, Origin, Phase, PhaseInput, Request,
    SessionReply, Waiting,
};
use crate::connection::Connection;
use crate::error::{BrokerError, ChannelCause, Error, InvalidArgument, InvalidReason, Misuse};
use crate::event::{Event, LostConsumer};
use crate::ids::{Call, CallKey, ChannelId, ConsumerKey, PublishSeq};
use crate::message::Body;
use crate::request::{BasicQos, ConfirmSelect, Pending, QueueDeclare, Reply, TxSelect, sealed};

impl Connection {
    /// Records a channel that is opened when the others are restored, if there will be a number for it.
    pub(super) fn open_when_restored(
        &mut self,
        now: Instant,
    ) -> Result<(ChannelId, Call<()>), Error> {
        let channel_max = self.link.numbers.max();
        // Those of the session close before the others open.
        let open = |state: &&ChannelState| {
            state.wire.phase != Phase::Closed && state.origin != Origin::Session
        };
        let open = self.channels.values().filter(open);
        if open.count() >= usize::from(channel_max) {
            let by_broker = channel_max < self.config.channel_max;
            return Err(Misuse::NoFreeChannels { channel_max, by_broker }.into());
        }
        let id = ChannelId(self.channels.insert(ChannelState::detached()));
        let call = self.calls.insert(Pending::ChannelOpen(id), now + self.config.call_timeout);
        if let Some(state) = self.channels.find_mut(id.0) {
            state.waiting.get_or_insert_default().open = Some(call);
        }
        Ok((id, Call::new(call)))
    }

    /// Opens a channel of the session, whose calls it makes by [`call_for_session`](Self::call_for_session).
    pub(crate) fn open_for_session(&mut self, now: Instant) -> Option<ChannelId> {
        let (channels, origin) = (&mut self.channels, Origin::Session);
        let open = |number| ChannelId(channels.insert(ChannelState::new(number, origin)));
        let id = self.link.numbers.allocate(open)?;
        let call = self.insert_for_session(now, Pending::ChannelOpen(id));
        let state = self.channels.find_mut(id.0)?;
        state.released = true;
        state.wire.calls.push(call);
        self.queue_open(id);
        Some(id)
    }

    /// Queues a call of the session.
    pub(crate) fn call_for_session(
        &mut self,
        now: Instant,
        id: ChannelId,
        request: &dyn sealed::Request,
    ) -> Result<CallKey, Error> {
        let number = self.channels.find(id.0).map_or(0, |state| state.wire.number);
        self.scratch.clear();
        request.encode(number, false, &mut self.scratch)?;
        self.check_frame(self.scratch.len())?;
        let call = self.insert_for_session(now, request.pending());
        self.queue_scratch(id, call);
        Ok(call)
    }

    /// Closes a channel of the session. Returns whether it is closed: otherwise the session gets the reply, or the
    /// error of a broker that does not reply. Call it again then.
    pub(crate) fn close_for_session(&mut self, now: Instant, id: ChannelId) -> bool {
        let is_open =
            |state: &ChannelState| matches!(state.wire.phase, Phase::Opening | Phase::Open);
        if self.channels.find(id.0).is_some_and(is_open) {
            let call = self.channel(id).close(now).key();
            if !self.calls.give_to_session(call) {
                self.forget(now, call);
            }
        }
        self.channels.find(id.0).is_none()
    }

    /// The error if there is no channel number for the session.
    pub(crate) fn no_channel(&self) -> Error {
        Error::Channel(ChannelCause::NoFreeNumber { channel_max: self.link.numbers.max() })
    }

    /// Records that the broker has given queues other names.
    pub(crate) fn rename_queues(&mut self, renamed: &BTreeMap<String, String>) {
        if renamed.is_empty() {
            return;
        }
        let renamed = |name: &mut Arc<str>| {
            if let Some(to) = renamed.get(&**name) {
                *name = to.as_str().into();
            }
        };
        self.consumers.all_mut().for_each(|consumer| renamed(&mut consumer.queue));
        self.channels.values_mut().filter_map(|it| it.last_queue.as_mut()).for_each(renamed);
    }

    /// Takes the result of a call of the session.
    pub(crate) fn take_for_session(&mut self) -> Option<SessionReply> {
        self.calls.take_for_session()
    }

    /// Attaches all channels that were open before. The others are opened with the gates, so that they take no number
    /// from these.
    pub(crate) fn attach_all(&mut self, now: Instant) {
        for key in self.channels.keys() {
            let opens = |state: &ChannelState| {
                state.waiting.as_ref().is_some_and(|waiting| waiting.open.is_some())
            };
            if !self.channels.find(key).is_some_and(opens) {
                self.attach(now, ChannelId(key));
            }
        }
    }

    /// Attaches the channels that were held.
    pub(crate) fn attach_held(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.held.channels) {
            self.attach(now, id);
        }
    }

    /// Starts the next consumer of a channel that starts one after the other.
    pub(crate) fn attach_more(&mut self, now: Instant) {
        for key in self.channels.keys() {
            let id = ChannelId(key);
            let calls = &self.calls;
            let restored = |state: &ChannelState| {
                state.wire.phase == Phase::Open
                    && !state.wire.calls.any(|call| calls.is_sessions(call))
            };
            if self.channels.find(key).is_some_and(|it| it.starts_singly() && restored(it)) {
                self.restart_consumers(now, id);
            }
        }
    }

    /// Whether everything that was sent to restore the channels is answered, none is held, and none has consumers that
    /// are still to be started.
    pub(crate) fn is_attached(&self) -> bool {
        !self.calls.has_for_session()
            && self.held.is_empty()
            && !self.channels.values().any(ChannelState::starts_singly)
    }

    /// Sends the publishes of the outboxes again, while there is buffer space. Returns whether all are queued.
    pub(crate) fn resend(&mut self) -> bool {
        self.channels.keys().into_iter().all(|key| self.resend_of(ChannelId(key)))
    }

    fn resend_of(&mut self, id: ChannelId) -> bool {
        let Self { channels, link, events, unconfirmed, .. } = self;
        let Some(state) = channels.find_mut(id.0) else { return true };
        if !state.is_recovering() || state.wire.phase != Phase::Open {
            return true;
        }
        let number = state.wire.number;
        let Some(confirms) = state.mode.confirms_mut() else { return true };
        while let Some(resend) = confirms.next_resend() {
            let frame_max = link.tuning.frame_max;
            if !resend.fits(frame_max) {
                let reason = InvalidReason::FrameTooLarge { size: resend.head.len(), frame_max };
                let error = InvalidArgument::new("properties", reason);
                let before = confirms.span();
                confirms.cannot_resend(resend.seq, error.into());
                *unconfirmed = unconfirmed.saturating_sub(before - confirms.span());
                link.outbound.discard(|discarded| confirms.release(discarded));
                let seq = PublishSeq(resend.seq);
                events.push_back(Event::Resolved { channel: id, first: seq, last: seq });
                continue;
            }
            if !link.outbound.admit(number, resend.body.len()) {
                return false;
            }
            let body = Body::Shared(resend.body);
            let offset = link.outbound.resend(number, &resend.head, &body, resend.seq);
            confirms.resent(resend.seq, offset);
        }
        true
    }

    /// Opens the gates, and sends what has waited.
    pub(crate) fn open_gates(&mut self, now: Instant) {
        self.recovering = false;
        self.held.clear();
        for key in self.channels.keys() {
            let id = ChannelId(key);
            self.attach(now, id);
            let Some(state) = self.channels.find_mut(key) else { continue };
            if state.is_recovering() {
                state.open_gate();
                let waiting = state.waiting.take();
                self.send_waiting(now, id, waiting);
            }
        }
        self.events.push_back(Event::BufferSpace);
    }

    /// Opens a channel on the link, if it is detached.
    fn attach(&mut self, now: Instant, id: ChannelId) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if state.wire.phase != Phase::Detached {
            return;
        }
        let opening = state.waiting.as_mut().and_then(|waiting| waiting.open.take());
        if let Some(call) = opening.filter(|call| !self.calls.is_callers(*call)) {
            // No handle will be created for it.
            state.released = true;
            self.finish_call(call, Ok(Reply::Done));
            return self.close_channel(id, PhaseInput::CloseOk, ChannelCause::ByClient, 0);
        }
        let mut number = 0;
        let allocated = self.link.numbers.allocate(|free| {
            number = free;
            id
        });
        if allocated.is_none() {
            if let (Some(call), Some(state)) = (opening, self.channels.find_mut(id.0)) {
                state.waiting.get_or_insert_default().open = Some(call);
            }
            let cause = ChannelCause::NoFreeNumber { channel_max: self.link.numbers.max() };
            return self.close_channel(id, PhaseInput::ConnectionLost, cause, 0);
        }
        let open = match opening {
            Some(call) => call,
            None => self.insert_for_session(now, Pending::ChannelOpen(id)),
        };
        let Some(state) = self.channels.find_mut(id.0) else { return };
        state.step(PhaseInput::Attach);
        state.wire.number = number;
        state.wire.calls.push(open);
        let mode: Option<&dyn sealed::Request> = match &state.mode {
            Mode::Plain => None,
            Mode::Confirm(_) => Some(&ConfirmSelect {}),
            Mode::Tx(_) => Some(&TxSelect {}),
        };
        self.queue_open(id);
        if let Some(mode) = mode {
            // It has no argument that could be refused.
            let _ = self.call_for_session(now, id, mode);
        }
        self.restart_consumers(now, id);
    }

    /// Starts the consumers of a channel again, or the next one, and sets its limits.
    fn restart_consumers(&mut self, now: Instant, id: ChannelId) {
        let restoring = self.channels.find(id.0).and_then(|state| state.restoring.as_deref());
        let (singly, held) = restoring.map_or((false, None), |it| (it.singly, it.held));
        let others = self.consumers.of_channel(id).into_iter().filter(|key| Some(*key) != held);
        for key in held.into_iter().chain(others) {
            let Some(consumer) = self.consumers.find(key) else { continue };
            let waits = consumer.phase == ConsumerPhase::Suspended && !consumer.absent;
            if !waits || !consumer.established {
                continue;
            }
            if let Err(error) = self.restart_consumer(now, id, key, None) {
                self.lose_consumer(id, key, error);
                continue;
            }
            if singly {
                return;
            }
        }
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if let Some(restoring) = &mut state.restoring {
            // All are started.
            restoring.singly = false;
        }
        let (limits, prefetch) = state.prefetch.set(state.remembered_limits());
        state.prefetch = prefetch;
        let last_queue = state.last_queue.as_ref().map(|queue| QueueDeclare::passive(&**queue));
        self.send_limits(now, id, &limits);
        if let Some(passive) = last_queue {
            // So that the broker knows which queue an empty name means on this channel.
            let _ = self.call_for_session(now, id, &passive);
        }
    }

    /// Sends `basic.consume` for a consumer that was started before, or that waited. With `call`, the caller waits for
    /// the reply; without, the session does.
    fn restart_consumer(
        &mut self,
        now: Instant,
        id: ChannelId,
        key: ConsumerKey,
        call: Option<CallKey>,
    ) -> Result<(), Error> {
        let old_broker = self.link.refused_streams_are_fatal;
        let (Some(state), Some(consumer)) =
            (self.channels.find(id.0), self.consumers.find_mut(key))
        else {
            return Ok(());
        };
        let own = consumer.request.prefetch;
        let limits = *consumer.limits.get_or_insert_with(|| state.prefetch.limits());
        let (limits, prefetch) = state.prefetch.set(limits);
        let start = prefetch.start_as(consumer.kind, own);
        let number = state.wire.number;
        // With the queue's present name: the broker may have given it another.
        consumer.request.queue = consumer.queue.as_ref().into();
        self.scratch.clear();
        consumer.request.encode_with_tag(number, &consumer.tag, &mut self.scratch)?;
        consumer.suspected = old_broker && consumer.kind == crate::ids::TagKind::Ack;
        consumer.prefetch = own.unwrap_or(start.prefetch);
        consumer.inbox.set_window(start.prefetch.into());
        let consume = std::mem::take(&mut self.scratch);
        let checked = self.check_frame(consume.len());
        self.scratch = consume;
        checked?;
        if let Some(consumer) = self.consumers.find_mut(key) {
            consumer.step(ConsumerInput::Restart);
        }
        let consume = std::mem::take(&mut self.scratch);
        self.send_limits(now, id, &limits);
        self.send_limits(now, id, &start.before);
        self.scratch = consume;
        let call = match call {
            Some(call) => call,
            None => self.insert_for_session(now, Pending::Consume(key)),
        };
        self.queue_scratch(id, call);
        if let Some(behind) = start.behind {
            self.send_limits(now, id, &[behind]);
        }
        if let (Some(state), Some(consumer)) =
            (self.channels.find_mut(id.0), self.consumers.find(key))
        {
            state.prefetch = start.next;
            if let Some(strays) = &mut state.wire.strays {
                strays.forget(consumer.tag.as_bytes());
            }
        }
        Ok(())
    }

    /// The broker has closed a channel that was being restored.
    pub(super) fn attach_refused(&mut self, now: Instant, id: ChannelId, error: BrokerError) {
        let mut wire = self.detach_wire(id);
        let mut starting = Vec::new();
        for call in std::mem::take(&mut wire.calls).into_keys() {
            match self.calls.pending(call) {
                Some((Pending::Consume(key), _)) if self.calls.is_sessions(call) => {
                    starting.push(key);
                    self.calls.drop_for_session(call);
                }
                Some(_) if self.calls.is_sessions(call) => self.calls.drop_for_session(call),
                Some((Pending::Cancel(key), _)) => {
                    self.forget_tag(id, key);
                    self.end_consumer(key, ConsumerInput::CancelOk, None);
                    self.finish_call(call, Ok(Reply::Done));
                }
                _ => {
                    let cause = ChannelCause::ByBroker(error.clone());
                    self.finish_call(call, Err(cause.into_error()));
                }
            }
        }
        for key in self.consumers.of_channel(id) {
            let running =
                |key| self.consumers.find(key).map(|it| it.phase) == Some(ConsumerPhase::Running);
            if running(key) {
                self.suspend_consumer(key);
            }
        }
        if error.method == Some(queue::Declare::ID) {
            // The queue is gone, and with it what an empty name means.
            if let Some(state) = self.channels.find_mut(id.0) {
                state.last_queue = None;
            }
            return self.attach(now, id);
        }
        match starting[..] {
            // It is not a consumer that the broker refuses.
            [] => {
                let (input, cause) = (PhaseInput::ConnectionLost, ChannelCause::ByBroker(error));
                let handed_over = self.link.outbound.handed_over();
                self.close_channel(id, input, cause, handed_over);
            }
            [consumer] if self.held.waits_for(&error, now) => {
                if let Some(restoring) =
                    self.channels.find_mut(id.0).and_then(|state| state.restoring.as_mut())
                {
                    (restoring.singly, restoring.held) = (true, Some(consumer));
                }
                self.held.channels.push(id);
            }
            [consumer] if error.code == ReplyCode::NOT_FOUND && self.resubscribes() => {
                self.await_queue(consumer);
                self.attach(now, id);
            }
            [consumer] => {
                self.lose_consumer(id, consumer, ChannelCause::ByBroker(error).into_error());
                self.attach(now, id);
            }
            _ => {
                if let Some(restoring) =
                    self.channels.find_mut(id.0).and_then(|state| state.restoring.as_mut())
                {
                    restoring.singly = true;
                }
                self.attach(now, id);
            }
        }
    }

    /// Whether consumers start again when their queue is back.
    pub(super) fn resubscribes(&self) -> bool {
        self.recovers && self.config.recovery.resubscribe
    }

    /// Has the session start a suspended consumer when its queue is back.
    pub(super) fn await_queue(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.find_mut(key) {
            consumer.absent = true;
            self.absent.push(key);
        }
    }

    /// Takes the consumers that are to start again when their queue is back.
    pub(crate) fn take_absent(&mut self) -> Vec<ConsumerKey> {
        std::mem::take(&mut self.absent)
    }

    /// The queue of a consumer that is to start again when it is back.
    pub(crate) fn queue_of_absent(&self, key: ConsumerKey) -> Option<Arc<str>> {
        let consumer = self.consumers.find(key)?;
        (consumer.absent && consumer.phase == ConsumerPhase::Suspended)
            .then(|| consumer.queue.clone())
    }

    /// Starts a consumer whose queue is back.
    pub(crate) fn resume_consumer(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.find_mut(key) else { return };
        let id = consumer.channel;
        consumer.absent = false;
        if consumer.phase != ConsumerPhase::Suspended
            || !self.channels.find(id.0).is_some_and(ChannelState::is_open)
        {
            return;
        }
        if let Err(error) = self.restart_consumer(now, id, key, None) {
            self.lose_consumer(id, key, error);
        }
    }

    /// Ends a consumer that could not be started again.
    fn lose_consumer(&mut self, id: ChannelId, key: ConsumerKey, error: Error) {
        // The application may have cancelled it meanwhile.
        let lost = |consumer: &&Consumer| consumer.phase != ConsumerPhase::Ended;
        let Some(consumer) = self.consumers.find(key).filter(lost) else { return };
        self.events.push_back(Event::ConsumerLost(Box::new(LostConsumer {
            queue: consumer.queue.clone(),
            consumer_tag: consumer.tag.clone(),
            error: error.clone(),
        })));
        self.forget_tag(id, key);
        self.end_consumer(key, ConsumerInput::Refused, Some(error));
    }

    /// Sends the calls that have waited, in their order.
    fn send_waiting(&mut self, now: Instant, id: ChannelId, waiting: Option<Box<Waiting>>) {
        let Some(mut waiting) = waiting else { return };
        while let Some((call, request)) = waiting.pop() {
            let sent = match request {
                _ if self.is_forgotten(call) => Err(Error::Channel(ChannelCause::ByClient)),
                Request::Frame(ref frame) => self.send_frame(id, call, frame),
                Request::Consume(key) => self.restart_consumer(now, id, key, Some(call)),
            };
            if let Err(error) = sent {
                self.refuse_waiting(id, call, &request, error);
            }
        }
    }

    /// Drops the calls of a channel that wait and whose callers are gone.
    pub(super) fn drop_forgotten(&mut self, id: ChannelId) {
        let Some(waiting) = self.channels.find_mut(id.0).and_then(|it| it.waiting.as_mut()) else {
            return;
        };
        for (call, request) in waiting.take_calls() {
            if self.is_forgotten(call) {
                self.refuse_waiting(id, call, &request, Error::Channel(ChannelCause::ByClient));
            } else if let Some(state) = self.channels.find_mut(id.0) {
                state.waiting.get_or_insert_default().push(call, request);
            }
        }
    }

    /// Whether a call that waits need not be sent, because its caller is gone.
    fn is_forgotten(&self, call: CallKey) -> bool {
        let pending = self.calls.pending(call).map(|(pending, _)| pending);
        !self.calls.is_callers(call) && !pending.is_some_and(Pending::outlives_caller)
    }

    /// Fails a call that has waited and is not sent.
    fn refuse_waiting(&mut self, id: ChannelId, call: CallKey, request: &Request, error: Error) {
        if let Request::Consume(key) = *request {
            self.forget_tag(id, key);
            if let Some(consumer) = self.consumers.find_mut(key) {
                consumer.released = true;
            }
            self.end_consumer(key, ConsumerInput::Refused, None);
        }
        self.finish_call(call, Err(error));
    }

    /// Sends the frame of a call that has waited.
    fn send_frame(&mut self, id: ChannelId, call: CallKey, frame: &[u8]) -> Result<(), Error> {
        self.check_frame(frame.len())?;
        let Some((pending, _)) = self.calls.pending(call) else { return Ok(()) };
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        state.begin(pending)?;
        self.scratch.clear();
        self.scratch.extend_from_slice(frame);
        frame::set_channel(&mut self.scratch, state.wire.number);
        self.queue_scratch(id, call);
        Ok(())
    }

    fn send_limits(&mut self, now: Instant, id: ChannelId, limits: &[BasicQos]) {
        for qos in limits {
            let qos: &dyn sealed::Request = qos;
            // It has no argument that could be refused.
            let _ = self.call_for_session(now, id, qos);
        }
    }

    fn queue_open(&mut self, id: ChannelId) {
        let Some(state) = self.channels.find(id.0) else { return };
        let (number, open) = (state.wire.number, wire::Open::default());
        self.link.outbound.frames(number, |out| frame::write_method(out, number, &open));
    }

    /// Queues the frame in the scratch buffer for this call.
    fn queue_scratch(&mut self, id: ChannelId, call: CallKey) {
        let Self { channels, consumers, calls, link, scratch, .. } = self;
        let Some(state) = channels.find_mut(id.0) else { return };
        let number = state.wire.number;
        let offset = link.outbound.offset(number, 0);
        link.outbound.frames(number, |out| out.extend_from_slice(scratch));
        if matches!(calls.pending(call), Some((Pending::TxCommit, _))) {
            link.outbound.hold(number);
        }
        if calls.is_callers(call) && offset != u64::MAX {
            calls.keep_frame(call, offset, scratch);
        }
        let consumer = calls.pending(call).and_then(|(pending, _)| pending.consumer());
        match consumer.and_then(|key| consumers.find(key)) {
            Some(consumer) => state.wire.calls.push_tagged(consumer.tag.clone(), call),
            None => state.wire.calls.push(call),
        }
    }

    fn insert_for_session(&mut self, now: Instant, pending: Pending) -> CallKey {
        self.calls.insert_for_session(pending, now + self.config.call_timeout)
    }

    fn check_frame(&self, size: usize) -> Result<(), Error> {
        let frame_max = self.link.tuning.frame_max;
        if size <= frame_max as usize {
            return Ok(());
        }
        let reason = InvalidReason::FrameTooLarge { size, frame_max };
        Err(InvalidArgument::new("arguments", reason).into())
    }
}
