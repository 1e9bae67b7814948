//! What pools do, for one platform.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use amqp_app::config::{ConfigOptions, Format};
use amqp_app::{Consume, Error, Member, Message, Outcome, Pool, Pools, Retry, Stopper, Text};
use amqp_async::{
    ConnectError, Delivery, ExchangeDeclare, ExchangeDelete, PublishError, QueueBind, QueueDeclare, QueueDelete,
};
use amqp_testkit::{Direction, Fault, Proxy};

use super::api::{Channel, Connector, handle, run, wait};
use crate::support::{code, port, sleep, sockets_to, unique, within};

/// Turns each `async fn name(uri: String)` into a test on the model and one on RabbitMQ.
macro_rules! tests {
    ($($name:ident)*) => {
        mod on_model {
            $(
                #[test]
                fn $name() {
                    super::run(super::$name(crate::support::model().uri()));
                }
            )*
        }
        mod on_rabbitmq {
            $(
                #[test]
                fn $name() {
                    super::run(super::$name(crate::support::rabbitmq().uri()));
                }
            )*
        }
    };
}

tests! {
    l4_a_pool_that_is_not_awaited_leaves_nothing_open
    l5_an_unreachable_broker_is_an_error_and_the_pool_fills_again
    l6_a_close_releases_those_who_wait
    np_1_the_pools_of_a_file
    np_1_np_2_the_pools_of_an_ini_file
    np_3_a_kind_is_one_pool
    np_3_an_unknown_kind_is_an_error
    np_4_a_pool_opens_all_of_its_connections_or_none
    np_5_connections_are_shared_in_turn
    np_6_a_closed_pool_opens_again
    np_7_a_missing_exchange_is_an_error_and_the_next_publish_works
    np_7_a_message_that_no_queue_gets_is_an_error
    np_8_callbacks_are_called_once_in_the_order_of_the_publishes
    np_9_a_message_is_taken_or_waited_for
    np_10_a_listener_gets_the_next_message_after_the_acknowledgement
    np_11_a_listener_may_reject_a_message
    np_15_a_member_has_the_methods_of_its_connection
    np_16_a_handler_may_use_its_connection_and_cancel_its_listener
    pu_7_a_missing_exchange_fails_what_is_unconfirmed_beside_it
}

/// A connector for connections that end when they are lost, so that the pool replaces them.
fn ending(uri: &str) -> Connector {
    Connector::new(&crate::support::ends(uri)).unwrap()
}

fn uri_by(proxy: &Proxy) -> String {
    format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port())
}

/// A pool of one connection, with a channel and an empty queue.
struct Opened {
    pool: Pool<Connector>,
    member: Member<Connector>,
    channel: Channel,
    queue: String,
}

