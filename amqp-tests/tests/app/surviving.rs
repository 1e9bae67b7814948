//! What an application survives: panics beside its handlers, queues that take no copies, pools that close.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use amqp_app::Pool;
use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{
    At, Log, Make, beside, header, on_model, on_rabbitmq, sleep, source, unique, until, within,
};

on_model! {
    u_3_a_message_outlives_a_delay_queue_that_is_gone
    u_3_a_worker_takes_no_further_message_while_its_handler_blocks
    u_3_no_call_joins_a_handler_that_blocks_for_its_message_or_its_key
    l4_a_pool_whose_opening_is_dropped_leaves_nothing_open
    u_3_a_panic_beside_the_handler_costs_no_worker
    u_3_a_message_of_a_quorum_queue_outlives_a_full_parking_queue
    u_5_an_exchange_that_cannot_be_named_parks_the_request
    u_7_a_pool_that_closes_ends_its_listeners
    a_start_that_fails_ends_the_health
}

on_rabbitmq! {
    u_3_a_message_outlives_a_delay_queue_that_is_gone
    u_3_a_message_of_a_quorum_queue_outlives_a_full_parking_queue
    u_7_a_pool_that_closes_ends_its_listeners
}

async fn l4_a_pool_whose_opening_is_dropped_leaves_nothing_open<P: Make>(at: At<P>) {
    let proxy = Proxy::start(at.port()).unwrap();
    // The handshake stands still.
    proxy.at(Direction::ToClient, 0, Fault::Pause);
    let pool = Pool::new(P::to(&proxy.uri()), 3);
    let opening = async {
        pool.clone().connect().await.map(drop).unwrap_err();
    };
    let attempts = until("the attempts", async || proxy.accepted() >= 3);
    smol::future::or(opening, attempts).await;
    until("the end of the attempts", async || pool.status().opening + pool.status().closing == 0)
        .await;
    assert_eq!(pool.status().open, 0);
}

async fn u_3_a_worker_takes_no_further_message_while_its_handler_blocks<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("blocking").await;
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let handler = move |Text(text): Text, State(log): State<Log>| {
        seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if text == "hang" {
            // Until the sender is dropped, also by a failure of the test.
            released.lock().unwrap().recv().unwrap_err();
        }
        log.add(text);
        running.fetch_sub(1, Ordering::SeqCst);
    };
    for text in ["hang", "hang", "other"] {
        client.send(&queue, text).await;
    }
    let consume = source(queue.as_str()).concurrency(2).timeout(Duration::from_millis(20));
    let app = at.app().consume(consume, blocking(handler));
    let health = app.health();
    let report = beside(app, async move |_| {
        assert_eq!(client.bodies(&format!("{queue}.parked"), 2).await, ["hang", "hang"]);
        let overdue = async || health.report().is_some_and(|it| it.sources[0].overdue == 2);
        until("both late", overdue).await;
        // Long enough to see a call that should not begin.
        sleep(Duration::from_millis(200)).await;
        assert_eq!(at.log.lines(), Vec::<String>::new(), "the other one waits");
        drop(release);
        at.log.reach(3).await;
        until("the health", async || health.is_ready()).await;
    })
    .await;
    assert_eq!(most.load(Ordering::SeqCst), 2, "calls at once");
    // On a busy machine the other one may take too long.
    assert!(report.handled + report.parked == 3 && report.timed_out >= 2, "{report:?}");
}

/// It is not called for the next attempt in place, or for the next message with the key, before it has returned.
async fn u_3_no_call_joins_a_handler_that_blocks_for_its_message_or_its_key<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [again, keyed] = [client.queue("again").await, client.queue("keyed").await];
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let handler = move |Text(text): Text, Attempt(attempt): Attempt, context: Context<Log>| {
        let (log, queue) = (context.state(), context.queue());
        log.add(format!("{queue} begins"));
        if text == "hang" && attempt == 1 {
            released.lock().unwrap().recv().unwrap_err();
        }
        log.add(format!("{queue} ends"));
    };
    client.send(&again, "hang").await;
    for text in ["hang", "other"] {
        client.publish(Message::new(text).header("key", "same").to_queue(&keyed)).await;
    }
    let in_place = Retry::now(1).pause(Duration::from_millis(1));
    let short = |queue: &str| source(queue).concurrency(2).timeout(Duration::from_millis(20));
    let app = at.app().consume(short(&again).on_failure(in_place), blocking(handler.clone()));
    let app = app.consume(short(&keyed).by_header("key"), blocking(handler));
    let health = app.health();
    beside(app, async |_| {
        let release = release;
        let overdue =
            async || health.report().is_some_and(|it| it.sources.iter().all(|it| it.overdue == 1));
        until("both late", overdue).await;
        // Long enough to see a call that should not begin.
        sleep(Duration::from_millis(200)).await;
        drop(release);
        at.log.reach(8).await;
    })
    .await;
    for queue in [again, keyed] {
        let lines = at.log.lines();
        let lines: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(&queue)).collect();
        assert_eq!(lines, [" begins", " ends", " begins", " ends"]);
    }
}

async fn u_3_a_panic_beside_the_handler_costs_no_worker<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("panicking").await;
    let policy = Retry::none().if_error(|failure| {
        assert_ne!(failure.to_string(), "once", "the condition panics");
        false
    });
    let consume = Consume::new(queue.as_str()).concurrency(2).on_failure(policy);
    let consume = consume.by_key(|message| {
        assert_ne!(message.body(), b"no key", "the key panics");
        None
    });
    let handler =
        async |Text(text): Text, Redelivered(again): Redelivered, State(log): State<Log>| {
            if text == "once" && !again {
                return Err(Failure::retry("once"));
            }
            log.add(text);
            Ok(())
        };
    for text in ["once", "no key", "no key", "other", "other"] {
        client.send(&queue, text).await;
    }
    let report =
        beside(at.app().consume(consume, handler), async |_| drop(at.log.reach(5).await)).await;
    assert_eq!((report.handled, report.panicked, report.given_back), (5, 1, 1));
    assert_eq!(client.ready(&queue).await, 0);
}

