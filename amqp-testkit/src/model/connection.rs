//! One connection: handshake, frames, contents, and the errors that end it.

use std::collections::BTreeMap;

use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{Method, MethodId, WireMethod, basic, channel as wire, connection};
use amqp_proto::{
    ContentHeader, FieldTable, FieldValue, PROTOCOL_HEADER, RawTable, ReplyCode, ShortStr,
};

use super::broker::{Broker, ConnectionId, Refusal};
use super::channel::{Channel, Unacked};
use super::queue::{ConsumerAt, Queued};

const CHANNEL_MAX: u16 = 2047;
const FRAME_MAX: u32 = 131_072;

#[derive(Debug)]
pub(super) struct Connection {
    phase: Phase,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) finished: bool,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) frame_max: u32,
    channel_max: u16,
    /// The client wants to hear of consumers that end by themselves.
    cancel_notify: bool,
    /// The client wants to hear of alarms.
    blocked_notify: bool,
    /// It has published while there was an alarm, and is not read.
    pub(super) blocked: bool,
    /// Seconds between signs of life; 0 for none.
    pub(super) heartbeat: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    ProtocolHeader,
    StartOk,
    TuneOk,
    Open,
    Running,
    /// `connection.close` was sent, or answered.
    Closing,
}

impl Connection {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::ProtocolHeader,
            input: Vec::new(),
            output: Vec::new(),
            finished: false,
            channels: BTreeMap::new(),
            frame_max: FRAME_MAX,
            channel_max: CHANNEL_MAX,
            cancel_notify: false,
            blocked_notify: false,
            blocked: false,
            heartbeat: 0,
        }
    }

    pub(super) fn send<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        frame::write_method(&mut self.output, channel, method);
    }

    /// Sends a content behind its method.
    pub(super) fn send_content(&mut self, channel: u16, properties: &[u8], body: &[u8]) {
        let header = ContentHeader {
            class_id: amqp_proto::properties::CONTENT_CLASS,
            body_size: body.len() as u64,
            properties: amqp_proto::RawProperties::new(properties),
        };
        frame::write_header(&mut self.output, channel, &header);
        for piece in body.chunks(self.frame_max as usize - frame::FRAME_OVERHEAD) {
            frame::write_body(&mut self.output, channel, piece);
        }
    }

    /// Delivers a message to a consumer; whether that may have it.
    pub(super) fn deliver(&mut self, consumer: &ConsumerAt, queue: &str, queued: &Queued) -> bool {
        let Some(channel) = self.channels.get_mut(&consumer.channel) else { return false };
        if channel.global_prefetch > 0
            && channel.unacknowledged() >= usize::from(channel.global_prefetch)
        {
            return false;
        }
        let Some(state) = channel.consumers.get_mut(&consumer.tag) else { return false };
        if state.prefetch > 0 && state.unacked >= u32::from(state.prefetch) {
            return false;
        }
        channel.next_tag += 1;
        let tag = channel.next_tag;
        if !state.no_ack {
            state.unacked += 1;
            channel.unacked.insert(
                tag,
                Unacked {
                    queue: queue.to_owned(),
                    consumer: consumer.tag.clone(),
                    number: state.number,
                    queued: queued.clone(),
                },
            );
        }
        let published = std::sync::Arc::clone(&queued.message.0);
        let deliver = basic::Deliver {
            consumer_tag: short(&consumer.tag),
            delivery_tag: tag,
            redelivered: queued.redelivered,
            exchange: short(published.exchange.as_bytes()),
            routing_key: short(&published.wire_key),
        };
        self.send(consumer.channel, &deliver);
        self.send_content(consumer.channel, &published.properties, &published.body);
        true
    }

    /// It has published while there was an alarm.
    pub(super) fn block(&mut self, reason: &str) {
        self.blocked = true;
        if self.blocked_notify {
            self.send(0, &connection::Blocked { reason: short(reason.as_bytes()) });
        }
    }

    /// The alarm is over.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
        if self.blocked_notify {
            self.send(0, &connection::Unblocked::default());
        }
    }

    /// The queue of a consumer is gone.
    pub(super) fn cancel(&mut self, consumer: &ConsumerAt) {
        let channel = self.channels.get_mut(&consumer.channel);
        let known = channel.and_then(|channel| channel.consumers.remove(&consumer.tag)).is_some();
        if known && self.cancel_notify {
            let consumer_tag = short(&consumer.tag);
            self.send(consumer.channel, &basic::Cancel { consumer_tag, no_wait: true });
        }
    }
}

