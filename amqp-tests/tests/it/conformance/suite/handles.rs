//! What handles offer beside the protocol's methods: ends that can be awaited, ways from one handle to another, a
//! publisher or a consumer in one call.

use super::api::{
    self, AnswerError, At, BasicConsume, ChannelCause, CloseCause, Message, Overflow, Publish,
    PublishError, QueueDeclare, TryRecvError, TrySendError,
};
use super::at::{next, on_every_adapter, ready};
use crate::support::{exclusive, unique, within};

on_every_adapter! {
    a_publisher_is_opened_in_one_call
    a_consumer_is_opened_in_one_call
    a_consumer_in_one_call_reports_why_it_is_refused
    a_channel_reports_its_end
    a_handle_leads_to_its_channel_and_connection
    a_canceller_ends_its_consumer_from_elsewhere
    a_delivery_is_requeued_or_discarded
    a_delivery_knows_whether_it_is_stale
    trying_tells_nothing_yet_from_the_end
    trying_to_send_tells_why_there_is_no_space
    all_publishes_are_awaited_together
    names_and_messages_are_requests
    a_request_is_answered_where_it_asks
    a_delivery_counts_its_deaths
}

async fn a_publisher_is_opened_in_one_call(at: At) {
    let connection = at.connect().await;
    let publisher = connection.publisher().await.unwrap();
    assert!(publisher.is_open());
    let missing = unique("missing");
    let publish = Publish::new("", &missing, b"x").mandatory();
    let returned = publisher.publish(publish).await.unwrap_err();
    assert!(matches!(returned, PublishError::Returned(_)), "{returned:?}");
    publisher.channel().close().await.unwrap();
    assert!(!publisher.is_open() && connection.is_open());
    connection.close().await;
    assert!(connection.publisher().await.unwrap_err().is_connection());
}

async fn a_consumer_is_opened_in_one_call(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("consume")).await.unwrap();
    for body in ["1", "2", "3"] {
        channel.basic_publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    let consume = BasicConsume::new(queue.name()).prefetch(2);
    let mut consumer = connection.consume(consume).await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!((first.body(), second.body()), (b"1".as_slice(), b"2".as_slice()));
    // The prefetch holds: there is no third.
    ready(&channel, queue.name(), 1).await;
    first.ack().unwrap();
    next(&mut consumer).await.ack().unwrap();
    // Its channel goes with its last handle, and the broker takes back what is not acknowledged.
    drop((consumer, second));
    ready(&channel, queue.name(), 1).await;
    connection.close().await;
}

async fn a_consumer_in_one_call_reports_why_it_is_refused(at: At) {
    let connection = at.connect().await;
    let missing = BasicConsume::new(unique("missing"));
    let error = connection.consume(missing).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    let unsendable = BasicConsume::new("q").consumer_tag("");
    let error = connection.consume(unsendable).await.unwrap_err();
    assert!(!error.is_channel() && !error.is_connection(), "{error:?}");
    // The channels are closed.
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(exclusive("alive")).await.unwrap();
    connection.close().await;
}

async fn a_channel_reports_its_end(at: At) {
    let connection = at.connect().await;
    let [by_client, by_broker, lost] = [
        connection.open_channel().await.unwrap(),
        connection.open_channel().await.unwrap(),
        connection.open_channel().await.unwrap(),
    ];
    assert!(by_client.is_open() && by_broker.is_open());
    by_client.close().await.unwrap();
    assert_eq!(by_client.closed().await, ChannelCause::ByClient);

    // It is awaited before it happens.
    let closed = at.spawn({
        let channel = by_broker.clone();
        async move { channel.closed().await }
    });
    let missing = QueueDeclare::passive(unique("missing"));
    by_broker.queue_declare(missing).await.unwrap_err();
    let cause = within("the end of the channel", closed).await;
    let ChannelCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
    assert_eq!(error.code.code(), 404);
    assert_eq!(by_broker.close_cause(), Some(cause));
    assert!(!by_broker.is_open() && lost.is_open());

    let closed = at.spawn({
        let channel = lost.clone();
        async move { channel.closed().await }
    });
    connection.close().await;
    let cause = within("the end of the channel", closed).await;
    assert_eq!(cause, ChannelCause::Connection(CloseCause::ByClient));
}

