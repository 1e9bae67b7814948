use std::time::Duration;

use super::api::{
    self, AckError, At, BasicConsume, BasicGet, BasicQos, Delivery, Error, Misuse, Properties,
    Publish, QueueBind, QueueDeclare, QueueDelete, limits,
};
use super::at::{Scene, consumer_of, next, on_every_adapter, publish, ready};

use crate::support::{exclusive, within};

on_every_adapter! {
    pk_71_cancelling_gives_back_what_was_not_taken
    pk_70_unacknowledged_messages_are_restored_others_are_not
    pk_70_two_consumers_share_a_channel
    na_23_pk_58_pk_74_messages_are_got_one_by_one
    deliveries_come_in_order
    a_nacked_message_is_redelivered
    na_21_a_rejected_message_is_gone
    prefetch_limits_what_is_unacknowledged
    multiple_acks_all_up_to_it
    no_ack_needs_no_acknowledgement
    reading_pauses_for_a_slow_consumer_and_goes_on
    na_18_a_cancelled_consumer_ends_after_what_was_sent
    a_dropped_consumer_gives_back_what_was_not_taken
    na_19_a_deleted_queue_ends_its_consumer_with_the_reason
    pk_56_a_duplicate_tag_is_refused_locally
    a_delivery_outlives_its_channel_and_is_stale
    deliveries_are_acked_from_any_thread
    na_21_a_delivery_cancels_its_consumer
    pk_57_a_cancel_at_the_first_message_leaves_the_others
    na_22_a_reply_goes_where_its_message_went
    br_5_a_running_consumer_heeds_the_channels_prefetch_alone
    br_31_replies_come_directly
    acking_twice_and_dropping_do_no_harm
}

async fn deliveries_come_in_order(at: At) {
    let Scene { connection, channel, queue } = at.scene("order").await;
    let bodies: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    publish(&channel, queue.name(), bodies.iter().map(String::as_str)).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    for body in &bodies {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body(), body.as_bytes());
        delivery.ack().unwrap();
    }
    ready(&channel, queue.name(), 0).await;
    connection.close().await;
}

