//! Whose outcome is whose, when many publishes are on their way.

use std::collections::{BTreeSet, VecDeque};

use super::api::{
    At, BasicConsume, Connection, ExchangeDeclare, FieldTable, FieldValue, Properties, Publish,
    PublishError, QueueBind, QueueDeclare, QueueDelete, on_rabbitmq,
};
use super::at::next;

use crate::support::{unique, within};

const TASKS: u64 = 32;
const MESSAGES: u64 = 100_000;

/// Where a message goes is in its headers alone: exchange, routing key and size are the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// To a queue that takes everything.
    Taken,
    /// To a queue that is full.
    Refused,
    /// To no queue.
    Nowhere,
}

fn route(id: u64) -> Route {
    match id % 5 {
        0 | 3 => Route::Taken,
        1 => Route::Refused,
        _ => Route::Nowhere,
    }
}

on_rabbitmq! {
    every_outcome_belongs_to_its_own_message
    every_outcome_is_its_own_while_a_queue_comes_and_goes
}

async fn every_outcome_belongs_to_its_own_message(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let exchange = unique("headers");
    let taken = declare(&connection, &exchange, "taken").await;
    let refused = declare(&connection, &exchange, "refused").await;
    let publisher = channel.confirm_select().await.unwrap();

    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (publisher, exchange) = (publisher.clone(), exchange.clone());
            at.spawn(async move {
                let properties = [Route::Taken, Route::Refused, Route::Nowhere].map(|route| {
                    let headers = FieldTable::from([("route", format!("{route:?}").into())]);
                    Properties::new().headers(headers)
                });
                let mut confirms = Vec::new();
                for id in (task..MESSAGES).step_by(TASKS as usize) {
                    let body = format!("{id:08}");
                    let properties = &properties[route(id) as usize];
                    let publish = Publish::new(&exchange, "same", &body).properties(properties);
                    confirms.push((id, publisher.send(publish.mandatory()).await.unwrap()));
                }
                let mut accepted = Vec::new();
                for (id, confirm) in confirms {
                    match (route(id), within("an outcome", confirm).await) {
                        (Route::Taken, Ok(())) => accepted.push(id),
                        // The full queue took the very first one.
                        (Route::Refused, Ok(())) => accepted.push(id),
                        (Route::Refused, Err(PublishError::Nacked)) => {}
                        (Route::Nowhere, Err(PublishError::Returned(returned))) => {
                            assert_eq!(returned.message.body(), format!("{id:08}").as_bytes());
                        }
                        (route, outcome) => panic!("{id}, {route:?}: {outcome:?}"),
                    }
                }
                accepted
            })
        })
        .collect();
    let mut accepted = BTreeSet::new();
    for task in tasks {
        accepted.extend(task.await);
    }
    let refused_accepted = accepted.iter().filter(|id| route(**id) == Route::Refused).count();
    assert_eq!(refused_accepted, 1, "the full queue holds one message");

    let mut drained = drain(&connection, &taken).await;
    drained.extend(drain(&connection, &refused).await);
    assert_eq!(drained.len(), accepted.len());
    assert_eq!(drained.into_iter().collect::<BTreeSet<u64>>(), accepted);
    connection.close().await;
}

/// Bodies differ in their last bytes alone. Whether a message finds its queue depends on when it is
/// published, and acks of others come between a return and its own ack.
async fn every_outcome_is_its_own_while_a_queue_comes_and_goes(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (exchange, kept, moving) = (unique("direct"), unique("kept"), unique("moving"));
    channel.exchange_declare(ExchangeDeclare::direct(&exchange).auto_delete()).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&kept).durable()).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&moving).exclusive()).await.unwrap();
    channel.queue_bind(QueueBind::new(&kept, &exchange, "kept")).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let binding = QueueBind::new(&moving, &exchange, "moving");
    let copy_to = FieldValue::Array(vec!["nowhere".into()]);
    let copied = Properties::new().headers(FieldTable::from([("BCC", copy_to)]));

    let body = |id: u64| format!("{}{id:09}", "x".repeat(64));
    let (mut accepted, mut returned) = (BTreeSet::new(), 0);
    let mut resolved = |id, outcome| match outcome {
        Ok(()) => drop(accepted.insert(id)),
        Err(PublishError::Returned(message)) => {
            assert_eq!(message.message.body(), body(id).as_bytes());
            returned += 1;
        }
        Err(error) => panic!("{id}: {error}"),
    };
    let mut waiting = VecDeque::new();
    for id in 0..60_000 {
        match id % 3_000 {
            0 => channel.queue_bind(binding.clone()).await.unwrap(),
            1_500 => channel.queue_unbind(binding.clone()).await.unwrap(),
            _ => {}
        }
        let (key, body) = (if id % 3 == 0 { "kept" } else { "moving" }, body(id));
        let mut publish = Publish::new(&exchange, key, &body).persistent().mandatory();
        if id % 2 == 0 {
            publish = publish.properties(&copied);
        }
        waiting.push_back((id, publisher.send(publish).await.unwrap()));
        if waiting.len() > 1_500
            && let Some((id, confirm)) = waiting.pop_front()
        {
            resolved(id, within("an outcome", confirm).await);
        }
    }
    for (id, confirm) in waiting {
        resolved(id, within("an outcome", confirm).await);
    }
    assert!((10_000..30_000).contains(&returned), "{returned} returned");
    let mut drained = drain(&connection, &kept).await;
    drained.extend(drain(&connection, &moving).await);
    assert_eq!(drained.len(), accepted.len());
    assert_eq!(drained.into_iter().collect::<BTreeSet<u64>>(), accepted);
    channel.queue_delete(QueueDelete::new(&kept)).await.unwrap();
    connection.close().await;
}

/// A queue for one route. The one for refusals holds one message and nacks the rest.
async fn declare(connection: &Connection, exchange: &str, name: &str) -> String {
    let channel = connection.open_channel().await.unwrap();
    let headers = ExchangeDeclare::headers(exchange).auto_delete();
    channel.exchange_declare(headers).await.unwrap();
    let mut queue = QueueDeclare::new(unique(name)).exclusive();
    let mut route = Route::Taken;
    if name == "refused" {
        queue = queue.argument("x-max-length", 1).argument("x-overflow", "reject-publish");
        route = Route::Refused;
    }
    let queue = channel.queue_declare(queue).await.unwrap().queue;
    let bind = QueueBind::new(&queue, exchange, "")
        .argument("x-match", "all")
        .argument("route", format!("{route:?}"));
    channel.queue_bind(bind).await.unwrap();
    queue
}

async fn drain(connection: &Connection, queue: &str) -> Vec<u64> {
    let channel = connection.open_channel().await.unwrap();
    let passive = QueueDeclare::passive(queue);
    let count = channel.queue_declare(passive).await.unwrap().message_count;
    let consume = BasicConsume::new(queue).no_ack();
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut consumer).await;
        let body = std::str::from_utf8(delivery.body()).unwrap();
        ids.push(body.trim_start_matches('x').parse().unwrap());
    }
    ids
}
