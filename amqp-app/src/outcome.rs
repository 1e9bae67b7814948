//! `Outcome`: what became of a message, and what handlers may return.

use bytes::Bytes;
use serde::Serialize;

use crate::extract::Json;
use crate::failure::Failure;
use crate::message::Message;

/// What a handler has made of its message: messages to send, or a failure.
///
/// Everything that a handler may return becomes one ([`IntoOutcome`]). Middleware looks at it, and may replace it.
#[derive(Debug)]
#[must_use = "the message is acknowledged, or not, by its outcome"]
pub struct Outcome {
    result: Result<Vec<Message>, Failure>,
    /// What is sent instead if the result cannot be committed.
    instead: Vec<Message>,
    /// What has become of each message of a batch.
    each: Option<Vec<Self>>,
}

impl Outcome {
    /// Creates the outcome of a message that is handled; nothing is sent.
    pub const fn success() -> Self {
        Self { result: Ok(Vec::new()), instead: Vec::new(), each: None }
    }

    /// Creates the outcome of a message that is handled when these messages are confirmed.
    pub fn send(messages: impl IntoIterator<Item = Message>) -> Self {
        Self::from(Ok(messages.into_iter().collect()))
    }

    /// Creates the outcome of a message that was not handled.
    pub fn failure(failure: impl Into<Failure>) -> Self {
        Self::from(Err(failure.into()))
    }

    /// Sets what is sent instead if the result cannot be committed: a [participant](crate::Participant) votes against it, a
    /// message cannot be sent, or the broker refuses the transaction. Then these are sent, the message is acknowledged, and
    /// the retry policy does not apply.
    ///
    /// If the connection is lost, the message comes again, and these are not sent. Nor are they if a participant votes with
    /// [`Failure::give_back`] or [`Failure::stop`].
    ///
    /// ```
    /// use amqp_app::prelude::*;
    ///
    /// async fn order(Text(order): Text) -> Outcome {
    ///     let failed = Message::new("not stored").to("amq.topic", "order.failed");
    ///     Outcome::send([Message::new(order).to("amq.topic", "order.stored")]).on_commit_failure([failed])
    /// }
    /// ```
    pub fn on_commit_failure(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.instead = messages.into_iter().collect();
        self
    }

    /// Returns whether the message is handled; for [`Outcomes`], whether all messages are.
    pub fn is_success(&self) -> bool {
        self.as_result().is_ok()
    }

    /// Returns the messages to send, or why the message was not handled. For [`Outcomes`], they are none, or it is the first
    /// failure.
    ///
    /// # Errors
    /// The failure.
    pub fn as_result(&self) -> Result<&[Message], &Failure> {
        let mut failures = self.each.iter().flatten().filter_map(|it| it.as_result().err());
        failures.next().map_or_else(|| self.result.as_deref(), Err)
    }

    /// Returns the messages to send, or why the message was not handled, by value. For [`Outcomes`], they are the messages of
    /// all, or it is the first failure.
    ///
    /// # Errors
    /// The failure.
    pub fn into_result(self) -> Result<Vec<Message>, Failure> {
        let mut messages = self.result?;
        for outcome in self.each.into_iter().flatten() {
            messages.append(&mut outcome.into_result()?);
        }
        Ok(messages)
    }

    /// The result, and what is sent instead if it cannot be committed.
    pub(crate) fn into_parts(self) -> (Result<Vec<Message>, Failure>, Vec<Message>) {
        (self.result, self.instead)
    }

    /// Takes the outcome of each message of a batch, if the handler has told them apart.
    pub(crate) fn take_each(&mut self) -> Option<Vec<Self>> {
        self.each.take()
    }

    /// The outcome of the only message.
    pub(crate) fn of_one(mut self) -> Self {
        match self.each.take() {
            None => self,
            Some(mut each) => match (each.pop(), each.len()) {
                (Some(only), 0) => only.of_one(),
                (last, others) => {
                    let outcomes = others + usize::from(last.is_some());
                    let text = format!("the handler returned {outcomes} outcomes for 1 message");
                    Self::failure(Failure::permanent(text))
                }
            },
        }
    }
}

impl From<Result<Vec<Message>, Failure>> for Outcome {
    fn from(result: Result<Vec<Message>, Failure>) -> Self {
        Self { result, instead: Vec::new(), each: None }
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "a handler may return `()`, `Message`, `[Message; N]`, `Vec<Message>`, `Option<_>` of these, `Reply<_>`, \
            `Result<_, E>` of these with any error `E`, `Failure`, `Outcome`, or `Outcomes<_>` for a batch"
)]
pub trait IntoOutcome {
    /// Returns the outcome of the handler.
    fn into_outcome(self) -> Outcome;
}

/// The message is handled.
impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::success()
    }
}

/// The message is handled when this one is confirmed.
impl IntoOutcome for Message {
    fn into_outcome(self) -> Outcome {
        Outcome::send([self])
    }
}

/// The message is handled when these are confirmed.
impl IntoOutcome for Vec<Message> {
    fn into_outcome(self) -> Outcome {
        Outcome::send(self)
    }
}

/// The message is handled when these are confirmed.
impl<const COUNT: usize> IntoOutcome for [Message; COUNT] {
    fn into_outcome(self) -> Outcome {
        Outcome::send(self)
    }
}

/// `None`: the message is handled, and nothing is sent.
impl<T: IntoOutcome> IntoOutcome for Option<T> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::success, T::into_outcome)
    }
}

/// An error: the policy decides.
impl<T: IntoOutcome, E: Into<Failure>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::failure, T::into_outcome)
    }
}

