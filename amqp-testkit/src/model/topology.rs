//! Exchanges, queues and bindings: declared, bound, purged, deleted.

use amqp_proto::ReplyCode;
use amqp_proto::method::{exchange, queue};

use super::broker::{Broker, ConnectionId, Exchange, Refusal, no_exchange, no_queue};
use super::channel::{check_owner, no_arguments, text};
use super::connection::short;
use super::queue::Queue;

impl Broker {
    pub(super) fn exchange_declare(
        &mut self,
        id: ConnectionId,
        number: u16,
        declare: &exchange::Declare<'_>,
    ) -> Result<(), Refusal> {
        no_arguments(declare.arguments)?;
        let name = text(declare.exchange);
        if name.is_empty() {
            let text = "operation not permitted on the default exchange";
            return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
        }
        match self.exchanges.get(&name) {
            None if declare.passive => return Err(no_exchange(&name)),
            Some(_) if declare.passive => {}
            _ if declare.r#type.as_bytes() != b"direct" => {
                return Err(Refusal::not_implemented(&format!("{} exchanges", declare.r#type)));
            }
            Some(found) => {
                let asked = (declare.durable, declare.auto_delete, declare.internal);
                if asked != (found.durable, found.auto_delete, found.internal) {
                    return Err(inequivalent("exchange", &name));
                }
            }
            None if name.starts_with("amq.") => return Err(reserved("exchange", &name)),
            None if declare.auto_delete => {
                return Err(Refusal::not_implemented("auto-delete exchanges"));
            }
            None => {
                let exchange = Exchange {
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    ..Exchange::default()
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
        self.exchanges.remove(&name);
        self.answer(id, number, delete.no_wait, &exchange::DeleteOk::default());
        Ok(())
    }

    pub(super) fn queue_declare(
        &mut self,
        id: ConnectionId,
        number: u16,
        declare: &queue::Declare<'_>,
    ) -> Result<(), Refusal> {
        no_arguments(declare.arguments)?;
        let mut name = text(declare.queue);
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
                    if (declare.durable, declare.auto_delete) != (found.durable, found.auto_delete)
                    {
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
        no_arguments(bind.arguments)?;
        let name = self.named_queue(id, number, bind.queue)?;
        if bind.exchange.is_empty() {
            let text = "operation not permitted on the default exchange";
            return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
        }
        let exchange = text(bind.exchange);
        // RabbitMQ names the exchange first.
        let Some(found) = self.exchanges.get_mut(&exchange) else {
            return Err(no_exchange(&exchange));
        };
        let Some(queue) = self.queues.get(&name) else { return Err(no_queue(&name)) };
        check_owner(queue, &name, id)?;
        found.bindings.entry(text(bind.routing_key)).or_default().insert(name);
        self.answer(id, number, bind.no_wait, &queue::BindOk::default());
        Ok(())
    }

    pub(super) fn queue_unbind(
        &mut self,
        id: ConnectionId,
        number: u16,
        unbind: &queue::Unbind<'_>,
    ) -> Result<(), Refusal> {
        no_arguments(unbind.arguments)?;
        let name = self.named_queue(id, number, unbind.queue)?;
        if let Some(exchange) = self.exchanges.get_mut(&text(unbind.exchange)) {
            exchange.unbind(&text(unbind.routing_key), &name);
        }
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

fn reserved(what: &str, name: &str) -> Refusal {
    let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
    Refusal::channel(ReplyCode::ACCESS_REFUSED, text)
}

fn inequivalent(what: &str, name: &str) -> Refusal {
    let text = format!("inequivalent arg for {what} '{name}' in vhost '/'");
    Refusal::channel(ReplyCode::PRECONDITION_FAILED, text)
}
