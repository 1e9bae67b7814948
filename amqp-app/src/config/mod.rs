//! Configuration of applications by a file, its environments, and environment variables (feature `config`).
//!
//! [`Config::load`] reads a file, and [`App::configured`](crate::App::configured) and
//! [`Pools::from_config`](crate::Pools::from_config) use it. The guide says what a file has:
//! [`guide::configuration`](crate::guide::configuration).

mod address;
mod document;
mod environment;
mod error;
#[cfg(feature = "compat")]
mod from_ini;
mod from_toml;
#[cfg(feature = "compat")]
mod from_zconfig;
mod options;
mod read;
mod rules;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod topology;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub use error::ConfigError;
pub use options::ConfigOptions;
pub use settings::Settings;

use error::Place;
use schema::Schema;

/// The configuration of an application.
///
/// It does not change after it was loaded. Clones are handles to the same values. `Debug` shows no passwords, and no values
/// of settings.
///
/// ```
/// use amqp_app::Config;
///
/// let config: Config = r#"
///     [connection]
///     hostname = "broker.example"
///     username = "app"
///     password = "secret"
///     [worker]
///     amount = 10
///     [consume.orders]
///     concurrency = 4
///     retry.after = ["10s", "1m"]
/// "#.parse()?;
/// assert_eq!(config.worker_amount(), Some(10));
///
/// // An error has its place, and says what is legal.
/// let error = "[worker]\namont = 10".parse::<Config>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 2, column 1: unknown key \"amont\" in [worker]: did you mean \"amount\"? \
///      [worker] has the keys \"amount\", \"commit\" and \"prefetch\"",
/// );
/// # Ok::<(), amqp_app::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config(Arc<Loaded>);

struct Loaded {
    path: Option<Box<Path>>,
    environment: Option<String>,
    schema: Schema,
    settings: Settings,
    ignored: Vec<ConfigError>,
}

impl Config {
    /// Loads a file, with the variables of the process: see [`ConfigOptions`].
    ///
    /// # Errors
    /// [`ConfigError`], with the file, the line and the column.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        ConfigOptions::new().process_variables().load(path)
    }

    /// Parses a text, without variables of the process: see [`ConfigOptions`]. For TOML, [`str::parse`] does so too.
    ///
    /// # Errors
    /// [`ConfigError`], with the line and the column.
    pub fn parse(format: Format, text: &str) -> Result<Self, ConfigError> {
        ConfigOptions::new().parse(format, text)
    }

    fn new(
        path: Option<&Path>,
        environment: Option<String>,
        mut schema: Schema,
        ignored: Vec<ConfigError>,
    ) -> Self {
        let settings = Settings::new(path, std::mem::take(&mut schema.settings));
        let ignored = ignored.into_iter().map(|it| it.of(path)).collect();
        Self(Arc::new(Loaded {
            path: path.map(Into::into),
            environment,
            schema,
            settings,
            ignored,
        }))
    }

    /// Returns the environment that was chosen.
    pub fn environment(&self) -> Option<&str> {
        self.0.environment.as_deref()
    }

    /// Returns the application's own values.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Returns the level of `[log]`, for the subscriber that the program installs. With the feature `tracing` it converts
    /// into a `LevelFilter` of `tracing`.
    pub fn log_level(&self) -> Option<LogLevel> {
        self.0.schema.log
    }

    /// Returns the address of `[health]`, at which the application answers probes while it runs (feature `http`).
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.0.schema.health.as_ref().map(|(address, _)| *address)
    }

    /// Returns how many messages each source handles at the same time, unless its code says otherwise.
    pub fn worker_amount(&self) -> Option<u16> {
        self.0.schema.worker.amount
    }

    /// Returns what the file has, but has no meaning here, such as `component-configuration` in a file of gocept.amqprun. Empty
    /// for TOML. With the feature `tracing`, [`App::configure`](crate::App::configure) logs it as warnings.
    pub fn ignored(&self) -> &[ConfigError] {
        &self.0.ignored
    }

    /// Calls a function with the URI of `[connection]`, such as `Connector::new`, and returns its result. The URI has the
    /// password.
    ///
    /// ```
    /// # use amqp_app::Config;
    /// # let config: Config = "".parse().unwrap();
    /// let connector = config.connector(amqp_tokio::Connector::new)?;
    /// # Ok::<(), amqp_tokio::ConnectError>(())
    /// ```
    pub fn connector<T>(&self, connect: impl FnOnce(&str) -> T) -> T {
        connect(&self.0.schema.connection.with_password())
    }

    /// An error at a place of this configuration.
    fn error(&self, place: &Place, text: impl Into<String>) -> ConfigError {
        ConfigError::new(place, text).of(self.0.path.as_deref())
    }
}

/// From TOML, without variables of the process.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(Format::Toml, text)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loaded { path, environment, schema, settings, .. } = &*self.0;
        f.debug_struct("Config")
            .field("path", path)
            .field("environment", environment)
            .field("connection", &schema.connection)
            .field("pools", &schema.pools)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}

/// The format of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// TOML (<https://toml.io>): files named `*.toml` and `*.conf`.
    Toml,
    /// The ini files of nucleon: files named `*.ini` and `*.cfg`.
    #[cfg(feature = "compat")]
    Ini,
    /// The files of gocept.amqprun: files named `*.conf` whose first line that is not a comment begins with `<` or `%`.
    #[cfg(feature = "compat")]
    ZConfig,
}

impl Format {
    /// The format of a file by its name.
    fn of(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let suffix = path.extension().and_then(|it| it.to_str()).map(str::to_ascii_lowercase);
        match suffix.as_deref() {
            Some("conf") if is_zconfig(text) => Self::zconfig(),
            Some("toml" | "conf") => Ok(Self::Toml),
            Some("ini" | "cfg") => Self::ini(),
            _ => {
                let text = "unknown format: the name of a configuration ends with .toml, .conf, .ini or .cfg";
                Err(ConfigError::new(&Place::Whole, text))
            }
        }
    }
}

#[cfg(feature = "compat")]
#[allow(clippy::unnecessary_wraps, reason = "as without the feature")]
impl Format {
    const fn ini() -> Result<Self, ConfigError> {
        Ok(Self::Ini)
    }

    const fn zconfig() -> Result<Self, ConfigError> {
        Ok(Self::ZConfig)
    }
}

#[cfg(not(feature = "compat"))]
impl Format {
    fn ini() -> Result<Self, ConfigError> {
        Err(Self::needs_compat("an ini file"))
    }

    fn zconfig() -> Result<Self, ConfigError> {
        Err(Self::needs_compat("a file of gocept.amqprun"))
    }

    fn needs_compat(what: &str) -> ConfigError {
        let text = format!("{what} needs the feature `compat` of amqp-app");
        ConfigError::new(&Place::Whole, text)
    }
}

/// Whether a text begins as ZConfig does, and TOML cannot.
fn is_zconfig(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with(['<', '%']))
}

/// The level of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LogLevel {
    /// No logs.
    Off,
    /// Errors.
    Error,
    /// Errors and warnings.
    Warn,
    /// Also what an operator follows.
    Info,
    /// Also what a developer follows.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    const NAMES: [(&'static str, Self); 6] = [
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// Returns the name, as it is in the file, and as the filters of `tracing` and `log` parse it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(feature = "tracing")]
impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
