//! The log lines of applications (feature `tracing`), with the target `amqp_app`. They have names and texts of errors, and no
//! contents of messages.

use std::fmt::Display;

/// A handler has failed. `step` says what follows.
pub(crate) fn failed(queue: &str, attempt: u32, failure: &dyn Display, step: &dyn std::fmt::Debug) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, queue, attempt, error = %failure, next = ?step, "message not handled");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, attempt, failure, step);
}

/// A copy of a message was not stored, and the message is given back.
pub(crate) fn unstored(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %error, "copy of a message not stored: message given back");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// A message is kept until what follows from it is confirmed.
pub(crate) fn kept(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %error, "reply or copy of a message not confirmed: message kept");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// A part of the application that is not a handler has panicked, and the message is given back.
pub(crate) fn panicked(queue: &str, panic: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %panic, "panic beside a handler: message given back");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, panic);
}

/// The broker has acknowledged a message in a transaction, and has refused a part of what it caused.
pub(crate) fn partial(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %error, "transaction committed in part: the message is acknowledged");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// What a handler returned could not be committed, and what it returned for that case is sent.
pub(crate) fn instead(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, queue, %error, "result not committed: sent what was meant for that");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// What a message caused in a transaction is lost: the broker has refused it, and it could not be parked.
pub(crate) fn lost(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %error, "message of a transaction lost");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// A participant has panicked when it was to finish or to abort.
pub(crate) fn participant(queue: &str, panic: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, queue, %panic, "panic of a participant");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, panic);
}

/// The messages of a batch could not be handled together.
pub(crate) fn halved(queue: &str, messages: usize, failure: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, queue, messages, %failure, "batch failed: its halves are handled");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, messages, failure);
}

/// A handler has given back all messages of a batch.
pub(crate) fn batch_given_back(queue: &str, messages: usize, failure: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, queue, messages, %failure, "batch failed: it goes back into its queue");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, messages, failure);
}

/// A message was handled before, as the store of its source says.
pub(crate) fn duplicate(queue: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, queue, "duplicate: its replies are sent again");
    #[cfg(not(feature = "tracing"))]
    let _ = queue;
}

/// The mark of a message in the store of its source is not what it should be.
pub(crate) fn unmarked(id: &dyn Display, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, %id, %error, "store of duplicates failed");
    #[cfg(not(feature = "tracing"))]
    let _ = (id, error);
}

/// A source is consumed in transactions.
pub(crate) fn transactional(queue: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, queue, "consumes in transactions");
    #[cfg(not(feature = "tracing"))]
    let _ = queue;
}

/// A consumer has ended, or could not be started again.
pub(crate) fn consumer_ended(queue: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, queue, %error, "consumer ended: it is started again");
    #[cfg(not(feature = "tracing"))]
    let _ = (queue, error);
}

/// A consumer is started.
pub(crate) fn consumer_started(queue: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, queue, "consumer started");
    #[cfg(not(feature = "tracing"))]
    let _ = queue;
}

/// A message was answered after its connection was lost.
pub(crate) fn stale(queue: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, queue, "connection lost before the acknowledgement: the message comes again");
    #[cfg(not(feature = "tracing"))]
    let _ = queue;
}

/// A configuration has what has no meaning.
#[cfg(feature = "config")]
pub(crate) fn ignored(what: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, "configuration: {what}");
    #[cfg(not(feature = "tracing"))]
    let _ = what;
}

/// Systemd could not be notified.
#[cfg(all(unix, feature = "systemd"))]
pub(crate) fn not_notified(error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, %error, "systemd not notified");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// A relay waits before it tries again.
pub(crate) fn not_relayed(what: &str, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, %error, "{what}: it is tried again");
    #[cfg(not(feature = "tracing"))]
    let _ = (what, error);
}

/// An outbox has left a message out.
pub(crate) fn left_out(error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, %error, "outbox: message left out");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// Files of a message that was not handled could not be removed.
#[cfg(feature = "files")]
pub(crate) fn not_removed(path: &std::path::Path, error: &dyn Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, path = %path.display(), %error, "file not removed");
    #[cfg(not(feature = "tracing"))]
    let _ = (path, error);
}

/// A shutdown has begun.
pub(crate) fn stopping() {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, "shutdown begun");
}

#[cfg(feature = "tracing")]
const TARGET: &str = "amqp_app";
