//! The two files of a message, from their temporary names until the message is committed, or undone.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::busy::{Claim, Name};
use super::directories::temporary;
use super::error::FileError;
use super::header::Header;
use super::{Identity, sync_directory};
use crate::trace;

/// A message that a [`Writer`](crate::files::Writer) has stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) header_path: PathBuf,
    pub(super) header: Header,
    pub(super) body: Bytes,
    pub(super) unique: Name,
}

impl Stored {
    /// Returns the file with the body.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file with the header.
    pub fn header_path(&self) -> &Path {
        &self.header_path
    }

    /// Returns the name of the file with the body, as the pattern has made it: below the directory of the writer, with `/`
    /// between the names of directories.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what is known of the message beside its body.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Both files. Without a commit, they are removed when this is dropped.
pub(super) struct Pair {
    stored: Arc<Stored>,
    /// That of the header first: a program that sees the body finds the header beside it.
    files: [Written; 2],
    stage: Stage,
}

/// Those of the messages that are committed together. Without a commit, they are removed when this is dropped.
pub(super) struct Pairs {
    pairs: Vec<Pair>,
    /// That no others have these names meanwhile.
    claims: Vec<Claim>,
}

impl Pairs {
    pub(super) const fn new(pairs: Vec<Pair>) -> Self {
        Self { pairs, claims: Vec::new() }
    }

    pub(super) fn stored(&self) -> Vec<Arc<Stored>> {
        self.pairs.iter().map(|pair| Arc::clone(&pair.stored)).collect()
    }

    /// Renames the files to their final names. On error, all of them are removed, and files that they replaced are restored.
    pub(super) fn show(&mut self, claims: Vec<Claim>) -> Result<(), FileError> {
        self.claims = claims;
        let shown = self.pairs.iter_mut().try_for_each(Pair::show);
        if shown.is_err() {
            self.undo();
        }
        shown
    }

    /// Whether [`commit`](Self::commit) has files to remove.
    pub(super) fn has_replaced(&self) -> bool {
        self.pairs.iter().any(Pair::has_replaced)
    }

    /// Lets the files stay.
    pub(super) fn commit(&mut self) {
        self.pairs.iter_mut().for_each(Pair::commit);
        self.claims.clear();
    }

    /// Removes the files, and restores those that they replaced.
    pub(super) fn undo(&mut self) {
        self.pairs.iter_mut().rev().for_each(Pair::undo);
        self.claims.clear();
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.undo();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// With temporary names.
    Hidden,
    /// With their own names.
    Visible,
    /// The message is handled: they stay.
    Committed,
    /// They are removed.
    Undone,
}

struct Written {
    path: PathBuf,
    place: Place,
    /// `None` until it is written.
    identity: Option<Identity>,
}

/// Where the content of a file is.
enum Place {
    Temporary(PathBuf),
    /// With its own name. What had that name before is kept in another file.
    Own {
        before: Option<PathBuf>,
    },
    Removed,
}

impl Pair {
    /// Writes both files with temporary names in the directory of their own names.
    pub(super) fn write(stored: Stored) -> Result<Self, FileError> {
        let json = stored.header.to_json();
        let json = json.map_err(io::Error::from);
        let json = json.map_err(FileError::io("write", &stored.header_path))?;
        let hidden = |path: &PathBuf| Written {
            path: path.clone(),
            place: Place::Temporary(temporary(path.parent().unwrap_or(path))),
            identity: None,
        };
        let files = [&stored.header_path, &stored.path].map(hidden);
        let body = stored.body.clone();
        // Before the first byte is written, so that a failure removes what is there.
        let mut pair = Self { stored: Arc::new(stored), files, stage: Stage::Hidden };
        for (file, content) in pair.files.iter_mut().zip([&json[..], &body[..]]) {
            let Place::Temporary(path) = &file.place else { continue };
            file.identity = Some(write(path, content).map_err(FileError::io("write", path))?);
        }
        Ok(pair)
    }

