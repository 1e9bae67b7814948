//! Reads sections of a document: strict keys, and typed values. Every error says what is legal, and shows no value.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::document::{Node, Table, Value};
use super::error::{ConfigError, Place};
use crate::limits::CONFIG_NAME_MAX;

/// A table whose keys are known.
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) at: Place,
    table: Table,
}

impl Section {
    /// Opens a table. A key that is not known is an error.
    pub(crate) fn open(name: &str, node: Node, known: &[&str]) -> Result<Self, ConfigError> {
        let Node { key_at: at, at: value_at, value } = node;
        let Value::Table(table) = value else {
            return Err(ConfigError::new(&value_at, format!("{name} is a table: [{name}]")));
        };
        let unknown = table.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        if let Some((key, node)) = unknown.min_by_key(|(_, node)| &node.key_at) {
            let plural = if known.len() == 1 { "" } else { "s" };
            let keys = format!("[{name}] has the key{plural} {}", listed(known, "and"));
            let text =
                format!("unknown key{} in [{name}]: {}{keys}", Shown(key), meant(key, known));
            return Err(ConfigError::new(&node.key_at, text));
        }
        Ok(Self { name: name.to_owned(), at, table })
    }

    /// Takes the value of a key.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        self.table.remove(key)
    }

    /// Takes a value, and reads it.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Node, &str) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(node) = self.table.remove(key) else { return Ok(None) };
        read(&node, &self.key(key)).map(Some)
    }

    /// The whole name of a key.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}

/// Opens a table whose keys are names of the user's choice.
pub(crate) fn named(name: &str, node: Node) -> Result<Table, ConfigError> {
    match node.value {
        Value::Table(table) => Ok(table),
        _ => Err(ConfigError::new(&node.at, format!("{name} is a table: [{name}]"))),
    }
}

/// The name of a table with a name of the user's choice, as TOML writes it.
pub(crate) fn below(section: &str, name: &str) -> String {
    let bare = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    match !name.is_empty() && name.chars().all(bare) {
        true => format!("{section}.{name}"),
        false => format!("{section}.{name:?}"),
    }
}

pub(crate) fn wrong(node: &Node, key: &str, takes: impl fmt::Display) -> ConfigError {
    ConfigError::new(&node.at, format!("{key} takes {takes}"))
}

pub(crate) fn text(node: &Node, key: &str) -> Result<String, ConfigError> {
    match &node.value {
        Value::Text(text) | Value::Word(text) => Ok(text.clone()),
        _ => Err(wrong(node, key, "a text in quotes")),
    }
}

/// A text that is not empty.
pub(crate) fn name(node: &Node, key: &str) -> Result<String, ConfigError> {
    let name = text(node, key)?;
    if name.is_empty() { Err(wrong(node, key, "a text that is not empty")) } else { Ok(name) }
}

pub(crate) fn boolean(node: &Node, key: &str) -> Result<bool, ConfigError> {
    let parsed = match &node.value {
        Value::Boolean(value) => Some(*value),
        Value::Word(text) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| wrong(node, key, "true or false"))
}

/// A whole number within a range.
pub(crate) fn number<T: TryFrom<i64> + Into<i64> + Copy>(
    low: T,
    high: T,
) -> impl Fn(&Node, &str) -> Result<T, ConfigError> {
    move |node, key| {
        let parsed = match &node.value {
            Value::Integer(number) => Some(*number),
            Value::Word(text) => text.parse().ok(),
            _ => None,
        };
        let within = parsed.filter(|it| (low.into()..=high.into()).contains(it));
        let takes = || format!("a whole number from {} to {}", low.into(), high.into());
        within.and_then(|it| T::try_from(it).ok()).ok_or_else(|| wrong(node, key, takes()))
    }
}

/// A time that is not shorter than `least`.
pub(crate) fn time(least: Duration) -> impl Fn(&Node, &str) -> Result<Duration, ConfigError> {
    move |node, key| {
        let parsed = match &node.value {
            Value::Text(text) | Value::Word(text) => duration(text),
            _ => None,
        };
        let takes = || {
            let least = if least.is_zero() { "" } else { ", at least \"1ms\"" };
            format!("a time such as \"500ms\", \"30s\", \"1m 30s\", \"2h\" or \"1d\"{least}")
        };
        parsed.filter(|it| *it >= least).ok_or_else(|| wrong(node, key, takes()))
    }
}

