//! What the application knows of the broker's topology: what it has declared and deleted, as far as that is certain.
//!
//! Two things make an entry uncertain: a call whose result is not known, and a connection that the broker still has, from
//! which such a call may arrive late. `taint` is the link after whose end the latter cannot happen any more.

use std::collections::BTreeMap;

use amqp_core::types::FailedEntity;

use crate::sim::network::Network;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) enum Entity {
    Exchange(String),
    Queue(String),
    Binding { exchange: String, queue: String, key: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Declare,
    Delete,
    /// Removes the messages of a queue.
    Purge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    Present,
    Absent,
    #[default]
    Unsure,
}

/// A call that changes an entity.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) entity: Entity,
    pub(super) kind: Kind,
    restarts: u32,
    tainted: bool,
}

impl Change {
    /// The broker has given a queue another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.entity = self.entity.clone().renamed(from, to);
    }
}

#[derive(Debug, Default)]
struct Entry {
    known: Known,
    busy: bool,
    /// Whether a session that recovers declares it again, if that is certain.
    recorded: Option<bool>,
    taint: Option<u64>,
    survives_restart: bool,
    exclusive: bool,
    auto_delete: bool,
}

#[derive(Debug, Default)]
pub(in crate::sim) struct Mirror {
    entries: BTreeMap<Entity, Entry>,
    restarts: u32,
    /// The restarts before the present link was connected.
    restarts_before: u32,
}

impl Mirror {
    /// Adds an entity that the broker does not have.
    pub(super) fn add(
        &mut self,
        entity: Entity,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
    ) {
        let survives_restart = durable && !exclusive;
        let entry = Entry {
            known: Known::Absent,
            survives_restart,
            exclusive,
            auto_delete,
            recorded: Some(false),
            ..Entry::default()
        };
        self.entries.insert(entity, entry);
    }

    /// Adds a queue whose name the broker has chosen. It is exclusive.
    pub(super) fn add_named(&mut self, name: &str) {
        let (known, recorded) = (Known::Present, Some(true));
        let entry = Entry { known, recorded, exclusive: true, ..Entry::default() };
        self.entries.insert(Entity::Queue(name.to_owned()), entry);
    }

