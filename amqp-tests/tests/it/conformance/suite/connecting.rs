//! Connecting, and failing to: typed errors in time.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::api::{
    At, Config, ConnectError, ConnectFailure, ConnectStep, Credentials, Endpoint, Heartbeat,
    TlsErrorKind,
};
use super::at::on_every_adapter;
use crate::support::{timeout, within};

on_every_adapter! {
    gr_13_a_wrong_password_is_refused_with_403
    br_9_a_missing_virtual_host_is_refused_with_530
    the_clients_limits_count_where_they_are_lower
    a_closed_port_and_an_unknown_host_are_told_apart
    pk_9_pk_10_pk_41_a_silent_peer_is_given_up_in_time
    the_next_host_is_tried_where_one_fails
    pk_38_every_address_of_a_host_is_tried
    what_cannot_work_is_refused_before_anything_is_dialled
    settings_may_be_values
    streams_may_be_made_by_a_function
    a_connection_may_be_over_any_stream
    a_driver_that_is_dropped_lets_its_connection_fail
}

pub(super) fn only_failure(error: &ConnectError) -> &ConnectFailure {
    let ConnectError::Failed { attempts } = error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 1, "{error}");
    error.last_failure().unwrap()
}

pub(super) async fn fails(at: &At, configure: impl FnOnce(Config) -> Config) -> ConnectError {
    within("a failure", at.open(configure)).await.unwrap_err()
}

async fn gr_13_a_wrong_password_is_refused_with_403(at: At) {
    let credentials = Credentials::plain("guest", "wrong");
    let error = fails(&at, |config| config.credentials(credentials)).await;
    let ConnectFailure::Authentication(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(refused.code.code(), 403);
    assert!(!format!("{error} {error:?}").contains("wrong"));
}

async fn br_9_a_missing_virtual_host_is_refused_with_530(at: At) {
    let error = fails(&at.to(at.uri().replace("%2f", "nope")), |config| config).await;
    let ConnectFailure::VirtualHost(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!((refused.code.code(), refused.text.contains("nope")), (530, true));
}

async fn the_clients_limits_count_where_they_are_lower(at: At) {
    let limits =
        |config: Config| config.channel_max(7).frame_max(8_192).heartbeat(Heartbeat::Seconds(2));
    let connection = at.open(limits).await.unwrap();
    let tuning = connection.tuning();
    assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), (7, 8_192, 2));
    // The broker drops a client that is silent for three intervals.
    let lost = timeout(Duration::from_secs(7), connection.closed()).await;
    assert!(lost.is_none(), "heartbeats keep an idle connection: {lost:?}");
    connection.close().await;
}

async fn a_closed_port_and_an_unknown_host_are_told_apart(at: At) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fails(&at.to(format!("amqp://{closed}")), |config| config).await;
    let ConnectFailure::Dial(cause) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(cause.kind, std::io::ErrorKind::ConnectionRefused);

    let error = fails(&at.to("amqp://no-such-host.invalid"), |config| config).await;
    assert!(matches!(only_failure(&error), ConnectFailure::Resolve(_)), "{error:?}");
}

async fn pk_9_pk_10_pk_41_a_silent_peer_is_given_up_in_time(at: At) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = at.to(format!("amqp://{}", listener.local_addr().unwrap()));
    // Time enough to get as far as the greeting.
    const PATIENCE: Duration = Duration::from_secs(2);
    let begun = Instant::now();
    let error = fails(&at, |config| config.address_timeout(PATIENCE)).await;
    let ConnectFailure::TimedOut { step, .. } = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(*step, ConnectStep::Start);
    assert!(begun.elapsed() >= PATIENCE);

    let error = fails(&at, |config| {
        config.address_timeout(Duration::from_secs(60)).connect_timeout(PATIENCE)
    })
    .await;
    assert!(matches!(error, ConnectError::TimedOut { step: ConnectStep::Start, .. }), "{error:?}");
}

async fn the_next_host_is_tried_where_one_fails(at: At) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = at.uri().strip_prefix("amqp://guest:guest@").unwrap();
    let uri = format!("amqp://guest:guest@{closed},no-such-host.invalid,{silent},{good}");
    let patience = |config: Config| config.address_timeout(Duration::from_secs(5));
    let connection = within("a connection", at.to(uri).open(patience)).await.unwrap();
    assert!(connection.is_open());
    connection.close().await;

    let uri = format!("amqp://{closed},no-such-host.invalid,{closed}");
    let error = fails(&at.to(uri), |config| config).await;
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 3, "{error}");
}

