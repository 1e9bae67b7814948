//! What happened, as text for people and as a hash that two runs of a seed must share.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;

use super::swarm::MILLISECOND;

/// The last lines of a run, which outlive a panic in it.
pub(super) type Lines = Rc<RefCell<VecDeque<String>>>;

/// The number of lines that a failure prints.
const LINES: usize = 60;

/// Where the text goes. A run without any formats nothing.
#[derive(Debug, Default)]
pub(super) enum Output {
    #[default]
    None,
    Last(Lines),
    Printed,
}

#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: DefaultHasher,
    output: Output,
    /// The virtual time.
    pub(super) now: u64,
}

impl Trace {
    pub(super) fn new(output: Output) -> Self {
        Self { output, ..Self::default() }
    }

    /// Writes a line.
    pub(super) fn line(&self, line: impl FnOnce() -> String) {
        if matches!(self.output, Output::None) {
            return;
        }
        let (ms, rest) = (self.now / MILLISECOND, self.now % MILLISECOND / 1_000);
        let line = format!("{ms:>9}.{rest:03} {}", line());
        match &self.output {
            Output::None => {}
            Output::Printed => println!("{line}"),
            Output::Last(lines) => {
                let mut lines = lines.borrow_mut();
                if lines.len() == LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        }
    }

    /// Adds to the hash what happened at this time.
    pub(super) fn hash(&mut self, what: u64, bytes: &[u8]) {
        self.hash.write_u64(self.now);
        self.hash.write_u64(what);
        self.hash.write(bytes);
    }

    /// Returns the hash of everything that happened.
    pub(super) fn finish(&self) -> u64 {
        self.hash.finish()
    }
}
