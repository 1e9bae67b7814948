//! A session with a broker's end that the test plays frame by frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::{ConnectFailure, TransportError};
use amqp_core::proto::frame::{self, FrameLimits, Peek};
use amqp_core::proto::method::{Method, MethodId, WireMethod, channel, confirm, connection};
use amqp_core::proto::{FieldTable, PROTOCOL_HEADER, RawTable};
use amqp_core::requests::ConfirmSelect;
use amqp_core::{
    Action, Attempt, ChannelId, CloseCause, Config, ConnectError, Event, Recovery, Session,
    TimeoutReason, Transmit,
};
use bytes::BytesMut;

use super::contents::Cut;

pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) attempt: Attempt,
    out: Transmit,
    input: BytesMut,
    /// How contents reach the session.
    pub(crate) cut: Cut,
    /// Bytes that the session has written and that nobody has looked at.
    pub(crate) written: Vec<u8>,
    pub(crate) written_in_all: u64,
}

impl Peer {
    /// A session whose transport is connected, and which awaits the greeting.
    pub(crate) fn connected(config: Config) -> Self {
        Self::connected_to(config, 1)
    }

    /// The same, with so many addresses of the host: the first one is connected.
    pub(crate) fn connected_to(config: Config, addresses: u8) -> Self {
        let now = Instant::now();
        let mut session = Session::new(Arc::new(config), now, 0).unwrap();
        let Some(Action::Resolve { attempt, .. }) = session.poll_action() else { panic!() };
        let addresses = (1..=addresses).map(|last| ([127, 0, 0, last], 5672).into()).collect();
        session.handle_resolved(now, attempt, Ok(addresses));
        Self::dialled(session, now)
    }

    /// A session that dials, and whose transport is connected.
    pub(crate) fn dialled(mut session: Session, now: Instant) -> Self {
        let attempt = dialled(&mut session);
        let mut peer = Self {
            session,
            now,
            attempt,
            out: Transmit::new(),
            input: BytesMut::new(),
            cut: Cut::Whole,
            written: Vec::new(),
            written_in_all: 0,
        };
        peer.connect(attempt);
        peer
    }

    /// The session dials an address, which is connected.
    pub(crate) fn dial(&mut self) {
        let attempt = dialled(&mut self.session);
        self.connect(attempt);
    }

    /// The session waits, and then connects another transport, whose handshake is done.
    pub(crate) fn reconnect(&mut self) {
        self.redial();
        self.shake_hands();
    }

    /// The session waits, and then connects another transport.
    pub(crate) fn redial(&mut self) {
        let lost = self.attempt;
        assert_eq!(self.session.poll_action(), Some(Action::Disconnect { attempt: lost }));
        self.retry();
    }

    /// The session connects another transport when its delay has passed.
    pub(crate) fn retry(&mut self) {
        self.look_up();
        self.written.clear();
        self.input.clear();
        self.dial();
    }

    /// The session has lost its transport. It looks its host up when its delay has passed.
    pub(crate) fn resolve(&mut self) {
        assert_eq!(self.session.poll_action(), Some(Action::Disconnect { attempt: self.attempt }));
        self.look_up();
        self.written.clear();
        self.input.clear();
    }

