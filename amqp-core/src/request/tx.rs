//! Transactions.

use amqp_proto::method;

use crate::request::{Pending, requests};

/// Puts the channel into transaction mode (`tx.select`;
/// <https://www.rabbitmq.com/docs/semantics#tx>). Asked again, nothing changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxSelect {}

/// Commits the open transaction (`tx.commit`): its publishes and acks take effect, and the
/// next one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxCommit {}

/// Drops the open transaction (`tx.rollback`): its publishes and acks have no effect, and the
/// next one begins. Deliveries are not requeued by that: they may be acked or nacked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxRollback {}

requests! {
    TxSelect -> (), Pending::TxSelect,
    |this, table, no_wait| method::tx::Select::default();
    TxCommit -> (), Pending::TxCommit,
    |this, table, no_wait| method::tx::Commit::default();
    TxRollback -> (), Pending::TxRollback,
    |this, table, no_wait| method::tx::Rollback::default();
}
