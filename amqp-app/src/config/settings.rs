//! `Settings`: the application's own values.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::document::{Node, Table, Value};
use super::error::{ConfigError, Place};
use super::read::{is_name, meant};
use crate::context::Context;
use crate::extract::{FromContext, Scope};
use crate::failure::Failure;

/// The application's own values: the section `[settings]` of a [`Config`](super::Config).
///
/// A key is looked up as it is written first, then as a path: `a.b` is the key `"a.b"`, or else the key `b` of the table
/// `a`. Keys and values keep their case and their characters.
///
/// A handler of an application that is configured ([`App::configured`](crate::App::configured)) takes it as an argument.
/// Clones are handles to the same values.
///
/// ```
/// use amqp_app::prelude::*;
///
/// let config: Config = r#"
///     [settings]
///     "your.custom.settings" = "here"
///     database = { host = "db.example", port = 5432 }
/// "#.parse()?;
/// let settings = config.settings();
/// assert_eq!(settings.get("your.custom.settings"), Some("here"));
/// assert_eq!(settings.get("database.host"), Some("db.example"));
/// assert_eq!(settings.parse::<u16>("database.port")?, 5432);
/// assert_eq!(settings.get("database"), None);
///
/// fn handler(settings: Settings, Text(name): Text) -> Result<Message, Failure> {
///     let exchange = settings.require("greetings.exchange")?;
///     Ok(Message::new(format!("Hello {name}")).to(exchange, "hello"))
/// }
/// # let _ = handler;
/// # Ok::<(), amqp_app::config::ConfigError>(())
/// ```
///
/// `Debug` shows the keys that are names, and no values: they may be passwords.
#[derive(Clone)]
pub struct Settings(Arc<Inner>);

#[derive(Default)]
struct Inner {
    path: Option<Box<Path>>,
    values: BTreeMap<String, Setting>,
}

/// A value, with its place.
#[derive(Clone)]
pub(crate) enum Setting {
    Text(String, Place),
    List(Vec<String>),
    Table(BTreeMap<String, Self>),
}

/// It may be a password.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(..) => f.write_str("_"),
            Self::List(items) => write!(f, "[_; {}]", items.len()),
            Self::Table(table) => table.fmt(f),
        }
    }
}

pub(crate) fn read(table: Table) -> Result<BTreeMap<String, Setting>, ConfigError> {
    let settings = table.into_iter().map(|(key, node)| Ok((key, setting(node)?)));
    settings.collect()
}

fn setting(node: Node) -> Result<Setting, ConfigError> {
    let Node { at, value, .. } = node;
    Ok(match value {
        Value::Table(table) => Setting::Table(read(table)?),
        Value::List(items) => {
            let items = items.into_iter().map(|item| {
                let text = "a list in [settings] has texts, numbers, dates, true and false";
                scalar(item.value).ok_or_else(|| ConfigError::new(&item.at, text))
            });
            Setting::List(items.collect::<Result<_, _>>()?)
        }
        value => Setting::Text(scalar(value).unwrap_or_default(), at),
    })
}

/// The text of a value that is neither a list nor a table.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Word(text) | Value::Other(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::List(_) | Value::Table(_) => None,
    }
}

impl Settings {
    pub(crate) fn new(path: Option<&Path>, values: BTreeMap<String, Setting>) -> Self {
        Self(Arc::new(Inner { path: path.map(Into::into), values }))
    }

    /// Returns the text of a key: what a text says, or a number, `true`, `false`, a date or a time as text. `None` if the key
    /// is not set, and for lists and tables.
    pub fn get(&self, key: &str) -> Option<&str> {
        match find(&self.0.values, key)? {
            Setting::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of a list as texts. A key with one text has one item. None for tables, and if the key is not set.
    pub fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        let items = match find(&self.0.values, key) {
            Some(Setting::Text(text, _)) => std::slice::from_ref(text),
            Some(Setting::List(items)) => items,
            _ => &[],
        };
        items.iter().map(String::as_str)
    }

    /// Returns the text of a key that must be set.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key and the nearest one that is set.
    pub fn require(&self, key: &str) -> Result<&str, ConfigError> {
        self.get(key).ok_or_else(|| {
            let keys: Vec<_> = self.keys().collect();
            let text = match find(&self.0.values, key) {
                Some(_) => format!("settings: {key:?} is a list or a table, and not one value"),
                None => {
                    let near = meant(key, &keys);
                    format!(
                        "settings: no value for {key:?}{}{}",
                        if near.is_empty() { "" } else { ": " },
                        near.trim_end()
                    )
                }
            };
            ConfigError::new(&Place::Whole, text).of(self.0.path.as_deref())
        })
    }

    /// Parses the text of a key that must be set, such as a number.
    ///
    /// # Errors
    /// [`ConfigError`] if the key is not set, or its text is not a `T`. It names the type, and does not show the text.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<T, ConfigError> {
        let text = self.require(key)?;
        text.parse().map_err(|_| {
            let place = match find(&self.0.values, key) {
                Some(Setting::Text(_, place)) => place,
                _ => &Place::Whole,
            };
            let kind = type_name::<T>();
            let kind = kind.rsplit("::").next().unwrap_or(kind);
            let text = format!("settings: the value of {key:?} cannot be parsed as {kind}");
            ConfigError::new(place, text).of(self.0.path.as_deref())
        })
    }

    /// Returns all keys that have a value, those within tables as paths such as `a.b`.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        let mut keys = Vec::new();
        collect(&self.0.values, "", &mut keys);
        keys.into_iter()
    }
}

fn collect(table: &BTreeMap<String, Setting>, prefix: &str, keys: &mut Vec<String>) {
    for (key, setting) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match setting {
            Setting::Table(inner) => collect(inner, &path, keys),
            _ => keys.push(path),
        }
    }
}

/// The value of a key, or of a path whose first part is the longest key that fits.
fn find<'a>(table: &'a BTreeMap<String, Setting>, key: &str) -> Option<&'a Setting> {
    if let Some(setting) = table.get(key) {
        return Some(setting);
    }
    key.rmatch_indices('.').find_map(|(at, _)| match table.get(&key[..at])? {
        Setting::Table(inner) => find(inner, &key[at + 1..]),
        _ => None,
    })
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key that is not a name may be a value that a slip has made a key.
        f.debug_set().entries(self.keys().filter(|key| is_name(key))).finish()
    }
}

/// The settings of the configuration of the application. Without one, the message is not tried again: the last resort of
/// the policy follows.
impl<S> FromContext<S> for Settings {
    const SCOPE: Scope = Scope::Application;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let missing = "no settings: the application is not configured (App::configured)";
        context.extension().ok_or_else(|| Failure::permanent(missing))
    }
}
