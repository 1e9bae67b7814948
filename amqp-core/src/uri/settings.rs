//! The settings that have a name: the query parameters of a URI, and the keys of a configuration file.
//!
//! A value is a text, however it was written. So a setting has the same range, unit and errors everywhere.

use std::borrow::Cow;
use std::time::Duration;

use super::error::SettingError;
use super::parse::parse_number;
use super::{AmqpUri, UriMechanism};
use crate::config::{HostOrder, RecoveryMode};
use crate::limits::{KEEPALIVE_MAX, KEEPALIVE_RETRIES_MAX, SETTING_TIME_MAX, USER_TIMEOUT_MAX};

/// The setting that may be repeated.
pub(super) const AUTH_MECHANISM: &str = "auth_mechanism";
/// The prefix of the settings that are client properties.
pub(super) const CLIENT_PROPERTIES: &str = "client_properties";
/// The prefix of the settings that are options of TCP sockets.
#[cfg(feature = "serde")]
pub(super) const TCP_OPTIONS: &str = "tcp_options";

/// Whether the value is a path of a file.
pub(super) fn is_path(key: &str) -> bool {
    matches!(key, "cacertfile" | "certfile" | "keyfile")
}

/// Sets the setting of this name.
pub(super) fn set(uri: &mut AmqpUri, key: &str, value: &str) -> Result<(), SettingError> {
    if let Some(property) = after(key, CLIENT_PROPERTIES) {
        uri.client_properties.insert(property.into(), value.into());
        return Ok(());
    }
    let tcp = &mut uri.tcp_options;
    let tls = &mut uri.tls_settings;
    match key {
        AUTH_MECHANISM => uri.auth_mechanisms.push(mechanism(value)?),
        "blocked_connection_timeout" => {
            let key = "blocked_connection_timeout";
            uri.blocked_connection_timeout = Some(seconds(key, value, Duration::ZERO)?);
        }
        "cacertfile" => tls.ca_file = Some(text("cacertfile", value)?.into()),
        "hook_timeout" => uri.hook_timeout = Some(positive_seconds("hook_timeout", value)?),
        "call_timeout" => uri.call_timeout = Some(positive_seconds("call_timeout", value)?),
        "certfile" => tls.certificate_file = Some(text("certfile", value)?.into()),
        "channel_max" => {
            let channels = number("channel_max", "channels", 1, 65_535, value)?;
            uri.channel_max = Some(channels as u16);
        }
        "close_timeout" => uri.close_timeout = Some(positive_seconds("close_timeout", value)?),
        "connection_attempts" => {
            let cycles = number("connection_attempts", "attempts", 1, 65_535, value)?;
            uri.connection_attempts = Some(cycles as u16);
        }
        "connection_timeout" => {
            let timeout = milliseconds("connection_timeout", 1, SETTING_TIME_MAX, value)?;
            set_connection_timeout(uri, timeout)?;
        }
        "frame_max" => {
            let bytes = number("frame_max", "bytes", 4_096, 131_072, value)?;
            uri.frame_max = Some(bytes as u32);
        }
        "heartbeat" => {
            uri.heartbeat = Some(number("heartbeat", "seconds", 0, 65_535, value)? as u16);
        }
        "host_order" => {
            uri.host_order = Some(match value {
                "listed" => HostOrder::Listed,
                "shuffled" => HostOrder::Shuffled,
                _ => {
                    let expected = "listed, which is the default, or shuffled";
                    return Err(form(key, expected));
                }
            });
        }
        "initial_frame_max" => {
            let bytes = number("initial_frame_max", "bytes", 4_096, 131_072, value)?;
            uri.initial_frame_max = Some(bytes as u32);
        }
        "keyfile" => tls.key_file = Some(text("keyfile", value)?.into()),
        "locale" => uri.locale = Some(text("locale", value)?.into()),
        "recovery" => {
            uri.recovery = Some(match value {
                "automatic" => RecoveryMode::Automatic,
                "never" => RecoveryMode::Never,
                "unless_closed_by_broker" => RecoveryMode::UnlessClosedByBroker,
                _ => return Err(form(key, "automatic, never or unless_closed_by_broker")),
            });
        }
        "recovery_attempts" => {
            let key = "recovery_attempts";
            let attempts = number(key, "attempts", 1, u32::MAX.into(), value)?;
            uri.recovery_attempts = Some(attempts as u32);
        }
        "recovery_delay" => uri.recovery_delay = Some(positive_seconds("recovery_delay", value)?),
        "recovery_max_delay" => {
            uri.recovery_max_delay = Some(positive_seconds("recovery_max_delay", value)?);
        }
        "retry_delay" => {
            uri.retry_delay = Some(seconds("retry_delay", value, Duration::ZERO)?);
        }
        "server_name_indication" => {
            tls.server_name = Some(text("server_name_indication", value)?.into());
        }
        "socket_timeout" => uri.socket_timeout = Some(positive_seconds("socket_timeout", value)?),
        "stack_timeout" => {
            let timeout = positive_seconds("stack_timeout", value)?;
            set_connection_timeout(uri, timeout)?;
        }
        "tcp_options.SO_RCVBUF" => {
            tcp.receive_buffer_bytes = Some(buffer("tcp_options.SO_RCVBUF", value)?);
        }
        "tcp_options.SO_SNDBUF" => {
            tcp.send_buffer_bytes = Some(buffer("tcp_options.SO_SNDBUF", value)?);
        }
        "tcp_options.TCP_KEEPCNT" => {
            let (key, high) = ("tcp_options.TCP_KEEPCNT", KEEPALIVE_RETRIES_MAX.into());
            tcp.keepalive_retries = Some(number(key, "probes", 1, high, value)? as u32);
        }
        "tcp_options.TCP_KEEPIDLE" => {
            tcp.keepalive_idle = Some(keepalive("tcp_options.TCP_KEEPIDLE", value)?);
        }
        "tcp_options.TCP_KEEPINTVL" => {
            tcp.keepalive_interval = Some(keepalive("tcp_options.TCP_KEEPINTVL", value)?);
        }
        "tcp_options.TCP_USER_TIMEOUT" => {
            let (key, high) = ("tcp_options.TCP_USER_TIMEOUT", USER_TIMEOUT_MAX);
            tcp.user_timeout = Some(milliseconds(key, 0, high, value)?);
        }
        "tcp_options.local_address" => {
            let address = value.parse().map_err(|_| form(key, "an IP address"))?;
            tcp.local_address = Some(address);
        }
        "verify" => match value {
            "verify_peer" => {}
            "verify_none" => return Err(SettingError::VerifyNone),
            _ => {
                let expected = "verify_peer, which is the default";
                return Err(form(key, expected));
            }
        },
        unknown => return Err(SettingError::Unknown(unknown.into())),
    }
    Ok(())
}

