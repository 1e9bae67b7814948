//! Handlers: functions from extractors to an outcome, asynchronous ones and, for threads, plain ones.
//!
//! A plain function that returns a future is not told apart from one that returns an outcome. So there are two traits, and
//! the platform of the application decides which one is asked for.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::context::Context;
use crate::extract::{FromContext, Scope, arguments};
use crate::failure::{Failure, FailureCause, Verdict};
use crate::outcome::{IntoOutcome, Outcome};
use crate::sync::{Promise, panic_text};

/// An asynchronous function that handles messages: up to twelve arguments that are extractors ([`FromContext`]), in any
/// order, and a result that becomes an outcome ([`IntoOutcome`]). Closures (`async |..| ..`) are handlers too.
///
/// `A` is the tuple of the arguments. The compiler finds it.
///
/// An asynchronous closure must not capture anything, because its future would borrow from it. Use the state of the application
/// ([`State`](crate::State)), or a closure that returns a future of its own.
///
/// What is not a handler does not compile, and the compiler lists what is one:
///
/// ```compile_fail,E0277
/// # use amqp_app::prelude::*;
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) {
/// // A number is not an extractor.
/// app.consume("orders", async |order: u64| println!("{order}"));
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # use amqp_app::prelude::*;
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) {
/// // A number is not an outcome.
/// app.consume("orders", async |Text(order): Text| order.len());
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # use amqp_app::prelude::*;
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) {
/// // The state of this application is another type.
/// app.consume("orders", async |State(name): State<String>| println!("{name}"));
/// # }
/// ```
///
/// A handler that takes the delivery cannot acknowledge it twice:
///
/// ```compile_fail,E0382
/// # use amqp_app::prelude::*;
/// async fn twice(delivery: Delivery) -> Result<(), Failure> {
///     delivery.ack()?;
///     delivery.nack(true)?;
///     Ok(())
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "an asynchronous function of extractors is needed here",
    note = "each argument must be an extractor (`amqp_app::FromContext`): `Json<T>`, `Payload<T>`, `Text`, `Body`, \
            `Properties`, `Headers`, `RoutingKey`, `Exchange`, `MessageId`, `QueueName`, `Redelivered`, `Attempt`, \
            `Deadline`, `State<S>`, `Extension<T>`, `Outgoing`, `Participants`, `Context<S>` or \
            `Delivery`, or an `Option<_>`, a `Result<_, Failure>`, a tuple or a `Batch<_>` of these",
    note = "its result must be an outcome (`amqp_app::IntoOutcome`): `()`, `Message`, `Vec<Message>`, `Reply<_>`, \
            `Result<_, E>` of these with any error, `Failure`, `Outcome` or `Outcomes<_>`",
    note = "`State<S>` must be the type of the application's state, and the function must be `async`: for a function that \
            blocks, write `blocking(function)`"
)]
pub trait Handler<A, S>: Clone + Send + Sync + 'static {
    /// Handles a message. Resolves to its outcome.
    fn call(self, context: Context<S>) -> impl Future<Output = Outcome> + Send;

    /// Whether it can be called for the messages of a batch ([`Context::batch`]) at once. By default it cannot.
    fn takes_batches() -> bool {
        false
    }
}

/// A function that handles messages, and may block: the arguments and results are those of [`Handler`].
///
/// On threads, handlers are of this kind. In an asynchronous application, [`blocking`] makes a [`Handler`] of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "a function of extractors is needed here",
    note = "each argument must be an extractor (`amqp_app::FromContext`), such as `Json<T>`, `Text`, `State<S>` or \
            `Delivery`, and the result an outcome (`amqp_app::IntoOutcome`), such as `()`, `Vec<Message>` or `Result<_, E>`",
    note = "the function must not be `async`"
)]
pub trait ThreadHandler<A, S>: Clone + Send + Sync + 'static {
    /// Handles a message. Returns its outcome.
    fn call(&self, context: Context<S>) -> Outcome;

    /// Whether it can be called for the messages of a batch ([`Context::batch`]) at once. By default it cannot.
    fn takes_batches() -> bool {
        false
    }
}

