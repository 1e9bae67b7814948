use std::io;
use std::path::{Path, PathBuf};

use crate::limits::NAME_BYTES;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused to do something with it.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was to be done, such as `read`.
        action: &'static str,
        /// The file, or the directory.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is not the header of a message.
    #[error("{} is not a header: {error}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        error: serde_json::Error,
    },
    /// Another file that is committed together with it has the same name.
    #[error("{} is the file of two messages of one batch, or is stored twice for one", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// An argument of a [`Reader`](crate::files::Reader) is longer than 255 bytes, and no message can have it.
    #[error("the {field} of a reader has {bytes} bytes, more than 255")]
    TooLong {
        /// Which one: `exchange`, `routing key` or `content type`.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// It is larger than the limit of its [`Reader`](crate::files::Reader).
    #[error("{} has {bytes} bytes, more than {most}: see `Reader::max_bytes`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: usize,
    },
}

impl FileError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { action, path: path.to_owned(), error }
    }
}

const LEGAL: &str = "${date}, ${msgid}, ${xfilename}, ${routing_key} and ${unique}";

/// Why a pattern for the names of files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The pattern has a character that no name should have: a control character, a backslash, or one of `:*?"<>|`.
    #[error("pattern {pattern:?}: {character:?} is not allowed in the name of a file")]
    Character {
        /// The pattern.
        pattern: String,
        /// The character.
        character: char,
    },
    /// A `$` begins no variable, or a `}` ends none.
    #[error(
        "pattern {pattern:?}: a {character:?} that belongs to no variable: the variables are {LEGAL}, and `$$` is a dollar sign"
    )]
    Lone {
        /// The pattern.
        pattern: String,
        /// The character.
        character: char,
    },
    /// A name in the pattern is empty, or begins with a dot. Names with a dot are those of temporary files, and `..` is another
    /// directory.
    #[error(
        "pattern {pattern:?}: a name between two `/` must not be empty, nor begin with a dot: {part:?}"
    )]
    Part {
        /// The pattern.
        pattern: String,
        /// The name.
        part: String,
    },
    /// A name is longer than 244 bytes, or its variables may make it longer.
    #[error("pattern {pattern:?}: the name {part:?} may become longer than {NAME_BYTES} bytes")]
    TooLong {
        /// The pattern.
        pattern: String,
        /// The name.
        part: String,
    },
    /// A brace is not closed.
    #[error("pattern {pattern:?}: the brace of {rest:?} is not closed")]
    Unclosed {
        /// The pattern.
        pattern: String,
        /// What follows the brace.
        rest: String,
    },
    /// The variable is unknown.
    #[error("pattern {pattern:?}: unknown variable {name:?}: the variables are {LEGAL}")]
    Unknown {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
}
