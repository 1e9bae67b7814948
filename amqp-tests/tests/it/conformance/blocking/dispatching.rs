//! Callbacks on the thread that asks for them (PK-61 to PK-65, PK-70 to PK-73).

use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use amqp_blocking::{
    BasicConsume, CloseCause, Connection, DispatchError, Dispatcher, Error, ExchangeDeclare,
    Properties, Publish, QueueDelete, SubmitError, connect, limits,
};

use crate::support::{code, exclusive, rabbitmq, unique};

fn open() -> (Connection, amqp_blocking::Channel, String) {
    let connection = connect(&rabbitmq().uri()).unwrap();
    let channel = connection.open_channel().unwrap();
    let queue = channel.queue_declare(exclusive("dispatched")).unwrap().queue;
    (connection, channel, queue)
}

fn publish(connection: &Connection, queue: &str, bodies: &[&str]) {
    let publisher = connection.open_channel().unwrap().confirm_select().unwrap();
    for body in bodies {
        publisher.publish(Publish::new("", queue, *body).mandatory()).unwrap();
    }
}

fn ready(connection: &Connection, queue: &str) -> u32 {
    let passive = amqp_blocking::QueueDeclare::passive(queue);
    connection.open_channel().unwrap().queue_declare(passive).unwrap().message_count
}

#[test]
fn pk_70_consuming_stops_from_a_callback_and_the_rest_goes_back() {
    let (connection, channel, queue) = open();
    publish(&connection, &queue, &["1", "2"]);
    let mut bodies = Vec::new();
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), |control, delivery| {
            bodies.push(delivery.body().to_vec());
            control.stop_consuming();
            // After the cancel, this delivery can still be acked.
            delivery.ack()?;
            Ok(())
        })
        .unwrap();
    dispatcher.start_consuming().unwrap();
    // With no consumer left it returns at once.
    dispatcher.start_consuming().unwrap();
    drop(dispatcher);
    assert_eq!(bodies, [b"1"]);
    let again = channel.basic_get(queue.as_str()).unwrap().unwrap();
    assert_eq!((again.body(), again.redelivered()), (b"2".as_slice(), true));
    again.ack().unwrap();
    connection.close();
}

#[test]
fn pk_70_consuming_ends_when_the_broker_cancels_the_last_consumer() {
    let (connection, channel, queue) = open();
    publish(&connection, &queue, &["delete it"]);
    let cancelled = RefCell::new(None);
    let mut dispatcher = Dispatcher::new(&connection);
    let deleter = connection.open_channel().unwrap();
    let name = queue.clone();
    let consumer = dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), move |_, delivery| {
            delivery.ack()?;
            deleter.queue_delete(QueueDelete::new(&name))?;
            Ok(())
        })
        .unwrap();
    dispatcher.on_cancel(|id| *cancelled.borrow_mut() = Some(id));
    dispatcher.start_consuming().unwrap();
    drop(dispatcher);
    assert_eq!(cancelled.into_inner(), Some(consumer));
    channel.queue_declare(exclusive("the channel lives")).unwrap();
    connection.close();
}

#[test]
fn pk_70_a_closed_channel_or_connection_is_raised() {
    let (connection, channel, queue) = open();
    publish(&connection, &queue, &["1", "2"]);
    let mut dispatcher = Dispatcher::new(&connection);
    let refused = channel.clone();
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), move |_, _| {
            // The broker closes the channel for it.
            assert!(refused.exchange_declare(ExchangeDeclare::passive(unique("no"))).is_err());
            Ok(())
        })
        .unwrap();
    let error = dispatcher.start_consuming().unwrap_err();
    let DispatchError::Amqp(error) = error else { panic!("{error:?}") };
    assert_eq!(code(&error), 404);
    dispatcher.start_consuming().unwrap();

    let channel = connection.open_channel().unwrap();
    let closer = connection.clone();
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), move |_, _| {
            assert_eq!(closer.close(), CloseCause::ByClient);
            Ok(())
        })
        .unwrap();
    // Closed from here, the consumer ends without an error.
    dispatcher.start_consuming().unwrap();
    let error = dispatcher.submitter().submit(|_| {}).unwrap_err();
    assert_eq!(error, SubmitError::Closed(CloseCause::ByClient));
    // There is nothing left to wait for.
    let error = dispatcher.process_events(None).unwrap_err();
    let DispatchError::Amqp(error) = error else { panic!("{error:?}") };
    assert_eq!(error, Error::Connection(CloseCause::ByClient));
}

