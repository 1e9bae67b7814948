//! The arguments of a consumer: which RabbitMQ checks for which kind of queue.

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use super::queue_arguments::{QueueKind, type_name};
use super::refusal::Refusal;
use super::streams::StreamOffset;

/// What the arguments of `basic.consume` ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConsumerArguments {
    pub(super) priority: i64,
    pub(super) offset: StreamOffset,
}

/// The arguments that RabbitMQ knows, and the kinds of queues whose consumers have them: classic, quorum, stream.
const KNOWN: [(&str, [bool; 3]); 3] = [
    ("x-cancel-on-ha-failover", [true, false, false]),
    ("x-priority", [true, true, false]),
    ("x-stream-offset", [false, false, true]),
];

impl ConsumerArguments {
    /// Reads the arguments of a consumer of this queue. `now` is the time, from which an interval counts back.
    pub(super) fn new(
        queue: &str,
        kind: QueueKind,
        table: &FieldTable,
        now: Duration,
    ) -> Result<Self, Refusal> {
        let of = format!("queue '{queue}' in vhost '/'");
        let mut read = Self::default();
        for (name, value) in table.iter() {
            let checked = match (name, kind) {
                ("x-priority", QueueKind::Classic | QueueKind::Quorum) => value
                    .as_i64()
                    .map(|priority| read.priority = priority)
                    .ok_or_else(|| format!("\"expected integer, got {}\"", type_name(value))),
                ("x-cancel-on-ha-failover", QueueKind::Classic) => match value {
                    FieldValue::Bool(_) => Ok(()),
                    _ => Err(format!("{{unacceptable_type,{}}}", type_name(value))),
                },
                ("x-stream-offset", QueueKind::Stream) => {
                    stream_offset(value, now)?.map(|offset| read.offset = offset)
                }
                _ => Ok(()),
            };
            checked.map_err(|wrong| {
                Refusal::precondition_failed(format!("invalid arg '{name}' for {of}: {wrong}"))
            })?;
        }
        let lacks =
            |name: &str| KNOWN.iter().any(|(known, kinds)| *known == name && !kinds[kind as usize]);
        if let Some((name, _)) = table.iter().find(|(name, _)| lacks(name)) {
            let module = kind.module();
            let text = format!("invalid arg '{name}' for {of} of queue type {module}");
            return Err(Refusal::precondition_failed(text));
        }
        Ok(read)
    }
}

/// Reads the argument `x-stream-offset`. The inner error says what RabbitMQ says.
fn stream_offset(
    value: &FieldValue,
    now: Duration,
) -> Result<Result<StreamOffset, String>, Refusal> {
    let offset = match value {
        FieldValue::LongString(text) => match text.as_slice() {
            b"first" => StreamOffset::First,
            b"last" => StreamOffset::Last,
            b"next" => StreamOffset::Next,
            text => {
                let text = String::from_utf8_lossy(text);
                let wrong = || format!("{{invalid_stream_offset_arg,{{longstr,<<\"{text}\">>}}}}");
                // RabbitMQ fails at what does not begin with a digit.
                if !text.starts_with(|it: char| it.is_ascii_digit()) {
                    return Err(Refusal::not_implemented("offset of this name"));
                }
                return Ok(interval(&text)
                    .map(|interval| StreamOffset::Time(now.saturating_sub(interval)))
                    .ok_or_else(wrong));
            }
        },
        FieldValue::Timestamp(seconds) => StreamOffset::Time(Duration::from_secs(*seconds)),
        value => match value.as_i64().map(u64::try_from) {
            Some(Ok(number)) => StreamOffset::Number(number),
            _ => return Err(Refusal::not_implemented("offset of this type")),
        },
    };
    Ok(Ok(offset))
}

/// Reads an interval, such as `7D`: a number above 0, and one of the units `Y`, `M`, `D`, `h`, `m` and `s`.
pub(super) fn interval(text: &str) -> Option<Duration> {
    let end = text.find(|it: char| !it.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let seconds: u64 = match unit {
        "Y" => 365 * 86_400,
        "M" => 30 * 86_400,
        "D" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0)?;
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}
