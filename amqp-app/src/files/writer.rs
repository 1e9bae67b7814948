//! `Writer`: messages as files.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event_listener::Event;

use super::caught;
use super::error::{FileError, PatternError};
use super::header::Header;
use super::name::{Pattern, header_name};
use super::stored::{Pair, Pairs, Stored};
use super::sync_directory;
use crate::context::Context;
use crate::failure::Failure;
use crate::handler::{Handler, ThreadHandler, blocking};
use crate::ids;
use crate::limits::{CONFIRMS_TIMEOUT, DIRECTORIES_MAX, TEMPORARY_KEPT};
use crate::outcome::Outcome;
use crate::participants::Participant;
use crate::runner::Runner;
use crate::sync::{Promise, lock};
use crate::trace;

/// A handler that stores each message in two files: its body in one, and its [`Header`] in JSON in the other.
///
/// The name of the file with the body comes from a [pattern](Self::pattern), and [`header_name`] is the name of the other. Missing
/// directories are created.
///
/// The files take part in the commit of the message, as a [`Participant`]. They are written with temporary names, and both get
/// their names at the vote, before the message is acknowledged. When the commit fails, they are removed. So there are two files for
/// each message that is acknowledged, on the disk, and none for others. If the process or the connection ends between the vote and the
/// acknowledgement, the message comes again: then there are two more files, with the same message id, and the `redelivered` of the
/// latter header is set.
///
/// A file that has the name already is replaced. It comes back when the commit fails. Two messages with one name are stored one after
/// the other, also by different writers of the process. Writers in several processes do not wait for each other: they need a pattern
/// with `${unique}`, which never has the name of another file.
///
/// A process that is killed leaves temporary files, whose names begin with `.amqp-app-`. A writer removes those of its directories
/// that are older than a day ([`TEMPORARY_KEPT`]).
///
/// ```
/// use amqp_app::files::Writer;
/// use amqp_app::prelude::*;
///
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> Result<App<P>, Box<dyn std::error::Error>> {
/// let writer = Writer::new("/var/spool/orders")
///     .pattern("${date}/${routing_key}-${unique}.xml")?
///     .on_stored(|stored| println!("{}", stored.path().display()));
/// let app = app.consume(Consume::topic("orders-to-files", ["order.*"]), writer);
/// # Ok(app)
/// # }
/// ```
#[derive(Clone)]
pub struct Writer {
    directory: PathBuf,
    pattern: Pattern,
    on_stored: Option<OnStored>,
    shared: Arc<Shared>,
}

/// A function that is called for each message.
type OnStored = Arc<dyn Fn(&Stored) + Send + Sync>;

/// What the handlers of [`Writer`]s have in place of arguments.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Storing;

#[derive(Default)]
struct Shared {
    /// Directories that exist, and have no old temporary files, with their paths without links.
    known: Mutex<HashMap<PathBuf, PathBuf>>,
}

/// The files of messages between their vote and their commit, of all writers of the process, with what is the same for all messages
/// that are committed together.
static BUSY: Mutex<BTreeMap<PathBuf, Arc<()>>> = Mutex::new(BTreeMap::new());
static FREE: Event = Event::new();

/// The name of a file, until this is dropped.
pub(super) struct Claim(PathBuf);

impl Claim {
    /// Waits until no other message has this name. `None` if it would wait for a message that waits for this one: both have the same
    /// commit.
    async fn new(path: &Path, commit: &Arc<()>) -> Option<Self> {
        loop {
            let free = FREE.listen();
            match lock(&BUSY).entry(path.to_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(commit));
                    return Some(Self(path.to_owned()));
                }
                Entry::Occupied(entry) if Arc::ptr_eq(entry.get(), commit) => return None,
                Entry::Occupied(_) => {}
            }
            free.await;
        }
    }

    /// What is the same for all paths of a file, also if the file system ignores case.
    fn key(directory: &Path, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default();
        directory.join(name.to_string_lossy().to_lowercase())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&BUSY).remove(&self.0);
        FREE.notify(usize::MAX);
    }
}

