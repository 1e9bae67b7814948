//! The broker's side of a channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::proto::method::{Method, basic, channel, confirm, exchange, queue, tx};

use super::broker::{Command, Effect, Outgoing, close, content, outgoing, short};
use super::delivering::Consumer;
use super::dice::Dice;
use super::log::{Intent, Log};
use super::publishing::publish_id;
use super::versions::Version;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// The broker's close is not answered.
    Closing,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(super) number: u16,
    /// Which of all channels that were opened it is.
    pub(crate) id: usize,
    pub(crate) state: State,
    opened: bool,
    /// What it was closed with.
    closed_with: Option<Outgoing>,
    pub(crate) todo: VecDeque<Command>,
    /// Answers that the queues give by way of the channel, in any order.
    late: Vec<Outgoing>,
    confirms: bool,
    transactional: bool,
    seq: u64,
    /// Publishes to be confirmed, with what is to be returned before.
    unconfirmed: BTreeMap<u64, Option<Returned>>,
    /// Those of them that were returned: they are acked.
    returned: BTreeSet<u64>,
    /// Returns of a transaction.
    uncommitted: Vec<Returned>,
    pub(super) tag: u64,
    pub(super) unacked: BTreeMap<u64, usize>,
    /// The deliveries that were acked or nacked in the open transaction.
    pub(super) acked_in_tx: BTreeMap<u64, usize>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    /// The limit of each consumer that starts.
    pub(super) prefetch: u16,
    /// The limit that all consumers share.
    pub(super) global: u16,
    flows: VecDeque<bool>,
    flow_stopped: bool,
}

#[derive(Debug)]
struct Returned {
    id: Option<u64>,
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(number: u16, id: usize) -> Self {
        Self {
            number,
            id,
            state: State::Open,
            opened: false,
            closed_with: None,
            todo: VecDeque::new(),
            late: Vec::new(),
            confirms: false,
            transactional: false,
            seq: 0,
            unconfirmed: BTreeMap::new(),
            returned: BTreeSet::new(),
            uncommitted: Vec::new(),
            tag: 0,
            unacked: BTreeMap::new(),
            acked_in_tx: BTreeMap::new(),
            consumers: BTreeMap::new(),
            prefetch: 0,
            global: 0,
            flows: VecDeque::new(),
            flow_stopped: false,
        }
    }

    /// Whether nothing is left to be answered or confirmed.
    pub(crate) fn is_idle(&self) -> bool {
        self.todo.is_empty()
            && self.late.is_empty()
            && self.flows.is_empty()
            && !self.flow_stopped
            && (self.state == State::Closing || self.unconfirmed.is_empty())
    }

    /// Whether a consumer that the broker has cancelled is still there.
    pub(crate) fn has_ghosts(&self) -> bool {
        self.consumers.values().any(|consumer| consumer.ghost)
    }

    /// Nothing is under way: its limits are what the application has asked for.
    pub(crate) fn check_rest(&self, log: &mut Log) {
        if self.state == State::Open {
            log.limits.entry(self.id).or_default().check_rest(log.version, self.global);
        }
    }

