//! Which exchanges exist. A publish to one that is missing closes the channel, and with it the confirms of all others. So an
//! exchange is looked up on a channel of its own before its first use, and from time to time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use amqp_async::{Connection, Error, ExchangeDeclare};

use crate::limits::{EXCHANGE_KNOWN, EXCHANGES_KNOWN_MAX};
use crate::runner::Runner;
use crate::sync::lock;

/// When each exchange was found.
#[derive(Debug, Default)]
pub(crate) struct Exchanges(Mutex<HashMap<String, Instant>>);

impl Exchanges {
    /// Looks an exchange up, unless it was found a moment ago. The default exchange always exists.
    pub(crate) async fn find(
        &self,
        exchange: &str,
        connection: &Connection,
        runner: &Runner,
    ) -> Result<(), Error> {
        let is_known = || {
            let found = lock(&self.0).get(exchange).copied();
            found.is_some_and(|at| runner.now().saturating_duration_since(at) < EXCHANGE_KNOWN)
        };
        if exchange.is_empty() || is_known() {
            return Ok(());
        }
        connection
            .with_channel(async |channel| {
                channel.exchange_declare(ExchangeDeclare::passive(exchange)).await
            })
            .await?;
        let known = &mut lock(&self.0);
        if known.len() >= EXCHANGES_KNOWN_MAX {
            known.clear();
        }
        known.insert(exchange.to_owned(), runner.now());
        Ok(())
    }

    /// Looks every exchange up again, because one of them may be gone.
    pub(crate) fn forget(&self) {
        lock(&self.0).clear();
    }
}

/// Whether this error of a lookup says that the exchange is missing, or may not be used.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.is_channel() && !error.is_retryable()
}