impl IntoOutcome for Failure {
    fn into_outcome(self) -> Outcome {
        Outcome::failure(self)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Self {
        self
    }
}

/// The outcomes of the messages of a batch, one for each, in their order: see
/// [`Consume::batches`](crate::Consume::batches). Those that are handled are acknowledged together, after what they send
/// is confirmed. What they send has ids from its own request. The retry policy decides about each of the others.
///
/// If there are more outcomes than messages, or fewer, none counts: the handler has failed.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_app::Outcomes;
///
/// async fn double(Batch(numbers): Batch<Json<u32>>) -> Outcomes<Result<Reply<Json<u32>>, Failure>> {
///     let double = |Json(number): Json<u32>| {
///         let double = number.checked_mul(2).ok_or_else(|| Failure::permanent("too large"))?;
///         Ok(Reply(Json(double)))
///     };
///     Outcomes(numbers.into_iter().map(double).collect())
/// }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "it is built by its one field")]
pub struct Outcomes<T>(pub Vec<T>);

impl<T: IntoOutcome> IntoOutcome for Outcomes<T> {
    fn into_outcome(self) -> Outcome {
        let each = self.0.into_iter().map(T::into_outcome).collect();
        Outcome { each: Some(each), ..Outcome::success() }
    }
}

/// A reply to the requester (RPC): a message to the queue that the request names in `reply_to`, with its
/// `correlation_id`.
///
/// ```
/// use amqp_app::{Json, Reply};
///
/// async fn double(Json(number): Json<u32>) -> Reply<Json<u32>> {
///     Reply(Json(2 * number))
/// }
/// ```
///
/// A request without `reply_to` is not tried again: by default it is parked. If the requester's queue is gone, the request is
/// acknowledged, and counted in [`Report::unroutable`](crate::Report::unroutable).
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "it is built by its one field")]
pub struct Reply<T>(pub T);

impl<T: IntoReply> IntoOutcome for Reply<T> {
    fn into_outcome(self) -> Outcome {
        self.0.into_reply().map(Message::reply).into_outcome()
    }
}

/// What [`Reply`] may hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as a reply",
    note = "a reply may be `String`, `&'static str`, `Vec<u8>`, `Bytes`, `Json<_>` or `Message`"
)]
pub trait IntoReply {
    /// Returns the message that is sent.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn into_reply(self) -> Result<Message, Failure>;
}

impl IntoReply for Message {
    fn into_reply(self) -> Result<Message, Failure> {
        Ok(self)
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Result<Message, Failure> {
        Ok(Message::new(self).content_type("text/plain"))
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Result<Message, Failure> {
        Ok(Message::new(self).content_type("text/plain"))
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Result<Message, Failure> {
        Ok(Message::new(self))
    }
}

impl IntoReply for Bytes {
    fn into_reply(self) -> Result<Message, Failure> {
        Ok(Message::new(self))
    }
}

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Result<Message, Failure> {
        Message::json(&self.0).map_err(Failure::permanent)
    }
}

#[cfg(test)]
mod tests {
    use super::{IntoOutcome, Outcomes, Reply};
    use crate::extract::Json;
    use crate::failure::Failure;
    use crate::message::Message;

    fn sent(result: impl IntoOutcome) -> Option<usize> {
        result.into_outcome().into_result().ok().map(|messages| messages.len())
    }

    #[test]
    fn what_a_handler_returns_becomes_an_outcome() {
        let message = || Message::new("m");
        assert_eq!(sent(()), Some(0));
        assert_eq!(sent(message()), Some(1));
        assert_eq!(sent([message(), message()]), Some(2));
        assert_eq!(sent(vec![message(); 3]), Some(3));
        assert_eq!(sent(None::<Message>), Some(0));
        assert_eq!(sent(Some(message())), Some(1));
        assert_eq!(sent(Ok::<_, std::io::Error>(message())), Some(1));
        assert_eq!(sent(Err::<(), _>(std::io::Error::other("down"))), None);
        assert_eq!(sent(Err::<(), _>(Failure::permanent("never"))), None);
        assert_eq!(sent(Failure::retry("again")), None);
    }

    #[test]
    fn outcomes_of_a_batch_are_handled_if_all_of_them_are() {
        let message = || Message::new("m");
        let outcomes = |each: [Result<Message, Failure>; 2]| Outcomes(each.into()).into_outcome();
        let all = || outcomes([Ok(message()), Ok(message())]);
        assert!(all().is_success() && all().as_result().unwrap().is_empty());
        assert_eq!(sent(all()), Some(2));
        let one = || outcomes([Ok(message()), Err(Failure::permanent("never"))]);
        assert_eq!(one().as_result().unwrap_err().to_string(), "never");
        assert_eq!(sent(one()), None);
        assert!(!one().is_success());
        assert_eq!(sent(Outcomes(vec![message()]).into_outcome().of_one()), Some(1));
        let text = |outcome: Outcomes<()>| {
            outcome.into_outcome().of_one().into_result().unwrap_err().to_string()
        };
        assert_eq!(text(Outcomes(vec![])), "the handler returned 0 outcomes for 1 message");
        assert_eq!(text(Outcomes(vec![(), ()])), "the handler returned 2 outcomes for 1 message");
    }

    #[test]
    fn replies_go_to_the_requester() {
        let reply = |result: crate::Outcome| result.into_result().unwrap().remove(0);
        let text = reply(Reply("pong").into_outcome());
        assert!(text.is_reply() && text.body() == "pong");
        let json = reply(Reply(Json(7)).into_outcome());
        assert_eq!((json.is_reply(), &json.body()[..]), (true, &b"7"[..]));
        let map = std::collections::BTreeMap::from([(vec![1], 2)]);
        let failed = Reply(Json(map)).into_outcome().into_result().unwrap_err();
        assert!(!failed.is_retried(), "a key that is not text: {failed}");
    }
}
