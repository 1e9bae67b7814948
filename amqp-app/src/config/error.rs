//! `ConfigError`: what is wrong in a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong in a configuration, and where: the file with line and column, or the environment variable.
///
/// The text says what is legal. It never has a value of the file, because values may be passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    path: Option<PathBuf>,
    place: Place,
    text: String,
}

/// Where a key or a value is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the file. Lines and columns (in characters) are counted from 1.
    At { line: usize, column: usize },
    /// The environment variable of this name.
    Variable(Arc<str>),
    /// The file as a whole.
    #[default]
    Whole,
}

impl ConfigError {
    pub(crate) fn new(place: &Place, text: impl Into<String>) -> Self {
        Self(Box::new(Inner { path: None, place: place.clone(), text: text.into() }))
    }

    /// Adds the file, unless a variable is wrong.
    pub(crate) fn of(mut self, path: Option<&Path>) -> Self {
        if !matches!(self.0.place, Place::Variable(_)) {
            self.0.path = path.map(Path::to_owned);
        }
        self
    }

    /// Returns the file. `None` for a text that was not read from a file, and for variables.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Returns the line, counted from 1. `None` if no single line is wrong, and for variables.
    pub fn line(&self) -> Option<usize> {
        match self.0.place {
            Place::At { line, .. } => Some(line),
            _ => None,
        }
    }

    /// Returns the column in characters, counted from 1. `None` without a line.
    pub fn column(&self) -> Option<usize> {
        match self.0.place {
            Place::At { column, .. } => Some(column),
            _ => None,
        }
    }

    /// Returns the name of the environment variable that is wrong.
    pub fn variable(&self) -> Option<&str> {
        match &self.0.place {
            Place::Variable(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the text without the place.
    pub fn message(&self) -> &str {
        &self.0.text
    }
}

/// `app.toml:3:1: text`, as editors and terminals understand it. Without a file: `line 3, column 1: text`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { path, place, text } = &*self.0;
        match (path, place) {
            (_, Place::Variable(name)) => write!(f, "{name}: {text}"),
            (Some(path), Place::At { line, column }) => {
                write!(f, "{}:{line}:{column}: {text}", path.display())
            }
            (None, Place::At { line, column }) => write!(f, "line {line}, column {column}: {text}"),
            (Some(path), Place::Whole) => write!(f, "{}: {text}", path.display()),
            (None, Place::Whole) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}