/// The settings that differ from the default, with their values.
pub(super) fn all(uri: &AmqpUri) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let (tcp, tls) = (&uri.tcp_options, &uri.tls_settings);
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_deref().map(|path| path.to_string_lossy().into_owned())
    };
    let order = |order| match order {
        HostOrder::Listed => "listed",
        HostOrder::Shuffled => "shuffled",
    };
    let recovery = |mode| match mode {
        RecoveryMode::Automatic => "automatic",
        RecoveryMode::Never => "never",
        RecoveryMode::UnlessClosedByBroker => "unless_closed_by_broker",
    };
    let named = [
        ("heartbeat", uri.heartbeat.map(shown)),
        ("channel_max", uri.channel_max.map(shown)),
        ("frame_max", uri.frame_max.map(shown)),
        ("initial_frame_max", uri.initial_frame_max.map(shown)),
        ("connection_timeout", uri.connection_timeout.map(in_milliseconds)),
        ("socket_timeout", uri.socket_timeout.map(in_seconds)),
        ("connection_attempts", uri.connection_attempts.map(shown)),
        ("retry_delay", uri.retry_delay.map(in_seconds)),
        ("host_order", uri.host_order.map(order).map(shown)),
        ("blocked_connection_timeout", uri.blocked_connection_timeout.map(in_seconds)),
        ("call_timeout", uri.call_timeout.map(in_seconds)),
        ("close_timeout", uri.close_timeout.map(in_seconds)),
        ("hook_timeout", uri.hook_timeout.map(in_seconds)),
        ("recovery", uri.recovery.map(recovery).map(shown)),
        ("recovery_delay", uri.recovery_delay.map(in_seconds)),
        ("recovery_max_delay", uri.recovery_max_delay.map(in_seconds)),
        ("recovery_attempts", uri.recovery_attempts.map(shown)),
        ("locale", uri.locale.clone()),
        ("cacertfile", path(&tls.ca_file)),
        ("certfile", path(&tls.certificate_file)),
        ("keyfile", path(&tls.key_file)),
        ("server_name_indication", tls.server_name.as_ref().map(shown)),
        ("tcp_options.TCP_KEEPIDLE", tcp.keepalive_idle.map(in_seconds)),
        ("tcp_options.TCP_KEEPINTVL", tcp.keepalive_interval.map(in_seconds)),
        ("tcp_options.TCP_KEEPCNT", tcp.keepalive_retries.map(shown)),
        ("tcp_options.TCP_USER_TIMEOUT", tcp.user_timeout.map(in_milliseconds)),
        ("tcp_options.SO_SNDBUF", tcp.send_buffer_bytes.map(shown)),
        ("tcp_options.SO_RCVBUF", tcp.receive_buffer_bytes.map(shown)),
        ("tcp_options.local_address", tcp.local_address.map(shown)),
    ];
    let named = named.into_iter().filter_map(|(key, value)| Some((key.into(), value?.into())));
    let properties = uri.client_properties.iter();
    let mechanisms = uri.auth_mechanisms.iter().map(|mechanism| {
        let name = match mechanism {
            UriMechanism::Plain => "plain",
            UriMechanism::AmqPlain => "amqplain",
            UriMechanism::External => "external",
        };
        (AUTH_MECHANISM.into(), name.into())
    });
    mechanisms.chain(named).chain(
        properties.map(|(name, value)| {
            (format!("{CLIENT_PROPERTIES}.{name}").into(), value.as_str().into())
        }),
    )
}

