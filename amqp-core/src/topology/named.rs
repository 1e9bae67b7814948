//! Things with a name, in the order in which they were first declared.

use std::collections::BTreeMap;

/// A position is never used twice, and stays the same when its thing is replaced or renamed.
#[derive(Debug)]
pub(super) struct Named<T> {
    order: BTreeMap<u64, (String, T)>,
    positions: BTreeMap<String, u64>,
    next: u64,
}

impl<T> Named<T> {
    /// Adds a thing at the end. One with the same name is replaced, in its place.
    pub(super) fn insert(&mut self, name: String, thing: T) {
        let position = match self.positions.get(&name) {
            Some(position) => *position,
            None => {
                self.next += 1;
                self.positions.insert(name.clone(), self.next);
                self.next
            }
        };
        self.order.insert(position, (name, thing));
    }

    pub(super) fn find(&self, name: &str) -> Option<&T> {
        let (_, thing) = self.order.get(self.positions.get(name)?)?;
        Some(thing)
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(position) = self.positions.remove(name) {
            self.order.remove(&position);
        }
    }

    /// Changes a name, in its place. Another thing that has the new name is removed.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if from == to || !self.positions.contains_key(from) {
            return;
        }
        self.remove(to);
        if let Some(position) = self.positions.remove(from) {
            self.positions.insert(to.to_owned(), position);
            if let Some((name, _)) = self.order.get_mut(&position) {
                to.clone_into(name);
            }
        }
    }

    pub(super) fn at(&self, position: u64) -> Option<(&str, &T)> {
        self.order.get(&position).map(|(name, thing)| (name.as_str(), thing))
    }

    /// The positions and names, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.order.iter().map(|(position, (name, _))| (*position, name.as_str()))
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), positions: BTreeMap::new(), next: 0 }
    }
}