#[test]
fn na_29_pk_61_a_callback_may_block_on_its_own_connection() {
    let (connection, channel, queue) = open();
    let answers = channel.queue_declare(exclusive("answers")).unwrap().queue;
    publish(&connection, &queue, &["a", "b", "c"]);
    let running = RefCell::new(false);
    let mut count = 0;
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue).prefetch(1), |control, delivery| {
            // One at a time, never one within another.
            assert!(!running.replace(true));
            connection.with_channel(|own| {
                let publisher = own.confirm_select()?;
                publisher.publish(Publish::new("", &answers, delivery.body()).mandatory())?;
                Ok::<_, amqp_blocking::BoxError>(())
            })?;
            let other = connection.open_channel()?;
            other.queue_declare(amqp_blocking::QueueDeclare::passive(&answers))?;
            delivery.ack()?;
            count += 1;
            if count == 3 {
                control.stop_consuming();
            }
            running.replace(false);
            Ok(())
        })
        .unwrap();
    dispatcher.start_consuming().unwrap();
    drop(dispatcher);
    assert_eq!(ready(&connection, &answers), 3);
    connection.close();
}

#[test]
fn pk_62_events_are_processed_for_as_long_as_is_asked() {
    let (connection, channel, queue) = open();
    let seen = RefCell::new(Vec::new());
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), |_, delivery| {
            seen.borrow_mut().push(delivery.body().to_vec());
            delivery.ack()?;
            Ok(())
        })
        .unwrap();
    assert_eq!(dispatcher.process_events(Some(Duration::ZERO)).unwrap(), 0);
    let begun = Instant::now();
    assert_eq!(dispatcher.process_events(Some(Duration::from_millis(30))).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(30));
    publish(&connection, &queue, &["1"]);
    // Without a limit it waits until there is something.
    assert_eq!(dispatcher.process_events(None).unwrap(), 1);
    publish(&connection, &queue, &["2", "3"]);
    let mut dispatched = 0;
    while dispatched < 2 {
        dispatched += dispatcher.process_events(Some(Duration::from_secs(60))).unwrap();
    }
    assert_eq!(*seen.borrow(), [b"1", b"2", b"3"]);
    drop(dispatcher);
    connection.close();
}

#[test]
fn pk_65_closures_run_on_the_dispatchers_thread_in_their_order() {
    let (connection, channel, queue) = open();
    let mut delivered = None;
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), |_, delivery| {
            delivered = Some(delivery);
            Ok(())
        })
        .unwrap();
    let submitter = dispatcher.submitter();
    let here = thread::current().id();
    let (send, order) = mpsc::channel();
    // From this thread too: it runs when events are next processed.
    let first = send.clone();
    submitter.submit(move |_| first.send(0).unwrap()).unwrap();
    assert!(order.try_recv().is_err());
    let other = submitter.clone();
    let worker = thread::spawn(move || {
        // Long enough for the dispatcher to sleep.
        thread::sleep(Duration::from_millis(50));
        for number in 1..=100 {
            let send = send.clone();
            let run = move |_: &mut Dispatcher<'_>| {
                assert_eq!(thread::current().id(), here);
                send.send(number).unwrap();
            };
            other.submit(run).unwrap();
        }
        other.submit(|dispatcher| dispatcher.stop_consuming().unwrap()).unwrap();
    });
    dispatcher.start_consuming().unwrap();
    worker.join().unwrap();
    assert_eq!(order.try_iter().collect::<Vec<_>>(), (0..=100).collect::<Vec<_>>());
    drop(dispatcher);
    assert_eq!(submitter.submit(|_| {}).unwrap_err(), SubmitError::DispatcherGone);
    assert!(delivered.is_none());
    connection.close();
    let gone = submitter.submit(|_| {}).unwrap_err();
    assert!(matches!(gone, SubmitError::Closed(CloseCause::ByClient)), "{gone:?}");
}

