//! The places of a pool, without I/O and without a clock: which connection is lent next, and which are to be opened.
//!
//! A slot is vacant, opening, open, or leaving. A pool of n has n slots, and a slot holds one connection at most, also while
//! that is being opened or closed: so there are never more than n. A connection that has ended leaves its slot vacant, and
//! [`Slots::pick`] asks for another one in its place. After an attempt that failed, the slot stays vacant for a pause.

use std::time::Instant;

use crate::limits::REOPEN_PAUSE;

/// What a connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is open.
    Ready,
    /// It was lost, and is being recovered.
    Recovering,
    /// It has ended, and is not recovered.
    Ended,
}

#[derive(Debug)]
enum Slot<C> {
    /// Nothing is opened before this time.
    Vacant(Option<Instant>),
    /// A connection is being opened.
    Opening,
    Open(C),
    /// The pool was closed. A connection is being closed, or opened to be closed.
    Leaving,
}

/// The slots of one pool.
#[derive(Debug)]
pub(crate) struct Slots<C> {
    slots: Vec<Slot<C>>,
    /// The slot with which the next search begins.
    next: usize,
    /// The number of attempts that failed.
    failures: u64,
}

/// What [`Slots::pick`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pick<C> {
    /// The connection to lend.
    pub(crate) connection: Option<C>,
    /// The slots for which a connection is to be opened. Each is answered by [`Slots::opened`] or [`Slots::ended`].
    pub(crate) open: Vec<usize>,
    /// When the next slot is to be opened, if none is now.
    pub(crate) again_at: Option<Instant>,
}

/// The number of slots by what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) ready: usize,
    pub(crate) recovering: usize,
    pub(crate) opening: usize,
    pub(crate) leaving: usize,
    pub(crate) vacant: usize,
}

impl<C: Clone> Slots<C> {
    pub(crate) fn new(size: usize) -> Self {
        let slots = (0..size).map(|_| Slot::Vacant(None)).collect();
        Self { slots, next: 0, failures: 0 }
    }

    /// Chooses the next connection in turn, and says which slots are to be opened, if any may be. A connection that is being
    /// recovered is chosen only if no other is open.
    pub(crate) fn pick(
        &mut self,
        now: Instant,
        may_open: bool,
        condition: impl Fn(&C) -> Condition,
    ) -> Pick<C> {
        let mut pick = Pick { connection: None, open: Vec::new(), again_at: None };
        let (mut ready, mut recovering) = (None, None);
        let size = self.slots.len();
        for index in (self.next..size).chain(0..self.next) {
            let slot = &mut self.slots[index];
            let found = match slot {
                Slot::Open(connection) => condition(connection),
                _ => Condition::Ended,
            };
            match (found, &*slot) {
                (Condition::Ready, _) => ready = ready.or(Some(index)),
                (Condition::Recovering, _) => recovering = recovering.or(Some(index)),
                (Condition::Ended, Slot::Opening | Slot::Leaving) => {}
                (Condition::Ended, Slot::Vacant(Some(at))) if *at > now => {
                    pick.again_at = Some(pick.again_at.map_or(*at, |other| other.min(*at)));
                }
                (Condition::Ended, _) if may_open => {
                    *slot = Slot::Opening;
                    pick.open.push(index);
                }
                (Condition::Ended, _) => {}
            }
        }
        if let Some(index) = ready.or(recovering)
            && let Slot::Open(connection) = &self.slots[index]
        {
            pick.connection = Some(connection.clone());
            self.next = (index + 1) % size;
        }
        pick
    }

    /// Takes a connection that was opened. Returns it if it is not wanted any more: the caller closes it, and then reports
    /// with [`ended`](Self::ended) that the slot has none.
    #[must_use]
    pub(crate) fn opened(&mut self, index: usize, connection: C) -> Option<C> {
        let slot = &mut self.slots[index];
        if !matches!(slot, Slot::Opening) {
            return Some(connection);
        }
        *slot = Slot::Open(connection);
        None
    }

    /// Notes that an attempt, or a close, has ended: the slot has no connection.
    pub(crate) fn ended(&mut self, index: usize, now: Instant) {
        let has_failed = matches!(self.slots[index], Slot::Opening);
        let pause = has_failed.then(|| now.checked_add(REOPEN_PAUSE)).flatten();
        self.slots[index] = Slot::Vacant(pause);
        self.failures += u64::from(has_failed);
    }

