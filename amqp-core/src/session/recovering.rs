//! Recovery: what happens when the transport of an open session is lost.
//!
//! The session waits, connects again to one of its hosts, and restores what the application had: first the topology,
//! then what the hook sets up, then the channels with their consumers. Then it opens the gates, and what has waited is
//! sent. The order is that of RabbitMQ's own clients (<https://www.rabbitmq.com/client-libraries/java-api-guide#recovery>).
//!
//! Nothing of an attempt survives its transport. If that is lost at any point of recovery, everything begins anew. The
//! delays between attempts grow until the gates have opened once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Until;
use crate::error::{CloseCause, ConnectError, Error, TransportError};
use crate::event::{Action, Event, RecoveryReport, RenamedQueue, Retrying, TimeoutReason};
use crate::ids::Attempt;
use crate::limits::{HELD_RETRY_DELAY, NODE_DOWN_PATIENCE, RESTORE_PATIENCE_MIN};
use crate::session::replay::{Progress, Replay};
use crate::session::{Phase, PhaseInput, Session};
use crate::timers::Timers;

impl Session {
    /// Reports the decision of [`Action::DecideRecovery`]: whether the session recovers, or ends with the cause of the
    /// loss. A report about another attempt changes nothing.
    pub fn handle_decision(&mut self, now: Instant, attempt: Attempt, recovers: bool) {
        if attempt != self.attempt || self.phase != Phase::Waiting {
            return;
        }
        let Some(cause) = self.undecided.take() else { return };
        match recovers.then(|| self.retries.next(now)).flatten() {
            Some(at) => self.wait_until(now, at, cause),
            None => self.end(cause),
        }
    }

    /// The connection has ended for this cause. Recovers it if the policy says so.
    pub(super) fn lost(&mut self, now: Instant, cause: CloseCause) {
        if !self.opened {
            return self.set_up_lost(now, cause);
        }
        if !self.connection.recovers || !self.config.recovery.recovers_from(&cause) {
            return self.end(cause);
        }
        self.step(PhaseInput::Lost);
        self.lost = Some(self.attempt);
        self.timers = Timers::default();
        self.stop_renewal();
        self.stop_asking();
        self.apply_renames();
        self.replay = None;
        self.connection.events.push_back(Event::Lost(Box::new(cause.clone())));
        self.connection.detach(&cause);
        match self.config.asks_to_recover {
            true => self.ask_to_recover(cause),
            false => self.retry_later(now, cause),
        }
    }

    /// Has the driver decide whether to recover from this loss.
    fn ask_to_recover(&mut self, cause: CloseCause) {
        self.leave_transport();
        let (attempt, lost) = (self.attempt, Box::new(cause.clone()));
        self.undecided = Some(cause);
        self.actions.push_back(Action::DecideRecovery { attempt, cause: lost });
    }

    /// An attempt to recover the connection has failed: none of the hosts could be reached.
    pub(super) fn pass_failed(&mut self, now: Instant) {
        self.step(PhaseInput::NextCycle);
        self.timers = Timers::default();
        let attempts = self.endpoints.failures();
        self.retry_later(now, CloseCause::Connect(Arc::new(ConnectError::Failed { attempts })));
    }

    /// Waits for the next attempt, or ends with `cause` if there is none.
    fn retry_later(&mut self, now: Instant, cause: CloseCause) {
        let Some(at) = self.retries.next(now) else { return self.end(cause) };
        self.leave_transport();
        self.wait_until(now, at, cause);
    }

    /// Has the driver write the last bytes of the transport. What it reports of this attempt is ignored from here on.
    fn leave_transport(&mut self) {
        self.actions.push_back(Action::Disconnect { attempt: self.attempt });
        self.next_attempt();
    }

    fn wait_until(&mut self, now: Instant, at: Instant, cause: CloseCause) {
        self.timers.set(TimeoutReason::Retry, Some(at));
        let attempt = self.retries.attempt();
        let retrying = Retrying { attempt, delay: at.saturating_duration_since(now), cause };
        self.connection.events.push_back(Event::Retrying(Box::new(retrying)));
    }

