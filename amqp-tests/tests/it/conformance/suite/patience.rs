//! Heartbeats, whatever the application does meanwhile.

use std::time::{Duration, Instant};

use amqp_testkit::{Direction, Fault, Proxy};

use super::api::{At, CloseCause, Config, Heartbeat, Publish};
use super::at::{consumer_of, next, on_every_adapter, ready};
use crate::support::{exclusive, sleep, within};

on_every_adapter! {
    pk_46_a_consumer_may_take_ten_heartbeats_over_one_message
    na_31_what_the_client_sends_keeps_no_silent_broker
    pk_45_pu_18_a_dead_line_ends_after_two_heartbeats
}

/// With an interval of one second, a broker that a busy machine delays for two seconds would count as dead.
fn every_two_seconds(config: Config) -> Config {
    config.heartbeat(Heartbeat::Seconds(2))
}

async fn pk_46_a_consumer_may_take_ten_heartbeats_over_one_message(at: At) {
    let connection = at.open(every_two_seconds).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("slow")).await.unwrap().queue;
    let mut consumer = consumer_of(&channel, &queue).await;
    channel.basic_publish(Publish::new("", &queue, b"hard work")).await.unwrap();
    let delivery = next(&mut consumer).await;
    at.pause(Duration::from_secs(20)).await;
    assert!(connection.is_open(), "{:?}", connection.close_cause());
    delivery.ack().unwrap();
    ready(&channel, &queue, 0).await;
    connection.close().await;
}

/// What the client sends is no sign of life of the broker's, and no reason for it to send none.
async fn na_31_what_the_client_sends_keeps_no_silent_broker(at: At) {
    let port = at.port();
    let proxy = Proxy::start(port).unwrap();
    let connection = at.to(proxy.uri()).open(every_two_seconds).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let publish = || Publish::new("", "nobody", b"x");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        channel.basic_publish(publish()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(connection.is_open());
    proxy.inject(Direction::ToClient, Fault::Pause);
    within("the end", async {
        while channel.basic_publish(publish()).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let cause = connection.close_cause().unwrap();
    assert!(matches!(cause, CloseCause::HeartbeatTimeout { .. }), "{cause:?}");
}

/// How soon after is shown in virtual time, in the core's tests.
async fn pk_45_pu_18_a_dead_line_ends_after_two_heartbeats(at: At) {
    let port = at.port();
    let proxy = Proxy::start(port).unwrap();
    let connection = at.to(proxy.uri()).open(every_two_seconds).await.unwrap();
    connection.open_channel().await.unwrap();
    for direction in [Direction::ToBroker, Direction::ToClient] {
        proxy.inject(direction, Fault::Pause);
    }
    let begun = Instant::now();
    let cause = within("the end", connection.closed()).await;
    let taken = begun.elapsed();
    assert!(matches!(cause, CloseCause::HeartbeatTimeout { .. }), "{cause:?}");
    // The broker's last sign of life was up to half an interval before.
    assert!(taken > Duration::from_millis(2_900), "{taken:?}");
}