fn mechanism(name: &str) -> Result<UriMechanism, SettingError> {
    match name.to_ascii_lowercase().as_str() {
        "plain" => Ok(UriMechanism::Plain),
        "amqplain" => Ok(UriMechanism::AmqPlain),
        "external" => Ok(UriMechanism::External),
        _ => Err(form(AUTH_MECHANISM, "plain, amqplain or external")),
    }
}

/// What follows a prefix and a dot.
fn after<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('.').filter(|name| !name.is_empty())
}

/// It has two names: one of RabbitMQ, in milliseconds, and one of pika, in seconds.
const fn set_connection_timeout(uri: &mut AmqpUri, timeout: Duration) -> Result<(), SettingError> {
    if uri.connection_timeout.is_some() {
        return Err(SettingError::Both("connection_timeout", "stack_timeout"));
    }
    uri.connection_timeout = Some(timeout);
    Ok(())
}

fn form(key: &str, expected: &'static str) -> SettingError {
    SettingError::Form { key: key.into(), expected }
}

fn text<'a>(key: &'static str, value: &'a str) -> Result<&'a str, SettingError> {
    if value.is_empty() { Err(SettingError::Empty(key)) } else { Ok(value) }
}

fn number(
    key: &'static str,
    unit: &'static str,
    low: u64,
    high: u64,
    value: &str,
) -> Result<u64, SettingError> {
    let number = parse_number(value).filter(|number| (low..=high).contains(number));
    number.ok_or(SettingError::Number { key, unit, low, high })
}

fn milliseconds(
    key: &'static str,
    low: u64,
    high: Duration,
    value: &str,
) -> Result<Duration, SettingError> {
    let high = high.as_millis() as u64;
    Ok(Duration::from_millis(number(key, "milliseconds", low, high, value)?))
}

fn positive_seconds(key: &'static str, value: &str) -> Result<Duration, SettingError> {
    seconds(key, value, Duration::from_millis(1))
}

/// A number of seconds that may have up to three decimals, such as `0.25`.
fn seconds(key: &'static str, value: &str, low: Duration) -> Result<Duration, SettingError> {
    let high = SETTING_TIME_MAX;
    let (whole, decimals) = value.split_once('.').unwrap_or((value, "0"));
    let parsed = || {
        let places =
            u32::try_from(decimals.len()).ok().filter(|places| (1..=3).contains(places))?;
        let milliseconds = parse_number(decimals)? * 10_u64.pow(3 - places);
        let whole = parse_number(whole)?.checked_mul(1_000)?;
        Some(Duration::from_millis(whole.checked_add(milliseconds)?))
    };
    let time = parsed().filter(|time| (low..=high).contains(time));
    time.ok_or(SettingError::Seconds { key, low, high })
}

fn keepalive(key: &'static str, value: &str) -> Result<Duration, SettingError> {
    let number = number(key, "seconds", 1, KEEPALIVE_MAX.as_secs(), value)?;
    Ok(Duration::from_secs(number))
}

fn buffer(key: &'static str, value: &str) -> Result<u32, SettingError> {
    Ok(number(key, "bytes", 1, i32::MAX as u64, value)? as u32)
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed to `map`")]
fn shown(value: impl ToString) -> String {
    value.to_string()
}

fn in_milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

fn in_seconds(time: Duration) -> String {
    let text = format!("{}.{:03}", time.as_secs(), time.subsec_millis());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
