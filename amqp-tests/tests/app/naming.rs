//! Files of messages that are committed together: their names, and the function that is called for each.

use std::sync::Arc;
use std::time::Duration;

use amqp_app::files::Writer;
use amqp_app::prelude::*;
use amqp_tests::world::World;

use crate::at::{At, Log, Make, beside, on_model, source};
use crate::files::Directory;

on_model! {
    a_function_that_panics_is_called_for_each_message
    messages_with_one_name_are_handled_apart_also_around_a_handler
}

/// A participant that takes its time.
struct Slow(World);

impl Participant for Slow {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.0.sleep(Duration::from_secs(10)).await;
        Ok(())
    }
    async fn finish(&mut self) {}
    async fn abort(&mut self) {}
}

fn ids<S>(messages: &[Context<S>]) -> String {
    messages.iter().map(|it| String::from_utf8(it.body().to_vec()).unwrap()).collect()
}

/// The second batch begins while the first one has voted for one of its names.
#[test]
fn batches_with_the_same_names_in_another_order_do_not_wait_for_each_other() {
    let world = World::new(1);
    let directory = Directory::new();
    world.block_on(async {
        let channel = world.connector().connect().await.unwrap().open_channel().await.unwrap();
        channel.queue_declare(QueueDeclare::classic("stored")).await.unwrap();
        let log = Log::default();
        let writer = Arc::new(Writer::new(&directory.0).pattern("{msgid}").unwrap());
        let slow = world.clone();
        let handler = move |Batch(messages): Batch<Context<Log>>, State(log): State<Log>| {
            log.add(format!("{} begins", ids(&messages)));
            let stored = messages.iter().try_for_each(|message| {
                writer.store(message)?;
                Participants::from_context(message)?.join(Slow(slow.clone()));
                Ok::<_, Failure>(())
            });
            std::future::ready(stored)
        };
        let consume = source("stored").concurrency(2).batches(2, Duration::from_secs(60));
        let app = App::with_state(world.connector(), log.clone()).consume(consume, handler);
        let (stopper, shutdown) = Shutdown::manual();
        let health = app.health();
        let script = async {
            for batch in ["ab", "ba"] {
                for id in batch.split("").filter(|it| !it.is_empty()) {
                    let message = Message::new(id.to_owned()).message_id(id).to_queue("stored");
                    channel.basic_publish(&message).await.unwrap();
                }
                while !log.lines().contains(&format!("{batch} begins")) {
                    assert!(world.elapsed() < Duration::from_secs(600), "{:?}", log.lines());
                    world.sleep(Duration::from_millis(10)).await;
                }
            }
            // One batch after the other, of two participants each that take 10 s.
            while health.report().unwrap().sources.iter().any(|it| it.in_work > 0) {
                assert!(world.elapsed() < Duration::from_secs(600), "{:?}", log.lines());
                world.sleep(Duration::from_secs(1)).await;
            }
            stopper.stop();
        };
        let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
        let report = report.unwrap();
        assert_eq!((report.handled, report.failed), (4, 0), "{report:?}");
        assert_eq!(log.take(), ["ab begins", "ba begins"], "none was halved");
    });
    assert_eq!(directory.names(), ["a", "a.header", "b", "b.header"]);
}

/// Stores the messages of a batch around its handler.
async fn around(writer: Writer, context: Context<Log>, next: Next<Log>) -> Outcome {
    match writer.store(&context) {
        Ok(()) => next.run(context).await,
        Err(failure) => Outcome::failure(failure),
    }
}

async fn a_function_that_panics_is_called_for_each_message<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    let directory = Directory::new();
    let log = at.log.clone();
    let writer = Writer::new(&directory.0).pattern("{msgid}").unwrap().on_stored(move |stored| {
        log.add(stored.name());
        panic!("of a function");
    });
    let handler = async |messages: Batch<Text>| drop(messages);
    let consume = source(&*queue).batches(3, Duration::from_secs(60));
    let app = at.app().consume(consume, handler);
    let app = app.wrap(move |context, next| around(writer.clone(), context, next));
    let report = beside(app, async |_| {
        for id in ["a", "b", "c"] {
            client.publish(Message::new("").message_id(id).to_queue(&queue)).await;
        }
        at.log.reach(3).await;
    })
    .await;
    assert_eq!((report.handled, report.failed), (3, 0), "{report:?}");
    assert_eq!(at.log.lines(), ["a", "b", "c"]);
    assert!(directory.has(6));
}

async fn messages_with_one_name_are_handled_apart_also_around_a_handler<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    let directory = Directory::new();
    let log = at.log.clone();
    let writer = Writer::new(&directory.0).pattern("it").unwrap().on_stored(move |stored| {
        log.add(format!("{} is stored", String::from_utf8_lossy(stored.body())));
    });
    let handler = async |Batch(messages): Batch<Context<Log>>, State(log): State<Log>| {
        log.add(format!("{} begins", ids(&messages)));
    };
    for body in ["1", "2"] {
        client.send(&queue, body).await;
    }
    let consume = source(&*queue).batches(2, Duration::from_secs(60));
    let app = at.app().consume(consume, handler);
    let app = app.wrap(move |context, next| around(writer.clone(), context, next));
    let report = beside(app, async |_| {
        at.log.reach(5).await;
    })
    .await;
    assert_eq!((report.handled, report.parked), (2, 0), "{report:?}");
    let apart = ["1 begins", "1 is stored", "2 begins", "2 is stored"];
    assert_eq!(at.log.lines(), [&["12 begins"][..], &apart[..]].concat());
    assert_eq!(directory.files()["it"], "2");
}
