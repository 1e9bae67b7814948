//! The directories of a writer: those that are missing are created, and old temporary files are removed.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::FileError;
use super::sync_directory;
use crate::ids;
use crate::limits::{DIRECTORIES_MAX, SCAN_PAUSE, TEMPORARY_KEPT};
use crate::sync::lock;
use crate::trace;

const PREFIX: &str = ".amqp-app-";

/// A name that no file has.
pub(super) fn temporary(directory: &Path) -> PathBuf {
    directory.join(format!("{PREFIX}{}.tmp", ids::unique_now()))
}

/// The directories that a writer knows.
#[derive(Default)]
pub(super) struct Directories(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that exist, with their paths without links.
    real: HashMap<PathBuf, PathBuf>,
    /// The same, in the order in which they became known.
    order: VecDeque<PathBuf>,
    /// When old temporary files were looked for.
    scanned: Option<Instant>,
}

impl Known {
    /// Whether old temporary files are looked for in a directory that is not known. Publishers choose the number of directories, and
    /// one that was forgotten may have many files: it is not read for each message.
    fn may_scan(&mut self, now: Instant) -> bool {
        let is_full = self.order.len() >= DIRECTORIES_MAX;
        let is_early = |at| now.saturating_duration_since(at) < SCAN_PAUSE;
        if is_full && self.scanned.is_some_and(is_early) {
            return false;
        }
        self.scanned = Some(now);
        true
    }

    fn add(&mut self, directory: &Path, real: PathBuf) {
        if self.real.insert(directory.to_owned(), real).is_some() {
            return;
        }
        self.order.push_back(directory.to_owned());
        if self.order.len() > DIRECTORIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.real.remove(&oldest);
        }
    }
}

impl Directories {
    /// Creates a directory if it is missing. If it is not known, removes old temporary files. Returns its path without links. `root` is
    /// that of the writer.
    pub(super) fn prepare(&self, directory: &Path, root: &Path) -> Result<PathBuf, FileError> {
        self.prepare_at(Instant::now(), directory, root)
    }

    fn prepare_at(
        &self,
        now: Instant,
        directory: &Path,
        root: &Path,
    ) -> Result<PathBuf, FileError> {
        if let Some(real) = lock(&self.0).real.get(directory)
            && directory.is_dir()
        {
            return Ok(real.clone());
        }
        let is_missing = |it: &Path| !it.as_os_str().is_empty() && !it.exists();
        let missing = directory.ancestors().take_while(|it| is_missing(it)).count();
        fs::create_dir_all(directory).map_err(FileError::io("create", directory))?;
        sync_above(directory, root, missing, sync_directory)?;
        if missing == 0 && lock(&self.0).may_scan(now) {
            remove_old(directory);
        }
        let real = fs::canonicalize(or_current(directory));
        let real = real.map_err(FileError::io("find", directory))?;
        lock(&self.0).add(directory, real.clone());
        Ok(real)
    }
}

/// Makes directories durable: those that were missing, and all up to that of the writer. Each may be new in the one above it: another
/// writer may have created it a moment ago.
fn sync_above(
    directory: &Path,
    root: &Path,
    missing: usize,
    sync: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), FileError> {
    for (depth, created) in directory.ancestors().enumerate() {
        let is_below = created.starts_with(root);
        if depth >= missing && !is_below {
            break;
        }
        let Some(above) = created.parent() else { break };
        let synced = sync(or_current(above));
        // One above the writer's directory may be unreadable.
        if is_below && created != root {
            synced.map_err(FileError::io("write", above))?;
        }
    }
    Ok(())
}

/// The empty path is that of the current directory.
fn or_current(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() { Path::new(".") } else { directory }
}

/// When a temporary file got its name. What it has kept of a file that was replaced is older.
fn named(name: &str) -> Option<SystemTime> {
    let micros = name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_micros(micros))
}

/// Removes what writers in processes that were killed have left behind.
fn remove_old(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_temporary = name.starts_with(PREFIX) && name.ends_with(".tmp");
        let is_old = |since: Option<SystemTime>| {
            let age = since.and_then(|since| SystemTime::now().duration_since(since).ok());
            age.is_some_and(|age| age > TEMPORARY_KEPT)
        };
        if is_temporary
            && named(name).is_none_or(|named| is_old(Some(named)))
            && is_old(entry.metadata().ok().and_then(|it| it.modified().ok()))
            && let Err(error) = fs::remove_file(entry.path())
        {
            trace::not_removed(&entry.path(), &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::env;
    use std::fs::File;
    use std::process;

    use super::*;

    /// A publisher chooses how many there are.
    #[test]
    fn the_oldest_directory_is_forgotten_and_not_read_again_at_once() {
        let root = env::temp_dir().join(format!("amqp-app-directories-{}", process::id()));
        let (directories, now) = (Directories::default(), Instant::now());
        let old = |directory: &Path| {
            let path = directory.join(".amqp-app-1.tmp");
            let modified = SystemTime::now() - 2 * TEMPORARY_KEPT;
            File::create(&path).unwrap().set_modified(modified).unwrap();
            path
        };
        let paths: Vec<_> = (0..=DIRECTORIES_MAX).map(|it| root.join(it.to_string())).collect();
        fs::create_dir_all(&paths[0]).unwrap();
        let first = old(&paths[0]);
        for path in &paths {
            directories.prepare_at(now, path, &root).unwrap();
        }
        assert!(!first.exists(), "a directory that exists is read when it becomes known");
        let known = || {
            let known = lock(&directories.0);
            assert_eq!(known.real.len(), known.order.len());
            paths.iter().map(|path| known.real.contains_key(path)).collect::<Vec<_>>()
        };
        let mut expected = vec![true; paths.len()];
        expected[0] = false;
        assert_eq!(known(), expected);
        let first = old(&paths[0]);
        directories.prepare_at(now, &paths[0], &root).unwrap();
        assert!(first.exists());
        (expected[0], expected[1]) = (true, false);
        assert_eq!(known(), expected);
        // Later it is read.
        let second = old(&paths[1]);
        directories.prepare_at(now + SCAN_PAUSE, &paths[1], &root).unwrap();
        assert!(!second.exists());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_on_the_disk_is_an_error_below_that_of_the_writer() {
        let root = Path::new("/above/root");
        for (fails, is_error) in
            [("/above/root/a", true), ("/above/root", true), ("/above", false), ("/", false)]
        {
            let synced = RefCell::new(Vec::new());
            let sync = |path: &Path| {
                synced.borrow_mut().push(path.to_owned());
                if path == Path::new(fails) { Err(io::Error::other("it fails")) } else { Ok(()) }
            };
            let result = sync_above(Path::new("/above/root/a/b"), root, 4, sync);
            assert_eq!(result.is_err(), is_error, "{fails}");
            if let Err(error) = result {
                assert_eq!(error.to_string(), format!("cannot write {fails}: it fails"));
            } else {
                assert_eq!(
                    synced.take(),
                    ["/above/root/a", "/above/root", "/above", "/"].map(PathBuf::from)
                );
            }
        }
        // Those above the writer's directory that are not new are left alone.
        let synced = RefCell::new(Vec::new());
        let sync = |path: &Path| {
            synced.borrow_mut().push(path.to_owned());
            Ok(())
        };
        sync_above(Path::new("/above/root/a"), root, 1, sync).unwrap();
        assert_eq!(synced.take(), ["/above/root", "/above"].map(PathBuf::from));
    }
}
