//! The callbacks of publishes: called in the order of the publishes, by one task that runs while there are any.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp_async::{Confirm, PublishError};
use async_lock::Semaphore;

use crate::runner::Runner;

type Callback = Box<dyn FnOnce(Result<(), PublishError>) + Send>;

/// The callbacks that have not been called.
#[derive(Clone, Default)]
pub(super) struct Callbacks(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Whether a task calls them.
    is_served: bool,
}

enum Item {
    Call(Result<Confirm, PublishError>, Callback),
    /// A flush, which waits until this has a permit.
    Flush(Arc<Semaphore>),
}

impl Callbacks {
    /// Adds the callback of a publish, or of one that was not sent.
    pub(super) fn push(
        &self,
        sent: Result<Confirm, PublishError>,
        callback: impl FnOnce(Result<(), PublishError>) + Send + 'static,
        runner: &Runner,
    ) {
        let mut queue = self.lock();
        queue.items.push_back(Item::Call(sent, Box::new(callback)));
        if !std::mem::replace(&mut queue.is_served, true) {
            drop(queue);
            runner.spawn(self.clone().serve());
        }
    }

    /// Waits until all callbacks that were added before have been called.
    pub(super) async fn flush(&self) {
        let flushed = Arc::new(Semaphore::new(0));
        {
            let mut queue = self.lock();
            if !queue.is_served {
                return;
            }
            queue.items.push_back(Item::Flush(Arc::clone(&flushed)));
        }
        drop(flushed.acquire().await);
    }

    async fn serve(self) {
        // If the runtime drops this task, what waits is released.
        let mut served = Served { callbacks: self, ended: false };
        while let Some(item) = served.next() {
            match item {
                Item::Flush(flushed) => flushed.add_permits(1),
                Item::Call(sent, callback) => {
                    let outcome = match sent {
                        Ok(confirm) => confirm.await,
                        Err(error) => Err(error),
                    };
                    // The panic of one callback must not keep the others from being called. The panic hook reports it.
                    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("waiting", &self.lock().items.len()).finish()
    }
}

/// The task that calls them.
struct Served {
    callbacks: Callbacks,
    ended: bool,
}

impl Served {
    fn next(&mut self) -> Option<Item> {
        let mut queue = self.callbacks.lock();
        let item = queue.items.pop_front();
        queue.is_served = item.is_some();
        self.ended = item.is_none();
        item
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Once it has ended, another task may serve them.
        if self.ended {
            return;
        }
        let mut queue = self.callbacks.lock();
        queue.is_served = false;
        for item in std::mem::take(&mut queue.items) {
            if let Item::Flush(flushed) = item {
                flushed.add_permits(1);
            }
        }
    }
}
