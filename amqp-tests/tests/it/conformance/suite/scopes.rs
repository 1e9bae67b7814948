//! What is known of a channel reaches its caller: scopes, confirms, returns.

use super::api::{
    self, At, BasicConsume, BasicQos, Channel, ChannelCause, CloseCause, ConnectionEvent, Error,
    ExchangeBind, ExchangeDeclare, ExchangeDelete, Misuse, Overflow, Publish, PublishError,
    QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};
use super::at::{consumer_of, next, on_every_adapter, ready};
use std::time::Duration;

use crate::support::{code, exclusive, unique, within};

on_every_adapter! {
    pk_51_pk_52_calls_without_an_answer_keep_their_place
    na_8_a_scope_closes_its_channel_and_raises_what_is_known
    na_9_one_channel_publishes_consumes_and_confirms
    na_12_an_asynchronous_error_is_raised_by_the_next_operation
    na_13_three_ways_to_make_publishing_synchronous
    na_14_a_hard_error_reaches_every_channel
    na_15_a_closed_channel_says_who_closed_it
    na_16_returned_messages_are_raised_once
    na_24_br_20_a_full_queue_nacks
    h9_modes_exclude_each_other
    na_27_pk_59_every_method_has_its_answer
    na_29_a_handler_may_wait_on_its_own_connection
    na_34_a_drain_leaves_nothing_behind
    an_abort_ends_everything_at_once
    pk_30_br_39_a_secret_is_updated
    pk_33_what_happens_is_counted
    pk_54_a_close_beside_ninety_nine_refusals_ends
    br_11_bad_properties_close_the_channel
    br_19_nothing_is_confirmed_behind_a_refusal
}

pub(super) async fn queue_with(at: &At, bodies: &[&str]) -> (api::Connection, Channel, String) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("scope")).await.unwrap().queue;
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    for body in bodies {
        publisher.publish(Publish::new("", &queue, *body)).await.unwrap();
    }
    (connection, channel, queue)
}

async fn na_8_a_scope_closes_its_channel_and_raises_what_is_known(at: At) {
    let connection = at.connect().await;
    let missing = unique("missing");
    let to_nowhere =
        async |channel: &Channel| channel.basic_publish(Publish::new(&missing, "k", b"x")).await;
    let kept = connection
        .with_channel(async |channel| {
            channel.queue_declare(exclusive("scoped")).await?;
            Ok::<_, Error>(channel)
        })
        .await
        .unwrap();
    assert_eq!(kept.close_cause(), Some(ChannelCause::ByClient));

    let error = connection.with_channel(async |channel| to_nowhere(&channel).await).await;
    assert_eq!(code(&error.unwrap_err()), 404);

    let nowhere = unique("nowhere");
    let error = connection
        .with_channel(async |channel| {
            channel.basic_publish(Publish::new("", &nowhere, b"x").mandatory()).await
        })
        .await
        .unwrap_err();
    let Error::Returned(returned) = error else { panic!("{error:?}") };
    assert_eq!((returned.code.code(), returned.message.body()), (312, b"x".as_slice()));

    #[derive(Debug)]
    enum Mine {
        Own,
        Amqp,
    }
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Self::Amqp
        }
    }
    let error = connection
        .with_channel(async |channel| {
            to_nowhere(&channel).await?;
            Err::<(), _>(Mine::Own)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Mine::Own), "the body's own error comes first");
    let error =
        connection.with_channel(async |channel| Ok::<(), Mine>(to_nowhere(&channel).await?));
    assert!(matches!(error.await, Err(Mine::Amqp)));
    connection.close().await;
}

async fn na_9_one_channel_publishes_consumes_and_confirms(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("all")).await.unwrap().queue;
    let mut consumer = consumer_of(&channel, &queue).await;
    let publisher = channel.confirm_select().await.unwrap();
    for _ in 0..100 {
        publisher.publish(Publish::new("", &queue, b"x").mandatory()).await.unwrap();
        next(&mut consumer).await.ack().unwrap();
    }
    connection.close().await;
}

async fn na_12_an_asynchronous_error_is_raised_by_the_next_operation(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let missing = unique("missing");
    channel.basic_publish(Publish::new(&missing, "k", b"x")).await.unwrap();
    within("the error", async {
        while channel.close_cause().is_none() {
            crate::support::yield_now().await;
        }
    })
    .await;
    let error = channel.basic_publish(Publish::new("", "k", b"x")).await.unwrap_err();
    assert_eq!(code(&error), 404);
    connection.close().await;
}

