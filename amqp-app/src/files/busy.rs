//! Names of files that are claimed from the vote until the commit of their messages, so that no other commit uses them.

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

/// The name of a file.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The same for all paths of the file, also if the file system ignores case.
    key: PathBuf,
    path: PathBuf,
}

impl Name {
    /// `directory` is without links.
    pub(super) fn new(directory: &Path, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        let key = directory.join(name.to_string_lossy().to_lowercase());
        Self { key, path: path.to_owned() }
    }
}

/// A name that no other commit uses, until this is dropped.
pub(super) struct Claim(PathBuf);

impl Claim {
    /// Waits until no other commit uses the name with this key.
    async fn new(key: PathBuf) -> Self {
        loop {
            let free = FREE.listen();
            if lock(&BUSY).insert(key.clone()) {
                return Self(key);
            }
            free.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&BUSY).remove(&self.0);
        FREE.notify(usize::MAX);
    }
}

/// The names of messages that are committed together. The first vote claims the names of all participants. Each later vote takes its
/// own from these.
#[derive(Default)]
pub(crate) struct Commit(Mutex<Names>);

#[derive(Default)]
struct Names {
    /// Those of each participant, while it may vote.
    wanted: Vec<Weak<[Name]>>,
    /// Those that are claimed, by their keys, and whose participant has not voted. `None` before the first vote.
    claims: Option<BTreeMap<PathBuf, Claim>>,
}

impl Commit {
    /// Adds the names of a participant.
    pub(super) fn add(&self, names: &Arc<[Name]>) {
        lock(&self.0).wanted.push(Arc::downgrade(names));
    }

    /// Claims the names of a participant, and at the first vote those of all others.
    pub(super) async fn claim(
        &self,
        names: &[Name],
        runner: Option<&Runner>,
    ) -> Result<Vec<Claim>, Failure> {
        let is_first = lock(&self.0).claims.is_none();
        if is_first {
            let claims = self.claim_all(runner).await?;
            lock(&self.0).claims = Some(claims);
        }
        let mut all = lock(&self.0);
        let mut take = |name: &Name| {
            let claim = all.claims.as_mut().and_then(|it| it.remove(&name.key));
            claim.ok_or_else(|| FileError::Twice { path: name.path.clone() })
        };
        Ok(names.iter().map(&mut take).collect::<Result<_, _>>()?)
    }

    /// Claims all names. Each commit does so in one pass and in the same order, so that two of them do not wait for each other.
    async fn claim_all(
        &self,
        runner: Option<&Runner>,
    ) -> Result<BTreeMap<PathBuf, Claim>, Failure> {
        let wanted: Vec<_> = lock(&self.0).wanted.iter().filter_map(Weak::upgrade).collect();
        let wanted = wanted.iter().flat_map(|it| it.iter().cloned());
        let wanted: BTreeMap<_, _> = wanted.map(|it| (it.key, it.path)).collect();
        let deadline = runner.and_then(|it| it.now().checked_add(CONFIRMS_TIMEOUT));
        let mut claims = BTreeMap::new();
        for (key, path) in wanted {
            let claiming = Claim::new(key.clone());
            let claim = match runner {
                Some(runner) => runner.until(deadline, claiming).await,
                None => Some(claiming.await),
            };
            let claim = claim.ok_or_else(|| {
                let text = "a message whose file has the same name is not committed";
                Failure::retry(format!("{}: {text}", path.display()))
            })?;
            claims.insert(key, claim);
        }
        Ok(claims)
    }

    /// Frees the names of those that have not voted: the commit has failed.
    pub(super) fn free(&self) {
        let claims = lock(&self.0).claims.as_mut().map(mem::take);
        drop(claims);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{Commit, Name};

    #[test]
    fn an_error_names_the_file_as_its_message_does() {
        let names = |path: &str| Arc::new([Name::new(Path::new("/spool"), Path::new(path))]);
        let commit = Commit::default();
        let (first, second) = (names("busy/Order.XML"), names("busy/ORDER.xml"));
        commit.add(&(Arc::clone(&first) as Arc<[Name]>));
        commit.add(&(Arc::clone(&second) as Arc<[Name]>));
        let claim = |names: &[Name]| {
            let mut claiming = pin!(commit.claim(names, None));
            match claiming.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(claimed) => claimed.map(|it| it.len()).map_err(|it| it.to_string()),
                Poll::Pending => panic!("the name is free"),
            }
        };
        assert_eq!(claim(&*first), Ok(1));
        let error = claim(&*second).unwrap_err();
        assert!(error.contains("busy/ORDER.xml"), "{error}");
    }
}
