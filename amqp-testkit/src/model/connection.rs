//! One connection: its state, and what is sent on it.

use std::collections::BTreeMap;

use amqp_proto::frame;
use amqp_proto::method::{WireMethod, basic, connection};
use amqp_proto::properties::CONTENT_CLASS;
use amqp_proto::{ContentHeader, RawProperties};

use super::channel::{ChannelState, Consumer};
use super::fields::short;
use super::message::Message;
use super::queue::ConsumerAt;
use super::users::Access;

pub(super) const CHANNEL_MAX: u16 = 2047;
pub(super) const FRAME_MAX: u32 = 131_072;
/// The heartbeat interval that the broker proposes.
pub(super) const HEARTBEAT_SECONDS: u16 = 60;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) finished: bool,
    /// The user that has logged in, and what it may do.
    pub(super) user: String,
    pub(super) access: Access,
    /// Whether the client has the capability `authentication_failure_close`.
    pub(super) login_notify: bool,
    pub(super) channels: BTreeMap<u16, ChannelState>,
    /// The channels with confirms that are to be sent.
    pub(super) confirming: Vec<u16>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    /// Whether the client has the capability `consumer_cancel_notify`.
    pub(super) cancel_notify: bool,
    /// Whether the client has the capability `connection.blocked`.
    pub(super) blocked_notify: bool,
    /// Whether the client has published during an alarm, and is not read.
    pub(super) blocked: bool,
    /// The heartbeat interval in seconds; 0 for none.
    pub(super) heartbeat: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    ProtocolHeader,
    StartOk,
    /// The password is awaited, of a login by RABBIT-CR-DEMO.
    SecureOk,
    TuneOk,
    Open,
    Running,
    /// `connection.close` was sent or answered.
    Closing,
}

impl Connection {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::ProtocolHeader,
            input: Vec::new(),
            output: Vec::new(),
            finished: false,
            user: String::new(),
            access: Access::None,
            login_notify: false,
            channels: BTreeMap::new(),
            confirming: Vec::new(),
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

    /// Sends a method and the message that follows it.
    pub(super) fn send_message<'a>(
        &mut self,
        channel: u16,
        method: &impl WireMethod<'a>,
        message: &Message,
    ) {
        self.send(channel, method);
        let header = ContentHeader {
            class_id: CONTENT_CLASS,
            body_size: message.body.len() as u64,
            properties: RawProperties::new(&message.properties),
        };
        frame::write_header(&mut self.output, channel, &header);
        for piece in message.body.chunks(self.frame_max as usize - frame::FRAME_OVERHEAD) {
            frame::write_body(&mut self.output, channel, piece);
        }
    }

    /// Blocks a client that has published during an alarm.
    pub(super) fn block(&mut self, reason: &str) {
        self.blocked = true;
        if self.blocked_notify {
            self.send(0, &connection::Blocked { reason: short(reason.as_bytes()) });
        }
    }

    /// Unblocks the client at the end of an alarm.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
        if self.blocked_notify {
            self.send(0, &connection::Unblocked::default());
        }
    }

    pub(super) fn consumer(&mut self, at: &ConsumerAt) -> Option<&mut Consumer> {
        self.channels.get_mut(&at.channel)?.consumers.get_mut(&at.tag)
    }

    /// Cancels a consumer whose queue was deleted.
    pub(super) fn cancel(&mut self, consumer: &ConsumerAt) {
        let channel = self.channels.get_mut(&consumer.channel);
        let known = channel.and_then(|channel| channel.consumers.remove(&consumer.tag)).is_some();
        if known && self.cancel_notify {
            let consumer_tag = short(&consumer.tag);
            self.send(consumer.channel, &basic::Cancel { consumer_tag, no_wait: true });
        }
    }
}
