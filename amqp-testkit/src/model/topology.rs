//! Exchanges, queues and bindings: declared, bound, purged, deleted.

use amqp_proto::method::{exchange, queue};
use amqp_proto::{FieldValue, ReplyCode};

use super::arguments::{QueueArguments, alternate, arguments};
use super::broker::{Broker, ConnectionId, Refusal, no_exchange, no_queue};
use super::channel::{check_owner, text};
use super::connection::short;
use super::queue::Queue;
use super::routing::{Binding, Destination, Exchange, Kind};

impl Broker {
    pub(super) fn exchange_declare(
        &mut self,
        id: ConnectionId,
        number: u16,
        declare: &exchange::Declare<'_>,
    ) -> Result<(), Refusal> {
        let alternate = alternate(&arguments(declare.arguments)?);
        let name = text(declare.exchange);
        let kind = Kind::from_name(declare.r#type.as_bytes());
        match (self.exchanges.get(&name), kind) {
            (None, _) if declare.passive && !name.is_empty() => return Err(no_exchange(&name)),
            (Some(_), _) if declare.passive => {}
            (_, None) if !declare.passive => {
                let text = format!("unknown exchange type '{}'", declare.r#type);
                return Err(Refusal::connection(ReplyCode::COMMAND_INVALID, text));
            }
            _ if name.is_empty() => return Err(default_exchange()),
            (Some(found), kind) => {
                let asked = (kind, declare.durable, declare.auto_delete, declare.internal);
                let found = (Some(found.kind), found.durable, found.auto_delete, found.internal);
                if asked != found {
                    return Err(inequivalent("exchange", &name));
                }
            }
            (None, _) if name.starts_with("amq.") => return Err(reserved("exchange", &name)),
            (None, None) => return Err(no_exchange(&name)),
            (None, Some(kind)) => {
                let exchange = Exchange {
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    alternate,
                    ..Exchange::new(kind)
                };
                self.exchanges.insert(name, exchange);
            }
        }
        self.answer(id, number, declare.no_wait, &exchange::DeclareOk::default());
        Ok(())
    }

    pub(super) fn exchange_delete(
        &mut self,
        id: ConnectionId,
        number: u16,
        delete: &exchange::Delete<'_>,
    ) -> Result<(), Refusal> {
        let name = text(delete.exchange);
        if name.is_empty() || name.starts_with("amq.") {
            return Err(reserved("exchange", &name));
        }
        let used = self.exchanges.get(&name).is_some_and(|found| !found.bindings.is_empty());
        if delete.if_unused && used {
            let text = format!("exchange '{name}' in vhost '/' in use");
            return Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text));
        }
        self.delete_exchange(&name);
        self.answer(id, number, delete.no_wait, &exchange::DeleteOk::default());
        Ok(())
    }

    pub(super) fn exchange_bind(
        &mut self,
        id: ConnectionId,
        number: u16,
        bind: &exchange::Bind<'_>,
    ) -> Result<(), Refusal> {
        let (source, destination) = (text(bind.source), text(bind.destination));
        if source.is_empty() || destination.is_empty() {
            return Err(default_exchange());
        }
        for name in [&source, &destination] {
            if !self.exchanges.contains_key(name) {
                return Err(no_exchange(name));
            }
        }
        let arguments = arguments(bind.arguments)?;
        if let Some(exchange) = self.exchanges.get_mut(&source) {
            let destination = Destination::Exchange(destination);
            exchange.bind(Binding { destination, key: text(bind.routing_key), arguments });
        }
        self.answer(id, number, bind.no_wait, &exchange::BindOk::default());
        Ok(())
    }

    pub(super) fn exchange_unbind(
        &mut self,
        id: ConnectionId,
        number: u16,
        unbind: &exchange::Unbind<'_>,
    ) -> Result<(), Refusal> {
        let (arguments, source) = (arguments(unbind.arguments)?, text(unbind.source));
        let destination = Destination::Exchange(text(unbind.destination));
        let gone = Binding { destination, key: text(unbind.routing_key), arguments };
        self.remove_bindings(|exchange, binding| exchange == source && *binding == gone);
        self.answer(id, number, unbind.no_wait, &exchange::UnbindOk::default());
        Ok(())
    }