#[test]
fn pk_65_a_closure_may_add_consumers() {
    let (connection, channel, queue) = open();
    publish(&connection, &queue, &["1"]);
    let (send, bodies) = mpsc::channel();
    let mut dispatcher = Dispatcher::new(&connection);
    let job = move |dispatcher: &mut Dispatcher<'_>| {
        let consume = BasicConsume::new(&queue);
        let took = dispatcher.basic_consume(&channel, consume, move |control, delivery| {
            send.send(delivery.body().to_vec())?;
            delivery.ack()?;
            control.stop_consuming();
            Ok(())
        });
        took.unwrap();
    };
    dispatcher.submitter().submit(job).unwrap();
    assert!(dispatcher.process_events(Some(Duration::ZERO)).unwrap() > 0);
    dispatcher.start_consuming().unwrap();
    assert_eq!(bodies.try_iter().collect::<Vec<_>>(), [b"1"]);
    drop(dispatcher);
    connection.close();
}

/// A dispatcher that runs nothing keeps a bounded number of closures: the next one is refused and dropped.
#[test]
fn pk_65_the_inbox_is_bounded() {
    let broker = amqp_testkit::ModelBroker::start().unwrap();
    let connection = connect(&broker.uri()).unwrap();
    let mut dispatcher = Dispatcher::new(&connection);
    let submitter = dispatcher.submitter();
    for _ in 0..limits::SUBMITTED_MAX {
        submitter.submit(|_| {}).unwrap();
    }
    let (kept, dropped) = mpsc::channel::<()>();
    let refused = submitter.submit(move |_| drop(kept));
    assert_eq!(refused, Err(SubmitError::Full));
    assert_eq!(dropped.recv(), Err(mpsc::RecvError));
    let ran = dispatcher.process_events(Some(Duration::ZERO)).unwrap();
    assert_eq!(ran, limits::DISPATCHED_MAX);
    submitter.submit(|_| {}).unwrap();
    connection.close();
}

#[test]
fn pk_71_cancelling_gives_back_what_was_not_dispatched() {
    let (connection, channel, queue) = open();
    let other = channel.queue_declare(exclusive("other")).unwrap().queue;
    let count = RefCell::new(0);
    let callback = |_: &mut amqp_blocking::Control, delivery: amqp_blocking::Delivery| {
        *count.borrow_mut() += 1;
        delivery.ack()?;
        Ok(())
    };
    let mut dispatcher = Dispatcher::new(&connection);
    let tag = dispatcher.basic_consume(&channel, BasicConsume::new(&queue), callback).unwrap();
    let no_ack = BasicConsume::new(&other).no_ack();
    let other_tag = dispatcher.basic_consume(&channel, no_ack, callback).unwrap();
    publish(&connection, &queue, &["1", "2"]);
    publish(&connection, &other, &["3", "4"]);
    while connection.stats().delivered < 4 {
        thread::yield_now();
    }
    dispatcher.cancel(tag).unwrap();
    assert_eq!((*count.borrow(), ready(&connection, &queue)), (0, 2));
    // Without acknowledgement nothing can be given back: it is dispatched.
    dispatcher.cancel(other_tag).unwrap();
    assert_eq!((*count.borrow(), ready(&connection, &other)), (2, 0));
    dispatcher.cancel(tag).unwrap();
    drop(dispatcher);
    connection.close();
}

/// Two consumers of one channel have their turns; a callback's error stops the loop, not the consumer.
#[test]
fn pk_61_consumers_take_turns_and_errors_come_out() {
    let (connection, channel, queue) = open();
    let other = channel.queue_declare(exclusive("other")).unwrap().queue;
    publish(&connection, &queue, &["a", "a", "a"]);
    publish(&connection, &other, &["b", "b", "fail"]);
    let seen = RefCell::new(Vec::new());
    let mut dispatcher = Dispatcher::new(&connection);
    for name in [&queue, &other] {
        dispatcher
            .basic_consume(&channel, BasicConsume::new(name), |control, delivery| {
                let body = String::from_utf8(delivery.body().to_vec())?;
                seen.borrow_mut().push(body.clone());
                delivery.ack()?;
                if body == "fail" {
                    return Err("as asked".into());
                }
                if body == "end" {
                    control.stop_consuming();
                }
                Ok(())
            })
            .unwrap();
    }
    while connection.stats().delivered < 6 {
        thread::yield_now();
    }
    let error = dispatcher.start_consuming().unwrap_err();
    assert_eq!(error.to_string(), "a callback failed: as asked");
    assert!(matches!(error, DispatchError::Callback(_)));
    assert_eq!(*seen.borrow(), ["a", "b", "a", "b", "a", "fail"]);
    publish(&connection, &other, &["end"]);
    dispatcher.start_consuming().unwrap();
    assert_eq!(seen.borrow().last().map(String::as_str), Some("end"));
    drop(dispatcher);
    connection.close();
}

