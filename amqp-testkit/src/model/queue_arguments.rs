//! The arguments of a queue (`x-..`): how RabbitMQ checks them, and what they ask for.

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use super::consumer_arguments::interval;
use super::refusal::Refusal;

/// The longest time that RabbitMQ accepts, in milliseconds: ten years.
pub(super) const TIME_MAX_MS: u64 = 315_360_000_000;

/// What the arguments of a queue ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueArguments {
    pub(super) kind: QueueKind,
    pub(super) max_length: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) dead_letter_exchange: Option<String>,
    pub(super) dead_letter_routing_key: Option<String>,
    /// Whether dead letters are kept until they are confirmed.
    pub(super) at_least_once: bool,
    pub(super) max_priority: u8,
    pub(super) single_active_consumer: bool,
    /// How long a message stays.
    pub(super) message_ttl: Option<Duration>,
    /// How long the queue stays unused.
    pub(super) expires: Option<Duration>,
    /// How often a message may be returned.
    pub(super) delivery_limit: Option<i64>,
    /// The arguments as they were declared, which a later declaration must repeat.
    table: FieldTable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QueueKind {
    #[default]
    Classic,
    Quorum,
    Stream,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// The arguments that RabbitMQ knows, and the kinds of queues that have them: classic, quorum, stream. It ignores others.
const KNOWN: [(&str, [bool; 3]); 22] = [
    ("x-dead-letter-exchange", [true, true, false]),
    ("x-dead-letter-routing-key", [true, true, false]),
    ("x-dead-letter-strategy", [false, true, false]),
    ("x-delivery-limit", [false, true, false]),
    ("x-expires", [true, true, false]),
    ("x-initial-cluster-size", [false, false, true]),
    ("x-max-age", [false, false, true]),
    ("x-max-in-memory-bytes", [false, true, false]),
    ("x-max-in-memory-length", [false, true, false]),
    ("x-max-length", [true, true, false]),
    ("x-max-length-bytes", [true, true, true]),
    ("x-max-priority", [true, false, false]),
    ("x-message-ttl", [true, true, false]),
    ("x-overflow", [true, true, false]),
    ("x-queue-leader-locator", [false, true, true]),
    ("x-queue-master-locator", [true, false, false]),
    ("x-queue-mode", [true, false, false]),
    ("x-queue-type", [true, true, true]),
    ("x-queue-version", [true, false, false]),
    ("x-quorum-initial-group-size", [false, true, false]),
    ("x-single-active-consumer", [true, true, false]),
    ("x-stream-max-segment-size-bytes", [false, false, true]),
];

impl QueueKind {
    /// Reads the argument `x-queue-type`.
    fn of(table: &FieldTable) -> Result<Self, String> {
        let Some(value) = table.get("x-queue-type") else { return Ok(Self::Classic) };
        match text(value)? {
            "classic" => Ok(Self::Classic),
            "quorum" => Ok(Self::Quorum),
            "stream" => Ok(Self::Stream),
            kind => Err(format!("\"unsupported queue type '{kind}'\"")),
        }
    }

    /// Returns the kind that the arguments ask for, unless they ask for a classic queue or are wrong.
    pub(super) fn other_than_classic(table: &FieldTable) -> Option<Self> {
        Self::of(table).ok().filter(|kind| *kind != Self::Classic)
    }

    /// Returns RabbitMQ's name of its implementation, which is in the texts of refusals.
    pub(super) const fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }

    /// Returns the names of the arguments that RabbitMQ knows, and whether this kind has each.
    fn arguments(self) -> impl Iterator<Item = (&'static str, bool)> {
        KNOWN.into_iter().map(move |(name, kinds)| (name, kinds[self as usize]))
    }
}

