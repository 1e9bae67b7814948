//! What the application makes of events.

use amqp_core::{ChannelId, CloseCause, Event};

use super::{Application, Context, Handle};

impl Application {
    /// Reads the events. Returns why the session has ended, if it has.
    pub(in crate::sim) fn listen(&mut self, cx: &mut Context<'_>) -> Option<CloseCause> {
        let mut ended = None;
        while let Some(event) = cx.session.poll_event() {
            cx.trace.line(|| format!("  {event:?}"));
            assert!(ended.is_none(), "I11: {event:?} after the end");
            match event {
                Event::CallDone(key) => self.answered(key, cx),
                Event::Resolved { channel, first, last } => {
                    for outcome in &mut self.handle(channel).outcomes {
                        outcome.resolved |= (first..=last).contains(&outcome.seq);
                    }
                }
                Event::Deliverable(key) => {
                    let readers = self.channels.iter_mut().flat_map(|it| &mut it.readers);
                    readers.filter(|it| it.key == key).for_each(|it| it.flagged = true);
                }
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
                    self.link = cx.link;
                    cx.totals.opened += 1;
                }
                Event::AttemptFailed(_) => cx.totals.failed_attempts += 1,
                Event::Closed(cause) => {
                    let lost = !self.closed && !matches!(cause, CloseCause::Connect(_));
                    cx.totals.losses += u64::from(lost);
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

    /// A channel has closed: its publishes are resolved, and its deliveries are not acked any more.
    fn channel_closed(&mut self, id: ChannelId, cx: &mut Context<'_>) {
        let handle = self.handle(id);
        assert!(!std::mem::replace(&mut handle.closed, true), "I3: {id:?} closes twice");
        let Some(at) = self.channels.iter().position(|it| it.id == id) else { return };
        if self.channels[at].released {
            return;
        }
        // Everything is known now, whether or not an event has said so.
        for outcome in &mut self.channels[at].outcomes {
            outcome.resolved = true;
        }
        while !self.channels[at].outcomes.is_empty() {
            self.take_outcomes(at, cx);
        }
        while !self.channels[at].held.is_empty() {
            self.acknowledge_stale(at, cx);
        }
        self.channels[at].uncommitted.clear();
        // Deliveries without acknowledgement can still be read.
        for reader in &mut self.channels[at].readers {
            reader.flagged = true;
        }
        while !self.channels[at].readers.is_empty() {
            self.read(at, cx);
        }
    }

    /// An ack of a delivery of a channel that has closed is refused (N1).
    fn acknowledge_stale(&mut self, at: usize, cx: &mut Context<'_>) {
        let handle = &mut self.channels[at];
        let Some(held) = handle.held.pop() else { return };
        let multiple = self.random.chance(50);
        let result = cx.session.channel(handle.id).ack(held.tag, multiple);
        assert!(result.is_err(), "I2: {held:?} was acked after the end of its channel");
    }

    fn handle(&mut self, id: ChannelId) -> &mut Handle {
        self.channels.iter_mut().find(|it| it.id == id).expect("a channel that was opened")
    }
}
