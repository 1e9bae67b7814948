//! The handshake, from the connected transport to `connection.open-ok` (AMQP 0-9-1, 2.2.4).
//!
//! The client sends the protocol header. Then it awaits three methods in turn: `start`, which it answers with
//! the login; `tune`, which it answers with the chosen limits and, without waiting, the virtual host; and
//! `open-ok`. A mechanism of the application is asked for what the login says, and the broker may challenge it
//! with `secure` before it tunes. If the transport is lost, the current step shows what was probably refused: RabbitMQ closes the
//! transport without a message if it does not accept the limits.

use std::sync::Arc;

use amqp_proto::frame::{self, FRAME_MIN_SIZE};
use amqp_proto::method::{Method, connection};
use amqp_proto::{FieldTable, FieldValue, PROTOCOL_HEADER, ReplyCode, ShortStr, TABLE_DEPTH_MAX};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::config::{Challenge, Choice, Config, Credentials, Heartbeat};
use crate::connection::login;
use crate::error::{
    BrokerError, ConnectFailure, ConnectStep, InvalidArgument, InvalidReason, ProtocolDetail,
    ProtocolError, TlsErrorKind, TransportError, peer_text,
};
use crate::machine::{self, Transition};
use crate::transmit::Outbound;

/// The limits that were negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// The maximum channel number.
    pub channel_max: u16,
    /// The maximum size of a frame in bytes.
    pub frame_max: u32,
    /// The heartbeat interval in seconds. 0 means that heartbeats are off.
    pub heartbeat: u16,
}

/// The methods as inputs of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Start,
    Secure,
    Tune,
    OpenOk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    Login,
    VirtualHost,
    Open,
}

const TRANSITIONS: &[Transition<Step, Input>] = &[
    (Step::Greeting, Input::Start, Step::Login),
    (Step::Login, Input::Secure, Step::Login),
    (Step::Login, Input::Tune, Step::VirtualHost),
    (Step::VirtualHost, Input::OpenOk, Step::Open),
];

#[derive(Debug)]
pub(crate) struct Handshake {
    step: Step,
    tuning: Tuning,
    server_properties: FieldTable,
    custom: Option<Custom>,
}

/// The login by a mechanism of the application.
#[derive(Debug)]
struct Custom {
    /// The mechanism, and the last challenge for it.
    challenge: Challenge,
    /// Whether the challenge is to be passed to the mechanism.
    unasked: bool,
    /// Whether the mechanism's response is awaited.
    awaited: bool,
}

/// What the first bytes of a peer are.
#[derive(Debug)]
pub(crate) enum Greeting {
    Frames,
    /// Perhaps the header of another protocol version.
    Incomplete,
    Failed(ConnectFailure),
}

/// The result of a handshake step.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The next method is awaited.
    Awaiting,
    /// The connection is open.
    Open,
    /// The handshake has failed. The bytes that are queued are still to be written.
    Failed(ConnectFailure),
}

impl Handshake {
    /// Sends the protocol header.
    pub(crate) fn begin(out: &mut Outbound, config: &Config) -> Self {
        out.urgent().extend_from_slice(&PROTOCOL_HEADER);
        let tuning =
            Tuning { channel_max: config.channel_max, frame_max: config.frame_max, heartbeat: 0 };
        Self { step: Step::Greeting, tuning, server_properties: FieldTable::new(), custom: None }
    }

    /// The step that is in progress.
    pub(crate) const fn step(&self) -> ConnectStep {
        match self.step {
            Step::Greeting => ConnectStep::Start,
            Step::Login => ConnectStep::Tune,
            Step::VirtualHost | Step::Open => ConnectStep::Open,
        }
    }

    pub(crate) const fn tuning(&self) -> Tuning {
        self.tuning
    }

    pub(crate) fn take_server_properties(&mut self) -> FieldTable {
        std::mem::take(&mut self.server_properties)
    }

    /// Checks the first bytes of the peer, which may be the header of another version, or not AMQP at all.
    pub(crate) fn greeting(&self, input: &[u8]) -> Greeting {
        if self.step != Step::Greeting {
            return Greeting::Frames;
        }
        match *input {
            [b'A', b'M', b'Q', b'P', _, major, minor, revision, ..] => {
                Greeting::Failed(ConnectFailure::Version { major, minor, revision })
            }
            [1, ..] | [] => Greeting::Frames,
            // An alert of TLS, whose record begins so in every version.
            [0x15, 0x03, ..] => Greeting::Failed(ConnectFailure::TlsPort),
            [0x15] => Greeting::Incomplete,
            _ if b"AMQP".starts_with(input.get(..4).unwrap_or(input)) => Greeting::Incomplete,
            _ => Greeting::Failed(ConnectFailure::NotAmqp),
        }
    }

