//! TOML, with the place of each key and value.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Lines, Node, Table, Value};
use super::error::ConfigError;

pub(crate) fn parse(text: &str) -> Result<Table, ConfigError> {
    let lines = Lines::of(text);
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        ConfigError::new(&lines.place(at), format!("invalid TOML: {}", error.message()))
    })?;
    table(parsed.into_inner(), &lines)
}

fn table(parsed: DeTable<'_>, lines: &Lines<'_>) -> Result<Table, ConfigError> {
    let entries = parsed.into_iter().map(|(key, value)| {
        let key_at = lines.place(key.span().start);
        let value = node(value, lines)?;
        Ok((key.into_inner().into_owned(), Node { key_at, ..value }))
    });
    entries.collect()
}

fn node(parsed: Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Result<Node, ConfigError> {
    let at = lines.place(parsed.span().start);
    let value = match parsed.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            let large = |_| ConfigError::new(&at, "a whole number has at most 64 bits");
            Value::Integer(parsed.map_err(large)?)
        }
        DeValue::Float(number) => Value::Other(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(time) => Value::Other(time.to_string()),
        DeValue::Array(list) => {
            let nodes = list.into_iter().map(|it| node(it, lines));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => Value::Table(table(inner, lines)?),
    };
    Ok(Node::new(at.clone(), at, value))
}
