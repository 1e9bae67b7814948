//! The options of TCP sockets, which drivers apply.

use std::net::IpAddr;
use std::time::Duration;

use crate::limits::{KEEPALIVE_MAX, KEEPALIVE_RETRIES_MAX, USER_TIMEOUT_MAX};

/// Options of the TCP sockets that are dialled. By default all are those of the operating system.
///
/// `TCP_NODELAY` is always set. Heartbeats find a dead peer without any of these options; keepalive helps where they
/// are off, and where a firewall forgets idle connections. What the platform does not support is an error of each
/// attempt, [`ConnectFailure::Dial`](crate::errors::ConnectFailure::Dial) of the kind `Unsupported`.
///
/// The options do not apply to streams that the application connects itself.
///
/// ```
/// use amqp_core::{Config, TcpOptions};
/// use std::time::Duration;
/// let tcp = TcpOptions::default()
///     .keepalive_idle(Duration::from_secs(60))
///     .local_address([10, 0, 0, 7]);
/// let config = Config::default().tcp_options(tcp.clone());
/// assert_eq!(config.tcp(), &tcp);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpOptions {
    /// How long the connection is idle before the first keepalive probe (`TCP_KEEPIDLE`). Any of the three keepalive
    /// options turns keepalive on.
    pub keepalive_idle: Option<Duration>,
    /// The time between two keepalive probes (`TCP_KEEPINTVL`).
    pub keepalive_interval: Option<Duration>,
    /// The number of unanswered probes after which the connection is lost (`TCP_KEEPCNT`).
    pub keepalive_retries: Option<u32>,
    /// How long written bytes may remain unacknowledged before the connection is lost (`TCP_USER_TIMEOUT`, Linux).
    pub user_timeout: Option<Duration>,
    /// The size of the kernel's send buffer in bytes (`SO_SNDBUF`). The kernel has its own limits.
    pub send_buffer_bytes: Option<u32>,
    /// The size of the kernel's receive buffer in bytes (`SO_RCVBUF`). The kernel has its own limits.
    pub receive_buffer_bytes: Option<u32>,
    /// The local address from which the host is dialled. Addresses of the host that are of the other IP version
    /// cannot be dialled from it.
    pub local_address: Option<IpAddr>,
}

impl TcpOptions {
    /// Turns keepalive on, and sets how long the connection is idle before the first probe: 1 to 32,767 s. Parts of
    /// a second are rounded up.
    #[must_use]
    pub fn keepalive_idle(mut self, idle: Duration) -> Self {
        self.keepalive_idle = Some(whole_seconds(idle));
        self
    }

    /// Turns keepalive on, and sets the time between two probes: 1 to 32,767 s. Parts of a second are rounded up.
    #[must_use]
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = Some(whole_seconds(interval));
        self
    }

    /// Turns keepalive on, and sets after how many unanswered probes the connection is lost: 1 to 127.
    #[must_use]
    pub fn keepalive_retries(mut self, probes: u32) -> Self {
        self.keepalive_retries = Some(probes.clamp(1, KEEPALIVE_RETRIES_MAX));
        self
    }

    /// Sets how long written bytes may remain unacknowledged before the connection is lost: up to 24 hours, in
    /// milliseconds. 0 is the default of the operating system.
    #[must_use]
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        let milliseconds = timeout.min(USER_TIMEOUT_MAX).as_millis();
        self.user_timeout = Some(Duration::from_millis(milliseconds as u64));
        self
    }

    /// Sets the size of the kernel's send buffer in bytes.
    #[must_use]
    pub const fn send_buffer_bytes(mut self, bytes: u32) -> Self {
        self.send_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the size of the kernel's receive buffer in bytes.
    #[must_use]
    pub const fn receive_buffer_bytes(mut self, bytes: u32) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the local address from which the host is dialled.
    #[must_use]
    pub fn local_address(mut self, address: impl Into<IpAddr>) -> Self {
        self.local_address = Some(address.into());
        self
    }
}

/// Rounds up to a number of seconds that every system accepts.
fn whole_seconds(time: Duration) -> Duration {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    Duration::from_secs(seconds.max(1)).min(KEEPALIVE_MAX)
}
