//! `Reader`: the files of a directory, as messages.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use amqp_async::FieldValue;
use amqp_async::types::ShortStr;

use super::directories::temporary;
use super::error::FileError;
use super::name::{X_FILENAME, hash, shorten};
use super::{Identity, caught, sync_directory};
use crate::failure::BoxError;
use crate::ids;
use crate::limits::{FILE_BYTES, FILES_TAKEN_BYTES, NAME_BYTES};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::sync::{Promise, lock};

/// The files of a directory as an [`Outbox`]: a [`Relay`](crate::Relay) sends each file, and moves it when it is confirmed.
///
/// The directory is a maildir. Programs put files into `new`: they write into `tmp` or elsewhere on the same file system, and
/// rename. A file that was sent is in `cur`. If there is one of the same name already, it gets a unique part behind its name. What
/// is missing of the three directories is created.
///
/// Files are sent in the order of their modification times, and of their names. Directories, symbolic links and names that begin
/// with a dot are ignored. The body is that of the file, and the header `X-Filename` has its name. The message id has the name, the
/// modification time and a hash of the body: if a file is sent twice, because the process ended before it was moved, the id is the
/// same.
///
/// A file that cannot be read, or that is too large ([`max_bytes`](Self::max_bytes)), stays in `new`, and is tried again. Others are
/// sent in the meantime. [`RelayReport::left_out`](crate::RelayReport::left_out) counts them. A file that is not confirmed, because
/// no queue is bound for its routing key, stays too, and those behind it wait: they have the same routing key.
///
/// A file that was sent and cannot be moved stays in `new` too. The reader reports it with those that were left out, does not send it
/// again, and tries to move it when it lists the directory. The next process sends it again. If no file can be moved, the relay waits.
///
/// One reader serves a directory. It reads on threads of its own, and never blocks an asynchronous runtime.
///
/// ```
/// use amqp_app::files::Reader;
/// use amqp_app::prelude::*;
/// use amqp_app::Relay;
///
/// # async fn example<P: amqp_app::Asynchronous>(pool: Pool<P>, shutdown: Shutdown) -> Result<(), Box<dyn std::error::Error>> {
/// let reader = Reader::new("/var/spool/orders", "order.created")?.content_type("text/xml")?;
/// let report = Relay::new(reader, &pool).run(shutdown).await?;
/// println!("{} files sent", report.sent);
/// # Ok(())
/// # }
/// ```
pub struct Reader {
    spool: Arc<Mutex<Spool>>,
}

/// A file that a [`Reader`] has read. Its text is the message id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileId {
    state: State,
    /// Of the body.
    hash: u64,
}

impl FileId {
    /// Returns the name of the file.
    pub fn name(&self) -> &OsStr {
        &self.state.name
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message id has 255 bytes, as a name has.
        let State { name, modified, .. } = &self.state;
        let name = name.to_string_lossy();
        let since = modified.and_then(|it| it.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let rest = format!("-{:x}-{:016x}", since.as_nanos(), self.hash);
        match name.len() + rest.len() {
            0..=NAME_BYTES => write!(f, "{name}{rest}"),
            _ => write!(f, "{}{rest}", shorten(&name, NAME_BYTES - rest.len())),
        }
    }
}

/// A file at some time. If another program has changed or replaced it, it is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    name: OsString,
    modified: Option<SystemTime>,
    bytes: u64,
    identity: Identity,
}

impl State {
    fn new(name: &OsStr, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let identity = Identity::of_state(metadata);
        Self { name: name.to_owned(), modified, bytes: metadata.len(), identity }
    }
}

