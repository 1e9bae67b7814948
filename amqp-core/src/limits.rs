//! Limits of the core: each with its unit in the name, and the reason for its value. The other crates have a
//! `limits` file of their own.
//!
//! A limit that an application can change has its default here, and a setter on [`crate::Config`].

use std::time::Duration;

/// The maximum of every timeout that can be configured. A longer one has no practical use, and adding it to
/// the current time could overflow.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The default timeout of connecting as a whole: resolving, dialling and the handshake, over all hosts.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The default timeout of one address: fetching credentials, dialling and the handshake; and of looking up one host. It
/// is shorter than [`CONNECT_TIMEOUT`], so that time is left for the next address if a host drops packets silently.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The default delay between two cycles of attempts to connect. It is long enough for a broker that restarts to
/// open its port within a few cycles, and it is pika's default.
pub const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The minimum delay before an attempt to recover a connection. With none, a broker that is down would be dialled
/// without a pause.
pub const RECOVERY_DELAY_MIN: Duration = Duration::from_millis(1);

/// The default delay before the first attempt to recover a connection. A restarted proxy or a failed-over node is back
/// within this time, and a person hardly notices the interruption.
pub const RECOVERY_FIRST_DELAY: Duration = Duration::from_millis(500);

/// The default maximum delay between attempts to recover a connection, without jitter. It costs a broker that is down
/// for hours little, and an application waits no longer than this once the broker is back.
pub const RECOVERY_LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The default random part of a delay, as a fraction of it, more or less. Clients that lose their broker at the same time
/// return over a period as long as the delay.
pub const RECOVERY_JITTER_FRACTION: f64 = 0.5;

/// The maximum number of failed attempts that an error of connecting lists. Older ones are dropped. It bounds the
/// memory when a connection is tried again for a long time.
pub const FAILED_ATTEMPTS_MAX: usize = 1024;

/// The maximum number of failed attempts at each end of a list that the text of an error has. A longer text would not be
/// read.
pub const FAILED_ATTEMPTS_SHOWN_MAX: usize = 8;

/// The maximum of every timeout and delay that a URI or a configuration file can set. A longer one is a mistake in the
/// unit.
pub const SETTING_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The maximum idle time and interval of TCP keepalive. It is that of Linux.
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// The maximum number of TCP keepalive probes. It is that of Linux.
pub const KEEPALIVE_RETRIES_MAX: u32 = 127;

/// The maximum of the TCP user timeout. A longer one has no practical use.
pub const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The minimum of the timeout of one address. With none, an attempt would fail before it begins.
pub const ADDRESS_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The minimum time for which refusals of exclusive queues and consumers are not final while a connection is restored.
/// RabbitMQ holds them for the lost connection until it notices the loss, which takes up to three heartbeat intervals;
/// without heartbeats, and after a restart, this long should do.
pub const RESTORE_PATIENCE_MIN: Duration = Duration::from_secs(30);

/// How long a queue whose node is down is requested again while a connection is restored. A node that has just started
/// refuses its stream queues for about a second. Behind one that stays down, the rest of the topology must not wait long.
pub const NODE_DOWN_PATIENCE: Duration = Duration::from_secs(10);

/// The delay after which a refused exclusive queue or consumer is requested again. A few requests a second cost a broker
/// little, and a human does not notice the delay.
pub const HELD_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The default timeout of the hook that sets up a connection. It is that of a call: a hook makes a few.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of declarations in flight while topology is declared again. It is enough to keep a broker busy
/// over a slow network, and bounds what is sent in vain behind a refused one.
pub const REPLAY_CALLS_MAX: usize = 256;

/// How long a call waits for its reply, by default.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of bytes that a login's frame needs besides its long fields: a mechanism and a locale of up to 255 bytes
/// each, and the lengths. A buffer of that size does not move while the frame is written.
pub const SHORT_FIELDS_BYTES: usize = 1_024;

/// The minimum time between two attempts to renew credentials. A provider is not asked more often, even if the
/// credentials have expired or expire at once.
pub const RENEWAL_RETRY_MIN: Duration = Duration::from_secs(1);

/// How long a close waits for the broker's reply, by default. A broker with a resource alarm does not reply
/// to a close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The default prefetch of a consumer: the maximum number of unacknowledged deliveries. It is large enough to
/// hide a network round trip, and small enough to share a queue fairly among consumers.
pub const PREFETCH: u16 = 256;

/// The number of consumer tags per channel that are remembered because the broker delivered to them after the
/// consumer ended. RabbitMQ has fewer in flight at a time, and this many are cheap to search.
pub const STRAY_TAGS_MAX: usize = 64;

