use super::api::{
    At, BasicConsume, Error, ExchangeDeclare, FieldTable, Misuse, Properties, Publish,
    PublishError, QueueBind, QueueDeclare,
};
use super::at::{Scene, consumer_of, next, on_every_adapter};
use bytes::Bytes;

use crate::support::{exclusive, unique, within};

on_every_adapter! {
    pk_69_confirms_that_begin_behind_an_unroutable_message_are_their_own
    na_20_a_confirmed_message_arrives_as_it_was_sent
    pk_106_bodies_of_every_size_arrive_whole
    a_mandatory_message_without_a_queue_comes_back
    a_request_without_a_queue_comes_back
    an_unconfirmed_mandatory_message_comes_back_too
    a_missing_exchange_closes_the_channel_and_says_so
    pk_105_pk_113_what_cannot_be_sent_is_refused_whole
    a_second_select_gives_another_publisher
    na_30_a_large_body_keeps_no_other_channel_waiting
    h3_a_close_in_the_middle_of_a_content_costs_the_channel_alone
}

super::api::on_model_over_tls! {
    na_30_a_large_body_keeps_no_other_channel_waiting
}

async fn na_20_a_confirmed_message_arrives_as_it_was_sent(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let exchange = unique("direct");
    channel.exchange_declare(ExchangeDeclare::direct(&exchange)).await.unwrap();
    let queue = channel.queue_declare(exclusive("arrives")).await.unwrap();
    channel.queue_bind(QueueBind::new(queue.name(), &exchange, "key")).await.unwrap();

    let properties = Properties::new()
        .content_type("text/plain")
        .correlation_id("7")
        .headers(FieldTable::from([("x-number", 5.into()), ("x-text", "five".into())]));
    let publisher = channel.confirm_select().await.unwrap();
    let publish =
        Publish::new(&exchange, "key", "hello").properties(&properties).persistent().mandatory();
    publisher.publish(publish).await.unwrap();

    let mut consumer = consumer_of(&channel, queue.name()).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body(), b"hello");
    assert_eq!(delivery.exchange(), *exchange.as_str());
    assert_eq!(delivery.routing_key(), *"key");
    assert_eq!(delivery.properties().unwrap(), properties.delivery_mode(2));
    assert_eq!(delivery.consumer_tag(), consumer.tag());
    assert!(!delivery.redelivered() && delivery.fault().is_none());
    delivery.ack().unwrap();
    connection.close().await;
}

/// Sizes around those at which a body is copied, sent by reference, or cut into frames.
async fn pk_106_bodies_of_every_size_arrive_whole(at: At) {
    let Scene { connection, channel, queue } = at.scene("sizes").await;
    let publisher = channel.confirm_select().await.unwrap();
    let frame = connection.tuning().frame_max as usize - 8;
    let sizes = [
        0,
        1,
        4_095,
        4_096,
        65_536,
        frame - 1,
        frame,
        frame + 1,
        2 * frame,
        2 * frame + 1,
        5_000_000,
    ];
    let body = |size: usize| (0..size).map(|at| (at * 7 % 251) as u8).collect::<Vec<u8>>();
    for size in sizes {
        let borrowed = body(size);
        publisher.publish(Publish::new("", queue.name(), &borrowed)).await.unwrap();
        let shared = Bytes::from(borrowed);
        publisher.publish(Publish::new("", queue.name(), shared)).await.unwrap();
    }
    let mut consumer = consumer_of(&channel, queue.name()).await;
    for size in sizes.into_iter().flat_map(|size| [size, size]) {
        let delivery = next(&mut consumer).await;
        assert!(delivery.body() == body(size), "{size} bytes came as {}", delivery.body().len());
        assert_eq!(delivery.shared_body().len(), size);
        delivery.ack().unwrap();
    }
    connection.close().await;
}

async fn a_mandatory_message_without_a_queue_comes_back(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let nowhere = unique("nowhere");
    let error = publisher.publish(Publish::new("", &nowhere, b"lost").mandatory()).await;
    let Err(PublishError::Returned(returned)) = error else { panic!("{error:?}") };
    assert_eq!(returned.code.code(), 312);
    assert_eq!(&*returned.text, "NO_ROUTE");
    assert_eq!(returned.message.body(), b"lost");
    assert_eq!(returned.message.routing_key(), *nowhere.as_str());
    // Without `mandatory` it is confirmed, and gone.
    publisher.publish(Publish::new("", &nowhere, b"lost")).await.unwrap();
    connection.close().await;
}

