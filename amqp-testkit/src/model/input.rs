//! Input: cuts bytes into frames, passes each frame to what handles it, and turns refusals into closes.

use amqp_proto::ReplyCode;
use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{Method, MethodId, WireMethod, basic, channel, connection};

use super::broker::{Broker, ConnectionId};
use super::channel::ChannelState;
use super::connection::{Connection, Phase};
use super::fields::short;
use super::refusal::Refusal;

impl Broker {
    /// Handles the frames that have arrived completely.
    pub(super) fn handle_input(&mut self, id: ConnectionId) {
        self.mark_dirty(id);
        self.handle_frames(id);
        self.send_confirms(id);
    }

    fn handle_frames(&mut self, id: ConnectionId) {
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
                    // Where the next frame begins is unknown.
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
        let (method, result) = match found.kind {
            FrameKind::Heartbeat if number != 0 => {
                (None, Err(Refusal::unexpected_frame("heartbeat on a channel")))
            }
            FrameKind::Heartbeat => (None, Ok(())),
            FrameKind::Method => match Method::decode(found.payload) {
                Ok(decoded) => (Some(decoded.id()), self.handle_method(id, number, &decoded)),
                Err(malformed) => {
                    let text = malformed.to_string();
                    (None, Err(Refusal::connection(ReplyCode::FRAME_ERROR, text)))
                }
            },
            // The close names `basic.publish` as the cause of a malformed message.
            FrameKind::Header | FrameKind::Body => {
                (Some(basic::Publish::ID), self.handle_content(id, found))
            }
        };
        if let Err(refusal) = result {
            self.refuse(id, number, method, refusal);
        }
        self.publish_dead_letters();
    }

    fn handle_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Refusal> {
        let Self { connections, users, .. } = self;
        let Some(connection) = connections.get_mut(&id) else { return Ok(()) };
        if number == 0 {
            return connection.handle_method(method, users);
        }
        if connection.phase != Phase::Running {
            return Ok(());
        }
        if connection.channels.contains_key(&number) {
            return self.channel(id, number).map_or(Ok(()), |it| it.handle_method(method));
        }
        connection.open_channel(number, method)
    }

    fn handle_content(
        &mut self,
        id: ConnectionId,
        found: &frame::Frame<'_>,
    ) -> Result<(), Refusal> {
        let Some(mut channel) = self.channel(id, found.channel) else {
            let text = "content on a closed channel";
            return Err(Refusal::connection(ReplyCode::CHANNEL_ERROR, text));
        };
        if channel.state().closing {
            return Ok(());
        }
        match found.kind {
            FrameKind::Header => channel.handle_header(found.payload),
            _ => channel.handle_body(found.payload),
        }
    }

    /// Closes the channel or the connection with the code and text of the refusal.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: Option<MethodId>,
        refusal: Refusal,
    ) {
        self.send_confirms(id);
        // The close of a refused login names no method.
        let method = method.filter(|id| *id != connection::StartOk::ID);
        let (class_id, method_id) = method.map_or((0, 0), |id| (id.class, id.method));
        match refusal {
            Refusal::Channel(code, text) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let close = channel::Close {
                    reply_code: code.code(),
                    reply_text: short(text.as_bytes()),
                    class_id,
                    method_id,
                };
                connection.send(number, &close);
                let closing = ChannelState::closing();
                if let Some(state) = connection.channels.insert(number, closing) {
                    self.release_channel(id, number, state);
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
                for (number, state) in std::mem::take(&mut connection.channels) {
                    self.release_channel(id, number, state);
                }
                self.deliver_all();
            }
        }
    }
}

impl Connection {
    /// Handles the first method on a channel number that is not in use.
    fn open_channel(&mut self, number: u16, method: &Method<'_>) -> Result<(), Refusal> {
        let Method::ChannelOpen(_) = method else {
            let text = format!("expected 'channel.open' on channel {number}");
            return Err(Refusal::connection(ReplyCode::CHANNEL_ERROR, text));
        };
        if self.channels.len() >= usize::from(self.channel_max) {
            let text = format!("number of channels opened ({number}) has reached the limit");
            return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
        }
        self.channels.insert(number, ChannelState::default());
        self.send(number, &channel::OpenOk::default());
        Ok(())
    }
}
