//! The tasks of a world. A task that was woken runs in a turn of its own, and the seed draws which one is next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use crate::sim::random::Random;

/// The future that [`block_on`](super::World::block_on) runs.
pub(super) const MAIN: u64 = 0;

pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Tasks {
    tasks: Mutex<BTreeMap<u64, Task>>,
    ready: Arc<Mutex<Ready>>,
}

struct Ready {
    woken: BTreeSet<u64>,
    random: Random,
    spawned: u64,
}

struct Waking {
    task: u64,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().unwrap().woken.insert(self.task);
    }
}

impl Tasks {
    pub(super) fn new(random: Random) -> Self {
        let ready = Ready { woken: BTreeSet::new(), random, spawned: MAIN };
        Self { tasks: Mutex::default(), ready: Arc::new(Mutex::new(ready)) }
    }

    pub(super) fn spawn(&self, task: Task) {
        let id = {
            let mut ready = self.ready.lock().unwrap();
            ready.spawned += 1;
            let id = ready.spawned;
            ready.woken.insert(id);
            id
        };
        self.tasks.lock().unwrap().insert(id, task);
    }

    pub(super) fn waker(&self, task: u64) -> Waker {
        Waker::from(Arc::new(Waking { task, ready: Arc::clone(&self.ready) }))
    }

    /// Takes one of the tasks that were woken.
    pub(super) fn next(&self) -> Option<u64> {
        let ready = &mut *self.ready.lock().unwrap();
        let place = ready.random.place(ready.woken.len())?;
        let task = ready.woken.iter().nth(place).copied()?;
        ready.woken.remove(&task);
        Some(task)
    }

    /// Gives a task its turn, unless it has ended.
    pub(super) fn poll(&self, id: u64) {
        // It may spawn tasks, so it is taken out meanwhile.
        let Some(mut task) = self.tasks.lock().unwrap().remove(&id) else { return };
        let waker = self.waker(id);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.lock().unwrap().insert(id, task);
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
