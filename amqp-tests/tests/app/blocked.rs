//! Input and output of connections beside handlers that block their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Proxy};

use crate::at::{At, Log, Make, on_rabbitmq, source, until, within};

on_rabbitmq! {
    gr_11_heartbeats_and_publishes_go_on_beside_handlers_that_block
}

/// The heartbeats of both connections, of which each sends one a second. RabbitMQ closes a connection that is silent for two
/// intervals of two seconds.
const HEARTBEATS: u64 = 12;
const HEARTBEAT_FRAME: u64 = 8;
const THREADS: usize = 4;
const EACH: usize = 5;

/// Lets handlers go, also when the test fails.
struct Opened(Arc<AtomicBool>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn gr_11_heartbeats_and_publishes_go_on_beside_handlers_that_block<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    let proxy = Proxy::start(at.port()).unwrap();
    let pool = Pool::new(P::to(&format!("{}?heartbeat=2", proxy.uri())), 2);
    let pool = pool.connect().await.unwrap();
    let (opened, to) = (Opened(Arc::default()), answers.clone());
    let open = Arc::clone(&opened.0);
    // Several threads share what is sent in the transaction of a message.
    let handler = move |outgoing: Outgoing, State(log): State<Log>| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        outgoing.send(Message::new("reply").to_queue(&to));
                    }
                });
            }
        });
        log.add("blocks");
        while !open.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    };
    let consume = source(queue.as_str()).concurrency(2).transactional();
    let app = App::on_with_state(pool.clone(), at.log.clone()).consume(consume, blocking(handler));
    let (stopper, shutdown) = Shutdown::manual();
    let script = async {
        for id in ["first", "second"] {
            client.publish(Message::new(id).message_id(id).to_queue(&queue)).await;
        }
        at.log.reach(2).await;
        // Nothing else is sent meanwhile.
        let before = proxy.passed(Direction::ToBroker);
        let beats = || (proxy.passed(Direction::ToBroker) - before) / HEARTBEAT_FRAME;
        until("the heartbeats", async || beats() >= HEARTBEATS).await;
        let publisher = pool.connection().await.unwrap();
        let beside = Message::new("beside").to_queue(&answers);
        for _ in 0..EACH {
            within("the confirm", publisher.publish(&beside)).await.unwrap();
        }
        assert_eq!(client.bodies(&answers, EACH).await, ["beside"; EACH]);
        assert_eq!(client.ready(&answers).await, 0, "nothing is committed");
        drop(opened);
        assert_eq!(
            client.bodies(&answers, 2 * THREADS * EACH).await,
            ["reply"; 2 * THREADS * EACH]
        );
        stopper.stop();
    };
    let (report, ()) =
        within("the application", smol::future::zip(app.run(shutdown), script)).await;
    let report = report.unwrap();
    assert_eq!((report.handled, report.stale, at.log.lines().len()), (2, 0, 2), "{report:?}");
    assert_eq!((proxy.accepted(), client.ready(&answers).await), (2, 0), "no connection was lost");
    pool.close().await;
}
