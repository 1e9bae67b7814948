//! Tests of all error texts: their form, and that none is printed twice along a source chain.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use amqp_proto::method::{WireMethod, queue};
use amqp_proto::{EncodeError, Malformed, ReplyCode};

use super::{
    AckError, BrokerError, ChannelCause, CloseCause, Error, InvalidArgument, InvalidReason, Misuse,
    ProtocolDetail, ProtocolError, PublishError, TlsError, TlsErrorKind, TransportError,
};
use crate::PublishRefused;
use crate::error::{ConnectError, ConnectFailure, ConnectStep, FailedAttempt};
use crate::message::Fault;
use crate::uri::{SettingError, UriError, UriErrorKind};

type Text = Box<dyn std::error::Error>;

fn misuses() -> Vec<Misuse> {
    vec![
        Misuse::ChannelNotOpen,
        Misuse::ConfirmMode,
        Misuse::ConfirmModeUsePublisher,
        Misuse::DuplicateConsumerTag,
        Misuse::FlowInactive,
        Misuse::NoFreeChannels { channel_max: 7, by_broker: true },
        Misuse::NoFreeChannels { channel_max: 7, by_broker: false },
        Misuse::NotConnected,
        Misuse::NotConfirmMode,
        Misuse::NotTransactionMode,
        Misuse::StreamNeedsAck,
        Misuse::StreamNeedsPrefetch,
        Misuse::TooManyCalls,
        Misuse::TransactionMode,
    ]
}

fn invalid() -> Vec<InvalidArgument> {
    let reasons: [InvalidReason; 8] = [
        InvalidReason::BehindExternal,
        InvalidReason::ContainsNul,
        InvalidReason::Empty,
        EncodeError::StringTooLong(300).into(),
        InvalidReason::FrameTooLarge { size: 5_000, frame_max: 4_096 },
        InvalidReason::InitialFrameTooLarge { size: 5_000, initial_frame_max: 4_096 },
        InvalidReason::OutOfRange,
        InvalidReason::SpaceOrControl,
    ];
    reasons.into_iter().map(|reason| InvalidArgument::new("queue", reason)).collect()
}

fn broker() -> BrokerError {
    let method = Some(queue::Declare::ID);
    BrokerError { code: ReplyCode::NOT_FOUND, text: "NOT_FOUND - no queue 'q'".into(), method }
}

fn protocol() -> ProtocolError {
    ProtocolError::new(ProtocolDetail::Malformed(Malformed::TrailingBytes))
}

fn transport() -> TransportError {
    TransportError::new(ErrorKind::ConnectionReset, "connection reset")
}

fn tls() -> TransportError {
    std::io::Error::from(TlsError::new(TlsErrorKind::Expired, "since 2020")).into()
}

fn failures() -> Vec<ConnectFailure> {
    let (timeout, step) = (Duration::from_secs(5), ConnectStep::Tune);
    vec![
        ConnectFailure::Authentication(broker()),
        ConnectFailure::Closed(broker()),
        ConnectFailure::Credentials(transport()),
        ConnectFailure::Hook(transport()),
        ConnectFailure::InvalidCredentials(invalid().remove(0)),
        ConnectFailure::Dial(transport()),
        ConnectFailure::Lost { step, error: transport() },
        ConnectFailure::Limits { frame_max: 1 },
        ConnectFailure::Mechanism { mechanism: "SCRAM".into(), message: "no nonce".into() },
        ConnectFailure::NoSharedMechanism { wanted: "PLAIN".into(), offered: "EXTERNAL".into() },
        ConnectFailure::NotAmqp,
        ConnectFailure::ProbablyAuthentication(transport()),
        ConnectFailure::Protocol(protocol()),
        ConnectFailure::Resolve(transport()),
        ConnectFailure::TimedOut { timeout, step },
        ConnectFailure::Tls { kind: TlsErrorKind::Expired, error: tls() },
        ConnectFailure::TlsPort,
        ConnectFailure::TuningRefused(transport()),
        ConnectFailure::Version { major: 1, minor: 0, revision: 0 },
        ConnectFailure::VirtualHost(broker()),
    ]
}

fn failed(failure: ConnectFailure) -> FailedAttempt {
    let step = ConnectStep::Dial;
    FailedAttempt { host: "h".into(), port: 1, address: None, cycle: 1, step, failure }
}

