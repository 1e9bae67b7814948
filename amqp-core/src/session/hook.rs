//! The set-up hook: code of the application that runs on each new connection, before anything else may use it.
//!
//! The driver runs it, outside of any lock. It uses channels of its own (see `Origin` in `channel/mod.rs`). On the first
//! connection, a hook that fails is a failed attempt to connect; later it is a failed attempt to recover.

use std::io::ErrorKind;
use std::time::Instant;

use crate::error::{CloseCause, ConnectFailure, ConnectStep, TransportError};
use crate::event::{Action, Event, TimeoutReason};
use crate::ids::Attempt;
use crate::session::{Phase, PhaseInput, Session};

impl Session {
    /// Reports that the hook of [`Action::RunHook`] is done.
    pub fn handle_hook_done(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<(), TransportError>,
    ) {
        if attempt != self.attempt || self.phase != Phase::SettingUp || !self.connection.is_open() {
            return;
        }
        self.timers.set(TimeoutReason::Hook, None);
        match result {
            Err(error) => self.hook_failed(now, error),
            Ok(()) if self.opened => {
                self.attach(now);
                self.continue_restore(now);
            }
            Ok(()) => self.now_open(),
        }
    }

    /// Has the driver run the hook.
    pub(super) fn run_hook(&mut self, now: Instant) {
        self.step(PhaseInput::SetUp);
        self.timers.set(TimeoutReason::Hook, Some(now + self.config.hook_timeout));
        self.actions.push_back(Action::RunHook { attempt: self.attempt });
    }

    /// The first connection is open, and set up.
    pub(super) fn now_open(&mut self) {
        self.step(PhaseInput::Opened);
        self.opened = true;
        self.connection.events.push_back(Event::Opened);
    }

    pub(super) fn hook_timed_out(&mut self, now: Instant) {
        if self.phase == Phase::SettingUp && self.connection.is_open() {
            let text = format!("no result within {} s", self.config.hook_timeout.as_secs_f32());
            self.hook_failed(now, TransportError::new(ErrorKind::TimedOut, text.as_str()));
        }
    }

    /// The transport of the first connection has ended before the hook was done. The attempt to connect has failed,
    /// unless the hook has closed the connection.
    pub(super) fn set_up_lost(&mut self, now: Instant, cause: CloseCause) {
        let step = ConnectStep::Hook;
        let failure = match &cause {
            CloseCause::ByClient | CloseCause::ByClientForced => return self.end(cause),
            CloseCause::ByBroker(error) => ConnectFailure::Closed(error.clone()),
            CloseCause::Protocol(error) => ConnectFailure::Protocol(error.clone()),
            CloseCause::Transport(error) => ConnectFailure::Lost { step, error: error.clone() },
            cause => {
                let error = TransportError::new(ErrorKind::TimedOut, cause.to_string().as_str());
                ConnectFailure::Lost { step, error }
            }
        };
        self.set_up_failed(now, &cause, failure);
    }

    fn hook_failed(&mut self, now: Instant, error: TransportError) {
        if self.opened {
            return self.restore_failed(now, &error);
        }
        self.connection.leave("set-up failed");
        self.set_up_failed(now, &CloseCause::ByClient, ConnectFailure::Hook(error));
    }

    /// Closes the channels of the hook, and continues with the next address.
    fn set_up_failed(&mut self, now: Instant, cause: &CloseCause, failure: ConnectFailure) {
        self.timers.set(TimeoutReason::Hook, None);
        self.connection.close_records(cause);
        self.attempt_failed(now, failure);
    }
}
