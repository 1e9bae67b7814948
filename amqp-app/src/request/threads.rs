//! Requesters on threads: the same methods, which block the calling thread.

use std::time::Duration;

use amqp_blocking::Connector;
use amqp_blocking::runtime::Threads;

use super::{RequestError, Requester, Response};
use crate::message::Message;

impl Requester<Connector> {
    /// Sends a request, and waits for its reply, for this time at most.
    ///
    /// # Errors
    /// [`RequestError`]. A request that reaches no queue fails at once, unless it is [optional](Message::optional).
    pub fn request(&self, request: Message, within: Duration) -> Result<Response, RequestError> {
        Threads.block_on(self.inner.one(request, within))
    }

    /// Sends a request to several responders, such as those behind a fanout exchange, and waits for this many replies, for
    /// this time at most. Returns the replies that have come by then, which may be fewer, or none.
    ///
    /// A loss of the connection, or a reply that cannot be read, ends the wait too: it returns the replies that came before,
    /// and an error if there are none.
    ///
    /// # Errors
    /// [`RequestError`], if no reply has come. A deadline that has passed is an error only if the broker has not confirmed
    /// the request: otherwise the list is empty.
    pub fn request_many(
        &self,
        request: Message,
        replies: usize,
        within: Duration,
    ) -> Result<Vec<Response>, RequestError> {
        Threads.block_on(self.inner.many(request, replies, within))
    }
}
