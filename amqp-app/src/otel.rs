//! Trace context in messages, and a span for each call of a handler (feature `opentelemetry`).
//!
//! The program sets the propagator and the tracer provider before the application runs. Names and attributes are those of
//! OpenTelemetry's semantic conventions for RabbitMQ, which are in development
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/>).

// It is a layer, so that the order of layers decides which middleware is inside the span. It
// works on threads too, because their handlers run in polls. What a layer cannot see, that its call was dropped by a timeout,
// is read from the deadline.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::Instant;

use amqp_async::FieldTable;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{
    FutureExt, Link, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer,
};
use opentelemetry::{Context as TraceContext, InstrumentationScope, KeyValue};
use tower_layer::Layer;
use tower_service::Service;

use crate::context::Context;
use crate::failure::{BoxError, FailureCause};
use crate::message::Message;
use crate::outcome::Outcome;

/// A layer that runs each handler in a span, and passes the trace on: see [`App::layer`](crate::App::layer).
///
/// The parent of the span is the context that the message carries, such as the header `traceparent` of W3C Trace Context. The
/// span is current while the handler runs, also in [`blocking`](crate::blocking) handlers. What the handler returns, and what
/// it [sends](Context::send), carries the context of the span, unless it has a context already. Copies of a message that is
/// tried again keep their headers, so all attempts have the same parent.
///
/// ```
/// use amqp_app::otel::TraceLayer;
/// # use amqp_app::prelude::*;
/// # fn example<P: amqp_app::Asynchronous>(app: App<P>) -> App<P> {
/// app.layer(TraceLayer::new())
/// # }
/// ```
///
/// | of the span | value |
/// | --- | --- |
/// | name | `process <queue>` |
/// | kind | consumer |
/// | `messaging.system` | `rabbitmq` |
/// | `messaging.operation.name`, `messaging.operation.type` | `process` |
/// | `messaging.destination.name` | `<exchange>:<routing key>:<queue>`, without what is empty, and without the queue if it is the routing key |
/// | `messaging.rabbitmq.destination.routing_key` | the routing key, unless it is empty |
/// | `messaging.message.id`, `messaging.message.conversation_id` | the message id and the correlation id, if there are any |
/// | `amqp_app.attempt` | the number of the attempt, from 1 |
/// | status, `error.type` | if the handler fails: the text of its failure, empty after a panic or a timeout, and [`FailureCause::as_str`]. `abandoned` if the call was dropped at the end of a shutdown |
///
/// Use it once: outside of it, a span that another layer has made is the parent of messages without a context, and is linked
/// otherwise.
#[derive(Clone, Debug, Default)]
pub struct TraceLayer {
    linked: bool,
}

impl TraceLayer {
    /// Creates a layer whose spans have the context of the message as their parent.
    pub const fn new() -> Self {
        Self { linked: false }
    }

    /// Links each span to the context of the message, in place of making it the parent. Each message then begins a trace of
    /// its own, so traces stay short in chains of applications and in fan-out.
    #[must_use]
    pub const fn linked(mut self) -> Self {
        self.linked = true;
        self
    }
}

impl<T> Layer<T> for TraceLayer {
    type Service = TraceService<T>;

    fn layer(&self, inner: T) -> TraceService<T> {
        let scope = InstrumentationScope::builder("amqp-app");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = Arc::new(global::tracer_with_scope(scope));
        TraceService { inner, tracer, linked: self.linked }
    }
}

/// A handler in a span: made by [`TraceLayer`].
#[derive(Clone)]
pub struct TraceService<T> {
    inner: T,
    tracer: Arc<BoxedTracer>,
    linked: bool,
}

impl<T> fmt::Debug for TraceService<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceService").field("linked", &self.linked).finish_non_exhaustive()
    }
}

impl<S, T> Service<Context<S>> for TraceService<T>
where
    T: Service<Context<S>, Response = Outcome, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, context: Context<S>) -> Self::Future {
        let message = context.without_state();
        let call = Call { trace: self.start(&message), message, ended: false };
        let calling = {
            let _attached = call.trace.clone().attach();
            self.inner.call(context)
        };
        Box::pin(async move {
            let called = calling.with_context(call.trace.clone()).await;
            call.end(called)
        })
    }
}

