//! Holders: the state that handles share. The last reference closes it.
//!
//! A [`ChannelHolder`] represents a channel, and a [`ConnectionHolder`] a connection. Every handle and every
//! future of a channel has a reference to the holder of the channel, which has a reference to the holder of
//! the connection. The last reference that is dropped closes the channel, and then the connection.
//!
//! The connections that [hooks](crate::Hooks) get have holders of their own, which keep nothing open.

use std::fmt::Debug;
use std::sync::Arc;

use std::time::Instant;

use amqp_core::{Attempt, Call, ChannelId, Error, Session};

use crate::shared::Shared;
use crate::trace::Once;

#[derive(Debug)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub struct ConnectionHolder {
    pub(crate) shared: Arc<Shared>,
    hold: Hold,
}

/// What a holder keeps open, and what is opened with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// The connection.
    Open,
    /// Nothing. Channels end with the transport of this attempt.
    Setup(Attempt),
    /// Nothing.
    Weak,
}

impl ConnectionHolder {
    /// Creates a holder that closes the connection when it is dropped.
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, hold: Hold::Open }
    }

    /// Creates a holder for a hook that sets up a transport.
    pub(crate) fn setup(shared: &Arc<Shared>, attempt: Attempt) -> Self {
        Self { shared: Arc::clone(shared), hold: Hold::Setup(attempt) }
    }

    /// Creates a holder that keeps nothing open.
    pub(crate) fn weak(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), hold: Hold::Weak }
    }

    /// Opens a channel.
    pub(crate) fn open_channel(
        &self,
        session: &mut Session,
        now: Instant,
    ) -> Result<(ChannelId, Call<()>), Error> {
        match self.hold {
            Hold::Setup(attempt) => session.open_setup_channel(now, attempt),
            Hold::Open | Hold::Weak => session.open_channel(now),
        }
    }

    /// Whether channels can be opened at once.
    pub(crate) fn is_open(&self, session: &Session) -> bool {
        match self.hold {
            Hold::Setup(attempt) => session.is_connected(attempt),
            Hold::Open | Hold::Weak => session.is_open(),
        }
    }
}

impl Drop for ConnectionHolder {
    fn drop(&mut self) {
        if self.hold == Hold::Open {
            let now = self.shared.now();
            self.shared.with(|state| state.session.close(now));
        }
    }
}

#[derive(Debug)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub struct ChannelHolder {
    connection: Arc<ConnectionHolder>,
    id: ChannelId,
    drop_logged: Once,
}

impl ChannelHolder {
    pub(crate) fn new(connection: Arc<ConnectionHolder>, id: ChannelId) -> Arc<Self> {
        Arc::new(Self { connection, id, drop_logged: Once::default() })
    }

    pub(crate) const fn connection(&self) -> &Arc<ConnectionHolder> {
        &self.connection
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.connection.shared
    }

    #[inline]
    pub(crate) const fn id(&self) -> ChannelId {
        self.id
    }

    /// Whether it was logged that a message that was got was dropped.
    pub(crate) const fn drop_logged(&self) -> &Once {
        &self.drop_logged
    }
}

impl Drop for ChannelHolder {
    fn drop(&mut self) {
        let now = self.shared().now();
        self.shared().with(|state| state.session.channel(self.id).release(now));
    }
}

/// The holder that a call keeps open until it is answered.
#[doc(hidden)]
#[allow(unreachable_pub, reason = "it stands in a trait that seals a public one")]
pub trait Holder: Unpin + Debug {
    fn shared(&self) -> &Shared;
}

impl Holder for Arc<ChannelHolder> {
    fn shared(&self) -> &Shared {
        ChannelHolder::shared(self)
    }
}

impl Holder for Arc<ConnectionHolder> {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}
