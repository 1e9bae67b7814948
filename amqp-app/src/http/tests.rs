//! Requests, good and bad, and what they get.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

use super::{HealthServer, answer};
use crate::app::health::Health;
use crate::limits::{HTTP_ACCEPT_PAUSE, HTTP_CONNECTIONS, HTTP_HEAD_BYTES};

fn serving(health: &Health) -> HealthServer {
    health.serve("127.0.0.1:0").unwrap()
}

/// Sends a text, and nothing more, and returns everything that comes back.
fn exchanged(server: &HealthServer, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    // A server that has answered may have closed.
    let _ = stream.write_all(text);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(server: &HealthServer, path: &str) -> (u16, String) {
    let answer =
        exchanged(server, format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn an_application_that_is_not_started_is_live_and_not_ready() {
    let health = Health::default();
    let server = serving(&health);
    assert_eq!(get(&server, "/live"), (200, "live\n".to_owned()));
    assert_eq!(get(&server, "/ready"), (503, "not started\n".to_owned()));
    assert_eq!(get(&server, "/metrics"), (404, "the application has set no metrics\n".to_owned()));
    health.set_metrics(|| "orders 7\n".to_owned());
    assert_eq!(get(&server, "/metrics?x=1"), (200, "orders 7\n".to_owned()));
    health.end();
    assert_eq!(get(&server, "/live").0, 503);
    assert_eq!(get(&server, "/ready"), (503, "the application has ended\n".to_owned()));
    assert_eq!(get(&server, "/metrics").0, 200, "the numbers of the end are worth knowing");
    health.set_metrics(|| panic!("no numbers"));
    assert_eq!(get(&server, "/metrics").0, 500);
    assert_eq!(get(&server, "/live").0, 503);
}

#[test]
fn each_request_gets_its_status() {
    let server = serving(&Health::default());
    let many: String = (0..65).map(|number| format!("h{number}: x\r\n")).collect();
    for (request, status) in [
        ("GET /live HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /live HTTP/1.1\nHost: x\n\n", "200 OK"),
        ("GET /live?verbose HTTP/1.1\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /livenot HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /../live HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /live HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "405 Method Not Allowed"),
        ("DELETE /ready HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("GET /live HTTP/3.0\r\n\r\n", "400 Bad Request"),
        ("GET /live\r\n\r\n", "400 Bad Request"),
        ("GET /live HTTP/1.1\r\n", "400 Bad Request"),
        ("\0\0\0\0", "400 Bad Request"),
        ("AMQP\0\0\x09\x01", "400 Bad Request"),
        ("\x16\x03\x01 a client of TLS", "400 Bad Request"),
        ("", "400 Bad Request"),
        (&format!("GET /live HTTP/1.1\r\n{many}\r\n"), "431 Request Header Fields Too Large"),
        (
            &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HTTP_HEAD_BYTES)),
            "431 Request Header Fields Too Large",
        ),
        (
            &format!("GET /live HTTP/1.1\r\nh: {}", "a".repeat(9 * HTTP_HEAD_BYTES)),
            "431 Request Header Fields Too Large",
        ),
    ] {
        let answer = exchanged(&server, request.as_bytes());
        let first = answer.lines().next();
        assert_eq!(first, Some(format!("HTTP/1.1 {status}").as_str()), "{request}");
    }
    assert!(exchanged(&server, b"PUT / HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    let head = exchanged(&server, b"HEAD /live HTTP/1.1\r\n\r\n");
    assert!(head.contains("\r\nContent-Length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn no_request_panics() {
    let request = b"GET /ready?x=1 HTTP/1.1\r\nHost: probe.example\r\nAccept: */*\r\nConnection: close\r\n\r\n";
    let health = Health::default();
    let mut statuses = std::collections::BTreeSet::new();
    let mut count = |head: &[u8]| {
        let bytes = answer::answer(head, &health).into_bytes();
        let text = String::from_utf8(bytes).unwrap();
        let _ = answer::is_whole(head);
        assert!(text.starts_with("HTTP/1.1 ") && text.contains("\r\n\r\n"), "{text}");
        statuses.insert(text[9..12].to_owned());
    };
    for at in 0..=request.len() {
        let (before, behind) = request.split_at(at);
        count(before);
        count(behind);
        for byte in 0..=u8::MAX {
            count(&[before, &[byte], behind].concat());
            count(&[before, &[byte], behind.get(1..).unwrap_or_default()].concat());
        }
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), ["400", "404", "405", "503"]);
}

/// Peers that send nothing hold all places. When they have gone, probes are answered.
#[test]
fn silent_peers_hold_a_bounded_number_of_places() {
    let server = serving(&Health::default());
    let silent: Vec<_> =
        (0..2 * HTTP_CONNECTIONS).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    while server.shared.open.load(Ordering::Acquire) < HTTP_CONNECTIONS {
        thread::yield_now();
    }
    thread::sleep(2 * HTTP_ACCEPT_PAUSE);
    assert!(server.shared.open.load(Ordering::Acquire) <= HTTP_CONNECTIONS);
    // Also a stop need not wait for them.
    let other = serving(&Health::default());
    let _silent: Vec<_> =
        (0..=HTTP_CONNECTIONS).map(|_| TcpStream::connect(other.address()).unwrap()).collect();
    other.stop();
    drop(silent);
    assert_eq!(get(&server, "/live").0, 200);
    // One that has said a part of its request, and is silent then.
    let mut slow = TcpStream::connect(server.address()).unwrap();
    slow.write_all(b"GET /li").unwrap();
    assert_eq!(get(&server, "/live").0, 200);
    slow.write_all(b"ve HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn a_server_that_is_stopped_frees_its_port() {
    let health = Health::default();
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
        let server = health.serve(address).unwrap();
        assert!(health.serve(server.address()).is_err(), "the port is taken");
        server.stop();
        server.stop();
        let again = health.serve(server.address()).unwrap();
        again.stop();
    }
}