/// Localhost resolves to an IPv6 address first where there is one; the server listens on IPv4 alone.
async fn pk_38_every_address_of_a_host_is_tried(at: At) {
    let at = at.to(at.uri().replace("127.0.0.1", "localhost"));
    within("a connection", at.connect()).await.close().await;
}

async fn what_cannot_work_is_refused_before_anything_is_dialled(at: At) {
    let error = fails(&at.to("http://localhost"), |config| config).await;
    assert!(matches!(error, ConnectError::InvalidUri(_)), "{error:?}");
    let error = fails(&at.to("amqps://localhost?cacertfile=/no-such-file"), |config| config).await;
    assert!(
        matches!(&error, ConnectError::Tls(error) if error.kind == TlsErrorKind::Configuration)
    );
    assert!(error.to_string().contains("/no-such-file"), "{error}");
    let error = fails(&at.to("amqp://guest:a%00b@localhost"), |config| config).await;
    assert!(matches!(error, ConnectError::InvalidArgument(_)), "{error:?}");
}

async fn settings_may_be_values(at: At) {
    let port = at.port();
    let values = |config: Config| {
        config
            .hosts(["no-such-host.invalid", "127.0.0.1"])
            .port(port)
            .virtual_host("/")
            .credentials(Credentials::plain("guest", "guest"))
    };
    let connection = at.to("amqp://no:body@no-such-host.invalid:1/nope").open(values).await;
    connection.unwrap().close().await;

    let error = fails(&at, |config| config.endpoints([])).await;
    assert!(matches!(error, ConnectError::InvalidArgument(_)), "{error:?}");
}

/// The function knows hosts that cannot be looked up, as a proxy may.
async fn streams_may_be_made_by_a_function(at: At) {
    let port = at.port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&asked);
    let dial = move |endpoint: Endpoint| {
        list.lock().unwrap().push(format!("{}:{}", endpoint.host, endpoint.port));
        match &*endpoint.host {
            "closed.invalid" => Err(std::io::ErrorKind::ConnectionRefused.into()),
            _ => std::net::TcpStream::connect(("127.0.0.1", port)),
        }
    };
    let names = at.to("amqp://guest:guest@closed.invalid:7,open.invalid/%2f");
    let connection = within("a connection", names.connect_by(dial.clone())).await.unwrap();
    connection.open_channel().await.unwrap();
    connection.close().await;
    assert_eq!(*asked.lock().unwrap(), ["closed.invalid:7", "open.invalid:5672"]);

    let closed = at.to("amqp://closed.invalid");
    let error = within("a failure", closed.connect_by(dial.clone())).await.unwrap_err();
    assert!(matches!(only_failure(&error), ConnectFailure::Dial(_)), "{error:?}");
    assert!(error.to_string().contains(" closed.invalid:5672: cannot dial"), "{error}");

    // What the function makes is encrypted for an `amqps` host. This one is a broker without TLS.
    let encrypted = at.to("amqps://open.invalid");
    let error = within("a failure", encrypted.connect_by(dial)).await.unwrap_err();
    let ConnectFailure::Tls { kind, .. } = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(*kind, TlsErrorKind::NotTls);
}

/// Here a Unix socket, whose other end is passed on to the broker.
async fn a_connection_may_be_over_any_stream(at: At) {
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixStream;

    let (ours, theirs) = UnixStream::pair().unwrap();
    let port = at.port();
    let broker = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut to_client, mut from_broker) =
        (theirs.try_clone().unwrap(), broker.try_clone().unwrap());
    let down = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_broker, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (mut from_client, mut to_broker) = (theirs, broker);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_broker);
        let _ = to_broker.shutdown(Shutdown::Write);
    });

    let connection = within("a connection", at.connect_over(ours)).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(crate::support::exclusive("unix")).await.unwrap().queue;
    let publisher = channel.confirm_select().await.unwrap();
    let large = vec![5; 1 << 20];
    let publish = super::api::Publish::new("", &queue, &large).mandatory();
    within("a confirm", publisher.publish(publish)).await.unwrap();
    let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
    assert!(got.body() == large);
    got.ack().unwrap();
    connection.close().await;
    // With the connection the stream is closed.
    smol::unblock(move || (up.join().unwrap(), down.join().unwrap())).await;

    // Over a stream there is one attempt, however many hosts the URI names, and TLS is its own matter.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let at = at.to("amqps://one,two,three");
    let error = within("a failure", at.connect_over(ours)).await.unwrap_err();
    assert!(matches!(only_failure(&error), ConnectFailure::Lost { .. }), "{error:?}");
}

async fn a_driver_that_is_dropped_lets_its_connection_fail(at: At) {
    assert_eq!(at.connect_undriven().await, ConnectError::DriverGone);
}