async fn a_handle_leads_to_its_channel_and_connection(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let other = connection.open_channel().await.unwrap();
    assert!(channel.number() != other.number() && channel.number().is_some());
    let queue = channel.queue_declare(exclusive("handles")).await.unwrap();
    channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
    assert_eq!(consumer.channel().number(), channel.number());
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.channel().number(), channel.number());
    delivery.ack().unwrap();
    let publisher = other.confirm_select().await.unwrap();
    assert_eq!(publisher.channel().number(), other.number());
    let stats = channel.connection().stats();
    assert_eq!(stats.channels, connection.stats().channels);
    connection.close().await;
    assert!(!channel.connection().is_open());
}

async fn a_canceller_ends_its_consumer_from_elsewhere(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("cancelled")).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
    let canceller = consumer.canceller();
    let cancelled = at.spawn({
        let canceller = canceller.clone();
        async move { canceller.cancel().await }
    });
    assert!(within("the end", consumer.next()).await.is_none());
    within("the answer", cancelled).await.unwrap();
    // Nothing is sent where it has ended.
    canceller.cancel().await.unwrap();
    assert!(channel.is_open());
    connection.close().await;
}

async fn a_delivery_is_requeued_or_discarded(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let dead = channel.queue_declare(exclusive("dead")).await.unwrap();
    let declare = exclusive("discarded");
    let declare = declare.dead_letter_exchange("").dead_letter_routing_key(dead.name());
    let queue = channel.queue_declare(declare).await.unwrap();
    channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
    let first = next(&mut consumer).await;
    assert!(!first.redelivered());
    first.requeue().unwrap();
    let again = next(&mut consumer).await;
    assert!(again.redelivered());
    again.discard().unwrap();
    ready(&channel, dead.name(), 1).await;
    connection.close().await;
}

async fn a_delivery_knows_whether_it_is_stale(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("stale")).await.unwrap();
    for body in ["1", "2", "3", "4"] {
        channel.basic_publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert!(!first.is_stale() && !second.is_stale());
    second.ack_multiple().unwrap();
    assert!(first.is_stale(), "it was covered");
    first.ack().unwrap_err();
    let third = next(&mut consumer).await;
    assert!(!third.is_stale());
    channel.close().await.unwrap();
    assert!(third.is_stale(), "its channel has closed");
    drop((consumer, third));

    let other = connection.open_channel().await.unwrap();
    ready(&other, queue.name(), 2).await;
    let mut consumer = other.basic_consume(BasicConsume::new(queue.name()).no_ack()).await.unwrap();
    let delivery = next(&mut consumer).await;
    other.close().await.unwrap();
    assert!(!delivery.is_stale(), "it needs no acknowledgement");
    connection.close().await;
}

async fn trying_tells_nothing_yet_from_the_end(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("trying")).await.unwrap();
    let consume = || BasicConsume::new(queue.name());
    let mut consumer = channel.basic_consume(consume()).await.unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    consumer.cancel().await.unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Ended);

    let mut consumer = channel.basic_consume(consume()).await.unwrap();
    channel.queue_delete(api::QueueDelete::new(queue.name())).await.unwrap();
    let error = within("the end of the consumer", async {
        loop {
            match consumer.try_recv().unwrap_err() {
                TryRecvError::Empty => crate::support::yield_now().await,
                error => return error,
            }
        }
    })
    .await;
    assert!(matches!(error, TryRecvError::Failed(_)), "{error:?}");
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Ended, "it is reported once");
    connection.close().await;
}

/// No task runs between the sends: what is queued is not written until the first refusal on a single thread, and a
/// driver elsewhere cannot write as much as this.
async fn trying_to_send_tells_why_there_is_no_space(at: At) {
    let connection = at.connect().await;
    let publisher = connection.publisher().await.unwrap();
    let body = vec![0; 512 * 1024];
    let mut confirms = Vec::new();
    let refused = within("a refusal", async {
        loop {
            match publisher.try_send(Publish::new("", "nobody", &body)) {
                Ok(confirm) => confirms.push(confirm),
                Err(refused) => return refused,
            }
        }
    })
    .await;
    assert_eq!(refused, TrySendError::BufferFull);
    within("the confirms", async {
        for confirm in confirms {
            confirm.await.unwrap();
        }
    })
    .await;
    let confirm = publisher.try_send(Publish::new("", "nobody", &body)).unwrap();
    within("a confirm", confirm).await.unwrap();
    publisher.channel().close().await.unwrap();
    let closed = publisher.try_send(Publish::new("", "nobody", b"x")).unwrap_err();
    assert!(matches!(closed, TrySendError::Failed(PublishError::NotSent(_))), "{closed:?}");
    connection.close().await;
}