    /// Deliveries that the client has neither acked nor nacked.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = usize> {
        self.unacked.values().copied()
    }

    pub(crate) fn handle(
        &mut self,
        command: Command,
        calm: bool,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let payload = match command {
            Command::Method(payload) => payload,
            Command::Publish { .. } if self.state == State::Closing => return,
            Command::Publish { mandatory, exchange, routing_key, properties, body } => {
                self.check_limits(log);
                let id = publish_id(&properties, &body);
                let returned = Returned { id: Some(id), exchange, routing_key, properties, body };
                return self.publish(mandatory, returned, out, dice, log);
            }
        };
        let method = Method::decode(&payload).unwrap();
        if self.state == State::Closing {
            match method {
                Method::ChannelCloseOk(_) => self.state = State::Closed,
                // RabbitMQ may lose one that meets a channel on its way out.
                Method::ChannelClose(_) if dice.chance(50) => {
                    out.push(outgoing(self.number, &channel::CloseOk::default(), None));
                }
                _ => {}
            }
            return;
        }
        if !matches!(method, Method::BasicQos(_) | Method::BasicConsume(_)) {
            self.check_limits(log);
        }
        self.method(&method, calm, out, dice, log);
    }

    /// No consumer is being started: the shared limit is the application's.
    fn check_limits(&self, log: &mut Log) {
        if log.version == Version::V3 {
            log.limits.entry(self.id).or_default().check_shared(self.global);
        }
    }

    fn method(
        &mut self,
        method: &Method<'_>,
        calm: bool,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let number = self.number;
        macro_rules! reply {
            ($reply:expr) => {
                out.push(outgoing(number, &$reply, None))
            };
        }
        match method {
            Method::ChannelOpen(_) if !calm && dice.chance(4) => {
                log.refused.insert(self.id);
                // A close that is equal to the number's last one would be taken for a copy of that.
                let text = format!("RESOURCE_ERROR - channel {} is refused", self.id);
                let close = channel::Close { reply_code: 506, reply_text: short(&text), ..close() };
                self.close(outgoing(number, &close, None), out);
            }
            Method::ChannelOpen(_) => {
                self.opened = true;
                reply!(channel::OpenOk::default());
            }
            Method::ChannelClose(_) => {
                self.late_replies(dice, out);
                reply!(channel::CloseOk::default());
                self.state = State::Closed;
            }
            Method::ChannelFlow(flow) => reply!(channel::FlowOk { active: flow.active }),
            Method::ChannelFlowOk(ok) => {
                assert_eq!(self.flows.pop_front(), Some(ok.active), "flow-ok");
            }
            Method::ConfirmSelect(_) => {
                self.confirms = true;
                reply!(confirm::SelectOk::default());
            }
            Method::TxSelect(_) => {
                self.transactional = true;
                reply!(tx::SelectOk::default());
            }
            Method::TxCommit(_) => {
                for returned in std::mem::take(&mut self.uncommitted) {
                    self.give_back(&returned, out, dice, log.version);
                }
                self.acked_in_tx.clear();
                reply!(tx::CommitOk::default());
            }
            Method::TxRollback(_) => {
                self.uncommitted.clear();
                self.unacked.append(&mut self.acked_in_tx);
                log.count("rolled back");
                reply!(tx::RollbackOk::default());
            }
            Method::BasicQos(qos) => {
                match (log.version, qos.global) {
                    (Version::V3, true) => self.global = qos.prefetch_count,
                    (Version::V3, false) => (self.prefetch, self.global) = (qos.prefetch_count, 0),
                    (Version::V4, _) => self.prefetch = qos.prefetch_count,
                }
                reply!(basic::QosOk::default());
            }
            Method::BasicConsume(consume) => {
                self.consume(consume, log);
                let consumer_tag = consume.consumer_tag;
                let ok = outgoing(number, &basic::ConsumeOk { consumer_tag }, None);
                if dice.chance(50) { self.late.push(ok) } else { out.push(ok) }
            }
            Method::BasicCancel(cancel) => {
                let tag = cancel.consumer_tag.as_str().unwrap().to_owned();
                self.consumers.remove(&tag);
                if !cancel.no_wait {
                    let consumer_tag = cancel.consumer_tag;
                    let effect = Some(Effect::Ended { channel: self.id, tag });
                    let ok = outgoing(number, &basic::CancelOk { consumer_tag }, effect);
                    if dice.chance(50) { self.late.push(ok) } else { out.push(ok) }
                }
            }
            Method::BasicGet(get) => {
                if calm || dice.chance(40) {
                    return reply!(basic::GetEmpty::default());
                }
                let queue = get.queue.as_str().unwrap();
                let (tag, at) = self.next_delivery(get.no_ack, None, dice, log);
                let routing_key = at.to_string();
                let ok = basic::GetOk {
                    delivery_tag: tag,
                    redelivered: log.sent[at].redelivered,
                    exchange: short(queue),
                    routing_key: short(&routing_key),
                    message_count: at as u32,
                };
                let sent = &log.sent[at];
                let (properties, body) = (&sent.properties, &sent.body);
                out.extend(content(number, 4_096, &ok, properties, body, Effect::Sent(at), dice));
            }
            Method::BasicAck(ack) => {
                self.acknowledged(ack.delivery_tag, ack.multiple, Intent::Ack, log);
            }
            Method::BasicNack(nack) => {
                let intent = Intent::Refuse { requeue: nack.requeue };
                self.acknowledged(nack.delivery_tag, nack.multiple, intent, log);
            }
            Method::BasicReject(reject) => {
                let intent = Intent::Refuse { requeue: reject.requeue };
                self.acknowledged(reject.delivery_tag, false, intent, log);
            }
            Method::BasicRecover(_) => {
                for number in std::mem::take(&mut self.unacked).into_values() {
                    log.count("recovered");
                    log.sent[number].recovered = true;
                }
                reply!(basic::RecoverOk::default());
            }
            // The reply to a call about a queue shows that it is the call's own.
            Method::QueueDeclare(declare) if !declare.no_wait => {
                let message_count = digits(declare.queue.as_bytes());
                let queue = declare.queue;
                reply!(queue::DeclareOk { queue, message_count, consumer_count: 0 });
            }
            Method::QueuePurge(purge) if !purge.no_wait => {
                reply!(queue::PurgeOk { message_count: digits(purge.queue.as_bytes()) });
            }
            Method::QueueDelete(delete) if !delete.no_wait => {
                reply!(queue::DeleteOk { message_count: digits(delete.queue.as_bytes()) });
            }
            Method::ExchangeDelete(delete) if !delete.no_wait => {
                reply!(exchange::DeleteOk::default());
            }
            Method::QueueDeclare(_)
            | Method::QueuePurge(_)
            | Method::QueueDelete(_)
            | Method::ExchangeDelete(_) => {}
            method => panic!("{method:?}"),
        }
    }

    fn publish(
        &mut self,
        mandatory: bool,
        returned: Returned,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let unroutable = mandatory && dice.chance(50);
        if self.confirms {
            self.seq += 1;
            if let Some(published) = returned.id.and_then(|id| log.published.get_mut(&id)) {
                assert_eq!(published.counted.replace(self.seq), None, "published twice");
                assert_eq!(published.channel, self.id);
            }
            self.unconfirmed.insert(self.seq, unroutable.then_some(returned));
        } else if unroutable && self.transactional {
            self.uncommitted.push(Returned { id: None, ..returned });
        } else if unroutable {
            self.give_back(&Returned { id: None, ..returned }, out, dice, log.version);
        }
    }

    fn give_back(
        &self,
        returned: &Returned,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        version: Version,
    ) {
        let method = basic::Return {
            reply_code: 312,
            reply_text: short("NO_ROUTE"),
            exchange: amqp_core::types::ShortStr::from_bytes(&returned.exchange).unwrap(),
            routing_key: amqp_core::types::ShortStr::from_bytes(&returned.routing_key).unwrap(),
        };
        let (properties, body) = (version.returned(&returned.properties), &returned.body);
        let effect = Effect::Returned(returned.id.unwrap_or(u64::MAX));
        out.extend(content(self.number, 4_096, &method, &properties, body, effect, dice));
    }

    /// The client must have been sent the tag, and have acked or nacked all that it covers.
    fn acknowledged(&mut self, tag: u64, multiple: bool, intent: Intent, log: &mut Log) {
        let id = self.id;
        let number = self.unacked.remove(&tag);
        let number = number.unwrap_or_else(|| panic!("tag {tag} of channel {id}: {intent:?}"));
        let mut covered = BTreeMap::from([(tag, number)]);
        if multiple {
            let open = self.unacked.split_off(&tag);
            covered.append(&mut std::mem::replace(&mut self.unacked, open));
        }
        for number in covered.values() {
            log.check_acknowledged(*number, intent);
        }
        if self.transactional {
            self.acked_in_tx.append(&mut covered);
        }
    }

    /// Something that nothing asked for; whether the channel was closed.
    pub(crate) fn act(
        &mut self,
        calm: bool,
        frame_max: usize,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        log: &mut Log,
    ) -> bool {
        let number = self.number;
        if self.state == State::Closing {
            // Repeated until it is answered.
            if !calm && dice.chance(20) {
                out.extend(self.closed_with.clone());
            }
            return false;
        }
        if !self.opened {
            return false;
        }
        match dice.below(400) {
            0 if !calm => {
                log.line(|| format!("! channel {number} is closed"));
                log.count("channel closed by the broker");
                self.close(outgoing(number, &close(), None), out);
                return true;
            }
            1..=6 if !calm && !self.flow_stopped => self.flow(false, out),
            1..=120 if self.flow_stopped => self.flow(true, out),
            7..=15 if !calm => {
                let Some(at) = dice.place(self.consumers.len()) else { return false };
                let (tag, consumer) = self.consumers.iter_mut().nth(at).unwrap();
                if !std::mem::replace(&mut consumer.ghost, true) {
                    log.count("consumer cancelled by the broker");
                    // A broker that keeps such consumers has no limits that they share.
                    let gone = consumer.no_ack || consumer.shares;
                    let cancel = basic::Cancel { consumer_tag: short(tag), no_wait: true };
                    let tag = tag.clone();
                    let effect = Effect::Ended { channel: self.id, tag: tag.clone() };
                    out.push(outgoing(number, &cancel, Some(effect)));
                    if gone || dice.chance(70) {
                        self.consumers.remove(&tag);
                    }
                }
            }
            16..=100 => {
                if let Some(at) = dice.place(self.late.len()) {
                    out.push(self.late.swap_remove(at));
                }
            }
            101..=240 => self.confirm(calm, out, dice, log.version),
            _ if !calm => self.deliver(frame_max, out, dice, log),
            _ => {}
        }
        false
    }

    fn close(&mut self, close: Outgoing, out: &mut Vec<Outgoing>) {
        self.closed_with = Some(close.clone());
        out.push(close);
        self.state = State::Closing;
    }

    fn flow(&mut self, active: bool, out: &mut Vec<Outgoing>) {
        self.flow_stopped = !active;
        self.flows.push_back(active);
        out.push(outgoing(self.number, &channel::Flow { active }, None));
    }

    fn late_replies(&mut self, dice: &mut Dice, out: &mut Vec<Outgoing>) {
        while let Some(at) = dice.place(self.late.len()) {
            let late = self.late.swap_remove(at);
            if dice.chance(70) {
                out.push(late);
            }
        }
    }

    /// Confirms some publishes: one, or all up to one. What is returned comes before its ack, with any
    /// acks between.
    fn confirm(&mut self, calm: bool, out: &mut Vec<Outgoing>, dice: &mut Dice, version: Version) {
        let Some(at) = dice.place(self.unconfirmed.len()) else { return };
        let last = *self.unconfirmed.keys().nth(at).unwrap();
        if dice.chance(30)
            && let Some(returned) = self.unconfirmed.get_mut(&last).and_then(Option::take)
        {
            self.returned.insert(last);
            return self.give_back(&returned, out, dice, version);
        }
        let multiple = calm || dice.chance(30);
        let first = if multiple { 1 } else { last };
        let unroutable: Vec<u64> = self
            .unconfirmed
            .range(first..=last)
            .filter_map(|(seq, returned)| returned.is_some().then_some(*seq))
            .collect();
        for seq in &unroutable {
            if let Some(returned) = self.unconfirmed.get_mut(seq).and_then(Option::take) {
                self.give_back(&returned, out, dice, version);
            }
            self.returned.insert(*seq);
        }
        let returned = self.returned.range(first..=last).next().is_some();
        let open = self.unconfirmed.range(first..=last).map(|it| *it.0).collect::<Vec<_>>();
        open.iter().for_each(|seq| {
            self.unconfirmed.remove(seq);
        });
        self.returned.retain(|seq| !(first..=last).contains(seq));
        let (channel, delivery_tag) = (self.id, last);
        if !returned && dice.chance(20) {
            let nack = basic::Nack { delivery_tag, multiple, requeue: dice.chance(50) };
            out.push(outgoing(self.number, &nack, Some(Effect::Nacked { channel, first, last })));
        } else {
            let ack = basic::Ack { delivery_tag, multiple };
            out.push(outgoing(self.number, &ack, Some(Effect::Acked { channel, first, last })));
        }
    }
}

/// The number in a name such as "q17".
fn digits(name: &[u8]) -> u32 {
    let digits = name.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}
