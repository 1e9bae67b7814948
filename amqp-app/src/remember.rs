//! The outcomes whose acknowledgement was lost: a handler has succeeded, and its connection was lost before the ack. The broker
//! delivers the message again. It is recognised by its queue, its id and its body, and what the handler returned is sent again
//! without calling it. In the ordinary case nothing is kept.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use crate::limits::{REMEMBERED_BYTES, REMEMBERED_MAX, REMEMBERED_TIME};
use crate::message::Message;

/// What a message is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    id: String,
    body: u64,
}

impl Mark {
    pub(crate) fn new(id: &str, body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        Self { id: id.to_owned(), body: hasher.finish() }
    }
}

/// Outcomes of one queue, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    outcomes: VecDeque<Outcome>,
    bytes: usize,
}

#[derive(Debug)]
struct Outcome {
    at: Instant,
    mark: Mark,
    kept: Kept,
    bytes: usize,
}

/// What is known of a message that comes again.
#[derive(Debug, PartialEq)]
pub(crate) enum Kept {
    /// What its handler has caused, which is sent again.
    Sent(Vec<amqp_async::Message>),
    /// Why the broker has refused its transaction, and what is sent instead.
    Refused(String, Vec<Message>),
    /// The broker has refused the transaction of its batch. It is handled alone, to find out which message is refused.
    Alone,
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Sent(sent) => sent.iter().map(|message| message.body.len()).sum(),
            Self::Refused(error, instead) => {
                error.len() + instead.iter().map(|message| message.body().len()).sum::<usize>()
            }
            Self::Alone => 0,
        }
    }
}

impl Remembered {
    pub(crate) fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    pub(crate) fn knows(&self, mark: &Mark) -> bool {
        self.outcomes.iter().any(|it| it.mark == *mark)
    }

    pub(crate) fn keep(&mut self, now: Instant, mark: Mark, kept: Kept) {
        let bytes = mark.id.len() + kept.bytes();
        self.bytes += bytes;
        self.outcomes.push_back(Outcome { at: now, mark, kept, bytes });
        while self.outcomes.len() > REMEMBERED_MAX || self.bytes > REMEMBERED_BYTES {
            self.forget_first();
        }
    }

    /// Takes what is known of a message, if its outcome is remembered.
    pub(crate) fn take(&mut self, now: Instant, mark: &Mark) -> Option<Kept> {
        while self.outcomes.front().is_some_and(|it| now - it.at > REMEMBERED_TIME) {
            self.forget_first();
        }
        let index = self.outcomes.iter().position(|it| it.mark == *mark)?;
        let outcome = self.outcomes.remove(index)?;
        self.bytes -= outcome.bytes;
        Some(outcome.kept)
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.outcomes.pop_front() {
            self.bytes -= first.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use amqp_async::Message;

    use super::{Kept, Mark, Remembered};
    use crate::limits::{REMEMBERED_BYTES, REMEMBERED_MAX, REMEMBERED_TIME};

    #[test]
    fn an_outcome_is_recognised_once_by_id_and_body() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        remembered.keep(now, Mark::new("m", b"body"), Kept::Sent(vec![Message::new("reply")]));
        assert_eq!(remembered.take(now, &Mark::new("m", b"another body")), None);
        assert_eq!(remembered.take(now, &Mark::new("n", b"body")), None);
        assert!(remembered.knows(&Mark::new("m", b"body")));
        assert!(!remembered.knows(&Mark::new("m", b"another body")));
        let kept = remembered.take(now, &Mark::new("m", b"body"));
        assert_eq!(kept, Some(Kept::Sent(vec![Message::new("reply")])));
        assert!(remembered.is_empty() && remembered.bytes == 0);
        assert_eq!(remembered.take(now, &Mark::new("m", b"body")), None);
    }

    #[test]
    fn outcomes_are_forgotten_by_age_number_and_size() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let mark = |number: usize| Mark::new(&number.to_string(), b"");
        for number in 0..=REMEMBERED_MAX {
            remembered.keep(now, mark(number), Kept::Sent(Vec::new()));
        }
        assert_eq!(remembered.take(now, &mark(0)), None, "one too many");
        assert!(remembered.take(now, &mark(1)).is_some());
        let late = now + REMEMBERED_TIME + Duration::from_secs(1);
        assert_eq!(remembered.take(late, &mark(2)), None);
        assert!(remembered.is_empty() && remembered.bytes == 0);

        let large = || Kept::Sent(vec![Message::new(vec![0; REMEMBERED_BYTES / 2])]);
        remembered.keep(now, mark(1), large());
        remembered.keep(now, mark(2), large());
        assert_eq!(remembered.take(now, &mark(1)), None);
        assert!(remembered.take(now, &mark(2)).is_some());
    }
}