async fn na_13_three_ways_to_make_publishing_synchronous(at: At) {
    let connection = at.connect().await;
    let missing = unique("missing");
    let publish = || Publish::new(&missing, "k", b"x");
    let closing = connection.with_channel(async |channel| channel.basic_publish(publish()).await);
    let transaction = async {
        let channel = connection.open_channel().await?;
        let tx = channel.tx_select().await?;
        channel.basic_publish(publish()).await?;
        tx.commit().await
    };
    let confirming = async {
        let publisher = connection.open_channel().await?.confirm_select().await?;
        match publisher.publish(publish()).await {
            Err(PublishError::Unknown(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    };
    let (closing, transaction, confirming) =
        within("three errors", async { tokio::join!(closing, transaction, confirming) }).await;
    for result in [closing, transaction, confirming] {
        assert_eq!(code(&result.unwrap_err()), 404);
    }
    connection.close().await;
}

async fn na_14_a_hard_error_reaches_every_channel(at: At) {
    // From RabbitMQ 4 on, this client can do nothing that costs the connection: an operator must.
    let operator = (at.version() >= (4, 0)).then(crate::support::fragile);
    let at = operator.as_ref().map_or_else(|| at.clone(), |node| at.to(node.uri()));
    let hard = if operator.is_some() { 320 } else { 503 };
    let connection = at.connect().await;
    let channels =
        [connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap()];
    let mut consumer = {
        let queue = channels[0].queue_declare(exclusive("hard")).await.unwrap().queue;
        channels[0].basic_consume(BasicConsume::new(queue)).await.unwrap()
    };
    if let Some(node) = &operator {
        node.ctl(&["close_all_connections", "because"]).unwrap();
    } else {
        let declare = ExchangeDeclare::new(unique("e"), "no-such-type");
        let error = channels[1].exchange_declare(declare).await.unwrap_err();
        assert!(error.reply_code().unwrap().is_hard());
    }
    let end = within("the end", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(code(&end), hard);
    for channel in &channels {
        for _ in 0..2 {
            let later = channel.queue_declare(exclusive("late")).await.unwrap_err();
            assert!(later.is_connection());
            assert_eq!(code(&later), hard);
        }
    }
    let Some(CloseCause::ByBroker(cause)) = connection.close_cause() else { panic!() };
    assert_eq!(cause.code.code(), hard);
    assert_eq!(connection.close().await, CloseCause::ByBroker(cause));
}

async fn na_15_a_closed_channel_says_who_closed_it(at: At) {
    let (connection, channel, queue) = queue_with(&at, &["1"]).await;
    let publisher = connection.open_channel().await.unwrap();
    let confirmed = publisher.confirm_select().await.unwrap();
    publisher.close().await.unwrap();
    channel.close().await.unwrap();
    let by_client = Error::Channel(ChannelCause::ByClient);
    assert_eq!(channel.basic_get(queue.as_str()).await.unwrap_err(), by_client);
    assert_eq!(channel.basic_publish(Publish::new("", "q", b"x")).await, Err(by_client.clone()));
    assert_eq!(channel.returned().await.unwrap_err(), by_client);
    assert_eq!(channel.no_wait(QueueDeclare::new("q")).await, Err(by_client.clone()));
    let error = confirmed.publish(Publish::new("", "q", b"x")).await.unwrap_err();
    assert_eq!(error, PublishError::NotSent(by_client));
    connection.close().await;
}

async fn na_16_returned_messages_are_raised_once(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let nowhere = unique("nowhere");
    let publish = |body| Publish::new("", &nowhere, body).mandatory();
    channel.basic_publish(publish("1")).await.unwrap();
    channel.basic_publish(publish("2")).await.unwrap();
    let first = within("a returned message", channel.returned()).await.unwrap();
    assert_eq!(first.message.body(), b"1");
    let second = within("a returned message", channel.returned()).await.unwrap();
    assert_eq!((second.message.body(), second.code.code()), (b"2".as_slice(), 312));
    channel.check_returned().unwrap();

    channel.basic_publish(publish("3")).await.unwrap();
    channel.basic_qos(BasicQos::new(1)).await.unwrap();
    let error = channel.check_returned().unwrap_err();
    assert!(matches!(&error, Error::Returned(it) if it.message.body() == b"3"), "{error}");
    channel.check_returned().unwrap();

    let waiting = channel.returned();
    let (end, closed) = within("an end", async { tokio::join!(waiting, channel.close()) }).await;
    closed.unwrap();
    assert_eq!(end.unwrap_err(), Error::Channel(ChannelCause::ByClient));
    connection.close().await;
}

async fn na_24_br_20_a_full_queue_nacks(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let declare = exclusive("full").max_length(1).overflow(Overflow::RejectPublish);
    let queue = channel.queue_declare(declare).await.unwrap().queue;
    let publisher = channel.confirm_select().await.unwrap();
    publisher.publish(Publish::new("", &queue, b"1")).await.unwrap();
    for _ in 0..3 {
        let error = publisher.publish(Publish::new("", &queue, b"x")).await.unwrap_err();
        assert_eq!(error, PublishError::Nacked);
    }
    channel.queue_purge(QueuePurge::new(&queue)).await.unwrap();
    publisher.publish(Publish::new("", &queue, b"2")).await.unwrap();
    let missing = unique("missing");
    let error = publisher.publish(Publish::new(&missing, "", b"x")).await.unwrap_err();
    assert!(matches!(&error, PublishError::Unknown(error) if code(error) == 404), "{error}");
    connection.close().await;
}

/// BR-12: RabbitMQ would close the channel.
async fn h9_modes_exclude_each_other(at: At) {
    let connection = at.connect().await;
    let confirming = connection.open_channel().await.unwrap();
    confirming.confirm_select().await.unwrap();
    let error = confirming.tx_select().await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::ConfirmMode));
    let transacting = connection.open_channel().await.unwrap();
    let tx = transacting.tx_select().await.unwrap();
    let error = transacting.confirm_select().await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::TransactionMode));
    // Asked again, nothing changes.
    transacting.tx_select().await.unwrap().commit().await.unwrap();
    tx.rollback().await.unwrap();
    let error = confirming.basic_publish(Publish::new("", "q", b"x")).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::ConfirmModeUsePublisher));
    let error = confirming.flow(false).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::FlowInactive));
    confirming.queue_declare(exclusive("alive")).await.unwrap();
    connection.close().await;
}

