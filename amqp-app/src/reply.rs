//! What a message that a handler sends gets from the one that was handled: ids, so that replies can be matched with their
//! requests, and duplicates recognised.

use amqp_async::{FieldValue, Properties};

use crate::limits::MESSAGE_ID_MAX;
use crate::message::Message;

/// The header with the ids of all messages that led to this one, one a line, the oldest first.
const REFERENCES: &str = "references";

/// What the names of direct replies begin with (<https://www.rabbitmq.com/docs/direct-reply-to>).
const DIRECT_REPLIES: &str = "amq.rabbitmq.reply-to";

/// A reply to a request that names no queue for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request has no reply_to, so a reply cannot be sent")]
pub(crate) struct NoReplyTo;

/// Completes the message number `index` that the handler of a request sends. What the message has already stays.
///
/// * `message_id`: `<request's id>#<index>`, or a new id if the request has none. A request that is handled twice so has
///   replies with the same ids.
/// * `correlation_id`: the request's message id. For a reply (RPC) the request's correlation id comes first.
/// * the header `references`: that of the request, and the request's id.
pub(crate) fn complete(
    request: &Properties,
    index: impl std::fmt::Display,
    message: Message,
    new_id: impl FnOnce() -> String,
) -> Result<amqp_async::Message, NoReplyTo> {
    let is_reply = message.is_reply();
    let mut message = amqp_async::Message::from(message);
    let id = request.message_id.as_deref();
    if is_reply {
        message.exchange.clear();
        message.routing_key = request.reply_to.clone().ok_or(NoReplyTo)?;
        // RabbitMQ 3.10 returns such a message although it delivers it.
        message.mandatory &= !message.routing_key.starts_with(DIRECT_REPLIES);
    }
    let properties = &mut message.properties;
    if properties.message_id.is_none() {
        let numbered = id.map(|id| format!("{id}#{index}")).filter(|it| it.len() <= MESSAGE_ID_MAX);
        properties.message_id = Some(numbered.unwrap_or_else(new_id));
    }
    if properties.correlation_id.is_none() {
        let first = request.correlation_id.as_deref().filter(|_| is_reply);
        properties.correlation_id = first.or(id).map(Into::into);
    }
    if let Some(id) = id {
        let headers = properties.headers.get_or_insert_default();
        if headers.get(REFERENCES).is_none() {
            let earlier = request.headers.as_ref().and_then(|it| it.get(REFERENCES)?.as_str());
            let references = earlier.map(|earlier| format!("{earlier}\n{id}"));
            headers.insert(REFERENCES, FieldValue::from(references.as_deref().unwrap_or(id)));
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use amqp_async::{FieldTable, Properties};

    use super::{NoReplyTo, complete};
    use crate::message::Message;

    fn sent(request: &Properties, message: Message) -> amqp_async::Message {
        complete(request, 2, message, || "new".into()).unwrap()
    }

    fn references(message: &amqp_async::Message) -> Option<&str> {
        message.properties.headers.as_ref()?.get("references")?.as_str()
    }

    fn request() -> Properties {
        Properties::new().message_id("r").correlation_id("c").reply_to("answers")
    }

    #[test]
    fn a_message_gets_the_ids_of_its_request() {
        let message = sent(&request(), Message::new("m").to("amq.topic", "key"));
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("amq.topic", "key"));
        assert_eq!(message.properties.message_id.as_deref(), Some("r#2"));
        assert_eq!(message.properties.correlation_id.as_deref(), Some("r"));
        assert_eq!(references(&message), Some("r"));
    }

    #[test]
    fn references_grow() {
        let mut headers = FieldTable::new();
        headers.insert("references", "first\nsecond");
        let message = sent(&request().headers(headers), Message::new("m"));
        assert_eq!(references(&message), Some("first\nsecond\nr"));
    }

    #[test]
    fn a_request_without_an_id_gives_none() {
        let message = sent(&Properties::new(), Message::new("m"));
        assert_eq!(message.properties.message_id.as_deref(), Some("new"));
        assert_eq!(message.properties.correlation_id, None);
        assert_eq!(references(&message), None);
    }

    #[test]
    fn what_a_message_has_stays() {
        let own = Message::new("m").message_id("mine").correlation_id("other");
        let message = sent(&request(), own.header("references", "none of yours"));
        assert_eq!(message.properties.message_id.as_deref(), Some("mine"));
        assert_eq!(message.properties.correlation_id.as_deref(), Some("other"));
        assert_eq!(references(&message), Some("none of yours"));
    }

    #[test]
    fn a_reply_goes_to_the_requester_with_its_correlation_id() {
        let message = sent(&request(), Message::new("m").to("amq.topic", "k").reply());
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("", "answers"));
        assert_eq!(message.properties.correlation_id.as_deref(), Some("c"));
        let uncorrelated = Properties::new().message_id("r").reply_to("answers");
        let message = sent(&uncorrelated, Message::new("m").reply());
        assert_eq!(message.properties.correlation_id.as_deref(), Some("r"));
        let nowhere = complete(&Properties::new(), 0, Message::new("m").reply(), String::new);
        assert_eq!(nowhere.unwrap_err(), NoReplyTo);
    }

    #[test]
    fn an_id_that_would_be_too_long_is_a_new_one() {
        let long = Properties::new().message_id("i".repeat(255));
        assert_eq!(sent(&long, Message::new("m")).properties.message_id.as_deref(), Some("new"));
    }
}