    /// Renames both files to their final names. After an error, `undo` removes both.
    fn show(&mut self) -> Result<(), FileError> {
        if self.stage != Stage::Hidden {
            return Err(FileError::io("write", &self.stored.path)(io::Error::other(
                "the message was given back meanwhile",
            )));
        }
        self.stage = Stage::Visible;
        let shown = self.files.iter_mut().try_for_each(Written::show).and_then(|()| {
            let directory = self.directory();
            sync_directory(directory).map_err(FileError::io("write", directory))
        });
        if shown.is_err() {
            self.undo();
        }
        shown
    }

    fn has_replaced(&self) -> bool {
        self.files.iter().any(|file| matches!(file.place, Place::Own { before: Some(_) }))
    }

    /// Lets the files stay.
    fn commit(&mut self) {
        if self.stage != Stage::Visible {
            return;
        }
        self.stage = Stage::Committed;
        for file in &mut self.files {
            if let Place::Own { before } = &mut file.place
                && let Some(before) = before.take()
            {
                remove(&before);
            }
        }
    }

    /// Removes the files, and restores those that they replaced.
    fn undo(&mut self) {
        if matches!(self.stage, Stage::Committed | Stage::Undone) {
            return;
        }
        self.stage = Stage::Undone;
        // That of the body first: a body without a header would be an incomplete message.
        for file in self.files.iter_mut().rev() {
            file.undo();
        }
        let _ = sync_directory(self.directory());
    }

    fn directory(&self) -> &Path {
        self.stored.path.parent().unwrap_or(&self.stored.path)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.undo();
    }
}

impl Written {
    fn show(&mut self) -> Result<(), FileError> {
        let Place::Temporary(temporary_path) = &self.place else { return Ok(()) };
        let error = |action| FileError::io(action, &self.path);
        let before = keep(&self.path).map_err(error("replace"))?;
        if let Err(cause) = fs::rename(temporary_path, &self.path) {
            before.iter().for_each(|before| remove(before));
            return Err(error("write")(cause));
        }
        self.place = Place::Own { before };
        Ok(())
    }

    fn undo(&mut self) {
        match std::mem::replace(&mut self.place, Place::Removed) {
            Place::Temporary(path) => remove(&path),
            // What another program has put there stays.
            Place::Own { before } if self.is_replaced() => before.iter().for_each(|it| remove(it)),
            Place::Own { before: None } => remove(&self.path),
            Place::Own { before: Some(before) } => {
                if let Err(error) = fs::rename(&before, &self.path) {
                    trace::not_removed(&self.path, &error);
                }
            }
            Place::Removed => {}
        }
    }

    /// Whether another file has the name.
    fn is_replaced(&self) -> bool {
        let found = fs::symlink_metadata(&self.path).ok();
        found.is_some_and(|it| self.identity != Some(Identity::of_content(&it)))
    }
}

/// Writes a file that does not exist, and waits until the disk has it.
fn write(path: &Path, content: &[u8]) -> io::Result<Identity> {
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(Identity::of_content(&file.metadata()?))
}

/// Keeps the file that has this name, if there is one, by another name: it may be needed again.
fn keep(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_dir() => {
            return Err(io::Error::from(ErrorKind::IsADirectory));
        }
        found => {
            found?;
        }
    }
    let kept = temporary(path.parent().unwrap_or(path));
    // Some file systems have no links.
    if fs::hard_link(path, &kept).is_err() {
        copy(path, &kept)?;
    }
    Ok(Some(kept))
}

/// Copies a file. If that fails, nothing of the copy is left.
fn copy(path: &Path, to: &Path) -> io::Result<()> {
    if let Err(error) = fs::copy(path, to) {
        remove(to);
        return Err(error);
    }
    Ok(())
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => trace::not_removed(path, &error),
        _ => {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::env;
    use std::process;

    use super::*;

    /// The memory of a process is a file whose first byte cannot be read.
    #[test]
    fn a_copy_that_fails_leaves_no_file() {
        let to = env::temp_dir().join(format!("amqp-app-copy-{}", process::id()));
        copy(Path::new("/proc/self/mem"), &to).unwrap_err();
        assert!(!to.exists());
    }
}