async fn na_27_pk_59_every_method_has_its_answer(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (one, two, queue) = (unique("one"), unique("two"), unique("every"));
    channel.exchange_declare(ExchangeDeclare::topic(&one).durable()).await.unwrap();
    channel.exchange_declare(ExchangeDeclare::fanout(&two)).await.unwrap();
    channel.exchange_bind(ExchangeBind::new(&two, &one, "k")).await.unwrap();
    let declared = channel.queue_declare(QueueDeclare::classic(&queue)).await.unwrap();
    assert_eq!((declared.name(), declared.message_count, declared.consumer_count), (&*queue, 0, 0));
    channel.queue_bind(QueueBind::new(&queue, &two, "")).await.unwrap();
    channel.basic_qos(BasicQos::new(10)).await.unwrap();
    channel.basic_qos(BasicQos::new(10).global()).await.unwrap();
    assert!(channel.flow(true).await.unwrap());
    channel.basic_publish(Publish::new(&one, "k", b"x").mandatory()).await.unwrap();
    ready(&channel, &queue, 1).await;
    let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
    channel.basic_recover().await.unwrap();
    assert!(got.ack().is_err(), "it is requeued");
    let mut consumer = consumer_of(&channel, &queue).await;
    let again = next(&mut consumer).await;
    assert!(again.redelivered());
    again.ack().unwrap();
    consumer.cancel().await.unwrap();
    assert_eq!(channel.queue_purge(QueuePurge::new(&queue)).await.unwrap().message_count, 0);
    channel.queue_unbind(QueueBind::new(&queue, &two, "")).await.unwrap();
    channel.exchange_unbind(ExchangeBind::new(&two, &one, "k")).await.unwrap();
    channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
    for exchange in [&one, &two] {
        channel.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
    }
    channel.tx_select().await.unwrap().commit().await.unwrap();
    channel.close().await.unwrap();
    connection.close().await;
}

