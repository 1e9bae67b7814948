//! A line: the channel on which requests are published and their replies come. Direct replies go to the channel that asked,
//! so its consumer starts before the first request.

use std::pin::pin;
use std::sync::Arc;

use amqp_async::{
    BasicConsume, CloseCause, Connection, ConnectionEvent, Consumer, Delivery, Error, Events,
    Fault, Publisher,
};

use super::response::Response;
use super::table::Table;
use crate::runner::Runner;
use crate::sync::{Either, Level, race};

/// The pseudo-queue of direct replies (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What comes for a request.
pub(super) type Reply = Result<Response, Fault>;

/// An open line. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) connection: Connection,
    pub(super) publisher: Publisher,
    /// Raised when no more replies come.
    ended: Level,
}

impl Line {
    /// Opens a channel, and starts a task that passes each reply to its request, until `stop` is raised.
    pub(super) async fn open(
        connection: Connection,
        table: &Arc<Table<Reply>>,
        stop: &Level,
        runner: &Runner,
    ) -> Result<Self, Error> {
        let events = connection.events();
        let replies = connection.consume(BasicConsume::new(REPLY_TO).no_ack()).await?;
        let publisher = replies.channel().confirm_select().await?;
        let line = Self { number: table.line(), connection, publisher, ended: Level::default() };
        let reader = Reader {
            number: line.number,
            table: Arc::clone(table),
            ended: line.ended.clone(),
            error: Some(Error::Connection(CloseCause::DriverGone)),
        };
        runner.spawn(reader.run(replies, events, stop.clone()));
        Ok(line)
    }

    /// Returns whether requests can be sent on it, perhaps after a recovery of the connection.
    pub(super) fn is_usable(&self) -> bool {
        self.ended.get() == 0 && self.publisher.channel().close_cause().is_none()
    }
}

/// Reads the replies of a line. When it is dropped, the line has ended.
struct Reader {
    number: u64,
    table: Arc<Table<Reply>>,
    ended: Level,
    /// Why the line has ended: at first, because the runtime has dropped the task.
    error: Option<Error>,
}

impl Reader {
    async fn run(mut self, mut replies: Consumer, mut events: Events, stop: Level) {
        loop {
            let next = {
                let (mut reply, mut event) = (replies.next(), events.next());
                let mut next = pin!(race(&mut reply, &mut event));
                match race(&mut next, &mut stop.reached(1)).await {
                    Either::First(next) => next,
                    Either::Second(()) => return,
                }
            };
            match next {
                Either::First(Some(Ok(reply))) => self.deliver(&reply),
                Either::First(Some(Err(error))) => return self.error = Some(error),
                Either::First(None) => {
                    return self.error = Some(Error::Connection(CloseCause::ByClient));
                }
                Either::Second(Some(ConnectionEvent::Lost(cause))) => {
                    // What had arrived before the loss comes first.
                    while let Ok(reply) = replies.try_recv() {
                        self.deliver(&reply);
                    }
                    let lost = replies.channel().connection().losses();
                    self.table.lose(self.number, lost, Error::ConnectionLost(cause));
                }
                // The consumer returns the reason for the end.
                Either::Second(_) => {}
            }
        }
    }

    fn deliver(&self, delivery: &Delivery) {
        let properties = delivery.properties();
        // It can be read although others are malformed.
        let known = delivery.message().properties_ref().ok().and_then(|it| it.correlation_id);
        let id = known.and_then(|id| id.as_str().ok());
        let reply = match (delivery.fault(), properties) {
            (Some(fault), _) => Err(fault),
            (None, Ok(properties)) => Ok(Response::new(delivery.message().clone(), properties)),
            (None, Err(malformed)) => Err(Fault::Malformed(malformed)),
        };
        self.table.deliver(id, reply);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ended.raise(1);
        if let Some(error) = self.error.take() {
            self.table.close(self.number, error);
        }
    }
}
