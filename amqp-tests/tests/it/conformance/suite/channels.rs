use std::sync::Arc;

use super::api::{
    self, At, CloseCause, Error, ExchangeDeclare, ExchangeDelete, Misuse, Publish, PublishError,
    QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};
use super::at::on_every_adapter;

use crate::support::{exclusive, unique, within};

on_every_adapter! {
    a_refused_declaration_closes_one_channel_and_is_repeated
    na_10_a_server_named_queue_tells_its_name
    exchanges_and_queues_come_and_go
    bindings_and_messages_are_taken_away
    na_11_concurrent_calls_get_their_own_answers
    a_dropped_channel_is_closed
    na_7_numbers_run_out_locally
    pk_23_closing_twice_is_fine
    na_33_dropping_the_last_handle_closes_the_connection
    everything_queued_goes_out_before_a_close
}

async fn a_refused_declaration_closes_one_channel_and_is_repeated(at: At) {
    let connection = at.connect().await;
    let other = connection.open_channel().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let missing = unique("missing");
    for _ in 0..3 {
        let error = channel.queue_declare(QueueDeclare::passive(&missing)).await.unwrap_err();
        assert!(error.is_channel() && !error.is_connection());
        let broker = error.broker_error().unwrap();
        assert_eq!(broker.code.code(), 404);
        assert_eq!(broker.method.unwrap().to_string(), "queue.declare");
        assert!(broker.text.contains(&missing), "{broker}");
    }
    let error = channel.basic_publish(Publish::new("", "q", b"x")).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    assert!(channel.close_cause().is_some());
    channel.close().await.unwrap();
    other.queue_declare(exclusive("alive")).await.unwrap();
    assert!(connection.is_open());
    connection.close().await;
}

async fn na_10_a_server_named_queue_tells_its_name(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await.unwrap();
    assert!(queue.name().starts_with("amq.gen-"), "{}", queue.name());
    assert_eq!((queue.message_count, queue.consumer_count), (0, 0));
    connection.close().await;
}

async fn exchanges_and_queues_come_and_go(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (exchange, queue) = (unique("exchange"), unique("queue"));
    channel.exchange_declare(ExchangeDeclare::direct(&exchange).durable()).await.unwrap();
    channel.exchange_declare(ExchangeDeclare::direct(&exchange).durable()).await.unwrap();
    channel.exchange_declare(ExchangeDeclare::passive(&exchange)).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&queue).durable()).await.unwrap();
    channel.queue_bind(QueueBind::new(&queue, &exchange, "k")).await.unwrap();
    channel.basic_publish(Publish::new(&exchange, "k", b"bound")).await.unwrap();
    channel.basic_publish(Publish::new(&exchange, "other", b"not bound")).await.unwrap();
    let error = channel.exchange_delete(ExchangeDelete::new(&exchange).if_unused()).await;
    assert_eq!(error.unwrap_err().reply_code().unwrap().code(), 406);

    let channel = connection.open_channel().await.unwrap();
    let error = channel.queue_delete(QueueDelete::new(&queue).if_empty()).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 406);
    let channel = connection.open_channel().await.unwrap();
    let deleted = channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
    assert_eq!(deleted.message_count, 1);
    channel.exchange_delete(ExchangeDelete::new(&exchange).if_unused()).await.unwrap();
    let error = channel.exchange_declare(ExchangeDeclare::passive(&exchange)).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    connection.close().await;
}

async fn bindings_and_messages_are_taken_away(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let exchange = unique("exchange");
    channel.exchange_declare(ExchangeDeclare::direct(&exchange)).await.unwrap();
    let queue = channel.queue_declare(exclusive("unbound")).await.unwrap();
    let binding = QueueBind::new(queue.name(), &exchange, "k");
    channel.queue_bind(binding.clone()).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let publish = || publisher.publish(Publish::new(&exchange, "k", b"x").mandatory());
    publish().await.unwrap();
    publish().await.unwrap();
    channel.queue_unbind(binding.clone()).await.unwrap();
    // What is not there is unbound all the same.
    channel.queue_unbind(binding).await.unwrap();
    assert!(matches!(publish().await, Err(PublishError::Returned(_))));
    let purged = channel.queue_purge(QueuePurge::new(queue.name())).await.unwrap();
    assert_eq!(purged.message_count, 2);
    let error = channel.queue_purge(QueuePurge::new(unique("missing"))).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    connection.close().await;
}

