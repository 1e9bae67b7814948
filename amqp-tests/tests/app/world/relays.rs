//! Relays in virtual time: the connection, the broker and the relay itself end at any point.

use amqp_app::prelude::*;
use amqp_app::{Pool, Relay};
use amqp_tests::world::World;

use super::{connect, play, recovering, until};
use crate::relaying::{Faults, Rows, check};

#[test]
fn an_outbox_loses_nothing_at_random_faults() {
    play(0..40, &loses_nothing);
}

async fn loses_nothing(world: &World) {
    const MESSAGES: usize = 500;
    let channel = connect(world).await.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::quorum("out")).await.unwrap();
    let connector = world.connector().recovery(recovering());
    let connector = connector.heartbeat(amqp_async::Heartbeat::Seconds(10));
    let pool = Pool::new(connector, 1).connect().await.unwrap();
    let faults = if world.below(2) == 0 { Faults::None } else { Faults::Some };
    let rows = Rows::of(MESSAGES, "out", faults);
    let failing = async {
        while rows.left() > 0 {
            world.sleep(Duration::from_millis(world.below(40) as u64)).await;
            match world.below(8) {
                0 => world.silence(),
                1 => world.crash(Duration::from_millis(world.below(1_000) as u64)),
                2..5 => world.cut(),
                _ => world.sleep(Duration::from_secs(world.below(20) as u64)).await,
            }
        }
    };
    // The process of a relay ends at any time, and another one begins.
    let relaying = async {
        while rows.left() > 0 {
            let relay = Relay::new(rows.clone(), &pool).run(Shutdown::never());
            let killed = world.sleep(Duration::from_millis(world.below(60_000) as u64));
            smol::future::or(async { drop(relay.await) }, killed).await;
        }
    };
    smol::future::zip(relaying, failing).await;
    until(world, "the end of lost connections", || pool.status().open == 1).await;
    let received = world.broker(|broker| broker.messages("out"));
    let received = received.into_iter().map(|message| {
        let body = String::from_utf8(message.body).unwrap();
        (body, message.properties.message_id.unwrap())
    });
    check(&received.collect::<Vec<_>>(), MESSAGES);
    pool.close().await;
}
