//! Declares, binds, purges and deletes exchanges and queues.

use std::fmt::Display;

use amqp_proto::method::{exchange, queue};
use amqp_proto::{FieldTable, FieldValue, ReplyCode};

use super::channel::Channel;
use super::fields::{short, table, text};
use super::queue::Queue;
use super::queue_arguments::{QueueArguments, QueueKind, check_argument};
use super::refusal::Refusal;
use super::routing::{Binding, Destination, Exchange, Kind};
use super::users::Permission;

impl Channel<'_> {
    pub(super) fn exchange_declare(
        &mut self,
        declare: &exchange::Declare<'_>,
    ) -> Result<(), Refusal> {
        let alternate = alternate_exchange(&table(declare.arguments)?);
        let name = text(declare.exchange);
        let kind = Kind::from_name(declare.r#type.as_bytes());
        if !declare.passive && !name.is_empty() {
            self.check_exchange(Permission::Configure, &name)?;
        }
        if let Some(alternate) = alternate.as_deref()
            && !self.broker.exchanges.contains_key(&name)
        {
            self.check_exchange(Permission::Read, &name)?;
            self.check_exchange(Permission::Write, alternate)?;
        }
        match (self.broker.exchanges.get(&name), kind) {
            (None, _) if declare.passive && !name.is_empty() => {
                return Err(Refusal::no_exchange(&name));
            }
            (Some(_), _) if declare.passive => {}
            (_, None) if !declare.passive => {
                let text = format!("unknown exchange type '{}'", declare.r#type);
                return Err(Refusal::connection(ReplyCode::COMMAND_INVALID, text));
            }
            _ if name.is_empty() => return Err(Refusal::default_exchange()),
            (Some(found), kind) => {
                let (of, asked_for) = (format!("exchange '{name}'"), kind.map_or("", Kind::name));
                check_equal("type", &of, &asked_for, &found.kind.name())?;
                check_equal("durable", &of, &declare.durable, &found.durable)?;
                check_equal("auto_delete", &of, &declare.auto_delete, &found.auto_delete)?;
                check_equal("internal", &of, &declare.internal, &found.internal)?;
                let [asked, found] = [&alternate, &found.alternate]
                    .map(|name| name.as_deref().map(FieldValue::from));
                check_argument("alternate-exchange", &of, asked.as_ref(), found.as_ref())?;
            }
            (None, _) if name.starts_with("amq.") => {
                return Err(Refusal::reserved_name("exchange", &name));
            }
            (None, None) => return Err(Refusal::no_exchange(&name)),
            (None, Some(kind)) => {
                let exchange = Exchange {
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    alternate,
                    ..Exchange::new(kind)
                };
                self.broker.exchanges.insert(name, exchange);
            }
        }
        self.answer(declare.no_wait, &exchange::DeclareOk::default());
        Ok(())
    }

    pub(super) fn exchange_delete(&mut self, delete: &exchange::Delete<'_>) -> Result<(), Refusal> {
        let name = text(delete.exchange);
        if name.is_empty() || name.starts_with("amq.") {
            return Err(Refusal::reserved_name("exchange", &name));
        }
        self.check_exchange(Permission::Configure, &name)?;
        let used = self.broker.exchanges.get(&name).is_some_and(|found| !found.bindings.is_empty());
        if delete.if_unused && used {
            let text = format!("exchange '{name}' in vhost '/' in use");
            return Err(Refusal::precondition_failed(text));
        }
        self.broker.delete_exchange(&name);
        self.answer(delete.no_wait, &exchange::DeleteOk::default());
        Ok(())
    }

    pub(super) fn exchange_bind(&mut self, bind: &exchange::Bind<'_>) -> Result<(), Refusal> {
        let (source, destination) = (text(bind.source), text(bind.destination));
        self.check_exchange(Permission::Write, &destination)?;
        self.check_exchange(Permission::Read, &source)?;
        if source.is_empty() || destination.is_empty() {
            return Err(Refusal::default_exchange());
        }
        for name in [&source, &destination] {
            if !self.broker.exchanges.contains_key(name) {
                return Err(Refusal::no_exchange(name));
            }
        }
        let arguments = table(bind.arguments)?;
        if let Some(exchange) = self.broker.exchanges.get_mut(&source) {
            let destination = Destination::Exchange(destination);
            exchange.bind(Binding { destination, key: text(bind.routing_key), arguments });
        }
        self.answer(bind.no_wait, &exchange::BindOk::default());
        Ok(())
    }

    pub(super) fn exchange_unbind(&mut self, unbind: &exchange::Unbind<'_>) -> Result<(), Refusal> {
        let (arguments, source) = (table(unbind.arguments)?, text(unbind.source));
        self.check_exchange(Permission::Write, &text(unbind.destination))?;
        self.check_exchange(Permission::Read, &source)?;
        let destination = Destination::Exchange(text(unbind.destination));
        let gone = Binding { destination, key: text(unbind.routing_key), arguments };
        self.broker.remove_bindings(|exchange, binding| exchange == source && *binding == gone);
        self.answer(unbind.no_wait, &exchange::UnbindOk::default());
        Ok(())
    }

    pub(super) fn queue_declare(&mut self, declare: &queue::Declare<'_>) -> Result<(), Refusal> {
        let mut name = text(declare.queue);
        let arguments = table(declare.arguments)?;
        if name.is_empty() && declare.passive {
            name = self.named_queue(declare.queue)?;
        }
        if !declare.passive && !name.is_empty() {
            self.check_queue(Permission::Configure, &name)?;
        }
        let is_new = !self.broker.queues.contains_key(&name);
        match self.broker.queues.get(&name) {
            None if declare.passive => return Err(Refusal::no_queue(&name)),
            None => {
                if name.is_empty() {
                    if let Some(kind) = QueueKind::other_than_classic(&arguments) {
                        let module = kind.module();
                        return Err(Refusal::precondition_failed(format!(
                            "Cannot declare a server-named queue for type {module}"
                        )));
                    }
                    name = self.broker.server_queue_name();
                    self.check_queue(Permission::Configure, &name)?;
                } else if name.starts_with("amq.") {
                    return Err(Refusal::reserved_name("queue", &name));
                }
                let asked = QueueArguments::new(&name, &arguments)?;
                if let Some(exchange) = &asked.dead_letter_exchange {
                    self.check_queue(Permission::Read, &name)?;
                    self.check_exchange(Permission::Write, exchange)?;
                }
                asked.kind.check_declare(&name, declare)?;
                if asked.has_huge_segments() {
                    let text = "Exceeded max value for x-stream-max-segment-size-bytes";
                    return Err(Refusal::precondition_failed(text));
                }
                let mut queue = Queue::new(asked);
                (queue.durable, queue.auto_delete) = (declare.durable, declare.auto_delete);
                queue.exclusive = declare.exclusive.then_some(self.id);
                self.broker.queues.insert(name.clone(), queue);
            }
            Some(found) => {
                found.check_owner(&name, self.id)?;
                if !declare.passive {
                    if declare.exclusive != found.exclusive.is_some() {
                        return Err(Refusal::locked_queue(&name));
                    }
                    let of = format!("queue '{name}'");
                    if !declare.exclusive {
                        check_equal("durable", &of, &declare.durable, &found.durable)?;
                    }
                    check_equal("auto_delete", &of, &declare.auto_delete, &found.auto_delete)?;
                    found.arguments.check_equal(&name, &arguments)?;
                }
            }
        }
        let queue = self.queue(&name)?;
        if is_new || !queue.arguments.is_quorum() {
            self.broker.postpone_queue_expiry(&name);
        }
        let queue = self.queue(&name)?;
        let declare_ok = queue::DeclareOk {
            queue: short(name.as_bytes()),
            message_count: queue.len(),
            consumer_count: queue.consumer_count(),
        };
        self.answer(declare.no_wait, &declare_ok);
        self.state().last_queue = name;
        Ok(())
    }

    pub(super) fn queue_bind(&mut self, bind: &queue::Bind<'_>) -> Result<(), Refusal> {
        let arguments = table(bind.arguments)?;
        let name = self.named_queue(bind.queue)?;
        let exchange = text(bind.exchange);
        self.check_queue(Permission::Write, &name)?;
        if exchange.is_empty() {
            return Err(Refusal::default_exchange());
        }
        self.check_exchange(Permission::Read, &exchange)?;
        // Where both are missing, RabbitMQ names the exchange.
        if !self.broker.exchanges.contains_key(&exchange) {
            return Err(Refusal::no_exchange(&exchange));
        }
        self.queue(&name)?;
        let Some(found) = self.broker.exchanges.get_mut(&exchange) else { return Ok(()) };
        let how = arguments.get("x-match").and_then(FieldValue::as_str).unwrap_or("all");
        if found.kind == Kind::Headers && !matches!(how, "all" | "any") {
            return Err(Refusal::not_implemented(&format!("x-match={how}")));
        }
        let destination = Destination::Queue(name);
        found.bind(Binding { destination, key: text(bind.routing_key), arguments });
        self.answer(bind.no_wait, &queue::BindOk::default());
        Ok(())
    }

    pub(super) fn queue_unbind(&mut self, unbind: &queue::Unbind<'_>) -> Result<(), Refusal> {
        let arguments = table(unbind.arguments)?;
        let name = self.named_queue(unbind.queue)?;
        self.check_queue(Permission::Write, &name)?;
        self.check_exchange(Permission::Read, &text(unbind.exchange))?;
        let destination = Destination::Queue(name);
        let gone = Binding { destination, key: text(unbind.routing_key), arguments };
        let source = text(unbind.exchange);
        self.broker.remove_bindings(|exchange, binding| exchange == source && *binding == gone);
        self.send(&queue::UnbindOk::default());
        Ok(())
    }

    pub(super) fn queue_purge(&mut self, purge: &queue::Purge<'_>) -> Result<(), Refusal> {
        let name = self.named_queue(purge.queue)?;
        self.check_queue(Permission::Read, &name)?;
        let queue = self.queue(&name)?;
        if queue.arguments.kind == QueueKind::Stream {
            let text =
                format!("queue.purge not supported by stream queues queue '{name}' in vhost '/'");
            return Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text));
        }
        let message_count = queue.len();
        queue.clear();
        queue.limit_publishers();
        self.broker.schedule_expiry(&name);
        self.answer(purge.no_wait, &queue::PurgeOk { message_count });
        Ok(())
    }

    pub(super) fn queue_delete(&mut self, delete: &queue::Delete<'_>) -> Result<(), Refusal> {
        let name = self.named_queue(delete.queue)?;
        self.check_queue(Permission::Configure, &name)?;
        if let Some(queue) = self.broker.queues.get(&name) {
            queue.check_owner(&name, self.id)?;
            let kind = queue.arguments.kind;
            check_flags(&name, kind, delete)?;
            // A stream is deleted with its messages, also if only an empty queue is to be.
            let refused = kind != QueueKind::Stream
                && ((delete.if_unused && !queue.consumers.is_empty())
                    || (delete.if_empty && queue.len() > 0));
            if refused {
                let text = format!("queue '{name}' in vhost '/' is not unused and empty");
                return Err(Refusal::precondition_failed(text));
            }
        }
        let message_count = self.broker.delete_queue(&name).unwrap_or(0);
        self.answer(delete.no_wait, &queue::DeleteOk { message_count });
        Ok(())
    }
}

