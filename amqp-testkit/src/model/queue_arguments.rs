//! The arguments of a queue (`x-..`): how RabbitMQ checks them, and what they ask for.

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use super::refusal::Refusal;

/// The longest time that RabbitMQ accepts, in milliseconds: ten years.
pub(super) const TIME_MAX_MS: u64 = 315_360_000_000;

/// What the arguments of a queue ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueArguments {
    pub(super) max_length: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) dead_letter_exchange: Option<String>,
    pub(super) dead_letter_routing_key: Option<String>,
    pub(super) max_priority: u8,
    pub(super) single_active_consumer: bool,
    /// How long a message stays.
    pub(super) message_ttl: Option<Duration>,
    /// How long the queue stays unused.
    pub(super) expires: Option<Duration>,
    /// The arguments as they were declared, which a later declaration must repeat.
    table: FieldTable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// The arguments of classic queues. RabbitMQ ignores what it does not know at all.
const CLASSIC: [&str; 13] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-master-locator",
    "x-queue-mode",
    "x-queue-type",
    "x-queue-version",
    "x-single-active-consumer",
];

/// Arguments that RabbitMQ supports and the model refuses.
const LACKING: [&str; 1] = ["x-max-length-bytes"];

impl QueueArguments {
    /// Reads the arguments.
    pub(super) fn new(queue: &str, table: &FieldTable) -> Result<Self, Refusal> {
        let mut read = Self { table: table.clone(), ..Self::default() };
        let exchange = table.get("x-dead-letter-exchange");
        if let Some(value) = exchange.filter(|value| value.as_str().is_none()) {
            let text = format!(
                "invalid type '{}' for arg 'x-dead-letter-exchange' in queue '{queue}' in vhost '/'",
                type_name(value)
            );
            return Err(Refusal::precondition_failed(text));
        }
        for (name, value) in table.iter() {
            let checked = match name {
                "x-message-ttl" => time(value).map(|it| read.message_ttl = Some(it)),
                "x-expires" => time(value).and_then(|time| {
                    read.expires = Some(not_zero(time)?);
                    Ok(())
                }),
                "x-max-length" => natural(value).map(|it| read.max_length = Some(it)),
                "x-max-length-bytes" => natural(value).map(drop),
                "x-max-priority" => natural(value).and_then(|highest| {
                    let too_high = |_| format!("{{max_value_exceeded,{highest}}}");
                    read.max_priority = u8::try_from(highest).map_err(too_high)?;
                    Ok(())
                }),
                "x-dead-letter-exchange" => {
                    text(value).map(|it| read.dead_letter_exchange = Some(it.to_owned()))
                }
                "x-dead-letter-routing-key" => text(value).and_then(|key| {
                    read.dead_letter_routing_key = Some(key.to_owned());
                    if exchange.is_some() {
                        Ok(())
                    } else {
                        Err("routing_key_but_no_dlx_defined".to_owned())
                    }
                }),
                "x-single-active-consumer" => {
                    boolean(value).map(|it| read.single_active_consumer = it)
                }
                "x-overflow" => {
                    text(value).and_then(overflow).map(|overflow| read.overflow = overflow)
                }
                "x-queue-mode" => text(value).and_then(|mode| match mode {
                    "default" | "lazy" => Ok(()),
                    _ => Err(format!("\"unsupported queue mode '{mode}'\"")),
                }),
                "x-queue-version" => natural(value).and_then(|version| match version {
                    1 | 2 => Ok(()),
                    _ => Err(format!("\"unsupported queue version '{version}'\"")),
                }),
                "x-queue-type" => text(value).and_then(|kind| match kind {
                    "classic" | "quorum" | "stream" => Ok(()),
                    _ => Err(format!("\"unsupported queue type '{kind}'\"")),
                }),
                _ => Ok(()),
            };
            checked.map_err(|wrong| invalid(queue, name, &wrong))?;
            let is_classic = name != "x-queue-type" || value.as_str() == Some("classic");
            if LACKING.contains(&name) || !is_classic {
                return Err(Refusal::not_implemented(name));
            }
        }
        Ok(read)
    }

    /// Returns an error if a declaration with other arguments asks for another queue. RabbitMQ does not check whether
    /// they are right.
    pub(super) fn check_equal(&self, queue: &str, asked: &FieldTable) -> Result<(), Refusal> {
        for name in CLASSIC {
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

fn not_zero(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("{value_zero,0}".to_owned()) } else { Ok(time) }
}

fn text(value: &FieldValue) -> Result<&str, String> {
    value.as_str().ok_or_else(|| unacceptable(value))
}

fn boolean(value: &FieldValue) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| unacceptable(value))
}

fn unacceptable(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", type_name(value))
}

fn overflow(name: &str) -> Result<Overflow, String> {
    match name {
        "drop-head" => Ok(Overflow::DropHead),
        "reject-publish" => Ok(Overflow::RejectPublish),
        "reject-publish-dlx" => Ok(Overflow::RejectPublishDlx),
        _ => Err("invalid_overflow".to_owned()),
    }
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
const fn type_name(value: &FieldValue) -> &'static str {
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