impl Reader {
    /// Creates a reader of a maildir, whose files are sent to the exchange `amq.topic` with a routing key. It blocks.
    ///
    /// # Errors
    /// [`FileError::TooLong`] if the routing key has more than 255 bytes. [`FileError::Io`] if a directory is missing and cannot be
    /// created, or if files of `new` cannot be moved to `cur`.
    pub fn new(
        directory: impl Into<PathBuf>,
        routing_key: impl Into<String>,
    ) -> Result<Self, FileError> {
        let spool = Spool {
            directory: directory.into(),
            exchange: "amq.topic".to_owned(),
            routing_key: short("routing key", routing_key)?,
            content_type: "text/xml".to_owned(),
            most: FILE_BYTES,
            listed: VecDeque::new(),
            faulty: HashMap::new(),
            unmoved: HashMap::new(),
            faults: Vec::new(),
        };
        spool.prepare()?;
        spool.try_to_move()?;
        Ok(Self { spool: Arc::new(Mutex::new(spool)) })
    }

    /// Sets the exchange. It is `amq.topic` by default.
    ///
    /// # Errors
    /// [`FileError::TooLong`] if it has more than 255 bytes.
    pub fn exchange(self, exchange: impl Into<String>) -> Result<Self, FileError> {
        lock(&self.spool).exchange = short("exchange", exchange)?;
        Ok(self)
    }

    /// Sets the content type. It is `text/xml` by default.
    ///
    /// # Errors
    /// [`FileError::TooLong`] if it has more than 255 bytes.
    pub fn content_type(self, content_type: impl Into<String>) -> Result<Self, FileError> {
        lock(&self.spool).content_type = short("content type", content_type)?;
        Ok(self)
    }

    /// Sets the maximum size of a file, 16 MiB by default. A broker has a limit for messages, which should not be lower: a file
    /// that the broker refuses holds up those behind it.
    #[must_use]
    pub fn max_bytes(self, most: usize) -> Self {
        lock(&self.spool).most = most;
        self
    }

    /// Does something with the files on a thread where that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let promise = Promise::new();
        let (kept, spool) = (promise.other(), Arc::clone(&self.spool));
        let work = move || kept.keep(caught(move || work(&mut lock(&spool))));
        thread::Builder::new().name("amqp-app files".to_owned()).spawn(work)?;
        let done = promise.wait().await;
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    }
}

impl Outbox for Reader {
    type Id = FileId;

    async fn take(&mut self, most: usize) -> Result<Vec<(FileId, Message)>, BoxError> {
        self.with(move |spool| spool.take(most)).await
    }

    async fn sent(&mut self, ids: &[FileId]) -> Result<(), BoxError> {
        let sent: Vec<_> = ids.iter().map(|id| id.state.clone()).collect();
        self.with(move |spool| spool.sent(&sent)).await
    }

