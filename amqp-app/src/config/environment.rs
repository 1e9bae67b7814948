//! What the process's environment changes: which environment of the file is used, and single values.

use std::ffi::OsString;
use std::sync::Arc;

use super::document::{Node, Table, Value, merge};
use super::error::{ConfigError, Place};
use super::read::{Shown, listed, meant, named};
use crate::limits::CONFIG_DEPTH_MAX;

/// The variables that choose the environment, the first one first.
const CHOOSERS: [&str; 2] = ["AMQP_APP_ENVIRONMENT", "NUCLEON_CONFIGURATION"];

/// The prefix of the variables that set values.
const PREFIX: &str = "AMQP_APP__";

/// The environment that is used if none is chosen, and the file has it.
const DEFAULT: &str = "default";

/// The variables of a process that a configuration reads.
#[derive(Clone, Default)]
pub(crate) struct Variables(Vec<(Arc<str>, Option<String>)>);

impl Variables {
    pub(crate) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let is_ours = name.starts_with(PREFIX) || CHOOSERS.contains(&name.as_str());
            is_ours.then(|| (name.into(), value.into_string().ok()))
        });
        let mut ours: Vec<_> = ours.collect();
        // Their order in the process is arbitrary.
        ours.sort_unstable();
        Self(ours)
    }

    /// The environment that a variable chooses, with the variable's name. An empty variable chooses none.
    pub(crate) fn environment(&self) -> Option<(String, Place)> {
        CHOOSERS.iter().find_map(|chooser| {
            let (name, value) = self.0.iter().find(|(name, _)| **name == **chooser)?;
            let value = value.as_deref().filter(|value| !value.is_empty())?;
            Some((value.to_owned(), Place::Variable(Arc::clone(name))))
        })
    }

    /// Puts the values of the variables over those of the document.
    pub(crate) fn overlay(&self, root: &mut Table) -> Result<(), ConfigError> {
        let mut over = Table::new();
        for (name, value) in &self.0 {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let place = Place::Variable(Arc::clone(name));
            let value = value
                .clone()
                .ok_or_else(|| ConfigError::new(&place, "the value is not text in UTF-8"))?;
            set(root, &mut over, path, &place, value)?;
        }
        merge(root, over);
        Ok(())
    }
}

/// Sets a value in `over`, at the path that a name such as `WORKER__AMOUNT` means.
fn set(
    root: &Table,
    over: &mut Table,
    path: &str,
    place: &Place,
    value: String,
) -> Result<(), ConfigError> {
    let parts: Vec<_> = path.split("__").collect();
    let [tables @ .., last] = &parts[..] else { return Ok(()) };
    if tables.is_empty() || parts.iter().any(|part| part.is_empty()) {
        let text = "the name of a variable has the form AMQP_APP__SECTION__KEY";
        return Err(ConfigError::new(place, text));
    }
    if parts.len() > CONFIG_DEPTH_MAX {
        let text = format!("the name of a variable has at most {CONFIG_DEPTH_MAX} parts");
        return Err(ConfigError::new(place, text));
    }
    let (mut under, mut table) = (Some(root), over);
    for (depth, part) in tables.iter().enumerate() {
        let key = key_of(under, table, part, place)?;
        if depth == 0 && key == "environments" {
            let text = "a variable cannot change an environment: it sets the value in all of them, without \
                        ENVIRONMENTS__NAME in its name";
            return Err(ConfigError::new(place, text));
        }
        under = match under.and_then(|under| under.get(&key)).map(|node| &node.value) {
            Some(Value::Table(inner)) => Some(inner),
            Some(_) => {
                let text = format!("{key:?} is a value and has no keys");
                return Err(ConfigError::new(place, text));
            }
            None => None,
        };
        let node = table
            .entry(key)
            .or_insert_with(|| Node { key_at: place.clone(), ..Node::table(place.clone()) });
        let Value::Table(inner) = &mut node.value else {
            return Err(ConfigError::new(place, "another variable sets the same as a value"));
        };
        table = inner;
    }
    let key = key_of(under, table, last, place)?;
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    let replaced = under.and_then(|under| under.get(&key)).is_some_and(is_table);
    if replaced || table.get(&key).is_some_and(is_table) {
        let text = format!("{key:?} is a table: name a key of it");
        return Err(ConfigError::new(place, text));
    }
    table.insert(key, Node::new(place.clone(), place.clone(), Value::Word(value)));
    Ok(())
}

/// The key that a part of a variable's name means: one that is there, with `_` for each character that a name of a variable
/// cannot have, or else the part in lower case.
fn key_of(
    under: Option<&Table>,
    over: &Table,
    part: &str,
    place: &Place,
) -> Result<String, ConfigError> {
    let shouted = part.to_uppercase();
    let there = under.into_iter().flat_map(Table::keys).chain(over.keys());
    let mut fitting: Vec<_> = there.filter(|key| as_variable(key) == shouted).collect();
    fitting.dedup();
    match &fitting[..] {
        [] => Ok(part.to_lowercase()),
        [key] => Ok((*key).clone()),
        several => {
            let text =
                format!("the name of the variable fits several keys: {}", listed(several, "and"));
            Err(ConfigError::new(place, text))
        }
    }
}

fn as_variable(key: &str) -> String {
    let fitting = |it: char| if it.is_alphanumeric() { it } else { '_' };
    key.to_uppercase().chars().map(fitting).collect()
}

/// Chooses an environment, and puts its values over those of the document. Returns its name, and the document in each of
/// the other environments.
pub(crate) fn choose(
    root: &mut Table,
    chosen: Option<(String, Place)>,
) -> Result<(Option<String>, Vec<Table>), ConfigError> {
    let environments = match root.remove("environments") {
        Some(node) => named("environments", node)?,
        None => Table::new(),
    };
    let default = || environments.contains_key(DEFAULT).then(|| (DEFAULT.to_owned(), Place::Whole));
    let chosen = chosen.or_else(default);
    if let Some((name, place)) = &chosen
        && name != DEFAULT
        && !environments.contains_key(name)
    {
        let known: Vec<_> = environments.keys().collect();
        let has = match known.is_empty() {
            true => "the configuration has no environments".to_owned(),
            false => format!("the configuration has {}", listed(&known, "and")),
        };
        let text = format!("no such environment{}: {}{has}", Shown(name), meant(name, &known));
        return Err(ConfigError::new(place, text));
    }
    let chosen = chosen.map(|(name, _)| name);
    let mut others = Vec::new();
    let mut own = None;
    for (name, node) in environments {
        let is_chosen = chosen.as_deref() == Some(name.as_str());
        let delta = named(&super::read::below("environments", &name), node)?;
        if let Some(nested) = delta.get("environments") {
            let text = "an environment has no environments";
            return Err(ConfigError::new(&nested.key_at, text));
        }
        if is_chosen {
            own = Some(delta);
        } else {
            let mut other = root.clone();
            merge(&mut other, delta);
            others.push(other);
        }
    }
    if let Some(delta) = own {
        merge(root, delta);
    }
    Ok((chosen, others))
}
