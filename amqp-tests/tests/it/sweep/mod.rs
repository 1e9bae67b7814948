//! X1: any future, dropped after any number of polls, leaves nothing behind: the next call works, and
//! the broker holds no consumer, no channel and no delivery for it.

mod again;
mod operations;
mod reentrancy;
mod staged;
mod turns;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use amqp_async::core::QueueDeclare;
use amqp_proto::method::TABLE;
use amqp_testkit::RabbitMq;

use crate::support::within;
use operations::{Fixture, MESSAGES, OPERATIONS, Operation};
use staged::World;

/// What the broker alone sends.
const BROKERS: &[&str] = &[
    "connection.Start",
    "connection.Secure",
    "connection.Tune",
    "connection.OpenOk",
    "connection.Blocked",
    "connection.Unblocked",
    "connection.UpdateSecretOk",
    "channel.OpenOk",
    "access.RequestOk",
    "exchange.DeclareOk",
    "exchange.DeleteOk",
    "exchange.BindOk",
    "exchange.UnbindOk",
    "queue.DeclareOk",
    "queue.BindOk",
    "queue.PurgeOk",
    "queue.DeleteOk",
    "queue.UnbindOk",
    "basic.QosOk",
    "basic.ConsumeOk",
    "basic.Return",
    "basic.Deliver",
    "basic.GetOk",
    "basic.GetEmpty",
    "basic.RecoverOk",
    "confirm.SelectOk",
    "tx.SelectOk",
    "tx.CommitOk",
    "tx.RollbackOk",
    "channel.FlowOk",
    "basic.CancelOk",
];

/// What nobody drops a future of: answers to the broker's closes, and what is not offered.
const OTHERS: &[&str] = &[
    "connection.CloseOk",
    "channel.CloseOk",
    // A mechanism of several steps.
    "connection.SecureOk",
    // A remnant without meaning.
    "access.Request",
    // Nothing answers it: see `BasicRecover`.
    "basic.RecoverAsync",
];

/// Polls `future` at most `polls` times, a frame arriving between two polls. Whether it got ready.
fn poll_times(
    world: &World,
    mut future: Pin<Box<dyn Future<Output = ()> + '_>>,
    polls: u32,
) -> bool {
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        world.run_until_idle();
        world.release_frame();
        world.run_until_idle();
    }
    false
}

/// A world with a fixture, and whether the operation gets ready within so many polls.
fn staged(name: &str, operation: Operation, polls: u32) -> (BTreeSet<String>, bool) {
    let world = World::new();
    let fixture = world.block_on(async { Fixture::new(world.connect().await.unwrap()).await });
    world.finish();
    let before = world.held();
    let ready = poll_times(&world, operation(&fixture), polls);
    world.finish();
    assert_eq!(world.held(), before, "{name} after {polls} polls");
    let declare = fixture.channel.queue_declare(QueueDeclare::passive(&fixture.other));
    assert_eq!(world.block_on(declare).unwrap().name(), fixture.other, "{name}");
    // A message that was acknowledged has another in its place, unless that is where it stopped.
    let left = world.ready(&fixture.queue).unwrap() as u32;
    assert!((MESSAGES..=MESSAGES + 1).contains(&left), "{left} left by {name} after {polls} polls");
    let stats = fixture.connection.stats();
    assert_eq!((stats.open_calls, stats.unacked, stats.consumers), (0, 0, 0), "{name} {polls}");
    (world.sent(), ready)
}

#[test]
fn every_operation_dropped_after_every_poll_leaves_the_model_as_it_was() {
    let mut sent = BTreeSet::new();
    let mut dropped = 0;
    for (name, operation) in OPERATIONS {
        for polls in 0.. {
            assert!(polls < 500, "{name} does not end");
            let (methods, ready) = staged(name, *operation, polls);
            sent.extend(methods);
            dropped += 1;
            if ready {
                break;
            }
        }
    }
    println!("{dropped} drops of {} operations", OPERATIONS.len());
    sent.extend(connecting_and_closing());
    for method in TABLE {
        let name = format!("{:?}", method.id);
        let known = sent.contains(&name)
            || BROKERS.contains(&name.as_str())
            || OTHERS.contains(&name.as_str());
        assert!(known, "no operation sends {name}");
    }
}

/// Connecting and closing end what the others need.
fn connecting_and_closing() -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    for polls in 0.. {
        let world = World::new();
        let connecting = world.clone();
        let operation = Box::pin(async move {
            let connection = connecting.connect().await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            channel.basic_qos(amqp_async::core::BasicQos::new(1)).await.unwrap();
            connection.close().await;
        });
        let ready = poll_times(&world, operation, polls);
        world.finish();
        assert_eq!(world.held(), amqp_testkit::model::Held::default(), "after {polls} polls");
        sent.extend(world.sent());
        if ready {
            return sent;
        }
    }
    sent
}

/// Polls its future so many times, and drops it.
struct Dropped<'f> {
    future: Option<Pin<Box<dyn Future<Output = ()> + 'f>>>,
    polls: u32,
}

impl Future for Dropped<'_> {
    /// Whether the future got ready.
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(left) = self.polls.checked_sub(1) else {
            self.future = None;
            return Poll::Ready(false);
        };
        self.polls = left;
        let Some(future) = &mut self.future else { return Poll::Ready(false) };
        match future.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if left == 0 => {
                self.future = None;
                Poll::Ready(false)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn every_operation_dropped_after_every_poll_leaves_rabbitmq_as_it_was() {
    let node = tokio::task::spawn_blocking(|| RabbitMq::start().unwrap()).await.unwrap();
    let node = Arc::new(node);
    let connection = amqp_tokio::connect(&node.uri()).await.unwrap();
    let fixture = Fixture::new(connection).await;
    let mut dropped = 0;
    for (name, operation) in OPERATIONS {
        for polls in 0.. {
            let operation = Dropped { future: Some(operation(&fixture)), polls };
            let ready = within(name, operation).await;
            dropped += 1;
            // The next call works.
            let declare = fixture.channel.queue_declare(QueueDeclare::passive(&fixture.other));
            assert_eq!(
                within(name, declare).await.unwrap().name(),
                fixture.other,
                "{name} {polls}"
            );
            if ready {
                break;
            }
        }
    }
    println!("{dropped} drops of {} operations", OPERATIONS.len());
    let asking = Arc::clone(&node);
    tokio::task::spawn_blocking(move || {
        let ctl = |arguments: &[&str]| asking.ctl(arguments).unwrap();
        let mut seen = String::new();
        // The broker's own figures come late.
        for _ in 0..300 {
            let queues =
                ctl(&["list_queues", "--no-table-headers", "messages_unacknowledged", "consumers"]);
            let channels = ctl(&["list_channels", "--no-table-headers", "pid"]);
            let nothing = |line: &str| line.split_whitespace().all(|number| number == "0");
            let unheld =
                queues.lines().filter(|line| line.starts_with(char::is_numeric)).all(nothing);
            let open = channels.lines().filter(|line| line.starts_with('<')).count();
            if unheld && open == 3 {
                return;
            }
            seen = format!("{queues}\n{channels}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("something is held:\n{seen}");
    })
    .await
    .unwrap();
    fixture.connection.close().await;
    tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
}
