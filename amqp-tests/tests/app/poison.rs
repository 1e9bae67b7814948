//! Messages that no handler can handle: each costs itself alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amqp_app::prelude::*;
use amqp_proto::ShortStr;
use amqp_proto::method::{basic, queue};
use amqp_testkit::RawConnection;
use amqp_testkit::raw_connection::nested_headers;

use crate::at::{
    At, Log, Make, beside, header, on_model, on_rabbitmq, on_tokio_multi_thread, source, text,
    unique, until,
};

on_model! {
    a_message_that_ends_the_process_each_time_is_parked_without_being_handled
    malformed_messages_are_parked_with_their_body
    the_header_of_a_copy_says_less_until_it_fits_into_a_frame
}

on_rabbitmq! {
    a_message_that_ends_the_process_each_time_is_parked_without_being_handled
    malformed_messages_are_parked_with_their_body
    the_header_of_a_copy_says_less_until_it_fits_into_a_frame
}

async fn malformed_messages_are_parked_with_their_body<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (port, queue) = (at.port(), client.queue("poison").await);
    let key = queue.clone();
    let publishing = smol::unblock(move || {
        let mut wire = RawConnection::connect(port);
        wire.log_in(u16::MAX);
        for properties in
            [nested_headers(16_000), vec![0x80, 0, 2, 0xff, 0xfe], vec![4, 0, 2, 0xc3, 0x28]]
        {
            let publish = basic::Publish {
                routing_key: ShortStr::from_bytes(key.as_bytes()).unwrap(),
                ..Default::default()
            };
            wire.send(1, &publish);
            wire.send_content(1, &properties, b"poison");
        }
        wire.send(1, &queue::Declare { exclusive: true, ..Default::default() });
        wire.expect("queue.DeclareOk");
    });
    publishing.await;
    client.send(&queue, "sound").await;
    let app = at.app().consume(
        source(queue.as_str()),
        async |Text(text): Text, State(log): State<Log>| {
            log.add(text);
        },
    );
    let report = beside(app, async |_| {
        let parking = format!("{queue}.parked");
        for _ in 0..3 {
            let parked = client.expect(&parking).await;
            assert_eq!((text(&parked), parked.fault()), ("poison".into(), None));
            let reason = header(&parked, "retry-error").unwrap();
            assert!(reason.contains("malformed properties"), "{reason}");
            parked.ack().unwrap();
        }
        at.log.reach(1).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["sound"]);
    assert_eq!((report.handled, report.failed, report.parked), (1, 3, 3));
}

/// A quorum queue counts the deliveries of processes that ended before they acknowledged.
async fn a_message_that_ends_the_process_each_time_is_parked_without_being_handled<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let queue = unique("killer");
    client.channel.queue_declare(QueueDeclare::quorum(&queue)).await.unwrap();
    client.send(&queue, "killer").await;
    for _ in 0..10 {
        client.expect(&queue).await.reject(true).unwrap();
    }
    client.send(&queue, "harmless").await;
    let consume = source(QueueDeclare::quorum(&queue));
    let app = at.app().consume(consume, async |Text(text): Text, State(log): State<Log>| {
        log.add(text);
    });
    let report = beside(app, async |_| {
        let parked = client.expect(&format!("{queue}.parked")).await;
        let reason = header(&parked, "retry-error").unwrap();
        assert_eq!(reason, "delivered 10 times before without an outcome");
        parked.ack().unwrap();
        at.log.reach(1).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["harmless"]);
    assert_eq!((report.handled, report.parked), (1, 1));
}

async fn the_header_of_a_copy_says_less_until_it_fits_into_a_frame<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("wide").await;
    let app = at.app().consume(source(queue.as_str()), async || Err::<(), _>("x".repeat(1_000)));
    let report = beside(app, async |_| {
        let parking = format!("{queue}.parked");
        for (wide, has_error, has_queue) in
            [(100, true, true), (130_700, false, true), (130_990, false, false)]
        {
            let message = Message::new("body").header("wide", "x".repeat(wide)).to_queue(&queue);
            client.publish(message).await;
            let parked = client.expect(&parking).await;
            assert_eq!(header(&parked, "wide").unwrap().len(), wide);
            let has = |name| header(&parked, name).is_some();
            // The text of the error is long enough to tell the two apart.
            assert_eq!((has("retry-error"), has("retry-queue")), (has_error, has_queue), "{wide}");
            parked.ack().unwrap();
        }
    })
    .await;
    assert_eq!(report.parked, 3);
}

/// 30 of 100 handlers return errors, panic, hang or get nonsense. All messages end handled or parked, and no place of the
/// prefetch is lost.
#[test]
fn ten_thousand_messages_end_handled_or_parked_on_rabbitmq() {
    on_tokio_multi_thread(ten_thousand(At::<amqp_tokio::Connector>::rabbitmq()));
}

async fn ten_thousand<P: Make>(at: At<P>) {
    const MESSAGES: usize = 10_000;
    let client = at.client().await;
    let queue = client.queue("many").await;
    for number in 0..MESSAGES {
        let body = if number % 100 < 5 { "nonsense".to_owned() } else { number.to_string() };
        let message = Message::new(body).message_id(number.to_string()).to_queue(&queue);
        drop(client.publisher.send(&message).await.unwrap());
    }
    client.publisher.all_confirmed().await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&done);
    let handler = move |Json(number): Json<usize>, Attempt(attempt): Attempt| {
        let done = Arc::clone(&counter);
        async move {
            match number % 100 {
                5..10 => Err(Failure::permanent("never")),
                10..15 => panic!("of the handler"),
                15..20 => std::future::pending().await,
                20..30 if attempt == 1 => Err(Failure::retry("once more")),
                _ => {
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            }
        }
    };
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = Consume::new(queue.as_str()).concurrency(16).timeout(Duration::from_millis(20));
    let report = beside(at.app().consume(consume.on_failure(policy), handler), async |_| {
        // A bound on time for all, so that a lost worker is seen.
        until("an empty queue", async || client.ready(&queue).await == 0).await;
        until("all", async || done.load(Ordering::SeqCst) == 8_000).await;
        until("the parked", async || client.ready(&format!("{queue}.parked")).await == 2_000).await;
    })
    .await;
    let Report { handled, parked, panicked, timed_out, given_back, stale, .. } = report;
    assert_eq!((handled, parked), (8_000, 2_000), "{report:?}");
    assert_eq!((panicked, timed_out, given_back, stale), (1_000, 1_000, 0, 0));
    let parking = format!("{queue}.parked");
    let mut ids = BTreeSet::new();
    while let Some(delivery) = client.channel.basic_get(parking.as_str()).await.unwrap() {
        let id: usize = delivery.properties().unwrap().message_id.unwrap().parse().unwrap();
        assert!(id % 100 < 20, "{id}");
        ids.insert(id);
        delivery.ack().unwrap();
    }
    assert_eq!(ids.len(), 2_000, "each once");
}
