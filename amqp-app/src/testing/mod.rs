//! For tests of handlers and of applications.

#[cfg(feature = "testing")]
mod fixture;
#[cfg(feature = "testing")]
mod test;
#[cfg(feature = "testing")]
mod vhost;

#[cfg(feature = "testing")]
pub use test::Test;
#[cfg(feature = "testing")]
pub use vhost::Vhost;

use crate::context::Context;
use crate::handler::Handler;
use crate::outcome::Outcome;

/// Calls a handler with a message, without a broker. Resolves to its outcome.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_app::testing::call;
///
/// async fn shout(Text(text): Text) -> Message {
///     Message::new(text.to_uppercase()).to_queue("loud")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let outcome = call(shout, Context::of(Message::new("hello"))).await;
/// assert_eq!(outcome.as_result().unwrap()[0].body(), "HELLO");
/// let failed = call(shout, Context::of(Message::new(vec![0xff]))).await;
/// assert!(!failed.is_success());
/// # }
/// ```
pub async fn call<A, S>(handler: impl Handler<A, S>, context: Context<S>) -> Outcome
where
    S: Clone + Send + Sync + 'static,
{
    let outcome = handler.call(context.clone()).await;
    let sent = outcome.into_result().map(|mut messages| {
        messages.append(&mut context.take_outgoing());
        messages
    });
    Outcome::from(sent)
}
