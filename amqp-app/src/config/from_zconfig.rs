//! The files of gocept.amqprun: the part of ZConfig that they use. `<amqp-server>`, `<worker>`, `<settings>` and the level of
//! `<eventlog>` mean the same as there. What has no meaning here is accepted, and reported.

use super::LogLevel;
use super::document::{Lines, Node, Table, Value, lines_of};
use super::error::{ConfigError, Place};
use super::read::{Shown, listed, meant};
use crate::limits::CONFIG_DEPTH_MAX;

/// A section: its keys, and the sections within.
struct Section {
    kind: String,
    at: Place,
    keys: Table,
    sections: Vec<Self>,
}

const SECTIONS: [&str; 5] = ["amqp-server", "eventlog", "logger", "settings", "worker"];

/// Python's names of levels, and those of ZConfig, by what they are here.
const LEVELS: [(&str, LogLevel); 10] = [
    ("all", LogLevel::Trace),
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("blather", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("warning", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("critical", LogLevel::Error),
    ("fatal", LogLevel::Error),
];

/// Returns the document, and what has no meaning.
pub(crate) fn parse(text: &str) -> Result<(Table, Vec<ConfigError>), ConfigError> {
    let (mut root, mut ignored) = (Table::new(), Vec::new());
    for Section { kind, at, keys, sections } in read(text)? {
        if !SECTIONS.contains(&kind.as_str()) {
            let sections = listed(&SECTIONS, "and");
            let (shown, meant) = (Shown(&kind), meant(&kind, &SECTIONS));
            let text = format!("unknown section{shown}: {meant}the sections are {sections}");
            return Err(ConfigError::new(&at, text));
        }
        if kind == "logger" {
            let text = "<logger> has no meaning here: the program chooses the levels of its parts";
            ignored.push(ConfigError::new(&at, text));
            continue;
        }
        if kind == "eventlog" {
            let text = "a section of <eventlog> has no meaning here: the program chooses where its logs go";
            ignored.extend(sections.iter().map(|section| ConfigError::new(&section.at, text)));
        } else if let Some(section) = sections.first() {
            return Err(ConfigError::new(&section.at, format!("<{kind}> has no sections")));
        }
        let table = match kind.as_str() {
            "amqp-server" => ("connection", server(keys, &at)?),
            "worker" => ("worker", worker(keys, &mut ignored)?),
            "eventlog" => ("log", log(keys)?),
            _ => ("settings", keys),
        };
        let node = Node::new(at.clone(), at.clone(), Value::Table(table.1));
        if root.insert(table.0.to_owned(), node).is_some() {
            return Err(ConfigError::new(&at, format!("<{kind}> is there twice")));
        }
    }
    Ok((root, ignored))
}

fn server(keys: Table, at: &Place) -> Result<Table, ConfigError> {
    const KEYS: [&str; 7] = [
        "heartbeat",
        "heartbeat_interval",
        "hostname",
        "password",
        "port",
        "username",
        "virtual_host",
    ];
    check("amqp-server", &keys, &KEYS)?;
    if !keys.contains_key("hostname") {
        return Err(ConfigError::new(at, "<amqp-server> has no hostname, which it needs"));
    }
    let mut server = Table::new();
    for (key, node) in keys {
        let key = if key == "heartbeat_interval" { "heartbeat".to_owned() } else { key };
        let at = node.key_at.clone();
        if server.insert(key, node).is_some() {
            return Err(ConfigError::new(&at, "heartbeat and heartbeat_interval are the same"));
        }
    }
    Ok(server)
}

fn worker(mut keys: Table, ignored: &mut Vec<ConfigError>) -> Result<Table, ConfigError> {
    check("worker", &keys, &["amount", "component-configuration"])?;
    if let Some(node) = keys.remove("component-configuration") {
        let text =
            "component-configuration has no meaning here: handlers are registered by the program";
        ignored.push(ConfigError::new(&node.key_at, text));
    }
    Ok(keys)
}

fn log(mut keys: Table) -> Result<Table, ConfigError> {
    check("eventlog", &keys, &["level"])?;
    if let Some(Node { at, value: Value::Word(level), .. }) = keys.get_mut("level") {
        let found = LEVELS.iter().find(|(name, _)| level.eq_ignore_ascii_case(name));
        let names = LEVELS.map(|(name, _)| name);
        let wrong = || ConfigError::new(at, format!("level takes {}", listed(&names, "or")));
        *level = found.ok_or_else(wrong)?.1.to_string();
    }
    Ok(keys)
}

fn check(kind: &str, keys: &Table, known: &[&str]) -> Result<(), ConfigError> {
    let unknown = keys.iter().filter(|(key, _)| !known.contains(&key.as_str()));
    let Some((key, node)) = unknown.min_by_key(|(_, node)| &node.key_at) else { return Ok(()) };
    let plural = if known.len() == 1 { "" } else { "s" };
    let text = format!(
        "unknown key{} in <{kind}>: {}<{kind}> has the key{plural} {}",
        Shown(key),
        meant(key, known),
        listed(known, "and")
    );
    Err(ConfigError::new(&node.key_at, text))
}

/// Reads the sections of a file.
fn read(text: &str) -> Result<Vec<Section>, ConfigError> {
    let places = Lines::of(text);
    let root =
        Section { kind: String::new(), at: Place::Whole, keys: Table::new(), sections: Vec::new() };
    let mut open = vec![root];
    for (start, line) in lines_of(text) {
        let content = line.trim();
        let offset = start + line.len() - line.trim_start().len();
        let at = places.place(offset);
        let fail = |text: &str| Err(ConfigError::new(&at, text));
        let depth = open.len();
        let Some(section) = open.last_mut() else { break };
        if content.is_empty() || content.starts_with('#') {
            continue;
        } else if content.starts_with('%') {
            return fail("%define, %include and %import are not supported");
        } else if let Some(tag) = content.strip_prefix('<') {
            let Some(tag) = tag.strip_suffix('>') else {
                return fail("a section begins with <name>, and ends with </name>");
            };
            if let Some(kind) = tag.strip_prefix('/') {
                if depth < 2 || section.kind != kind.trim().to_lowercase() {
                    return fail("this ends a section that is not open here");
                }
                close(&mut open);
                continue;
            }
            let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            // A section may have a name behind its kind.
            let kind = tag.split_whitespace().next().unwrap_or_default().to_lowercase();
            if depth > CONFIG_DEPTH_MAX {
                return fail("sections are nested too deeply");
            }
            open.push(Section { kind, at, keys: Table::new(), sections: Vec::new() });
            if is_empty {
                close(&mut open);
            }
        } else if depth < 2 {
            return fail("a key is in a section, such as <worker>");
        } else {
            // A line without a value may be a value whose key was lost: it is not shown.
            let free = section.kind == "settings";
            let Some((key, value)) =
                content.split_once(char::is_whitespace).or_else(|| free.then_some((content, "")))
            else {
                return fail("a line in a section is a key, white space and a value");
            };
            let value_at = places.place(offset + content.len() - value.trim_start().len());
            let value = unescaped(value.trim_start(), &value_at)?;
            // Keys have no case, except those of settings.
            let key = if free { key.to_owned() } else { key.to_lowercase() };
            let node = Node::new(at.clone(), value_at, Value::Word(value));
            if section.keys.insert(key, node).is_some() {
                return fail("a key with this name is there twice");
            }
        }
    }
    match &open[..] {
        [.., section] if open.len() > 1 => {
            Err(ConfigError::new(&section.at, "this section has no end, such as </worker>"))
        }
        _ => Ok(open.pop().map(|root| root.sections).unwrap_or_default()),
    }
}

/// Closes the innermost section.
fn close(open: &mut Vec<Section>) {
    if let Some(section) = open.pop()
        && let Some(outer) = open.last_mut()
    {
        outer.sections.push(section);
    }
}

/// `$$` is a `$`. Another one would be a name that `%define` has defined.
fn unescaped(value: &str, at: &Place) -> Result<String, ConfigError> {
    let parts = value.split("$$");
    if parts.clone().any(|part| part.contains('$')) {
        return Err(ConfigError::new(at, "a $ is written $$: names of %define are not supported"));
    }
    Ok(parts.collect::<Vec<_>>().join("$"))
}