async fn a_nacked_message_is_redelivered(at: At) {
    let Scene { connection, channel, queue } = at.scene("nack").await;
    publish(&channel, queue.name(), ["again"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let first = next(&mut consumer).await;
    let first_tag = first.tag().number();
    first.nack(true).unwrap();
    let second = next(&mut consumer).await;
    assert!(second.redelivered() && second.tag().number() > first_tag);
    assert_eq!(second.body(), b"again");
    second.ack().unwrap();
    ready(&channel, queue.name(), 0).await;
    connection.close().await;
}

async fn na_21_a_rejected_message_is_gone(at: At) {
    let Scene { connection, channel, queue } = at.scene("reject").await;
    publish(&channel, queue.name(), ["back", "gone", "gone too"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let [back, gone, gone_too] =
        [next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    gone.reject(false).unwrap();
    gone_too.nack(false).unwrap();
    back.reject(true).unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.body(), again.redelivered()), (b"back".as_slice(), true));
    drop(again);
    channel.close().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    ready(&channel, queue.name(), 1).await;
    connection.close().await;
}

async fn prefetch_limits_what_is_unacknowledged(at: At) {
    let Scene { connection, channel, queue } = at.scene("prefetch").await;
    publish(&channel, queue.name(), ["1", "2", "3", "4", "5"]).await;
    channel.basic_qos(BasicQos::new(7)).await.unwrap();
    let consume = BasicConsume::new(queue.name()).prefetch(2);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    ready(&channel, queue.name(), 3).await;
    first.ack().unwrap();
    let third = next(&mut consumer).await;
    assert_eq!(third.body(), b"3");
    ready(&channel, queue.name(), 2).await;
    drop((second, third));
    connection.close().await;
}

async fn multiple_acks_all_up_to_it(at: At) {
    let Scene { connection, channel, queue } = at.scene("multiple").await;
    publish(&channel, queue.name(), ["1", "2", "3", "4", "5", "6"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let mut deliveries = Vec::new();
    for _ in 0..6 {
        deliveries.push(next(&mut consumer).await);
    }
    let mut deliveries = deliveries.into_iter();
    deliveries.nth(2).unwrap().ack_multiple().unwrap();
    deliveries.nth(1).unwrap().nack_multiple(true).unwrap();
    for body in ["4", "5"] {
        let again = next(&mut consumer).await;
        assert_eq!((again.body(), again.redelivered()), (body.as_bytes(), true));
    }
    connection.close().await;
}

async fn no_ack_needs_no_acknowledgement(at: At) {
    let Scene { connection, channel, queue } = at.scene("no-ack").await;
    publish(&channel, queue.name(), ["1", "2", "3"]).await;
    let consume = BasicConsume::new(queue.name()).no_ack().prefetch(1);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    drop(next(&mut consumer).await);
    next(&mut consumer).await.nack(true).unwrap();
    channel.close().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    ready(&channel, queue.name(), 0).await;
    connection.close().await;
}

/// 32 MB for a consumer that does not read: 8 MiB are taken in, the rest waits.
async fn reading_pauses_for_a_slow_consumer_and_goes_on(at: At) {
    const MESSAGES: u32 = 4_000;
    let watcher = at.connect().await;
    let watching = watcher.open_channel().await.unwrap();
    let name = crate::support::unique("slow");
    watching.queue_declare(QueueDeclare::new(&name)).await.unwrap();
    let publisher = watcher.open_channel().await.unwrap().confirm_select().await.unwrap();
    let body = vec![1; 8_000];
    let mut confirms = Vec::new();
    for _ in 0..MESSAGES {
        confirms.push(publisher.send(Publish::new("", &name, &body)).await.unwrap());
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let consume = BasicConsume::new(&name).no_ack();
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let mark = limits::INBOUND_HIGH_BYTES;
    within("a pause", async {
        while (connection.stats().unread_bytes as usize) < mark {
            crate::support::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    // Until nothing more leaves the queue.
    let (mut count, mut unchanged) = (MESSAGES, 0);
    while unchanged < 50 {
        crate::support::sleep(Duration::from_millis(2)).await;
        let passive = QueueDeclare::passive(&name);
        let ready = watching.queue_declare(passive).await.unwrap().message_count;
        unchanged = if ready == count { unchanged + 1 } else { 0 };
        count = ready;
    }
    // What else has left the queue is in the sockets, whose buffers the system makes as large as it likes.
    let unread = connection.stats().unread_bytes as usize;
    assert!(unread < mark + (256 << 10), "{unread} bytes are unread");
    for _ in 0..MESSAGES {
        assert_eq!(next(&mut consumer).await.body().len(), 8_000);
    }
    watching.queue_delete(QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
    watcher.close().await;
}

async fn na_18_a_cancelled_consumer_ends_after_what_was_sent(at: At) {
    let Scene { connection, channel, queue } = at.scene("cancel").await;
    publish(&channel, queue.name(), ["1", "2"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    next(&mut consumer).await.ack().unwrap();
    consumer.cancel().await.unwrap();
    publish(&channel, queue.name(), ["3"]).await;
    consumer.cancel().await.unwrap();
    let rest = next(&mut consumer).await;
    assert_eq!(rest.body(), b"2");
    rest.ack().unwrap();
    assert!(consumer.next().await.is_none());
    assert!(consumer.next().await.is_none());
    ready(&channel, queue.name(), 1).await;
    connection.close().await;
}

async fn a_dropped_consumer_gives_back_what_was_not_taken(at: At) {
    let Scene { connection, channel, queue } = at.scene("drop").await;
    publish(&channel, queue.name(), ["1", "2", "3", "4"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let kept = next(&mut consumer).await;
    drop(consumer);
    let mut another = consumer_of(&channel, queue.name()).await;
    for body in ["2", "3", "4"] {
        let delivery = next(&mut another).await;
        assert_eq!(delivery.body(), body.as_bytes());
        delivery.ack().unwrap();
    }
    kept.ack().unwrap();
    let declared = channel.queue_declare(QueueDeclare::passive(queue.name())).await.unwrap();
    assert_eq!((declared.message_count, declared.consumer_count), (0, 1));
    connection.close().await;
}

async fn na_19_a_deleted_queue_ends_its_consumer_with_the_reason(at: At) {
    let Scene { connection, channel, queue } = at.scene("deleted").await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    publish(&channel, queue.name(), ["unread"]).await;
    next(&mut consumer).await.ack().unwrap();
    let deleted = channel.queue_delete(QueueDelete::new(queue.name())).await.unwrap();
    assert_eq!(deleted.message_count, 0);
    let end = within("the end", consumer.next()).await.unwrap();
    let Err(Error::ConsumerCancelled { queue: name, consumer_tag }) = end else {
        panic!("{end:?}")
    };
    assert_eq!((&*name, &*consumer_tag), (queue.name(), consumer.tag()));
    assert!(consumer.next().await.is_none());
    // A second delete finds nothing, which RabbitMQ does not mind.
    channel.queue_delete(QueueDelete::new(queue.name())).await.unwrap();
    // The channel is as it was, and the tag is free: the cancel was answered as the broker wants it.
    let queue = channel.queue_declare(exclusive("deleted")).await.unwrap();
    let consume = BasicConsume::new(queue.name()).consumer_tag(&*consumer_tag);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    publish(&channel, queue.name(), ["again"]).await;
    next(&mut consumer).await.ack().unwrap();
    connection.close().await;
}

/// BR-13: RabbitMQ would close the connection.
async fn pk_56_a_duplicate_tag_is_refused_locally(at: At) {
    let Scene { connection, channel, queue } = at.scene("tag").await;
    let consume = BasicConsume::new(queue.name()).consumer_tag("mine");
    let first = channel.basic_consume(consume.clone()).await.unwrap();
    assert_eq!(first.tag(), "mine");
    let error = channel.basic_consume(consume.clone()).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::DuplicateConsumerTag));
    let other = connection.open_channel().await.unwrap();
    drop(other.basic_consume(consume).await.unwrap());
    connection.close().await;
}

async fn a_delivery_outlives_its_channel_and_is_stale(at: At) {
    let Scene { connection, channel, queue } = at.scene("stale").await;
    publish(&channel, queue.name(), ["1", "2"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let [first, second] = [next(&mut consumer).await, next(&mut consumer).await];
    channel.close().await.unwrap();
    let error = first.ack().unwrap_err();
    assert!(matches!(error, AckError::Stale(Error::Channel(_))), "{error:?}");
    assert!(consumer.next().await.is_none(), "closed from here, so it ends without an error");
    connection.close().await;
    let error = second.nack(true).unwrap_err();
    assert!(matches!(error, AckError::Stale(_)), "{error:?}");
}

async fn deliveries_are_acked_from_any_thread(at: At) {
    let Scene { connection, channel, queue } = at.scene("threads").await;
    publish(&channel, queue.name(), ["x"; 300]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let (hand_over, deliveries) = std::sync::mpsc::channel::<Delivery>();
    let worker = std::thread::spawn(move || deliveries.iter().map(|it| it.ack().unwrap()).count());
    for _ in 0..300 {
        hand_over.send(next(&mut consumer).await).unwrap();
    }
    drop(hand_over);
    assert_eq!(worker.join().unwrap(), 300);
    drop(consumer);
    channel.close().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    ready(&channel, queue.name(), 0).await;
    connection.close().await;
}

/// NA-21: a delivery knows its consumer.
async fn na_21_a_delivery_cancels_its_consumer(at: At) {
    let Scene { connection, channel, queue } = at.scene("enough").await;
    publish(&channel, queue.name(), ["1", "2", "3"]).await;
    let consume = BasicConsume::new(queue.name()).prefetch(1);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let delivery = next(&mut consumer).await;
    api::cancel_consumer(&delivery).await.unwrap();
    delivery.ack().unwrap();
    assert!(consumer.next().await.is_none());
    ready(&channel, queue.name(), 2).await;
    let got = channel.basic_get(queue.name()).await.unwrap().unwrap();
    api::cancel_consumer(&got).await.unwrap();
    got.ack().unwrap();
    connection.close().await;
}

/// PK-57: what comes while the cancel is on its way goes back.
async fn pk_57_a_cancel_at_the_first_message_leaves_the_others(at: At) {
    let Scene { connection, channel, queue } = at.scene("hundred").await;
    publish(&channel, queue.name(), ["x"; 100]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    next(&mut consumer).await.ack().unwrap();
    drop(consumer);
    ready(&channel, queue.name(), 99).await;
    let got = channel.basic_get(queue.name()).await.unwrap().unwrap();
    got.ack().unwrap();
    assert_eq!(connection.stats().unacked, 0);
    connection.close().await;
}

/// NA-22: to where the message came from.
async fn na_22_a_reply_goes_where_its_message_went(at: At) {
    let Scene { connection, channel, queue } = at.scene("echo").await;
    let key = crate::support::unique("echo");
    channel.queue_bind(QueueBind::new(queue.name(), "amq.topic", &key)).await.unwrap();
    channel.basic_publish(Publish::new("amq.topic", &key, b"question")).await.unwrap();
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let question = next(&mut consumer).await;
    channel.basic_publish(question.publish_again(b"answer").unwrap()).await.unwrap();
    question.ack().unwrap();
    let answer = next(&mut consumer).await;
    assert_eq!((answer.body(), answer.routing_key().as_bytes()), (&b"answer"[..], key.as_bytes()));
    answer.ack().unwrap();
    connection.close().await;
}

/// BR-5: a prefetch is for consumers to come, unless it is the channel's.
async fn br_5_a_running_consumer_heeds_the_channels_prefetch_alone(at: At) {
    let connection = at.connect().await;
    for global in [false, true] {
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("qos")).await.unwrap();
        let qos = |count| if global { BasicQos::new(count).global() } else { BasicQos::new(count) };
        channel.basic_qos(qos(1)).await.unwrap();
        let own = if global { 0 } else { 1 };
        let consume = BasicConsume::new(queue.name()).prefetch(own);
        let mut consumer = channel.basic_consume(consume).await.unwrap();
        publish(&channel, queue.name(), ["1", "2"]).await;
        let first = next(&mut consumer).await;
        channel.basic_qos(qos(2)).await.unwrap();
        if global {
            drop(next(&mut consumer).await);
        } else {
            assert!(api::is_silent(&mut consumer, Duration::from_millis(300)).await);
        }
        first.ack().unwrap();
        channel.close().await.unwrap();
    }
    connection.close().await;
}

/// BR-31: requests and replies without a queue of replies.
async fn br_31_replies_come_directly(at: At) {
    let connection = at.connect().await;
    let serving = connection.open_channel().await.unwrap();
    let requests = serving.queue_declare(exclusive("requests")).await.unwrap().queue;
    let mut server = consumer_of(&serving, &requests).await;
    let asking = connection.open_channel().await.unwrap();
    let consume = BasicConsume::new("amq.rabbitmq.reply-to").no_ack();
    let mut replies = asking.basic_consume(consume).await.unwrap();
    for number in 0..3 {
        let properties =
            Properties::new().reply_to("amq.rabbitmq.reply-to").correlation_id(number.to_string());
        let publish = Publish::new("", &requests, b"ask").properties(&properties);
        asking.basic_publish(publish.mandatory()).await.unwrap();
        let request = next(&mut server).await;
        let asked = request.properties().unwrap();
        let address = asked.reply_to.unwrap();
        assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
        let answer = Properties::new().correlation_id(asked.correlation_id.unwrap());
        let publish = Publish::new("", &address, b"answer").properties(&answer);
        serving.basic_publish(publish.mandatory()).await.unwrap();
        request.ack().unwrap();
        let reply = next(&mut replies).await;
        assert_eq!(reply.properties().unwrap().correlation_id, Some(number.to_string()));
    }
    // Before RabbitMQ 4 a mandatory reply comes back though it has arrived: no queue has taken it.
    let returned = if at.version() < (4, 0) { 3 } else { 0 };
    for _ in 0..returned {
        let returned = within("a returned reply", serving.returned()).await.unwrap();
        assert_eq!(returned.message.body(), b"answer");
    }
    serving.basic_qos(BasicQos::new(0)).await.unwrap();
    assert!(serving.take_returned().is_none());
    // Beside them, deliveries that count.
    let mut beside = asking.basic_consume(BasicConsume::new(&requests).priority(1)).await.unwrap();
    publish(&asking, &requests, ["1", "2"]).await;
    next(&mut beside).await.ack().unwrap();
    next(&mut beside).await.ack().unwrap();
    // With acknowledgement it is refused.
    let other = connection.open_channel().await.unwrap();
    let consume = BasicConsume::new("amq.rabbitmq.reply-to");
    let error = other.basic_consume(consume).await.unwrap_err();
    assert_eq!(crate::support::code(&error), 406);
    connection.close().await;
}

/// N3, N4: what RabbitMQ would close the channel for, and what is dropped.
async fn acking_twice_and_dropping_do_no_harm(at: At) {
    let Scene { connection, channel, queue } = at.scene("once").await;
    publish(&channel, queue.name(), ["1", "2", "3"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let [first, second, third] =
        [next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    let (first_tag, third_tag) = (first.tag(), third.tag());
    second.ack_multiple().unwrap();
    assert_eq!(first.ack(), Err(AckError::AlreadyAcked(first_tag.number())));
    drop(third);
    channel.basic_nack(third_tag, false, true).unwrap();
    assert_eq!(
        channel.basic_reject(third_tag, true),
        Err(AckError::AlreadyAcked(third_tag.number()))
    );
    let again = next(&mut consumer).await;
    assert!(again.redelivered());
    again.ack().unwrap();
    drop(consumer);
    publish(&channel, queue.name(), ["4"]).await;
    let consume = BasicConsume::new(queue.name()).requeue_on_drop();
    let mut careful = channel.basic_consume(consume).await.unwrap();
    drop(next(&mut careful).await);
    let requeued = next(&mut careful).await;
    assert!(requeued.redelivered());
    requeued.ack().unwrap();
    assert_eq!(connection.stats().dropped, 1);
    connection.close().await;
}

async fn na_23_pk_58_pk_74_messages_are_got_one_by_one(at: At) {
    let Scene { connection, channel, queue } = at.scene("get").await;
    assert!(channel.basic_get(queue.name()).await.unwrap().is_none());
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let large = vec![7; 300_000];
    for body in [&large[..], b""] {
        publisher.publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    let first = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert!(first.body() == large && first.routing_key() == *queue.name());
    let second = channel.basic_get(BasicGet::new(queue.name()).no_ack()).await.unwrap().unwrap();
    assert_eq!((first.message_count(), second.message_count()), (Some(1), Some(0)));
    assert_eq!((second.body(), second.consumer_tag()), (&[][..], ""));
    second.ack().unwrap();
    assert!(channel.basic_get(queue.name()).await.unwrap().is_none());
    first.nack(true).unwrap();
    let again = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert!(again.redelivered() && again.body() == large);
    again.ack().unwrap();
    let missing = crate::support::unique("missing");
    let error = channel.basic_get(missing.as_str()).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    connection.close().await;
}

/// PK-71, PK-73: with the true number.
async fn pk_71_cancelling_gives_back_what_was_not_taken(at: At) {
    let Scene { connection, channel, queue } = at.scene("given-back").await;
    publish(&channel, queue.name(), ["1", "2", "3"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    next(&mut consumer).await.ack().unwrap();
    while connection.stats().delivered < 3 {
        crate::support::yield_now().await;
    }
    assert_eq!(consumer.cancel_and_requeue().await.unwrap(), 2);
    assert!(consumer.next().await.is_none());
    ready(&channel, queue.name(), 2).await;
    // Without acknowledgement nothing can be given back: what had come still comes.
    let no_ack = BasicConsume::new(queue.name()).no_ack();
    let mut consumer = channel.basic_consume(no_ack).await.unwrap();
    while connection.stats().delivered < 5 {
        crate::support::yield_now().await;
    }
    assert_eq!(consumer.cancel_and_requeue().await.unwrap(), 0);
    let rest = [next(&mut consumer).await, next(&mut consumer).await];
    assert_eq!([rest[0].body(), rest[1].body()], [b"2", b"3"]);
    assert!(consumer.next().await.is_none());
    connection.close().await;
    assert_eq!(consumer.cancel_and_requeue().await.unwrap(), 0, "it has ended");
}

async fn pk_70_unacknowledged_messages_are_restored_others_are_not(at: At) {
    let connection = at.connect().await;
    for (no_ack, left) in [(false, 2), (true, 0)] {
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("restored")).await.unwrap();
        publish(&channel, queue.name(), ["1", "2"]).await;
        let consume = BasicConsume::new(queue.name());
        let consume = if no_ack { consume.no_ack() } else { consume };
        let mut consumer = channel.basic_consume(consume).await.unwrap();
        drop([next(&mut consumer).await, next(&mut consumer).await]);
        channel.close().await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        ready(&channel, queue.name(), left).await;
        if left > 0 {
            let again = channel.basic_get(queue.name()).await.unwrap().unwrap();
            assert!(again.redelivered());
        }
    }
    connection.close().await;
}

async fn pk_70_two_consumers_share_a_channel(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let one = channel.queue_declare(exclusive("one")).await.unwrap();
    let other = channel.queue_declare(exclusive("other")).await.unwrap();
    let mut first = consumer_of(&channel, one.name()).await;
    let mut second = consumer_of(&channel, other.name()).await;
    assert_ne!(first.tag(), second.tag());
    publish(&channel, other.name(), ["other"]).await;
    publish(&channel, one.name(), ["one"]).await;
    for (consumer, body) in [(&mut first, "one"), (&mut second, "other")] {
        let delivery = next(consumer).await;
        assert_eq!((delivery.body(), delivery.consumer_tag()), (body.as_bytes(), consumer.tag()));
        delivery.ack().unwrap();
    }
    first.cancel().await.unwrap();
    publish(&channel, other.name(), ["still"]).await;
    next(&mut second).await.ack().unwrap();
    connection.close().await;
}
