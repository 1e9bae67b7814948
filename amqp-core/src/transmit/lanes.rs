//! Lanes: messages larger than a frame are sent one frame per channel in turn.
//!
//! A message must be contiguous within its channel only (AMQP 0-9-1, 4.2.6), so a large body does not have to
//! block other channels. A channel with a large message has a lane. All later frames of the channel are
//! queued behind the message, so that their order is kept. The lane is removed when it is empty.
//!
//! A channel whose `tx.commit` is not answered has a lane too, and no turn: RabbitMQ closes the connection if a frame
//! of the channel arrives meanwhile (504, "unexpected command while processing 'tx.commit'"). What follows the
//! commit waits in an item without a message until the reply arrives. The lane begins with the first frame that
//! follows, so that a commit by itself costs no allocation.

use std::collections::{BTreeMap, VecDeque};

use amqp_proto::frame::{self, FRAME_END};
use bytes::Bytes;

use crate::transmit::chunk::Chunk;

/// Reports that the first frame of a message larger than a frame was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub(crate) channel: u16,
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// The lanes by channel number. No lane is empty.
    lanes: BTreeMap<u16, VecDeque<Item>>,
    /// The channels whose lane may send, in the order of their turns.
    turns: VecDeque<u16>,
    /// The channels whose `tx.commit` is not answered, and that have queued nothing behind it.
    committing: Vec<u16>,
    /// The number of channels that have a lane, or are among those: one comparison on the path of each publish.
    in_use: usize,
    bytes: usize,
    /// The bytes of all `after`, except those that were appended to the last lane since it was counted.
    after_bytes: usize,
    appended_to: Option<u16>,
}

/// A large message, or a commit, and the frames that follow it on its channel.
#[derive(Debug, Default)]
struct Item {
    /// The method and header frames. Empty when they are sent.
    head: Vec<u8>,
    body: Bytes,
    dealt: usize,
    seq: u64,
    commit: Option<Commit>,
    after: Vec<u8>,
    /// The number of bytes of `after` that are in the sum.
    after_counted: usize,
    /// The positions in `after` where small publishes begin, and their numbers.
    publishes: Vec<(usize, u64)>,
    /// The number of bytes of these publishes.
    published: usize,
}

/// A `tx.commit` that was queued before an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Unanswered,
    Answered,
}

impl Item {
    fn unanswered() -> Self {
        Self { commit: Some(Commit::Unanswered), ..Self::default() }
    }

    /// Whether a part of a message was sent.
    const fn begun(&self) -> bool {
        self.commit.is_none() && self.head.is_empty()
    }

    /// The number of the first publish that is not sent completely.
    fn first_seq(&self) -> Option<u64> {
        match self.commit {
            None => Some(self.seq),
            Some(_) => self.publishes.first().map(|(_, seq)| *seq),
        }
    }

    /// Whether it may not be sent.
    fn is_held(&self) -> bool {
        self.commit == Some(Commit::Unanswered)
    }

    fn bytes(&self) -> usize {
        self.head.len() + self.body.len() - self.dealt + self.published
    }
}

