//! A plain list of everything that was declared, searched from its start for each change.

use amqp_proto::{FieldTable, FieldValue};
use proptest::prelude::*;

use super::consumer;
use crate::request::{
    Change, ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, QueueBind, QueueDeclare,
    QueueDelete, QueueUnbind,
};
use crate::topology::Topology;

/// What may happen to a connection.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Confirm { change: Change, declared: Option<&'static str>, last_queue: Option<&'static str> },
    Started(u32, &'static str),
    Ended(u32),
    Cancelled(u32),
    Lost(u32),
    Renamed(&'static str, &'static str),
}

impl Action {
    pub(super) fn apply(&self, topology: &mut Topology) {
        match self {
            Self::Confirm { change, declared, last_queue } => {
                topology.apply(change.clone(), *declared, *last_queue);
            }
            Self::Started(key, queue) => topology.consumer_started(consumer(*key), queue),
            Self::Ended(key) => topology.consumer_ended(consumer(*key)),
            Self::Cancelled(key) => topology.consumer_cancelled(consumer(*key)),
            Self::Lost(key) => topology.consumer_lost(consumer(*key)),
            Self::Renamed(from, to) => topology.rename(from, to),
        }
    }
}

/// Few names, so that much happens to each.
pub(super) fn any_action() -> impl Strategy<Value = Action> {
    let exchange = || prop::sample::select(vec!["a", "b", "c", "amq.topic"]);
    let queue = || prop::sample::select(vec!["q", "r", "s1", "s2"]);
    let maybe_queue = || prop::sample::select(vec!["q", "r", "s1", "s2", "", ""]);
    let key = || prop::sample::select(vec!["", "k", "s1"]);
    let last = || prop::option::of(queue());
    let arguments = || {
        let tables: [&[(&str, FieldValue)]; 4] = [
            &[],
            &[("x", 1.into()), ("y", 2.into())],
            &[("y", 2.into()), ("x", 1.into())],
            &[("x", FieldValue::I64(1)), ("y", 2.into())],
        ];
        let tables = tables.map(|fields| fields.iter().cloned().collect::<FieldTable>());
        prop::sample::select(tables.to_vec())
    };
    let bind_exchange = move || {
        (exchange(), exchange(), key(), arguments()).prop_map(|(to, from, key, arguments)| {
            ExchangeBind { arguments, ..ExchangeBind::new(to, from, key) }
        })
    };
    let bind_queue = move || {
        (maybe_queue(), exchange(), key(), arguments()).prop_map(|(to, from, key, arguments)| {
            QueueBind { arguments, ..QueueBind::new(to, from, key) }
        })
    };
    let confirm = |change: Change| Action::Confirm { change, declared: None, last_queue: None };
    let on_queue = |(change, last_queue): (Change, Option<&'static str>)| Action::Confirm {
        change,
        declared: None,
        last_queue,
    };
    prop_oneof![
        3 => (exchange(), any::<bool>(), any::<bool>()).prop_map(move |(name, auto, durable)| {
            let declare = ExchangeDeclare::topic(name).auto_delete_if(auto).durable_if(durable);
            confirm(Change::ExchangeDeclare(declare))
        }),
        1 => exchange().prop_map(move |name| {
            confirm(Change::ExchangeDelete(ExchangeDelete::new(name)))
        }),
        3 => bind_exchange().prop_map(move |bind| confirm(Change::ExchangeBind(bind))),
        2 => bind_exchange().prop_map(move |bind| {
            confirm(Change::ExchangeUnbind(ExchangeUnbind::new(bind)))
        }),
        4 => (queue(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(name, chosen, auto, durable)| {
                let requested = if chosen { "" } else { name };
                let declare = QueueDeclare::new(requested).auto_delete_if(auto).durable_if(durable);
                let change = Change::QueueDeclare(declare);
                Action::Confirm { change, declared: Some(name), last_queue: None }
            },
        ),
        1 => (maybe_queue(), last()).prop_map(move |(name, last)| {
            on_queue((Change::QueueDelete(QueueDelete::new(name)), last))
        }),
        4 => (bind_queue().prop_map(Change::QueueBind), last()).prop_map(on_queue),
        2 => (bind_queue(), last()).prop_map(move |(bind, last)| {
            on_queue((Change::QueueUnbind(QueueUnbind::new(bind)), last))
        }),
        2 => (0..4_u32, queue()).prop_map(|(key, queue)| Action::Started(key, queue)),
        1 => (0..4_u32).prop_map(Action::Ended),
        1 => (0..4_u32).prop_map(Action::Cancelled),
        1 => (0..4_u32).prop_map(Action::Lost),
        1 => (queue(), queue()).prop_map(|(from, to)| Action::Renamed(from, to)),
    ]
}

#[derive(Clone, Debug)]
enum Thing {
    Exchange(ExchangeDeclare),
    ExchangeBinding(ExchangeBind),
    Queue(String, QueueDeclare),
    /// Whether the routing key is the name of the queue.
    QueueBinding(QueueBind, bool),
}

/// Things in the order of their first declaration; consumers and their queues.
#[derive(Debug, Default)]
pub(super) struct Model {
    things: Vec<Thing>,
    consumers: Vec<(u32, String)>,
}

impl Model {
    pub(super) fn apply(&mut self, action: &Action) {
        match action {
            Action::Confirm { change, declared, last_queue } => {
                self.confirm(change.clone(), *declared, *last_queue);
            }
            Action::Started(key, queue) => {
                self.leave(*key);
                self.consumers.push((*key, (*queue).to_owned()));
            }
            Action::Ended(key) => {
                let Some(queue) = self.leave(*key) else { return };
                let has_more = self.consumers.iter().any(|it| it.1 == queue);
                let goes = |it: &Thing| match it {
                    Thing::Queue(name, declare) => *name == queue && declare.auto_delete,
                    _ => false,
                };
                if !has_more && self.things.iter().any(goes) {
                    self.delete_queue(&queue);
                }
            }
            Action::Cancelled(key) => {
                if let Some(queue) = self.leave(*key) {
                    self.delete_queue(&queue);
                }
            }
            Action::Lost(key) => {
                self.leave(*key);
            }
            Action::Renamed(from, to) => self.rename(from, to),
        }
    }

    /// How a report names each thing, and its request.
    pub(super) fn requests(&self) -> Vec<(String, Change)> {
        let of_stage = |stage: usize| {
            self.things.iter().filter_map(move |thing| match (stage, thing) {
                (0, Thing::Exchange(declare)) => Some((
                    format!("exchange {:?}", declare.exchange),
                    Change::ExchangeDeclare(declare.clone()),
                )),
                (1, Thing::ExchangeBinding(bind)) => {
                    let ExchangeBind { destination, source, routing_key, .. } = bind;
                    let text = format!(
                        "binding of exchange {destination:?} to exchange {source:?} with routing key {routing_key:?}"
                    );
                    Some((text, Change::ExchangeBind(bind.clone())))
                }
                (2, Thing::Queue(name, declare)) => {
                    Some((format!("queue {name:?}"), Change::QueueDeclare(declare.clone())))
                }
                (3, Thing::QueueBinding(bind, _)) => {
                    let QueueBind { queue, exchange, routing_key, .. } = bind;
                    let text = format!(
                        "binding of queue {queue:?} to exchange {exchange:?} with routing key {routing_key:?}"
                    );
                    Some((text, Change::QueueBind(bind.clone())))
                }
                _ => None,
            })
        };
        (0..4).flat_map(of_stage).collect()
    }

    fn confirm(&mut self, change: Change, declared: Option<&str>, last_queue: Option<&str>) {
        let named = |queue: &str| match queue {
            "" => last_queue.map(str::to_owned),
            name => Some(name.to_owned()),
        };
        let resolved = |mut bind: QueueBind| {
            let keyed_by_name = bind.queue.is_empty() && bind.routing_key.is_empty();
            bind.queue = named(&bind.queue)?;
            if keyed_by_name {
                bind.routing_key = bind.queue.clone();
            }
            Some((bind, keyed_by_name))
        };
        match change {
            Change::ExchangeDeclare(declare) => self.declare_exchange(declare),
            Change::ExchangeDelete(delete) => self.delete_exchange(&delete.exchange),
            Change::ExchangeBind(bind) => {
                if !self.things.iter().any(|it| binds_exchange(it, &bind)) {
                    self.things.push(Thing::ExchangeBinding(bind));
                }
            }
            Change::ExchangeUnbind(unbind) => {
                self.remove(|it| binds_exchange(it, &unbind.binding));
            }
            Change::QueueDeclare(declare) => {
                let name = declared.unwrap_or(&declare.queue).to_owned();
                self.declare_queue(name, declare);
            }
            Change::QueueDelete(delete) => {
                if let Some(queue) = named(&delete.queue) {
                    self.delete_queue(&queue);
                }
            }
            Change::QueueBind(bind) => {
                if let Some((bind, keyed_by_name)) = resolved(bind)
                    && !self.things.iter().any(|it| binds_queue(it, &bind))
                {
                    self.things.push(Thing::QueueBinding(bind, keyed_by_name));
                }
            }
            Change::QueueUnbind(unbind) => {
                if let Some((bind, _)) = resolved(unbind.binding) {
                    self.remove(|it| binds_queue(it, &bind));
                }
            }
        }
    }

    fn declare_exchange(&mut self, declare: ExchangeDeclare) {
        if declare.exchange.starts_with("amq.") {
            return;
        }
        let same =
            |it: &&mut Thing| matches!(it, Thing::Exchange(it) if it.exchange == declare.exchange);
        match self.things.iter_mut().find(same) {
            Some(known) => *known = Thing::Exchange(declare),
            None => self.things.push(Thing::Exchange(declare)),
        }
    }

    /// It keeps its empty name if the broker chose the name once.
    fn declare_queue(&mut self, name: String, mut declare: QueueDeclare) {
        let same = |it: &&mut Thing| matches!(it, Thing::Queue(known, _) if *known == name);
        match self.things.iter_mut().find(same) {
            Some(Thing::Queue(_, known)) => {
                if known.queue.is_empty() {
                    declare.queue.clear();
                }
                *known = declare;
            }
            _ => self.things.push(Thing::Queue(name, declare)),
        }
    }

    fn delete_queue(&mut self, queue: &str) {
        self.consumers.retain(|it| it.1 != queue);
        self.remove(|it| match it {
            Thing::Queue(name, _) => name == queue,
            Thing::QueueBinding(bind, _) => bind.queue == queue,
            _ => false,
        });
    }

    fn delete_exchange(&mut self, exchange: &str) {
        self.remove(|it| match it {
            Thing::Exchange(declare) => declare.exchange == exchange,
            Thing::ExchangeBinding(bind) => bind.source == exchange || bind.destination == exchange,
            Thing::QueueBinding(bind, _) => bind.exchange == exchange,
            Thing::Queue(..) => false,
        });
    }

    /// Removes things. An auto-delete exchange goes if it had a binding before, and has none after.
    fn remove(&mut self, goes: impl Fn(&Thing) -> bool) {
        let (gone, left): (Vec<_>, Vec<_>) = self.things.drain(..).partition(goes);
        self.things = left;
        for thing in gone {
            let Some(source) = source(&thing) else { continue };
            let is_bound = self.things.iter().any(|it| self::source(it) == Some(source));
            let auto = self.things.iter().any(|it| match it {
                Thing::Exchange(declare) => declare.exchange == source && declare.auto_delete,
                _ => false,
            });
            if auto && !is_bound {
                self.delete_exchange(source);
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let is_known = |it: &Thing| match it {
            Thing::Queue(name, declare) => name == from && declare.queue.is_empty(),
            _ => false,
        };
        if from == to || !self.things.iter().any(is_known) {
            return;
        }
        self.things.retain(|it| !matches!(it, Thing::Queue(name, _) if name == to));
        for (_, queue) in self.consumers.iter_mut().filter(|it| it.1 == from) {
            to.clone_into(queue);
        }
        let (mut index, mut renamed) = (0, Vec::new());
        while let Some(thing) = self.things.get_mut(index) {
            match thing {
                Thing::Queue(name, _) if name == from => to.clone_into(name),
                Thing::QueueBinding(bind, keyed_by_name) if bind.queue == from => {
                    to.clone_into(&mut bind.queue);
                    if *keyed_by_name {
                        to.clone_into(&mut bind.routing_key);
                    }
                    renamed.push(index);
                }
                _ => {}
            }
            index += 1;
        }
        // Two bindings may have become equal: the renamed one goes, the later one of two.
        let mut dropped = Vec::new();
        for index in &renamed {
            let Thing::QueueBinding(bind, _) = &self.things[*index] else { continue };
            let equal = |other: &usize| {
                let settled = !renamed.contains(other) || other < index;
                settled && !dropped.contains(other) && binds_queue(&self.things[*other], bind)
            };
            if (0..self.things.len()).filter(|other| other != index).any(|other| equal(&other)) {
                dropped.push(*index);
            }
        }
        for index in dropped.into_iter().rev() {
            self.things.remove(index);
        }
    }

    fn leave(&mut self, key: u32) -> Option<String> {
        let index = self.consumers.iter().position(|it| it.0 == key)?;
        Some(self.consumers.remove(index).1)
    }
}

/// The exchange to which it is bound.
fn source(thing: &Thing) -> Option<&str> {
    match thing {
        Thing::ExchangeBinding(bind) => Some(&bind.source),
        Thing::QueueBinding(bind, _) => Some(&bind.exchange),
        Thing::Exchange(_) | Thing::Queue(..) => None,
    }
}

fn binds_exchange(thing: &Thing, other: &ExchangeBind) -> bool {
    let Thing::ExchangeBinding(bind) = thing else { return false };
    (&bind.destination, &bind.source, &bind.routing_key)
        == (&other.destination, &other.source, &other.routing_key)
        && are_equal(&bind.arguments, &other.arguments)
}

fn binds_queue(thing: &Thing, other: &QueueBind) -> bool {
    let Thing::QueueBinding(bind, _) = thing else { return false };
    (&bind.queue, &bind.exchange, &bind.routing_key)
        == (&other.queue, &other.exchange, &other.routing_key)
        && are_equal(&bind.arguments, &other.arguments)
}

/// Their order does not count.
fn are_equal(one: &FieldTable, other: &FieldTable) -> bool {
    one.len() == other.len() && one.iter().all(|(name, value)| other.get(name) == Some(value))
}
