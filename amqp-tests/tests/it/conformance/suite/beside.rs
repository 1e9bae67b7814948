//! Consumers beside each other, and handlers that take long: N5, N6.
//!
//! In every test one consumer has more than 8 MiB of deliveries unread, all within its prefetch.

use std::time::Duration;

use super::api::{
    At, BasicConsume, Channel, Connection, Consumer, Delivery, Error, Heartbeat, Properties,
    Publish, QueueDelete,
};
use super::at::{consumer_of, next, on_every_adapter};
use crate::support::{exclusive, sleep, within};

on_every_adapter! {
    n_5_a_handler_may_be_busy_for_longer_than_the_heartbeats
    n_5_a_busy_consumer_stops_no_other_one
    n_5_a_handler_asks_a_service_on_its_own_connection
    n_5_returns_cancels_and_closes_are_seen_beside_a_busy_consumer
    n_6_a_slow_consumer_without_acknowledgement_keeps_its_connection
}

/// Bytes of a message, as tasks have them.
const SIZES: [usize; 4] = [20_000, 50_000, 100_000, 1_000_000];

/// More than one consumer without a prefetch may have unread.
const UNREAD_BYTES: usize = 12 << 20;

/// A queue that holds `count` messages of `size` bytes.
async fn filled(connection: &Connection, channel: &Channel, size: usize, count: usize) -> String {
    let queue = channel.queue_declare(exclusive("tasks")).await.unwrap().queue;
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let body = vec![7; size];
    let mut confirms = Vec::new();
    for _ in 0..count {
        confirms.push(publisher.send(Publish::new("", &queue, &body)).await.unwrap());
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
    queue
}

/// A consumer that has read one of its tasks, and has `UNREAD_BYTES` of others unread.
struct Busy {
    consumer: Consumer,
    task: Delivery,
    left: usize,
}

impl Busy {
    async fn start(connection: &Connection, size: usize) -> Self {
        let channel = connection.open_channel().await.unwrap();
        let count = UNREAD_BYTES / size + 2;
        let queue = filled(connection, &channel, size, count).await;
        let consume = BasicConsume::new(&queue).prefetch(count as u16);
        let mut consumer = channel.basic_consume(consume).await.unwrap();
        let task = next(&mut consumer).await;
        within("the tasks", async {
            // Nothing is awaited meanwhile that would keep reading going.
            while connection.stats().delivered < count as u64 {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        Self { consumer, task, left: count - 1 }
    }

    /// The handler is done, and does the rest.
    async fn finish(mut self) {
        self.task.ack().unwrap();
        for _ in 0..self.left {
            next(&mut self.consumer).await.ack().unwrap();
        }
    }
}

/// RabbitMQ ends a connection on which it cannot write for about its heartbeat timeout.
async fn n_5_a_handler_may_be_busy_for_longer_than_the_heartbeats(at: At) {
    for size in SIZES {
        let connection = at.open(|it| it.heartbeat(Heartbeat::Seconds(2))).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        // More than the prefetch and the sockets hold.
        let count = 2 * UNREAD_BYTES / size;
        let queue = filled(&connection, &channel, size, count).await;
        let consume = BasicConsume::new(&queue).prefetch(count as u16 / 2);
        let mut consumer = channel.basic_consume(consume).await.unwrap();
        let task = next(&mut consumer).await;
        at.pause(Duration::from_secs(8)).await;
        assert!(connection.is_open(), "{size}: {:?}", connection.close_cause());
        task.ack().unwrap();
        for _ in 1..count {
            let task = next(&mut consumer).await;
            assert!(!task.redelivered(), "{size}");
            task.ack().unwrap();
        }
        connection.close().await;
    }
}

async fn n_5_a_busy_consumer_stops_no_other_one(at: At) {
    for size in SIZES {
        let connection = at.connect().await;
        let busy = Busy::start(&connection, size).await;
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("other")).await.unwrap().queue;
        let mut other = consumer_of(&channel, &queue).await;
        let publishing = at.connect().await;
        let publisher = publishing.open_channel().await.unwrap();
        for _ in 0..20 {
            publisher.basic_publish(Publish::new("", &queue, vec![1; size])).await.unwrap();
            next(&mut other).await.ack().unwrap();
        }
        busy.finish().await;
        publishing.close().await;
        connection.close().await;
    }
}

/// The service is another program; the reply comes directly, to a consumer without acknowledgement.
async fn n_5_a_handler_asks_a_service_on_its_own_connection(at: At) {
    for size in SIZES {
        let service = at.connect().await;
        let serving = service.open_channel().await.unwrap();
        let requests = serving.queue_declare(exclusive("requests")).await.unwrap().queue;
        let mut server = consumer_of(&serving, &requests).await;
        let served = at.spawn(async move {
            for _ in 0..3 {
                let request = next(&mut server).await;
                let address = request.properties().unwrap().reply_to.unwrap();
                serving.basic_publish(Publish::new("", &address, b"answer")).await.unwrap();
                request.ack().unwrap();
            }
            service
        });

        let connection = at.connect().await;
        let asking = connection.open_channel().await.unwrap();
        let consume = BasicConsume::new("amq.rabbitmq.reply-to").no_ack();
        let mut replies = asking.basic_consume(consume).await.unwrap();
        let busy = Busy::start(&connection, size).await;
        for _ in 0..3 {
            let properties = Properties::new().reply_to("amq.rabbitmq.reply-to");
            let request = Publish::new("", &requests, b"question").properties(&properties);
            asking.basic_publish(request).await.unwrap();
            assert_eq!(next(&mut replies).await.body(), b"answer");
        }
        busy.finish().await;
        connection.close().await;
        served.await.close().await;
    }
}

async fn n_5_returns_cancels_and_closes_are_seen_beside_a_busy_consumer(at: At) {
    for size in SIZES {
        let connection = at.connect().await;
        let busy = Busy::start(&connection, size).await;
        let channel = connection.open_channel().await.unwrap();
        channel.basic_publish(Publish::new("", "nowhere", b"x").mandatory()).await.unwrap();
        let returned = within("what came back", channel.returned()).await.unwrap();
        assert_eq!(returned.message.body(), b"x");

        let queue = channel.queue_declare(exclusive("deleted")).await.unwrap().queue;
        let mut other = consumer_of(&channel, &queue).await;
        let deleting = connection.open_channel().await.unwrap();
        deleting.queue_delete(QueueDelete::new(&queue)).await.unwrap();
        let end = within("the cancel", other.next()).await.unwrap();
        assert!(matches!(end, Err(Error::ConsumerCancelled { .. })), "{end:?}");

        // A publish that the broker answers by closing the channel.
        channel.basic_publish(Publish::new("no such exchange", "", b"x")).await.unwrap();
        let closed = within("the close", channel.returned()).await.unwrap_err();
        assert_eq!(closed.reply_code().unwrap().code(), 404);
        busy.finish().await;
        connection.close().await;
    }
}

/// What no prefetch bounds pauses reading, but never for as long as RabbitMQ bears.
async fn n_6_a_slow_consumer_without_acknowledgement_keeps_its_connection(at: At) {
    let size = 100_000;
    let count = 400;
    let connection = at.open(|it| it.heartbeat(Heartbeat::Seconds(2))).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = filled(&connection, &channel, size, count).await;
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue).no_ack()).await.unwrap();
    drop(next(&mut consumer).await);
    at.pause(Duration::from_secs(8)).await;
    assert!(connection.is_open(), "{:?}", connection.close_cause());
    within("interruptions of the pause", async {
        while connection.stats().unread_bytes <= 9 << 20 {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    for _ in 1..count {
        drop(next(&mut consumer).await);
    }
    connection.close().await;
}
