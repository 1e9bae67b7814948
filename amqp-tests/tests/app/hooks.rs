//! What applications run at their start and at their end.

use std::future::{Ready, ready};
use std::io;
use std::thread;

use amqp_app::prelude::*;
use amqp_app::{BoxError, Stopper};
use amqp_async::Connection;
use amqp_testkit::ModelBroker;

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, source, within};

on_model! {
    np_13_gr_22_hooks_run_before_the_first_message_and_at_the_end
    np_13_a_hook_that_fails_ends_the_application
    np_13_a_hook_that_hangs_at_the_end_is_dropped
    np_13_a_shutdown_does_not_wait_for_a_start_that_hangs
}

on_rabbitmq! {
    np_13_gr_22_hooks_run_before_the_first_message_and_at_the_end
}

async fn np_13_gr_22_hooks_run_before_the_first_message_and_at_the_end<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, sent) = (client.queue("hooked").await, client.queue("sent").await);
    client.send(&queue, "message").await;
    let [first, second, started, stopping] = [(); 4].map(|()| at.log.clone());
    let (room, to) = (queue.clone(), sent.clone());
    let app = at
        .app()
        .on_initialise(async move |connection| {
            // The room is there before anything is consumed.
            let channel = connection.open_channel().await?;
            channel.exchange_declare(ExchangeDeclare::fanout(&room)).await?;
            first.add("initialise 1");
            channel.close().await
        })
        .on_started(async move |connection| {
            let publisher = connection.publisher().await?;
            publisher.publish(&Message::new("of a hook").to_queue(to)).await?;
            started.add("started");
            Ok::<_, BoxError>(())
        })
        .on_initialise(async move |_| {
            second.add("initialise 2");
            Ok::<_, io::Error>(())
        })
        .on_stopping(async move |connection| {
            assert!(connection.is_open());
            stopping.add("stopping");
            Ok::<_, io::Error>(())
        });
    let exchange = queue.clone();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        log.add(text);
        let answer = Message::new("answer").to(&exchange, "").optional();
        ready(answer)
    };
    let app = app.consume(source(queue.as_str()), handler);
    let report = beside(app, async |_| {
        at.log.reach(4).await;
        assert_eq!(client.bodies(&sent, 1).await, ["of a hook"]);
    })
    .await;
    assert_eq!(report.handled, 1);
    let lines = at.log.lines();
    assert_eq!(lines[..2], ["initialise 1", "initialise 2"]);
    assert_eq!(lines[4], "stopping");
    let mut middle = lines[2..4].to_vec();
    middle.sort_unstable();
    assert_eq!(middle, ["message", "started"]);
}

/// A hook that stops the application.
fn stops(stopper: Stopper) -> impl FnOnce(Connection) -> Ready<io::Result<()>> + Send {
    move |_| {
        stopper.stop();
        ready(Ok(()))
    }
}

async fn np_13_a_hook_that_fails_ends_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("hooked").await;
    client.send(&queue, "message").await;
    for hook in ["on_initialise", "on_started", "on_stopping"] {
        let app = at.app();
        let fails = async |_| Err::<(), _>(io::Error::other("no room"));
        let (stopper, shutdown) = Shutdown::manual();
        let app = match hook {
            "on_initialise" => app.on_initialise(fails),
            "on_started" => app.on_started(fails),
            _ => app.on_started(stops(stopper)).on_stopping(fails),
        };
        let log = at.log.clone();
        let app = app.on_stopping(async move |_| {
            log.add("stopping");
            Ok::<_, io::Error>(())
        });
        let app = app.consume(source(queue.as_str()), async |_: Text| ());
        let error = within("the end", app.run(shutdown)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{hook} failed: no room"));
        if hook == "on_initialise" {
            assert_eq!(client.ready(&queue).await, 1, "nothing is consumed");
        }
    }
    assert_eq!(at.log.lines(), Vec::<String>::new(), "a hook after one that failed does not run");
}

async fn np_13_a_hook_that_hangs_at_the_end_is_dropped<P: Make>(at: At<P>) {
    let hangs = async |_| std::future::pending::<Result<(), io::Error>>().await;
    let (stopper, shutdown) = Shutdown::manual();
    let app = at.app().on_started(stops(stopper));
    let shutdown = shutdown.within(Duration::from_millis(20));
    within("the end", app.on_stopping(hangs).run(shutdown)).await.unwrap();
}

async fn np_13_a_shutdown_does_not_wait_for_a_start_that_hangs<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("hooked").await;
    let log = at.log.clone();
    let (stopper, shutdown) = Shutdown::manual();
    let app = at.app().consume(source(queue.as_str()), async |_: Text| ());
    let app = app.on_started(async move |_| {
        log.add("started");
        std::future::pending::<Result<(), io::Error>>().await
    });
    let stop = async {
        at.log.reach(1).await;
        stopper.stop();
    };
    let (ended, ()) = within("the end", smol::future::zip(app.run(shutdown), stop)).await;
    ended.unwrap();
}

#[test]
fn np_13_hooks_run_on_threads() {
    let broker = ModelBroker::start().unwrap();
    let connector = amqp_blocking::Connector::new(&broker.uri()).unwrap();
    let log = Log::default();
    let (stopper, shutdown) = Shutdown::manual();
    let [initialise, started, stopping] = [(); 3].map(|()| log.clone());
    let app = App::with_state(connector, log.clone())
        .on_initialise(move |connection| {
            let channel = connection.open_channel()?;
            channel.queue_declare(QueueDeclare::classic("orders"))?;
            initialise.add("initialise");
            connection.publisher()?.publish(&Message::new("order").to_queue("orders")).unwrap();
            Ok::<_, amqp_blocking::Error>(())
        })
        .on_started(move |_| {
            started.add("started");
            Ok::<_, io::Error>(())
        })
        .on_stopping(move |_| {
            stopping.add("stopping");
            Err(io::Error::other("too late"))
        })
        .consume(source("orders"), move |Text(text): Text, State(log): State<Log>| {
            log.add(text);
            stopper.stop();
        });
    let running = thread::spawn(move || app.run(shutdown));
    let error = running.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "on_stopping failed: too late");
    let lines = log.lines();
    assert_eq!((lines.len(), lines[0].as_str()), (4, "initialise"), "{lines:?}");
}
