//! The limits and default times of applications.

use std::time::Duration;

/// How long a message that is given back waits before its `basic.nack`, so that a handler that cannot work now is not
/// called in a loop.
pub const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);

/// The pause before an attempt in place: long enough for a lock or a lost connection of the handler to pass.
pub const IN_PLACE_PAUSE: Duration = Duration::from_millis(50);

/// The shortest pause before a message goes back into its queue, so that one that always fails does not keep a worker busy.
pub const REQUEUE_PAUSE: Duration = Duration::from_millis(50);

/// The delays of the default retry policy. The first ones outlast a restart of what the handler needs, the last one an
/// operator's reaction.
pub const RETRY_DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// The number of deliveries without an outcome after which a message is parked. RabbitMQ 4.0 drops a message after 20
/// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
pub const DELIVERIES_MAX: u32 = 10;

/// The maximum length of an error's text in a header, in characters, so that the header fits into a frame.
pub const ERROR_TEXT_MAX: usize = 1_000;

/// How deep the value of a body may be nested, which is the limit of `serde_json` too. Each level takes some of the thread's
/// stack.
pub const PAYLOAD_DEPTH_MAX: usize = 128;

/// The maximum length of a message id in bytes: it is a short string of AMQP.
pub const MESSAGE_ID_MAX: usize = 255;

/// How long a message waits for the confirms of what it has caused, before it is given back. A broker that blocks
/// publishes may confirm nothing for hours.
pub const CONFIRMS_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of requests of one [`Requester`](crate::Requester) that wait for their replies. A responder that has
/// stopped makes all of them wait until their deadlines.
pub const REQUESTS_MAX: usize = 16_384;

/// The longest delay of [`Delays`](crate::Delays), about 49 days: RabbitMQ takes times to live below 2^32 milliseconds.
pub const DELAY_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The number of messages that a [`Relay`](crate::Relay) takes and publishes at a time: those that it publishes again if the
/// first of them is not confirmed.
pub const RELAYED_MAX: usize = 100;

/// How long a [`Relay`](crate::Relay) waits before it looks into an empty outbox again, unless it says otherwise. A query each
/// second costs a database little.
pub const OUTBOX_POLL: Duration = Duration::from_secs(1);

/// How long an exchange is known to exist. A publish to one that is missing closes the channel, and with it the confirms of
/// all others.
pub const EXCHANGE_KNOWN: Duration = Duration::from_secs(30);

/// The maximum number of exchanges that are known to exist at a time. An application that makes up their names looks them up
/// again.
pub const EXCHANGES_KNOWN_MAX: usize = 1_000;

/// How long the store of a source that deduplicates may take to remove a mark, or to store an outcome when participants have
/// committed. The mark expires anyway, and a store that hangs must not hold a worker.
pub const SEEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The first delay before a consumer that has ended is started again. It doubles up to [`RESTART_DELAY_MAX`].
pub const RESTART_DELAY: Duration = Duration::from_millis(200);

/// The longest delay before a consumer that has ended is started again.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);

/// How long messages in work may take after a shutdown has begun, unless [`Shutdown::within`](crate::Shutdown::within) says
/// otherwise. Container platforms kill a process 30 s after they have asked it to end.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of outcomes whose acknowledgement was lost that a source remembers, as many as may be in work when a
/// connection is lost.
pub const REMEMBERED_MAX: usize = 1_000;

/// The bytes of the messages of these outcomes.
pub const REMEMBERED_BYTES: usize = 8 << 20;

/// How long such an outcome is remembered. The broker delivers its message again when the connection is recovered.
pub const REMEMBERED_TIME: Duration = Duration::from_secs(600);

/// How long a step of a test waits for what it expects: a busy machine may be slow.
pub const TEST_PATIENCE: Duration = Duration::from_secs(10);

/// How often a step of a test looks for what it expects.
pub const TEST_POLL: Duration = Duration::from_millis(1);

/// How long a step of a test waits for a RabbitMQ: a node that other tests share, on a busy machine, takes seconds for a call.
pub const VHOST_PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks of a test at a RabbitMQ. A shorter one would keep a shared node busy.
pub const VHOST_POLL: Duration = Duration::from_millis(20);

/// How long tasks have to end when their messages were given back. Only a thread whose handler does not return needs longer.
pub const ABANDONED_WAIT: Duration = Duration::from_millis(500);

/// How often the metric `amqp_app.ready` is taken. Collectors ask for metrics every few seconds.
pub const READY_SAMPLED: Duration = Duration::from_secs(1);

/// How long a pool that closes waits for confirms, as long as most applications have until they are killed.
pub const POOL_DRAIN: Duration = Duration::from_secs(10);

