//! The hook of the application. It declares a queue on each new connection, on a channel of its own, before anything else
//! uses the connection. At times it fails, or has no result.

use std::collections::BTreeSet;

use amqp_core::errors::TransportError;
use amqp_core::{Attempt, Call, CallKey, ChannelId, QueueDeclare, QueueDeclareOk};

use super::{Application, Context};

/// The queue that it declares. Nothing else uses it.
const QUEUE: &str = "q-hook";

#[derive(Debug, Default)]
pub(super) struct Hook {
    running: Option<Running>,
    /// The present connection is set up.
    pub(super) is_done: bool,
    /// The channels of all runs.
    pub(super) channels: BTreeSet<ChannelId>,
    /// The calls of runs that have ended.
    given_up: BTreeSet<CallKey>,
}

/// A run for the transport of this attempt.
#[derive(Debug)]
struct Running {
    attempt: Attempt,
    calls: Option<(ChannelId, Call<()>, Call<QueueDeclareOk>)>,
}

impl Application {
    /// The session asks for a run.
    pub(in crate::sim) fn run_hook(&mut self, attempt: Attempt) {
        self.stop_hook();
        self.hook.is_done = false;
        self.hook.running = Some(Running { attempt, calls: None });
    }

    /// The run is dropped: its transport is lost, or it is not wanted any more.
    pub(in crate::sim) fn stop_hook(&mut self) {
        let stopped = self.hook.running.take().and_then(|running| running.calls);
        if let Some((_, open, declare)) = stopped {
            self.hook.given_up.extend([open.key(), declare.key()]);
        }
    }

    /// The run makes its calls, or fails.
    pub(in crate::sim) fn set_up(&mut self, cx: &mut Context<'_>, attempt: Attempt, fails: bool) {
        let Some(running) = self.hook.running.take_if(|it| it.attempt == attempt) else { return };
        if fails || !cx.session.is_connected(attempt) {
            let error = TransportError::new(std::io::ErrorKind::Other, "the hook fails");
            return cx.session.handle_hook_done(cx.now, attempt, Err(error));
        }
        assert!(!cx.session.is_open(), "open before it is set up");
        let opened = cx.session.open_setup_channel(cx.now, attempt);
        let (id, open) = opened.expect("a channel for the hook");
        let declare = cx.session.channel(id).call(cx.now, &QueueDeclare::new(QUEUE));
        let calls = Some((id, open, declare.expect("a call of the hook")));
        self.hook.channels.insert(id);
        self.hook.running = Some(Running { calls, ..running });
        self.called += 2;
    }

    /// A call has its result. Returns whether it was one of the hook's.
    pub(super) fn hook_answered(&mut self, key: CallKey, cx: &mut Context<'_>) -> bool {
        if self.hook.given_up.remove(&key) {
            cx.session.forget(cx.now, key);
            return true;
        }
        let Some(Running { attempt, calls: Some((id, open, declare)) }) = &self.hook.running else {
            return false;
        };
        let (attempt, id) = (*attempt, *id);
        if key == open.key() {
            let opened = cx.session.take_reply(open).expect("I3: the reply of a call that is done");
            if opened.is_err() {
                self.hook.given_up.insert(declare.key());
                self.hook.running = None;
            }
            return true;
        }
        if key != declare.key() {
            return false;
        }
        let declared = cx.session.take_reply(declare);
        self.hook.running = None;
        if let Ok(ok) = declared.expect("I3: the reply of a call that is done") {
            assert_eq!(ok.queue, QUEUE, "H1: the reply to another declare");
            self.called += 1;
            cx.session.channel(id).release(cx.now);
            self.hook.is_done = true;
            cx.session.handle_hook_done(cx.now, attempt, Ok(()));
        }
        true
    }
}
