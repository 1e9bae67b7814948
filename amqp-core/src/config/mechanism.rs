//! Authentication mechanisms that an application implements.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// An authentication mechanism (SASL) of the application: see
/// [`Credentials::mechanism`](crate::Credentials::mechanism). It may take several steps (AMQP 0-9-1, 1.4.2:
/// `connection.start`, `connection.secure`).
///
/// A mechanism whose secret is one text, such as a token, needs none of this: see
/// [`Credentials::plain`](crate::Credentials::plain).
///
/// ```
/// use amqp_core::types::{AuthExchange, AuthMechanism};
///
/// /// The mechanism that RabbitMQ has for demonstrations: the broker asks for the password.
/// struct Demo {
///     user: String,
///     password: String,
/// }
///
/// impl AuthMechanism for Demo {
///     fn name(&self) -> &str {
///         "RABBIT-CR-DEMO"
///     }
///
///     fn begin(&self) -> Box<dyn AuthExchange> {
///         let answer = format!("My password is {}", self.password);
///         let mut responses = [answer, self.user.clone()].map(String::into_bytes).into_iter().rev();
///         Box::new(move |_challenge: Option<&[u8]>| {
///             responses.next().ok_or_else(|| "the broker asked once more".into())
///         })
///     }
/// }
/// ```
pub trait AuthMechanism: Send + Sync {
    /// Returns the name of the mechanism, as brokers list it in `connection.start`. It is asked for once.
    fn name(&self) -> &str;

    /// Begins an exchange. There is one for each attempt to connect.
    fn begin(&self) -> Box<dyn AuthExchange>;
}

/// The responses of one login by an [`AuthMechanism`]. Closures implement it. It is dropped when the connection is open,
/// or the attempt has failed.
pub trait AuthExchange: Send {
    /// Returns the response to a challenge of the broker (`connection.secure`). Without a challenge, it is the initial
    /// response (`connection.start-ok`). It is wiped from memory once it is sent.
    ///
    /// The driver calls it, so it must not block.
    ///
    /// # Errors
    /// The text of an error fails the attempt to connect
    /// ([`ConnectFailure::Mechanism`](crate::errors::ConnectFailure::Mechanism)). It is shown and logged, so it must not
    /// hold a secret.
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Vec<u8>, String>;
}

impl<F> AuthExchange for F
where
    F: FnMut(Option<&[u8]>) -> Result<Vec<u8>, String> + Send,
{
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Vec<u8>, String> {
        self(challenge)
    }
}

/// What a login by an [`AuthMechanism`] waits for: see [`Action::Authenticate`](crate::Action::Authenticate).
#[derive(Clone)]
#[non_exhaustive]
pub struct Challenge {
    /// The name of the mechanism.
    pub name: Arc<str>,
    /// The mechanism.
    pub mechanism: Arc<dyn AuthMechanism>,
    /// What the broker sent (`connection.secure`). `None` at the beginning of an exchange.
    pub challenge: Option<Bytes>,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Challenge {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mechanism, &other.mechanism) && self.challenge == other.challenge
    }
}

impl Eq for Challenge {}
