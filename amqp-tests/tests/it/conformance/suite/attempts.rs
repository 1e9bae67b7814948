//! Attempts to connect: again and in any order, over sockets with options, and given up at any step.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::api::{
    At, Config, ConnectError, ConnectFailure, ConnectStep, Credentials, Endpoint, HostOrder,
    TcpOptions, TlsSettings,
};
use super::connecting::{fails, only_failure};
use crate::certificates::{Authority, file};
use crate::support::{sleep, within};

super::api::on_rabbitmq! {
    pk_14_locale_and_client_properties_are_sent
    pk_42_a_refused_login_is_tried_once
    pk_36_a_later_cycle_finds_a_broker_that_has_started
}

super::api::on_model! {
    pk_14_locale_and_client_properties_are_sent
    pk_42_a_refused_login_is_tried_once
    pk_36_a_later_cycle_finds_a_broker_that_has_started
    pk_36_pk_39_the_error_lists_every_attempt_of_every_cycle
    pk_36_shuffled_hosts_come_in_any_order
    pk_40_what_is_given_up_leaves_no_socket_and_no_driver
    pk_12_pu_17_sockets_have_the_options_of_the_configuration
    pk_12_a_local_address_that_does_not_work_is_an_error
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];

/// A port on which nothing listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn pk_42_a_refused_login_is_tried_once(at: At) {
    let begun = Instant::now();
    let wrong = Credentials::plain("guest", "wrong");
    let patient = |config: Config| {
        config.credentials(wrong).connection_attempts(3).retry_delay(Duration::from_secs(20))
    };
    let error = fails(&at, patient).await;
    assert!(matches!(only_failure(&error), ConnectFailure::Authentication(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it waits for nothing");
}

/// A broker decides what becomes of a locale that it does not offer: RabbitMQ ignores it.
async fn pk_14_locale_and_client_properties_are_sent(at: At) {
    let uri = format!("{}?locale=de_DE&client_properties.product=mine", at.uri());
    let connection = within("a connection", at.to(uri).open(|config| config)).await.unwrap();
    connection.open_channel().await.unwrap();
    connection.close().await;
}

/// The port is closed at first. Then one client is passed on to the broker.
async fn pk_36_a_later_cycle_finds_a_broker_that_has_started(at: At) {
    // No other test listens at this address, so that its port stays free.
    let address = SocketAddr::from(([127, 0, 0, 9], closed().port()));
    let broker = at.port();
    let starts = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        relay(&TcpListener::bind(address).unwrap(), broker)
    });
    let uri = format!("amqp://guest:guest@no-such-host.invalid,{address}/%2f");
    let cycles = |config: Config| {
        config
            .connection_attempts(60_000)
            .retry_delay(Duration::from_millis(50))
            .connect_timeout(Duration::from_secs(50))
    };
    let connection = within("a connection", at.to(uri).open(cycles)).await.unwrap();
    connection.open_channel().await.unwrap();
    connection.close().await;
    starts.join().unwrap();
}

async fn pk_36_pk_39_the_error_lists_every_attempt_of_every_cycle(at: At) {
    let closed = closed();
    let uri = format!("amqp://no-such-host.invalid,{closed}");
    let twice = |config: Config| config.connection_attempts(2).retry_delay(Duration::ZERO);
    let error = fails(&at.to(uri), twice).await;
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    let listed: Vec<_> =
        attempts.iter().map(|it| (&*it.host, it.address, it.cycle, it.step)).collect();
    let (resolve, dial) = (ConnectStep::Resolve, ConnectStep::Dial);
    let expected = [
        ("no-such-host.invalid", None, 1, resolve),
        ("127.0.0.1", Some(closed), 1, dial),
        ("no-such-host.invalid", None, 2, resolve),
        ("127.0.0.1", Some(closed), 2, dial),
    ];
    assert_eq!(listed, expected);
    assert!(error.to_string().contains(" in cycle 2: cannot dial: "), "{error}");
}

async fn pk_36_shuffled_hosts_come_in_any_order(at: At) {
    let port = closed().port();
    let mut orders = Vec::new();
    for _ in 0..20 {
        let hosts = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"];
        let shuffled = |config: Config| {
            let endpoints = hosts.map(|host| Endpoint::new(host, port));
            config.endpoints(endpoints).host_order(HostOrder::Shuffled)
        };
        let error = fails(&at, shuffled).await;
        let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
        let mut order: Vec<String> = attempts.iter().map(|it| it.host.to_string()).collect();
        orders.push(order.clone());
        order.sort_unstable();
        assert_eq!(order, hosts);
    }
    assert!(orders.iter().any(|order| *order != orders[0]), "{:?} each time", orders[0]);
}

