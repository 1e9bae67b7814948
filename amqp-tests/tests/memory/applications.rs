//! An application whose handlers fail, panic and hang holds after twenty thousand messages what it held after two thousand.
//! Application and broker are in one world of virtual time, so that what the broker holds is counted too.

use std::panic;

use amqp_app::prelude::*;
use amqp_testkit::alloc::live_bytes;
use amqp_tests::world::World;

use crate::ALLOCATOR;

const BATCH: usize = 1_000;
const BATCHES: usize = 20;
/// What handlers panic with.
const PANIC: &str = "of the handler";
/// Two bytes for each message: buffers keep the capacity that they once needed. How much that is depends on the order in which
/// messages come, so there are enough of them.
const TOLERANCE_BYTES: isize = 2 * (BATCH * (BATCHES - 2)) as isize;

pub(crate) fn twenty_thousand() {
    // The output that the test runner keeps is memory too.
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&PANIC) {
            print(info);
        }
    }));
    let world = World::new(0);
    let (stopper, shutdown) = Shutdown::manual();
    let handler = async |Json(number): Json<usize>, Attempt(attempt): Attempt| match number % 100 {
        0..5 => Err(Failure::retry("always")),
        5..10 => std::future::pending().await,
        10 => panic::panic_any(PANIC),
        11..25 if attempt < 3 => Err(Failure::retry("at first")),
        _ => Ok(Message::new("reply").to("amq.fanout", "").optional()),
    };
    let policy = Retry::now(1).and_after([1, 60].map(Duration::from_secs)).then_discard();
    let consume = Consume::new(QueueDeclare::quorum("work")).concurrency(16);
    let consume = consume.timeout(Duration::from_secs(1)).on_failure(policy);
    let app = App::new(world.connector()).consume(consume, handler);
    let health = app.health();
    let script = async {
        while !health.is_ready() {
            world.sleep(Duration::from_millis(100)).await;
        }
        let connection = world.connector().connect().await.unwrap();
        let publisher = connection.publisher().await.unwrap();
        let mut held = Vec::new();
        for batch in 0..BATCHES {
            for number in 0..BATCH {
                let message = Message::new(number.to_string()).message_id(number.to_string());
                drop(publisher.send(&message.to_queue("work")).await.unwrap());
            }
            publisher.all_confirmed().await.unwrap();
            let queues = ["work", "work.retry.1s", "work.retry.1m"];
            let is_done = || {
                world.broker(|broker| queues.iter().all(|queue| broker.messages(queue).is_empty()))
            };
            while !is_done() {
                world.sleep(Duration::from_secs(1)).await;
            }
            let bytes = live_bytes(ALLOCATOR);
            println!("application, {} messages: {bytes} bytes", (batch + 1) * BATCH);
            held.push(bytes);
        }
        let growth = held[BATCHES - 1] - held[1];
        assert!(growth <= TOLERANCE_BYTES, "{growth} bytes more: {held:?}");
        stopper.stop();
    };
    let running = async { app.run(shutdown).await.unwrap() };
    let (report, ()) = world.block_on(smol::future::zip(running, script));
    // 11 of 100 fail in all of their four attempts.
    assert_eq!((report.handled, report.discarded), (17_800, 2_200), "{report:?}");
    assert_eq!((report.panicked, report.timed_out), (800, 4_000), "{report:?}");
}