/// The broker puts an address into its `reply_to`, before it returns the message.
async fn a_request_without_a_queue_comes_back(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let replies = BasicConsume::new("amq.rabbitmq.reply-to").no_ack();
    let _replies = channel.basic_consume(replies).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let nowhere = unique("nowhere");
    let request = Publish::to_queue(&nowhere, "ask").reply_to("amq.rabbitmq.reply-to");
    let error = publisher.publish(request.correlation_id("1").mandatory()).await;
    let Err(PublishError::Returned(returned)) = error else { panic!("{error:?}") };
    assert_eq!(returned.message.body(), b"ask");
    let reply_to = returned.message.properties().unwrap().reply_to.unwrap();
    assert!(reply_to.starts_with("amq.rabbitmq.reply-to."), "{reply_to}");
    assert_eq!(channel.take_returned(), None);
    connection.close().await;
}

async fn an_unconfirmed_mandatory_message_comes_back_too(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let nowhere = unique("nowhere");
    channel.basic_publish(Publish::new("", &nowhere, b"lost").mandatory()).await.unwrap();
    // Answers come in order: once this one is there, so is the return.
    channel.queue_declare(exclusive("answer")).await.unwrap();
    let returned = channel.take_returned().unwrap();
    assert_eq!((returned.code.code(), returned.message.body()), (312, b"lost".as_slice()));
    assert_eq!(channel.take_returned(), None);
    connection.close().await;
}

async fn a_missing_exchange_closes_the_channel_and_says_so(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let missing = unique("missing");
    let publish = async || publisher.publish(Publish::new(&missing, "k", b"x")).await.unwrap_err();
    // The first one costs the channel; later ones are not sent.
    let PublishError::Unknown(first) = publish().await else { panic!() };
    let PublishError::NotSent(later) = publish().await else { panic!() };
    assert_eq!(first, later);
    assert_eq!(later.reply_code().unwrap().code(), 404);
    assert!(later.to_string().contains(&missing), "{later}");
    let error = channel.basic_publish(Publish::new("", "k", b"x")).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    assert!(connection.is_open());
    connection.close().await;
}

async fn pk_105_pk_113_what_cannot_be_sent_is_refused_whole(at: At) {
    let Scene { connection, channel, queue } = at.scene("refused").await;
    let publisher = channel.confirm_select().await.unwrap();
    let long = "x".repeat(256);
    let long_property = Properties::new().message_id(long.as_str());
    let not_finite = Properties::new().headers(FieldTable::from([("nan", f64::NAN.into())]));
    let huge = FieldTable::from([("huge", "x".repeat(140_000).into())]);
    let huge = Properties::new().headers(huge);
    for publish in [
        Publish::new(&long, "", b"x"),
        Publish::new("", &long, b"x"),
        Publish::new("", queue.name(), b"x").properties(&long_property),
        Publish::new("", queue.name(), b"x").properties(&not_finite),
        Publish::new("", queue.name(), b"x").properties(&huge),
    ] {
        let error = publisher.publish(publish).await.unwrap_err();
        assert!(matches!(error, PublishError::Invalid(_)), "{error:?}");
    }
    let error = channel.queue_declare(QueueDeclare::new(&long)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let error = channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::ConfirmModeUsePublisher));

    // Numbers and confirms are still in step.
    publisher.publish(Publish::new("", queue.name(), b"sent").mandatory()).await.unwrap();
    let passive = QueueDeclare::passive(queue.name());
    assert_eq!(channel.queue_declare(passive).await.unwrap().message_count, 1);
    connection.close().await;
}

async fn a_second_select_gives_another_publisher(at: At) {
    let Scene { connection, channel, queue } = at.scene("twice").await;
    let first = channel.confirm_select().await.unwrap();
    let open = first.send(Publish::new("", queue.name(), b"1")).await.unwrap();
    let second = channel.confirm_select().await.unwrap();
    let next = second.send(Publish::new("", queue.name(), b"2")).await.unwrap();
    assert_eq!((open.seq().number(), next.seq().number()), (1, 2));
    open.await.unwrap();
    next.await.unwrap();
    connection.close().await;
}

