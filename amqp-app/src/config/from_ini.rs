//! The ini files of nucleon, as Python 2's `ConfigParser` reads them. A section is an environment, and `[DEFAULT]` is in all
//! of them. `amqp_<kind>_url` and `amqp_<kind>_pool_size` are a pool, and every other key is a setting.
//!
//! Values are taken as they are: `%(name)s` is not replaced, so that a URL may have a `%`.

use super::document::{Lines, Node, Table, Value, lines_of};
use super::error::{ConfigError, Place};
use super::read::{Shown, meant};

/// The section whose values are in every environment.
const EVERYWHERE: &str = "DEFAULT";

/// The kinds of pools that need not be complete.
const SHIPPED: [&str; 2] = ["listen", "publish"];

pub(crate) fn parse(text: &str) -> Result<Table, ConfigError> {
    let sections = sections(text)?;
    let (mut root, mut environments) = (Table::new(), Table::new());
    for (name, node) in sections {
        let Node { key_at, at, value: Value::Table(keys) } = node else { continue };
        let table = environment(keys)?;
        if name == EVERYWHERE {
            root.extend(table);
        } else {
            environments.insert(name, Node::new(key_at, at, Value::Table(table)));
        }
    }
    root.insert(
        "environments".into(),
        Node::new(Place::Whole, Place::Whole, Value::Table(environments)),
    );
    Ok(root)
}

/// The sections of a file, with their keys.
fn sections(text: &str) -> Result<Table, ConfigError> {
    let places = Lines::of(text);
    let mut sections = Table::new();
    let mut section: Option<String> = None;
    let mut key: Option<String> = None;
    for (start, line) in lines_of(text) {
        let content = line.trim();
        let at = places.place(start + (line.len() - line.trim_start().len()));
        if content.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let table = section.as_ref().and_then(|name| match &mut sections.get_mut(name)?.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        if line.starts_with([' ', '\t']) {
            // It continues the value before it.
            let value = table.zip(key.as_ref()).and_then(|(table, key)| table.get_mut(key));
            match value.map(|node| &mut node.value) {
                Some(Value::Word(text)) => {
                    text.push('\n');
                    text.push_str(content);
                }
                _ => {
                    return Err(ConfigError::new(
                        &at,
                        "a key begins in the first column of its line",
                    ));
                }
            }
        } else if let Some(rest) = content.strip_prefix('[') {
            let name = rest.split(']').next().filter(|it| !it.is_empty() && rest.contains(']'));
            let invalid =
                || ConfigError::new(&at, "the name of a section is in brackets: [default]");
            let name = name.ok_or_else(invalid)?.to_owned();
            let node = Node { key_at: at.clone(), ..Node::table(at.clone()) };
            if sections.insert(name.clone(), node).is_some() {
                return Err(ConfigError::new(&at, "a section with this name is there twice"));
            }
            (section, key) = (Some(name), None);
        } else {
            let (name, value) = pair(line).ok_or_else(|| {
                ConfigError::new(&at, "a line is a [section], key = value, or a comment after #")
            })?;
            let table = table
                .ok_or_else(|| ConfigError::new(&at, "a key is in a section, such as [default]"))?;
            let value_at = places.place(start + line.len() - value.len());
            let value = Value::Word(without_comment(value).to_owned());
            // Keys have no case.
            let name = name.to_lowercase();
            if table.insert(name.clone(), Node::new(at.clone(), value_at, value)).is_some() {
                return Err(ConfigError::new(&at, "a key with this name is there twice"));
            }
            key = Some(name);
        }
    }
    Ok(sections)
}

/// Splits a line into a key, and what is behind the first `=` or `:`.
fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(['=', ':'])?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key, value.trim_start()))
}

/// A comment behind a value begins with `;` after white space.
fn without_comment(value: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| value[..*at].ends_with([' ', '\t']) || *at == 0;
    let end = value.match_indices(';').find(begins).map_or(value.len(), |(at, _)| at);
    let value = value[..end].trim_end();
    if value == "\"\"" { "" } else { value }
}

/// The keys of a section as the sections of a configuration.
fn environment(keys: Table) -> Result<Table, ConfigError> {
    let (mut pools, mut settings) = (Table::new(), Table::new());
    for (key, node) in keys {
        let Some(rest) = key.strip_prefix("amqp_") else {
            settings.insert(key, node);
            continue;
        };
        let url = rest.strip_suffix("_url").map(|kind| (kind, "url"));
        let size = rest.strip_suffix("_pool_size").map(|kind| (kind, "size"));
        let Some((kind, part)) = url.or(size).filter(|(kind, _)| !kind.is_empty()) else {
            let shipped =
                SHIPPED.map(|kind| [format!("amqp_{kind}_url"), format!("amqp_{kind}_pool_size")]);
            let text = format!(
                "unknown key{}: {}the keys of a pool are amqp_<kind>_url and amqp_<kind>_pool_size",
                Shown(&key),
                meant(&key, shipped.as_flattened())
            );
            return Err(ConfigError::new(&node.key_at, text));
        };
        let pool = pools.entry(kind.to_owned()).or_insert_with(|| Node {
            key_at: node.key_at.clone(),
            ..Node::table(node.key_at.clone())
        });
        if let Value::Table(pool) = &mut pool.value {
            pool.insert(part.to_owned(), node);
        }
    }
    for (kind, pool) in &pools {
        let Value::Table(keys) = &pool.value else { continue };
        let missing = [("url", "url"), ("size", "pool_size")]
            .into_iter()
            .find(|(key, _)| !keys.contains_key(*key));
        if let Some((_, missing)) = missing.filter(|_| !SHIPPED.contains(&kind.as_str())) {
            let text = format!("a pool has a URL and a size: amqp_{kind}_{missing} is missing");
            return Err(ConfigError::new(&pool.key_at, text));
        }
    }
    let tables = [("pools", pools), ("settings", settings)].into_iter();
    let tables = tables.filter(|(_, table)| !table.is_empty()).map(|(name, table)| {
        (name.to_owned(), Node::new(Place::Whole, Place::Whole, Value::Table(table)))
    });
    Ok(tables.collect())
}