async fn opened(uri: &str, name: &str) -> Opened {
    let pool = wait!(Pool::new(ending(uri), 1).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    let channel = wait!(member.open_channel()).unwrap();
    let queue = unique(name);
    wait!(channel.queue_declare(QueueDeclare::new(&queue))).unwrap();
    Opened { pool, member, channel, queue }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    within(what, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn np_1_the_pools_of_a_file(uri: String) {
    let file = format!(
        "[connection]\nurl = \"{uri}\"\n[pools.publish]\nsize = 3\n[pools.audit]\nurl = \"{uri}\"\nsize = 1\n\
         [environments.test.pools.audit]\nsize = 2\n"
    );
    let options = ConfigOptions::new().environment("test");
    let config = options.parse(Format::Toml, &file).unwrap();
    let pools = Pools::from_config(&config, Connector::new).unwrap();
    for (kind, size) in [("publish", 3), ("listen", 5), ("audit", 2)] {
        let pool = wait!(pools.get(kind)).unwrap();
        assert_eq!((pool.status().size, pool.status().open), (size, size), "{kind}");
    }
    let error = wait!(pools.get("other")).map(drop).unwrap_err();
    assert!(matches!(error, Error::UnknownPool { .. }), "{error:?}");
    wait!(pools.close());
}

async fn np_1_np_2_the_pools_of_an_ini_file(uri: String) {
    let kinds = |size: u32| {
        let kind = |kind: &str| format!("amqp_{kind}_url = {uri}\namqp_{kind}_pool_size = {size}\n");
        ["publish", "listen", "audit"].map(kind).concat()
    };
    let file = format!("[default]\n{}[test]\n{}", kinds(2), kinds(1));
    for (variables, size) in [(None, 2), (Some(("NUCLEON_CONFIGURATION", "test")), 1)] {
        let options = ConfigOptions::new().variables(variables);
        let config = options.parse(Format::Ini, &file).unwrap();
        let pools = Pools::from_config(&config, Connector::new).unwrap();
        for kind in ["publish", "listen", "audit"] {
            let pool = wait!(pools.get(kind)).unwrap();
            assert_eq!((pool.status().size, pool.status().open), (size, size), "{kind}");
        }
        wait!(pools.close());
    }
}

async fn np_3_a_kind_is_one_pool(uri: String) {
    let pools = Pools::new([("publish", ending(&uri), 3), ("audit", ending(&uri), 1)]);
    let pool = wait!(pools.get("publish")).unwrap();
    assert_eq!((pool.status().size, pool.status().open), (3, 3));
    let same = wait!(pools.clone().get("publish")).unwrap();
    wait!(pools.close());
    assert_eq!((same.status().open, pool.status().open), (0, 0));
}

async fn np_3_an_unknown_kind_is_an_error(uri: String) {
    let pools = Pools::new([("publish", ending(&uri), 1), ("listen", ending(&uri), 1)]);
    let error = wait!(pools.get("audit")).unwrap_err();
    assert_eq!(error.to_string(), "no pool \"audit\": there are \"listen\", \"publish\"");
    let empty = wait!(Pool::new(ending(&uri), 0).connect()).unwrap_err();
    assert!(matches!(empty, Error::Invalid(_)), "{empty:?}");
}

async fn np_4_a_pool_opens_all_of_its_connections_or_none(uri: String) {
    let proxy = Proxy::start(port(&uri)).unwrap();
    let pool = Pool::new(ending(&uri_by(&proxy)), 3);
    assert_eq!((pool.status().size, pool.status().open, proxy.accepted()), (3, 0, 0));
    let pool = wait!(pool.connect()).unwrap();
    assert_eq!((pool.status().open, proxy.accepted()), (3, 3));
    wait!(pool.close());
    // Some are open when the broker is out of reach.
    proxy.at(Direction::ToClient, 0, Fault::Cut);
    let watched = pool.clone();
    let error = wait!(pool.connect()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    assert_eq!((watched.status().open, watched.status().opening), (0, 0));
}

async fn np_5_connections_are_shared_in_turn(uri: String) {
    let pool = wait!(Pool::new(ending(&uri), 2).connect()).unwrap();
    let queue = unique("shared");
    let first = wait!(pool.connection()).unwrap();
    let channel = wait!(first.open_channel()).unwrap();
    wait!(channel.queue_declare(QueueDeclare::new(&queue))).unwrap();
    let message = Message::new("m").to_queue(&queue);
    // Members need not be dropped before others are lent.
    let mut lent = vec![first];
    for _ in 1..4 {
        lent.push(wait!(pool.connection()).unwrap());
    }
    let mut confirmed = Vec::new();
    for member in &lent {
        wait!(member.publish(&message)).unwrap();
        confirmed.push(member.stats().confirmed);
    }
    assert_eq!(confirmed, [1, 1, 2, 2]);
    wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    wait!(pool.close());
    assert!(lent.iter().all(|member| member.close_cause().is_some()));
}

async fn np_6_a_closed_pool_opens_again(uri: String) {
    let pool = wait!(Pool::new(ending(&uri), 2).connect()).unwrap();
    let before = wait!(pool.connection()).unwrap();
    wait!(pool.close());
    assert_eq!((pool.status().open, before.is_open()), (0, false));
    assert!(wait!(pool.connection()).unwrap().is_open());
    until("the pool is full", || pool.status().open == 2).await;
    wait!(pool.close());
}

async fn np_7_a_missing_exchange_is_an_error_and_the_next_publish_works(uri: String) {
    let Opened { pool, member, channel, queue } = opened(&uri, "published").await;
    for _ in 0..3 {
        let missing = Message::new("m").to(unique("missing"), "");
        match wait!(member.publish(&missing)).unwrap_err() {
            PublishError::Unknown(error) => assert_eq!(code(&error), 404),
            other => panic!("{other:?}"),
        }
        wait!(member.publish(&Message::new("m").to_queue(&queue))).unwrap();
    }
    let deleted = wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    assert_eq!(deleted.message_count, 3);
    wait!(pool.close());
}

async fn np_7_a_message_that_no_queue_gets_is_an_error(uri: String) {
    let pool = wait!(Pool::new(ending(&uri), 1).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    let message = Message::new("m").to_queue(unique("missing"));
    let error = wait!(member.publish(&message)).unwrap_err();
    assert!(matches!(error, PublishError::Returned(_)), "{error:?}");
    wait!(member.publish(&message.optional())).unwrap();
    wait!(pool.close());
}

async fn pu_7_a_missing_exchange_fails_what_is_unconfirmed_beside_it(uri: String) {
    let proxy = Proxy::start(port(&uri)).unwrap();
    let Opened { pool, member, channel, queue } = opened(&uri_by(&proxy), "beside").await;
    let good = Message::new("m").to_queue(&queue);
    wait!(member.publish(&good)).unwrap();
    // The broker's answers to these are seen together.
    proxy.inject(Direction::ToClient, Fault::Pause);
    let (outcomes, outcome) = mpsc::channel();
    for (name, message) in [("bad", Message::new("m").to(unique("missing"), "")), ("good", good.clone())] {
        let outcomes = outcomes.clone();
        wait!(member.publish_with(&message, move |it| outcomes.send((name, it)).unwrap()));
    }
    // A message that the client has not written yet would be known not to be sent.
    until("the messages at the broker", || {
        let stats = member.stats();
        stats.unsent_bytes == 0 && proxy.passed(Direction::ToBroker) >= stats.bytes_sent
    })
    .await;
    proxy.resume();
    wait!(member.flush());
    for name in ["bad", "good"] {
        match outcome.try_recv().unwrap() {
            (of, Err(PublishError::Unknown(error))) => {
                assert_eq!((of, code(&error)), (name, 404));
            }
            other => panic!("{other:?}"),
        }
    }
    wait!(member.publish(&good)).unwrap();
    wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    wait!(pool.close());
}

async fn np_8_callbacks_are_called_once_in_the_order_of_the_publishes(uri: String) {
    let Opened { pool, member, channel, queue } = opened(&uri, "called").await;
    let (outcomes, outcome) = mpsc::channel();
    for number in 0..100 {
        let to = if number % 10 == 3 { unique("missing") } else { queue.clone() };
        let message = Message::new(number.to_string()).to_queue(to);
        let outcomes = outcomes.clone();
        wait!(member.publish_with(&message, move |it| {
            outcomes.send((number, it.is_ok())).unwrap();
            assert_ne!(number, 50, "a callback that panics does not stop the others");
        }));
    }
    wait!(pool.flush());
    let called: Vec<_> = outcome.try_iter().collect();
    assert_eq!(called, (0..100).map(|it| (it, it % 10 != 3)).collect::<Vec<_>>());
    // The queue has them in that order.
    for number in (0..100).filter(|it| it % 10 != 3) {
        let delivery = wait!(member.get(&queue)).unwrap().unwrap();
        assert_eq!(delivery.body(), number.to_string().as_bytes());
        delivery.ack().unwrap();
    }
    wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    wait!(pool.close());
    // What cannot be sent is reported too.
    let message = Message::new("m").to_queue(&queue);
    let outcomes = outcomes.clone();
    wait!(member.publish_with(&message, move |it| {
        outcomes.send((0, matches!(it, Err(PublishError::NotSent(_))))).unwrap();
    }));
    wait!(member.flush());
    assert_eq!(outcome.try_recv(), Ok((0, true)));
}

async fn np_9_a_message_is_taken_or_waited_for(uri: String) {
    let Opened { pool, member, channel, queue } = opened(&uri, "taken").await;
    assert!(wait!(member.get(&queue)).unwrap().is_none());
    assert!(wait!(member.consume_one(&queue, Duration::from_millis(20))).unwrap().is_none());
    for body in ["1", "2", "3"] {
        wait!(member.publish(&Message::new(body).to_queue(&queue))).unwrap();
    }
    let first = wait!(member.get(&queue)).unwrap().unwrap();
    let second = wait!(member.consume_one(&queue, Duration::from_secs(60))).unwrap().unwrap();
    assert_eq!((first.body(), second.body()), (b"1".as_slice(), b"2".as_slice()));
    first.ack().unwrap();
    // One that is dropped goes back, a moment later.
    drop(second);
    let passive = QueueDeclare::passive(&queue);
    while wait!(channel.queue_declare(passive.clone())).unwrap().message_count != 2 {}
    let again = wait!(member.consume_one(&queue, Duration::from_secs(60))).unwrap().unwrap();
    assert_eq!(again.body(), b"2");
    again.ack().unwrap();
    let last = wait!(member.get(&queue)).unwrap().unwrap();
    assert_eq!(last.body(), b"3");
    last.ack().unwrap();
    for error in [
        wait!(member.get(&unique("missing"))).map(drop).unwrap_err(),
        wait!(member.consume_one(&unique("missing"), Duration::from_secs(60))).map(drop).unwrap_err(),
    ] {
        assert_eq!(code(&error), 404);
    }
    let deleted = wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    assert_eq!(deleted.message_count, 0);
    wait!(pool.close());
}

async fn np_10_a_listener_gets_the_next_message_after_the_acknowledgement(uri: String) {
    let Opened { pool, member, channel, queue } = opened(&uri, "listened").await;
    for body in ["1", "2", "3"] {
        wait!(member.publish(&Message::new(body).to_queue(&queue))).unwrap();
    }
    let (taken, deliveries) = mpsc::channel();
    let handler = move |delivery: Delivery| {
        taken.send(delivery).unwrap();
        handle!({ Outcome::success() })
    };
    let listening = wait!(member.consume_with(plain(&queue), handler)).unwrap();
    for (body, left) in [("1", 2), ("2", 1), ("3", 0)] {
        let delivery = received(&deliveries).await;
        assert_eq!(delivery.body(), body.as_bytes());
        let passive = QueueDeclare::passive(&queue);
        let declared = wait!(channel.queue_declare(passive)).unwrap();
        assert_eq!((declared.message_count, deliveries.try_recv().is_err()), (left, true));
        delivery.ack().unwrap();
    }
    let report = wait!(listening.cancel()).unwrap();
    assert_eq!((report.handled, report.given_back), (3, 0));
    let deleted = wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    assert_eq!(deleted.message_count, 0);
    // A queue that is missing is an error of the start.
    let error = wait!(member.consume_with(plain(&queue), |_: Text| handle!({ Outcome::success() }))).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Setup { error, .. } if code(error) == 404), "{error:?}");
    wait!(pool.close());
}

/// A source that declares nothing.
fn plain(queue: &str) -> Consume {
    Consume::new(queue).on_failure(Retry::none().then_dead_letter())
}

/// The next delivery that a handler has taken.
async fn received(deliveries: &mpsc::Receiver<Delivery>) -> Delivery {
    within("a delivery", async {
        loop {
            match deliveries.try_recv() {
                Ok(delivery) => return delivery,
                Err(_) => sleep(Duration::from_millis(2)).await,
            }
        }
    })
    .await
}

async fn np_11_a_listener_may_reject_a_message(uri: String) {
    let Opened { pool, member, channel, queue } = opened(&uri, "rejected").await;
    wait!(member.publish(&Message::new("1").to_queue(&queue))).unwrap();
    let (taken, deliveries) = mpsc::channel();
    let handler = move |delivery: Delivery| {
        taken.send(delivery).unwrap();
        handle!({ Outcome::success() })
    };
    let listening = wait!(member.consume_with(plain(&queue), handler)).unwrap();
    let first = received(&deliveries).await;
    assert!(!first.redelivered());
    first.reject(true).unwrap();
    let again = received(&deliveries).await;
    assert!(again.redelivered());
    again.reject(false).unwrap();
    // A listener that is dropped is cancelled: the next message stays.
    drop(listening);
    let passive = QueueDeclare::passive(&queue);
    while wait!(channel.queue_declare(passive.clone())).unwrap().consumer_count != 0 {}
    wait!(member.publish(&Message::new("2").to_queue(&queue))).unwrap();
    let deleted = wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
    assert_eq!(deleted.message_count, 1);
    wait!(pool.close());
}

async fn np_16_a_handler_may_use_its_connection_and_cancel_its_listener(uri: String) {
    let pool = wait!(Pool::new(ending(&uri), 1).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    let (queue, copies) = (unique("cancelled"), unique("copies"));
    let channel = wait!(member.open_channel()).unwrap();
    for queue in [&queue, &copies] {
        wait!(channel.queue_declare(QueueDeclare::new(queue))).unwrap();
    }
    let canceller: Arc<OnceLock<Stopper>> = Arc::default();
    let (stopper, own, to) = (Arc::clone(&canceller), member.clone(), copies.clone());
    let handler = move |Text(text): Text| {
        if text == "5" {
            stopper.get().unwrap().stop();
        }
        let (own, message) = (own.clone(), Message::new(text).to_queue(&to));
        handle!({ wait!(own.publish(&message)) })
    };
    let listening = wait!(member.consume_with(plain(&queue), handler)).unwrap();
    canceller.set(listening.canceller()).unwrap();
    for number in 0..10 {
        wait!(member.publish(&Message::new(number.to_string()).to_queue(&queue))).unwrap();
    }
    let report = wait!(listening.ended()).unwrap();
    assert_eq!(report.handled, 6);
    for number in 0..6 {
        let copy = wait!(member.get(&copies)).unwrap().unwrap();
        assert_eq!(copy.body(), number.to_string().as_bytes());
        copy.ack().unwrap();
    }
    assert!(wait!(member.get(&copies)).unwrap().is_none());
    let passive = QueueDeclare::passive(&queue);
    while wait!(channel.queue_declare(passive.clone())).unwrap().message_count != 4 {}
    for queue in [&queue, &copies] {
        wait!(channel.queue_delete(QueueDelete::new(queue))).unwrap();
    }
    wait!(pool.close());
}

async fn np_15_a_member_has_the_methods_of_its_connection(uri: String) {
    let pool = wait!(Pool::new(ending(&uri), 1).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    let (exchange, queue) = (unique("room"), unique("listener"));
    let channel = wait!(member.open_channel()).unwrap();
    wait!(channel.exchange_declare(ExchangeDeclare::direct(&exchange))).unwrap();
    wait!(channel.queue_declare(QueueDeclare::new(&queue))).unwrap();
    wait!(channel.queue_bind(QueueBind::new(&queue, &exchange, "user1"))).unwrap();
    wait!(member.publish(&Message::new("WithHello1").to(&exchange, "user1"))).unwrap();
    // A teardown may run twice.
    for messages in [1, 0] {
        let deleted = wait!(channel.queue_delete(QueueDelete::new(&queue))).unwrap();
        assert_eq!(deleted.message_count, messages);
        wait!(channel.exchange_delete(ExchangeDelete::new(&exchange))).unwrap();
    }
    wait!(pool.close());
}

async fn l4_a_pool_that_is_not_awaited_leaves_nothing_open(uri: String) {
    let proxy = Proxy::start(port(&uri)).unwrap();
    let pool = wait!(Pool::new(ending(&uri_by(&proxy)), 3).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    drop(pool);
    assert!(member.is_open(), "a member keeps its connection");
    let watched = member.clone();
    drop(member);
    drop(watched);
    until("no connection is open", || sockets_to(proxy.port()) == 0).await;
}

async fn l5_an_unreachable_broker_is_an_error_and_the_pool_fills_again(uri: String) {
    let proxy = Proxy::start(port(&uri)).unwrap();
    let pool = wait!(Pool::new(ending(&uri_by(&proxy)), 2).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    proxy.at(Direction::ToClient, 0, Fault::Cut);
    proxy.inject(Direction::ToClient, Fault::Cut);
    until("the loss", || member.close_cause().is_some() && pool.status().open == 0).await;
    let error = wait!(pool.connection()).unwrap_err();
    assert!(matches!(error, Error::Connect(ConnectError::Failed { .. })), "{error:?}");
    proxy.heal();
    let member = wait!(pool.connection()).unwrap();
    assert!(member.is_open());
    until("the pool is full", || pool.status().open == 2).await;
    // One that ends alone is replaced, and not lent meanwhile.
    member.abort();
    for _ in 0..4 {
        assert!(wait!(pool.connection()).unwrap().is_open());
    }
    until("the pool is full", || pool.status().open == 2).await;
    wait!(pool.close());
    // What failed before is over.
    wait!(wait!(pool.connect()).unwrap().close());
}

async fn l6_a_close_releases_those_who_wait(uri: String) {
    let proxy = Proxy::start(port(&uri)).unwrap();
    let pool = wait!(Pool::new(ending(&uri_by(&proxy)), 1).connect()).unwrap();
    wait!(pool.close());
    // The handshake stands still.
    proxy.at(Direction::ToClient, 0, Fault::Pause);
    let waiting = std::thread::spawn({
        let pool = pool.clone();
        move || {
            run(async move {
                let error = wait!(pool.connection()).map(drop).unwrap_err();
                assert!(matches!(error, Error::PoolClosed), "{error:?}");
            });
        }
    });
    until("an attempt", || pool.status().opening == 1).await;
    let closing = std::thread::spawn({
        let pool = pool.clone();
        move || {
            run(async move {
                wait!(pool.close());
                assert_eq!(pool.status().opening, 0);
            });
        }
    });
    waiting.join().unwrap();
    // On threads an attempt cannot be dropped.
    proxy.heal();
    closing.join().unwrap();
}
