//! The guide to applications.
//!
//! | page | what it says |
//! | --- | --- |
//! | [`applications`] | what an application does with a message, step by step; which failures lose or duplicate what |
//! | [`retry_policies`] | how to choose a retry policy, what it declares, how to replay parked messages |
//! | [`delays`] | messages that arrive later |
//! | [`transactions`] | confirms or transactions, transactions of a pool, other resources that take part, messages that are held |
//! | [`batches`] | a handler that is called for several messages at once |
//! | [`observing`] | logs, metrics, traces and health of an application |
//! | [`configuration`] | a file for connection, pools, workers, retries and topology; environments, variables, secrets |
//! | [`outbox`] | messages that are stored with the data of an application, and sent later |
//! | [`deduplication`] | handlers that are called once for a message, by a store of the application |
//! | [`files`] | files that are sent as messages, and messages that are stored as files |
//! | [`payloads`] | bodies: JSON, CBOR and MessagePack by content type |
//! | [`pools`] | shared connections: publishing, listeners, one message |
//! | [`requests`] | requests and their replies (RPC) |
//! | [`coming_from`] | programs on nucleon and on gocept.amqprun, translated line by line |
//!
//! The guide of the client itself is [`amqp_async::guide`].

/// What an application does with a message, and which failures lose or duplicate what.
#[doc = include_str!("applications.md")]
pub mod applications {}

/// How to choose a retry policy.
#[doc = include_str!("retry_policies.md")]
pub mod retry_policies {}

/// Confirms or transactions, other resources that take part, messages that are held.
#[doc = include_str!("transactions.md")]
pub mod transactions {}

/// A handler that is called for several messages at once.
#[doc = include_str!("batches.md")]
pub mod batches {}

/// Logs, metrics, traces and health of an application.
#[doc = include_str!("observing.md")]
pub mod observing {}

/// A file that configures an application.
#[cfg_attr(feature = "config", doc = include_str!("configuration.md"))]
#[cfg_attr(not(feature = "config"), doc = "\n\nThis page is about the feature `config`.")]
pub mod configuration {}

/// Bodies, and their formats.
#[doc = include_str!("payloads.md")]
pub mod payloads {}

/// Shared connections.
#[doc = include_str!("pools.md")]
pub mod pools {}

/// Requests and their replies (RPC).
#[doc = include_str!("requests.md")]
pub mod requests {}

/// Messages that arrive later.
#[doc = include_str!("delays.md")]
pub mod delays {}

/// Messages that are stored with the data of an application, and sent later.
#[doc = include_str!("outbox.md")]
pub mod outbox {}

/// Handlers that are called once for a message, by a store of the application.
#[doc = include_str!("deduplication.md")]
pub mod deduplication {}

/// Files that are sent as messages, and messages that are stored as files.
#[cfg_attr(feature = "files", doc = include_str!("files.md"))]
#[cfg_attr(not(feature = "files"), doc = "\n\nThis page is about the feature `files`.")]
pub mod files {}

/// Programs on nucleon and on gocept.amqprun, translated line by line.
#[doc = include_str!("coming_from.md")]
pub mod coming_from {}
