//! The application declares, binds and deletes queues and exchanges. Their names have fixed attributes, so that no declare
//! conflicts with another one.

use amqp_core::{
    ExchangeDeclare, ExchangeDelete, QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};

use super::calls::Call;
use super::mirror::{Change, Entity, Kind, Mirror};
use super::{Application, Context};
use crate::sim::swarm::Work;

/// The queues: name, durable, exclusive, auto-delete. Those at the end are volatile.
const QUEUES: [(&str, bool, bool, bool); 7] = [
    ("q-durable-1", true, false, false),
    ("q-durable-2", true, false, false),
    ("q-durable-3", true, false, false),
    ("q-transient", false, false, false),
    ("q-exclusive", false, true, false),
    ("q-durable-exclusive", true, true, false),
    ("q-auto-delete", false, false, true),
];
const STEADY_QUEUES: usize = 4;

/// The exchanges: name, type, durable, auto-delete.
const EXCHANGES: [(&str, &str, bool, bool); 4] = [
    ("x-durable", "direct", true, false),
    ("x-transient", "direct", false, false),
    ("x-fanout", "fanout", true, false),
    ("x-auto-delete", "direct", true, true),
];

/// The routing keys of bindings.
pub(super) const KEYS: [&str; 2] = ["k1", "k2"];

/// Returns a mirror with all queues and exchanges, none of which the broker has.
pub(super) fn mirror() -> Mirror {
    let mut mirror = Mirror::default();
    for (name, durable, exclusive, auto_delete) in QUEUES {
        mirror.add(Entity::Queue(name.to_owned()), durable, exclusive, auto_delete);
    }
    for (name, _, durable, auto_delete) in EXCHANGES {
        mirror.add(Entity::Exchange(name.to_owned()), durable, false, auto_delete);
    }
    mirror
}

impl Application {
    /// Declares a queue or an exchange, or binds.
    pub(super) fn declare(&mut self, at: usize, cx: &mut Context<'_>) {
        match self.random.below(10) {
            0..=4 => self.declare_queue(at, cx),
            5 if cx.swarm.does(Work::Volatile) && self.named.len() < 3 => {
                let declare = QueueDeclare::new("").exclusive();
                let called = cx.session.channel(self.channels[at].id).call(cx.now, &declare);
                if let Some(call) = self.accepted(at, cx, called) {
                    self.owe(cx, at, Call::Declare(call, None));
                }
            }
            6 | 7 => {
                let (name, kind, durable, auto_delete) = self.random.one_of(&EXCHANGES);
                let declare = ExchangeDeclare::new(name, kind)
                    .durable_if(durable)
                    .auto_delete_if(auto_delete);
                let entity = Entity::Exchange(name.to_owned());
                self.change(at, cx, &entity, Kind::Declare, |this, cx| {
                    let called = cx.session.channel(this.channels[at].id).call(cx.now, &declare);
                    this.accepted(at, cx, called)
                });
            }
            _ => {
                let (entity, binding) = self.binding(cx);
                self.change(at, cx, &entity, Kind::Declare, |this, cx| {
                    let called = cx.session.channel(this.channels[at].id).call(cx.now, &binding);
                    this.accepted(at, cx, called)
                });
            }
        }
    }

    fn declare_queue(&mut self, at: usize, cx: &mut Context<'_>) {
        let count = if cx.swarm.does(Work::Volatile) { QUEUES.len() } else { STEADY_QUEUES };
        let (name, durable, exclusive, auto_delete) = QUEUES[self.random.below(count)];
        let declare = QueueDeclare::new(name)
            .durable_if(durable)
            .exclusive_if(exclusive)
            .auto_delete_if(auto_delete);
        let entity = Entity::Queue(name.to_owned());
        let Some(change) = self.mirror.begin(&entity, Kind::Declare) else { return };
        cx.truth.deleted.remove(name);
        let called = cx.session.channel(self.channels[at].id).call(cx.now, &declare);
        match self.accepted(at, cx, called) {
            Some(call) => self.owe(cx, at, Call::Declare(call, Some(change))),
            None => self.mirror.finish(&change, false),
        }
    }