    /// The connection is open again: restores what the application had.
    pub(super) fn restore(&mut self, now: Instant) {
        self.step(PhaseInput::Reopened);
        let heartbeat = Duration::from_secs(self.connection.tuning().heartbeat.into()) * 3;
        let noticed = now + heartbeat.max(RESTORE_PATIENCE_MIN);
        self.connection.held.wait_until(Until { noticed, started: now + NODE_DOWN_PATIENCE });
        self.replay = Some(Replay::new(&self.connection, &self.config.recovery));
        self.continue_restore(now);
    }

    /// Goes on with restoring, as far as the broker has replied.
    pub(super) fn continue_restore(&mut self, now: Instant) {
        if !self.connection.is_open() {
            return;
        }
        if self.phase == Phase::Replaying && !self.timers.is_set(TimeoutReason::Held) {
            self.continue_replay(now);
        }
        match self.phase {
            Phase::Attaching => self.continue_attach(now),
            Phase::Open if self.resubscribes => self.continue_resubscribing(now),
            _ => {}
        }
    }

    fn continue_replay(&mut self, now: Instant) {
        let Some(replay) = &mut self.replay else { return };
        match replay.advance(now, &mut self.connection) {
            Progress::Awaiting => {}
            Progress::Held => self.timers.set(TimeoutReason::Held, Some(now + HELD_RETRY_DELAY)),
            Progress::Failed(error) => self.restore_failed(now, &error),
            Progress::Done => {
                self.apply_renames();
                match self.config.runs_hook {
                    true => self.run_hook(now),
                    false => self.attach(now),
                }
            }
        }
    }

    /// Gives consumers and channels the queue names that the broker has chosen, and reports them. They are renamed in the
    /// topology already, so they are not to be lost with the transport.
    fn apply_renames(&mut self) {
        let Some(replay) = &mut self.replay else { return };
        let renamed = std::mem::take(&mut replay.renamed);
        self.connection.rename_queues(&renamed);
        for (from, to) in &renamed {
            let (from, to) = (from.as_str().into(), to.as_str().into());
            let renamed = Event::QueueRenamed(Box::new(RenamedQueue { from, to }));
            self.connection.events.push_back(renamed);
        }
    }

    /// Restores the channels.
    pub(super) fn attach(&mut self, now: Instant) {
        self.step(PhaseInput::Replayed);
        self.connection.attach_all(now);
    }

    fn continue_attach(&mut self, now: Instant) {
        while let Some(reply) = self.connection.take_for_session() {
            if let Err(error @ Error::Deadline { .. }) = reply.result {
                return self.restore_failed(now, &error);
            }
        }
        self.connection.attach_more(now);
        if !self.connection.is_attached() {
            if !self.connection.held.is_empty() && !self.timers.is_set(TimeoutReason::Held) {
                self.timers.set(TimeoutReason::Held, Some(now + HELD_RETRY_DELAY));
            }
            return;
        }
        if !self.connection.resend() {
            return;
        }
        self.step(PhaseInput::Attached);
        self.retries.reset();
        self.connection.open_gates(now);
        self.continue_resubscribing(now);
        self.ask_later(now);
        let failed = self.replay.take().map_or_else(Vec::new, |replay| replay.failed);
        let report = RecoveryReport { failed };
        self.connection.events.push_back(Event::Recovered(Box::new(report)));
    }

    /// The delay has passed after which the broker is asked again for what it holds back.
    pub(super) fn held_due(&mut self, now: Instant) {
        match &mut self.replay {
            Some(replay) if self.phase == Phase::Replaying => {
                replay.begin_again(&self.connection, &self.config.recovery);
            }
            _ => self.connection.attach_held(now),
        }
        self.continue_restore(now);
    }

    /// The broker does not do what it is asked, or the application could not set the connection up. Tries again on
    /// another transport.
    pub(super) fn restore_failed(&mut self, now: Instant, error: &dyn std::error::Error) {
        let text = format!("not restored: {error}");
        let error = TransportError::new(std::io::ErrorKind::Other, text.as_str());
        self.connection.abort(CloseCause::Transport(error));
        self.connection.leave("not restored");
        self.react(now);
    }
}