impl QueueArguments {
    /// Reads the arguments, and checks them in RabbitMQ's order: the values that the kind of queue has, then whether there
    /// are others.
    pub(super) fn new(queue: &str, table: &FieldTable) -> Result<Self, Refusal> {
        let exchange = table.get("x-dead-letter-exchange");
        if let Some(value) = exchange.filter(|value| value.as_str().is_none()) {
            let text = format!(
                "invalid type '{}' for arg 'x-dead-letter-exchange' in queue '{queue}' in vhost '/'",
                type_name(value)
            );
            return Err(Refusal::precondition_failed(text));
        }
        let kind = QueueKind::of(table);
        let kind = kind.map_err(|wrong| invalid(queue, "x-queue-type", &wrong))?;
        let mut read = Self { kind, table: table.clone(), ..Self::default() };
        let has = |name: &str| kind.arguments().any(|(known, has)| known == name && has);
        for (name, value) in table.iter().filter(|(name, _)| has(name)) {
            read.set(name, value).map_err(|wrong| invalid(queue, name, &wrong))?;
        }
        for (name, _) in table.iter() {
            if kind.arguments().any(|(known, has)| known == name && !has) {
                let module = kind.module();
                return Err(Refusal::precondition_failed(format!(
                    "invalid arg '{name}' for queue '{queue}' in vhost '/' of queue type {module}"
                )));
            }
        }
        if kind == QueueKind::Quorum && read.overflow != Overflow::RejectPublish {
            // RabbitMQ warns in its log, and takes what it supports.
            (read.overflow, read.at_least_once) = (Overflow::DropHead, false);
        }
        Ok(read)
    }

