//! Arguments that do not come from the message: the state of the application, values of middleware, what is sent later.

use super::{FromContext, Scope};
use crate::context::Context;
use crate::failure::Failure;
use crate::message::Message;

/// The state of the application: see [`App::with_state`](crate::App::with_state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct State<S>(pub S);

impl<S: Clone> FromContext<S> for State<S> {
    const SCOPE: Scope = Scope::Application;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(Self(context.state().clone()))
    }
}

/// A value that middleware has set with [`Context::insert`]. If there is none of this type, the message is not
/// tried again: the last resort of the policy follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Extension<T>(pub T);

impl<S, T: Clone + Send + Sync + 'static> FromContext<S> for Extension<T> {
    const SCOPE: Scope = Scope::Application;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let missing = || {
            let name = std::any::type_name::<T>();
            Failure::permanent(format!("no middleware has set an extension of type {name}"))
        };
        context.extension().map(Self).ok_or_else(missing)
    }
}

/// Sends messages from deep within a handler. They are sent when the message is handled, behind those that the handler
/// returns. If the handler fails, nothing is sent.
#[derive(Clone, Debug)]
pub struct Outgoing(Context<()>);

impl Outgoing {
    /// Sends a message when the message that is being handled is handled.
    pub fn send(&self, message: impl Into<Message>) {
        self.0.send(message);
    }
}

impl<S> FromContext<S> for Outgoing {
    const SCOPE: Scope = Scope::Application;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(Self(context.without_state()))
    }
}
