//! Pools by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_lock::OnceCell;

use super::Pool;
use crate::error::Error;
use crate::platform::{Asynchronous, Platform};
use crate::runner::join_all;

/// The pools of an application by kind, such as `publish` and `listen`. Each is opened when it is first asked for, and stays
/// the same from then on.
///
/// Clones are handles to the same pools.
///
/// ```
/// use amqp_app::Pools;
/// use amqp_tokio::Connector;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = amqp_testkit::ModelBroker::start()?;
/// # let uri = broker.uri();
/// let connector = Connector::new(&uri)?;
/// let pools = Pools::new([("publish", connector.clone(), 5), ("listen", connector, 2)]);
/// let publish = pools.get("publish").await?;
/// assert_eq!(publish.status().open, 5);
/// pools.close().await;
/// # Ok(())
/// # }
/// ```
pub struct Pools<P: Platform>(Arc<BTreeMap<String, Kind<P>>>);

struct Kind<P: Platform> {
    platform: P,
    size: usize,
    pool: OnceCell<Pool<P>>,
}

impl<P: Asynchronous> Pools<P> {
    /// Resolves to the pool of this kind. The first call opens it; calls beside it wait for that.
    ///
    /// # Errors
    /// [`Error::UnknownPool`] if there is no such kind. Those of [`Pool::connect`] if the pool cannot be opened: then the
    /// next call tries again.
    ///
    /// # Cancel safety
    /// If the future is dropped, a pool that was being opened is not. A call beside it opens it then.
    pub async fn get(&self, kind: &str) -> Result<Pool<P>, Error> {
        self.find(kind).await
    }

    /// Closes all pools that were opened, as [`Pool::close`] does.
    ///
    /// # Cancel safety
    /// That of [`Pool::close`].
    pub async fn close(&self) {
        self.close_all().await;
    }
}

impl<P: Platform> Pools<P> {
    /// Creates pools of these kinds, each with its connector and its number of connections. Nothing is opened yet. If a kind
    /// is named twice, the last one counts.
    pub fn new<K: Into<String>>(kinds: impl IntoIterator<Item = (K, P, usize)>) -> Self {
        let kinds = kinds.into_iter().map(|(kind, platform, size)| {
            (kind.into(), Kind { platform, size, pool: OnceCell::new() })
        });
        Self(Arc::new(kinds.collect()))
    }

    pub(super) async fn find(&self, kind: &str) -> Result<Pool<P>, Error> {
        let Some(Kind { platform, size, pool }) = self.0.get(kind) else {
            let known = self.0.keys().cloned().collect();
            return Err(Error::UnknownPool { kind: kind.to_owned(), known });
        };
        let open = async || {
            let pool = Pool::new(platform.clone(), *size);
            pool.open().await.map(|()| pool)
        };
        pool.get_or_try_init(open).await.cloned()
    }

    pub(super) async fn close_all(&self) {
        let open = self.0.values().filter_map(|kind| kind.pool.get());
        join_all(open.map(Pool::close_all)).await;
    }
}

impl<P: Platform> Clone for Pools<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Platform> fmt::Debug for Pools<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools = self.0.iter().map(|(kind, it)| (kind, it.pool.get()));
        f.debug_map().entries(pools).finish()
    }
}