/// A quorum queue counts what it gets back, and drops a message at its limit. So the message is kept until it can be parked.
async fn u_3_a_message_of_a_quorum_queue_outlives_a_full_parking_queue<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (name, full) = (unique("limited"), unique("full"));
    let parking =
        QueueDeclare::classic(&full).max_length(1).overflow(amqp_async::Overflow::RejectPublish);
    client.channel.queue_declare(parking).await.unwrap();
    client.send(&full, "first").await;
    let queue = QueueDeclare::quorum(&name).delivery_limit(1);
    let consume = Consume::new(queue).on_failure(Retry::none().then_park_in(&full));
    let app = at.app().consume(consume, async |_: Text| Failure::retry("never"));
    let health = app.health();
    let report = beside(app, async |_| {
        until("the queue", async || {
            let message = Message::new("second").to_queue(&name);
            client.publisher.publish(&message).await.is_ok()
        })
        .await;
        let unstored = async || health.report().is_some_and(|it| it.sources[0].unstored >= 3);
        until("three copies that are refused", unstored).await;
        assert!(!health.is_ready());
        assert_eq!(client.bodies(&full, 1).await, ["first"]);
        let parked = client.expect(&full).await;
        assert_eq!(header(&parked, "retry-error").as_deref(), Some("never"));
        parked.ack().unwrap();
        until("the health", async || health.is_ready()).await;
    })
    .await;
    assert_eq!((report.parked, report.given_back), (1, 0));
}

async fn u_3_a_message_outlives_a_delay_queue_that_is_gone<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("delayed").await;
    let waiting = format!("{queue}.retry.10m");
    let policy = Retry::after([Duration::from_secs(600)]).then_park();
    let consume = Consume::new(queue.as_str()).on_failure(policy);
    let app = at.app().consume(consume, async |_: Text| Failure::retry("later"));
    let health = app.health();
    let report = beside(app, async |_| {
        until("the start", async || health.is_ready()).await;
        client.channel.queue_delete(QueueDelete::new(&waiting)).await.unwrap();
        client.send(&queue, "kept").await;
        let unstored = async || health.report().is_some_and(|it| it.sources[0].unstored > 0);
        until("a copy that reaches no queue", unstored).await;
        client.channel.queue_declare(QueueDeclare::classic(&waiting)).await.unwrap();
        assert_eq!(client.bodies(&waiting, 1).await, ["kept"]);
    })
    .await;
    assert!(report.given_back >= 1, "{report:?}");
    assert_eq!((report.retried, client.ready(&queue).await), (1, 0));
}

async fn u_5_an_exchange_that_cannot_be_named_parks_the_request<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("unnamed").await;
    let handler = async |_: Text| Message::new("m").to("x".repeat(300), "");
    let app = at.app().consume(source(queue.as_str()), handler);
    client.send(&queue, "request").await;
    let report = beside(app, async |_| {
        let parked = client.expect(&format!("{queue}.parked")).await;
        let error = header(&parked, "retry-error").unwrap();
        assert!(error.contains("cannot be sent"), "{error}");
        parked.ack().unwrap();
    })
    .await;
    assert_eq!(report.parked, 1);
}

async fn u_7_a_pool_that_closes_ends_its_listeners<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("closing").await;
    for number in 0..5 {
        client.send(&queue, number.to_string()).await;
    }
    let pool = Pool::new(at.platform.clone(), 1);
    let member = pool.connection().await.unwrap();
    let log = at.log.clone();
    let (release, released) = smol::channel::bounded::<()>(1);
    let handler = move |Text(text): Text| {
        log.add(text);
        let released = released.clone();
        async move {
            released.recv().await.unwrap();
            // Longer than an ended consumer waits before it is started again.
            sleep(Duration::from_millis(400)).await;
        }
    };
    let consume = Consume::new(queue.as_str()).on_failure(Retry::none().then_dead_letter());
    let listening = member.consume_with(consume, handler).await.unwrap();
    at.log.reach(1).await;
    let others = async {
        until("the others", async || client.ready(&queue).await == 4).await;
        release.send(()).await.unwrap();
    };
    within("the close", smol::future::zip(pool.close(), others)).await;
    let report = within("the end", listening.ended()).await.unwrap();
    assert_eq!((report.handled, report.abandoned), (1, 0));
    until("the others", async || client.ready(&queue).await == 4).await;
}

async fn a_start_that_fails_ends_the_health<P: Make>(at: At<P>) {
    let (stopper, shutdown) = Shutdown::manual();
    let app = at.app().consume(source("missing"), async |_: Text| ());
    let health = app.health();
    assert!(health.is_live());
    app.run(shutdown).await.unwrap_err();
    assert!(!health.is_live() && health.report().is_none());
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.at(Direction::ToClient, 0, Fault::Cut);
    let app = at.app_at(&proxy.uri()).on_initialise(async |_| Ok::<_, io::Error>(()));
    let health = app.health();
    let (_stopper, shutdown) = Shutdown::manual();
    app.run(shutdown).await.unwrap_err();
    assert!(!health.is_live());
    // A shutdown that has begun before the start ends it.
    stopper.stop();
    let (stopper, shutdown) = Shutdown::manual();
    stopper.stop();
    assert_eq!(at.app().run(shutdown).await.unwrap().handled, 0);
}