    /// Handles a method on channel 0.
    pub(crate) fn handle(
        &mut self,
        method: &Method<'_>,
        config: &Config,
        credentials: &Credentials,
        out: &mut Outbound,
    ) -> Progress {
        let input = match method {
            Method::ConnectionStart(_) => Input::Start,
            // Only a mechanism of the application takes several steps, one after the other.
            Method::ConnectionSecure(_) if self.custom.as_ref().is_some_and(|it| !it.awaited) => {
                Input::Secure
            }
            Method::ConnectionTune(_) if self.custom.as_ref().is_none_or(|it| !it.awaited) => {
                Input::Tune
            }
            Method::ConnectionOpenOk(_) => Input::OpenOk,
            Method::ConnectionClose(close) => {
                let close_ok = connection::CloseOk::default();
                out.urgent_frame(|out| frame::write_method(out, 0, &close_ok));
                return Progress::Failed(self.refused(close));
            }
            _ => return self.unexpected(method),
        };
        let Some(next) = machine::next(TRANSITIONS, self.step, input) else {
            return self.unexpected(method);
        };
        let answered = match method {
            Method::ConnectionStart(start) => self.start(start, config, credentials, out),
            Method::ConnectionSecure(secure) => {
                if let Some(custom) = &mut self.custom {
                    custom.challenge.challenge = Some(Bytes::copy_from_slice(secure.challenge));
                    (custom.unasked, custom.awaited) = (true, true);
                }
                Ok(())
            }
            Method::ConnectionTune(tune) => self.tune(tune, config, out),
            _ => Ok(()),
        };
        match answered {
            Ok(()) => {
                self.step = next;
                if next == Step::Open { Progress::Open } else { Progress::Awaiting }
            }
            Err(failure) => Progress::Failed(failure),
        }
    }

    /// Returns the failure that a loss of the transport at this step means.
    pub(crate) fn lost(&self, error: TransportError) -> ConnectFailure {
        match (error.tls, self.step) {
            // A peer that refuses a login or limits by a close may leave out the farewell of TLS, too.
            (None | Some(TlsErrorKind::Truncated), Step::Login) => {
                ConnectFailure::ProbablyAuthentication(error)
            }
            (None | Some(TlsErrorKind::Truncated), Step::VirtualHost | Step::Open) => {
                ConnectFailure::TuningRefused(error)
            }
            (Some(kind), _) => ConnectFailure::Tls { kind, error },
            (None, Step::Greeting) => ConnectFailure::Lost { step: ConnectStep::Start, error },
        }
    }

    fn unexpected(&self, method: &Method<'_>) -> Progress {
        let detail = ProtocolDetail::UnexpectedMethod(method.id());
        Progress::Failed(ConnectFailure::Protocol(ProtocolError::new(detail)))
    }

    fn refused(&self, close: &connection::Close<'_>) -> ConnectFailure {
        let error =
            BrokerError::new(close.reply_code, close.reply_text, close.class_id, close.method_id);
        match (self.step, error.code) {
            (Step::Login, ReplyCode::ACCESS_REFUSED) => ConnectFailure::Authentication(error),
            (Step::VirtualHost, ReplyCode::NOT_ALLOWED | ReplyCode::ACCESS_REFUSED) => {
                ConnectFailure::VirtualHost(error)
            }
            _ => ConnectFailure::Closed(error),
        }
    }

    fn start(
        &mut self,
        start: &connection::Start<'_>,
        config: &Config,
        credentials: &Credentials,
        out: &mut Outbound,
    ) -> Result<(), ConnectFailure> {
        if (start.version_major, start.version_minor) != (0, 9) {
            return Err(ConnectFailure::Version {
                major: start.version_major,
                minor: start.version_minor,
                revision: 0,
            });
        }
        let Some(choice) = login::choose(credentials, start.mechanisms) else {
            let wanted: Vec<_> = credentials.choices().iter().map(Choice::name).collect();
            let wanted = wanted.join(" or ").into();
            return Err(ConnectFailure::NoSharedMechanism {
                wanted,
                offered: peer_text(start.mechanisms),
            });
        };
        // The server properties are informational. A broker whose table is malformed can still be used.
        self.server_properties =
            start.server_properties.decode(TABLE_DEPTH_MAX).unwrap_or_default();
        if let Choice::Mechanism(name, mechanism) = choice {
            let (name, mechanism) = (Arc::clone(name), Arc::clone(mechanism));
            let challenge = Challenge { name, mechanism, challenge: None };
            self.custom = Some(Custom { challenge, unasked: true, awaited: true });
            return Ok(());
        }
        let response = login::initial_response(choice).unwrap_or_default();
        let frame = login::start_ok(config, choice.name(), &response);
        out.secret_frame(frame.map_err(ConnectFailure::InvalidCredentials)?);
        Ok(())
    }