/// Makes a handler of a function that blocks, for an asynchronous application. The function runs on a thread where it may
/// block.
///
/// It cannot be interrupted: if its timeout expires, the attempt has failed, and its result is ignored. Until it returns, its
/// worker begins no other attempt in place and takes no further message, messages with the same
/// [key](crate::Consume::by_key) wait, and the application is not [ready](crate::Health::is_ready). A copy of its message that
/// waits for a retry does not wait for it.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_app::blocking;
///
/// fn store(Text(line): Text) -> std::io::Result<()> {
///     std::fs::write("/var/spool/last", line)
/// }
///
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> App<P> {
/// app.consume("lines", blocking(store))
/// # }
/// ```
pub const fn blocking<F>(handler: F) -> Blocking<F> {
    Blocking(handler)
}

/// A handler that blocks: see [`blocking`].
#[derive(Clone, Copy)]
pub struct Blocking<F>(F);

impl<F> fmt::Debug for Blocking<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

impl<A, S, F> Handler<A, S> for Blocking<F>
where
    F: ThreadHandler<A, S>,
    S: Send + Sync + 'static,
{
    async fn call(self, context: Context<S>) -> Outcome {
        let promise = Promise::new();
        let (handler, kept) = (self.0, promise.other());
        let Some((runner, late)) = context.blocking().cloned() else {
            // A test without a broker may block.
            return handler.call(context);
        };
        let (awaiting, running) = late.begin();
        let call = carried(move || handler.call(context));
        runner.spawn_blocking(move || {
            let called = catch_unwind(AssertUnwindSafe(call));
            drop(running);
            kept.keep(called.unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                Outcome::failure(Failure::new(Verdict::Retry, FailureCause::Panic, text))
            }));
        });
        let outcome = promise.wait().await;
        drop(awaiting);
        outcome
    }

    fn takes_batches() -> bool {
        F::takes_batches()
    }
}

/// Work for another thread, where the span that is current here is current too.
fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    #[cfg(feature = "opentelemetry")]
    let current = opentelemetry::Context::current();
    move || {
        #[cfg(feature = "opentelemetry")]
        let _attached = current.attach();
        work()
    }
}

macro_rules! handlers {
    ($(($($argument:ident)*))*) => {
        $(
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "arguments have the names of their types")]
            impl<F, Fut, R, S, $($argument,)*> Handler<($($argument,)*), S> for F
            where
                F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
                Fut: Future<Output = R> + Send,
                R: IntoOutcome,
                S: Send + Sync + 'static,
                $($argument: FromContext<S>,)*
            {
                async fn call(self, context: Context<S>) -> Outcome {
                    let handling = match arguments!(&context, $($argument)*) {
                        Ok(($($argument,)*)) => self($($argument),*),
                        Err(failure) => return failure.map_or_else(Outcome::success, Outcome::failure),
                    };
                    handling.await.into_outcome()
                }

                fn takes_batches() -> bool {
                    Scope::fit_a_batch(&[$(<$argument as FromContext<S>>::SCOPE),*])
                }
            }

            #[allow(non_snake_case, unused_mut, unused_variables, reason = "arguments have the names of their types")]
            impl<F, R, S, $($argument,)*> ThreadHandler<($($argument,)*), S> for F
            where
                F: Fn($($argument),*) -> R + Clone + Send + Sync + 'static,
                R: IntoOutcome,
                $($argument: FromContext<S>,)*
            {
                fn call(&self, context: Context<S>) -> Outcome {
                    match arguments!(&context, $($argument)*) {
                        Ok(($($argument,)*)) => self($($argument),*).into_outcome(),
                        Err(failure) => failure.map_or_else(Outcome::success, Outcome::failure),
                    }
                }

                fn takes_batches() -> bool {
                    Scope::fit_a_batch(&[$(<$argument as FromContext<S>>::SCOPE),*])
                }
            }
        )*
    };
}

handlers! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E G)
    (A B C D E G H)
    (A B C D E G H I)
    (A B C D E G H I J)
    (A B C D E G H I J K)
    (A B C D E G H I J K L)
    (A B C D E G H I J K L M)
}
