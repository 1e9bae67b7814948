//! Exchanges of every type, bindings, queues with arguments, dead letters.

use std::time::Duration;

use super::api::{
    self, At, BasicConsume, Channel, Error, ExchangeBind, ExchangeDeclare, ExchangeDelete,
    ExchangeType, FieldTable, FieldValue, Overflow, Properties, Publish, PublishError, Publisher,
    QueueBind, QueueDeclare, QueueDelete, QueuePurge, TryRecvError,
};
use super::at::{Scene, consumer_of, next, on_every_adapter, ready};

use crate::support::{code, exclusive, unique};

on_every_adapter! {
    br_6_an_unknown_type_of_exchange_is_refused
    br_14_a_locked_queue_and_an_exclusive_consumer
    br_15_deleting_and_unbinding_what_is_not_there_is_fine
    br_16_arguments_are_checked_or_ignored
    br_17_what_is_the_brokers_own_is_refused
    br_22_an_empty_name_is_the_queue_declared_last
    br_33_a_rejected_message_is_dead_lettered
    br_37_preconditions_close_the_channel
    br_40_a_binding_of_nothing_names_the_exchange_first
    na_25_copies_go_to_the_keys_in_the_headers
    na_28_an_exchange_is_bound_to_an_exchange
    pk_112_types_of_exchanges_route_as_they_should
    auto_delete_exchanges_go_with_their_last_binding
    an_alternate_exchange_takes_what_is_not_routed
    the_oldest_make_room_and_are_dead_lettered
    priorities_go_first
    a_single_active_consumer_is_replaced
    consumers_of_higher_priority_are_served_first
}

async fn publisher(channel: &Channel) -> Publisher {
    channel.confirm_select().await.unwrap()
}