    /// The broker has given a queue another name. Its bindings follow.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let entries = std::mem::take(&mut self.entries).into_iter();
        self.entries = entries.map(|(entity, entry)| (entity.renamed(from, to), entry)).collect();
    }

    /// Records a call. `None` if another call about the same entity, or about one that it needs, is not answered.
    pub(super) fn begin(&mut self, entity: &Entity, kind: Kind) -> Option<Change> {
        let needed = entity.needs();
        let busy = |it: &Entity| self.entries.get(it).is_some_and(|entry| entry.busy);
        let dependent_busy =
            self.entries.iter().any(|(it, entry)| entry.busy && it.needs().contains(entity));
        if busy(entity) || dependent_busy || needed.iter().any(busy) {
            return None;
        }
        let durable =
            needed.iter().all(|it| self.entries.get(it).is_some_and(|it| it.survives_restart));
        let any =
            |is: fn(&Entry) -> bool| needed.iter().any(|it| self.entries.get(it).is_none_or(is));
        let (auto_delete, exclusive) = (any(|it| it.auto_delete), any(|it| it.exclusive));
        let entry = self.entries.entry(entity.clone()).or_insert_with(|| Entry {
            survives_restart: durable,
            auto_delete,
            exclusive,
            recorded: Some(false),
            ..Entry::default()
        });
        entry.busy = true;
        if kind == Kind::Delete || (kind == Kind::Declare && entry.known == Known::Absent) {
            entry.known = Known::Unsure;
        }
        let tainted = entry.taint.is_some();
        if kind == Kind::Delete {
            self.dependents(entity, Known::Unsure);
        }
        Some(Change { entity: entity.clone(), kind, restarts: self.restarts, tainted })
    }

    /// Records the result of a call.
    pub(super) fn finish(&mut self, change: &Change, succeeded: bool) {
        let is_tainted = |it: &Entity| self.entries.get(it).is_some_and(|it| it.taint.is_some());
        let tainted = change.tainted
            || is_tainted(&change.entity)
            || change.entity.needs().iter().any(is_tainted);
        let Some(entry) = self.entries.get_mut(&change.entity) else { return };
        entry.busy = false;
        if change.kind == Kind::Purge {
            return;
        }
        entry.known = match change.kind {
            _ if !succeeded || tainted => Known::Unsure,
            Kind::Delete => Known::Absent,
            _ if entry.auto_delete => Known::Unsure,
            _ if change.restarts < self.restarts && !entry.survives_restart => Known::Unsure,
            _ => Known::Present,
        };
        entry.recorded = (succeeded && !tainted).then_some(change.kind == Kind::Declare);
        if change.kind == Kind::Delete && entry.known == Known::Absent {
            self.dependents(&change.entity, Known::Absent);
        }
    }

    /// The result of the call will not be known. The broker may do it as long as it has this link.
    pub(super) fn doubt(&mut self, change: &Change, link: u64) {
        self.finish(change, false);
        if let Some(entry) = self.entries.get_mut(&change.entity) {
            entry.taint = Some(link);
        }
    }

    /// The session has ended whose last link this was.
    pub(super) fn session_ended(&mut self, link: u64) {
        for entry in self.entries.values_mut() {
            // The next one has declared nothing.
            entry.recorded = Some(false);
            if std::mem::take(&mut entry.busy) || entry.exclusive {
                entry.taint = Some(link);
                entry.known = Known::Unsure;
            }
        }
    }

    /// A link is connected.
    pub(in crate::sim) const fn connected(&mut self) {
        self.restarts_before = self.restarts;
    }

    /// The connection is lost whose link this was, and the session recovers it.
    pub(super) fn lost(&mut self, link: u64) {
        for entry in self.entries.values_mut().filter(|entry| entry.exclusive) {
            (entry.known, entry.taint) = (Known::Unsure, Some(link));
        }
    }

    /// The session has recovered, and has declared again all but these.
    pub(super) fn recovered(&mut self, failed: &[FailedEntity]) {
        let failed: Vec<String> = failed.iter().map(|it| it.entity.to_string()).collect();
        for (entity, entry) in &mut self.entries {
            let name = entity.text();
            let named = failed.iter().any(|it| it.contains(&name));
            let bound = matches!(entity, Entity::Binding { .. }) && !failed.is_empty();
            let certain = entry.taint.is_none() || entry.exclusive;
            if entry.recorded == Some(false) {
                continue;
            }
            if entry.busy || entry.recorded.is_none() {
                // It may have been declared again.
                if entry.known == Known::Absent {
                    entry.known = Known::Unsure;
                }
                continue;
            }
            let lost = self.restarts_before < self.restarts && !entry.survives_restart;
            if named || bound || lost || !certain || entry.auto_delete {
                entry.known = Known::Unsure;
                continue;
            }
            (entry.known, entry.taint) = (Known::Present, None);
        }
    }

    /// The broker has crashed: what is not durable is gone, and so are all connections.
    pub(in crate::sim) fn broker_restarted(&mut self) {
        self.restarts += 1;
        for entry in self.entries.values_mut() {
            entry.taint = None;
            if !entry.survives_restart {
                entry.known = Known::Absent;
            }
        }
    }

    /// Removes the taint of connections that the broker does not have any more.
    pub(super) fn refresh(&mut self, network: &Network) {
        let held = network.links.iter().find(|(_, link)| link.broker.is_some());
        let oldest = held.map_or(u64::MAX, |(number, _)| *number);
        for entry in self.entries.values_mut() {
            if entry.taint.is_some_and(|taint| taint < oldest) {
                entry.taint = None;
            }
        }
    }

    /// Returns whether the broker is likely to have it.
    pub(super) fn has(&self, entity: &Entity) -> bool {
        self.entries.get(entity).is_some_and(|it| it.known != Known::Absent)
    }

    /// Returns whether a message in this queue stays there until it is settled, or the application removes it.
    pub(super) fn stores(&self, queue: &str) -> bool {
        let entry = self.entries.get(&Entity::Queue(queue.to_owned()));
        entry.is_some_and(|it| {
            let certain = it.known == Known::Present && !it.busy && it.taint.is_none();
            certain && it.survives_restart && !it.auto_delete
        })
    }

    /// Returns each entity, as [`Entity::text`] has it, of which it is certain whether the broker has it.
    pub(super) fn certain(&self) -> Vec<(String, bool)> {
        let certain = self.entries.iter().filter(|(entity, entry)| {
            let needs = entity.needs();
            let tainted = |it: &Entity| self.entries.get(it).is_some_and(|it| it.taint.is_some());
            !entry.busy && entry.taint.is_none() && !needs.iter().any(tainted)
        });
        certain
            .filter(|(_, entry)| entry.known != Known::Unsure)
            .map(|(entity, entry)| (entity.text(), entry.known == Known::Present))
            .collect()
    }

    fn dependents(&mut self, entity: &Entity, known: Known) {
        for (other, entry) in &mut self.entries {
            if other.needs().contains(entity) {
                entry.known = known;
                entry.recorded = (known == Known::Absent).then_some(false);
            }
        }
    }
}

impl Entity {
    fn renamed(self, from: &str, to: &str) -> Self {
        let new = |name: String| if name == from { to.to_owned() } else { name };
        match self {
            Self::Queue(name) => Self::Queue(new(name)),
            Self::Binding { exchange, queue, key } => {
                Self::Binding { exchange, queue: new(queue), key }
            }
            exchange @ Self::Exchange(_) => exchange,
        }
    }

    /// Returns the entities without which it cannot be.
    fn needs(&self) -> Vec<Self> {
        match self {
            Self::Binding { exchange, queue, .. } => {
                vec![Self::Exchange(exchange.clone()), Self::Queue(queue.clone())]
            }
            Self::Exchange(_) | Self::Queue(_) => Vec::new(),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Exchange(name) | Self::Queue(name) => name.clone(),
            Self::Binding { exchange, queue, key } => format!("{exchange} -> {queue} ({key})"),
        }
    }
}
