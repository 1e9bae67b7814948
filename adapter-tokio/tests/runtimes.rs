//! Where no connection can be driven, the error says which part of the runtime is missing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use amqp_testkit::ModelBroker;
use amqp_tokio::errors::ConnectFailure;
use amqp_tokio::{Config, ConnectError, Connection, Connector, connect};
use tokio::runtime::Builder;

/// Why it cannot be driven at all.
#[track_caller]
fn not_started(result: Result<Connection, ConnectError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, ConnectError::DriverNotStarted(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_runtime_without_timer_is_named() {
    let broker = ModelBroker::start().unwrap();
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.enable_io().build().unwrap();
        let text = not_started(runtime.block_on(connect(&broker.uri())));
        assert!(text.contains("enable_time"), "{text}");
        let (ours, _theirs) = tokio::io::duplex(100);
        let connector = Connector::from(Config::default());
        let text = not_started(runtime.block_on(connector.connect_with(ours)));
        assert!(text.contains("enable_time"), "{text}");
    }
}

#[test]
fn a_runtime_without_io_is_named() {
    let broker = ModelBroker::start().unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let error = runtime.block_on(connect(&broker.uri())).unwrap_err();
    let Some(ConnectFailure::Dial(cause)) = error.last_failure() else { panic!("{error:?}") };
    assert_eq!(cause.kind, std::io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("enable_io"), "{error}");
}

#[test]
fn a_missing_runtime_is_named() {
    let mut connecting = pin!(connect("amqp://localhost"));
    let polled = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(result) = polled else { panic!("it waits outside of any runtime") };
    let text = not_started(result);
    assert!(text.contains("no tokio runtime"), "{text}");
}
