//! What the application has declared on a connection, to be declared again on the next one.
//!
//! **What is recorded.** Exchanges, queues and bindings, when the broker has confirmed them. They belong to the
//! connection: it does not matter whether the channel that declared them is still open. Exclusive queues and those that
//! do not survive a restart are recorded like others. What only checks (passive declarations) is not, nor are the
//! exchanges that every broker has. Declaring a name again replaces the request and keeps its place.
//!
//! **What is forgotten.** What the application deletes or unbinds, and what the broker deletes with it:
//! * With a queue or an exchange, its bindings.
//! * With the last binding to an auto-delete exchange, the exchange, which may leave other exchanges without bindings.
//! * With the last consumer of an auto-delete queue, the queue.
//! * A queue whose consumer the broker cancels: it was deleted, or its node is down. A durable queue on that node comes
//!   back with it, undeclared.
//!
//! Only bindings and consumers of this connection are known. If those of other connections keep an exchange or a queue
//! alive, it is forgotten nevertheless, as the clients for Java and .NET do. Either it still exists after a loss, so that
//! nothing is missing, or the broker has deleted it, so that declaring it would bring back what should be gone.
//!
//! **Order.** Exchanges, bindings of exchanges, queues, bindings of queues; among each, in the order of their first
//! declaration. Those of one kind do not depend on each other.
//!
//! **Names.** A queue whose name the broker chose has another name on the next connection. It is recorded under its name
//! and declared with an empty one. Its bindings and consumers follow when it is renamed.
//!
//! The record holds only what is declared and not deleted. No change searches through it.

mod bindings;
mod consumers;
mod entity;
mod named;

use amqp_proto::FieldTable;

use crate::config::Recovery;
use crate::costs::count;
use crate::ids::ConsumerKey;
use crate::request::sealed::Request;
use crate::request::{
    Change, ExchangeBind, ExchangeDeclare, QueueBind, QueueDeclare, QueueUnbind, kept_name,
};

use bindings::{Binding, Bindings};
use consumers::Consumers;
use named::Named;

pub use entity::{FailedEntity, TopologyEntity};

/// The record of one connection.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    exchanges: Named<ExchangeDeclare>,
    exchange_bindings: Bindings<ExchangeBind>,
    /// Requests with an empty name are of queues whose name the broker chose.
    queues: Named<QueueDeclare>,
    queue_bindings: Bindings<BoundQueue>,
    consumers: Consumers,
}

/// One declaration to be sent. It is the same one after a queue was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) stage: Stage,
    position: u64,
}

/// The kinds of declarations, in their order. A declaration may need those of earlier stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Exchanges,
    ExchangeBindings,
    Queues,
    QueueBindings,
}