impl Broker {
    /// Takes the frames that have arrived whole.
    pub(super) fn handle_input(&mut self, id: ConnectionId) {
        self.mark_dirty(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let input = std::mem::take(&mut connection.input);
        let mut rest = input.as_slice();
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.finished {
                return;
            }
            if connection.blocked {
                break;
            }
            if connection.phase == Phase::ProtocolHeader {
                let Some((header, after)) = rest.split_at_checked(8) else { break };
                connection.greet(header);
                rest = after;
                continue;
            }
            let limit = connection.frame_max - frame::FRAME_OVERHEAD as u32;
            match frame::peek(rest, FrameLimits { body: limit, header: limit, method: limit }) {
                Ok(Peek::Complete(found)) => {
                    rest = &rest[found.frame_len()..];
                    self.handle_frame(id, &found);
                }
                Ok(Peek::Incomplete(_)) => break,
                Err(malformed) => {
                    let text = malformed.to_string();
                    self.refuse(id, 0, None, Refusal::connection(ReplyCode::FRAME_ERROR, text));
                    // Where the next frame begins is anybody's guess.
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.finished = true;
                    }
                    return;
                }
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.input = rest.to_vec();
        }
    }

    fn handle_frame(&mut self, id: ConnectionId, found: &frame::Frame<'_>) {
        let number = found.channel;
        let closing = self.connections.get(&id).is_some_and(|it| it.phase == Phase::Closing);
        if closing && (number != 0 || found.kind != FrameKind::Method) {
            return;
        }
        let mut method = None;
        let result = match found.kind {
            FrameKind::Heartbeat if number != 0 => Err(unexpected("heartbeat on a channel")),
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Method => match Method::decode(found.payload) {
                Ok(decoded) => {
                    method = Some(decoded.id());
                    self.handle_method(id, number, &decoded)
                }
                Err(malformed) => {
                    Err(Refusal::connection(ReplyCode::FRAME_ERROR, malformed.to_string()))
                }
            },
            FrameKind::Header | FrameKind::Body if !self.is_open(id, number) => {
                Err(Refusal::connection(ReplyCode::CHANNEL_ERROR, "content on a closed channel"))
            }
            FrameKind::Header => self.handle_header(id, number, found.payload),
            FrameKind::Body => self.handle_body(id, number, found.payload),
        };
        // What is wrong with a message is laid to its publish.
        if !matches!(found.kind, FrameKind::Method) {
            method = Some(basic::Publish::ID);
        }
        if let Err(refusal) = result {
            self.refuse(id, number, method, refusal);
        }
    }

    fn is_open(&self, id: ConnectionId, number: u16) -> bool {
        self.connections.get(&id).is_some_and(|it| it.channels.contains_key(&number))
    }

    fn handle_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if number == 0 {
            return connection.handle(method);
        }
        if connection.phase != Phase::Running {
            return Ok(());
        }
        let known = connection.channels.get(&number).map(|channel| channel.closing);
        match (method, known) {
            (Method::ChannelOpen(_), None)
                if connection.channels.len() < usize::from(connection.channel_max) =>
            {
                connection.channels.insert(number, Channel::default());
                connection.send(number, &wire::OpenOk::default());
                Ok(())
            }
            (Method::ChannelOpen(_), None) => {
                let text = format!("number of channels opened ({number}) has reached the limit");
                Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text))
            }
            (Method::ChannelOpen(_), Some(_)) => {
                Err(Refusal::connection(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen"))
            }
            (_, None) => Err(Refusal::connection(
                ReplyCode::CHANNEL_ERROR,
                format!("expected 'channel.open' on channel {number}"),
            )),
            // Both sides have sent a close: each is answered.
            (Method::ChannelClose(_), Some(true)) => {
                connection.send(number, &wire::CloseOk::default());
                Ok(())
            }
            (Method::ChannelCloseOk(_), Some(true)) => {
                connection.channels.remove(&number);
                Ok(())
            }
            (_, Some(true)) => Ok(()),
            (method, Some(false)) => self.handle_channel_method(id, number, method),
        }
    }

    /// Closes a channel or the connection, with the reason.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: Option<MethodId>,
        refusal: Refusal,
    ) {
        // A refused login is laid to no method.
        let method = method.filter(|id| *id != connection::StartOk::ID);
        let (class_id, method_id) = method.map_or((0, 0), |id| (id.class, id.method));
        match refusal {
            Refusal::Channel(code, text) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let close = wire::Close {
                    reply_code: code.code(),
                    reply_text: short(text.as_bytes()),
                    class_id,
                    method_id,
                };
                connection.send(number, &close);
                if let Some(channel) = connection.channels.insert(number, Channel::closing()) {
                    self.release_channel(id, number, channel);
                    self.deliver_all();
                }
            }
            Refusal::Connection(code, text) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let close = connection::Close {
                    reply_code: code.code(),
                    reply_text: short(text.as_bytes()),
                    class_id,
                    method_id,
                };
                connection.send(0, &close);
                connection.phase = Phase::Closing;
                for (number, channel) in std::mem::take(&mut connection.channels) {
                    self.release_channel(id, number, channel);
                }
                self.deliver_all();
            }
        }
    }
}