    /// Returns the number of attempts that failed.
    pub(crate) const fn failures(&self) -> u64 {
        self.failures
    }

    /// Returns whether a connection is being opened.
    pub(crate) fn is_opening(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Opening))
    }

    /// Returns whether a connection is being closed.
    pub(crate) fn is_leaving(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Leaving))
    }

    /// Lets connections be opened at once where an attempt has failed a moment ago.
    pub(crate) fn skip_pauses(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Vacant(pause) = slot {
                *pause = None;
            }
        }
    }

    /// Returns the connections with their slots. The caller closes them, and then reports each with
    /// [`ended`](Self::ended). Those that are being opened are not wanted any more.
    pub(crate) fn take_all(&mut self) -> Vec<(usize, C)> {
        let mut taken = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            match std::mem::replace(slot, Slot::Leaving) {
                Slot::Open(connection) => taken.push((index, connection)),
                Slot::Opening | Slot::Leaving => {}
                Slot::Vacant(_) => *slot = Slot::Vacant(None),
            }
        }
        taken
    }

    /// Returns the connections that are open.
    pub(crate) fn open(&self) -> Vec<C> {
        let open = self.slots.iter().filter_map(|slot| match slot {
            Slot::Open(connection) => Some(connection.clone()),
            Slot::Opening | Slot::Leaving | Slot::Vacant(_) => None,
        });
        open.collect()
    }

    /// Counts the slots by what is in them.
    pub(crate) fn count(&self, condition: impl Fn(&C) -> Condition) -> Count {
        let mut count = Count::default();
        for slot in &self.slots {
            let place = match slot {
                Slot::Opening => &mut count.opening,
                Slot::Leaving => &mut count.leaving,
                Slot::Vacant(_) => &mut count.vacant,
                Slot::Open(connection) => match condition(connection) {
                    Condition::Ready => &mut count.ready,
                    Condition::Recovering => &mut count.recovering,
                    Condition::Ended => &mut count.vacant,
                },
            };
            *place += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::{Condition, Slots};
    use crate::limits::REOPEN_PAUSE;

    /// Slots of numbered connections, and the condition of each.
    struct Played {
        slots: Slots<u32>,
        conditions: RefCell<BTreeMap<u32, Condition>>,
        now: Instant,
        opened: u32,
    }

    impl Played {
        fn new(size: usize) -> Self {
            let conditions = RefCell::default();
            Self { slots: Slots::new(size), conditions, now: Instant::now(), opened: 0 }
        }

        fn pick(&mut self) -> (Option<u32>, Vec<usize>) {
            let conditions = self.conditions.borrow();
            let pick = self.slots.pick(self.now, true, |it| conditions[it]);
            (pick.connection, pick.open)
        }

        fn open(&mut self, slot: usize) -> Option<u32> {
            self.opened += 1;
            self.conditions.borrow_mut().insert(self.opened, Condition::Ready);
            self.slots.opened(slot, self.opened)
        }

        fn is(&self, connection: u32, condition: Condition) {
            self.conditions.borrow_mut().insert(connection, condition);
        }
    }

    fn full(size: usize) -> Played {
        let mut played = Played::new(size);
        let (None, open) = played.pick() else { panic!("none is open") };
        assert_eq!(open, (0..size).collect::<Vec<_>>());
        open.into_iter().for_each(|slot| assert_eq!(played.open(slot), None));
        played
    }

    #[test]
    fn np_5_connections_are_lent_in_turn() {
        let mut played = full(2);
        let lent: Vec<_> = (0..5).map(|_| played.pick()).collect();
        assert_eq!(lent, [1, 2, 1, 2, 1].map(|it| (Some(it), vec![])));
    }

    #[test]
    fn one_that_recovers_is_lent_only_while_no_other_is_open() {
        let mut played = full(3);
        played.is(2, Condition::Recovering);
        let lent: Vec<_> = (0..4).map(|_| played.pick()).collect();
        assert_eq!(lent, [1, 3, 1, 3].map(|it| (Some(it), vec![])));
        played.is(1, Condition::Recovering);
        played.is(3, Condition::Ended);
        // The third is replaced meanwhile.
        assert_eq!(played.pick(), (Some(1), vec![2]));
        assert_eq!(played.pick(), (Some(2), vec![]));
    }

    #[test]
    fn l2_one_that_has_ended_is_replaced_and_a_failed_attempt_repeated_after_a_pause() {
        let mut played = full(1);
        played.is(1, Condition::Ended);
        assert_eq!(played.pick(), (None, vec![0]));
        assert!(played.slots.is_opening());
        played.slots.ended(0, played.now);
        assert_eq!((played.slots.failures(), played.slots.is_opening()), (1, false));
        let pick = played.slots.pick(played.now, true, |_| Condition::Ready);
        assert_eq!((pick.connection, pick.open), (None, vec![]));
        assert_eq!(pick.again_at, Some(played.now + REOPEN_PAUSE));
        played.slots.skip_pauses();
        assert_eq!(played.pick(), (None, vec![0]));
        played.slots.ended(0, played.now);
        played.now += REOPEN_PAUSE;
        assert!(played.slots.pick(played.now, false, |_| Condition::Ready).open.is_empty());
        assert_eq!(played.pick(), (None, vec![0]));
        assert_eq!(played.open(0), None);
        assert_eq!(played.pick(), (Some(2), vec![]));
    }

    #[test]
    fn np_6_a_closed_pool_is_filled_again() {
        let mut played = full(2);
        played.is(1, Condition::Ended);
        assert_eq!(played.pick(), (Some(2), vec![0]));
        assert_eq!(played.slots.take_all(), [(1, 2)]);
        // Both keep their slots until they are closed: the first one was opened although it is not wanted.
        assert_eq!(played.open(0), Some(3));
        assert_eq!(played.pick(), (None, vec![]));
        played.slots.ended(1, played.now);
        assert_eq!(played.pick(), (None, vec![1]));
        played.slots.ended(0, played.now);
        assert_eq!((played.slots.failures(), played.slots.is_opening()), (0, true));
        assert_eq!(played.pick(), (None, vec![0]));
        assert_eq!([0, 1].map(|slot| played.open(slot)), [None, None]);
        assert_eq!(played.slots.take_all(), [(0, 4), (1, 5)]);
    }

    /// In any order of what may happen, there are never more connections than slots, and none is lent that has ended.
    #[test]
    fn l1_l2_there_are_never_too_many_and_none_is_lent_that_has_ended() {
        for seed in 0..500 {
            let mut random = Random(seed + 1);
            let size = random.below(4) + 1;
            let mut played = Played::new(size);
            // The slots of attempts, and of connections that are being closed.
            let (mut attempts, mut closing) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                match random.below(7) {
                    0..=2 => {
                        let (lent, open) = played.pick();
                        let conditions = played.conditions.borrow();
                        assert!(lent.is_none_or(|it| conditions[&it] != Condition::Ended));
                        let ready = played.slots.open();
                        let ready = ready.iter().any(|it| conditions[it] == Condition::Ready);
                        assert_eq!(
                            lent.is_some_and(|it| conditions[&it] == Condition::Ready),
                            ready
                        );
                        attempts.extend(open);
                    }
                    3 if !attempts.is_empty() => {
                        let slot = attempts.swap_remove(random.below(attempts.len()));
                        if played.open(slot).is_some() {
                            closing.push(slot);
                        }
                    }
                    4 if !attempts.is_empty() => {
                        let slot = attempts.swap_remove(random.below(attempts.len()));
                        played.slots.ended(slot, played.now);
                    }
                    4 if !closing.is_empty() => {
                        let slot = closing.swap_remove(random.below(closing.len()));
                        played.slots.ended(slot, played.now);
                    }
                    5 => {
                        let open = played.slots.open();
                        if let Some(connection) = open.first() {
                            let to = [Condition::Ended, Condition::Recovering, Condition::Ready];
                            let was = played.conditions.borrow()[connection];
                            if was != Condition::Ended {
                                played.is(*connection, to[random.below(3)]);
                            }
                        }
                    }
                    _ if random.below(10) == 0 => {
                        closing.extend(played.slots.take_all().into_iter().map(|(slot, _)| slot));
                    }
                    _ => played.now += Duration::from_millis(300),
                }
                let count = played.slots.open().len() + attempts.len() + closing.len();
                assert!(count <= size, "seed {seed}: {count} of {size}");
            }
        }
    }

    /// Xorshift.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }
}
