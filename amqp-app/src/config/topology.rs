//! `[topology]`: exchanges, queues and bindings, in the shape of RabbitMQ's definitions
//! (<https://www.rabbitmq.com/docs/definitions>).

use amqp_async::{ExchangeBind, ExchangeDeclare, FieldTable, FieldValue, QueueBind, QueueDeclare};

use super::document::{Node, Value};
use super::error::ConfigError;
use super::read::{Section, boolean, list, name, named, one_of, text, wrong};

/// What an application declares at its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    pub(crate) exchanges: Vec<ExchangeDeclare>,
    pub(crate) queues: Vec<QueueDeclare>,
    pub(crate) bindings: Vec<Binding>,
}

#[derive(Clone, Debug)]
pub(crate) enum Binding {
    Queue(QueueBind),
    Exchange(ExchangeBind),
}

pub(crate) fn read(node: Node) -> Result<Topology, ConfigError> {
    let mut section = Section::open("topology", node, &["bindings", "exchanges", "queues"])?;
    let mut items = |key: &str| -> Result<Vec<Node>, ConfigError> {
        Ok(section.read(key, list)?.unwrap_or_default())
    };
    let (exchanges, queues, bindings) = (items("exchanges")?, items("queues")?, items("bindings")?);
    let mut virtual_host = None;
    let mut item = |node: Node, name, keys: &[&str]| {
        if !matches!(node.value, Value::Table(_)) {
            let text =
                format!("an item of {name} is a table in braces, such as {{ key = \"text\" }}");
            return Err(ConfigError::new(&node.at, text));
        }
        let mut section = Section::open(name, node, keys)?;
        in_virtual_host(&mut section, &mut virtual_host)?;
        Ok(section)
    };
    Ok(Topology {
        exchanges: exchanges
            .into_iter()
            .map(|node| exchange(item(node, "topology.exchanges", &EXCHANGE)?))
            .collect::<Result<_, _>>()?,
        queues: queues
            .into_iter()
            .map(|node| queue(item(node, "topology.queues", &QUEUE)?))
            .collect::<Result<_, _>>()?,
        bindings: bindings
            .into_iter()
            .map(|node| binding(item(node, "topology.bindings", &BINDING)?))
            .collect::<Result<_, _>>()?,
    })
}

const EXCHANGE: [&str; 7] =
    ["arguments", "auto_delete", "durable", "internal", "name", "type", "vhost"];
const QUEUE: [&str; 6] = ["arguments", "auto_delete", "durable", "name", "type", "vhost"];
const BINDING: [&str; 6] =
    ["arguments", "destination", "destination_type", "routing_key", "source", "vhost"];

/// Definitions name the virtual host of each item. Here all are declared in that of the connection, so they name the same one.
fn in_virtual_host(
    section: &mut Section,
    of_others: &mut Option<String>,
) -> Result<(), ConfigError> {
    let Some(node) = section.take("vhost") else { return Ok(()) };
    let key = section.key("vhost");
    let name = text(&node, &key)?;
    let expected = of_others.get_or_insert_with(|| name.clone());
    if name == *expected {
        return Ok(());
    }
    let takes = format!("the same virtual host as the items before it, {expected:?}");
    Err(wrong(&node, &key, takes))
}

/// Reads a key that an item must have.
fn required<T>(
    section: &mut Section,
    key: &str,
    read: impl FnOnce(&Node, &str) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let value = section.read(key, read)?;
    value.ok_or_else(|| {
        ConfigError::new(&section.at, format!("an item of {} has no {key:?}", section.name))
    })
}

fn exchange(mut section: Section) -> Result<ExchangeDeclare, ConfigError> {
    let exchange = required(&mut section, "name", name)?;
    let mut declare = ExchangeDeclare::new(exchange, required(&mut section, "type", name)?);
    declare.durable = section.read("durable", boolean)?.unwrap_or(true);
    declare.auto_delete = section.read("auto_delete", boolean)?.unwrap_or(false);
    declare.internal = section.read("internal", boolean)?.unwrap_or(false);
    declare.arguments = arguments(&mut section)?;
    Ok(declare)
}

fn queue(mut section: Section) -> Result<QueueDeclare, ConfigError> {
    let mut declare = QueueDeclare::new(required(&mut section, "name", name)?);
    declare.durable = section.read("durable", boolean)?.unwrap_or(true);
    declare.auto_delete = section.read("auto_delete", boolean)?.unwrap_or(false);
    declare.arguments = arguments(&mut section)?;
    let Some(node) = section.take("type") else { return Ok(declare) };
    let key = section.key("type");
    let kind = one_of(&["classic", "quorum", "stream"].map(|kind| (kind, kind)))(&node, &key)?;
    if declare.arguments.get("x-queue-type").is_some() {
        let text = format!("{key} and the argument x-queue-type cannot both be set");
        return Err(ConfigError::new(&node.key_at, text));
    }
    Ok(declare.argument("x-queue-type", kind))
}

fn binding(mut section: Section) -> Result<Binding, ConfigError> {
    let source = required(&mut section, "source", name)?;
    let destination = required(&mut section, "destination", name)?;
    let to_queue =
        section.read("destination_type", one_of(&[("queue", true), ("exchange", false)]));
    let to_queue = to_queue?.unwrap_or(true);
    let key = section.read("routing_key", text)?.unwrap_or_default();
    let arguments = arguments(&mut section)?;
    Ok(if to_queue {
        let mut bind = QueueBind::new(destination, source, key);
        bind.arguments = arguments;
        Binding::Queue(bind)
    } else {
        let mut bind = ExchangeBind::new(destination, source, key);
        bind.arguments = arguments;
        Binding::Exchange(bind)
    })
}

fn arguments(section: &mut Section) -> Result<FieldTable, ConfigError> {
    let Some(node) = section.take("arguments") else { return Ok(FieldTable::new()) };
    let key = section.key("arguments");
    let mut table = FieldTable::new();
    for (name, node) in named(&key, node)? {
        table.insert(&name, argument(&node, &key)?);
    }
    Ok(table)
}

fn argument(node: &Node, key: &str) -> Result<FieldValue, ConfigError> {
    Ok(match &node.value {
        Value::Text(text) | Value::Word(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Other(text) => {
            let number = text.parse().ok().filter(|it: &f64| it.is_finite());
            let takes = "texts, numbers, true and false, lists and tables";
            FieldValue::F64(number.ok_or_else(|| wrong(node, key, takes))?)
        }
        Value::List(items) => {
            let items = items.iter().map(|item| argument(item, key));
            FieldValue::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Table(items) => {
            let mut table = FieldTable::new();
            for (name, node) in items {
                table.insert(name, argument(node, key)?);
            }
            FieldValue::Table(table)
        }
    })
}
