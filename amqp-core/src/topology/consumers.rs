//! Which queues have consumers on this connection, which decides when an auto-delete queue is gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::costs::count;
use crate::ids::ConsumerKey;

/// Each consumer with its queue.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    queues: BTreeMap<ConsumerKey, String>,
    /// Those of one queue are neighbours.
    by_queue: BTreeSet<(String, ConsumerKey)>,
}

impl Consumers {
    pub(super) fn insert(&mut self, consumer: ConsumerKey, queue: String) {
        self.remove(consumer);
        self.by_queue.insert((queue.clone(), consumer));
        self.queues.insert(consumer, queue);
    }

    /// Removes a consumer. Returns its queue.
    pub(super) fn remove(&mut self, consumer: ConsumerKey) -> Option<String> {
        let place = (self.queues.remove(&consumer)?, consumer);
        self.by_queue.remove(&place);
        Some(place.0)
    }

    /// Removes the consumers of a queue.
    pub(super) fn remove_from(&mut self, queue: &str) {
        while let Some(consumer) = self.first_of(queue) {
            count(1);
            self.remove(consumer);
        }
    }

    /// Whether a queue has consumers.
    pub(super) fn has_queue(&self, queue: &str) -> bool {
        self.first_of(queue).is_some()
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        while let Some(consumer) = self.first_of(from) {
            count(1);
            self.insert(consumer, to.to_owned());
        }
    }

    fn first_of(&self, queue: &str) -> Option<ConsumerKey> {
        let (found, consumer) =
            self.by_queue.range((queue.to_owned(), ConsumerKey::MIN)..).next()?;
        (found == queue).then_some(*consumer)
    }
}
