//! What the proxy does to a connection, as seen from its two ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use amqp_proto::method::{WireMethod, basic};
use amqp_testkit::{Direction, Fault, Proxy};

/// Longer than anything takes that is to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens.
const MOMENT: Duration = Duration::from_millis(100);

/// A proxy, and the two ends of a connection through it.
fn link(prepare: impl FnOnce(&Proxy)) -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    prepare(&proxy);
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    let (broker, _) = listener.accept().unwrap();
    for stream in [&client, &broker] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (proxy, client, broker)
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Whether nothing comes for a moment.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    let result = stream.read(&mut [0]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn without_faults_all_bytes_pass_both_ways() {
    let (proxy, mut client, mut broker) = link(|_| {});
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
    let (to_broker, to_client) = (sent.clone(), sent.clone());
    let mut writing = [client.try_clone().unwrap(), broker.try_clone().unwrap()];
    let threads = std::thread::spawn(move || {
        std::thread::scope(|scope| {
            let [client, broker] = &mut writing;
            for (stream, bytes) in [(client, &to_broker), (broker, &to_client)] {
                scope.spawn(move || {
                    stream.write_all(bytes).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
            }
        });
    });
    assert!(read_all(&mut client) == sent);
    assert!(read_all(&mut broker) == sent);
    threads.join().unwrap();
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_cut_comes_behind_the_byte_that_was_asked_for() {
    let (_proxy, mut client, mut broker) = link(|proxy| {
        proxy.at(Direction::ToClient, 5, Fault::Cut);
    });
    broker.write_all(b"123456789").unwrap();
    assert_eq!(read_all(&mut client), b"12345");
    assert_eq!(read_all(&mut broker), b"");
}

#[test]
fn a_cut_before_the_first_byte_lets_none_pass() {
    let (_proxy, mut client, mut broker) = link(|proxy| {
        proxy.at(Direction::ToBroker, 0, Fault::Cut);
    });
    client.write_all(b"1").unwrap();
    assert_eq!(read_all(&mut broker), b"");
}

#[test]
fn a_reset_is_an_error_on_both_sides() {
    let (proxy, mut client, mut broker) = link(|_| {});
    client.write_all(b"1").unwrap();
    broker.read_exact(&mut [0]).unwrap();
    proxy.inject(Direction::ToClient, Fault::Reset);
    for stream in [&mut client, &mut broker] {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_came_before_a_reset_passes_before_it() {
    for count in 0..100 {
        let (proxy, mut client, mut broker) = link(|_| {});
        client.write_all(b"unread").unwrap();
        broker.write_all(b"last words").unwrap();
        // A socket that is closed with unread bytes resets its connection.
        broker.peek(&mut [0]).unwrap();
        drop(broker);
        if count % 2 == 0 {
            // The proxy may see the reset when it writes.
            drop(client.write_all(b"more"));
        }
        let mut words = [0; 10];
        client.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"last words");
        let end = client.read(&mut [0]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        drop(proxy);
    }
}

#[test]
fn a_pause_holds_one_direction_until_it_is_ended() {
    let (proxy, mut client, mut broker) = link(|proxy| {
        proxy.at(Direction::ToClient, 2, Fault::Pause);
    });
    broker.write_all(b"1234").unwrap();
    let mut two = [0; 2];
    client.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"12");
    assert!(is_silent(&mut client));
    client.write_all(b"other").unwrap();
    let mut other = [0; 5];
    broker.read_exact(&mut other).unwrap();
    proxy.resume();
    client.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"34");
    // They are counted once they are written.
    let begun = Instant::now();
    while proxy.passed(Direction::ToClient) < 4 {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(proxy.passed(Direction::ToClient), 4);
}

#[test]
fn a_half_close_ends_one_direction_alone() {
    let (_proxy, mut client, mut broker) = link(|proxy| {
        proxy.at(Direction::ToClient, 3, Fault::HalfClose);
    });
    broker.write_all(b"12345").unwrap();
    assert_eq!(read_all(&mut client), b"123");
    client.write_all(b"still").unwrap();
    let mut still = [0; 5];
    broker.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
}

#[test]
fn dribbling_and_latency_take_their_time() {
    let (proxy, mut client, mut broker) = link(|proxy| {
        let pause = Duration::from_millis(10);
        proxy.at(Direction::ToBroker, 0, Fault::Dribble { size: 1, pause });
        proxy.delay(Duration::from_millis(50));
    });
    let begun = Instant::now();
    client.write_all(b"12345").unwrap();
    let mut five = [0; 5];
    broker.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"12345");
    assert!(begun.elapsed() >= Duration::from_millis(50 + 4 * 10), "{:?}", begun.elapsed());
    broker.write_all(b"1").unwrap();
    let begun = Instant::now();
    client.read_exact(&mut [0]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
    drop(proxy);
}

#[test]
fn nobody_behind_the_proxy_is_an_end() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let proxy = Proxy::start(port).unwrap();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    assert_eq!(read_all(&mut client), b"");
}

/// Also where the direction that ends is full of bytes that nobody reads.
#[test]
fn a_half_close_in_the_middle_of_a_write_ends_one_direction_alone() {
    let (proxy, mut client, mut broker) = link(|_| {});
    broker.set_write_timeout(Some(MOMENT)).unwrap();
    while broker.write(&[0; 1 << 16]).is_ok() {}
    proxy.inject(Direction::ToClient, Fault::HalfClose);
    std::thread::sleep(MOMENT);
    client.write_all(b"still").unwrap();
    let mut still = [0; 5];
    broker.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
}

/// A frame on channel 1 with an empty confirm or acknowledgement.
fn ack() -> Vec<u8> {
    let mut payload = Vec::new();
    basic::Ack::default().encode(&mut payload);
    [&[1, 0, 1, 0, 0, 0, payload.len() as u8][..], &payload, &[0xce]].concat()
}

#[test]
fn a_fault_before_a_method_lets_nothing_of_its_frame_pass() {
    let (proxy, mut client, mut broker) = link(|_| {});
    proxy.before(Direction::ToClient, "basic.ack", 2, Fault::Cut);
    let body = [&[3, 0, 1, 0, 0, 0, 13][..], &ack()[..13], &[0xce]].concat();
    let before = [&body[..], &ack(), &body].concat();
    // In two pieces, the second of which begins in the middle of the frame.
    let frames = [&before[..], &ack(), &body].concat();
    broker.write_all(&frames[..before.len() + 5]).unwrap();
    let mut passed = vec![0; before.len()];
    client.read_exact(&mut passed).unwrap();
    assert_eq!(proxy.faulted(), []);
    broker.write_all(&frames[before.len() + 5..]).unwrap();
    assert_eq!(read_all(&mut client), b"");
    assert_eq!(read_all(&mut broker), b"");
    assert!(passed == before);
}

#[test]
fn frames_that_do_not_pass_are_not_counted() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    for number in [1, 2] {
        proxy.before(Direction::ToClient, "basic.ack", number, Fault::Cut);
    }
    // The first connection ends before its first frame, and the second one too, whose frame is the second.
    for faulted in [&[0][..], &[0, 1]] {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut broker, _) = listener.accept().unwrap();
        broker.write_all(&[ack(), ack(), ack()].concat()).unwrap();
        assert_eq!(read_all(&mut client), b"");
        let begun = Instant::now();
        while proxy.faulted() != faulted {
            assert!(begun.elapsed() < PATIENCE, "{:?}", proxy.faulted());
        }
    }
}

#[test]
fn a_pause_before_a_method_faults_one_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    let [mut first, mut second] = [connect(), connect()];
    let begun = Instant::now();
    while proxy.accepted() < 2 {
        assert!(begun.elapsed() < PATIENCE);
    }
    proxy.before(Direction::ToBroker, "basic.ack", 1, Fault::Pause);
    second.write_all(&[&b"AMQP\x00\x00\x09\x01"[..], &ack()].concat()).unwrap();
    while proxy.faulted() != [1] {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(proxy.passed(Direction::ToBroker), 8);
    proxy.inject_on(0, Direction::ToClient, Fault::Cut);
    assert_eq!(read_all(&mut first), b"");
    proxy.resume();
    while proxy.passed(Direction::ToBroker) < 8 + ack().len() as u64 {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
#[should_panic(expected = "no method is called \"basic.acknowledge\"")]
fn a_fault_before_an_unknown_method_is_refused() {
    let (proxy, ..) = link(|_| {});
    proxy.before(Direction::ToClient, "basic.acknowledge", 1, Fault::Cut);
}
