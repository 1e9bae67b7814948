//! Files as messages, and messages as files (feature `files`).
//!
//! A [`Reader`] is an [`Outbox`](crate::Outbox) over a directory: a [`Relay`](crate::Relay) sends each file that is put there. A
//! [`Writer`] is a handler: it stores each message as a file, and its properties as another one. See the guide's page
//! [`files`](crate::guide::files).

mod busy;
mod directories;
mod error;
mod header;
mod name;
mod reader;
mod stored;
mod writer;

pub(crate) use busy::Commit;
pub use error::{FileError, PatternError};
pub use header::Header;
pub use name::{file_name, header_name, is_header_name};
pub use reader::{FileId, Reader};
pub use stored::Stored;
pub use writer::{Storing, Writer};

use std::any::Any;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What a panic carries.
type Panicked = Box<dyn Any + Send>;

/// Catches a panic on another thread, so that the task that waits for its result has it.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work))
}

/// Identifies a file, so that a later file of the same name is recognised as another one: device, inode and a time, because inode
/// numbers are reused. Systems other than Unix have no such numbers: there, all files of a name are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Identity([u64; 2], [i64; 2]);

#[cfg(unix)]
impl Identity {
    /// Of a file that may be renamed.
    fn of_content(metadata: &Metadata) -> Self {
        Self([metadata.dev(), metadata.ino()], [metadata.mtime(), metadata.mtime_nsec()])
    }

    /// Of a file that nothing has happened to.
    fn of_state(metadata: &Metadata) -> Self {
        Self([metadata.dev(), metadata.ino()], [metadata.ctime(), metadata.ctime_nsec()])
    }
}

#[cfg(not(unix))]
impl Identity {
    fn of_content(_: &Metadata) -> Self {
        Self::default()
    }

    fn of_state(_: &Metadata) -> Self {
        Self::default()
    }
}

/// Makes renames in a directory durable. Only Unix can, and elsewhere the system sees to it, as do some file systems.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}
