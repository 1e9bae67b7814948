//! The names of files between the votes and the commit of their messages: no other messages have them meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use event_listener::Event;

use super::error::FileError;
use crate::failure::Failure;
use crate::limits::CONFIRMS_TIMEOUT;
use crate::runner::Runner;
use crate::sync::lock;

/// Those of all writers of the process.
static BUSY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static FREE: Event = Event::new();

/// The name of a file, until this is dropped.
pub(super) struct Claim(PathBuf);

impl Claim {
    /// Waits until no other messages have this name.
    async fn new(path: PathBuf) -> Self {
        loop {
            let free = FREE.listen();
            if lock(&BUSY).insert(path.clone()) {
                return Self(path);
            }
            free.await;
        }
    }

    /// What is the same for all paths of a file, also if the file system ignores case.
    pub(super) fn key(directory: &Path, path: &Path) -> PathBuf {
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

/// The names of messages that are committed together. The first vote claims all of them, each other one has its claims then.
#[derive(Default)]
pub(crate) struct Commit(Mutex<Names>);

#[derive(Default)]
struct Names {
    /// Those of each participant, while it may vote.
    wanted: Vec<Weak<[PathBuf]>>,
    /// Those that are claimed, and whose participant has not voted. `None` before the first vote.
    claims: Option<BTreeMap<PathBuf, Claim>>,
}

impl Commit {
    /// Adds the names of a participant.
    pub(super) fn add(&self, names: &Arc<[PathBuf]>) {
        lock(&self.0).wanted.push(Arc::downgrade(names));
    }

    /// Claims the names of a participant, and at the first vote those of all others.
    pub(super) async fn claim(
        &self,
        names: &[PathBuf],
        runner: Option<&Runner>,
    ) -> Result<Vec<Claim>, Failure> {
        let is_first = lock(&self.0).claims.is_none();
        if is_first {
            let claims = self.claim_all(runner).await?;
            lock(&self.0).claims = Some(claims);
        }
        let mut all = lock(&self.0);
        let mut take = |name: &PathBuf| {
            let claim = all.claims.as_mut().and_then(|it| it.remove(name));
            claim.ok_or_else(|| FileError::Twice { path: name.clone() })
        };
        Ok(names.iter().map(&mut take).collect::<Result<_, _>>()?)
    }

    /// Claims all names. Each commit does so in one pass and in the same order, so that two of them do not wait for each other.
    async fn claim_all(
        &self,
        runner: Option<&Runner>,
    ) -> Result<BTreeMap<PathBuf, Claim>, Failure> {
        let wanted: Vec<_> = lock(&self.0).wanted.iter().filter_map(Weak::upgrade).collect();
        let wanted: BTreeSet<PathBuf> = wanted.iter().flat_map(|it| it.iter().cloned()).collect();
        let deadline = runner.and_then(|it| it.now().checked_add(CONFIRMS_TIMEOUT));
        let mut claims = BTreeMap::new();
        for path in wanted {
            let claiming = Claim::new(path.clone());
            let claim = match runner {
                Some(runner) => runner.until(deadline, claiming).await,
                None => Some(claiming.await),
            };
            let claim = claim.ok_or_else(|| {
                let text = "a message whose file has the same name is not committed";
                Failure::retry(format!("{}: {text}", path.display()))
            })?;
            claims.insert(path, claim);
        }
        Ok(claims)
    }

    /// Frees the names of those that have not voted: the commit has failed.
    pub(super) fn free(&self) {
        let claims = lock(&self.0).claims.as_mut().map(mem::take);
        drop(claims);
    }
}
