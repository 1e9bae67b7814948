//! What the application makes of events.

use amqp_core::types::TopologyEntity;
use amqp_core::{ChannelId, CloseCause, Event};

use super::{Application, Context, Handle, Mode};
use crate::sim::invariants as check;

impl Application {
    /// Reads the events. Returns why the session has ended, if it has.
    pub(in crate::sim) fn listen(&mut self, cx: &mut Context<'_>) -> Option<CloseCause> {
        let mut ended = None;
        while let Some(event) = cx.session.poll_event() {
            cx.trace.line(|| format!("  {event:?}"));
            assert!(ended.is_none(), "I11: {event:?} after the end");
            match event {
                Event::CallDone(key) => {
                    if !self.hook_answered(key, cx) {
                        self.answered(key, cx);
                    }
                }
                Event::Resolved { channel, first, last } => {
                    for outcome in &mut self.handle(channel).outcomes {
                        outcome.resolved |= (first..=last).contains(&outcome.seq);
                    }
                }
                Event::Deliverable(key) => {
                    let readers = self.channels.iter_mut().flat_map(|it| &mut it.readers);
                    readers.filter(|it| it.key == key).for_each(|it| it.flagged = true);
                }
                Event::ChannelClosed { channel, .. } | Event::ChannelClosing(channel)
                    if self.hook.channels.contains(&channel) => {}
                Event::ChannelClosed { channel, .. } => self.channel_closed(channel, cx),
                Event::ChannelClosing(channel) => {
                    assert!(!self.handle(channel).closed, "I3: {channel:?} closes after its end");
                }
                Event::BufferSpace => self.channels.iter_mut().for_each(|it| it.full = false),
                Event::Returned(channel) => {
                    let id = self.handle(channel).id;
                    while cx.session.channel(id).take_returned().is_some() {}
                }
                Event::Opened => {
                    cx.totals.opened += 1;
                    check::i12_the_hook_is_done(cx.swarm.policy, self.hook.is_done);
                }
                Event::Lost(cause) => {
                    self.stop_hook();
                    check::j3_a_connection_is_lost_for_a_reason(&cause, cx.disturbed);
                    check::j3_the_policy_recovers(cx.swarm.policy, &cause);
                    self.lost(cx);
                }
                Event::Retrying(retrying) => {
                    check::j5_attempts_keep_to_the_policy(&retrying, cx.swarm.policy);
                    check::i12_a_recovery_follows_a_loss(self.recovering);
                }
                Event::Recovered(report) => {
                    check::i12_a_recovery_follows_a_loss(std::mem::take(&mut self.recovering));
                    check::i12_the_hook_is_done(cx.swarm.policy, self.hook.is_done);
                    cx.totals.recoveries += 1;
                    cx.totals.lost_entities += report.failed.len() as u64;
                    for failed in &report.failed {
                        check::j3_a_restore_fails_for_a_reason(&failed.error);
                        if let TopologyEntity::Queue { name } = &failed.entity {
                            self.named.retain(|named| named != name);
                        }
                    }
                    self.mirror.recovered(&report.failed);
                }
                Event::QueueRenamed(renamed) => self.renamed(&renamed.from, &renamed.to),
                Event::ConsumerLost(lost) => {
                    check::j3_a_restore_fails_for_a_reason(&lost.error);
                    cx.totals.lost_consumers += 1;
                }
                Event::AttemptFailed(_) => cx.totals.failed_attempts += 1,
                Event::Closed(cause) => {
                    let lost = !self.closed && !matches!(cause, CloseCause::Connect(_));
                    cx.totals.losses += u64::from(lost && !self.recovering);
                    self.stop_hook();
                    ended = Some(cause);
                }
                Event::Blocked(_)
                | Event::Unblocked
                | Event::ConsumerCancelled(_)
                | Event::Dropped(_)
                | Event::InputPaused { .. }
                | Event::InputResumed => {}
                event => panic!("an event that this application does not know: {event:?}"),
            }
        }
        if ended.is_some() {
            for at in 0..self.channels.len() {
                let handle = &self.channels[at];
                assert!(handle.closed || handle.released, "J1: {handle:?} of a session that ended");
            }
        }
        ended
    }

    /// The transport is lost. Publishes have their outcome, unless they are sent again, and deliveries are stale.
    fn lost(&mut self, cx: &mut Context<'_>) {
        self.recovering = true;
        self.losses += 1;
        cx.totals.losses += 1;
        self.mirror.lost(self.link);
        for at in 0..self.channels.len() {
            let handle = &mut self.channels[at];
            if handle.released || handle.closed {
                continue;
            }
            let kept = handle.mode == Mode::Confirm && cx.swarm.policy.republishes();
            cx.truth.lost(handle.flow, self.link, handle.mode, kept);
            handle.stale.append(&mut handle.held);
            handle.stale.append(&mut handle.uncommitted);
            if self.random.chance(50) {
                self.acknowledge_stale(at, cx);
            }
            if !kept {
                self.resolve(at, cx);
            }
        }
    }

    /// Takes the outcomes of all publishes: everything is known, whether or not an event has said so.
    fn resolve(&mut self, at: usize, cx: &mut Context<'_>) {
        for outcome in &mut self.channels[at].outcomes {
            outcome.resolved = true;
        }
        while !self.channels[at].outcomes.is_empty() {
            self.take_outcomes(at, cx);
        }
    }

    /// A channel has closed: its publishes are resolved, and its deliveries are not acked any more.
    fn channel_closed(&mut self, id: ChannelId, cx: &mut Context<'_>) {
        let handle = self.handle(id);
        assert!(!std::mem::replace(&mut handle.closed, true), "I3: {id:?} closes twice");
        let Some(at) = self.channels.iter().position(|it| it.id == id) else { return };
        if self.channels[at].released {
            return;
        }
        self.resolve(at, cx);
        let handle = &mut self.channels[at];
        handle.stale.append(&mut handle.held);
        handle.stale.append(&mut handle.uncommitted);
        while !self.channels[at].stale.is_empty() {
            self.acknowledge_stale(at, cx);
        }
        // Deliveries without acknowledgement can still be read.
        for reader in &mut self.channels[at].readers {
            reader.flagged = true;
        }
        while !self.channels[at].readers.is_empty() {
            self.read(at, cx);
        }
    }

    fn handle(&mut self, id: ChannelId) -> &mut Handle {
        self.channels.iter_mut().find(|it| it.id == id).expect("a channel that was opened")
    }
}