/// Whether a lane waits for the reply to a `tx.commit`.
fn is_held(lane: &VecDeque<Item>) -> bool {
    lane.front().is_some_and(Item::is_held)
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether no channel's frames go to a lane.
    #[inline]
    pub(super) const fn is_unused(&self) -> bool {
        self.in_use == 0
    }

    fn count_in_use(&mut self) {
        self.in_use = self.lanes.len() + self.committing.len();
    }

    /// Whether a lane may send.
    pub(super) fn has_turn(&self) -> bool {
        !self.turns.is_empty()
    }

    /// The number of lanes that may send.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The number of bytes of the messages that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the channel has a lane that waits for the reply to a `tx.commit`.
    pub(super) fn is_held(&self, channel: u16) -> bool {
        self.lanes.get(&channel).is_some_and(is_held)
    }

    /// The number of bytes of the messages that wait in lanes that are held, or in the one of `channel` only.
    pub(super) fn held_bytes(&self, channel: Option<u16>) -> usize {
        self.held(channel).flatten().map(Item::bytes).sum()
    }

    /// The number of bytes of the frames in lanes that are held, including publishes.
    pub(super) fn held_after_bytes(&self) -> usize {
        self.held(None).flatten().map(|item| item.after.len()).sum()
    }

    fn held(&self, channel: Option<u16>) -> impl Iterator<Item = &VecDeque<Item>> {
        // A lane without a turn is held.
        let any = self.lanes.len() > self.turns.len();
        let lanes = self.lanes.iter().filter(move |(number, lane)| {
            any && channel.is_none_or(|channel| channel == **number) && is_held(lane)
        });
        lanes.map(|(_, lane)| lane)
    }

    /// The number of bytes of the frames that wait behind messages, including publishes.
    pub(super) fn after_bytes(&mut self) -> usize {
        self.count_after();
        self.after_bytes
    }

    #[inline]
    pub(super) fn has(&self, channel: u16) -> bool {
        !self.is_unused()
            && (self.lanes.contains_key(&channel) || self.committing.contains(&channel))
    }

    /// The number of the channel's first publish that is not sent completely, if there is one.
    #[inline]
    pub(super) fn first_seq(&self, channel: u16) -> Option<u64> {
        if self.is_unused() {
            return None;
        }
        self.lanes.get(&channel)?.iter().find_map(Item::first_seq)
    }

    /// Returns the channels with the number of their publishes of which no frame was sent.
    pub(super) fn unsent_publishes(&self) -> impl Iterator<Item = (u16, u64)> {
        self.lanes.iter().map(|(channel, lane)| {
            let message = |item: &Item| usize::from(item.commit.is_none() && !item.begun());
            let unsent = |item: &Item| message(item) + item.publishes.len();
            (*channel, lane.iter().map(unsent).sum::<usize>() as u64)
        })
    }

    pub(super) fn content(&mut self, channel: u16, head: Vec<u8>, body: Bytes, seq: u64) {
        self.count_after();
        self.begin_behind_commit(channel);
        let item = Item { head, body, seq, ..Item::default() };
        self.bytes += item.bytes();
        let lane = self.lanes.entry(channel).or_insert_with(|| {
            self.turns.push_back(channel);
            VecDeque::new()
        });
        lane.push_back(item);
        self.count_in_use();
    }

    /// Holds back what the channel queues next, until [`release`](Self::release). Its `tx.commit` is queued.
    pub(super) fn hold(&mut self, channel: u16) {
        self.count_after();
        match self.lanes.get_mut(&channel) {
            Some(lane) => lane.push_back(Item::unanswered()),
            None => self.committing.push(channel),
        }
        self.count_in_use();
    }

    /// Begins the lane of a channel that queues something behind its `tx.commit`.
    fn begin_behind_commit(&mut self, channel: u16) {
        if self.forget_commit(channel) {
            self.lanes.insert(channel, VecDeque::from([Item::unanswered()]));
            self.count_in_use();
        }
    }

    /// Returns whether the channel is one of those that have queued nothing behind their commit, which it then is not.
    fn forget_commit(&mut self, channel: u16) -> bool {
        let at = self.committing.iter().position(|it| *it == channel);
        let removed = at.map(|at| self.committing.swap_remove(at));
        self.count_in_use();
        removed.is_some()
    }

    /// Sends what waits behind the first `tx.commit` of the channel: it is answered.
    pub(super) fn release(&mut self, channel: u16) {
        if self.forget_commit(channel) {
            return;
        }
        self.count_after();
        let Some(lane) = self.lanes.get_mut(&channel).filter(|lane| is_held(lane)) else { return };
        match lane.front_mut() {
            Some(item) if !item.after.is_empty() => item.commit = Some(Commit::Answered),
            _ => drop(lane.pop_front()),
        }
        self.take_turn(channel);
    }

    /// Gives the channel a turn if its lane may send, and removes the lane if it is empty.
    fn take_turn(&mut self, channel: u16) {
        match self.lanes.get(&channel).map(VecDeque::front) {
            Some(None) => {
                self.lanes.remove(&channel);
                self.count_in_use();
            }
            Some(Some(next)) if !next.is_held() => self.turns.push_back(channel),
            _ => {}
        }
    }

    /// Returns the buffer at the end of the channel's lane, if the channel has one.
    pub(super) fn frames(&mut self, channel: u16) -> Option<&mut Vec<u8>> {
        if self.appended_to != Some(channel) {
            self.count_after();
            self.begin_behind_commit(channel);
            self.appended_to = Some(channel);
        }
        Some(&mut self.lanes.get_mut(&channel)?.back_mut()?.after)
    }

    /// Records that the bytes appended to [`frames`](Self::frames) from `start` on are a publish.
    pub(super) fn published(&mut self, channel: u16, start: usize, seq: u64) {
        if let Some(item) = self.lanes.get_mut(&channel).and_then(VecDeque::back_mut) {
            let size = item.after.len() - start;
            item.publishes.push((start, seq));
            item.published += size;
            self.bytes += size;
        }
    }

    /// Sends the next frame of the channel whose turn it is. After the last frame of a message, the frames
    /// behind it are sent too.
    pub(super) fn deal(
        &mut self,
        chunk: &mut Chunk,
        stream_offset: u64,
        body_max: usize,
        dealt: &mut Vec<Dealt>,
    ) {
        self.count_after();
        let Some(channel) = self.turns.pop_front() else { return };
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        let Some(item) = lane.front_mut() else { return };
        let before = item.bytes();
        if item.commit.is_none() && !item.begun() {
            let offset = stream_offset + chunk.len() as u64;
            dealt.push(Dealt { channel, seq: item.seq, offset });
            chunk.flat.append(&mut item.head);
        }
        if item.commit.is_none() {
            let size = body_max.min(item.body.len() - item.dealt);
            frame::write_body_head(&mut chunk.flat, channel, size as u32);
            chunk.insert(item.body.slice(item.dealt..item.dealt + size));
            chunk.flat.push(FRAME_END);
            item.dealt += size;
        }
        if item.dealt < item.body.len() {
            self.bytes -= before - item.bytes();
            self.turns.push_back(channel);
            return;
        }
        let offset = stream_offset + chunk.len() as u64;
        dealt.extend(item.publishes.iter().map(|(position, seq)| Dealt {
            channel,
            seq: *seq,
            offset: offset + *position as u64,
        }));
        chunk.flat.append(&mut item.after);
        self.after_bytes -= item.after_counted;
        self.bytes -= before;
        lane.pop_front();
        self.take_turn(channel);
    }

    pub(super) fn abandon(&mut self, channel: u16, discarded: &mut Vec<Bytes>) {
        self.count_after();
        self.forget_commit(channel);
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        let begun = lane.front().is_some_and(Item::begun);
        for item in lane.drain(usize::from(begun)..) {
            self.bytes -= item.bytes();
            self.after_bytes -= item.after_counted;
            discarded.push(item.body);
        }
        match lane.front_mut() {
            Some(item) => {
                // The rest of a message that is partly sent.
                self.bytes -= item.published;
                item.published = 0;
                item.publishes.clear();
                item.after.clear();
                self.after_bytes -= std::mem::take(&mut item.after_counted);
            }
            None => {
                self.lanes.remove(&channel);
                self.turns.retain(|turn| *turn != channel);
                self.count_in_use();
            }
        }
    }

    pub(super) fn clear(&mut self, discarded: &mut Vec<Bytes>) {
        let items = std::mem::take(&mut self.lanes).into_values().flatten();
        discarded.extend(items.map(|item| item.body));
        self.turns.clear();
        self.committing.clear();
        self.in_use = 0;
        self.bytes = 0;
        self.after_bytes = 0;
        self.appended_to = None;
    }

    /// Adds the bytes to the sum that were appended to the last lane since it was counted.
    fn count_after(&mut self) {
        let lane = self.appended_to.take().and_then(|channel| self.lanes.get_mut(&channel));
        if let Some(item) = lane.and_then(VecDeque::back_mut) {
            self.after_bytes += item.after.len();
            self.after_bytes -= std::mem::replace(&mut item.after_counted, item.after.len());
        }
    }
}