/// Returns an error if a property of a declaration is not that of what exists.
fn check_equal<T: PartialEq + Display>(
    name: &str,
    of: &str,
    asked: &T,
    found: &T,
) -> Result<(), Refusal> {
    if asked == found {
        return Ok(());
    }
    Err(Refusal::inequivalent(name, of, &format!("'{asked}'"), &format!("'{found}'")))
}

impl QueueKind {
    /// Returns an error if queues of this kind cannot be declared so.
    fn check_declare(self, name: &str, declare: &queue::Declare<'_>) -> Result<(), Refusal> {
        let property = match self {
            Self::Classic => return Ok(()),
            _ if declare.auto_delete => "auto-delete",
            _ if declare.exclusive => "exclusive-owner",
            _ if !declare.durable => "non-durable",
            _ => return Ok(()),
        };
        let text = format!("invalid property '{property}' for queue '{name}' in vhost '/'");
        Err(Refusal::precondition_failed(text))
    }
}

/// Returns an error if a queue of this kind cannot be deleted so.
fn check_flags(name: &str, kind: QueueKind, delete: &queue::Delete<'_>) -> Result<(), Refusal> {
    let flag = match delete {
        _ if kind != QueueKind::Quorum => return Ok(()),
        queue::Delete { if_unused: true, .. } => "if-unused",
        queue::Delete { if_empty: true, .. } => "if-empty",
        _ => return Ok(()),
    };
    let text = format!(
        "cannot delete queue '{name}' in vhost '/'. queue.delete operations with {flag} flag set \
         are not supported by quorum queues"
    );
    Err(Refusal::connection(ReplyCode::NOT_IMPLEMENTED, text))
}

/// Returns the alternate exchange: the one that gets what the exchange cannot route.
fn alternate_exchange(arguments: &FieldTable) -> Option<String> {
    arguments.get("alternate-exchange").and_then(FieldValue::as_str).map(str::to_owned)
}