impl Writer {
    /// Creates a writer below a directory. The pattern is `${routing_key}-${unique}`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            pattern: Pattern::default(),
            on_stored: None,
            shared: Arc::default(),
        }
    }

    /// Sets the pattern of the names: see [`file_name`](crate::files::file_name).
    ///
    /// # Errors
    /// [`PatternError`] if the pattern cannot be used.
    pub fn pattern(self, pattern: &str) -> Result<Self, PatternError> {
        Ok(Self { pattern: Pattern::parse(pattern)?, ..self })
    }

    /// Calls a function for each message that is stored, after the commit, and with confirms before the acknowledgement. It may
    /// block. If it panics, the message is stored nevertheless.
    #[must_use]
    pub fn on_stored(self, function: impl Fn(&Stored) + Send + Sync + 'static) -> Self {
        Self { on_stored: Some(Arc::new(function)), ..self }
    }

    /// Writes the files of a message from a handler that does more than that. They get their names when the message is committed.
    /// It blocks: see [`blocking`]. A handler of [batches](crate::Consume::batches) takes a `Batch<Context>`, and calls this for each
    /// of its messages. Around such a handler, in middleware, it writes the files of all of them.
    ///
    /// # Errors
    /// A failure that is retried as the policy says, with a [`FileError`]. If two messages of a batch have the same name, or one
    /// message is stored twice with it, the vote fails with [`FileError::Twice`]. Messages of a batch are handled apart then.
    pub fn store<S>(&self, context: &Context<S>) -> Result<(), Failure> {
        let messages = context.without_state().batch();
        let written = messages.iter().filter(|it| !it.is_refused()).map(|it| self.write(it));
        let pairs = Pairs::new(written.collect::<Result<_, _>>()?);
        context.join(Box::new(Files {
            stored: pairs.stored(),
            pairs: Arc::new(Mutex::new(pairs)),
            on_stored: self.on_stored.clone(),
            commit: Arc::clone(context.commit()),
            runner: context.blocking().map(|(runner, _)| runner.clone()),
        }));
        Ok(())
    }

    fn write(&self, context: &Context<()>) -> Result<Pair, Failure> {
        let header = Header::of(context).map_err(Failure::undecodable)?;
        let name = self.pattern.name(&header.routing_key, &header.properties);
        let path = self.directory.join(&name);
        let header_path = self.directory.join(header_name(&name));
        let directory = self.prepare(path.parent().unwrap_or(&self.directory))?;
        let claim = Claim::key(&directory, &path);
        let body = context.shared_body();
        Ok(Pair::write(Stored { name, path, header_path, header, body, claim })?)
    }

    /// Creates a directory if it is missing. If it was not used before, removes old temporary files. Returns its path without links.
    fn prepare(&self, directory: &Path) -> Result<PathBuf, FileError> {
        if let Some(real) = lock(&self.shared.known).get(directory)
            && directory.is_dir()
        {
            return Ok(real.clone());
        }
        let is_missing = |it: &Path| !it.as_os_str().is_empty() && !it.exists();
        let missing = directory.ancestors().take_while(|it| is_missing(it)).count();
        fs::create_dir_all(directory).map_err(FileError::io("create", directory))?;
        // Up to that of the writer, each may be new in the one above it: another writer may have created it a moment ago.
        for (depth, created) in directory.ancestors().enumerate() {
            if depth >= missing && !created.starts_with(&self.directory) {
                break;
            }
            if let Some(above) = created.parent() {
                // One above the writer's directory may be unreadable.
                let _ = sync_directory(or_current(above));
            }
        }
        remove_old(directory);
        let real = fs::canonicalize(or_current(directory));
        let real = real.map_err(FileError::io("find", directory))?;
        let mut known = lock(&self.shared.known);
        if known.len() >= DIRECTORIES_MAX {
            known.clear();
        }
        known.insert(directory.to_owned(), real.clone());
        drop(known);
        Ok(real)
    }
}

impl<S> ThreadHandler<Storing, S> for Writer {
    fn call(&self, context: Context<S>) -> Outcome {
        self.store(&context).map_or_else(Outcome::failure, |()| Outcome::success())
    }
}

impl<S: Send + Sync + 'static> Handler<Storing, S> for Writer {
    async fn call(self, context: Context<S>) -> Outcome {
        Handler::call(blocking(self), context).await
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("directory", &self.directory).finish_non_exhaustive()
    }
}

const PREFIX: &str = ".amqp-app-";

/// A name that no file has.
pub(super) fn temporary(directory: &Path) -> PathBuf {
    directory.join(format!("{PREFIX}{}.tmp", ids::unique_now()))
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

/// The files of messages that are committed together, as a participant.
struct Files {
    stored: Vec<Arc<Stored>>,
    /// Shared with the threads that work on it: a vote may go on when its timeout has expired, and what follows waits for it.
    pairs: Arc<Mutex<Pairs>>,
    on_stored: Option<OnStored>,
    commit: Arc<()>,
    /// `None` without an application.
    runner: Option<Runner>,
}

impl Files {
    /// Works on the files where that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Pairs) -> T + Send + 'static,
    ) -> T {
        let pairs = Arc::clone(&self.pairs);
        let Some(runner) = &self.runner else { return work(&mut lock(&pairs)) };
        let promise = Promise::new();
        let kept = promise.other();
        runner.spawn_blocking(move || kept.keep(caught(move || work(&mut lock(&pairs)))));
        promise.wait().await.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Waits until no other messages have these names. All ask in the same order, so that they do not wait for each other.
    async fn claim(&self) -> Result<Vec<Claim>, Failure> {
        let paths: BTreeSet<_> = self.stored.iter().map(|stored| &*stored.claim).collect();
        let mut claims = Vec::new();
        for path in paths {
            let claiming = Claim::new(path, &self.commit);
            let claimed = match &self.runner {
                Some(runner) => {
                    runner.until(runner.now().checked_add(CONFIRMS_TIMEOUT), claiming).await
                }
                None => Some(claiming.await),
            };
            let claimed = claimed.ok_or_else(|| {
                let text = "a message whose file has the same name is not committed";
                Failure::retry(format!("{}: {text}", path.display()))
            })?;
            claims.push(claimed.ok_or_else(|| FileError::Twice { path: path.to_owned() })?);
        }
        Ok(claims)
    }
}

impl Participant for Files {
    async fn vote(&mut self) -> Result<(), Failure> {
        let claims = self.claim().await?;
        Ok(self.with(move |pairs| pairs.show(claims)).await?)
    }

    async fn finish(&mut self) {
        if self.on_stored.is_none() && !lock(&self.pairs).has_replaced() {
            return lock(&self.pairs).commit();
        }
        let (stored, on_stored) = (std::mem::take(&mut self.stored), self.on_stored.clone());
        let commit = move |pairs: &mut Pairs| {
            pairs.commit();
            if let Some(on_stored) = on_stored {
                stored.iter().for_each(|stored| on_stored(stored));
            }
        };
        self.with(commit).await;
    }

    async fn abort(&mut self) {
        self.with(Pairs::undo).await;
    }
}
