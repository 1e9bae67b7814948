//! Sources: how they are declared, and that each message is handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amqp_app::prelude::*;
use amqp_async::errors::ConnectFailure;
use amqp_async::{Channel, Overflow};

use crate::at::{
    At, Log, Make, beside, on_model, on_rabbitmq, sleep, source, unique, until, within,
};

on_model! {
    np_12_an_application_runs_on_the_connections_of_a_pool
    np_12_several_workers_share_a_queue
    gr_1_gr_2_gr_4_gr_30_a_topic_source_is_declared_and_bound
    gr_2_a_queue_is_declared_with_its_arguments_and_bound
    gr_3_two_handlers_of_one_queue_are_refused
    gr_13_a_wrong_password_ends_the_start_with_403
    u_6_as_many_messages_are_handled_at_once_as_there_are_workers
    u_9_a_consumer_that_the_broker_cancels_is_started_again
    what_cannot_be_set_up_is_an_error_of_the_start
    an_application_may_have_no_source
}

on_rabbitmq! {
    np_12_several_workers_share_a_queue
    gr_1_gr_2_gr_4_gr_30_a_topic_source_is_declared_and_bound
    gr_2_a_queue_is_declared_with_its_arguments_and_bound
    gr_3_two_handlers_of_one_queue_are_refused
    gr_13_a_wrong_password_ends_the_start_with_403
    u_6_as_many_messages_are_handled_at_once_as_there_are_workers
    u_9_a_consumer_that_the_broker_cancels_is_started_again
    what_cannot_be_set_up_is_an_error_of_the_start
}

async fn np_12_several_workers_share_a_queue<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("listeners").await;
    for number in 0..30 {
        client.send(&queue, number.to_string()).await;
    }
    let consume = source(queue.as_str()).concurrency(3);
    let app = at.app().consume(consume, async |Text(text): Text, State(log): State<Log>| {
        log.add(text);
    });
    let report = beside(app, async |_| drop(at.log.reach(30).await)).await;
    let mut lines = at.log.lines();
    lines.sort_by_key(|line| line.parse::<u32>().unwrap());
    assert_eq!(lines, (0..30).map(|it: u32| it.to_string()).collect::<Vec<_>>());
    assert_eq!((report.handled, report.failed, report.given_back), (30, 0, 0));
    assert_eq!(client.ready(&queue).await, 0);
}

async fn np_12_an_application_runs_on_the_connections_of_a_pool<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("listener1").await, client.queue("answers").await);
    let pool = Pool::new(at.platform.clone(), 2).connect().await.unwrap();
    let app = App::on_with_state(pool.clone(), answers.clone());
    let handler =
        async |Text(text): Text, State(to): State<String>| Message::new(text).to_queue(to);
    let report = beside(app.consume(source(queue.as_str()), handler), async |_| {
        client.send(&queue, "1").await;
        assert_eq!(client.bodies(&answers, 1).await, ["1"]);
    })
    .await;
    assert_eq!((report.handled, pool.status().open), (1, 2), "the connections stay open");
    pool.close().await;
}

async fn gr_1_gr_2_gr_4_gr_30_a_topic_source_is_declared_and_bound<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, exchange) = (unique("topics"), unique("room"));
    client.channel.exchange_declare(ExchangeDeclare::direct(&exchange)).await.unwrap();
    let [first, second] = [unique("order.created"), unique("order.changed")];
    let handler = async |RoutingKey(key): RoutingKey,
                         Exchange(exchange): Exchange,
                         State(log): State<Log>| {
        log.add(format!("{exchange} {key}"));
    };
    let consume = source(Consume::topic(&queue, [&*first, &*second])).bind(&exchange, "key");
    beside(at.app().consume(consume, handler), async |_| {
        client.declared(&queue).await;
        until("the bindings", async || {
            let message = Message::new("probe").to(&exchange, "key");
            client.publisher.publish(&message).await.is_ok()
        })
        .await;
        client.publish(Message::new("1").to("amq.topic", &first)).await;
        client.publish(Message::new("2").to("amq.topic", &second)).await;
        at.log.reach(3).await;
    })
    .await;
    let expected =
        [format!("{exchange} key"), format!("amq.topic {first}"), format!("amq.topic {second}")];
    assert_eq!(at.log.lines(), expected);
    // Durable, and of the same type as the original declares it.
    let declared = client.channel.queue_declare(QueueDeclare::new(&queue).durable()).await;
    assert_eq!(declared.unwrap().message_count, 0);
}

