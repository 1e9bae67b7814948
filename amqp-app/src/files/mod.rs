//! Files as messages, and messages as files (feature `files`).
//!
//! A [`Reader`] is an [`Outbox`](crate::Outbox) over a directory: a [`Relay`](crate::Relay) sends each file that is put there. A
//! [`Writer`] is a handler: it stores each message as a file, and its properties as another one. See the guide's page
//! [`files`](crate::guide::files).

mod error;
mod header;
mod name;
mod reader;
mod stored;
mod writer;

pub use error::{FileError, PatternError};
pub use header::Header;
pub use name::{file_name, header_name, is_header_name};
pub use reader::{FileId, Reader};
pub use stored::Stored;
pub use writer::{Storing, Writer};

use std::any::Any;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What a panic carries.
type Panicked = Box<dyn Any + Send>;

/// Catches a panic on another thread, so that the task that waits for its result has it.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work))
}

/// Makes renames in a directory durable. Only Unix can, and elsewhere the system sees to it.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
