//! Extractors: the arguments of handlers, each of which reads a part of the message. Their order does not matter.

mod batch;
mod delivery;
mod parts;
mod payload;
mod state;

pub use batch::{Batch, Scope};
pub use parts::{
    Attempt, Deadline, Exchange, Headers, MessageId, QueueName, Redelivered, RoutingKey,
};
pub use payload::{Body, Json, Payload, Text};
pub use state::{Extension, Outgoing, State};

use crate::context::Context;
use crate::failure::Failure;

/// Reads several arguments of a message. If one cannot be read, the others are given back, so that a delivery among them
/// follows the policy. The error is `None` only without arguments.
macro_rules! arguments {
    ($context:expr, $($argument:ident)*) => {
        match ($($argument::from_context($context),)*) {
            ($(Ok($argument),)*) => Ok(($($argument,)*)),
            #[allow(unreachable_patterns, reason = "without arguments")]
            ($($argument,)*) => {
                let mut failed: Option<Failure> = None;
                $(
                    match $argument {
                        Ok(argument) => argument.give_back($context),
                        Err(failure) => drop(failed.get_or_insert(failure)),
                    }
                )*
                Err(failed)
            }
        }
    };
}

pub(crate) use arguments;

/// An argument of a handler.
///
/// Implement it to read something of your own from each message:
///
/// ```
/// use amqp_app::{Context, Failure, FromContext};
///
/// struct Tenant(String);
///
/// impl<S> FromContext<S> for Tenant {
///     fn from_context(context: &Context<S>) -> Result<Self, Failure> {
///         let tenant = context.headers().and_then(|headers| headers.get("tenant")?.as_str());
///         tenant.map(|it| Self(it.to_owned())).ok_or_else(|| Failure::undecodable("no tenant"))
///     }
/// }
///
/// async fn greet(Tenant(tenant): Tenant) {
///     println!("hello {tenant}");
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    note = "arguments are `Json<T>`, `Payload<T>`, `Text`, `Body`, `Properties`, `Headers`, `RoutingKey`, `Exchange`, \
            `MessageId`, `QueueName`, `Redelivered`, `Attempt`, `Deadline`, `State<S>`, `Extension<T>`, `Outgoing`, \
            `Participants`, `Context<S>`, `Delivery`, `Batch<_>`, and `Option<_>`, `Result<_, Failure>` and tuples of these"
)]
pub trait FromContext<S>: Sized {
    /// What it reads. One that reads a single message, as most do, is taken in a [`Batch`] where the handler is called for
    /// [several](crate::Consume::batches).
    const SCOPE: Scope = Scope::Message;

    /// Reads the argument from the message that is being handled.
    ///
    /// # Errors
    /// A failure: the handler is not called.
    fn from_context(context: &Context<S>) -> Result<Self, Failure>;

    /// Takes the argument back, because another one failed, and the handler is not called. By default it is dropped.
    fn give_back(self, context: &Context<S>) {
        let _ = context;
    }
}

/// `None` if the argument cannot be read.
impl<S, T: FromContext<S>> FromContext<S> for Option<T> {
    const SCOPE: Scope = T::SCOPE;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(T::from_context(context).ok())
    }

    fn give_back(self, context: &Context<S>) {
        if let Some(argument) = self {
            argument.give_back(context);
        }
    }
}

/// The handler decides what it means that the argument cannot be read.
impl<S, T: FromContext<S>> FromContext<S> for Result<T, Failure> {
    const SCOPE: Scope = T::SCOPE;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(T::from_context(context))
    }

    fn give_back(self, context: &Context<S>) {
        if let Ok(argument) = self {
            argument.give_back(context);
        }
    }
}

impl<S: Clone> FromContext<S> for Context<S> {
    fn from_context(context: &Self) -> Result<Self, Failure> {
        Ok(context.clone())
    }
}