/// How long a pool that closes waits for the socket of a connection that is closed, as long as its last bytes may take.
pub const POOL_SOCKETS: Duration = Duration::from_secs(1);

/// The number of connections at a time that the server for health answers. An orchestrator has a few.
pub const HTTP_CONNECTIONS: usize = 16;

/// The maximum size of the head of a request for health in bytes, as in most servers.
pub const HTTP_HEAD_BYTES: usize = 8 << 10;

/// The maximum number of headers of a request for health. Probes have about five.
pub const HTTP_HEADERS_MAX: usize = 64;

/// The bytes behind the head of a request that are read and ignored, so that the peer gets its answer.
pub const HTTP_IGNORED_BYTES: usize = 64 << 10;

/// How long a request for health may take. Probes wait for less.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server for health waits before it accepts again, while it has too many connections, or the system has no
/// more files.
pub const HTTP_ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The shortest pause between two notifications of systemd's watchdog. Units have seconds or minutes.
pub const WATCHDOG_PAUSE: Duration = Duration::from_millis(1);

/// The number of connections of a pool whose configuration does not say it: that of nucleon's pools.
pub const POOL_CONNECTIONS: usize = 5;

/// The maximum size of a configuration file in bytes. A file that is larger was named by mistake.
pub const CONFIG_FILE_BYTES: usize = 1 << 20;

/// The maximum depth of tables and sections in a configuration. The parser of TOML has a limit of this size too.
pub const CONFIG_DEPTH_MAX: usize = 80;

/// The maximum length of an unknown key in an error, in bytes. What is longer is not a misspelt name.
pub const CONFIG_NAME_MAX: usize = 64;

/// The maximum size of a file with a password or a URL in bytes: more than a token of OAuth 2 has.
pub const SECRET_FILE_BYTES: usize = 1 << 16;

/// The maximum delay before a lost connection is recovered that a configuration can set: that of the client's settings.
pub const RECOVER_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The number of transactions of a pool that are open at a time. Each has a channel, of which a connection has 2,047 by default,
/// and the broker keeps what is not committed in its memory.
pub const TRANSACTIONS_MAX: usize = 16;

/// How long a pool waits after an attempt that failed before it opens a connection in the same place, so that a broker that
/// is down is not asked in a loop.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// How long a source that holds messages consumes on a channel by default: the time after which they come again.
pub const CHANNEL_ROTATION: Duration = Duration::from_secs(360);

/// The shortest time for which a source consumes on a channel: to open one takes a few round trips to the broker.
pub const ROTATION_MIN: Duration = Duration::from_millis(10);

/// The number of messages that a consumer may hold by default. Its prefetch is this and the number of its workers.
pub const HOLDING_PREFETCH: u16 = 20;

#[cfg(feature = "files")]
/// The maximum length of a file's name in bytes. File systems have 255. The name of the file with the header has 7 more, and what
/// distinguishes others from it takes 4.
pub const NAME_BYTES: usize = 244;

#[cfg(feature = "files")]
/// The bytes that a value needs at least when it is cut, because the name of a file would be too long: a mark, and a hash of 64
/// bits in hexadecimal digits.
pub const SHORTENED_BYTES: usize = 17;

#[cfg(feature = "files")]
/// The bytes of a date in the name of a file. The last second that a timestamp can name has a year of 12 digits.
pub const DATE_BYTES: usize = 18;

#[cfg(feature = "files")]
/// The bytes of the unique part of a file's name: microseconds, a number of the process, and a counter, the longest of each.
pub const UNIQUE_BYTES: usize = 64;

#[cfg(feature = "files")]
/// The maximum size of a file that is sent, in bytes, unless [`Reader::max_bytes`](crate::files::Reader::max_bytes) says
/// otherwise: that of a message on RabbitMQ 4 without a configuration.
pub const FILE_BYTES: usize = 16 << 20;

#[cfg(feature = "files")]
/// The bytes of files that are in memory at a time while they are sent. One file may be larger.
pub const FILES_TAKEN_BYTES: usize = 16 << 20;

#[cfg(feature = "files")]
/// How old a temporary file must be to be removed: far older than any that is still written, also by another process.
pub const TEMPORARY_KEPT: Duration = Duration::from_secs(86_400);

#[cfg(feature = "files")]
/// The number of directories that a [`Writer`](crate::files::Writer) knows to exist. The oldest one is forgotten
/// first. Patterns have one for each day, or one for each routing key.
pub const DIRECTORIES_MAX: usize = 64;

#[cfg(feature = "files")]
/// How long a [`Writer`](crate::files::Writer) with more directories than it knows waits before it looks for old temporary files in
/// another one. To read a directory with many files takes long.
pub const SCAN_PAUSE: Duration = Duration::from_secs(60);