/// One of some words.
pub(crate) fn one_of<T: Copy>(
    words: &[(&'static str, T)],
) -> impl Fn(&Node, &str) -> Result<T, ConfigError> {
    move |node, key| {
        let found = match &node.value {
            Value::Text(text) | Value::Word(text) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        found.map(|(_, it)| *it).ok_or_else(|| wrong(node, key, listed(&names, "or")))
    }
}

/// The items of a list. A word is a list whose items are separated by commas.
pub(crate) fn list(node: &Node, key: &str) -> Result<Vec<Node>, ConfigError> {
    match &node.value {
        Value::List(items) => Ok(items.clone()),
        Value::Word(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Node { value: Value::Word(item.to_owned()), ..node.clone() })
            .collect()),
        _ => Err(wrong(node, key, "a list in brackets")),
    }
}

/// Parses a time: whole numbers with units, the largest unit first. `None` if it is none, or too long for the clock.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let (mut rest, mut units, mut sum) = (text.trim(), &UNITS[..], None::<u64>);
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let end = behind.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        let time = number.parse::<u64>().ok()?.checked_mul(units[index].1)?;
        sum = Some(sum.unwrap_or_default().checked_add(time)?);
        (rest, units) = (behind.trim_start(), &units[index + 1..]);
    }
    sum.map(Duration::from_millis)
}

/// `"a", "b" and "c"`, for messages.
pub(crate) fn listed(names: &[impl AsRef<str>], and: &str) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == names.len() => &format!(" {and} "),
            _ => ", ",
        };
        let _ = write!(text, "{separator}{:?}", name.as_ref());
    }
    text
}

/// `did you mean "amount"? `, if a known name is near.
pub(crate) fn meant(name: &str, known: &[impl AsRef<str>]) -> String {
    if !is_name(name) {
        return String::new();
    }
    let lower = name.to_lowercase();
    let near = known.iter().map(|it| (distance(&lower, it.as_ref()), it.as_ref()));
    let near =
        near.filter(|(distance, it)| *distance * 3 <= it.chars().count().max(3) && is_name(it));
    near.min().map_or_else(String::new, |(_, it)| format!("did you mean {it:?}? "))
}

/// A name as a message shows it. Other texts than ordinary names may be values that a slip has made a key.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_name(self.0) { write!(f, " {:?}", self.0) } else { Ok(()) }
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    let usual = |it: char| it.is_alphanumeric() || matches!(it, '_' | '-' | '.');
    text.len() <= CONFIG_NAME_MAX && text.chars().all(usual)
}

/// The number of characters to insert, remove, replace or swap to make one text of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (index, character) in from.iter().enumerate() {
        let mut row = vec![index + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = rows[index][column] + usize::from(character != other);
            let mut least = replaced.min(rows[index][column + 1] + 1).min(row[column] + 1);
            let swapped = index > 0
                && column > 0
                && from[index - 1] == *other
                && to[column - 1] == *character;
            if swapped {
                least = least.min(rows[index - 1][column - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{distance, duration, meant};

    #[test]
    fn times_are_numbers_with_units() {
        for (text, milliseconds) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1m", Some(60_000)),
            ("1m30s", Some(90_000)),
            (" 1 m 30 s ", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("1d 1h 1m 1s 1ms", Some(90_061_001)),
            ("0s", Some(0)),
            ("", None),
            (" ", None),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1S", None),
            ("1min", None),
            ("1s 1s", None),
            ("30s 1m", None),
            ("1s,", None),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551616ms", None),
            ("18446744073709551615s", None),
            ("18446744073709551s 616ms", None),
            ("١s", None),
        ] {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn a_slip_is_near_what_was_meant() {
        for (one, other, expected) in
            [("", "", 0), ("", "ab", 2), ("amont", "amount", 1), ("prefecth", "prefetch", 1)]
        {
            assert_eq!(distance(one, other), expected, "{one:?} {other:?}");
            assert_eq!(distance(other, one), expected, "{other:?} {one:?}");
        }
        let known = ["amount", "commit", "prefetch"];
        assert_eq!(meant("Amont", &known), "did you mean \"amount\"? ");
        assert_eq!(meant("prefecth", &known), "did you mean \"prefetch\"? ");
        for far in ["a", "size", "prefetch = 3", "x".repeat(1_000).as_str()] {
            assert_eq!(meant(far, &known), "", "{far}");
        }
    }
}
