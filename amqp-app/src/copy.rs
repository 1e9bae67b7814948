//! The copy of a message that waits for another attempt, or is parked: what it keeps of the message, and what it says of the
//! failure.
//!
//! A copy is published through the default exchange, so it keeps the exchange and the routing key of the message in headers
//! of its own. The broker's records of earlier deaths are removed. Before RabbitMQ 4.0 a copy that keeps them is dropped in
//! silence when it expires, because the broker takes it for a message in a cycle. What the publisher asked of the first
//! publish is removed too: the user name, the expiration, and the headers that route to further queues.

use amqp_async::{FieldTable, FieldValue};

use crate::limits::ERROR_TEXT_MAX;

const ATTEMPT: &str = "retry-attempt";
const EXCHANGE: &str = "retry-exchange";
const ROUTING_KEY: &str = "retry-routing-key";
const QUEUE: &str = "retry-queue";
const ERROR: &str = "retry-error";
const FIRST_FAILED_AT: &str = "retry-first-failed-at";

/// The headers in which the broker keeps its records, and those by which it routes to further queues.
const RECORDS: [&str; 3] = ["x-death", "x-delivery-count", "x-acquired-count"];
const FURTHER_KEYS: [&str; 2] = ["CC", "BCC"];
const RECORD_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// The failure of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed<'a> {
    /// The queue that it was consumed from.
    pub(crate) queue: &'a str,
    /// The number of attempts so far.
    pub(crate) attempts: u32,
    /// The text of the last error.
    pub(crate) error: &'a str,
    /// The time, in seconds since 1970.
    pub(crate) now: u64,
}

/// How much a copy says of the failure, so that its header fits into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Full,
    WithoutText,
    CountOnly,
    None,
}

/// Returns the copy of a message for `to`, a queue.
pub(crate) fn copy(
    original: &amqp_async::Message,
    failed: Failed<'_>,
    detail: Detail,
    to: &str,
) -> amqp_async::Message {
    let mut copy = original.clone().to_queue(to).persistent().mandatory();
    let properties = &mut copy.properties;
    (properties.user_id, properties.expiration) = (None, None);
    let mut headers = strip(properties.headers.take().unwrap_or_default());
    let is_first = headers.get(QUEUE).and_then(FieldValue::as_str) != Some(failed.queue);
    if detail != Detail::None {
        headers.insert(ATTEMPT, i64::from(failed.attempts));
    }
    if matches!(detail, Detail::Full | Detail::WithoutText) {
        if is_first {
            headers.insert(QUEUE, failed.queue);
            headers.insert(EXCHANGE, original.exchange.as_str());
            headers.insert(ROUTING_KEY, original.routing_key.as_str());
            headers.insert(FIRST_FAILED_AT, FieldValue::Timestamp(failed.now));
        }
        headers.remove(ERROR);
    }
    if detail == Detail::Full {
        headers.insert(ERROR, text(failed.error).as_str());
    }
    if matches!(detail, Detail::CountOnly | Detail::None) {
        for header in [EXCHANGE, ROUTING_KEY, ERROR, FIRST_FAILED_AT] {
            headers.remove(header);
        }
        match detail {
            Detail::CountOnly => drop(headers.insert(QUEUE, failed.queue)),
            _ => drop((headers.remove(ATTEMPT), headers.remove(QUEUE))),
        }
    }
    properties.headers = (!headers.is_empty()).then_some(headers);
    copy
}

/// Returns how many attempts on a message of `queue` failed before it was delivered, as its headers have it.
pub(crate) fn attempts_before(headers: &FieldTable, queue: &str) -> u32 {
    let of_queue = headers.get(QUEUE).and_then(FieldValue::as_str) == Some(queue);
    let failed = if of_queue { count(headers, ATTEMPT) } else { 0 };
    failed.saturating_add(deliveries_before(headers))
}

/// Returns how many times the broker delivered the message before without an outcome. Quorum queues count it.
pub(crate) fn deliveries_before(headers: &FieldTable) -> u32 {
    count(headers, "x-delivery-count")
}

/// Returns the exchange and the routing key with which the message of a copy was published.
pub(crate) fn original_address<'a>(
    headers: &'a FieldTable,
    queue: &str,
) -> Option<(&'a str, &'a str)> {
    let text = |name| headers.get(name).and_then(FieldValue::as_str);
    (text(QUEUE)? == queue).then_some(())?;
    Some((text(EXCHANGE)?, text(ROUTING_KEY)?))
}