fn connect_errors() -> Vec<ConnectError> {
    let attempts: Arc<[FailedAttempt]> = failures().into_iter().map(failed).collect();
    let (host, timeout, step) = (Arc::from("h"), Duration::from_secs(5), ConnectStep::Dial);
    let (key, unit, low, high) = ("heartbeat", "seconds", 0, 9);
    let day = Duration::from_secs(86_400);
    let setting_errors = [
        SettingError::Both("host", "hosts"),
        SettingError::Empty("keyfile"),
        SettingError::Form { key: "verify".into(), expected: "verify_peer" },
        SettingError::Number { key, unit, low, high },
        SettingError::Repeated("heartbeat".into()),
        SettingError::Seconds { key: "retry_delay", low: Duration::ZERO, high: day },
        SettingError::Unknown("bogus".into()),
        SettingError::VerifyNone,
        SettingError::Without("user", "password"),
    ];
    let uri_errors = [
        UriErrorKind::EmptyHost,
        UriErrorKind::HostCharacter('!'),
        UriErrorKind::Ipv6Address,
        UriErrorKind::Ipv6Zone,
        UriErrorKind::MissingPassword,
        UriErrorKind::PercentEncoding("user"),
        UriErrorKind::Port,
        UriErrorKind::Scheme,
        UriErrorKind::SecondPathSegment,
        UriErrorKind::UnencodedCharacter { character: ' ', part: "query" },
    ];
    let mut all = vec![
        ConnectError::Tls(TlsError::new(TlsErrorKind::Configuration, "no file")),
        ConnectError::Aborted,
        ConnectError::DriverGone,
        ConnectError::DriverNotStarted(transport()),
        ConnectError::Failed { attempts: Arc::clone(&attempts) },
        ConnectError::TimedOut { host, port: 1, address: None, timeout, step, attempts },
        ConnectError::NoClientCertificate,
        ConnectError::TlsUnsupported,
    ];
    let kinds = uri_errors.into_iter().chain(setting_errors.map(UriErrorKind::from));
    all.extend(kinds.map(|kind| ConnectError::from(UriError { kind, position: 7 })));
    all.extend(invalid().into_iter().map(ConnectError::from));
    all
}

fn close_causes() -> Vec<CloseCause> {
    let time = Duration::from_secs(5);
    let mut all = vec![
        CloseCause::Aborted,
        CloseCause::BlockedTimeout { reason: "low on memory".into(), timeout: time },
        CloseCause::ByBroker(broker()),
        CloseCause::ByClient,
        CloseCause::ByClientForced,
        CloseCause::DriverGone,
        CloseCause::HeartbeatTimeout { silence: time },
        CloseCause::Protocol(protocol()),
        CloseCause::Transport(transport()),
        CloseCause::WriteTimeout { stalled: time },
    ];
    all.extend(connect_errors().into_iter().map(|error| CloseCause::Connect(Arc::new(error))));
    all
}

fn errors() -> Vec<Error> {
    let mut all = vec![
        Error::Channel(ChannelCause::ByBroker(broker())),
        Error::Channel(ChannelCause::ByClient),
        Error::ConsumerCancelled { queue: "q".into(), consumer_tag: "t".into() },
        Error::DrainTimeout { unconfirmed: 1, unacked: 2 },
        Error::Deadline { method: queue::Declare::ID, timeout: Duration::from_secs(30) },
    ];
    all.extend(close_causes().into_iter().map(Error::Connection));
    all.extend(misuses().into_iter().map(Error::from));
    all.extend(invalid().into_iter().map(Error::from));
    all.extend(connect_errors().into_iter().map(Error::from));
    let closed = Error::Channel(ChannelCause::ByBroker(broker()));
    all.extend(publish_errors(&closed).map(Error::from));
    all.extend([AckError::Unknown(1), AckError::Stale(closed)].map(Error::from));
    all
}

fn publish_errors(closed: &Error) -> [PublishError; 5] {
    [
        PublishError::Invalid(InvalidArgument::new("routing-key", InvalidReason::Empty)),
        PublishError::Misuse(Misuse::NotConfirmMode),
        PublishError::Nacked,
        PublishError::NotSent(closed.clone()),
        PublishError::Unknown(closed.clone()),
    ]
}

