//! What a configuration changes in an application, and in pools.

use amqp_async::ConnectError;

use super::Config;
use super::error::ConfigError;
use super::read::{listed, meant};
use super::schema::{Commit, SourceRules};
use crate::app::App;
use crate::consume::Consume;
use crate::error::Error;
use crate::platform::Platform;
use crate::pool::Pools;
use crate::trace;

impl<P: Platform> App<P> {
    /// Creates an application on the broker of a configuration, such as with `Connector::new`, and
    /// [configures](Self::configure) it.
    ///
    /// ```no_run
    /// use amqp_app::prelude::*;
    /// use amqp_tokio::Connector;
    ///
    /// # async fn example() -> Result<Report, Error> {
    /// let config = Config::load("app.toml")?;
    /// App::configured(&config, Connector::new)?
    ///     .consume("orders", async |Text(order): Text| println!("{order}"))
    ///     .run(Shutdown::on_signals())
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`configure`](Self::configure), and those of the function.
    pub fn configured(
        config: &Config,
        connect: impl FnOnce(&str) -> Result<P, ConnectError>,
    ) -> Result<Self, Error> {
        Self::new(config.connector(connect)?).configure(config)
    }
}

impl<P: Platform, S: Clone + Send + Sync + 'static> App<P, S> {
    /// Has a configuration change the application at its start:
    ///
    /// * `[topology]` is declared, after the functions of [`on_initialise`](Self::on_initialise).
    /// * `[worker]` sets what the code does not set: concurrency and prefetch of the sources, and whether they are
    ///   [transactional](Consume::transactional).
    /// * `[consume.<queue>]` takes precedence over the code.
    /// * `[shutdown]` sets the time for messages in work, unless the code does
    ///   ([`Shutdown::within`](crate::Shutdown::within)).
    /// * `[health]` has the application answer probes while it runs (feature `http`).
    /// * Handlers may take [`Settings`](super::Settings) as an argument.
    ///
    /// For an application with a state, the configuration makes its connector:
    ///
    /// ```no_run
    /// # use amqp_app::prelude::*;
    /// # use amqp_tokio::Connector;
    /// # fn example(config: Config, state: u32) -> Result<App<Connector, u32>, Error> {
    /// App::with_state(config.connector(Connector::new)?, state).configure(&config)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if the file asks for probes without the feature `http`.
    pub fn configure(mut self, config: &Config) -> Result<Self, Error> {
        #[cfg(not(feature = "http"))]
        if let Some((_, place)) = &config.0.schema.health {
            let text = "health.listen needs the feature `http` of amqp-app";
            return Err(config.error(place, text).into());
        }
        config.ignored().iter().for_each(|it| trace::ignored(it));
        self.config = Some(config.clone());
        Ok(self)
    }
}

impl Config {
    /// Changes the sources of an application.
    pub(crate) fn change<T>(&self, sources: &mut [(Consume, T)]) -> Result<(), ConfigError> {
        let names: Vec<_> = sources
            .iter()
            .flat_map(|(consume, _)| consume.names().map(ToOwned::to_owned))
            .collect();
        let rules = &self.0.schema.sources;
        let unknown = rules.iter().filter(|(queue, _)| !names.contains(queue));
        if let Some((queue, rules)) = unknown.min_by_key(|(_, rules)| &rules.at) {
            let has = match names.is_empty() {
                true => "the application has no sources".to_owned(),
                false => format!("the application consumes from {}", listed(&names, "and")),
            };
            let text = format!("no source consumes from {queue:?}: {}{has}", meant(queue, &names));
            return Err(self.error(&rules.at, text));
        }
        let worker = &self.0.schema.worker;
        for (consume, _) in sources {
            if let Some(amount) = worker.amount
                && !consume.sets_concurrency
            {
                consume.concurrency = amount;
            }
            consume.prefetch = consume.prefetch.or(worker.prefetch);
            consume.transactional |= worker.commit == Some(Commit::Transaction);
            let mut named: Vec<_> =
                consume.names().filter_map(|it| rules.get_key_value(it)).collect();
            named.sort_unstable_by_key(|(_, rules)| &rules.at);
            if let [(first, _), (second, rules), ..] = named[..] {
                let text = format!(
                    "queues {first:?} and {second:?} are of one source, which has one section: the rules of a source are \
                     those of all its queues"
                );
                return Err(self.error(&rules.at, text));
            }
            if let [(_, rules)] = named[..] {
                override_by(consume, rules);
            }
        }
        Ok(())
    }

    pub(crate) fn within(&self) -> Option<std::time::Duration> {
        self.0.schema.within
    }

    pub(crate) fn topology(&self) -> &super::topology::Topology {
        &self.0.schema.topology
    }
}

fn override_by(consume: &mut Consume, rules: &SourceRules) {
    if let Some(concurrency) = rules.concurrency {
        consume.concurrency = concurrency;
    }
    consume.prefetch = rules.prefetch.or(consume.prefetch);
    consume.timeout = rules.timeout.or(consume.timeout);
    if let Some(batch) = rules.batch {
        consume.batching = (batch.size > 1).then_some(batch);
    }
    let retry = &mut consume.retry;
    if let Some(now) = rules.now {
        retry.now = now;
    }
    if let Some(after) = &rules.after {
        retry.delays.clone_from(after);
    }
    if let Some(then) = rules.then {
        retry.last = then.last_resort();
    }
}

impl<P: Platform> Pools<P> {
    /// Creates the pools of a configuration: those of its sections `[pools.<kind>]`, and `publish` and `listen`, which every
    /// configuration has. A pool without a URL is on the broker of `[connection]`. A pool without a size has five
    /// connections. Nothing is opened yet.
    ///
    /// ```
    /// use amqp_app::{Config, Pools};
    /// use amqp_tokio::Connector;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = amqp_testkit::ModelBroker::start()?;
    /// # let uri = broker.uri();
    /// let config: Config = format!(r#"
    ///     [connection]
    ///     url = "{uri}"
    ///     [pools.publish]
    ///     size = 2
    /// "#).parse()?;
    /// let pools = Pools::from_config(&config, Connector::new)?;
    /// assert_eq!(pools.get("publish").await?.status().open, 2);
    /// pools.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the function.
    pub fn from_config(
        config: &Config,
        connect: impl Fn(&str) -> Result<P, ConnectError>,
    ) -> Result<Self, Error> {
        let schema = &config.0.schema;
        let mut pools = Vec::new();
        for (kind, rules) in &schema.pools {
            let address = rules.address.as_ref().unwrap_or(&schema.connection);
            pools.push((kind.as_str(), connect(&address.with_password())?, rules.size));
        }
        Ok(Self::new(pools))
    }
}