    /// Reads an argument. The error says what is wrong, as RabbitMQ prints it.
    fn set(&mut self, name: &str, value: &FieldValue) -> Result<(), String> {
        match name {
            "x-message-ttl" => self.message_ttl = Some(time(value)?),
            "x-expires" => match time(value)? {
                Duration::ZERO => return Err("{value_zero,0}".to_owned()),
                time => self.expires = Some(time),
            },
            "x-max-length" => self.max_length = Some(natural(value)?),
            "x-max-length-bytes" => self.max_bytes = Some(natural(value)?),
            "x-max-priority" => {
                let highest = natural(value)?;
                let too_high = |_| format!("{{max_value_exceeded,{highest}}}");
                self.max_priority = u8::try_from(highest).map_err(too_high)?;
            }
            "x-dead-letter-exchange" => self.dead_letter_exchange = Some(text(value)?.to_owned()),
            "x-dead-letter-routing-key" => {
                self.dead_letter_routing_key = Some(text(value)?.to_owned());
                if self.table.get("x-dead-letter-exchange").is_none() {
                    return Err("routing_key_but_no_dlx_defined".to_owned());
                }
            }
            "x-dead-letter-strategy" => match text(value)? {
                "at-most-once" => {}
                "at-least-once" => self.at_least_once = true,
                _ => return Err("invalid_dlx_strategy".to_owned()),
            },
            "x-single-active-consumer" => {
                let active = value.as_bool();
                self.single_active_consumer = active.ok_or_else(|| unacceptable(value))?;
            }
            "x-overflow" => {
                self.overflow = match text(value)? {
                    "drop-head" => Overflow::DropHead,
                    "reject-publish" => Overflow::RejectPublish,
                    "reject-publish-dlx" => Overflow::RejectPublishDlx,
                    _ => return Err("invalid_overflow".to_owned()),
                }
            }
            "x-queue-mode" => match text(value)? {
                "default" | "lazy" => {}
                mode => return Err(format!("\"unsupported queue mode '{mode}'\"")),
            },
            "x-queue-version" => match natural(value)? {
                1 | 2 => {}
                version => return Err(format!("\"unsupported queue version '{version}'\"")),
            },
            "x-quorum-initial-group-size" | "x-initial-cluster-size" => {
                natural(value)?.checked_sub(1).ok_or("{value_zero,0}")?;
            }
            "x-queue-leader-locator" => {
                let locators = ["client-local", "balanced", "random", "least-leaders"];
                if !locators.contains(&text(value)?) {
                    return Err("invalid_queue_locator_arg".to_owned());
                }
            }
            "x-max-in-memory-length"
            | "x-max-in-memory-bytes"
            | "x-stream-max-segment-size-bytes" => drop(natural(value)?),
            "x-max-age" => {
                interval(text(value)?).ok_or("invalid_max_age")?;
            }
            // RabbitMQ does not check it. What is no number is higher than any.
            "x-delivery-limit" => self.delivery_limit = Some(value.as_i64().unwrap_or(i64::MAX)),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn is_quorum(&self) -> bool {
        self.kind == QueueKind::Quorum
    }

    /// Returns whether the segments of a stream are to be larger than RabbitMQ allows.
    pub(super) fn has_huge_segments(&self) -> bool {
        let size = self.table.get("x-stream-max-segment-size-bytes").and_then(FieldValue::as_i64);
        size.is_some_and(|size| size > 3_000_000_000)
    }

    /// Returns how long a message stays that is to stay for this time.
    pub(super) fn lifetime(&self, time: Duration) -> Duration {
        // A quorum queue keeps every message for a moment.
        if self.is_quorum() { time.max(Duration::from_millis(1)) } else { time }
    }

    /// Returns an error if a declaration with other arguments asks for another queue. RabbitMQ does not check whether
    /// they are right.
    pub(super) fn check_equal(&self, queue: &str, asked: &FieldTable) -> Result<(), Refusal> {
        for (name, _) in self.kind.arguments().filter(|(_, has)| *has) {
            let (found, asked) = (self.table.get(name), asked.get(name));
            let classic = |value: Option<&FieldValue>| {
                name == "x-queue-type" && value.is_none_or(|it| it.as_str() == Some("classic"))
            };
            if !(classic(found) && classic(asked)) {
                check_argument(name, &format!("queue '{queue}'"), asked, found)?;
            }
        }
        Ok(())
    }
}

/// Reads an integer that is not negative.
fn natural(value: &FieldValue) -> Result<u64, String> {
    let other = || format!("\"expected integer, got {}\"", type_name(value));
    // RabbitMQ takes what is too large for an `i64` for another type.
    let number = value.as_i64().ok_or_else(other)?;
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

/// Reads a time in milliseconds.
fn time(value: &FieldValue) -> Result<Duration, String> {
    match natural(value)? {
        time @ 0..=TIME_MAX_MS => Ok(Duration::from_millis(time)),
        time => Err(format!("{{value_too_large,{time}}}")),
    }
}

fn text(value: &FieldValue) -> Result<&str, String> {
    value.as_str().ok_or_else(|| unacceptable(value))
}

fn unacceptable(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", type_name(value))
}

fn invalid(queue: &str, name: &str, wrong: &str) -> Refusal {
    let text = format!("invalid arg '{name}' for queue '{queue}' in vhost '/': {wrong}");
    Refusal::precondition_failed(text)
}

/// Returns an error if an argument of a declaration is not that of what exists. Integers of different sizes are the same.
pub(super) fn check_argument(
    name: &str,
    of: &str,
    asked: Option<&FieldValue>,
    found: Option<&FieldValue>,
) -> Result<(), Refusal> {
    let integers = || Some((asked?.as_i64()?, found?.as_i64()?));
    if asked == found || integers().is_some_and(|(asked, found)| asked == found) {
        return Ok(());
    }
    let (received, current) = (described(asked, found), described(found, asked));
    Err(Refusal::inequivalent(name, of, &received, &current))
}

/// Describes an argument as RabbitMQ does in a refusal: with its type, unless the other side has a value too.
fn described(value: Option<&FieldValue>, other: Option<&FieldValue>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let shown = match value {
        FieldValue::LongString(text) => String::from_utf8_lossy(text).into_owned(),
        FieldValue::Bool(it) => it.to_string(),
        value => value.as_i64().map_or_else(|| format!("{value:?}"), |it| it.to_string()),
    };
    match other {
        Some(_) => format!("'{shown}'"),
        None => format!("the value '{shown}' of type '{}'", type_name(value)),
    }
}

/// Returns RabbitMQ's name of a value's type.
pub(super) const fn type_name(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Bool(_) => "bool",
        FieldValue::I8(_) => "byte",
        FieldValue::U8(_) => "unsignedbyte",
        FieldValue::I16(_) => "short",
        FieldValue::U16(_) => "unsignedshort",
        FieldValue::I32(_) => "signedint",
        FieldValue::U32(_) => "unsignedint",
        FieldValue::I64(_) | FieldValue::U64(_) => "long",
        FieldValue::F32(_) => "float",
        FieldValue::F64(_) => "double",
        FieldValue::Decimal(_) => "decimal",
        FieldValue::LongString(_) => "longstr",
        FieldValue::Bytes(_) => "binary",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Array(_) => "array",
        FieldValue::Table(_) => "table",
        _ => "void",
    }
}
