//! The requests that wait for replies: without I/O and clock.
//!
//! A request has a key, which is a part of its correlation id, and leaves the table when its [`Ticket`] is dropped. It is
//! sent on a line: one channel, on which its replies come. What the loss of a line means for it depends on when it was
//! sent. A line counts the transports that its connection has lost, and a request keeps the count at which it was sent.
//! Only replies to requests that were sent at the present count can still come. Until a request is confirmed, its confirm
//! says what has become of it, and this table does not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use amqp_async::Error;

use crate::ids;
use crate::limits::REQUESTS_MAX;
use crate::sync::lock;

/// The requests of one requester. `R` is a reply.
#[derive(Debug)]
pub(super) struct Table<R> {
    /// What the correlation ids of this requester begin with: no other requester has it.
    prefix: String,
    state: Mutex<State<R>>,
}

#[derive(Debug)]
struct State<R> {
    last_key: u64,
    last_line: u64,
    /// In their order, so that a loss wakes those that wait in it.
    entries: BTreeMap<u64, Entry<R>>,
    /// The last loss of each line that requests may still be on.
    losses: BTreeMap<u64, Loss>,
    late: u64,
}

#[derive(Debug)]
struct Entry<R> {
    sent: Option<Sent>,
    is_confirmed: bool,
    /// The number of replies that are still wanted.
    wanted: usize,
    replies: VecDeque<R>,
    /// Why no more replies come.
    end: Option<Error>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    line: u64,
    /// How many transports the connection had lost.
    after: u32,
}

#[derive(Clone, Debug)]
struct Loss {
    /// How many transports are lost, `None` if the line has ended.
    count: Option<u32>,
    error: Error,
}

impl Loss {
    const fn takes(&self, sent: Sent) -> bool {
        match self.count {
            Some(count) => sent.after < count,
            None => true,
        }
    }
}

impl<R> Entry<R> {
    /// Ends it if its replies went with this loss.
    fn is_ended_by(&mut self, line: u64, loss: &Loss) -> bool {
        let sent = self.sent.is_some_and(|sent| sent.line == line && loss.takes(sent));
        let ends = sent && self.is_confirmed && self.end.is_none();
        if ends {
            self.end = Some(loss.error.clone());
        }
        ends
    }
}

impl<R> Table<R> {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            last_key: 0,
            last_line: 0,
            entries: BTreeMap::new(),
            losses: BTreeMap::new(),
            late: 0,
        };
        Arc::new(Self { prefix: ids::unique(), state: Mutex::new(state) })
    }

    /// Enters a request that wants this many replies. `None` if too many requests wait.
    pub(super) fn enter(self: &Arc<Self>, wanted: usize) -> Option<Ticket<R>> {
        let mut state = lock(&self.state);
        if state.entries.len() >= REQUESTS_MAX {
            return None;
        }
        state.last_key += 1;
        let key = state.last_key;
        let entry = Entry {
            sent: None,
            is_confirmed: false,
            wanted,
            replies: VecDeque::new(),
            end: None,
            waker: None,
        };
        state.entries.insert(key, entry);
        Some(Ticket { table: Arc::clone(self), key })
    }

    /// Returns the number of a new line.
    pub(super) fn line(&self) -> u64 {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let entries = &state.entries;
        let is_used =
            |line: u64| entries.values().any(|it| it.sent.is_some_and(|it| it.line == line));
        state.losses.retain(|line, _| is_used(*line));
        state.last_line += 1;
        state.last_line
    }

    /// Gives a reply to its request. Without one, it is late: it is dropped, and counted.
    pub(super) fn deliver(&self, correlation_id: Option<&str>, reply: R) {
        let key = correlation_id.and_then(|id| {
            id.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?.parse::<u64>().ok()
        });
        let mut state = lock(&self.state);
        let entry = key.and_then(|key| state.entries.get_mut(&key));
        let Some(entry) = entry.filter(|entry| entry.wanted > 0) else {
            state.late += 1;
            // Not under the lock: a large body is freed.
            drop(state);
            drop(reply);
            return;
        };
        entry.wanted -= 1;
        entry.replies.push_back(reply);
        let waker = entry.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ends the requests of a line whose replies went with a transport: the connection has lost this many of them.
    pub(super) fn lose(&self, line: u64, count: u32, error: Error) {
        self.end(line, Loss { count: Some(count), error });
    }

    /// Ends all requests of a line.
    pub(super) fn close(&self, line: u64, error: Error) {
        self.end(line, Loss { count: None, error });
    }

    fn end(&self, line: u64, loss: Loss) {
        let mut state = lock(&self.state);
        let mut wakers = Vec::new();
        for entry in state.entries.values_mut() {
            if entry.is_ended_by(line, &loss) {
                wakers.extend(entry.waker.take());
            }
        }
        state.losses.insert(line, loss);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns how many requests wait, and how many replies were late.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = lock(&self.state);
        (state.entries.len(), state.late)
    }
}

/// A request in the table.
#[derive(Debug)]
pub(super) struct Ticket<R> {
    table: Arc<Table<R>>,
    key: u64,
}

impl<R> Ticket<R> {
    /// Returns the correlation id of the request, which no other request has.
    pub(super) fn correlation_id(&self) -> String {
        format!("{}-{}", self.table.prefix, self.key)
    }

    /// The request was put into the output buffer.
    pub(super) fn sent(&self, line: u64, after: u32) {
        self.change(|entry, _| entry.sent = Some(Sent { line, after }));
    }

    /// The request was not written, and is sent again.
    pub(super) fn was_not_sent(&self) {
        self.change(|entry, _| entry.sent = None);
    }

