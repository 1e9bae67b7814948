//! The spans of applications, and the trace context of messages.

use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::thread;

use amqp_app::otel::{TraceLayer, inject};
use amqp_app::prelude::*;
use amqp_app::testing::Test;
use amqp_app::{Asynchronous, blocking};
use amqp_testkit::ModelBroker;
use opentelemetry::trace::{FutureExt, Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context as TraceContext, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::Notify;

use crate::recorder::Recorded;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const NONE: &str = "0000000000000000";

/// The spans of the process, for one test at a time.
struct Spans {
    #[allow(dead_code, reason = "held")]
    alone: Recorded,
    exporter: InMemorySpanExporter,
}

impl Spans {
    fn begin() -> Self {
        static EXPORTER: OnceLock<InMemorySpanExporter> = OnceLock::new();
        let alone = Recorded::begin();
        let exporter = EXPORTER.get_or_init(|| {
            let exporter = InMemorySpanExporter::default();
            let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
            global::set_tracer_provider(provider.build());
            global::set_text_map_propagator(TraceContextPropagator::new());
            exporter
        });
        exporter.reset();
        Self { alone, exporter: exporter.clone() }
    }

    /// Those that have ended, in the order of their ends.
    fn ended(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    fn one(&self) -> SpanData {
        let spans = self.ended();
        assert_eq!(spans.len(), 1, "{spans:#?}");
        spans.into_iter().next().unwrap()
    }
}

fn trace(span: &SpanData) -> String {
    span.span_context.trace_id().to_string()
}

fn id(span: &SpanData) -> String {
    span.span_context.span_id().to_string()
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

fn traced(body: &'static str) -> Message {
    let message = Message::new(body).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    message.header("tracestate", "vendor=value")
}

fn header(delivery: &Delivery, name: &str) -> String {
    delivery.header(name).unwrap().unwrap().as_str().unwrap().to_owned()
}

fn on_tokio(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

async fn a_span_has_the_message_as_its_parent_and_what_is_sent_has_the_span<P: Asynchronous>(
    test: Test<P>,
) {
    let spans = Spans::begin();
    for queue in ["orders", "replies", "sent", "own"] {
        test.queue(queue).await;
    }
    test.bind("orders", "amq.topic", "order.*").await;
    let handler = async |Text(text): Text, context: Context| {
        context.send(Message::new("sent").to_queue("sent"));
        let own = Message::new("own").to_queue("own").header("traceparent", "its own");
        vec![Message::new(text).reply(), own]
    };
    test.run(App::new(test.platform()).consume("orders", handler).layer(TraceLayer::new())).await;
    let request = traced("1").to("amq.topic", "order.new").message_id("m").correlation_id("c");
    test.send_message(request.reply_to("replies")).await;
    let [reply, sent, own] = [
        test.expect_delivery("replies").await,
        test.expect_delivery("sent").await,
        test.expect_delivery("own").await,
    ];
    test.all_handled().await;
    test.stop().await;

    let span = spans.one();
    assert_eq!((trace(&span).as_str(), span.parent_span_id.to_string().as_str()), (TRACE, PARENT));
    assert!(span.parent_span_is_remote && span.links.links.is_empty());
    assert_eq!((&*span.name, &span.span_kind), ("process orders", &SpanKind::Consumer));
    assert_eq!(span.status, Status::Unset);
    for (name, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "amq.topic:order.new:orders"),
        ("messaging.rabbitmq.destination.routing_key", "order.new"),
        ("messaging.message.id", "m"),
        ("messaging.message.conversation_id", "c"),
        ("amqp_app.attempt", "1"),
    ] {
        assert_eq!(attribute(&span, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(attribute(&span, "error.type"), None);
    for delivery in [&reply, &sent] {
        assert_eq!(header(delivery, "traceparent"), format!("00-{TRACE}-{}-01", id(&span)));
        assert_eq!(header(delivery, "tracestate"), "vendor=value");
    }
    assert_eq!(header(&own, "traceparent"), "its own");
}

#[test]
fn a_span_has_the_message_as_its_parent_on_tokio() {
    on_tokio(async {
        let test = Test::start(amqp_tokio::Connector::new).await;
        a_span_has_the_message_as_its_parent_and_what_is_sent_has_the_span(test).await;
    });
}

#[test]
fn a_span_has_the_message_as_its_parent_on_smol() {
    smol::block_on(async {
        let test = Test::start(amqp_smol::Connector::new).await;
        a_span_has_the_message_as_its_parent_and_what_is_sent_has_the_span(test).await;
    });
}

#[test]
fn a_linked_span_begins_a_trace_and_passes_it_on() {
    on_tokio(async {
        let spans = Spans::begin();
        let test = Test::start(amqp_tokio::Connector::new).await;
        test.queue("orders").await;
        test.queue("next").await;
        let app = App::new(test.platform());
        let app = app.consume("orders", async || Message::new("2").to_queue("next"));
        test.run(app.layer(TraceLayer::new().linked())).await;
        test.send_message(traced("1").to_queue("orders")).await;
        let next = test.expect_delivery("next").await;
        test.stop().await;
        let span = spans.one();
        assert_ne!(trace(&span), TRACE);
        assert_eq!(span.parent_span_id.to_string(), NONE);
        let links: Vec<_> = span.links.iter().map(|link| &link.span_context).collect();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].trace_id().to_string(), TRACE);
        assert_eq!(links[0].span_id().to_string(), PARENT);
        let expected = format!("00-{}-{}-01", trace(&span), id(&span));
        assert_eq!(header(&next, "traceparent"), expected);
        // The queue is the routing key: it is named once.
        assert_eq!(attribute(&span, "messaging.destination.name").as_deref(), Some("orders"));
    });
}

#[test]
fn a_message_without_context_begins_a_trace() {
    on_tokio(async {
        let spans = Spans::begin();
        let test = Test::start(amqp_tokio::Connector::new).await;
        test.queue("orders").await;
        let app = App::new(test.platform()).consume("orders", async || ());
        test.run(app.layer(TraceLayer::new())).await;
        test.send_message(Message::new("1").to_queue("orders")).await;
        let malformed = Message::new("2").header("traceparent", "00-none");
        test.send_message(malformed.to_queue("orders")).await;
        test.all_handled().await;
        test.stop().await;
        let ended = spans.ended();
        assert_eq!(ended.len(), 2);
        for span in &ended {
            assert_eq!(span.parent_span_id.to_string(), NONE);
            assert!(span.links.links.is_empty());
        }
        assert_ne!(trace(&ended[0]), trace(&ended[1]));
    });
}

/// Each attempt has a span with the same parent, because copies keep the headers.
#[test]
fn failed_attempts_have_a_status_and_an_error_type() {
    on_tokio(async {
        let spans = Spans::begin();
        let test = Test::start(amqp_tokio::Connector::new).await;
        for queue in ["orders", "slow"] {
            test.queue(queue).await;
        }
        let policy = Retry::now(1).pause(Duration::from_millis(1)).and_after([DELAY]);
        let handler = async |Attempt(attempt): Attempt, Text(_): Text| match attempt {
            1 => Err(Failure::retry("the disk is full")),
            2 => panic!("of the handler"),
            _ => Ok(()),
        };
        let slow = Consume::new("slow").on_failure(Retry::none());
        let slow = slow.timeout(Duration::from_millis(5));
        let app = App::new(test.platform());
        let app = app.consume(Consume::new("orders").on_failure(policy), handler);
        let app = app.consume(slow, async || pending::<()>().await);
        test.run(app.layer(TraceLayer::new())).await;
        test.send_message(traced("1").to_queue("orders")).await;
        test.advance(DELAY).await;
        let ended = spans.ended();
        assert_eq!(ended.len(), 3);
        for (span, expected) in ended.iter().zip([
            (Some("error"), Status::error("the disk is full"), "1"),
            (Some("panic"), Status::error(""), "2"),
            (None, Status::Unset, "3"),
        ]) {
            let error = attribute(span, "error.type");
            let attempt = attribute(span, "amqp_app.attempt").unwrap();
            assert_eq!((error.as_deref(), span.status.clone(), attempt.as_str()), expected);
            assert_eq!((trace(span).as_str(), &*span.parent_span_id.to_string()), (TRACE, PARENT));
        }

        spans.exporter.reset();
        test.send_message(Message::new(vec![0xff]).to_queue("orders")).await;
        test.all_handled().await;
        assert_eq!(attribute(&spans.one(), "error.type").as_deref(), Some("undecodable"));

        spans.exporter.reset();
        test.send_message(traced("1").to_queue("slow")).await;
        test.all_handled().await;
        assert_eq!(attribute(&spans.one(), "error.type").as_deref(), Some("timed_out"));
        let parked = test.expect_delivery("slow.parked").await;
        assert_eq!(header(&parked, "traceparent"), format!("00-{TRACE}-{PARENT}-01"));
        test.stop().await;
    });
}

const DELAY: Duration = Duration::from_secs(10);

/// What a handler that is dropped at the end of a shutdown leaves.
#[test]
fn an_abandoned_call_ends_its_span() {
    on_tokio(async {
        let spans = Spans::begin();
        let test = Test::start(amqp_tokio::Connector::new).await;
        test.queue("hangs").await;
        test.send_message(traced("1").to_queue("hangs")).await;
        let (stopper, shutdown) = Shutdown::manual();
        let begun = Arc::new(Notify::new());
        let handler = async |State(begun): State<Arc<Notify>>| {
            begun.notify_one();
            pending::<()>().await;
        };
        let app = App::with_state(test.platform(), Arc::clone(&begun)).consume("hangs", handler);
        let running = app.layer(TraceLayer::new()).run(shutdown.within(Duration::ZERO));
        let (report, ()) = tokio::join!(running, async {
            begun.notified().await;
            stopper.stop();
        });
        assert_eq!(report.unwrap().abandoned, 1);
        assert_eq!(attribute(&spans.one(), "error.type").as_deref(), Some("abandoned"));
    });
}

/// Returns the id of the span that is current, and of one that the handler makes.
fn current() -> String {
    let mut inner = global::tracer("test").start("inner");
    inner.end();
    TraceContext::current().span().span_context().span_id().to_string()
}

#[test]
fn the_span_is_current_in_handlers_in_middleware_and_in_work_that_blocks() {
    on_tokio(async {
        let spans = Spans::begin();
        let test = Test::start(amqp_tokio::Connector::new).await;
        for queue in ["async", "blocking", "async.id", "blocking.id", "wrap.id"] {
            test.queue(queue).await;
        }
        let app = App::new(test.platform());
        let app = app.consume("async", async || {
            tokio::task::yield_now().await;
            Message::new(current()).to_queue("async.id")
        });
        let app =
            app.consume("blocking", blocking(|| Message::new(current()).to_queue("blocking.id")));
        let app = app.wrap(|context: Context, next: Next<()>| async move {
            context.send(inject(Message::new(current()).to_queue("wrap.id")));
            next.run(context).await
        });
        test.run(app.layer(TraceLayer::new())).await;
        for queue in ["async", "blocking"] {
            spans.exporter.reset();
            test.send_message(traced("1").to_queue(queue)).await;
            let seen = test.expect_delivery(&format!("{queue}.id")).await;
            let wrapped = test.expect_delivery("wrap.id").await;
            test.all_handled().await;
            let ended = spans.ended();
            let [first, second, span] = &ended[..] else { panic!("{ended:#?}") };
            for inner in [first, second] {
                assert_eq!((&*inner.name, trace(inner).as_str()), ("inner", TRACE));
                assert_eq!(inner.parent_span_id.to_string(), id(span));
            }
            assert_eq!(&*span.name, format!("process {queue}"));
            assert_eq!(*seen.body(), *id(span).as_bytes());
            assert_eq!(*wrapped.body(), *id(span).as_bytes());
            assert_eq!(header(&wrapped, "traceparent"), format!("00-{TRACE}-{}-01", id(span)));
        }
        test.stop().await;
    });
}

/// A span around the layer: it is linked if the message is the parent, and otherwise it is the parent.
#[test]
fn a_span_around_the_layer_is_linked_or_is_the_parent() {
    on_tokio(async {
        let spans = Spans::begin();
        for layer in [TraceLayer::new(), TraceLayer::new().linked()] {
            let test = Test::start(amqp_tokio::Connector::new).await;
            test.queue("orders").await;
            let app = App::new(test.platform()).consume("orders", async || ());
            let app = app.layer(layer).wrap(|context, next| async move {
                let outer = global::tracer("test").start("outer");
                let around = TraceContext::current_with_span(outer);
                next.run(context).with_context(around).await
            });
            test.run(app).await;
            spans.exporter.reset();
            test.send_message(traced("1").to_queue("orders")).await;
            test.all_handled().await;
            test.stop().await;
            let ended = spans.ended();
            let [span, outer] = &ended[..] else { panic!("{ended:#?}") };
            let linked = span.links.iter().next().unwrap().span_context.span_id().to_string();
            let parent = span.parent_span_id.to_string();
            if trace(span) == TRACE {
                assert_eq!((parent.as_str(), linked), (PARENT, id(outer)));
            } else {
                assert_eq!((parent, linked.as_str()), (id(outer), PARENT));
            }
        }
    });
}

#[test]
fn a_span_has_the_message_as_its_parent_on_threads() {
    let spans = Spans::begin();
    let broker = ModelBroker::start().unwrap();
    let connector = amqp_blocking::Connector::new(&broker.uri()).unwrap();
    let connection = connector.connect().unwrap();
    let channel = connection.open_channel().unwrap();
    for queue in ["orders", "next"] {
        channel.queue_declare(QueueDeclare::classic(queue)).unwrap();
    }
    let publisher = connection.publisher().unwrap();
    publisher.publish(&traced("1").to_queue("orders")).unwrap();
    publisher.publish(&traced("panic").to_queue("orders")).unwrap();
    let handler = |Text(text): Text| {
        assert_eq!(text, "1", "the other one panics");
        Message::new(current()).to_queue("next")
    };
    let (stopper, shutdown) = Shutdown::manual();
    let consume = Consume::new("orders").on_failure(Retry::none());
    let app = App::new(connector).consume(consume, handler).layer(TraceLayer::new());
    let running = thread::spawn(move || app.run(shutdown).unwrap());
    let mut next = None;
    while next.is_none() || broker.ready("orders.parked").is_none_or(|ready| ready == 0) {
        next = next.or_else(|| channel.basic_get("next").unwrap());
        thread::sleep(Duration::from_millis(2));
    }
    stopper.stop();
    let report = running.join().unwrap();
    assert_eq!((report.handled, report.parked), (1, 1));
    let ended = spans.ended();
    let [inner, span, panicked] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!(inner.parent_span_id.to_string(), id(span));
    assert_eq!((trace(span).as_str(), &*span.parent_span_id.to_string()), (TRACE, PARENT));
    let next = next.unwrap();
    assert_eq!(*next.body(), *id(span).as_bytes());
    let traceparent = next.header("traceparent").unwrap().unwrap();
    assert_eq!(traceparent.as_str().unwrap(), format!("00-{TRACE}-{}-01", id(span)));
    assert_eq!(attribute(panicked, "error.type").as_deref(), Some("panic"));
    next.ack().unwrap();
    connection.close();
}