async fn gr_2_a_queue_is_declared_with_its_arguments_and_bound<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, key) = (unique("short"), unique("order.created"));
    let declare = |length| {
        let declare = QueueDeclare::classic(&queue).max_length(length);
        declare.overflow(Overflow::RejectPublish)
    };
    let consume = source(declare(2)).bind("amq.topic", &key).bind("amq.direct", &key);
    let app =
        at.app().consume(consume, async |Exchange(exchange): Exchange, State(log): State<Log>| {
            log.add(exchange);
        });
    beside(app, async |_| {
        for (number, exchange) in ["amq.topic", "amq.direct"].into_iter().enumerate() {
            until("the binding", async || {
                let message = Message::new("1").to(exchange, &key);
                client.publisher.publish(&message).await.is_ok()
            })
            .await;
            assert_eq!(at.log.reach(number + 1).await[number], exchange);
        }
    })
    .await;
    // Equivalent declarations agree. Others are refused.
    client.channel.queue_declare(declare(2)).await.unwrap();
    for other in [declare(3), QueueDeclare::classic(&queue)] {
        let declare = async |channel: Channel| channel.queue_declare(other.clone()).await;
        let refused = client.connection.with_channel(declare).await.unwrap_err();
        assert_eq!(refused.reply_code().unwrap().code(), 406, "{refused}");
    }
    let refused = at.app().consume(source(declare(3)), async || {}).run(Shutdown::never()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(&queue) && refused.contains("406"), "{refused}");
    // No consumer is left, and its length is that of the source.
    for number in 0..3 {
        let message = Message::new(number.to_string()).to("amq.topic", &key);
        let taken = client.publisher.publish(&message).await;
        assert_eq!(taken.is_ok(), number < 2, "{number}: {taken:?}");
    }
}

async fn gr_3_two_handlers_of_one_queue_are_refused<P: Make>(at: At<P>) {
    let app =
        at.app().consume(source("orders"), async || {}).consume(source("orders"), async || {});
    let error = app.run(Shutdown::never()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid application: two handlers consume from queue \"orders\""
    );
    let unnamed = at.app().consume(QueueDeclare::new("").exclusive(), async || {});
    assert!(matches!(unnamed.run(Shutdown::never()).await, Err(Error::Invalid(_))));
}

async fn gr_13_a_wrong_password_ends_the_start_with_403<P: Make>(at: At<P>) {
    let uri = format!("amqp://guest:open-sesame@127.0.0.1:{}", at.port());
    let app = at.app_at(&uri).consume(source("orders"), async || {});
    let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
    let Error::Connect(refused) = &error else { panic!("{error:?}") };
    let Some(ConnectFailure::Authentication(reply)) = refused.last_failure() else {
        panic!("{error:?}")
    };
    assert_eq!(reply.code.code(), 403);
    // As RabbitMQ says it, and without the password.
    let text = error.to_string();
    assert!(text.contains("403") && text.contains("Login was refused"), "{text}");
    assert!(!format!("{error:?} {error}").contains("sesame"), "{error:?}");
}

async fn u_6_as_many_messages_are_handled_at_once_as_there_are_workers<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("busy").await;
    for number in 0..40 {
        client.send(&queue, number.to_string()).await;
    }
    let [present, most, ended] = [0; 3].map(|it| Arc::new(AtomicUsize::new(it)));
    let (peak, all) = (Arc::clone(&most), Arc::clone(&ended));
    let handler = move || {
        let [present, peak, all] = [&present, &peak, &all].map(Arc::clone);
        async move {
            let now = present.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            // Until the others have begun too: the machine may be busy.
            while all.load(Ordering::SeqCst) == 0 && peak.load(Ordering::SeqCst) < 4 {
                sleep(Duration::from_millis(2)).await;
            }
            present.fetch_sub(1, Ordering::SeqCst);
            all.fetch_add(1, Ordering::SeqCst);
        }
    };
    // A prefetch of 1 would leave three workers without work.
    let consume = source(queue.as_str()).concurrency(4).prefetch(1);
    let report = beside(at.app().consume(consume, handler), async |_| {
        until("all messages", async || ended.load(Ordering::SeqCst) == 40).await;
    })
    .await;
    assert_eq!((report.handled, most.load(Ordering::SeqCst)), (40, 4));
}

async fn u_9_a_consumer_that_the_broker_cancels_is_started_again<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = unique("deleted");
    let declared = QueueDeclare::classic(&queue);
    let app =
        at.app().consume(source(declared), async |Text(text): Text, State(log): State<Log>| {
            log.add(text);
        });
    beside(app, async |_| {
        client.declared(&queue).await;
        client.send(&queue, "before").await;
        at.log.reach(1).await;
        client.channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
        until("the new queue", async || {
            client.publisher.publish(&Message::new("after").to_queue(&queue)).await.is_ok()
        })
        .await;
        at.log.reach(2).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["before", "after"]);
}

async fn what_cannot_be_set_up_is_an_error_of_the_start<P: Make>(at: At<P>) {
    let missing = unique("missing");
    let app = at.app().consume(source(missing.as_str()), async || {});
    let error = app.run(Shutdown::never()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot set up queue {missing:?}: ")), "{error}");
    assert!(error.contains("404"), "{error}");

    let client = at.client().await;
    let queue = client.queue("other").await;
    let parking = format!("{queue}.parked");
    client.channel.queue_declare(QueueDeclare::new(&parking)).await.unwrap();
    let error = at.app().consume(source(queue.as_str()), async || {}).run(Shutdown::never()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the retry policy") && error.contains("406"), "{error}");
}

/// So that it can be spawned.
#[test]
fn a_running_application_is_send() {
    fn is_send<P: amqp_app::Asynchronous>(app: App<P>) -> impl Future + Send {
        app.run(Shutdown::never())
    }
    let connector = amqp_tokio::Connector::new("amqp://localhost").unwrap();
    drop(is_send(App::new(connector)));
}

async fn an_application_may_have_no_source<P: Make>(at: At<P>) {
    assert_eq!(beside(at.app(), async |_| {}).await, Report::default());
    let at_once = Shutdown::when(std::future::ready(()));
    assert_eq!(at.app().run(at_once).await.unwrap(), Report::default());
}