    /// The broker has taken the request.
    pub(super) fn confirmed(&self) {
        self.change(|entry, losses| {
            entry.is_confirmed = true;
            let line = entry.sent.map_or(0, |sent| sent.line);
            // The confirm may be older than the loss, and be seen after it.
            if let Some(loss) = losses.get(&line) {
                entry.is_ended_by(line, loss);
            }
        });
    }

    /// Returns whether the request was sent, and whether it was confirmed.
    pub(super) fn progress(&self) -> (bool, bool) {
        self.change(|entry, _| (entry.sent.is_some(), entry.is_confirmed)).unwrap_or_default()
    }

    /// Takes the next reply. The error says why no more replies come.
    pub(super) fn poll_reply(&self, cx: &mut Context<'_>) -> Poll<Result<R, Error>> {
        let mut replaced = None;
        let polled = self.change(|entry, _| match (entry.replies.pop_front(), &entry.end) {
            (Some(reply), _) => Poll::Ready(Ok(reply)),
            (None, Some(end)) => Poll::Ready(Err(end.clone())),
            (None, None) => {
                if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    replaced = entry.waker.replace(cx.waker().clone());
                }
                Poll::Pending
            }
        });
        // Not under the lock: a waker may drop its task.
        drop(replaced);
        polled.unwrap_or(Poll::Pending)
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Entry<R>, &BTreeMap<u64, Loss>) -> T,
    ) -> Option<T> {
        let mut guard = lock(&self.table.state);
        let state = &mut *guard;
        state.entries.get_mut(&self.key).map(|entry| change(entry, &state.losses))
    }
}

impl<R> Drop for Ticket<R> {
    fn drop(&mut self) {
        let removed = lock(&self.table.state).entries.remove(&self.key);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use amqp_async::{CloseCause, Error};

    use super::{REQUESTS_MAX, Table, Ticket};

    fn poll(ticket: &Ticket<u8>) -> Poll<Result<u8, Error>> {
        ticket.poll_reply(&mut Context::from_waker(Waker::noop()))
    }

    fn lost() -> Error {
        Error::ConnectionLost(CloseCause::Aborted)
    }

    fn is_lost(ticket: &Ticket<u8>) -> bool {
        poll(ticket) == Poll::Ready(Err(lost()))
    }

    #[test]
    fn replies_go_to_their_request_and_others_are_late() {
        let table = Table::new();
        let [first, second] = [1, 2].map(|wanted| table.enter(wanted).unwrap());
        let [one, two] = [first.correlation_id(), second.correlation_id()];
        assert_ne!(one, two);
        table.deliver(Some(&two), 2);
        assert!(poll(&first).is_pending());
        table.deliver(Some(&one), 1);
        table.deliver(Some(&one), 9);
        assert_eq!(table.counts(), (2, 1), "one more than was wanted");
        assert_eq!(poll(&first), Poll::Ready(Ok(1)));
        assert_eq!(poll(&second), Poll::Ready(Ok(2)));
        drop(first);
        let other = Table::<u8>::new().enter(1).unwrap().correlation_id();
        for id in [None, Some(""), Some("1"), Some("-1"), Some(one.as_str()), Some(other.as_str())]
        {
            table.deliver(id, 9);
        }
        assert_eq!(table.counts(), (1, 7));
        table.deliver(Some(&two), 3);
        assert_eq!(poll(&second), Poll::Ready(Ok(3)));
        drop(second);
        assert_eq!(table.counts(), (0, 7));
    }

    #[test]
    fn a_loss_ends_what_was_sent_and_confirmed_before_it() {
        let table = Table::new();
        let [line, other] = [table.line(), table.line()];
        let [before, unconfirmed, after, elsewhere, unsent] =
            [1; 5].map(|it| table.enter(it).unwrap());
        before.sent(line, 2);
        before.confirmed();
        unconfirmed.sent(line, 2);
        after.sent(line, 3);
        after.confirmed();
        elsewhere.sent(other, 0);
        elsewhere.confirmed();
        table.lose(line, 3, lost());
        assert!(is_lost(&before));
        assert!([&unconfirmed, &after, &elsewhere, &unsent].iter().all(|it| poll(it).is_pending()));
        // Its confirm came before the loss, and is seen only after it.
        unconfirmed.confirmed();
        assert!(is_lost(&unconfirmed));
        table.close(line, lost());
        assert!(is_lost(&after));
        assert!(poll(&elsewhere).is_pending() && poll(&unsent).is_pending());
        // Buffered while the line ended.
        unsent.sent(line, 9);
        unsent.confirmed();
        assert!(is_lost(&unsent));
    }

    #[test]
    fn a_reply_that_has_come_counts_more_than_a_loss() {
        let table = Table::new();
        let line = table.line();
        let ticket = table.enter(2).unwrap();
        ticket.sent(line, 0);
        ticket.confirmed();
        table.deliver(Some(&ticket.correlation_id()), 7);
        table.lose(line, 1, lost());
        assert_eq!(poll(&ticket), Poll::Ready(Ok(7)));
        assert!(is_lost(&ticket));
    }

    #[test]
    fn the_number_of_requests_and_of_lines_is_limited() {
        let table = Table::<u8>::new();
        let tickets: Vec<_> = (0..REQUESTS_MAX).map(|_| table.enter(1).unwrap()).collect();
        assert!(table.enter(1).is_none());
        let line = table.line();
        tickets[0].sent(line, 0);
        for _ in 0..100 {
            let line = table.line();
            table.close(line, lost());
        }
        drop(tickets);
        assert!(table.enter(1).is_some());
        table.line();
        assert_eq!(super::lock(&table.state).losses.len(), 0);
    }
}