fn everything() -> Vec<Text> {
    let mut all: Vec<Text> = Vec::new();
    let malformed = [
        Malformed::BadFrameEnd(1),
        Malformed::FrameTooLarge { size: 2, limit: 1 },
        Malformed::HeartbeatPayload,
        Malformed::NotUtf8,
        Malformed::TooDeep,
        Malformed::TrailingBytes,
        Malformed::Truncated,
        Malformed::UnknownFieldType(1),
        Malformed::UnknownFrameType(9),
        Malformed::UnknownMethod { class: 1, method: 2 },
        Malformed::UnknownPropertyFlags(1),
    ];
    let encode = [
        EncodeError::NotFinite,
        EncodeError::NotSigned(1 << 63),
        EncodeError::StringTooLong(300),
        EncodeError::TooDeep,
        EncodeError::TooLarge(1),
    ];
    let details = [
        ProtocolDetail::BodyTooLong,
        ProtocolDetail::ConfirmUnknown(1),
        ProtocolDetail::ContentClass(1),
        ProtocolDetail::DeliveryTag(1),
        ProtocolDetail::HeartbeatChannel(1),
        ProtocolDetail::NotOpen(1),
        ProtocolDetail::QueueName,
        ProtocolDetail::UnexpectedFrame,
        ProtocolDetail::UnexpectedMethod(queue::DeclareOk::ID),
    ];
    let acks = [
        AckError::MaybeStream(1),
        AckError::NoAck(1),
        AckError::OtherChannel(1),
        AckError::Recovered(1),
        AckError::AlreadyAcked(1),
        AckError::Stream(1),
        AckError::Unknown(1),
    ];
    let faults = [Fault::HeaderTooLarge { size: 1 }, Fault::Oversize { size: 1 }];
    all.extend(malformed.iter().map(|error| Box::new(*error) as Text));
    all.extend(malformed.map(|error| Box::new(ProtocolDetail::from(error)) as Text));
    all.extend(malformed.map(|error| Box::new(Fault::Malformed(error)) as Text));
    all.extend(encode.map(|error| Box::new(error) as Text));
    all.extend(details.map(|error| Box::new(ProtocolError::new(error)) as Text));
    all.extend(faults.map(|error| Box::new(error) as Text));
    all.extend(acks.map(|error| Box::new(error) as Text));
    all.extend(failures().into_iter().map(|error| Box::new(error) as Text));
    all.extend(connect_errors().into_iter().map(|error| Box::new(error) as Text));
    for error in errors() {
        all.push(Box::new(AckError::Stale(error.clone())));
        all.push(Box::new(PublishRefused::Error(error.clone())));
        all.push(Box::new(error));
    }
    all.push(Box::new(PublishRefused::Full));
    all.push(Box::new(PublishRefused::Unconfirmed));
    all
}

#[test]
fn texts_are_lower_case_without_a_full_stop() {
    for error in everything() {
        let text = error.to_string();
        let first = text.chars().next().unwrap();
        // Some texts begin with a code or the name of a host.
        assert!(first.is_lowercase() || first.is_ascii_digit(), "{text}");
        assert!(!text.ends_with(['.', ' ', ':', ';', ',']) && !text.contains("  "), "{text}");
    }
}

/// `Display` prints a source, or `source` returns it, never both.
#[test]
fn no_text_is_printed_twice_along_a_chain() {
    for error in everything() {
        let mut link: &dyn std::error::Error = &*error;
        while let Some(source) = link.source() {
            let (outer, inner) = (link.to_string(), source.to_string());
            assert!(!outer.contains(&inner), "{inner:?} is in {outer:?} and is its source");
            link = source;
        }
    }
}