/// What a step declares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Declaration<'a> {
    Exchange { name: &'a str, declare: &'a ExchangeDeclare },
    ExchangeBinding(&'a ExchangeBind),
    Queue { name: &'a str, declare: &'a QueueDeclare },
    QueueBinding(&'a QueueBind),
}

impl Topology {
    /// Records a change that the broker has confirmed. `declared` is the name in `queue.declare-ok`. `last_queue` is the
    /// queue that was declared last on the channel, which an empty name means.
    pub(crate) fn apply(
        &mut self,
        change: Change,
        declared: Option<&str>,
        last_queue: Option<&str>,
    ) {
        match change {
            Change::ExchangeDeclare(declare) => {
                let name = kept_name(&declare.exchange);
                if !is_predeclared(&name) {
                    self.exchanges.insert(name, declare);
                }
            }
            Change::ExchangeDelete(delete) => self.forget_exchange(kept_name(&delete.exchange)),
            Change::ExchangeBind(bind) => self.exchange_bindings.insert(kept_exchanges(bind)),
            Change::ExchangeUnbind(unbind) => {
                let binding = kept_exchanges(unbind.binding);
                if self.exchange_bindings.remove(&binding) {
                    self.forget_unused(vec![binding.source]);
                }
            }
            Change::QueueDeclare(declare) => self.queue_declared(declare, declared),
            Change::QueueDelete(delete) => {
                if let Some(queue) = kept_queue(&delete.queue, last_queue) {
                    self.forget_queue(&queue);
                }
            }
            Change::QueueBind(bind) => {
                if let Some(binding) = BoundQueue::new(bind, last_queue) {
                    self.queue_bindings.insert(binding);
                }
            }
            Change::QueueUnbind(QueueUnbind { binding }) => {
                if let Some(binding) = BoundQueue::new(binding, last_queue)
                    && self.queue_bindings.remove(&binding)
                {
                    self.forget_unused(vec![binding.bind.exchange]);
                }
            }
        }
    }

    /// A consumer has started on a queue, on this or on the next connection.
    pub(crate) fn consumer_started(&mut self, consumer: ConsumerKey, queue: &str) {
        self.consumers.insert(consumer, kept_name(queue));
    }

    /// A consumer has ended: it was cancelled by the application, or its channel was closed.
    pub(crate) fn consumer_ended(&mut self, consumer: ConsumerKey) {
        let Some(queue) = self.consumers.remove(consumer) else { return };
        let auto_delete = self.queues.find(&queue).is_some_and(|it| it.auto_delete);
        if auto_delete && !self.consumers.has_queue(&queue) {
            self.forget_queue(&queue);
        }
    }

    /// The broker has cancelled a consumer, because its queue is gone. If the application has deleted that queue, or
    /// declared it anew since, nothing changes.
    pub(crate) fn consumer_cancelled(&mut self, consumer: ConsumerKey) {
        if let Some(queue) = self.consumers.remove(consumer) {
            self.forget_queue(&queue);
        }
    }

    /// A consumer has ended with its connection, or could not be started on the next one. Its queue stays recorded.
    pub(crate) fn consumer_lost(&mut self, consumer: ConsumerKey) {
        self.consumers.remove(consumer);
    }

    /// The broker has chosen another name for a queue whose name it chose before. Its bindings and consumers follow.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let chosen = self.queues.find(from).is_some_and(|queue| queue.queue.is_empty());
        if chosen && from != to && !to.is_empty() {
            self.queues.rename(from, to);
            self.queue_bindings.rename(from, to);
            self.consumers.rename(from, to);
        }
    }

    /// Returns the declarations to be sent, in their order, without those that the policy skips.
    pub(crate) fn steps(&self, recovery: &Recovery) -> Vec<Step> {
        if !recovery.topology {
            return Vec::new();
        }
        let skips_exchange = |name: &str| recovery.skips_exchange(name);
        let step = |stage| move |position| Step { stage, position };
        let exchanges = self.exchanges.iter().filter(|(_, name)| !skips_exchange(name));
        let exchange_bindings = self.exchange_bindings.iter().filter(|(_, binding)| {
            !skips_exchange(&binding.source) && !skips_exchange(&binding.destination)
        });
        let queues = self.queues.iter().filter(|(_, name)| !recovery.skips_queue(name));
        let queue_bindings = self.queue_bindings.iter().filter(|(_, BoundQueue { bind, .. })| {
            !skips_exchange(&bind.exchange) && !recovery.skips_queue(&bind.queue)
        });
        exchanges
            .map(|(position, _)| position)
            .map(step(Stage::Exchanges))
            .chain(exchange_bindings.map(|it| it.0).map(step(Stage::ExchangeBindings)))
            .chain(queues.map(|it| it.0).map(step(Stage::Queues)))
            .chain(queue_bindings.map(|it| it.0).map(step(Stage::QueueBindings)))
            .inspect(|_| count(1))
            .collect()
    }

    /// Returns what a step declares, or `None` if that was deleted meanwhile.
    pub(crate) fn declaration(&self, step: Step) -> Option<Declaration<'_>> {
        let position = step.position;
        Some(match step.stage {
            Stage::Exchanges => {
                let (name, declare) = self.exchanges.at(position)?;
                Declaration::Exchange { name, declare }
            }
            Stage::ExchangeBindings => {
                Declaration::ExchangeBinding(self.exchange_bindings.at(position)?)
            }
            Stage::Queues => {
                let (name, declare) = self.queues.at(position)?;
                Declaration::Queue { name, declare }
            }
            Stage::QueueBindings => {
                Declaration::QueueBinding(&self.queue_bindings.at(position)?.bind)
            }
        })
    }

    fn queue_declared(&mut self, mut declare: QueueDeclare, declared: Option<&str>) {
        let requested = kept_name(&declare.queue);
        let name = declared.map_or_else(|| requested.clone(), str::to_owned);
        if name.is_empty() {
            return;
        }
        // The application may declare it by the name that the broker chose.
        let chosen = self.queues.find(&name).is_some_and(|queue| queue.queue.is_empty());
        if requested.is_empty() || chosen {
            declare.queue.clear();
        }
        self.queues.insert(name, declare);
    }

    fn forget_queue(&mut self, queue: &str) {
        self.queues.remove(queue);
        self.consumers.remove_from(queue);
        let sources = self.queue_bindings.remove_to(queue);
        self.forget_unused(sources);
    }

    fn forget_exchange(&mut self, exchange: String) {
        let mut gone = vec![exchange];
        while let Some(exchange) = gone.pop() {
            count(1);
            self.exchanges.remove(&exchange);
            self.queue_bindings.remove_from(&exchange);
            self.exchange_bindings.remove_from(&exchange);
            let sources = self.exchange_bindings.remove_to(&exchange);
            gone.extend(sources.into_iter().filter(|source| self.is_unused(source)));
        }
    }

    /// Forgets auto-delete exchanges to which nothing is bound any more.
    fn forget_unused(&mut self, exchanges: Vec<String>) {
        for exchange in exchanges {
            count(1);
            if self.is_unused(&exchange) {
                self.forget_exchange(exchange);
            }
        }
    }

    /// Whether an exchange is deleted because it has lost its last binding.
    fn is_unused(&self, exchange: &str) -> bool {
        self.exchanges.find(exchange).is_some_and(|it| it.auto_delete)
            && !self.queue_bindings.has_source(exchange)
            && !self.exchange_bindings.has_source(exchange)
    }
}

