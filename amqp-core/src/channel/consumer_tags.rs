//! The consumers of a channel by their tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::ConsumerKey;

/// The consumers of a channel by their tags.
#[derive(Debug, Default)]
pub(crate) struct ConsumerTags {
    by_tag: BTreeMap<Arc<[u8]>, ConsumerKey>,
    /// The consumer of the last delivery. In most cases, the next delivery is for the same one.
    last: Option<(Arc<[u8]>, ConsumerKey)>,
}

impl ConsumerTags {
    pub(crate) fn contains(&self, tag: &[u8]) -> bool {
        self.by_tag.contains_key(tag)
    }

    pub(crate) fn insert(&mut self, tag: Arc<str>, key: ConsumerKey) {
        self.by_tag.insert(tag.into(), key);
    }

    pub(crate) fn remove(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        self.last = None;
        self.by_tag.remove(tag)
    }

    #[inline(always)]
    pub(crate) fn find(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        match &self.last {
            Some((last, key)) if **last == *tag => Some(*key),
            _ => self.look_up(tag),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, tag: &[u8]) -> Option<ConsumerKey> {
        self.last = self.by_tag.get_key_value(tag).map(|(tag, key)| (Arc::clone(tag), *key));
        self.last.as_ref().map(|(_, key)| *key)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
