//! The messages of a batch as an argument.

use super::{FromContext, arguments};
use crate::context::Context;
use crate::failure::Failure;

/// What an argument of a handler reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// A message.
    Message,
    /// The messages of a batch.
    Batch,
    /// What does not differ among the messages of a batch, such as the state of the application.
    Application,
}

/// An argument for each message for which the handler is called: see [`Consume::batches`](crate::Consume::batches). In a source
/// without batches it has one.
///
/// Messages for which it cannot be read are left out of the batch, and follow the policy. For several arguments of each message,
/// there are tuples: `Batch<(Json<Order>, MessageId)>`. A handler of batches has one `Batch`, and beside it only arguments that
/// do not read a message, such as the state. `Batch<Context>` has everything of each message: what a message sends or lets
/// join by its own context is sent or committed only if this message is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Batch<T>(pub Vec<T>);

impl<S: Clone, T: FromContext<S>> FromContext<S> for Batch<T> {
    const SCOPE: Scope = Scope::Batch;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        let messages = context.batch();
        if let [only] = &*messages {
            return T::from_context(only).map(|argument| Self(vec![argument]));
        }
        let mut arguments = Vec::with_capacity(messages.len());
        for message in messages {
            match T::from_context(&message) {
                Ok(argument) => arguments.push(argument),
                Err(failure) => message.refuse(failure),
            }
        }
        match arguments.is_empty() {
            true => Err(Failure::undecodable("no message of the batch can be read")),
            false => Ok(Self(arguments)),
        }
    }

    fn give_back(self, context: &Context<S>) {
        let accepted = context.batch().into_iter().filter(|message| !message.is_refused());
        for (argument, message) in self.0.into_iter().zip(accepted) {
            argument.give_back(&message);
        }
    }
}

macro_rules! tuples {
    ($(($($argument:ident)*))*) => {
        $(
            /// All of them, or none.
            #[allow(non_snake_case, reason = "arguments have the names of their types")]
            impl<S, $($argument: FromContext<S>,)*> FromContext<S> for ($($argument,)*) {
                const SCOPE: Scope = Scope::all(&[$($argument::SCOPE),*]);

                fn from_context(context: &Context<S>) -> Result<Self, Failure> {
                    let none = || Failure::undecodable("no argument");
                    arguments!(context, $($argument)*).map_err(|it| it.unwrap_or_else(none))
                }

                fn give_back(self, context: &Context<S>) {
                    let ($($argument,)*) = self;
                    $($argument.give_back(context);)*
                }
            }
        )*
    };
}

tuples! {
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
}

impl Scope {
    /// What several arguments read together.
    const fn all(scopes: &[Self]) -> Self {
        let (mut all, mut index) = (Self::Application, 0);
        while index < scopes.len() {
            all = match (all, scopes[index]) {
                (Self::Message, _) | (_, Self::Message) => Self::Message,
                (Self::Batch, _) | (_, Self::Batch) => Self::Batch,
                (Self::Application, Self::Application) => Self::Application,
            };
            index += 1;
        }
        all
    }

    /// Whether a handler with these arguments can be called for a batch: one of them is the batch. Two would not have the
    /// same messages.
    pub(crate) fn fit_a_batch(scopes: &[Self]) -> bool {
        let batches = scopes.iter().filter(|scope| **scope == Self::Batch).count();
        batches == 1 && !scopes.contains(&Self::Message)
    }
}
