//! Routing: exchanges, bindings, and to which queues a message goes.

use std::collections::BTreeSet;

use amqp_proto::{FieldTable, FieldValue, ReplyCode};

use super::broker::Broker;
use super::message::Message;
use super::refusal::Refusal;

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    /// The exchange to which a message goes that matches no binding.
    pub(super) alternate: Option<String>,
    pub(super) bindings: Vec<Binding>,
    /// Whether it has had a binding. An auto-delete exchange is deleted with its last one.
    pub(super) bound: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binding {
    pub(super) destination: Destination,
    pub(super) key: String,
    pub(super) arguments: FieldTable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Queue(String),
    Exchange(String),
}

impl Kind {
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"direct" => Some(Self::Direct),
            b"fanout" => Some(Self::Fanout),
            b"topic" => Some(Self::Topic),
            b"headers" => Some(Self::Headers),
            _ => None,
        }
    }
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

impl Exchange {
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: None,
            bindings: Vec::new(),
            bound: false,
        }
    }

    pub(super) fn bind(&mut self, binding: Binding) {
        self.bound = true;
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }
}

impl Broker {
    /// Returns an error if a client may not publish to an exchange.
    pub(super) fn check_publish(&self, exchange: &str) -> Result<(), Refusal> {
        match self.exchanges.get(exchange) {
            _ if exchange.is_empty() => Ok(()),
            None => Err(Refusal::no_exchange(exchange)),
            Some(found) if found.internal => {
                let text = format!("cannot publish to internal exchange '{exchange}' in vhost '/'");
                Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text))
            }
            Some(_) => Ok(()),
        }
    }

    /// Returns the queues that a message goes to, by its routing key and its copies' keys.
    pub(super) fn route(&self, message: &Message, headers: &FieldTable) -> BTreeSet<String> {
        let copies = message.copies.iter().map(String::as_str);
        let keys = std::iter::once(message.routing_key.as_str()).chain(copies);
        let mut queues = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for key in keys {
            if !message.exchange.is_empty() {
                self.follow(&message.exchange, key, headers, &mut seen, &mut queues);
                seen.clear();
            } else if self.queues.contains_key(key) {
                queues.insert(key.to_owned());
            }
        }
        queues
    }

    /// Follows bindings from exchange to exchange, each once.
    fn follow(
        &self,
        name: &str,
        key: &str,
        headers: &FieldTable,
        seen: &mut BTreeSet<String>,
        queues: &mut BTreeSet<String>,
    ) {
        let Some(exchange) = self.exchanges.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        let mut any = false;
        for binding in &exchange.bindings {
            if !binding.matches(exchange.kind, key, headers) {
                continue;
            }
            any = true;
            match &binding.destination {
                Destination::Queue(queue) => {
                    queues.insert(queue.clone());
                }
                Destination::Exchange(next) => self.follow(next, key, headers, seen, queues),
            }
        }
        if let (false, Some(alternate)) = (any, &exchange.alternate) {
            self.follow(alternate, key, headers, seen, queues);
        }
    }

    /// Removes the bindings for which `gone` is true, and auto-delete exchanges that have lost their last binding.
    pub(super) fn remove_bindings(&mut self, gone: impl Fn(&str, &Binding) -> bool) {
        let mut ended = Vec::new();
        for (name, exchange) in &mut self.exchanges {
            exchange.bindings.retain(|binding| !gone(name, binding));
            if exchange.auto_delete && exchange.bound && exchange.bindings.is_empty() {
                ended.push(name.clone());
            }
        }
        for name in ended {
            self.delete_exchange(&name);
        }
    }

    pub(super) fn delete_exchange(&mut self, name: &str) {
        if self.exchanges.remove(name).is_some() {
            let destination = Destination::Exchange(name.to_owned());
            self.remove_bindings(|_, binding| binding.destination == destination);
        }
    }
}

impl Binding {
    fn matches(&self, kind: Kind, key: &str, headers: &FieldTable) -> bool {
        match kind {
            Kind::Direct => self.key == key,
            Kind::Fanout => true,
            Kind::Topic => {
                let pattern: Vec<&str> = words(&self.key);
                topic_matches(&pattern, &words(key))
            }
            Kind::Headers => headers_match(&self.arguments, headers),
        }
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Returns whether a pattern matches: `*` stands for one word, `#` for any number of words.
fn topic_matches(pattern: &[&str], words: &[&str]) -> bool {
    // At index n: whether the parts of the pattern so far match the first n words.
    let mut matched = vec![false; words.len() + 1];
    matched[0] = true;
    for part in pattern {
        let mut next = vec![false; words.len() + 1];
        for at in 0..=words.len() {
            next[at] = match *part {
                "#" => matched[at] || (at > 0 && next[at - 1]),
                part => at > 0 && matched[at - 1] && (part == "*" || part == words[at - 1]),
            };
        }
        matched = next;
    }
    matched[words.len()]
}

/// Returns whether headers match a binding's arguments: all of them, or any if `x-match` is `any`. Arguments that begin
/// with `x-` do not count.
fn headers_match(arguments: &FieldTable, headers: &FieldTable) -> bool {
    let any = arguments.get("x-match").and_then(FieldValue::as_str) == Some("any");
    let mut wanted = arguments.iter().filter(|(name, _)| !name.starts_with("x-"));
    let met = |(name, value): (&str, &FieldValue)| {
        headers.get(name).is_some_and(|found| *value == FieldValue::Void || found == value)
    };
    if any { wanted.any(met) } else { wanted.all(met) }
}

#[cfg(test)]
mod tests {
    use super::{topic_matches, words};

    #[test]
    fn topics_match_as_words() {
        for (pattern, key, expected) in [
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("#", "", true),
            ("#", "a.b", true),
            ("a.#", "a", true),
            ("a.#.z", "a.b.c.z", true),
            ("a.#.z", "a.b.c", false),
            ("*", "", false),
            ("*", "a", true),
        ] {
            assert_eq!(topic_matches(&words(pattern), &words(key)), expected, "{pattern} {key}");
        }
    }
}