/// The number of bytes waiting to be written at which publishes start to wait. A fast network sends this much
/// in milliseconds. It is just under 1 MiB, so that the buffer does not exceed 1 MiB with the last publish.
pub const OUTBOUND_HIGH_BYTES: usize = (1 << 20) - (8 << 10);

/// The number of bytes waiting to be written below which waiting publishes continue. It is low enough that
/// each wake-up accepts many publishes, and high enough that the socket does not run out of data.
pub const OUTBOUND_LOW_BYTES: usize = 256 << 10;

/// The number of bytes waiting to be written at which reading pauses. It bounds the replies to a peer that
/// sends requests but does not read. It is 1.5 times what publishes may fill.
pub const OUTBOUND_HARD_BYTES: usize = 3 << 19;

/// The number of bytes that may wait behind `tx.commit`s whose replies have not come, and do not count towards
/// [`OUTBOUND_HARD_BYTES`]: reading goes on, so that the replies are read. It has space for some 800,000 acks, and bounds what
/// a peer can cause that does not reply.
pub const OUTBOUND_HELD_BYTES: usize = 16 << 20;

/// The number of bytes by which a large buffer grows for frames other than publishes. Above half of
/// [`OUTBOUND_HIGH_BYTES`] the buffer grows by this step instead of doubling.
pub const OUTBOUND_STEP_BYTES: usize = 128 << 10;

/// The number of unread bytes at which reading pauses, unless the connection waits for other input, such as a
/// reply. Only deliveries that no prefetch bounds count. It is large enough to keep a fast consumer busy.
pub const INBOUND_HIGH_BYTES: usize = 8 << 20;

/// The number of unread bytes, counted as for [`INBOUND_HIGH_BYTES`], at which a pause is reported as ended.
/// It is half of that limit, so that the flow control of a flood is reported once.
pub const INBOUND_LOW_BYTES: usize = 4 << 20;

/// The number of unread bytes, counted as for [`INBOUND_HIGH_BYTES`], at which reading always pauses. It
/// bounds the memory that a connection holds for consumers without acknowledgement or without prefetch.
/// for consumers without acknowledgement or without prefetch.
pub const INBOUND_HARD_BYTES: usize = 64 << 20;

/// The number of bytes that are read at intervals during a pause below [`INBOUND_HARD_BYTES`]. It is enough
/// to reopen the TCP window of a socket with large buffers, so that the broker can write.
pub const TRICKLE_BYTES: usize = 1 << 20;

/// The maximum number of bytes of partly received messages, over all channels. It has buffer space for one
/// message of the maximum size and some smaller ones. RabbitMQ sends one message after the other, so only one
/// is incomplete at a time.
pub const INCOMPLETE_BYTES: usize = 192 << 20;

/// The maximum size of a method frame, and of a header frame that is kept. It can exceed `frame_max`, because
/// RabbitMQ adds headers when it dead-letters a message.
pub const HEADER_FRAME_BYTES: u32 = 1 << 20;

/// The maximum size of a header frame that is skipped. Its message arrives without properties and body; the
/// connection continues. It equals the maximum size of a message.
pub const SKIPPED_HEADER_FRAME_BYTES: u32 = 128 << 20;

/// The maximum size of a message body. It is the default of `max_message_size` in RabbitMQ 3; in RabbitMQ 4
/// that is 16 MiB.
pub const MESSAGE_BYTES: u64 = 128 << 20;

/// The maximum number of calls of one channel that await a reply, and of `connection.update-secret` calls of
/// one connection. Further calls are refused. It is far above what applications use, and it bounds the
/// memory.
pub const CALLS_MAX: usize = 16_384;

/// The maximum number of publishes of one channel from the oldest unconfirmed one to the newest. It bounds
/// the memory for confirms.
pub const UNCONFIRMED_SPAN: u64 = 65_536;

/// The maximum number of lost transports of which a channel keeps the exact outcomes of its publishes. Those of
/// older ones are unknown. Publishers ask for an outcome soon after it is known.
pub const LOST_EPOCHS_MAX: usize = 8;

/// The maximum number of runs of publishes that were lost with all these transports. The publishes of one
/// transport make half as many as [`UNCONFIRMED_SPAN`] at most, so the last one is always kept.
pub const LOST_RUNS_MAX: usize = UNCONFIRMED_SPAN as usize / 2;

/// The default number of bytes at which a channel accepts no more publishes that are sent again when the
/// transport is lost. It covers a burst of some seconds that the broker has not confirmed.
pub const OUTBOX_BYTES: usize = 16 << 20;

