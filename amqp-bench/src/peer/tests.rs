//! What the peer refuses, and that it counts what it does not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use amqp_proto::frame;
use amqp_proto::method::{basic, channel, connection, queue};
use amqp_proto::{ContentHeader, PROTOCOL_HEADER, RawProperties, ShortStr};

use super::{Deliveries, Peer, Totals};
use crate::outcome::Failure;
use crate::socket::address;

/// The totals after the bytes were sent on the open channel 1.
fn totals_after(frames: &[u8], done: impl Fn(&Totals) -> bool) -> Result<Totals, Failure> {
    let peer = Peer::serve(Deliveries { size: 16, count: 4 }, false)?;
    let mut stream = TcpStream::connect(address(&peer.uri))?;
    let mut output = PROTOCOL_HEADER.to_vec();
    frame::write_method(&mut output, 0, &connection::StartOk::default());
    frame::write_method(&mut output, 0, &connection::TuneOk::default());
    frame::write_method(&mut output, 0, &connection::Open::default());
    frame::write_method(&mut output, 1, &channel::Open::default());
    output.extend_from_slice(frames);
    stream.write_all(&output)?;
    stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    let begun = Instant::now();
    while !done(&peer.totals()) && begun.elapsed() < Duration::from_secs(5) {
        // What the peer says is of no interest, but must not fill the socket.
        let _ = stream.read(&mut [0; 4096]);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(peer.totals())
}

fn publish(out: &mut Vec<u8>, key: &str) {
    let routing_key = ShortStr::new(key).unwrap_or_default();
    frame::write_method(out, 1, &basic::Publish { routing_key, ..Default::default() });
}

fn header(out: &mut Vec<u8>, class_id: u16, body_size: u64) {
    let properties = RawProperties::NONE;
    frame::write_header(out, 1, &ContentHeader { class_id, body_size, properties });
}

#[test]
fn whole_messages_are_counted_in_whatever_pieces() -> Result<(), Failure> {
    let mut frames = Vec::new();
    for pieces in [&[3, 2][..], &[5], &[5], &[], &[1, 1, 1]] {
        publish(&mut frames, "bench");
        header(&mut frames, 60, pieces.iter().sum::<usize>() as u64);
        pieces.iter().for_each(|piece| frame::write_body(&mut frames, 1, &vec![b'x'; *piece]));
    }
    let totals = totals_after(&frames, |totals| totals.published >= 5)?;
    assert_eq!(totals, Totals { published: 5, body_bytes: 18, ..Totals::default() });
    Ok(())
}

#[test]
fn anything_malformed_is_a_hard_error() -> Result<(), Failure> {
    type Lay = fn(&mut Vec<u8>);
    let cases: &[(&str, Lay)] = &[
        ("to nowhere", |out| publish(out, "elsewhere")),
        ("a method instead of Header", |out| {
            publish(out, "bench");
            publish(out, "bench");
        }),
        ("class 50", |out| {
            publish(out, "bench");
            header(out, 50, 1);
        }),
        ("instead of Method", |out| header(out, 60, 1)),
        ("a body of 3 B instead of Body", |out| {
            publish(out, "bench");
            header(out, 60, 2);
            frame::write_body(out, 1, b"xxx");
        }),
        ("a method instead of Body", |out| {
            publish(out, "bench");
            header(out, 60, 2);
            frame::write_body(out, 1, b"x");
            publish(out, "bench");
        }),
        ("a body of 1 B instead of Header", |out| {
            publish(out, "bench");
            frame::write_body(out, 1, b"x");
        }),
        ("a body of 0 B", |out| {
            publish(out, "bench");
            header(out, 60, 2);
            frame::write_body(out, 1, b"");
        }),
        ("an acknowledgement of nothing", |out| {
            let ack = basic::Ack { delivery_tag: 1, multiple: false };
            frame::write_method(out, 1, &ack);
        }),
        ("closed channel 2", |out| {
            frame::write_method(out, 2, &queue::Declare::default());
        }),
        ("unexpected", |out| {
            frame::write_method(out, 1, &queue::Purge::default());
        }),
    ];
    for (expected, lay) in cases {
        let mut frames = Vec::new();
        lay(&mut frames);
        let totals = totals_after(&frames, |totals| totals.error.is_some())?;
        let error = totals.error.unwrap_or_default();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    Ok(())
}