async fn na_29_a_handler_may_wait_on_its_own_connection(at: At) {
    let (connection, channel, queue) = queue_with(&at, &["a", "b", "c"]).await;
    let answers = channel.queue_declare(exclusive("answers")).await.unwrap().queue;
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(1)).await.unwrap();
    within("three answers", async {
        for _ in 0..3 {
            let delivery = consumer.next().await.unwrap().unwrap();
            // Opens, confirms, declares and closes, on the connection and the channel it came by.
            connection
                .with_channel(async |own| {
                    let publisher = own.confirm_select().await?;
                    let body = delivery.shared_body();
                    publisher.publish(Publish::new("", &answers, body).mandatory()).await.unwrap();
                    Ok::<(), Error>(())
                })
                .await
                .unwrap();
            channel.queue_declare(QueueDeclare::passive(&answers)).await.unwrap();
            delivery.ack().unwrap();
        }
    })
    .await;
    ready(&channel, &answers, 3).await;
    connection.close().await;
}

async fn na_34_a_drain_leaves_nothing_behind(at: At) {
    let (connection, channel, queue) = queue_with(&at, &["1", "2", "3"]).await;
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(2)).await.unwrap();
    let slow = next(&mut consumer).await;
    within("the second one", async {
        while connection.stats().unacked < 2 {
            crate::support::yield_now().await;
        }
    })
    .await;
    let error = connection.drain(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, Error::DrainTimeout { unacked: 2, .. }), "{error:?}");
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let working = async {
        // What had come before still comes; then the stream ends.
        slow.ack().unwrap();
        while let Some(delivery) = consumer.next().await {
            publisher.publish(Publish::new("", &queue, b"made")).await.unwrap();
            delivery.unwrap().ack().unwrap();
        }
    };
    let (drained, ()) = within("a drain", async {
        tokio::join!(connection.drain(Duration::from_secs(60)), working)
    })
    .await;
    drained.unwrap();
    let stats = connection.stats();
    assert_eq!((stats.unacked, stats.unconfirmed, stats.consumers), (0, 0, 0));
    ready(&channel, &queue, 2).await;
    let joined = at.spawn(connection.closed());
    connection.close().await;
    assert_eq!(within("the end", joined).await, CloseCause::ByClient);
    let error = connection.drain(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error, Error::Connection(CloseCause::ByClient));
}

async fn an_abort_ends_everything_at_once(at: At) {
    let (connection, channel, queue) = queue_with(&at, &[]).await;
    let mut consumer = consumer_of(&channel, &queue).await;
    let mut events = connection.events();
    connection.abort();
    let end = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(end, Error::Connection(CloseCause::Aborted));
    assert_eq!(connection.closed().await, CloseCause::Aborted);
    assert_eq!(connection.close().await, CloseCause::Aborted);
    assert_eq!(events.next().await, Some(ConnectionEvent::Closed(CloseCause::Aborted)));
    assert_eq!(events.next().await, None);
    // Its exclusive queue goes with it.
    let other = at.connect().await;
    within("the queue's end", async {
        loop {
            let channel = other.open_channel().await.unwrap();
            let declare = QueueDeclare::new(&queue).exclusive();
            if channel.queue_declare(declare).await.is_ok() {
                break;
            }
        }
    })
    .await;
    other.close().await;
}