/// The maximum capacity of the buffers for these publishes while there are none.
pub const OUTBOX_IDLE_BYTES: usize = 64 << 10;

/// The default `frame_max` that this client requests, in bytes. It is RabbitMQ's default.
pub const FRAME_MAX_BYTES: u32 = 131_072;

/// The default maximum size of the login's frame, in bytes. A token of 8 kB fits, with the client properties.
/// RabbitMQ 4.1 and later accept 8,192 bytes unless `initial_frame_max` says otherwise, earlier ones 4,096.
pub const INITIAL_FRAME_MAX_BYTES: u32 = 16_384;

/// The default `channel_max` that this client requests. It is RabbitMQ's default.
pub const CHANNEL_MAX: u16 = 2047;

/// The approximate number of input bytes that one call handles, so that a lock around the core is held for
/// microseconds only.
pub const INPUT_BUDGET_BYTES: usize = 16 << 10;

/// Bodies below this size are copied next to their frames. Larger ones are passed by reference.
pub const COPIED_BODY_BYTES: usize = 4 << 10;

/// The size of a chunk of memory that the small deliveries of one consumer share. Many deliveries share one
/// allocation, and a delivery that is kept for long holds little memory.
pub const ARENA_CHUNK_BYTES: usize = 16 << 10;

/// The size of a consumer's first chunk, and of the chunk that it keeps while its reader waits.
pub const ARENA_FIRST_BYTES: usize = 2 << 10;

/// The maximum number of used chunks per connection that are kept for reuse once their messages are dropped.
pub const ARENA_CHUNKS_MAX: usize = 32;

/// The number of consecutive inputs that need no new chunk, after which all used chunks are released.
pub const ARENA_IDLE_INPUTS_MAX: u8 = 8;

/// The size of a read buffer whose bodies are used without a copy. It holds two bodies of 64 KiB, or one
/// frame of the default maximum size, with the frames around them.
pub const READ_BUFFER_BYTES: usize = 136 << 10;

/// The number of bytes that a large body may be short of half of its buffer, and still be taken without a
/// copy. It allows a body of 64 KiB, which does not fill half of a buffer for two.
pub const READ_BUFFER_SLACK_BYTES: usize = READ_BUFFER_BYTES - 2 * READ_MAX_BYTES;

/// The maximum number of input bytes that are copied in one pass for small deliveries. It is enough to make
/// the copy cheap per delivery, and it wastes little if other frames are in between.
pub const ARENA_RUN_BYTES: usize = 2 << 10;

/// The maximum number of bytes of large bodies that are cut into frames for one write.
pub const DEAL_BYTES: usize = 256 << 10;

/// The maximum number of staging buffers kept for later messages: the number of channels that are likely to
/// receive at the same time.
pub const STAGING_BUFFERS_MAX: usize = 4;

/// The maximum capacity of a staging buffer that is kept.
pub const STAGING_BUFFER_BYTES: usize = 16 << 10;

/// The maximum size of one read. It is half of the default `frame_max`, so that a frame takes two reads.
pub const READ_MAX_BYTES: usize = 64 << 10;

/// The maximum number of bytes of deliveries that a consumer's handle takes under one lock, plus one
/// delivery.
pub const PULLED_BYTES: usize = 1 << 20;

/// The maximum capacity, in deliveries, of the queue that a consumer keeps while its reader waits. The
/// largest reads bring about this many deliveries at once.
pub const IDLE_UNREAD_MAX: usize = 8 << 10;

/// The maximum capacity of a buffer that is kept while it is idle.
pub const IDLE_BUFFER_BYTES: usize = 4 << 10;

/// The number of polls with little or no output after which output buffers count as idle. Releasing and
/// reallocating them costs a busy connection more than its writes.
pub const IDLE_POLLS_MAX: u8 = 8;

/// The maximum number of returned messages of unconfirmed publishes kept per channel. Beyond it, the oldest
/// are dropped.
pub const RETURNED_MESSAGES: usize = 256;

/// The maximum number of bytes of returned messages kept per channel. Beyond it, the oldest are dropped; the
/// newest message is always kept.
pub const RETURNED_BYTES: usize = 1 << 20;

/// The maximum number of bytes of returned messages per channel that wait for the ack of their publish.
/// Beyond it, a returned message loses its properties and body. RabbitMQ sends the ack soon after the return,
/// so few wait.
pub const RETURNED_UNCLAIMED_BYTES: usize = 8 << 20;

/// The maximum number of bytes of a text from the peer that an error keeps.
pub const PEER_TEXT_BYTES: usize = 1024;