async fn all_publishes_are_awaited_together(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let full = exclusive("full").max_length(0).overflow(Overflow::RejectPublish);
    let full = channel.queue_declare(full).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    publisher.all_confirmed().await.unwrap();
    let missing = unique("missing");
    for round in 0..2 {
        for _ in 0..20 {
            drop(publisher.send(Publish::new("", &missing, b"x")).await.unwrap());
        }
        within("the answers", publisher.all_confirmed()).await.unwrap();
        let nacked = publisher.send(Publish::new("", full.name(), b"x")).await.unwrap();
        let returned = Publish::new("", &missing, b"x").mandatory();
        drop(publisher.send(returned).await.unwrap());
        let unconfirmed = within("the answers", publisher.all_confirmed()).await.unwrap_err();
        assert_eq!((unconfirmed.nacked, unconfirmed.returned), (1, 1), "in round {round}");
        assert_eq!((unconfirmed.count(), &unconfirmed.cause), (2, &None));
        // It is counted, and reported where it is awaited.
        assert_eq!(nacked.await.unwrap_err(), PublishError::Nacked);
    }
    connection.close().await;
    publisher.all_confirmed().await.unwrap();
}

async fn names_and_messages_are_requests(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = unique("named");
    channel.queue_declare(&queue).await.unwrap();
    let message = Message::new("x").to_queue(&queue).persistent();
    channel.basic_publish(&message).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(&message).await.unwrap();
    publisher.send(&message).await.unwrap().await.unwrap();
    publisher.try_send(&message).unwrap().await.unwrap();
    ready(&channel, &queue, 4).await;
    let got = channel.basic_get(&queue).await.unwrap().unwrap();
    assert_eq!(Message::try_from(got.message()).unwrap(), message);
    got.ack().unwrap();
    let mut consumer = channel.basic_consume(&queue).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    drop(consumer);
    let mut consumer = connection.consume(queue.as_str()).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    drop(consumer);
    ready(&channel, &queue, 1).await;
    assert_eq!(channel.queue_purge(&queue).await.unwrap().message_count, 1);
    channel.queue_delete(queue).await.unwrap();
    connection.close().await;
}

async fn a_request_is_answered_where_it_asks(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let requests = channel.queue_declare(exclusive("requests")).await.unwrap();
    let answers = channel.queue_declare(exclusive("answers")).await.unwrap();
    let request = Publish::to_queue(requests.name(), b"?");
    let asking = request.clone().reply_to(answers.name()).correlation_id("7");
    channel.basic_publish(asking).await.unwrap();
    channel.basic_publish(request.reply_to(answers.name())).await.unwrap();
    channel.basic_publish(Publish::to_queue(requests.name(), b"!")).await.unwrap();
    let mut consumer = channel.basic_consume(requests.name()).await.unwrap();
    let mut replies = channel.basic_consume(answers.name()).await.unwrap();
    for id in [Some("7"), None] {
        let asked = next(&mut consumer).await;
        channel.basic_publish(asked.answer(b"42").unwrap()).await.unwrap();
        asked.ack().unwrap();
        let answer = next(&mut replies).await;
        assert_eq!(answer.body(), b"42");
        assert_eq!(answer.properties().unwrap().correlation_id.as_deref(), id);
        answer.ack().unwrap();
    }
    let told = next(&mut consumer).await;
    assert_eq!(told.answer(b"42").unwrap_err(), AnswerError::NoReplyTo);
    told.ack().unwrap();
    connection.close().await;
}

async fn a_delivery_counts_its_deaths(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (work, parked) = (unique("work"), unique("parked"));
    let declare = |queue: &str, other: &str| {
        QueueDeclare::new(queue).exclusive().dead_letter_exchange("").dead_letter_routing_key(other)
    };
    channel.queue_declare(declare(&work, &parked)).await.unwrap();
    channel.queue_declare(declare(&parked, &work)).await.unwrap();
    let publish = Publish::to_queue(&work, b"x").header("x-own", 5);
    channel.basic_publish(publish).await.unwrap();
    let mut consumer = channel.basic_consume(&work).await.unwrap();
    let mut returning = channel.basic_consume(&parked).await.unwrap();
    for round in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.death_count(&work), Ok(round));
        assert_eq!(delivery.death_count("another"), Ok(0));
        assert_eq!(delivery.header("x-own").unwrap().unwrap().as_i64(), Some(5));
        assert_eq!((delivery.header("x-none"), delivery.stream_offset()), (Ok(None), None));
        delivery.discard().unwrap();
        next(&mut returning).await.discard().unwrap();
    }
    connection.close().await;
}