async fn pk_30_br_39_a_secret_is_updated(at: At) {
    let connection = at.connect().await;
    connection.update_secret("another", "it was about to expire").await.unwrap();
    let error = connection.update_secret("s", "x".repeat(256)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    connection.open_channel().await.unwrap();
    connection.close().await;
    let error = connection.update_secret("s", "r").await.unwrap_err();
    assert_eq!(error, Error::Connection(CloseCause::ByClient));
}

async fn pk_33_what_happens_is_counted(at: At) {
    let (connection, channel, queue) = queue_with(&at, &["1", "2"]).await;
    let nowhere = unique("nowhere");
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let returned = publisher.publish(Publish::new("", &nowhere, b"x").mandatory()).await;
    assert!(matches!(returned, Err(PublishError::Returned(_))));
    let mut consumer = consumer_of(&channel, &queue).await;
    next(&mut consumer).await.ack().unwrap();
    let kept = next(&mut consumer).await;
    let stats = connection.stats();
    assert_eq!((stats.published, stats.confirmed, stats.returned, stats.nacked), (3, 3, 1, 0));
    assert_eq!((stats.delivered, stats.acks_sent, stats.unacked), (2, 1, 1));
    assert_eq!((stats.channels, stats.consumers, stats.open_calls), (2, 1, 0));
    assert!(stats.bytes_received > 0 && stats.frames_received > 0 && stats.frames_sent > 0);
    let mut events = connection.events();
    drop(kept);
    assert_eq!(events.next().await, Some(ConnectionEvent::DeliveriesDropped(1)));
    let stats = connection.stats();
    assert_eq!((stats.dropped, stats.unacked), (1, 0));
    connection.close().await;
}

async fn pk_54_a_close_beside_ninety_nine_refusals_ends(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let missing = unique("missing");
    let calls: Vec<_> = (0..99)
        .map(|_| {
            let (channel, missing) = (channel.clone(), missing.clone());
            at.spawn(
                async move { channel.exchange_declare(ExchangeDeclare::passive(missing)).await },
            )
        })
        .collect();
    crate::support::yield_now().await;
    within("the close", channel.close()).await.unwrap();
    for call in calls {
        let error = within("an answer", call).await.unwrap_err();
        assert!(error.is_channel(), "{error}");
    }
    connection.open_channel().await.unwrap();
    connection.close().await;
}

async fn br_11_bad_properties_close_the_channel(at: At) {
    let connection = at.connect().await;
    let (text, user) =
        (api::Properties::new().expiration("f"), api::Properties::new().user_id("somebody"));
    for properties in [text, user] {
        let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
        let publish = Publish::new("", "q", b"x").properties(&properties);
        let error = publisher.publish(publish).await.unwrap_err();
        assert!(matches!(&error, PublishError::Unknown(error) if code(error) == 406), "{error}");
    }
    connection.close().await;
}

async fn br_19_nothing_is_confirmed_behind_a_refusal(at: At) {
    let (connection, _, queue) = queue_with(&at, &[]).await;
    let missing = unique("missing");
    let (refused, behind) = within("two on their way", async {
        loop {
            let channel = connection.open_channel().await.unwrap();
            let publisher = channel.confirm_select().await.unwrap();
            let refused = publisher.send(Publish::new(&missing, "k", b"x")).await.unwrap();
            // The refusal may be faster than this thread.
            if let Ok(behind) = publisher.send(Publish::new("", &queue, b"x")).await {
                break (refused, behind);
            }
        }
    })
    .await;
    for confirm in [refused, behind] {
        let error = within("an outcome", confirm).await.unwrap_err();
        // The second one may not have been written yet.
        let (PublishError::Unknown(cause) | PublishError::NotSent(cause)) = &error else {
            panic!("{error}")
        };
        assert_eq!(code(cause), 404);
    }
    connection.close().await;
}

async fn pk_51_pk_52_calls_without_an_answer_keep_their_place(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let names = [unique("a"), unique("b"), unique("c")];
    let declare = |name: &str| QueueDeclare::new(name).exclusive();
    let (first, (), third) = tokio::join!(
        channel.queue_declare(declare(&names[0])),
        async { channel.no_wait(declare(&names[1])).await.unwrap() },
        channel.queue_declare(declare(&names[2])),
    );
    assert_eq!((first.unwrap().queue, third.unwrap().queue), (names[0].clone(), names[2].clone()));
    for name in &names {
        channel.queue_declare(QueueDeclare::passive(name)).await.unwrap();
    }
    let (exchange, other) = (unique("e"), unique("f"));
    channel.no_wait(ExchangeDeclare::direct(&exchange)).await.unwrap();
    channel.no_wait(ExchangeDeclare::direct(&other)).await.unwrap();
    channel.no_wait(ExchangeBind::new(&other, &exchange, "k")).await.unwrap();
    channel.no_wait(QueueBind::new(&names[0], &other, "k")).await.unwrap();
    channel.basic_publish(Publish::new(&exchange, "k", b"x")).await.unwrap();
    ready(&channel, &names[0], 1).await;
    channel.no_wait(QueuePurge::new(&names[0])).await.unwrap();
    ready(&channel, &names[0], 0).await;
    for exchange in [&exchange, &other] {
        channel.no_wait(ExchangeDelete::new(exchange)).await.unwrap();
    }
    channel.no_wait(QueueDelete::new(&names[1])).await.unwrap();
    // What is refused closes the channel.
    channel.no_wait(QueueDeclare::passive(&names[1])).await.unwrap();
    let error = channel.queue_declare(QueueDeclare::passive(&names[0])).await.unwrap_err();
    assert_eq!(code(&error), 404);
    connection.close().await;
}