impl Connection {
    fn greet(&mut self, header: &[u8]) {
        if header != PROTOCOL_HEADER {
            self.output.extend_from_slice(&PROTOCOL_HEADER);
            self.finished = true;
            return;
        }
        let capabilities = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "consumer_priorities",
            "direct_reply_to",
            "exchange_exchange_bindings",
            "per_consumer_qos",
            "publisher_confirms",
        ];
        let capabilities: FieldTable =
            capabilities.into_iter().map(|name| (name, FieldValue::Bool(true))).collect();
        let properties = FieldTable::from([
            ("product", "model broker".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("capabilities", capabilities.into()),
        ]);
        let mut table = Vec::new();
        // Short texts and booleans can always be encoded.
        let _ = properties.encode(&mut table);
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: RawTable::new(&table[4..]),
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        self.send(0, &start);
        self.phase = Phase::StartOk;
    }

    /// A method on channel 0.
    fn handle(&mut self, method: &Method<'_>) -> Result<(), Refusal> {
        match (self.phase, method) {
            (_, Method::ConnectionClose(_)) => {
                self.send(0, &connection::CloseOk::default());
                // RabbitMQ leaves it to the client to close the transport.
                self.phase = Phase::Closing;
            }
            (Phase::Closing, Method::ConnectionCloseOk(_)) => self.finished = true,
            (Phase::Closing, _) => {}
            (Phase::StartOk, Method::ConnectionStartOk(start_ok)) => {
                if start_ok.mechanism.as_bytes() != b"PLAIN"
                    || start_ok.response != b"\0guest\0guest"
                {
                    let text = "Login was refused using authentication mechanism PLAIN.";
                    return Err(Refusal::connection(ReplyCode::ACCESS_REFUSED, text));
                }
                let properties = start_ok.client_properties.decode(amqp_proto::TABLE_DEPTH_MAX);
                let properties = properties.unwrap_or_default();
                if let Some(FieldValue::Table(capabilities)) = properties.get("capabilities") {
                    let has = |name| {
                        capabilities.get(name).and_then(FieldValue::as_bool).unwrap_or(false)
                    };
                    self.cancel_notify = has("consumer_cancel_notify");
                    self.blocked_notify = has("connection.blocked");
                }
                let (channel_max, frame_max) = (CHANNEL_MAX, FRAME_MAX);
                self.send(0, &connection::Tune { channel_max, frame_max, heartbeat: 0 });
                self.phase = Phase::TuneOk;
            }
            (Phase::TuneOk, Method::ConnectionTuneOk(tune_ok)) => {
                let legal = (1..=CHANNEL_MAX).contains(&tune_ok.channel_max)
                    && (frame::FRAME_MIN_SIZE..=FRAME_MAX).contains(&tune_ok.frame_max);
                // RabbitMQ resets the transport without a word.
                self.finished = !legal;
                self.frame_max = tune_ok.frame_max.max(frame::FRAME_MIN_SIZE);
                self.channel_max = tune_ok.channel_max;
                self.heartbeat = tune_ok.heartbeat;
                self.phase = Phase::Open;
            }
            (Phase::Open, Method::ConnectionOpen(open)) => {
                if open.virtual_host.as_bytes() != b"/" {
                    let text = format!("vhost {} not found", open.virtual_host);
                    return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
                }
                self.send(0, &connection::OpenOk::default());
                self.phase = Phase::Running;
            }
            (Phase::Running, Method::ConnectionUpdateSecret(_)) => {
                self.send(0, &connection::UpdateSecretOk::default());
            }
            (_, method) => {
                let text = format!("unexpected {} in handshake or on channel 0", method.id());
                return Err(Refusal::connection(ReplyCode::COMMAND_INVALID, text));
            }
        }
        Ok(())
    }
}

pub(super) fn unexpected(what: &str) -> Refusal {
    Refusal::connection(ReplyCode::UNEXPECTED_FRAME, what)
}

/// Text for the wire, cut to what a short string holds.
pub(super) fn short(bytes: &[u8]) -> ShortStr<'_> {
    ShortStr::from_bytes(bytes.get(..255).unwrap_or(bytes)).unwrap_or_default()
}
