//! A configuration before it is understood: tables, lists and values with their places, in any format.

use std::collections::BTreeMap;

use super::error::Place;

/// A key with its value.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) key_at: Place,
    pub(crate) at: Place,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    Text(String),
    /// A text that may stand for a value of any type: of a variable, or of a format without types.
    Word(String),
    Integer(i64),
    /// A number with decimals, a date or a time, as it is written.
    Other(String),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Node>;

impl Node {
    pub(crate) const fn new(key_at: Place, at: Place, value: Value) -> Self {
        Self { key_at, at, value }
    }

    pub(crate) const fn table(at: Place) -> Self {
        Self { key_at: Place::Whole, at, value: Value::Table(Table::new()) }
    }
}

/// The keys that say where a broker is. A later source that sets one of them removes those that contradict it.
const ADDRESS: [&str; 6] =
    ["hostname", "port", "username", "password", "password_file", "virtual_host"];

/// Puts the values of `over` over those of `under`, table by table.
pub(crate) fn merge(under: &mut Table, over: Table) {
    merge_below(under, over, &[]);
}

fn merge_below(under: &mut Table, over: Table, path: &[&str]) {
    if matches!(path, ["connection"] | ["pools", _]) {
        displace(under, &over);
    }
    for (key, node) in over {
        match (under.get_mut(&key), node) {
            (
                Some(Node { value: Value::Table(inner), .. }),
                Node { value: Value::Table(table), .. },
            ) => merge_below(inner, table, &[path, &[key.as_str()]].concat()),
            (_, node) => drop(under.insert(key, node)),
        }
    }
}

/// Removes the keys of an address that is replaced by another kind of address.
fn displace(under: &mut Table, over: &Table) {
    let sets = |key: &str| over.contains_key(key);
    let has_url = sets("url") || sets("url_file");
    let has_parts = ADDRESS.iter().any(|key| sets(key));
    let has_password = sets("password") || sets("password_file");
    under.retain(|key, _| match key.as_str() {
        "url" | "url_file" => !has_url && !has_parts,
        "password" | "password_file" => !has_url && !has_password,
        key => !(has_url && ADDRESS.contains(&key)),
    });
}

/// The lines of a text without their ends, each with the byte at which it begins.
#[cfg(feature = "compat")]
pub(crate) fn lines_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let begin = start;
        start += line.len();
        (begin, line.trim_end_matches(['\n', '\r']))
    })
}

/// The places of a text's bytes.
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// The bytes at which lines begin.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let behind = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: [0].into_iter().chain(behind).collect() }
    }

    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|it| self.starts.get(it)).copied();
        let before = self.text.get(start.unwrap_or_default()..offset);
        Place::At { line, column: before.map_or(1, |before| before.chars().count() + 1) }
    }
}
