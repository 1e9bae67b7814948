//! What the broker ends by its clock: channels that keep a delivery, and silent connections.

use std::time::{Duration, Instant};

use amqp_proto::FieldTable;
use amqp_proto::method::{Method, channel, connection};
use amqp_testkit::{ModelBroker, RawConnection};

use crate::wire::{Wire, none, short};
use crate::{At, fragile, unique};

/// The text of the refusal, on channel 1.
fn timed_out(milliseconds: u64) -> (u16, String) {
    let text = format!(
        "channel: PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout \
         value used: {milliseconds} ms. This timeout value can be configured, see consumers doc \
         guide to learn more"
    );
    (406, text)
}

#[test]
fn br_68_a_kept_delivery_closes_its_channel_on_the_model() {
    let at = At::model();
    let model = at.exact().unwrap();
    let (mut wire, name) = (at.open(), unique("kept"));
    wire.declare(&name, FieldTable::new());
    wire.publish(&name, none(), b"first");
    wire.publish(&name, none(), b"second");
    let first = wire.get(&name);
    model.advance(Duration::from_secs(1_000));
    let second = wire.get(&name);
    wire.ack(&first);
    // The oldest one counts, which is the second from here on.
    model.advance(Duration::from_secs(1_799));
    assert_eq!(wire.count(&name), Some(0));
    model.advance(Duration::from_secs(1));
    assert_eq!(wire.raw.expect_refusal(), timed_out(1_800_000));
    wire.reopen();
    let again = wire.get(&name);
    assert_eq!((again.body.clone(), again.redelivered), (second.body, true));
    model.set_consumer_timeout(Some(Duration::from_secs(5)));
    wire.close_channel();
    wire.get(&name);
    model.advance(Duration::from_secs(5));
    assert_eq!(wire.raw.expect_refusal(), timed_out(5_000));
}

#[test]
fn br_68_a_kept_delivery_closes_its_channel_on_rabbitmq() {
    let node = fragile();
    let set = |name: &str, milliseconds: u64| {
        let expression = format!("application:set_env(rabbit, {name}, {milliseconds}).");
        node.ctl(&["eval", &expression]).unwrap();
    };
    set("consumer_timeout", 1_000);
    set("channel_tick_interval", 200);
    let (mut wire, name) = (Wire::open(node.port()), unique("kept"));
    wire.declare(&name, FieldTable::new());
    wire.publish(&name, none(), b"kept");
    wire.get(&name);
    assert_eq!(wire.raw.expect_refusal(), timed_out(1_000));
    wire.reopen();
    assert!(wire.get(&name).redelivered);
    set("consumer_timeout", 1_800_000);
    set("channel_tick_interval", 60_000);
}

#[test]
fn br_69_a_silent_client_is_disconnected_by_the_model() {
    silent_client_is_disconnected(ModelBroker::start().unwrap().port());
}

#[test]
fn br_69_a_silent_client_is_disconnected_by_rabbitmq() {
    silent_client_is_disconnected(At::RabbitMq.port());
}

/// The broker proposes an interval of 60 s. It ends the connection of a client that is silent for two intervals, without
/// a close, and sends heartbeats itself.
fn silent_client_is_disconnected(port: u16) {
    let mut wire = RawConnection::connect(port);
    wire.begin_login("guest", &[]);
    let tune = wire.expect("connection.Tune");
    let Some(Method::ConnectionTune(tune)) = tune.method() else { panic!() };
    assert_eq!(tune.heartbeat, 60);
    let (channel_max, frame_max) = (tune.channel_max, tune.frame_max);
    wire.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 1 });
    wire.send(0, &connection::Open { virtual_host: short("/"), ..Default::default() });
    wire.expect("connection.OpenOk");
    wire.send(1, &channel::Open::default());
    wire.expect("channel.OpenOk");
    // What is sent keeps it alive.
    let begun = Instant::now();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        wire.send_bytes(&amqp_proto::frame::HEARTBEAT);
    }
    let mut heartbeats = 0;
    while let Some(frame) = wire.next_frame() {
        assert_eq!(frame.name(), "Heartbeat");
        heartbeats += 1;
    }
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(heartbeats >= 4, "{heartbeats} heartbeats");
}