/// At every step: the driver ends, which is a task or a thread, and so does its socket.
async fn pk_40_what_is_given_up_leaves_no_socket_and_no_driver(at: At) {
    let patient = |config: Config| {
        config.address_timeout(Duration::from_secs(600)).connect_timeout(Duration::from_secs(600))
    };

    // The lookup may still be under way.
    at.to("amqp://no-such-host.invalid").give_up(patient, async {}).await;

    // A listener whose queue is full leaves clients waiting.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from((LOCAL, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let fills = TcpStream::connect(address).unwrap();
    let uri = |address| format!("amqp://{address}");
    at.to(uri(address)).give_up(patient, sockets(address.port(), 2)).await;
    drop(fills);
    sockets(address.port(), 0).await;

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let heard = |silent: &TcpListener| {
        let silent = silent.try_clone().unwrap();
        async move {
            let hears = move || silent.accept().unwrap().0.read_exact(&mut [0; 8]).unwrap();
            smol::unblock(hears).await;
        }
    };
    at.to(uri(address)).give_up(patient, heard(&silent)).await;
    sockets(address.port(), 0).await;

    let authority = TlsSettings::default().ca_file(file(&Authority::new("An authority").pem));
    let over_tls = |config: Config| patient(config).tls_settings(authority);
    at.to(format!("amqps://{address}")).give_up(over_tls, heard(&silent)).await;
    sockets(address.port(), 0).await;

    // Between two cycles there is no socket even before it is given up.
    let cycles = |config: Config| {
        patient(config).connection_attempts(2).retry_delay(Duration::from_secs(600))
    };
    let waits = async {
        let silent = silent.try_clone().unwrap();
        drop(smol::unblock(move || silent.accept().unwrap()).await);
        sockets(address.port(), 0).await;
    };
    at.to(uri(address)).give_up(cycles, waits).await;
    sockets(address.port(), 0).await;
}

async fn pk_12_pu_17_sockets_have_the_options_of_the_configuration(at: At) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, broker) = (listener.local_addr().unwrap().port(), at.port());
    let relays = thread::spawn(move || (relay(&listener, broker), relay(&listener, broker)));
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let tcp = TcpOptions::default()
        .keepalive_idle(Duration::from_secs(1_000))
        .keepalive_interval(Duration::from_secs(20))
        .keepalive_retries(5)
        .user_timeout(Duration::from_secs(60))
        .send_buffer_bytes(100_000)
        .receive_buffer_bytes(100_000)
        .local_address([127, 0, 0, 7]);
    let connection = at.to(&uri).open(|config| config.tcp_options(tcp)).await.unwrap();
    let seconds = within("the keepalive timer", async {
        loop {
            // The kernel's timer of the socket: 2 is keepalive. It may be another one for a moment.
            match &client_sockets(port)[..] {
                [socket] if socket.timer == 2 => break socket.timer_seconds,
                [_] => sleep(Duration::from_millis(10)).await,
                other => panic!("{} sockets", other.len()),
            }
        }
    })
    .await;
    assert!((900..=1_000).contains(&seconds), "keepalive in {seconds} s");
    connection.close().await;

    let connection = at.to(&uri).connect().await;
    connection.close().await;
    let (with_options, without) = relays.join().unwrap();
    assert_eq!(with_options, IpAddr::from([127, 0, 0, 7]));
    assert_eq!(without, IpAddr::from(LOCAL));
}

async fn pk_12_a_local_address_that_does_not_work_is_an_error(at: At) {
    for (address, text) in [
        (IpAddr::from([203, 0, 113, 1]), "local address: "),
        ("::1".parse().unwrap(), "another IP version"),
    ] {
        let tcp = TcpOptions::default().local_address(address);
        let error = fails(&at, |config| config.tcp_options(tcp)).await;
        let ConnectFailure::Dial(cause) = only_failure(&error) else { panic!("{error:?}") };
        assert_eq!(cause.kind, std::io::ErrorKind::AddrNotAvailable, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// Passes one client on to the broker until both sides are closed. The client's address.
fn relay(listener: &TcpListener, broker: u16) -> IpAddr {
    let (client, address) = listener.accept().unwrap();
    let server = TcpStream::connect(SocketAddr::from((LOCAL, broker))).unwrap();
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        })
    };
    let up = pass(client.try_clone().unwrap(), server.try_clone().unwrap());
    let down = pass(server, client);
    up.join().unwrap();
    down.join().unwrap();
    address.ip()
}

/// Waits until this process has this many sockets that are connected, or are to be, to a port of this machine.
async fn sockets(port: u16, count: usize) {
    within("the sockets", async {
        while client_sockets(port).len() != count {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A socket, as the kernel lists it.
struct Listed {
    timer: u8,
    timer_seconds: u64,
}

/// The sockets whose peer has this port, and that a process holds.
fn client_sockets(port: u16) -> Vec<Listed> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let peer = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Without an inode, only the kernel still knows it.
    let rows = rows.filter(|row| row.len() > 9 && row[2].ends_with(&peer) && row[9] != "0");
    rows.map(|row| {
        let (timer, ticks) = row[5].split_once(':').unwrap();
        let ticks = u64::from_str_radix(ticks, 16).unwrap();
        Listed { timer: u8::from_str_radix(timer, 16).unwrap(), timer_seconds: ticks / 100 }
    })
    .collect()
}