    fn left_out(&mut self) -> Vec<BoxError> {
        let faults = std::mem::take(&mut lock(&self.spool).faults);
        faults.into_iter().map(Into::into).collect()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

struct Spool {
    directory: PathBuf,
    exchange: String,
    routing_key: String,
    content_type: String,
    most: usize,
    /// The files that were there, oldest first. Those that are sent or left out are removed, and at its end the directory is
    /// listed again. To list it each time would take long with many files.
    listed: VecDeque<State>,
    /// Those that could not be sent, so that each is reported once.
    faulty: HashMap<OsString, State>,
    /// Those that were sent, and could not be moved.
    unmoved: HashMap<OsString, State>,
    /// What is to be reported.
    faults: Vec<FileError>,
}

impl Spool {
    fn prepare(&self) -> Result<(), FileError> {
        for name in ["tmp", "new", "cur"] {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).map_err(FileError::io("create", &path))?;
        }
        Ok(())
    }

    fn take(&mut self, most: usize) -> Result<Vec<(FileId, Message)>, FileError> {
        let taken = self.take_listed(most);
        if !taken.is_empty() {
            return Ok(taken);
        }
        self.list()?;
        Ok(self.take_listed(most))
    }

    /// Looks for files.
    fn list(&mut self) -> Result<(), FileError> {
        let new = self.directory.join("new");
        let entries = match fs::read_dir(&new) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.prepare()?;
                fs::read_dir(&new)
            }
            entries => entries,
        };
        let mut listed = Vec::new();
        for entry in entries.map_err(FileError::io("list", &new))? {
            let entry = entry.map_err(FileError::io("list", &new))?;
            let name = entry.file_name();
            // Of the entry itself, not of what a link points to. One that has gone in the meantime is none.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && !name.as_encoded_bytes().starts_with(b".") {
                listed.push(State::new(&name, &metadata));
            }
        }
        listed.sort_unstable_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        let unmoved = std::mem::take(&mut self.unmoved);
        let cur = self.directory.join("cur");
        listed.retain(|state| {
            if unmoved.get(&state.name) != Some(state) {
                return true;
            }
            if move_sent(&new.join(&state.name), state, &cur).is_err() {
                self.unmoved.insert(state.name.clone(), state.clone());
            }
            false
        });
        let names: HashSet<_> = listed.iter().map(|state| &state.name).collect();
        self.faulty.retain(|name, _| names.contains(name));
        self.listed = listed.into();
        Ok(())
    }

    /// Reads the first of those that were listed.
    fn take_listed(&mut self, most: usize) -> Vec<(FileId, Message)> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < most
            && let Some(listed) = self.listed.get(taken.len())
        {
            let size = usize::try_from(listed.bytes).unwrap_or(usize::MAX);
            if !taken.is_empty() && size.saturating_add(bytes) > FILES_TAKEN_BYTES {
                break;
            }
            let path = self.directory.join("new").join(&listed.name);
            match read(&path, listed, self.most) {
                Ok(Some((id, body))) => {
                    bytes += body.len();
                    self.listed[taken.len()] = id.state.clone();
                    let message = self.message(&id, body);
                    taken.push((id, message));
                }
                Ok(None) => drop(self.listed.remove(taken.len())),
                Err(error) => {
                    let Some(listed) = self.listed.remove(taken.len()) else { break };
                    let before = self.faulty.insert(listed.name.clone(), listed.clone());
                    if before.is_none_or(|before| before != listed) {
                        self.faults.push(error);
                    }
                }
            }
        }
        taken
    }

    fn message(&self, id: &FileId, body: Vec<u8>) -> Message {
        let name = id.name();
        let name = match name.to_str() {
            Some(name) => FieldValue::from(name),
            None => FieldValue::LongString(name.as_encoded_bytes().to_vec()),
        };
        Message::new(body)
            .to(&*self.exchange, &*self.routing_key)
            .content_type(&*self.content_type)
            .header(X_FILENAME, name)
    }

    /// Creates a file, and moves it from `new` to `cur`.
    fn try_to_move(&self) -> Result<(), FileError> {
        let [new, cur] = ["new", "cur"].map(|name| self.directory.join(name));
        let (from, to) = (temporary(&new), temporary(&cur));
        let moved = File::create_new(&from).and_then(|_| fs::rename(&from, &to));
        for path in [&from, &to] {
            // One of them is not there.
            let _ = fs::remove_file(path);
        }
        moved.map_err(FileError::io("move files to", &cur))
    }

    /// Remembers a file that was sent and cannot be moved. If no other can be moved either, it returns the error.
    fn not_moved(&mut self, sent: &State, error: FileError) -> Result<(), FileError> {
        if self.try_to_move().is_err() {
            return Err(error);
        }
        // `sent` is repeated while another file has an error.
        if self.unmoved.insert(sent.name.clone(), sent.clone()).as_ref() != Some(sent) {
            self.faults.push(error);
        }
        Ok(())
    }

    /// Moves files, and tries all of them before it returns an error.
    fn sent(&mut self, sent: &[State]) -> Result<(), FileError> {
        let [new, cur] = ["new", "cur"].map(|name| self.directory.join(name));
        let mut first = self.prepare();
        for state in sent {
            if self.listed.front() == Some(state) {
                self.listed.pop_front();
            }
            let path = new.join(&state.name);
            if let Err(cause) = move_sent(&path, state, &cur) {
                let remembered = self.not_moved(state, FileError::io("move", &path)(cause));
                first = first.and(remembered);
            }
        }
        for directory in [&cur, &new] {
            // Otherwise they may be in `new` again after a failure of the machine.
            let synced = sync_directory(directory).map_err(FileError::io("write", directory));
            first = first.and(synced);
        }
        first
    }
}