    fn look_up(&mut self) {
        assert_eq!(self.session.poll_action(), None);
        let (due, reason) = self.session.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Retry);
        self.pass(due - self.now);
        let Some(Action::Resolve { attempt, .. }) = self.session.poll_action() else { panic!() };
        self.session.handle_resolved(self.now, attempt, Ok(vec![([127, 0, 0, 1], 5672).into()]));
    }

    fn connect(&mut self, attempt: Attempt) {
        (self.attempt, self.written_in_all, self.out) = (attempt, 0, Transmit::new());
        self.session.handle_connected(self.now, attempt);
        self.write();
        assert_eq!(std::mem::take(&mut self.written), PROTOCOL_HEADER);
    }

    /// A session that is open, with heartbeats of 10 s and frames of 4,096 bytes. It ends when it is lost.
    pub(crate) fn open() -> Self {
        Self::open_with(Config::default().recovery(Recovery::never()))
    }

    pub(crate) fn open_with(config: Config) -> Self {
        let mut peer = Self::connected(config);
        peer.send(0, &start(b"PLAIN"));
        peer.tune();
        peer
    }

    /// A session whose handshake is done.
    pub(crate) fn shaken(config: Config) -> Self {
        let mut peer = Self::connected(config);
        peer.shake_hands();
        peer
    }

    pub(crate) fn shake_hands(&mut self) {
        self.shake_hands_with(10);
    }

    /// The broker's part of the handshake. It permits this many channels.
    pub(crate) fn shake_hands_with(&mut self, channel_max: u16) {
        self.send(0, &start(b"PLAIN"));
        assert_eq!(self.methods(), ["connection.StartOk"]);
        self.send(0, &connection::Tune { channel_max, frame_max: 4_096, heartbeat: 10 });
        assert_eq!(self.methods(), ["connection.TuneOk", "connection.Open"]);
        self.send(0, &connection::OpenOk::default());
    }

    /// A session that is open, with frames of this many bytes.
    pub(crate) fn open_with_frames(frame_max: u32) -> Self {
        let mut peer = Self::connected(Config::default().recovery(Recovery::never()));
        peer.send(0, &start(b"PLAIN"));
        peer.tune_to(frame_max, 10);
        peer
    }

    /// A session that is open, with a RabbitMQ of this version.
    pub(crate) fn open_at(version: &str) -> Self {
        let mut peer = Self::connected(Config::default().recovery(Recovery::never()));
        let properties = server_properties(version);
        let server_properties = RawTable::new(&properties);
        peer.send(0, &connection::Start { server_properties, ..start(b"PLAIN") });
        peer.tune();
        peer
    }

    /// The broker's part of the handshake, behind its greeting.
    pub(crate) fn tune(&mut self) {
        self.tune_to(4_096, 10);
    }

    /// The same, without heartbeats.
    pub(crate) fn tune_without_heartbeats(&mut self) {
        self.tune_to(4_096, 0);
    }

    pub(crate) fn tune_to(&mut self, frame_max: u32, heartbeat: u16) {
        assert_eq!(self.methods(), ["connection.StartOk"]);
        self.send(0, &connection::Tune { channel_max: 10, frame_max, heartbeat });
        assert_eq!(self.methods(), ["connection.TuneOk", "connection.Open"]);
        self.send(0, &connection::OpenOk::default());
        assert_eq!(self.events(), [Event::Opened]);
    }

    /// An open channel.
    pub(crate) fn channel(&mut self, number: u16) -> ChannelId {
        self.methods();
        self.events();
        let (id, call) = self.session.open_channel(self.now).unwrap();
        assert_eq!(self.methods(), ["channel.Open"]);
        self.send(number, &channel::OpenOk::default());
        assert_eq!(self.events(), [Event::CallDone(call.key())]);
        self.session.take_reply(&call).unwrap().unwrap();
        id
    }

    /// An open channel 1 in confirm mode.
    pub(crate) fn confirming(&mut self) -> ChannelId {
        let id = self.channel(1);
        let call = self.session.channel(id).call(self.now, &ConfirmSelect::default()).unwrap();
        self.send(1, &confirm::SelectOk::default());
        self.session.take_reply(&call).unwrap().unwrap();
        self.methods();
        self.events();
        id
    }

    /// The broker sends a method.
    pub(crate) fn send<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        self.send_bytes(&bytes);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.session.handle_input(self.now, &mut self.input) {}
    }

    /// Takes everything that the session has to write.
    pub(crate) fn write(&mut self) {
        while self.session.poll_transmit(self.now, &mut self.out) {
            let bytes = self.out.to_vec();
            self.out.advance(bytes.len());
            self.written_in_all += bytes.len() as u64;
            self.written.extend(bytes);
        }
    }

    /// The frames that the session has written since this was last asked: methods by name, others by
    /// kind.
    pub(crate) fn methods(&mut self) -> Vec<String> {
        self.write();
        let written = std::mem::take(&mut self.written);
        let mut rest = written.as_slice();
        let mut names = Vec::new();
        while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
            names.push(match frame.kind {
                frame::FrameKind::Method => {
                    format!("{:?}", MethodId::split(frame.payload).unwrap().0)
                }
                kind => format!("{kind:?}"),
            });
            rest = &rest[frame.frame_len()..];
        }
        assert!(rest.is_empty(), "half a frame");
        names
    }

    /// The arguments of the last method that the session has written.
    pub(crate) fn last_method<T>(&mut self, look: impl FnOnce(Method<'_>) -> T) -> T {
        self.write();
        let written = std::mem::take(&mut self.written);
        let mut rest = written.as_slice();
        let mut last = None;
        while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
            rest = &rest[frame.frame_len()..];
            last = Some(frame.payload);
        }
        look(Method::decode(last.unwrap()).unwrap())
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Time passes, and the session is told when it asked for it.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((deadline, _)) = self.session.poll_timeout()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.session.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The transport is lost when everything that was taken has been written.
    pub(crate) fn lose(&mut self) {
        let error = TransportError::end_of_file();
        let (attempt, written) = (self.attempt, self.written_in_all);
        self.session.handle_disconnected(self.now, attempt, error, written);
    }

    pub(crate) fn cause(&self) -> CloseCause {
        self.session.cause().expect("the session has ended").clone()
    }

    /// The code of the breach of the protocol that has ended the session.
    pub(crate) fn breach(&self) -> u16 {
        let CloseCause::Protocol(error) = self.cause() else { panic!("{:?}", self.cause()) };
        error.code.code()
    }

    /// Why connecting failed, at the one address there is.
    pub(crate) fn failure(&self) -> ConnectFailure {
        let CloseCause::Connect(error) = self.cause() else { panic!("{:?}", self.cause()) };
        let ConnectError::Failed { attempts } = &*error else { panic!("{error:?}") };
        assert_eq!(attempts.len(), 1);
        attempts[0].failure.clone()
    }
}

fn dialled(session: &mut Session) -> Attempt {
    let Some(Action::Dial { attempt, .. }) = session.poll_action() else { panic!() };
    attempt
}

pub(crate) fn start(mechanisms: &[u8]) -> connection::Start<'_> {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: RawTable::default(),
        mechanisms,
        locales: b"en_US",
    }
}

/// The fields of what a RabbitMQ of this version says of itself.
pub(crate) fn server_properties(version: &str) -> Vec<u8> {
    let properties =
        FieldTable::from([("product", "RabbitMQ".into()), ("version", version.into())]);
    let mut table = Vec::new();
    properties.encode(&mut table).unwrap();
    table.split_off(4)
}
