//! Consumers that the broker has cancelled, and that start again when their queue is back, if the policy says so.
//!
//! A consumer of a queue that does not exist would close its channel. So the session asks for the queue first, on a
//! channel of its own (`queue.declare` with `passive`). The delays between questions grow like those of recovery.

use std::time::Instant;

use crate::event::TimeoutReason;
use crate::ids::{CallKey, ChannelId, ConsumerKey};
use crate::request::QueueDeclare;
use crate::session::backoff::Retries;
use crate::session::{Phase, Session};

#[derive(Debug)]
pub(super) struct Resubscribing {
    /// The consumers whose queue is gone.
    absent: Vec<ConsumerKey>,
    /// The questions without an answer, each with its channel.
    asked: Vec<(CallKey, ChannelId, ConsumerKey)>,
    retries: Retries,
}

impl Resubscribing {
    pub(super) const fn new(retries: Retries) -> Self {
        // A consumer that waits must not stop to ask.
        Self { absent: Vec::new(), asked: Vec::new(), retries: retries.unlimited() }
    }
}

impl Session {
    /// Takes the consumers that the broker has cancelled, and the answers about their queues.
    pub(super) fn continue_resubscribing(&mut self, now: Instant) {
        let absent = self.connection.take_absent();
        if !absent.is_empty() {
            self.resubscribing.absent.extend(absent);
            self.ask_later(now);
        }
        while let Some(reply) = self.connection.take_for_session() {
            let asked = &mut self.resubscribing.asked;
            let Some(at) = asked.iter().position(|(call, ..)| *call == reply.call) else {
                continue;
            };
            let (_, channel, consumer) = asked.swap_remove(at);
            // If it is refused, the broker has closed the channel.
            self.connection.close_for_session(now, channel);
            if reply.result.is_ok() {
                self.resubscribing.retries.reset();
                self.connection.resume_consumer(now, consumer);
            } else {
                self.resubscribing.absent.push(consumer);
                self.ask_later(now);
            }
        }
    }

    /// The delay has passed after which the broker is asked for the queues again.
    pub(super) fn ask_for_queues(&mut self, now: Instant) {
        if self.phase != Phase::Open || !self.connection.is_open() {
            return;
        }
        for consumer in std::mem::take(&mut self.resubscribing.absent) {
            let Some(queue) = self.connection.queue_of_absent(consumer) else { continue };
            let passive = QueueDeclare::passive(&*queue);
            let channel = self.connection.open_for_session(now);
            let asked = channel.and_then(|id| {
                Some((self.connection.call_for_session(now, id, &passive).ok()?, id))
            });
            match asked {
                Some((call, channel)) => self.resubscribing.asked.push((call, channel, consumer)),
                None => {
                    self.resubscribing.absent.push(consumer);
                    self.ask_later(now);
                }
            }
        }
    }

    /// The questions of a lost transport get no answer.
    pub(super) fn stop_asking(&mut self) {
        let Resubscribing { absent, asked, .. } = &mut self.resubscribing;
        absent.extend(asked.drain(..).map(|(.., consumer)| consumer));
    }

    /// Asks for the queues that are missed a moment later.
    pub(super) fn ask_later(&mut self, now: Instant) {
        if !self.resubscribing.absent.is_empty() && !self.timers.is_set(TimeoutReason::Resubscribe)
        {
            let at = self.resubscribing.retries.next(now);
            self.timers.set(TimeoutReason::Resubscribe, at);
        }
    }
}