    /// Deletes, unbinds or purges.
    pub(super) fn remove(&mut self, at: usize, cx: &mut Context<'_>) {
        let id = self.channels[at].id;
        match self.random.below(4) {
            0 | 1 => {
                let (name, ..) = self.random.one_of(&QUEUES);
                let purge = self.random.chance(50);
                let kind = if purge { Kind::Purge } else { Kind::Delete };
                let Some(change) = self.mirror.begin(&Entity::Queue(name.to_owned()), kind) else {
                    return;
                };
                // Messages that it has may be removed from this moment on.
                for published in cx.truth.published.values_mut() {
                    published.stored_in.take_if(|queue| queue == name);
                }
                let mut channel = cx.session.channel(id);
                let called = match purge {
                    true => channel.call(cx.now, &QueuePurge::new(name)),
                    false => channel.call(cx.now, &QueueDelete::new(name)),
                };
                match self.accepted(at, cx, called) {
                    Some(call) => self.owe(cx, at, Call::Count(call, change)),
                    None => self.mirror.finish(&change, false),
                }
            }
            2 => {
                let (name, ..) = self.random.one_of(&EXCHANGES);
                let entity = Entity::Exchange(name.to_owned());
                self.change(at, cx, &entity, Kind::Delete, |this, cx| {
                    let delete = ExchangeDelete::new(name);
                    let called = cx.session.channel(id).call(cx.now, &delete);
                    this.accepted(at, cx, called)
                });
            }
            _ => {
                let (entity, binding) = self.binding(cx);
                self.change(at, cx, &entity, Kind::Delete, |this, cx| {
                    let unbind = amqp_core::requests::QueueUnbind::new(binding);
                    let called = cx.session.channel(id).call(cx.now, &unbind);
                    this.accepted(at, cx, called)
                });
            }
        }
    }

    /// Returns a queue to publish to or to consume from, in most cases one that the broker has.
    pub(super) fn queue(&mut self, cx: &Context<'_>) -> String {
        if !self.named.is_empty() && self.random.chance(20) {
            return self.named[self.random.below(self.named.len())].clone();
        }
        let count = if cx.swarm.does(Work::Volatile) { QUEUES.len() } else { STEADY_QUEUES };
        loop {
            let name = QUEUES[self.random.below(count)].0;
            if self.mirror.has(&Entity::Queue(name.to_owned())) || self.random.chance(5) {
                return name.to_owned();
            }
        }
    }

    /// Returns an exchange to publish to, in most cases one that the broker has.
    pub(super) fn exchange(&mut self) -> &'static str {
        loop {
            let name = self.random.one_of(&EXCHANGES).0;
            if self.mirror.has(&Entity::Exchange(name.to_owned())) || self.random.chance(5) {
                return name;
            }
        }
    }

    /// A delete has succeeded: nobody may declare the name again without being asked to.
    pub(super) fn note_deleted(&self, change: &Change, cx: &mut Context<'_>) {
        if change.kind == Kind::Delete {
            cx.truth.deleted.insert(change.entity.text());
        }
    }

    fn binding(&mut self, cx: &Context<'_>) -> (Entity, QueueBind) {
        let queue = self.queue(cx);
        let exchange = self.exchange();
        let key = self.random.one_of(&KEYS);
        let bind = QueueBind::new(queue.clone(), exchange, key);
        let (exchange, key) = (exchange.to_owned(), key.to_owned());
        (Entity::Binding { exchange, queue, key }, bind)
    }

    /// Makes a call that changes an entity.
    fn change(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        entity: &Entity,
        kind: Kind,
        call: impl FnOnce(&mut Self, &mut Context<'_>) -> Option<amqp_core::Call<()>>,
    ) {
        let Some(change) = self.mirror.begin(entity, kind) else { return };
        if kind == Kind::Declare {
            cx.truth.deleted.remove(&entity.text());
        }
        match call(self, cx) {
            Some(call) => self.owe(cx, at, Call::Change(call, change)),
            None => self.mirror.finish(&change, false),
        }
    }
}