/// Returns the text if it fits a short string of the protocol (255 bytes). A message with a longer one cannot be encoded.
fn short(field: &'static str, text: impl Into<String>) -> Result<String, FileError> {
    let text = text.into();
    match ShortStr::new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(FileError::TooLong { field, bytes: text.len() }),
    }
}

/// Reads a file. `None` if it is not there, or changes meanwhile.
fn read(path: &Path, listed: &State, most: usize) -> Result<Option<(FileId, Vec<u8>)>, FileError> {
    let error = FileError::io("read", path);
    let too_large = |bytes| FileError::TooLarge { path: path.to_owned(), bytes, most };
    if listed.bytes > most as u64 {
        return Err(too_large(listed.bytes));
    }
    let mut body = Vec::new();
    let mut reading = || {
        // To open a pipe would block, and a link leads elsewhere.
        let found = fs::symlink_metadata(path)?;
        if !found.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        let mut file = File::open(path)?;
        if State::new(&listed.name, &file.metadata()?) != State::new(&listed.name, &found) {
            return Err(ErrorKind::NotFound.into());
        }
        let most = (most as u64).saturating_add(1);
        Read::by_ref(&mut file).take(most).read_to_end(&mut body)?;
        file.metadata()
    };
    match reading() {
        Ok(_) if body.len() > most => Err(too_large(body.len() as u64)),
        Ok(metadata) if metadata.len() == body.len() as u64 => {
            let state = State::new(&listed.name, &metadata);
            Ok(Some((FileId { hash: hash(&body), state }, body)))
        }
        Ok(_) => Ok(None),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(error(cause)),
    }
}

/// Moves a file to those that were sent. One that was moved before is not there, and one that another program has put in its place
/// was not sent.
fn move_sent(path: &Path, sent: &State, cur: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if State::new(&sent.name, &metadata) != *sent => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => {
            found?;
        }
    }
    let target = cur.join(&sent.name);
    let target = match fs::symlink_metadata(&target) {
        Err(error) if error.kind() == ErrorKind::NotFound => target,
        _ => {
            let unique = ids::unique_now();
            let mut name = sent.name.clone();
            name.push("~");
            name.push(&unique);
            cur.join(if name.len() <= NAME_BYTES { name } else { unique.into() })
        }
    };
    match fs::rename(path, target) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process;

    use super::*;

    /// Such as one of another owner, in a directory with the sticky bit.
    #[test]
    fn a_file_that_cannot_be_moved_is_sent_once_and_stops_no_other() {
        let directory = env::temp_dir().join(format!("amqp-app-unmoved-{}", process::id()));
        let reader = Reader::new(&directory, "key").unwrap();
        let mut spool = lock(&reader.spool);
        let [new, cur] = ["new", "cur"].map(|name| directory.join(name));
        fs::write(new.join("a"), "first").unwrap();
        let taken = spool.take(10).unwrap();
        let state = &taken[0].0.state;
        let error = || FileError::io("move", &new.join("a"))(ErrorKind::PermissionDenied.into());
        for _ in 0..2 {
            spool.not_moved(state, error()).unwrap();
        }
        assert_eq!(spool.faults.len(), 1, "each is reported once");
        spool.listed.clear();
        fs::write(new.join("b"), "second").unwrap();
        let taken = spool.take(10).unwrap();
        assert_eq!((taken.len(), taken[0].0.name()), (1, OsStr::new("b")));
        // What can be moved in the meantime is moved.
        assert!(cur.join("a").exists() && !new.join("a").exists());
        fs::remove_dir_all(&cur).unwrap();
        spool.not_moved(&taken[0].0.state, error()).unwrap_err();
        assert!(spool.unmoved.is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }
}