/// Whether a message reaches a queue.
async fn is_routed(publisher: &Publisher, publish: Publish<'_>) -> bool {
    match publisher.publish(publish.mandatory()).await {
        Ok(()) => true,
        Err(PublishError::Returned(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// From RabbitMQ 4 on it costs the channel alone.
async fn br_6_an_unknown_type_of_exchange_is_refused(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let declare = ExchangeDeclare::new(unique("e"), "ZZwwInvalid");
    let error = channel.exchange_declare(declare).await.unwrap_err();
    let hard = at.version() < (4, 0);
    assert_eq!(code(&error), if hard { 503 } else { 406 });
    assert_eq!((error.is_connection(), connection.is_open()), (hard, !hard));
}

async fn br_14_a_locked_queue_and_an_exclusive_consumer(at: At) {
    let connection = at.connect().await;
    let other = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("locked")).await.unwrap().queue;
    let error = channel.queue_declare(QueueDeclare::new(&queue)).await.unwrap_err();
    assert_eq!(code(&error), 405);
    let foreign = other.open_channel().await.unwrap();
    let error = foreign.queue_declare(QueueDeclare::passive(&queue)).await.unwrap_err();
    assert_eq!(code(&error), 405);

    let channel = connection.open_channel().await.unwrap();
    let alone = channel.basic_consume(BasicConsume::new(&queue).exclusive()).await.unwrap();
    let error = channel.basic_consume(BasicConsume::new(&queue)).await.unwrap_err();
    assert_eq!(code(&error), 403);
    drop(alone);
    let channel = connection.open_channel().await.unwrap();
    let _one = consumer_of(&channel, &queue).await;
    let error = channel.basic_consume(BasicConsume::new(&queue).exclusive()).await.unwrap_err();
    assert_eq!(code(&error), 403);
    connection.close().await;
    other.close().await;
}

async fn br_15_deleting_and_unbinding_what_is_not_there_is_fine(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let nothing = unique("nothing");
    let deleted = channel.queue_delete(QueueDelete::new(&nothing)).await.unwrap();
    assert_eq!(deleted.message_count, 0);
    channel.exchange_delete(ExchangeDelete::new(&nothing)).await.unwrap();
    let queue = channel.queue_declare(exclusive("bound")).await.unwrap();
    channel.queue_unbind(QueueBind::new(queue.name(), "amq.direct", &nothing)).await.unwrap();
    let error = channel.queue_purge(QueuePurge::new(&nothing)).await.unwrap_err();
    assert_eq!(code(&error), 404);
    connection.close().await;
}

async fn br_16_arguments_are_checked_or_ignored(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(exclusive("ignored").argument("x-ha-policy", "all")).await.unwrap();
    let declare = exclusive("checked").argument("x-message-ttl", "1000");
    let error = channel.queue_declare(declare).await.unwrap_err();
    assert_eq!(code(&error), 406);
    assert!(error.to_string().contains("x-message-ttl"), "{error}");
    connection.close().await;
}

async fn br_17_what_is_the_brokers_own_is_refused(at: At) {
    let connection = at.connect().await;
    let internal = unique("internal");
    let channel = connection.open_channel().await.unwrap();
    channel.exchange_declare(ExchangeDeclare::fanout(&internal).internal()).await.unwrap();
    let error = publisher(&channel).await.publish(Publish::new(&internal, "", b"x")).await;
    let Err(PublishError::Unknown(error)) = error else { panic!("{error:?}") };
    assert_eq!(code(&error), 403);
    let refused = async |error: Result<(), Error>| assert_eq!(code(&error.unwrap_err()), 403);
    let channel = connection.open_channel().await.unwrap();
    refused(channel.exchange_declare(ExchangeDeclare::direct("")).await).await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("mine")).await.unwrap();
    refused(channel.queue_bind(QueueBind::new(queue.name(), "", "k")).await).await;
    let channel = connection.open_channel().await.unwrap();
    refused(channel.queue_declare(QueueDeclare::new("amq.x")).await.map(|_| ())).await;
    let channel = connection.open_channel().await.unwrap();
    channel.exchange_delete(ExchangeDelete::new(&internal)).await.unwrap();
    connection.close().await;
}

async fn br_22_an_empty_name_is_the_queue_declared_last(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(exclusive("first")).await.unwrap();
    let last = channel.queue_declare(exclusive("last")).await.unwrap();
    let key = unique("key");
    channel.queue_bind(QueueBind::new("", "amq.direct", &key)).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new("")).await.unwrap();
    channel.basic_publish(Publish::new("amq.direct", &key, b"x")).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    let passive = channel.queue_declare(QueueDeclare::passive(last.name())).await.unwrap();
    assert_eq!(passive.consumer_count, 1);
    let fresh = connection.open_channel().await.unwrap();
    let error = fresh.basic_consume(BasicConsume::new("")).await.unwrap_err();
    assert_eq!(code(&error), 404);
    connection.close().await;
}

async fn br_33_a_rejected_message_is_dead_lettered(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let grave = channel.queue_declare(exclusive("grave")).await.unwrap();
    let declare = exclusive("source")
        .dead_letter_exchange("amq.direct")
        .dead_letter_routing_key(grave.name());
    let source = channel.queue_declare(declare).await.unwrap();
    channel.queue_bind(QueueBind::new(grave.name(), "amq.direct", grave.name())).await.unwrap();
    let properties = Properties::new().message_id("m-1");
    let publish = Publish::new("", source.name(), b"dead").properties(&properties);
    publisher(&connection.open_channel().await.unwrap()).await.publish(publish).await.unwrap();
    channel.basic_get(source.name()).await.unwrap().unwrap().reject(false).unwrap();
    ready(&channel, grave.name(), 1).await;
    let dead = channel.basic_get(grave.name()).await.unwrap().unwrap();
    assert_eq!(dead.exchange(), *"amq.direct");
    assert_eq!(dead.properties().unwrap().message_id.as_deref(), Some("m-1"));
    let headers = dead.headers().unwrap();
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
    let [FieldValue::Table(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
    let text = |name| death.get(name).and_then(FieldValue::as_str);
    assert_eq!(death.get("count"), Some(&FieldValue::I64(1)));
    assert_eq!((text("reason"), text("queue")), (Some("rejected"), Some(source.name())));
    assert_eq!(text("exchange"), Some(""));
    assert!(matches!(death.get("time"), Some(FieldValue::Timestamp(_))));
    assert_eq!(death.get("routing-keys"), Some(&vec![source.name().into()].into()));
    for (name, value) in [("queue", source.name()), ("reason", "rejected"), ("exchange", "")] {
        let first = headers.get(&format!("x-first-death-{name}"));
        assert_eq!(first.and_then(FieldValue::as_str), Some(value), "{headers:?}");
    }
    dead.ack().unwrap();
    connection.close().await;
}

async fn br_37_preconditions_close_the_channel(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (exchange, queue) = (unique("e"), unique("q"));
    channel.exchange_declare(ExchangeDeclare::direct(&exchange)).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&queue).auto_delete()).await.unwrap();
    let refusals = [
        channel.exchange_declare(ExchangeDeclare::fanout(&exchange)).await.unwrap_err(),
        connection
            .open_channel()
            .await
            .unwrap()
            .queue_declare(QueueDeclare::new(&queue))
            .await
            .unwrap_err(),
        connection
            .open_channel()
            .await
            .unwrap()
            .queue_declare(QueueDeclare::new(&queue).auto_delete().max_length(1))
            .await
            .unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(code(&refusal), 406);
        assert!(refusal.is_channel());
    }
    let channel = connection.open_channel().await.unwrap();
    let _consumer = consumer_of(&channel, &queue).await;
    let other = connection.open_channel().await.unwrap();
    let error = other.queue_delete(QueueDelete::new(&queue).if_unused()).await.unwrap_err();
    assert_eq!(code(&error), 406);
    channel.exchange_delete(ExchangeDelete::new(&exchange)).await.unwrap();
    connection.close().await;
}

async fn br_40_a_binding_of_nothing_names_the_exchange_first(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let bind = QueueBind::new("nosuchqueue", "nosuchexchange", "k");
    let error = channel.queue_bind(bind).await.unwrap_err();
    assert_eq!(code(&error), 404);
    assert!(error.to_string().contains("exchange 'nosuchexchange'"), "{error}");
    connection.close().await;
}

async fn na_25_copies_go_to_the_keys_in_the_headers(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let mut queues = Vec::new();
    for _ in 0..3 {
        queues.push(channel.queue_declare(exclusive("copy")).await.unwrap().queue);
    }
    let key = |at: usize| FieldValue::from(vec![queues[at].as_str().into()]);
    let headers = FieldTable::from([("CC", key(1)), ("BCC", key(2)), ("own", 1.into())]);
    let properties = Properties::new().content_type("text/plain").headers(headers);
    let publish = Publish::new("", &queues[0], b"x").properties(&properties).mandatory();
    let publishing = connection.open_channel().await.unwrap();
    publisher(&publishing).await.publish(publish).await.unwrap();
    for queue in &queues {
        let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
        let headers = got.headers().unwrap();
        assert!(headers.get("CC").is_some() && headers.get("BCC").is_none(), "{headers:?}");
        assert_eq!(headers.get("own"), Some(&FieldValue::I32(1)));
        assert_eq!(got.properties().unwrap().content_type.as_deref(), Some("text/plain"));
        got.ack().unwrap();
    }
    connection.close().await;
}

/// NA-28: only what is published while the exchanges are bound arrives.
async fn na_28_an_exchange_is_bound_to_an_exchange(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (source, destination) = (unique("source"), unique("destination"));
    for exchange in [&source, &destination] {
        channel.exchange_declare(ExchangeDeclare::fanout(exchange)).await.unwrap();
    }
    let queue = channel.queue_declare(exclusive("bound")).await.unwrap();
    channel.queue_bind(QueueBind::new(queue.name(), &destination, "")).await.unwrap();
    let publishing = connection.open_channel().await.unwrap();
    let publisher = publisher(&publishing).await;
    let publish = || is_routed(&publisher, Publish::new(&source, "", b"x"));
    let binding = ExchangeBind::new(&destination, &source, "");
    assert!(!publish().await);
    channel.exchange_bind(binding.clone()).await.unwrap();
    assert!(publish().await);
    channel.exchange_unbind(binding).await.unwrap();
    assert!(!publish().await);
    for exchange in [&source, &destination] {
        channel.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
    }
    let error = channel.exchange_bind(ExchangeBind::new("amq.fanout", &source, "")).await;
    assert_eq!(code(&error.unwrap_err()), 404);
    connection.close().await;
}

async fn pk_112_types_of_exchanges_route_as_they_should(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let publishing = connection.open_channel().await.unwrap();
    let publisher = publisher(&publishing).await;
    let headers = |name: &str, value: i32| FieldTable::from([(name, FieldValue::from(value))]);
    let none = FieldTable::new;
    // Type, binding key and arguments; then routing keys and headers, and whether they match.
    type Case<'a> = (ExchangeType, &'a str, FieldTable, Vec<(&'a str, FieldTable, bool)>);
    let both = FieldTable::from([("x", 1.into()), ("y", 2.into())]);
    let any = FieldTable::from([("x-match", "any".into()), ("x", 1.into()), ("y", 2.into())]);
    let cases: [Case<'_>; 5] = [
        (ExchangeType::Direct, "a.b", none(), vec![("a.b", none(), true), ("a.c", none(), false)]),
        (ExchangeType::Fanout, "ignored", none(), vec![("anything", none(), true)]),
        (
            ExchangeType::Topic,
            "a.*.#",
            none(),
            vec![
                ("a.b", none(), true),
                ("a.b.c.d", none(), true),
                ("a", none(), false),
                ("b.a.c", none(), false),
            ],
        ),
        (
            ExchangeType::Headers,
            "",
            both.clone(),
            vec![("", headers("x", 1), false), ("", both, true), ("", none(), false)],
        ),
        (
            ExchangeType::Headers,
            "",
            any,
            vec![("", headers("y", 2), true), ("", headers("y", 3), false)],
        ),
    ];
    for (kind, key, arguments, publishes) in cases {
        let exchange = unique("typed");
        channel.exchange_declare(ExchangeDeclare::new(&exchange, kind)).await.unwrap();
        let queue = channel.queue_declare(exclusive("typed")).await.unwrap();
        let bind = QueueBind::new(queue.name(), &exchange, key);
        let bind =
            arguments.iter().fold(bind, |bind, (name, value)| bind.argument(name, value.clone()));
        channel.queue_bind(bind).await.unwrap();
        for (key, headers, expected) in publishes {
            let properties = Properties::new().headers(headers);
            let publish = Publish::new(&exchange, key, b"x").properties(&properties);
            let routed = is_routed(&publisher, publish).await;
            assert_eq!(routed, expected, "{kind:?} {key} {properties:?}");
        }
        channel.exchange_delete(ExchangeDelete::new(&exchange)).await.unwrap();
    }
    connection.close().await;
}

async fn auto_delete_exchanges_go_with_their_last_binding(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let exchange = unique("passing");
    channel.exchange_declare(ExchangeDeclare::fanout(&exchange).auto_delete()).await.unwrap();
    let queue = channel.queue_declare(exclusive("last")).await.unwrap();
    channel.queue_bind(QueueBind::new(queue.name(), &exchange, "")).await.unwrap();
    channel.exchange_declare(ExchangeDeclare::passive(&exchange)).await.unwrap();
    channel.queue_delete(QueueDelete::new(queue.name())).await.unwrap();
    let error = channel.exchange_declare(ExchangeDeclare::passive(&exchange)).await.unwrap_err();
    assert_eq!(code(&error), 404);
    connection.close().await;
}

async fn an_alternate_exchange_takes_what_is_not_routed(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (exchange, rest) = (unique("picky"), unique("rest"));
    channel.exchange_declare(ExchangeDeclare::fanout(&rest)).await.unwrap();
    let declare = ExchangeDeclare::direct(&exchange).alternate_exchange(&rest);
    channel.exchange_declare(declare).await.unwrap();
    let queue = channel.queue_declare(exclusive("rest")).await.unwrap();
    channel.queue_bind(QueueBind::new(queue.name(), &rest, "")).await.unwrap();
    let publishing = connection.open_channel().await.unwrap();
    let publisher = publisher(&publishing).await;
    assert!(is_routed(&publisher, Publish::new(&exchange, "unbound", b"x")).await);
    for exchange in [&exchange, &rest] {
        channel.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
    }
    connection.close().await;
}

async fn the_oldest_make_room_and_are_dead_lettered(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let grave = channel.queue_declare(exclusive("overflow")).await.unwrap();
    let declare = exclusive("short")
        .max_length(2)
        .overflow(Overflow::DropHead)
        .dead_letter_exchange("")
        .dead_letter_routing_key(grave.name());
    let queue = channel.queue_declare(declare).await.unwrap();
    let publishing = connection.open_channel().await.unwrap();
    let publisher = publisher(&publishing).await;
    for body in [b"1", b"2", b"3"] {
        publisher.publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    ready(&channel, queue.name(), 2).await;
    ready(&channel, grave.name(), 1).await;
    let dropped = channel.basic_get(grave.name()).await.unwrap().unwrap();
    assert_eq!(dropped.body(), b"1");
    let headers = dropped.headers().unwrap();
    let reason = headers.get("x-first-death-reason").and_then(FieldValue::as_str);
    assert_eq!(reason, Some("maxlen"));
    dropped.ack().unwrap();
    connection.close().await;
}

async fn priorities_go_first(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("priority").max_priority(5)).await.unwrap();
    let publishing = connection.open_channel().await.unwrap();
    let publisher = publisher(&publishing).await;
    for (body, priority) in [(b"1", 0), (b"2", 5), (b"3", 3), (b"4", 5)] {
        let properties = Properties::new().priority(priority);
        let publish = Publish::new("", queue.name(), body).properties(&properties);
        publisher.publish(publish).await.unwrap();
    }
    for body in [b"2", b"4", b"3", b"1"] {
        let got = channel.basic_get(queue.name()).await.unwrap().unwrap();
        assert_eq!(got.body(), body);
        got.ack().unwrap();
    }
    connection.close().await;
}

async fn a_single_active_consumer_is_replaced(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("sac").single_active_consumer()).await.unwrap();
    let mut first = consumer_of(&channel, queue.name()).await;
    let other = connection.open_channel().await.unwrap();
    let mut second = consumer_of(&other, queue.name()).await;
    for _ in 0..10 {
        channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap();
        next(&mut first).await.ack().unwrap();
    }
    assert_eq!(second.try_recv().unwrap_err(), TryRecvError::Empty);
    // The next one takes over with what is ready.
    for _ in 0..300 {
        channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap();
    }
    drop(first);
    for _ in 0..300 {
        next(&mut second).await.ack().unwrap();
    }
    connection.close().await;
}

async fn consumers_of_higher_priority_are_served_first(at: At) {
    let Scene { connection, channel, queue } = at.scene("ranks").await;
    let consume = BasicConsume::new(queue.name()).prefetch(2);
    let mut low = channel.basic_consume(consume.clone()).await.unwrap();
    let mut high = channel.basic_consume(consume.priority(10)).await.unwrap();
    for _ in 0..3 {
        channel.basic_publish(Publish::new("", queue.name(), b"x")).await.unwrap();
    }
    let first = next(&mut high).await;
    let second = next(&mut high).await;
    let third = next(&mut low).await;
    for delivery in [first, second, third] {
        delivery.ack().unwrap();
    }
    assert!(api::is_silent(&mut high, Duration::from_millis(50)).await);
    connection.close().await;
}