#[test]
fn pk_31_events_of_the_connection_are_dispatched() {
    let broker = amqp_testkit::ModelBroker::start().unwrap();
    let connection = connect(&broker.uri()).unwrap();
    let channel = connection.open_channel().unwrap();
    let events = RefCell::new(Vec::new());
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher.on_event(|event| events.borrow_mut().push(event));
    broker.set_alarm(Some("low on disk"));
    channel.basic_publish(Publish::new("", "nobody", b"x")).unwrap();
    assert_eq!(dispatcher.process_events(None).unwrap(), 1);
    broker.set_alarm(None);
    assert_eq!(dispatcher.process_events(None).unwrap(), 1);
    let closing = connection.clone();
    let closer = thread::spawn(move || closing.close());
    assert_eq!(dispatcher.process_events(None).unwrap(), 1);
    closer.join().unwrap();
    drop(dispatcher);
    use amqp_blocking::ConnectionEvent::{Blocked, Closed, Unblocked};
    let expected = [Blocked("low on disk".into()), Unblocked, Closed(CloseCause::ByClient)];
    assert_eq!(events.into_inner(), expected);
    let error: Error = channel.basic_publish(Publish::new("", "q", b"late")).unwrap_err();
    assert_eq!(error, Error::Connection(CloseCause::ByClient));
}

/// A closure that has itself run again and again keeps no delivery waiting.
#[test]
fn pk_65_closures_and_deliveries_take_turns() {
    fn again(dispatcher: &mut Dispatcher<'_>) {
        // Refused once the dispatcher has gone, or its connection.
        let _ = dispatcher.submitter().submit(again);
    }
    let (connection, channel, queue) = open();
    publish(&connection, &queue, &["1"]);
    let mut dispatcher = Dispatcher::new(&connection);
    dispatcher
        .basic_consume(&channel, BasicConsume::new(&queue), |control, delivery| {
            delivery.ack()?;
            control.cancel(control.consumer());
            Ok(())
        })
        .unwrap();
    dispatcher.submitter().submit(again).unwrap();
    dispatcher.start_consuming().unwrap();
    drop(dispatcher);
    connection.close();
}

/// N5: beside more than 8 MiB of tasks, a callback asks a service over its own connection.
#[test]
fn n_5_a_callback_asks_a_service_beside_its_tasks() {
    const DIRECT: &str = "amq.rabbitmq.reply-to";
    const TASKS: usize = 250;
    for size in [50_000, 100_000] {
        let service = connect(&rabbitmq().uri()).unwrap();
        let serving = service.open_channel().unwrap();
        let requests = serving.queue_declare(exclusive("requests")).unwrap().queue;
        let mut server = serving.basic_consume(BasicConsume::new(&requests)).unwrap();
        let server = thread::spawn(move || {
            for _ in 0..3 {
                let request = server.next().unwrap().unwrap();
                let address = request.properties().unwrap().reply_to.unwrap();
                serving.basic_publish(Publish::new("", &address, b"answer")).unwrap();
                request.ack().unwrap();
            }
            service.close();
        });

        let (connection, channel, queue) = open();
        let publisher = connection.open_channel().unwrap().confirm_select().unwrap();
        for _ in 0..TASKS {
            publisher.publish(Publish::new("", &queue, vec![7; size])).unwrap();
        }
        let asking = connection.open_channel().unwrap();
        let mut replies = asking.basic_consume(BasicConsume::new(DIRECT).no_ack()).unwrap();
        let mut dispatcher = Dispatcher::new(&connection);
        let mut asked = 0;
        dispatcher
            .basic_consume(&channel, BasicConsume::new(&queue), |control, delivery| {
                while asked == 0 && connection.stats().delivered < TASKS as u64 {
                    thread::sleep(Duration::from_millis(2));
                }
                let properties = Properties::new().reply_to(DIRECT);
                asking.basic_publish(Publish::new("", &requests, b"?").properties(&properties))?;
                let reply = replies.recv_timeout(Duration::from_secs(60))?.expect("an answer");
                assert_eq!(reply.body(), b"answer");
                delivery.ack()?;
                asked += 1;
                if asked == 3 {
                    control.stop_consuming();
                }
                Ok(())
            })
            .unwrap();
        dispatcher.start_consuming().unwrap();
        drop(dispatcher);
        assert_eq!(asked, 3);
        server.join().unwrap();
        connection.close();
    }
}
