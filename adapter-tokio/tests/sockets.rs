//! What the transport asks of its socket.

use std::future::poll_fn;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::pin::pin;
use std::task::{Context, Waker};

use amqp_async::{Runtime, Target, Transport};
use amqp_tokio::Endpoint;
use amqp_tokio::runtime::Tokio;
use bytes::BytesMut;

/// A read that left room has emptied the socket: it is not asked again before the reactor has heard of
/// more. What has come meanwhile is still read, and so is the end.
#[tokio::test]
async fn a_socket_that_was_emptied_is_not_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let target = Target::new(Endpoint::new("localhost", address.port()), Some(address));
    let mut socket = Tokio::default().dial(target).await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let mut input = BytesMut::new();

    peer.write_all(b"1").unwrap();
    assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut input, 100)).await.unwrap(), 1);
    // It is in the socket at once, and only the system could tell.
    peer.write_all(b"2").unwrap();
    let polled = pin!(poll_fn(|cx| socket.poll_read(cx, &mut input, 100))).poll(&mut noop());
    assert!(polled.is_pending(), "the system was asked");
    assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut input, 100)).await.unwrap(), 1);

    // The last bytes and the end come together, and are told once.
    peer.write_all(b"3").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut input, 100)).await.unwrap(), 1);
    assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut input, 100)).await.unwrap(), 0);
    assert_eq!(&input[..], b"123");
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
