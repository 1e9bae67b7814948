//! `Writer`: messages as files.

use std::fmt;
use std::mem;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::busy::{Commit, Name};
use super::caught;
use super::directories::Directories;
use super::error::PatternError;
use super::header::Header;
use super::name::{Pattern, header_name};
use super::stored::{Pair, Pairs, Stored};
use crate::context::Context;
use crate::failure::Failure;
use crate::handler::{Handler, ThreadHandler, blocking};
use crate::outcome::Outcome;
use crate::participants::Participant;
use crate::runner::Runner;
use crate::sync::{Promise, lock};

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
/// the other, also by different writers of the process, in an undefined order. A message that has waited for 30 s fails, and this counts as an attempt.
/// Writers in several processes do not wait for each other: they need a pattern
/// with `${unique}`, which never has the name of another file.
///
/// A process that is killed leaves temporary files, whose names begin with `.amqp-app-`. A writer removes those that are
/// older than a day ([`TEMPORARY_KEPT`](crate::limits::TEMPORARY_KEPT)) from each directory that it uses for the first time. With
/// more than 64 directories, it looks into at most one of them per minute.
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
    directories: Arc<Directories>,
}

/// A function that is called for each message.
type OnStored = Arc<dyn Fn(&Stored) + Send + Sync>;

/// What the handlers of [`Writer`]s have in place of arguments.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Storing;

impl Writer {
    /// Creates a writer below a directory. The pattern is `${routing_key}-${unique}`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            pattern: Pattern::default(),
            on_stored: None,
            directories: Arc::default(),
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
    /// block. If it panics, the message is stored nevertheless, and it is called for the others.
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
    ///
    /// [`FileError`]: crate::files::FileError
    /// [`FileError::Twice`]: crate::files::FileError::Twice
    pub fn store<S>(&self, context: &Context<S>) -> Result<(), Failure> {
        let messages = context.without_state().batch();
        let written = messages.iter().filter(|it| !it.is_refused()).map(|it| self.write(it));
        let pairs = Pairs::new(written.collect::<Result<_, _>>()?);
        let stored = pairs.stored();
        let names: Arc<[_]> = stored.iter().map(|it| it.unique.clone()).collect();
        context.commit().add(&names);
        context.join(Box::new(Files {
            stored,
            names,
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
        let directory = path.parent().unwrap_or(&self.directory);
        let directory = self.directories.prepare(directory, &self.directory)?;
        let unique = Name::new(&directory, &path);
        let body = context.shared_body();
        Ok(Pair::write(Stored { name, path, header_path, header, body, unique })?)
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

/// The files of messages that are committed together, as a participant.
struct Files {
    stored: Vec<Arc<Stored>>,
    /// Shared with the threads that work on it: a vote may go on when its timeout has expired, and what follows waits for it.
    pairs: Arc<Mutex<Pairs>>,
    on_stored: Option<OnStored>,
    commit: Arc<Commit>,
    names: Arc<[Name]>,
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
        promise.wait().await.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Without a commit, such as when the application ends.
impl Drop for Files {
    fn drop(&mut self) {
        self.commit.free();
    }
}

impl Participant for Files {
    async fn vote(&mut self) -> Result<(), Failure> {
        let claims = self.commit.claim(&self.names, self.runner.as_ref()).await?;
        Ok(self.with(move |pairs| pairs.show(claims)).await?)
    }

    async fn finish(&mut self) {
        if self.on_stored.is_none() && !lock(&self.pairs).has_replaced() {
            return lock(&self.pairs).commit();
        }
        let (stored, on_stored) = (mem::take(&mut self.stored), self.on_stored.clone());
        let commit = move |pairs: &mut Pairs| {
            pairs.commit();
            if let Some(on_stored) = on_stored {
                // A panic for one message must not hide the others.
                let called: Vec<_> = stored.iter().map(|it| caught(|| on_stored(it))).collect();
                if let Some(panic) = called.into_iter().find_map(Result::err) {
                    resume_unwind(panic);
                }
            }
        };
        self.with(commit).await;
    }

    async fn abort(&mut self) {
        self.commit.free();
        self.with(Pairs::undo).await;
    }
}
