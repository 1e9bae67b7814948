//! `ConfigOptions`: how a configuration is loaded.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::environment::{self, Variables};
use super::error::{ConfigError, Place};
use super::schema::{self, Secrets};
use super::{Config, Format, from_toml};
#[cfg(feature = "compat")]
use super::{from_ini, from_zconfig};
use crate::limits::CONFIG_FILE_BYTES;

/// How a configuration is loaded: its environment, and the variables that change it.
///
/// ```
/// use amqp_app::config::{ConfigOptions, Format};
///
/// let file = r#"
///     [worker]
///     amount = 10
///     [environments.test.worker]
///     amount = 1
/// "#;
/// let config = ConfigOptions::new().environment("test").parse(Format::Toml, file)?;
/// assert_eq!((config.environment(), config.worker_amount()), (Some("test"), Some(1)));
///
/// // Tests need not change the process for a variable.
/// let options = ConfigOptions::new().variables([("AMQP_APP__WORKER__AMOUNT", "20")]);
/// assert_eq!(options.parse(Format::Toml, file)?.worker_amount(), Some(20));
/// # Ok::<(), amqp_app::config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ConfigOptions {
    environment: Option<String>,
    variables: Variables,
}

impl ConfigOptions {
    /// Creates options without an environment and without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses an environment: the values of the file's section `[environments.<name>]` take precedence over the others. The
    /// variables `AMQP_APP_ENVIRONMENT` and `NUCLEON_CONFIGURATION` take precedence over this, in this order. Without a
    /// choice, `[environments.default]` is used if the file has it.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Reads the variables of the process, as [`Config::load`] does.
    pub fn process_variables(mut self) -> Self {
        self.variables = Variables::of(env::vars_os());
        self
    }

    /// Reads these variables, in place of earlier ones.
    pub fn variables<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter();
        self.variables = Variables::of(variables.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Loads a file. Its format follows from its name.
    ///
    /// # Errors
    /// [`ConfigError`], with the file, the line and the column.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        let path = path.as_ref();
        let of_file = |error: ConfigError| error.of(Some(path));
        let text = read(path).map_err(of_file)?;
        let format = Format::of(path, &text).map_err(of_file)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        self.build(format, &text, Some(path), folder).map_err(of_file)
    }

    /// Parses a text. Relative names of files for secrets are relative to the working directory of the process.
    ///
    /// # Errors
    /// [`ConfigError`], with the line and the column.
    pub fn parse(&self, format: Format, text: &str) -> Result<Config, ConfigError> {
        self.build(format, text, None, Path::new(""))
    }

    fn build(
        &self,
        format: Format,
        text: &str,
        path: Option<&Path>,
        folder: &Path,
    ) -> Result<Config, ConfigError> {
        let (mut root, ignored) = match format {
            Format::Toml => (from_toml::parse(text)?, Vec::new()),
            #[cfg(feature = "compat")]
            Format::Ini => (from_ini::parse(text)?, Vec::new()),
            #[cfg(feature = "compat")]
            Format::ZConfig => from_zconfig::parse(text)?,
        };
        let by_code = || self.environment.clone().map(|name| (name, Place::Whole));
        let chosen = self.variables.environment().or_else(by_code);
        let (environment, others) = environment::choose(&mut root, chosen)?;
        self.variables.overlay(&mut root)?;
        let schema = schema::read(root, Secrets { folder, read: true })?;
        // What is wrong in another environment would be found when it is too late.
        for other in others {
            schema::read(other, Secrets { folder, read: false })?;
        }
        Ok(Config::new(path, environment, schema, ignored))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error: io::Error| {
        ConfigError::new(&Place::Whole, format!("the configuration cannot be read: {error}"))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(CONFIG_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read > CONFIG_FILE_BYTES {
        return Err(failed(io::Error::other(format!(
            "it has more than {CONFIG_FILE_BYTES} bytes"
        ))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let place = super::document::Lines::of(&before).place(valid);
        ConfigError::new(&place, "the configuration is not text in UTF-8")
    })
}

/// It does not show the variables, which may be passwords.
impl fmt::Debug for ConfigOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigOptions")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}