/// NA-11: answers are told apart by their order alone.
async fn na_11_concurrent_calls_get_their_own_answers(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let mut names = Vec::new();
    for count in 0..100_usize {
        let queue = channel.queue_declare(exclusive("counted")).await.unwrap();
        for _ in 0..count % 10 {
            publisher.publish(Publish::new("", queue.name(), b"x")).await.unwrap();
        }
        names.push((queue.queue, (count % 10) as u32));
    }
    let tasks: Vec<_> = names
        .into_iter()
        .map(|(name, count)| {
            let channel = channel.clone();
            at.spawn(async move {
                let declared = channel.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
                assert_eq!((declared.queue, declared.message_count), (name, count));
            })
        })
        .collect();
    for task in tasks {
        within("an answer", task).await;
    }
    connection.close().await;
}

async fn a_dropped_channel_is_closed(at: At) {
    let connection = at.open(|config| config.channel_max(1)).await.unwrap();
    for _ in 0..20 {
        // The number is free only when the channel before has closed on both sides.
        let channel = within("a number", async {
            loop {
                match connection.open_channel().await {
                    Ok(channel) => break channel,
                    Err(Error::Misuse(Misuse::NoFreeChannels { .. })) => {
                        crate::support::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        drop(channel);
    }
    connection.close().await;
}

async fn na_7_numbers_run_out_locally(at: At) {
    let connection = at.open(|config| config.channel_max(3)).await.unwrap();
    assert_eq!(connection.tuning().channel_max, 3);
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(connection.open_channel().await.unwrap());
    }
    let error = connection.open_channel().await.unwrap_err();
    let by_broker = false;
    assert_eq!(error, Error::Misuse(Misuse::NoFreeChannels { channel_max: 3, by_broker }));
    channels.pop().unwrap().close().await.unwrap();
    connection.open_channel().await.unwrap();
    connection.close().await;
}

async fn pk_23_closing_twice_is_fine(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (first, second) = tokio::join!(channel.close(), channel.close());
    first.unwrap();
    second.unwrap();
    channel.close().await.unwrap();
    let error = channel.queue_declare(exclusive("late")).await.unwrap_err();
    assert_eq!(error.to_string(), "channel closed: by this client");

    let (first, second) = tokio::join!(connection.close(), connection.close());
    assert_eq!((first, second), (CloseCause::ByClient, CloseCause::ByClient));
    assert_eq!(connection.close().await, CloseCause::ByClient);
    assert_eq!(connection.closed().await, CloseCause::ByClient);
    assert_eq!(connection.close_cause(), Some(CloseCause::ByClient));
    let error = connection.open_channel().await.unwrap_err();
    assert_eq!(error, Error::Connection(CloseCause::ByClient));
    let error = channel.queue_declare(exclusive("late")).await.unwrap_err();
    assert!(matches!(error, Error::Channel(_)), "the channel was closed first: {error:?}");
}

async fn na_33_dropping_the_last_handle_closes_the_connection(at: At) {
    let watcher = at.connect().await;
    let watching = watcher.open_channel().await.unwrap();
    let name = unique("goes-with-its-connection");
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::new(&name).exclusive()).await.unwrap();
    let passing = unique("goes-with-its-consumer");
    channel.queue_declare(QueueDeclare::new(&passing).auto_delete()).await.unwrap();
    let consume = api::BasicConsume::new(&passing);
    let consumer = channel.basic_consume(consume).await.unwrap();
    let still_held = Arc::new(channel.clone());
    drop((connection, channel, consumer));
    still_held.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
    drop(still_held);
    // The exclusive name is free as soon as the connection is gone.
    within("the end of the connection", async {
        let mut watching = watching;
        while watching.queue_declare(QueueDeclare::new(&name).exclusive()).await.is_err() {
            watching = watcher.open_channel().await.unwrap();
        }
        let error = watching.queue_declare(QueueDeclare::passive(&passing)).await.unwrap_err();
        assert_eq!(error.reply_code().unwrap().code(), 404);
    })
    .await;
    watcher.close().await;
}

async fn everything_queued_goes_out_before_a_close(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let name = unique("flushed");
    channel.queue_declare(QueueDeclare::new(&name)).await.unwrap();
    let large = vec![0; 3 << 20];
    for body in [&large[..], b"1", &large, b"2"] {
        channel.basic_publish(Publish::new("", &name, body)).await.unwrap();
    }
    assert_eq!(connection.close().await, CloseCause::ByClient);
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    assert_eq!(channel.queue_delete(QueueDelete::new(&name)).await.unwrap().message_count, 4);
    connection.close().await;
}