fn count(headers: &FieldTable, name: &str) -> u32 {
    let count = headers.get(name).and_then(FieldValue::as_i64).unwrap_or_default();
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

fn strip(headers: FieldTable) -> FieldTable {
    let headers = without_records(headers).into_iter();
    headers.filter(|(name, _)| !FURTHER_KEYS.contains(&&**name)).collect()
}

/// Removes the headers in which the broker keeps its records.
pub(crate) fn without_records(headers: FieldTable) -> FieldTable {
    let is_record = |name: &str| {
        RECORDS.contains(&name) || RECORD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers.into_iter().filter(|(name, _)| !is_record(name)).collect()
}

/// A text that headers can hold: bounded, and without NUL.
pub(crate) fn text(error: &str) -> String {
    error.chars().filter(|letter| *letter != '\0').take(ERROR_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use amqp_async::{FieldTable, FieldValue, Message};

    use super::{Detail, Failed, attempts_before, copy, deliveries_before, original_address};

    fn failed(attempts: u32) -> Failed<'static> {
        Failed { queue: "orders", attempts, error: "bad\0 order", now: 1_700_000_000 }
    }

    fn message() -> Message {
        let dead = FieldTable::from([("queue", FieldValue::from("other"))]);
        Message::new("body")
            .to("events", "order.created")
            .message_id("m1")
            .user_id("alice")
            .expiration(std::time::Duration::from_secs(5))
            .header("tenant", "north")
            .header("x-death", FieldValue::Array(vec![FieldValue::Table(dead)]))
            .header("x-first-death-queue", "other")
            .header("x-last-death-reason", "expired")
            .header("x-delivery-count", 3_i64)
            .header("x-acquired-count", 4_i64)
            .header("CC", FieldValue::Array(vec!["copies".into()]))
    }

    fn headers(message: &Message) -> &FieldTable {
        message.properties.headers.as_ref().unwrap()
    }

    fn text<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
        headers(message).get(name)?.as_str()
    }

    #[test]
    fn a_copy_keeps_the_message_and_says_what_failed() {
        let copy = copy(&message(), failed(2), Detail::Full, "orders.retry.10s");
        assert_eq!((copy.exchange.as_str(), copy.routing_key.as_str()), ("", "orders.retry.10s"));
        assert!(copy.mandatory && copy.properties.delivery_mode == Some(2));
        assert_eq!(copy.body, "body");
        assert_eq!(copy.properties.message_id.as_deref(), Some("m1"));
        assert_eq!((&copy.properties.user_id, &copy.properties.expiration), (&None, &None));
        assert_eq!(text(&copy, "tenant"), Some("north"));
        assert_eq!(text(&copy, "retry-error"), Some("bad order"));
        assert_eq!(headers(&copy).get("retry-attempt").unwrap().as_i64(), Some(2));
        let first = headers(&copy).get("retry-first-failed-at").unwrap();
        assert_eq!(first.as_timestamp(), Some(1_700_000_000));
        assert_eq!(original_address(headers(&copy), "orders"), Some(("events", "order.created")));
        assert_eq!(original_address(headers(&copy), "others"), None);
        assert_eq!(headers(&copy).len(), 7, "nothing of the broker is left: {copy:?}");
    }

    #[test]
    fn a_copy_of_a_copy_keeps_the_first_address_and_time() {
        let mut first = copy(&message(), failed(1), Detail::Full, "orders.retry.1s");
        first.routing_key = "orders".into();
        let later = Failed { now: 1_800_000_000, error: "worse", ..failed(2) };
        let second = copy(&first, later, Detail::Full, "orders.parked");
        assert_eq!(original_address(headers(&second), "orders"), Some(("events", "order.created")));
        let at = headers(&second).get("retry-first-failed-at").unwrap();
        assert_eq!(at.as_timestamp(), Some(1_700_000_000));
        assert_eq!(text(&second, "retry-error"), Some("worse"));
        assert_eq!(attempts_before(headers(&second), "orders"), 2);
        // What another queue's application parked begins anew here.
        assert_eq!(attempts_before(headers(&second), "orders.parked"), 0);
    }

    #[test]
    fn a_copy_can_say_less() {
        let full = copy(&message(), failed(1), Detail::Full, "q");
        let sizes = [Detail::Full, Detail::WithoutText, Detail::CountOnly, Detail::None]
            .map(|detail| copy(&full, failed(2), detail, "q").properties.headers.unwrap().len());
        assert_eq!(sizes, [7, 6, 3, 1]);
        let counted = copy(&full, failed(2), Detail::CountOnly, "q");
        assert_eq!(attempts_before(headers(&counted), "orders"), 2);
    }

    #[test]
    fn attempts_are_those_of_the_policy_and_those_that_the_broker_counts() {
        let headers = FieldTable::from([
            ("retry-queue", FieldValue::from("orders")),
            ("retry-attempt", FieldValue::from(2)),
            ("x-delivery-count", FieldValue::from(3)),
        ]);
        assert_eq!((attempts_before(&headers, "orders"), deliveries_before(&headers)), (5, 3));
        let nonsense = FieldTable::from([("x-delivery-count", FieldValue::from(-3))]);
        assert_eq!(deliveries_before(&nonsense), 0);
    }

    #[test]
    fn the_text_of_an_error_is_bounded() {
        let long = "é".repeat(5_000);
        let copy = copy(&message(), Failed { error: &long, ..failed(1) }, Detail::Full, "q");
        assert_eq!(text(&copy, "retry-error").unwrap().chars().count(), 1_000);
    }
}