    pub(super) fn queue_declare(
        &mut self,
        id: ConnectionId,
        number: u16,
        declare: &queue::Declare<'_>,
    ) -> Result<(), Refusal> {
        let mut name = text(declare.queue);
        let asked = match declare.passive {
            true => QueueArguments::default(),
            false => QueueArguments::new(&name, &arguments(declare.arguments)?)?,
        };
        if name.is_empty() && declare.passive {
            name = self.named_queue(id, number, declare.queue)?;
        }
        match self.queues.get(&name) {
            None if declare.passive => return Err(no_queue(&name)),
            None => {
                if name.is_empty() {
                    name = self.server_queue_name();
                } else if name.starts_with("amq.") {
                    return Err(reserved("queue", &name));
                }
                let queue = Queue {
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    exclusive: declare.exclusive.then_some(id),
                    arguments: asked,
                    ..Queue::default()
                };
                self.queues.insert(name.clone(), queue);
            }
            Some(found) => {
                check_owner(found, &name, id)?;
                if !declare.passive {
                    if declare.exclusive != found.exclusive.is_some() {
                        return Err(locked(&name));
                    }
                    let same = (declare.durable, declare.auto_delete, &asked)
                        == (found.durable, found.auto_delete, &found.arguments);
                    if !same {
                        return Err(inequivalent("queue", &name));
                    }
                }
            }
        }
        let (message_count, consumer_count) = self
            .queues
            .get(&name)
            .map_or((0, 0), |queue| (queue.ready.len() as u32, queue.consumers.len() as u32));
        let declare_ok =
            queue::DeclareOk { queue: short(name.as_bytes()), message_count, consumer_count };
        self.answer(id, number, declare.no_wait, &declare_ok);
        if let Some(channel) = self.channel(id, number) {
            channel.last_queue = name;
        }
        Ok(())
    }

    pub(super) fn queue_bind(
        &mut self,
        id: ConnectionId,
        number: u16,
        bind: &queue::Bind<'_>,
    ) -> Result<(), Refusal> {
        let arguments = arguments(bind.arguments)?;
        let name = self.named_queue(id, number, bind.queue)?;
        if bind.exchange.is_empty() {
            return Err(default_exchange());
        }
        let exchange = text(bind.exchange);
        // RabbitMQ names the exchange first.
        let Some(found) = self.exchanges.get_mut(&exchange) else {
            return Err(no_exchange(&exchange));
        };
        let Some(queue) = self.queues.get(&name) else { return Err(no_queue(&name)) };
        check_owner(queue, &name, id)?;
        let how = arguments.get("x-match").and_then(FieldValue::as_str).unwrap_or("all");
        if found.kind == Kind::Headers && !matches!(how, "all" | "any") {
            return Err(Refusal::not_implemented(&format!("x-match={how}")));
        }
        let destination = Destination::Queue(name);
        found.bind(Binding { destination, key: text(bind.routing_key), arguments });
        self.answer(id, number, bind.no_wait, &queue::BindOk::default());
        Ok(())
    }

    pub(super) fn queue_unbind(
        &mut self,
        id: ConnectionId,
        number: u16,
        unbind: &queue::Unbind<'_>,
    ) -> Result<(), Refusal> {
        let arguments = arguments(unbind.arguments)?;
        let destination = Destination::Queue(self.named_queue(id, number, unbind.queue)?);
        let gone = Binding { destination, key: text(unbind.routing_key), arguments };
        let source = text(unbind.exchange);
        self.remove_bindings(|exchange, binding| exchange == source && *binding == gone);
        self.answer(id, number, false, &queue::UnbindOk::default());
        Ok(())
    }

    pub(super) fn queue_purge(
        &mut self,
        id: ConnectionId,
        number: u16,
        purge: &queue::Purge<'_>,
    ) -> Result<(), Refusal> {
        let name = self.named_queue(id, number, purge.queue)?;
        let Some(queue) = self.queues.get_mut(&name) else { return Err(no_queue(&name)) };
        check_owner(queue, &name, id)?;
        let message_count = queue.ready.len() as u32;
        queue.ready.clear();
        self.answer(id, number, purge.no_wait, &queue::PurgeOk { message_count });
        Ok(())
    }

    pub(super) fn queue_delete(
        &mut self,
        id: ConnectionId,
        number: u16,
        delete: &queue::Delete<'_>,
    ) -> Result<(), Refusal> {
        let name = self.named_queue(id, number, delete.queue)?;
        if let Some(queue) = self.queues.get(&name) {
            check_owner(queue, &name, id)?;
            let refused = (delete.if_unused && !queue.consumers.is_empty())
                || (delete.if_empty && !queue.ready.is_empty());
            if refused {
                let text = format!("queue '{name}' in vhost '/' is not unused and empty");
                return Err(Refusal::channel(ReplyCode::PRECONDITION_FAILED, text));
            }
        }
        let message_count = self.delete_queue(&name).unwrap_or(0);
        self.answer(id, number, delete.no_wait, &queue::DeleteOk { message_count });
        Ok(())
    }
}

pub(super) fn locked(name: &str) -> Refusal {
    let text = format!("cannot obtain exclusive access to locked queue '{name}' in vhost '/'");
    Refusal::channel(ReplyCode::RESOURCE_LOCKED, text)
}

fn default_exchange() -> Refusal {
    let text = "operation not permitted on the default exchange";
    Refusal::channel(ReplyCode::ACCESS_REFUSED, text)
}

fn reserved(what: &str, name: &str) -> Refusal {
    let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
    Refusal::channel(ReplyCode::ACCESS_REFUSED, text)
}

fn inequivalent(what: &str, name: &str) -> Refusal {
    let text = format!("inequivalent arg for {what} '{name}' in vhost '/'");
    Refusal::channel(ReplyCode::PRECONDITION_FAILED, text)
}
