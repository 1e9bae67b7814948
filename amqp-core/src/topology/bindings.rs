//! Bindings in the order in which they were made. They are found by what makes them equal, by destination and by source
//! without a search through all.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use amqp_proto::FieldTable;

use crate::costs::count;

/// A binding of a queue or of an exchange.
pub(super) trait Binding {
    fn source(&self) -> &str;
    fn destination(&self) -> &str;
    fn routing_key(&self) -> &str;
    fn arguments(&self) -> &FieldTable;
    fn set_destination(&mut self, name: &str);
}

/// A position is never used twice, and stays the same when the destination is renamed.
#[derive(Debug)]
pub(super) struct Bindings<B> {
    order: BTreeMap<u64, B>,
    /// Those of one destination are neighbours.
    positions: BTreeMap<Identity, u64>,
    /// Each position with its source.
    sources: BTreeSet<(String, u64)>,
    next: u64,
}

impl<B: Binding> Bindings<B> {
    /// Adds a binding at the end, unless there is an equal one.
    pub(super) fn insert(&mut self, binding: B) {
        let identity = Identity::new(&binding);
        if self.positions.contains_key(&identity) {
            return;
        }
        self.next += 1;
        self.positions.insert(identity, self.next);
        self.sources.insert((binding.source().to_owned(), self.next));
        self.order.insert(self.next, binding);
    }

    /// Removes the equal binding. Returns whether there was one.
    pub(super) fn remove(&mut self, binding: &B) -> bool {
        let position = self.positions.remove(&Identity::new(binding));
        if let Some(position) = position {
            self.order.remove(&position);
            self.sources.remove(&(binding.source().to_owned(), position));
        }
        position.is_some()
    }

    /// Removes all bindings of a destination. Returns their sources.
    pub(super) fn remove_to(&mut self, destination: &str) -> Vec<String> {
        let removed = self.positions_to(destination).into_iter().filter_map(|position| {
            let binding = self.order.remove(&position)?;
            self.positions.remove(&Identity::new(&binding));
            let source = binding.source().to_owned();
            let place = (source, position);
            self.sources.remove(&place);
            Some(place.0)
        });
        removed.collect()
    }

    /// Removes all bindings to a source.
    pub(super) fn remove_from(&mut self, source: &str) {
        let first = (source.to_owned(), 0);
        while let Some(place) = self.sources.range(&first..).next().filter(|it| it.0 == source) {
            count(1);
            let place = place.clone();
            self.sources.remove(&place);
            if let Some(binding) = self.order.remove(&place.1) {
                self.positions.remove(&Identity::new(&binding));
            }
        }
    }

    /// Whether anything is bound to a source.
    pub(super) fn has_source(&self, source: &str) -> bool {
        let first = (source.to_owned(), 0);
        self.sources.range(first..).next().is_some_and(|(it, _)| it == source)
    }

    /// Moves all bindings of one destination to another, each in its place, unless there is an equal one.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let mut positions = self.positions_to(from);
        // Of two that become equal, the earlier one stays.
        positions.sort_unstable();
        for position in positions {
            let Some(binding) = self.order.get_mut(&position) else { continue };
            self.positions.remove(&Identity::new(binding));
            binding.set_destination(to);
            match self.positions.entry(Identity::new(binding)) {
                Entry::Occupied(_) => {
                    self.sources.remove(&(binding.source().to_owned(), position));
                    self.order.remove(&position);
                }
                Entry::Vacant(free) => {
                    free.insert(position);
                }
            }
        }
    }

    pub(super) fn at(&self, position: u64) -> Option<&B> {
        self.order.get(&position)
    }

    /// The positions and bindings, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &B)> {
        self.order.iter().map(|(position, binding)| (*position, binding))
    }

    fn positions_to(&self, destination: &str) -> Vec<u64> {
        let all = self.positions.range(Identity::first_to(destination)..);
        let positions = all.take_while(|(identity, _)| identity.destination == destination);
        positions.map(|(_, position)| *position).inspect(|_| count(1)).collect()
    }
}

impl<B> Default for Bindings<B> {
    fn default() -> Self {
        let (order, positions, sources) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { order, positions, sources, next: 0 }
    }
}

/// What makes two bindings equal, sorted by destination first.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    destination: String,
    source: String,
    routing_key: String,
    /// Encoded, because floating-point numbers have no order, and because RabbitMQ compares the types of numbers. Sorted
    /// by name, as RabbitMQ does.
    arguments: Vec<u8>,
}

impl Identity {
    fn new(binding: &impl Binding) -> Self {
        let mut fields: Vec<_> = binding.arguments().iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let fields = fields.into_iter().map(|(name, value)| (name, value.clone()));
        let mut arguments = Vec::new();
        // It was sent, so it can be encoded.
        let _ = fields.collect::<FieldTable>().encode(&mut arguments);
        Self {
            destination: binding.destination().to_owned(),
            source: binding.source().to_owned(),
            routing_key: binding.routing_key().to_owned(),
            arguments,
        }
    }

    /// The lowest one of a destination.
    fn first_to(destination: &str) -> Self {
        let (source, routing_key) = (String::new(), String::new());
        Self { destination: destination.to_owned(), source, routing_key, arguments: Vec::new() }
    }

    fn parts(&self) -> (&str, &str, &str, &[u8]) {
        (&self.destination, &self.source, &self.routing_key, &self.arguments)
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        super::tests::count_step();
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