impl<T> TraceService<T> {
    /// Starts the span of a call. Returns the context in which the handler runs.
    fn start(&self, message: &Context) -> TraceContext {
        let around = TraceContext::current();
        let carried = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&around, &Headers(message.headers()))
        });
        let [sent, outer] =
            [&carried, &around].map(|context| context.span().span_context().clone());
        let is_sent = sent.is_valid() && sent != outer;
        let (parent, linked) = if self.linked { (&around, sent) } else { (&carried, outer) };
        let links = if is_sent && linked.is_valid() {
            vec![Link::with_context(linked)]
        } else {
            Vec::new()
        };
        let span = SpanBuilder::from_name(format!("process {}", message.queue()))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes(message))
            .with_links(links);
        // With the baggage that the message carries.
        carried.with_span(self.tracer.build_with_context(span, parent))
    }
}

fn attributes(message: &Context) -> Vec<KeyValue> {
    let (exchange, key, queue) = (message.exchange(), message.routing_key(), message.queue());
    let queue = if key == queue { "" } else { queue };
    let parts = [exchange, key, queue].into_iter().filter(|part| !part.is_empty());
    let destination = parts.collect::<Vec<_>>().join(":");
    let mut attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", destination),
        KeyValue::new("amqp_app.attempt", i64::from(message.attempt())),
    ];
    let properties = message.properties().ok();
    let property = |text: Option<&String>| text.cloned();
    let optional = [
        ("messaging.rabbitmq.destination.routing_key", Some(key.to_owned())),
        ("messaging.message.id", properties.and_then(|it| property(it.message_id.as_ref()))),
        (
            "messaging.message.conversation_id",
            properties.and_then(|it| property(it.correlation_id.as_ref())),
        ),
    ];
    for (name, value) in optional {
        let value = value.filter(|value| !value.is_empty());
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    }
    attributes
}

/// A call of a handler, whose span ends when this is dropped.
struct Call {
    trace: TraceContext,
    message: Context,
    ended: bool,
}

impl Call {
    fn end<E: Into<BoxError>>(mut self, called: Result<Outcome, E>) -> Result<Outcome, BoxError> {
        self.ended = true;
        let (result, instead) = match called {
            Ok(outcome) => outcome.into_parts(),
            Err(error) => {
                let error = error.into();
                self.failed(FailureCause::Error.as_str(), error.to_string());
                return Err(error);
            }
        };
        // The failure may become a success further outside: then these are sent.
        for message in self.message.take_outgoing() {
            self.message.send(carrying(&self.trace, message));
        }
        if let Err(failure) = &result {
            self.failed(failure.cause().as_str(), failure.to_string());
        }
        let carrying =
            |messages: Vec<_>| messages.into_iter().map(|it| carrying(&self.trace, it)).collect();
        let instead: Vec<_> = carrying(instead);
        Ok(Outcome::from(result.map(carrying)).on_commit_failure(instead))
    }

    fn failed(&self, error: &'static str, text: String) {
        let span = self.trace.span();
        span.set_attribute(KeyValue::new("error.type", error));
        span.set_status(Status::error(text));
    }

    /// Why the call was dropped.
    fn dropped(&self) -> &'static str {
        let now = self.message.blocking().map_or_else(Instant::now, |(runner, _)| runner.now());
        match self.message.deadline() {
            _ if thread::panicking() => FailureCause::Panic.as_str(),
            Some(deadline) if deadline <= now => FailureCause::TimedOut.as_str(),
            _ => "abandoned",
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.failed(self.dropped(), String::new());
        }
        self.trace.span().end();
    }
}

/// Adds the current trace context to the headers of a message, by the propagator of the program. A message that carries a
/// context already stays as it is.
///
/// It is for messages that are published beside handlers, such as those of a [`Pool`](crate::Pool): what handlers return has
/// the context already.
#[must_use]
pub fn inject(message: Message) -> Message {
    carrying(&TraceContext::current(), message)
}

fn carrying(trace: &TraceContext, message: Message) -> Message {
    let fields = global::get_text_map_propagator(|propagator| {
        let headers = message.properties().headers.as_ref();
        if propagator.fields().any(|field| headers.is_some_and(|it| it.get(field).is_some())) {
            return Vec::new();
        }
        let mut fields = Fields(Vec::new());
        propagator.inject_context(trace, &mut fields);
        fields.0
    });
    fields.into_iter().fold(message, |message, (name, value)| message.header(name, value))
}

/// Where a propagator reads.
struct Headers<'a>(Option<&'a FieldTable>);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0?.get(key)?.as_str()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.into_iter().flatten().map(|(name, _)| name).collect()
    }
}

/// What a propagator writes.
struct Fields(Vec<(String, String)>);

impl Injector for Fields {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}
