//! Declares the recorded topology again, on a channel of the session.
//!
//! The declarations are pipelined: a bounded number of them is in flight. The broker answers the requests of a channel
//! in their order. So the order of the declarations holds, and it costs a few round trips, not one for each. The broker
//! sends each reply by itself, and a write after each of them would cost more than reading it. So the next declarations
//! are sent when half of those in flight are answered.
//!
//! If the broker refuses a declaration, it closes the channel, and ignores what was sent behind. The refused one is the
//! oldest without a reply. It is reported, and the rest is sent again on another channel. A refusal that may pass is not
//! reported while the session waits (see `connection/held.rs`): everything is declared again a moment later. When the
//! broker lets go of what the old connection has held, it deletes what that alone has used: auto-delete queues and
//! exchanges too, which it had confirmed to this connection before.
//!
//! The bindings of a queue whose name the broker chooses wait for that name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::config::Recovery;
use crate::connection::Connection;
use crate::error::{ChannelCause, Error};
use crate::ids::{CallKey, ChannelId};
use crate::limits::REPLAY_CALLS_MAX;
use crate::request::{QueueDelete, Reply};
use crate::topology::{FailedEntity, Stage, Step};

#[derive(Debug)]
pub(super) struct Replay {
    /// The declarations to be sent.
    next: VecDeque<Step>,
    /// Those without a reply, in the order in which they were sent.
    sent: VecDeque<Sent>,
    channel: Option<ChannelId>,
    /// The number of queues in flight whose name the broker chooses.
    nameless: usize,
    /// Those of them that have a name. They belong to this connection, and stay.
    named: BTreeSet<Step>,
    pub(super) renamed: BTreeMap<String, String>,
    pub(super) failed: Vec<FailedEntity>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    call: CallKey,
    step: Step,
    /// Whether it declares a queue whose name the broker chooses.
    nameless: bool,
}

/// How far a replay is.
#[derive(Debug)]
pub(super) enum Progress {
    /// Replies are awaited.
    Awaiting,
    /// The broker holds something back. To [begin again](Replay::begin_again) a moment later.
    Held,
    Done,
    /// The broker does not reply, or has no channel for it.
    Failed(Error),
}

impl Replay {
    pub(super) fn new(connection: &Connection, recovery: &Recovery) -> Self {
        Self {
            next: connection.topology.steps(recovery).into(),
            sent: VecDeque::new(),
            channel: None,
            nameless: 0,
            named: BTreeSet::new(),
            renamed: BTreeMap::new(),
            failed: Vec::new(),
        }
    }

    /// Begins anew, because the broker may have deleted what it had confirmed.
    pub(super) fn begin_again(&mut self, connection: &Connection, recovery: &Recovery) {
        let steps = connection.topology.steps(recovery).into_iter();
        self.next = steps.filter(|step| !self.named.contains(step)).collect();
        self.failed.clear();
    }

    /// Takes the replies that have arrived, and sends more.
    pub(super) fn advance(&mut self, now: Instant, connection: &mut Connection) -> Progress {
        while let Some(reply) = connection.take_for_session() {
            if let Err(error @ Error::Deadline { .. }) = reply.result {
                return Progress::Failed(error);
            }
            // The replies to what was sent behind a refused declaration mean nothing.
            let Some(Sent { call, step, nameless }) = self.sent.front().copied() else { continue };
            if call != reply.call {
                continue;
            }
            self.sent.pop_front();
            let refused = match reply.result {
                Ok(reply) => {
                    if nameless {
                        self.named(now, connection, step, &reply);
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.channel = None;
            self.nameless = 0;
            for sent in std::mem::take(&mut self.sent).into_iter().rev() {
                self.next.push_front(sent.step);
            }
            if let Error::Channel(ChannelCause::ByBroker(error)) = &refused
                && connection.held.waits_for(error, now)
            {
                return Progress::Held;
            }
            self.failed(connection, step, refused);
        }
        self.send(now, connection)
    }

    fn send(&mut self, now: Instant, connection: &mut Connection) -> Progress {
        let sends = self.sent.len() <= REPLAY_CALLS_MAX / 2;
        while sends
            && self.sent.len() < REPLAY_CALLS_MAX
            && let Some(step) = self.next.front().copied()
        {
            if step.stage == Stage::QueueBindings && self.nameless > 0 {
                break;
            }
            self.next.pop_front();
            let topology = std::mem::take(&mut connection.topology);
            let sent = topology.declaration(step).map(|declaration| {
                let channel = match self.channel {
                    Some(channel) => Some(channel),
                    None => connection.open_for_session(now),
                };
                self.channel = channel;
                let nameless = declaration.former_name().is_some();
                let call =
                    channel.map(|id| connection.call_for_session(now, id, declaration.request()));
                (nameless, call)
            });
            connection.topology = topology;
            match sent {
                // It was deleted meanwhile.
                None => {}
                Some((_, None)) => return Progress::Failed(connection.no_channel()),
                Some((nameless, Some(Ok(call)))) => {
                    self.nameless += usize::from(nameless);
                    self.sent.push_back(Sent { call, step, nameless });
                }
                Some((_, Some(Err(error)))) => self.failed(connection, step, error),
            }
        }
        if !self.sent.is_empty() {
            return Progress::Awaiting;
        }
        let Some(channel) = self.channel else { return Progress::Done };
        // Its number may be needed.
        match connection.close_for_session(now, channel) {
            true => Progress::Done,
            false => Progress::Awaiting,
        }
    }

    /// The broker has declared a queue, and chosen its name.
    fn named(&mut self, now: Instant, connection: &mut Connection, step: Step, reply: &Reply) {
        self.nameless -= 1;
        self.named.insert(step);
        let Reply::Queue(ok) = reply else { return };
        let former = connection.topology.declaration(step).and_then(|it| it.former_name());
        match (former.map(str::to_owned), self.channel) {
            (Some(former), _) => {
                connection.topology.rename(&former, &ok.queue);
                self.renamed.insert(former, ok.queue.clone());
            }
            // The application has deleted it meanwhile, by the name that it had.
            (None, Some(channel)) => {
                let delete = QueueDelete::new(ok.queue.as_str());
                // The name is one that the broker has sent.
                let _ = connection.call_for_session(now, channel, &delete);
            }
            (None, None) => {}
        }
    }

    fn failed(&mut self, connection: &Connection, step: Step, error: Error) {
        if let Some(declaration) = connection.topology.declaration(step) {
            self.failed.push(FailedEntity { entity: declaration.entity(), error });
        }
    }
}
