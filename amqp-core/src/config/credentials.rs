//! Who logs in, and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::AuthMechanism;
use crate::error::{InvalidArgument, InvalidReason};

/// How a client logs in: authentication mechanisms, in the order in which they are preferred, and their secrets
/// (<https://www.rabbitmq.com/docs/access-control#mechanisms>).
///
/// The first mechanism that the broker offers is used. If the broker refuses the login, no other one is tried.
///
/// ```
/// use amqp_core::Credentials;
/// let credentials = Credentials::plain("app", "secret").or(Credentials::amqplain("app", "secret"));
/// assert_eq!(format!("{credentials:?}"), r#"[PLAIN as "app", AMQPLAIN as "app"]"#);
/// ```
///
/// Secrets are wiped from memory when the last copy is dropped, and `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    choices: Vec<Choice>,
}

/// A mechanism with its secrets.
#[derive(Clone)]
pub(crate) enum Choice {
    Plain(UserPassword),
    AmqPlain(UserPassword),
    External,
    /// A mechanism of the application, with its name, which is asked for once.
    Mechanism(Arc<str>, Arc<dyn AuthMechanism>),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UserPassword {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

impl Credentials {
    /// Returns a user name and a password for the mechanism PLAIN. Neither may contain NUL.
    ///
    /// A token of OAuth 2 goes where the password does. RabbitMQ ignores the user name then
    /// (<https://www.rabbitmq.com/docs/oauth2>).
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::of(Choice::Plain(UserPassword::new(user.into(), password.into())))
    }

    /// Returns a user name and a password for the mechanism AMQPLAIN. Neither may contain NUL.
    pub fn amqplain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::of(Choice::AmqPlain(UserPassword::new(user.into(), password.into())))
    }

    /// Returns the mechanism EXTERNAL: the broker takes the user from the client's certificate. It needs TLS with a client
    /// certificate, and in RabbitMQ the plugin `rabbitmq_auth_mechanism_ssl`.
    ///
    /// It never falls back to another mechanism: it must be the last one in the order.
    pub fn external() -> Self {
        Self::of(Choice::External)
    }

    /// Returns a mechanism that the application implements.
    pub fn mechanism(mechanism: impl AuthMechanism + 'static) -> Self {
        Self::of(Choice::Mechanism(mechanism.name().into(), Arc::new(mechanism)))
    }

    /// Adds the mechanisms of `other` behind these. They are used if the broker offers none of these.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.choices.extend(other.choices);
        self
    }

    /// Whether EXTERNAL is among the mechanisms. A driver that knows that it presents no client certificate refuses
    /// such credentials.
    pub fn has_external(&self) -> bool {
        self.choices.iter().any(|choice| matches!(choice, Choice::External))
    }

    /// The first password, which `connection.update-secret` can replace.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.choices.iter().find_map(|choice| match choice {
            Choice::Plain(login) | Choice::AmqPlain(login) => Some(&login.password),
            Choice::External | Choice::Mechanism(..) => None,
        })
    }

    /// Returns these credentials with another password.
    pub(crate) fn with_secret(&self, secret: &Secret) -> Self {
        let mut credentials = self.clone();
        for choice in &mut credentials.choices {
            if let Choice::Plain(login) | Choice::AmqPlain(login) = choice {
                login.password = secret.clone();
            }
        }
        credentials
    }

    pub(crate) fn of(choice: Choice) -> Self {
        Self { choices: vec![choice] }
    }

    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Checks what the login will send, except for what a mechanism of the application sends.
    pub(crate) fn check(&self) -> Result<(), InvalidArgument> {
        for (position, choice) in self.choices.iter().enumerate() {
            match choice {
                Choice::Plain(login) | Choice::AmqPlain(login) => login.check()?,
                Choice::External if position + 1 < self.choices.len() => {
                    let reason = InvalidReason::BehindExternal;
                    return Err(InvalidArgument::new("credentials", reason));
                }
                Choice::External => {}
                Choice::Mechanism(name, _) => {
                    if name.is_empty() {
                        return Err(InvalidArgument::new("mechanism", InvalidReason::Empty));
                    }
                    // Brokers list the names with spaces between them.
                    if name.contains(|character: char| character == ' ' || character.is_control()) {
                        return Err(InvalidArgument::new(
                            "mechanism",
                            InvalidReason::SpaceOrControl,
                        ));
                    }
                    crate::request::short("mechanism", name)?;
                }
            }
        }
        Ok(())
    }
}

impl Default for Credentials {
    /// User `guest` with password `guest`, whom RabbitMQ by default accepts from its own host alone.
    fn default() -> Self {
        Self::plain("guest", "guest")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.choices).finish()
    }
}

impl Choice {
    /// The name of the mechanism.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::AmqPlain(_) => "AMQPLAIN",
            Self::External => "EXTERNAL",
            Self::Mechanism(name, _) => name,
        }
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(a), Self::Plain(b)) | (Self::AmqPlain(a), Self::AmqPlain(b)) => a == b,
            (Self::External, Self::External) => true,
            (Self::Mechanism(_, a), Self::Mechanism(_, b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Choice {}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Plain(login) | Self::AmqPlain(login) => write!(f, " as {:?}", login.user),
            Self::External | Self::Mechanism(..) => Ok(()),
        }
    }
}

impl UserPassword {
    pub(crate) fn new(user: String, password: String) -> Self {
        Self { user, password: Secret::new(password) }
    }

    fn check(&self) -> Result<(), InvalidArgument> {
        for (argument, text) in [("user", self.user.as_str()), ("password", self.password.expose())]
        {
            if text.contains('\0') {
                return Err(InvalidArgument::new(argument, InvalidReason::ContainsNul));
            }
        }
        Ok(())
    }
}

/// Credentials for one attempt to connect, which a driver was asked for: see
/// [`Action::FetchCredentials`](crate::Action::FetchCredentials).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvidedCredentials {
    /// The credentials.
    pub credentials: Credentials,
    /// How long the broker accepts them, from when they are provided. If it is known, new ones are asked for when
    /// four fifths of it have passed, and the broker is sent their password (`connection.update-secret`).
    pub valid_for: Option<Duration>,
}

impl ProvidedCredentials {
    /// Returns credentials that do not expire.
    pub const fn new(credentials: Credentials) -> Self {
        Self { credentials, valid_for: None }
    }

    /// Sets how long the broker accepts the credentials.
    #[must_use]
    pub const fn valid_for(mut self, duration: Duration) -> Self {
        self.valid_for = Some(duration);
        self
    }
}

impl From<Credentials> for ProvidedCredentials {
    fn from(credentials: Credentials) -> Self {
        Self::new(credentials)
    }
}

/// A text that `Debug` does not show, such as a password. It is wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Creates a secret text. A `String` is taken as it is; a `&str` is copied.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