#[test]
fn texts_say_what_failed_where_and_what_to_do() {
    let queue: Arc<str> = "orders".into();
    let cases: [(Text, &str); 9] = [
        (
            Box::new(Error::ConsumerCancelled { queue, consumer_tag: "ctag-1.1".into() }),
            "consumer ctag-1.1 of queue \"orders\" cancelled by the broker: the queue was deleted, \
             or its node is down",
        ),
        (
            Box::new(Error::from(Misuse::NoFreeChannels { channel_max: 9, by_broker: true })),
            "misuse: no free channel: all 9 that the broker allows are open; close some, or raise \
             channel_max of the broker",
        ),
        (
            Box::new(Error::from(Misuse::NoFreeChannels { channel_max: 9, by_broker: false })),
            "misuse: no free channel: all 9 that this client asked for are open; close some, or \
             raise channel_max",
        ),
        (
            Box::new(Error::from(Misuse::ChannelNotOpen)),
            "misuse: the channel is not open yet: await the reply to channel.open first",
        ),
        (
            Box::new(Error::Connection(CloseCause::DriverGone)),
            "connection closed: the driver was dropped, or the runtime in which it was opened has \
             ended",
        ),
        (
            Box::new(Error::Deadline {
                method: queue::Declare::ID,
                timeout: Duration::from_secs(30),
            }),
            "no reply to queue.declare within 30 s",
        ),
        (
            Box::new(Error::Channel(ChannelCause::ByBroker(broker()))),
            "channel closed: by the broker: 404 NOT_FOUND - no queue 'q' (queue.declare)",
        ),
        (
            Box::new(ProtocolError::new(ProtocolDetail::HeartbeatChannel(1))),
            "505 UNEXPECTED_FRAME: heartbeat on channel 1 instead of 0",
        ),
        (
            Box::new(UriError {
                kind: SettingError::Number { key: "heartbeat", unit: "seconds", low: 0, high: 9 }
                    .into(),
                position: 7,
            }),
            "heartbeat takes a number of seconds from 0 to 9 (at character 7)",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

/// `?` converts each error into the common one, which keeps its details.
#[test]
fn errors_compose() {
    fn publish() -> Result<(), Error> {
        Err(PublishError::Nacked)?
    }
    fn ack() -> Result<(), Error> {
        Err(AckError::Unknown(1))?
    }
    fn connect() -> Result<(), Error> {
        Err(ConnectError::TlsUnsupported)?
    }
    assert_eq!(publish(), Err(Error::Publish(PublishError::Nacked.into())));
    assert_eq!(ack(), Err(Error::Ack(AckError::Unknown(1).into())));
    assert_eq!(connect(), Err(Error::Connect(ConnectError::TlsUnsupported.into())));
    let closed = Error::Channel(ChannelCause::ByBroker(broker()));
    let unknown = PublishError::Unknown(closed.clone());
    assert!(unknown.may_have_been_taken());
    assert!(!PublishError::NotSent(closed).may_have_been_taken());
    assert_eq!(Error::from(unknown).broker_error(), Some(&broker()));
}

#[test]
fn errors_say_whether_trying_again_may_help() {
    let by_broker = |code: ReplyCode| {
        let broker = BrokerError { code, text: "".into(), method: None };
        Error::Channel(ChannelCause::ByBroker(broker))
    };
    for code in [320, 405, 506, 541] {
        assert!(by_broker(ReplyCode::new(code)).is_retryable(), "{code}");
    }
    for code in [311, 312, 313, 402, 403, 404, 406, 501, 502, 503, 504, 505, 530, 540] {
        assert!(!by_broker(ReplyCode::new(code)).is_retryable(), "{code}");
    }
    let lost = Error::Connection(CloseCause::Transport(transport()));
    assert!(lost.is_retryable() && PublishError::NotSent(lost.clone()).is_retryable());
    assert!(Error::from(PublishError::Unknown(lost)).is_retryable());
    assert!(PublishError::Nacked.is_retryable());
    for cause in [CloseCause::ByClient, CloseCause::Aborted, CloseCause::DriverGone] {
        assert!(!Error::Connection(cause).is_retryable());
    }
    assert!(Error::from(Misuse::TooManyCalls).is_retryable());
    assert!(!Error::from(Misuse::ConfirmMode).is_retryable());
}

#[test]
fn a_refusal_is_told_from_a_host_that_was_not_reached() {
    let failed = |failure| ConnectError::Failed { attempts: [failed(failure)].into() };
    let mut refusals = 0;
    for failure in failures() {
        let reached = !matches!(
            failure,
            ConnectFailure::Credentials(_)
                | ConnectFailure::Hook(_)
                | ConnectFailure::Dial(_)
                | ConnectFailure::Lost { .. }
                | ConnectFailure::Resolve(_)
                | ConnectFailure::TimedOut { .. }
        );
        let error = failed(failure);
        assert_eq!(error.is_refusal(), reached, "{error}");
        assert_eq!(error.is_retryable(), !reached, "{error}");
        refusals += usize::from(reached);
    }
    assert_eq!(refusals, 14);
    let code = ReplyCode::CONNECTION_FORCED;
    let shutting_down = BrokerError { code, text: "".into(), method: None };
    assert!(failed(ConnectFailure::Closed(shutting_down)).is_retryable());
    assert!(!ConnectError::Aborted.is_refusal() && !ConnectError::Aborted.is_retryable());
}