impl<'a> Declaration<'a> {
    /// The request to be sent.
    pub(crate) fn request(&self) -> &'a dyn Request {
        match *self {
            Self::Exchange { declare, .. } => declare,
            Self::ExchangeBinding(bind) => bind,
            Self::Queue { declare, .. } => declare,
            Self::QueueBinding(bind) => bind,
        }
    }

    /// The name of a queue that has another one from now on: to be [renamed](Topology::rename) when it is declared.
    pub(crate) fn former_name(&self) -> Option<&'a str> {
        match *self {
            Self::Queue { name, declare } => declare.queue.is_empty().then_some(name),
            _ => None,
        }
    }

    /// How it is named in a report.
    pub(crate) fn entity(&self) -> TopologyEntity {
        match *self {
            Self::Exchange { name, .. } => TopologyEntity::Exchange { name: name.to_owned() },
            Self::ExchangeBinding(bind) => TopologyEntity::ExchangeBinding {
                destination: bind.destination.clone(),
                source: bind.source.clone(),
                routing_key: bind.routing_key.clone(),
            },
            Self::Queue { name, .. } => TopologyEntity::Queue { name: name.to_owned() },
            Self::QueueBinding(bind) => TopologyEntity::QueueBinding {
                queue: bind.queue.clone(),
                exchange: bind.exchange.clone(),
                routing_key: bind.routing_key.clone(),
            },
        }
    }
}

/// A binding of a queue, with the name of the queue.
#[derive(Debug)]
struct BoundQueue {
    bind: QueueBind,
    /// Whether the routing key is the name of the queue, because both were empty in the request (AMQP 0-9-1, 1.7.2.3).
    keyed_by_name: bool,
}

impl BoundQueue {
    fn new(mut bind: QueueBind, last_queue: Option<&str>) -> Option<Self> {
        let queue = kept_queue(&bind.queue, last_queue)?;
        let keyed_by_name = bind.queue.is_empty() && bind.routing_key.is_empty();
        if keyed_by_name {
            bind.routing_key.clone_from(&queue);
        }
        bind.queue = queue;
        bind.exchange = kept_name(&bind.exchange);
        Some(Self { bind, keyed_by_name })
    }
}

impl Binding for BoundQueue {
    fn source(&self) -> &str {
        &self.bind.exchange
    }

    fn destination(&self) -> &str {
        &self.bind.queue
    }

    fn routing_key(&self) -> &str {
        &self.bind.routing_key
    }

    fn arguments(&self) -> &FieldTable {
        &self.bind.arguments
    }

    fn set_destination(&mut self, name: &str) {
        name.clone_into(&mut self.bind.queue);
        if self.keyed_by_name {
            name.clone_into(&mut self.bind.routing_key);
        }
    }
}

impl Binding for ExchangeBind {
    fn source(&self) -> &str {
        &self.source
    }

    fn destination(&self) -> &str {
        &self.destination
    }

    fn routing_key(&self) -> &str {
        &self.routing_key
    }

    fn arguments(&self) -> &FieldTable {
        &self.arguments
    }

    fn set_destination(&mut self, name: &str) {
        name.clone_into(&mut self.destination);
    }
}

/// Whether every broker has this exchange.
fn is_predeclared(exchange: &str) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

/// The queue that a request names: an empty name means the last one that was declared on the channel.
fn kept_queue(queue: &str, last_queue: Option<&str>) -> Option<String> {
    match kept_name(queue) {
        name if name.is_empty() => last_queue.filter(|it| !it.is_empty()).map(str::to_owned),
        name => Some(name),
    }
}

fn kept_exchanges(mut bind: ExchangeBind) -> ExchangeBind {
    bind.source = kept_name(&bind.source);
    bind.destination = kept_name(&bind.destination);
    bind
}

#[cfg(test)]
mod tests;