    /// Takes the challenge for which a response of the application's mechanism is to be passed to
    /// [`respond`](Self::respond).
    pub(crate) fn take_challenge(&mut self) -> Option<Challenge> {
        let custom = self.custom.as_mut().filter(|custom| custom.unasked)?;
        custom.unasked = false;
        Some(custom.challenge.clone())
    }

    /// Sends the response of the application's mechanism.
    pub(crate) fn respond(
        &mut self,
        config: &Config,
        response: Result<Zeroizing<Vec<u8>>, String>,
        out: &mut Outbound,
    ) -> Result<(), ConnectFailure> {
        let Some(custom) = self.custom.as_mut().filter(|custom| custom.awaited) else {
            return Ok(());
        };
        let mechanism = &custom.challenge.name;
        let response = response.map_err(|message| ConnectFailure::Mechanism {
            mechanism: Arc::clone(mechanism),
            message: message.into(),
        })?;
        let frame = match custom.challenge.challenge {
            None => login::start_ok(config, mechanism, &response),
            Some(_) => login::secure_ok(config, &response),
        };
        out.secret_frame(frame.map_err(ConnectFailure::InvalidCredentials)?);
        custom.awaited = false;
        Ok(())
    }

    fn tune(
        &mut self,
        tune: &connection::Tune,
        config: &Config,
        out: &mut Outbound,
    ) -> Result<(), ConnectFailure> {
        // 0 means "no limit". RabbitMQ closes the transport if it receives 0 where it has set a limit.
        if (1..FRAME_MIN_SIZE).contains(&tune.frame_max) {
            return Err(ConnectFailure::Limits { frame_max: tune.frame_max });
        }
        self.tuning = Tuning {
            channel_max: match tune.channel_max {
                0 => config.channel_max,
                limit => limit.min(config.channel_max),
            },
            frame_max: match tune.frame_max {
                0 => config.frame_max,
                limit => limit.min(config.frame_max),
            },
            heartbeat: match config.heartbeat {
                Heartbeat::Server => tune.heartbeat,
                Heartbeat::Seconds(seconds) => seconds,
            },
        };
        let Tuning { channel_max, frame_max, heartbeat } = self.tuning;
        let tune_ok = connection::TuneOk { channel_max, frame_max, heartbeat };
        out.urgent_frame(|out| frame::write_method(out, 0, &tune_ok));
        // Checked by `validate` before the first attempt.
        let virtual_host = ShortStr::new(&config.virtual_host).unwrap_or_default();
        let open = connection::Open { virtual_host, ..Default::default() };
        out.urgent_frame(|out| frame::write_method(out, 0, &open));
        Ok(())
    }
}

/// Checks the values that the handshake will send.
pub(crate) fn validate(config: &Config) -> Result<(), InvalidArgument> {
    if config.endpoints.is_empty() {
        return Err(InvalidArgument::new("hosts", InvalidReason::Empty));
    }
    for endpoint in &config.endpoints {
        if endpoint.host.is_empty() {
            return Err(InvalidArgument::new("host", InvalidReason::Empty));
        }
        if endpoint.port == 0 {
            return Err(InvalidArgument::new("port", InvalidReason::OutOfRange));
        }
    }
    crate::request::short("virtual-host", &config.virtual_host)?;
    crate::request::short("locale", &config.locale)?;
    config.recovery.check()?;
    login::check(config, &config.credentials)
}

/// Returns the major and the minor version, if the broker is RabbitMQ.
pub(super) fn rabbitmq_version(properties: &FieldTable) -> Option<(u32, u32)> {
    let text = |name| properties.get(name).and_then(FieldValue::as_str);
    let mut parts = text("version").filter(|_| text("product") == Some("RabbitMQ"))?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The handshake as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}
