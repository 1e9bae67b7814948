//! What runs around every handler.

use std::task::{Context as TaskContext, Poll};

use amqp_app::prelude::*;
use amqp_app::{BoxError, Route, RouteFuture};
use tower_layer::Layer;
use tower_service::Service;

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, source};

on_model! {
    gr_29_a_function_around_every_handler_sees_and_changes_what_passes
    a_tower_layer_may_refuse_and_the_policy_is_outside_of_it
}

on_rabbitmq! {
    gr_29_a_function_around_every_handler_sees_and_changes_what_passes
}

#[derive(Clone)]
struct Principal(String);

async fn gr_29_a_function_around_every_handler_sees_and_changes_what_passes<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("wrapped").await;
    let log = at.log.clone();
    let handler = async |Extension(Principal(name)): Extension<Principal>,
                         State(log): State<Log>| {
        log.add(format!("handled for {name}"));
        if name == "nobody" { Err(Failure::permanent("who?")) } else { Ok(()) }
    };
    let app = at.app().consume(source(queue.as_str()), handler);
    let app = app.wrap(async |context: Context<Log>, next: Next<Log>| {
        let user = context.headers().and_then(|headers| headers.get("user")?.as_str());
        let user = user.unwrap_or("nobody").to_owned();
        context.insert(Principal(user));
        context.state().add("inner");
        next.run(context).await
    });
    let app = app.wrap(move |context, next| {
        let log = log.clone();
        async move {
            log.add("outer");
            let outcome = next.run(context).await;
            log.add(format!("success: {}", outcome.is_success()));
            outcome
        }
    });
    let report = beside(app, async |_| {
        client.publish(Message::new("1").to_queue(&queue).header("user", "ada")).await;
        client.send(&queue, "2").await;
        at.log.reach(8).await;
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["2"]);
    })
    .await;
    let lines = ["outer", "inner", "handled for ada", "success: true"].into_iter();
    let others = ["outer", "inner", "handled for nobody", "success: false"];
    assert_eq!(at.log.lines(), lines.chain(others).collect::<Vec<_>>());
    assert_eq!((report.handled, report.parked), (1, 1));
}

/// A layer that is not ready for the first message.
#[derive(Clone)]
struct Refusing;

#[derive(Clone)]
struct Refuse {
    inner: Route<Log>,
    log: Option<Log>,
}

impl Layer<Route<Log>> for Refusing {
    type Service = Refuse;

    fn layer(&self, inner: Route<Log>) -> Refuse {
        Refuse { inner, log: None }
    }
}

impl Service<Context<Log>> for Refuse {
    type Response = Outcome;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        if self.log.is_none() {
            // Ready at the second poll.
            self.log = Some(Log::default());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, context: Context<Log>) -> Self::Future {
        context.state().add(format!("layer {}", context.attempt()));
        if context.attempt() == 1 {
            return Box::pin(std::future::ready(Err("too busy".into())));
        }
        let inner: RouteFuture = self.inner.call(context);
        Box::pin(async { Ok(inner.await?) })
    }
}

async fn a_tower_layer_may_refuse_and_the_policy_is_outside_of_it<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("layered").await;
    let consume = source(queue.as_str()).on_failure(Retry::now(1));
    let app = at.app().consume(consume, async |State(log): State<Log>| log.add("handled"));
    let report = beside(app.layer(Refusing), async |_| {
        client.send(&queue, "1").await;
        at.log.reach(3).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["layer 1", "layer 2", "handled"]);
    assert_eq!((report.handled, report.retried, report.failed), (1, 1, 1));
}