/// NA-30: 40 MB on one channel, 4 bytes on another; two large ones on one channel stay whole.
async fn na_30_a_large_body_keeps_no_other_channel_waiting(at: At) {
    let connection = at.connect().await;
    let large_channel = connection.open_channel().await.unwrap();
    let small_channel = connection.open_channel().await.unwrap();
    let queue = large_channel.queue_declare(exclusive("fair")).await.unwrap();
    let large = large_channel.confirm_select().await.unwrap();
    let small = small_channel.confirm_select().await.unwrap();
    let pattern = |seed: usize, size: usize| {
        Bytes::from((0..size).map(|at| (at * seed % 251) as u8).collect::<Vec<_>>())
    };
    let (body, rest) = (pattern(7, 40 << 20), pattern(11, 1 << 20));
    let first = large.send(Publish::new("", queue.name(), &body)).await.unwrap();
    let quick = small.publish(Publish::new("", queue.name(), b"tiny"));
    // The window of bytes is full: the second large one waits for the first.
    let second = async { large.publish(Publish::new("", queue.name(), &rest)).await };
    let (quick, second) = within("both", async { tokio::join!(quick, second) }).await;
    quick.unwrap();
    second.unwrap();
    first.await.unwrap();

    let mut consumer = consumer_of(&small_channel, queue.name()).await;
    for expected in [&b"tiny"[..], &body, &rest] {
        let delivery = next(&mut consumer).await;
        assert!(delivery.body() == expected, "{} bytes of another", delivery.body().len());
        delivery.ack().unwrap();
    }
    connection.close().await;
}

/// H3: RabbitMQ ends the connection if a close is answered in the middle of a content.
async fn h3_a_close_in_the_middle_of_a_content_costs_the_channel_alone(at: At) {
    let connection = at.connect().await;
    let large = Bytes::from(vec![7; 30 << 20]);
    let missing = unique("missing");
    let mut rounds = 0;
    for _ in 0..20 {
        let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
        // What an earlier round began goes on to its end, and takes the room until then.
        within("room", async {
            while connection.stats().unsent_bytes > 0 {
                crate::support::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
        let before = connection.stats().bytes_sent;
        // Both are queued in one step; the refusal comes while the second one is on its way.
        let (refused, cut) = tokio::join!(
            biased;
            publisher.send(Publish::new(&missing, "k", b"x")),
            publisher.send(Publish::new("", "nobody", &large)),
        );
        let refused = refused.unwrap();
        let cut = match cut {
            Ok(cut) => cut,
            Err(PublishError::NotSent(error)) => {
                // The refusal came before this thread got to the second one.
                assert_eq!(crate::support::code(&error), 404);
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        for confirm in [refused, cut] {
            let error = within("an outcome", confirm).await.unwrap_err();
            let (PublishError::Unknown(error) | PublishError::NotSent(error)) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(crate::support::code(error), 404);
        }
        // Or before the second one had begun to be written.
        if connection.stats().bytes_sent - before > 200_000 {
            rounds += 1;
        }
        if rounds == 3 {
            break;
        }
    }
    assert_eq!(rounds, 3, "the content had not begun in most rounds");
    // Everything begun has come to its end, and the connection is as good as before.
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    within("a confirm", publisher.publish(Publish::new("", "nobody", &large))).await.unwrap();
    assert!(connection.is_open());
    connection.close().await;
}

/// PK-69: what came back before stays what it was, and is no error of a later publish.
async fn pk_69_confirms_that_begin_behind_an_unroutable_message_are_their_own(at: At) {
    let Scene { connection, channel, queue } = at.scene("later").await;
    let nowhere = unique("nowhere");
    channel.basic_publish(Publish::new("", &nowhere, b"before").mandatory()).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    publisher.publish(Publish::new("", queue.name(), b"after").mandatory()).await.unwrap();
    let returned = publisher.publish(Publish::new("", &nowhere, b"nobody's").mandatory()).await;
    let Err(PublishError::Returned(returned)) = returned else { panic!("{returned:?}") };
    assert_eq!(returned.message.body(), b"nobody's");
    let before = channel.take_returned().unwrap();
    assert_eq!(before.message.body(), b"before");
    assert!(channel.take_returned().is_none());
    connection.close().await;
}
