//! A call that waits for its answer allocates nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use amqp_async::core::proto::frame;
use amqp_async::core::proto::method::connection::{OpenOk, Tune};
use amqp_async::core::proto::method::{WireMethod, channel, tx};
use amqp_blocking::connect;
use amqp_testkit::alloc::{Counting, Region, counting};
use amqp_testkit::raw_connection::start;

#[global_allocator]
static ALLOCATOR: &Counting = counting();

const CALLS: usize = 1_000;

/// The allocator counts the whole process: this is the only test of it, and the broker's part is played
/// without an allocation.
#[test]
fn a_wait_allocates_nothing() {
    let (broker, port) = broker();
    let connection = connect(&format!("amqp://127.0.0.1:{port}")).unwrap();
    let tx = connection.open_channel().unwrap().tx_select().unwrap();
    for _ in 0..CALLS {
        tx.commit().unwrap();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        tx.commit().unwrap();
    }
    let allocations = region.change().allocations;
    assert!(allocations < CALLS / 100, "{allocations} allocations for {CALLS} calls");
    connection.abort();
    broker.join().unwrap();
}

/// Answers one call at a time.
fn broker() -> (thread::JoinHandle<()>, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let tune = Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 };
    let opening = [method(0, &start()), method(0, &tune), method(0, &OpenOk::default())].concat();
    let answers = [
        (method(1, &channel::Open::default()), method(1, &channel::OpenOk::default())),
        (method(1, &tx::Select {}), method(1, &tx::SelectOk {})),
        (method(1, &tx::Commit {}), method(1, &tx::CommitOk {})),
    ];
    let playing = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&opening).unwrap();
        let mut bytes = [0; 4 << 10];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            for (call, answer) in &answers {
                if bytes[..count].ends_with(call) {
                    stream.write_all(answer).unwrap();
                }
            }
        }
    });
    (playing, port)
}

fn method<'a>(channel: u16, method: &impl WireMethod<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, channel, method);
    bytes
}
