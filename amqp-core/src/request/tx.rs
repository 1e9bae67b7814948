//! Transactions.

use amqp_proto::method;

use crate::request::{Pending, requests};

/// Selects transaction mode (`tx.select`; <https://www.rabbitmq.com/docs/semantics#tx>). A second call has no
/// effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxSelect {}

/// Commits the transaction (`tx.commit`): its publishes and acknowledgements take effect, and the next
/// transaction begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxCommit {}

/// Rolls the transaction back (`tx.rollback`): its publishes and acknowledgements have no effect, and the next
/// transaction begins. Deliveries are not requeued: they can be acknowledged again.
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
