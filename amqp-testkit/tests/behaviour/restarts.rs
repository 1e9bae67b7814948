//! What a crash of the broker loses: the model against RabbitMQ.

use std::time::Duration;

use amqp_proto::method::{Method, basic, confirm, exchange, queue};
use amqp_proto::{DeliveryMode, FieldTable, FieldValue, Properties, RawTable};
use amqp_testkit::{ModelBroker, RawConnection};

use crate::fragile;
use crate::wire::{Wire, encoded, none, short};

#[test]
fn br_54_a_crash_of_the_model_loses_what_is_not_durable() {
    let broker = ModelBroker::start().unwrap();
    loses_what_is_not_durable(broker.port(), || broker.restart());
}

#[test]
fn br_54_a_crash_of_rabbitmq_loses_what_is_not_durable() {
    let broker = fragile();
    loses_what_is_not_durable(broker.port(), || {
        broker.kill().unwrap();
        broker.launch().unwrap();
    });
}

/// They store transient messages too. A quorum queue counts a delivery that was lost with the node. The model alone: after
/// a restart, RabbitMQ 3.10 keeps the same, but may take longer to serve it than the 20 s that a case waits.
#[test]
fn br_54_a_crash_of_the_model_keeps_quorum_queues_and_streams() {
    let broker = ModelBroker::start().unwrap();
    let port = broker.port();
    let mut wire = Wire::open(port);
    for kind in ["quorum", "stream"] {
        let declare = queue::Declare { queue: short(kind), durable: true, ..declare() };
        wire.declare_with(declare, FieldTable::from([("x-queue-type", kind.into())]));
        wire.expect("queue.DeclareOk");
        for body in ["first", "second"] {
            assert!(wire.publish(kind, none(), body.as_bytes()));
        }
    }
    assert_eq!(wire.get("quorum").body, b"first");
    broker.restart();
    let mut wire = Wire::open(port);
    wire.expect_count("quorum", 2);
    wire.consume("quorum");
    for (body, returned) in [("first", Some(1)), ("second", None)] {
        let got = wire.delivery();
        let count = got.header("x-delivery-count").and_then(FieldValue::as_i64);
        assert_eq!((got.body.as_slice(), count), (body.as_bytes(), returned));
        assert_eq!(got.redelivered, returned.is_some());
        wire.ack(&got);
    }
    wire.raw.send(1, &basic::Qos { prefetch_count: 5, ..Default::default() });
    wire.expect("basic.QosOk");
    let table = encoded(&FieldTable::from([("x-stream-offset", "first".into())]));
    let arguments = RawTable::new(&table);
    wire.raw.send(1, &basic::Consume { queue: short("stream"), arguments, ..Default::default() });
    wire.expect("basic.ConsumeOk");
    for body in ["first", "second"] {
        assert_eq!(wire.delivery().body, body.as_bytes());
    }
    for kind in ["quorum", "stream"] {
        wire.delete(kind);
    }
}

fn loses_what_is_not_durable(port: u16, crash: impl FnOnce()) {
    let mut wire = open(port);
    for (name, durable, auto_delete) in [
        ("restart.durable", true, false),
        ("restart.transient", false, false),
        ("restart.auto-delete", true, true),
    ] {
        wire.send(1, &queue::Declare { queue: short(name), durable, auto_delete, ..declare() });
        wire.expect("queue.DeclareOk");
        let (exchange, r#type) = (short(name), short("direct"));
        wire.send(
            1,
            &exchange::Declare { exchange, r#type, durable, auto_delete, ..Default::default() },
        );
        wire.expect("exchange.DeclareOk");
    }
    let exclusive = queue::Declare { durable: true, exclusive: true, ..declare() };
    wire.send(1, &queue::Declare { queue: short("restart.exclusive"), ..exclusive });
    wire.expect("queue.DeclareOk");
    for (exchange, queue) in [
        ("restart.durable", "restart.durable"),
        ("restart.durable", "restart.transient"),
        ("restart.transient", "restart.durable"),
        ("restart.auto-delete", "restart.transient"),
    ] {
        bind(&mut wire, exchange, queue);
    }
    // An auto-delete queue that has had a consumer.
    let (queue, consumer_tag) = (short("restart.auto-delete"), short("t"));
    wire.send(1, &basic::Consume { queue, consumer_tag, ..Default::default() });
    wire.expect("basic.ConsumeOk");
    wire.send(1, &confirm::Select { nowait: false });
    wire.expect("confirm.SelectOk");
    for (body, mode) in [
        (b"persistent, unacknowledged".as_slice(), DeliveryMode::Persistent),
        (b"persistent", DeliveryMode::Persistent),
        (b"transient", DeliveryMode::Transient),
    ] {
        publish(&mut wire, "", "restart.durable", mode, body);
        wire.expect("basic.Ack");
    }
    assert_eq!(get(&mut wire, "restart.durable", false).unwrap().1, b"persistent, unacknowledged");

    crash();
    let mut wire = open(port);

    for (name, is_there) in [
        ("restart.durable", true),
        ("restart.transient", false),
        ("restart.auto-delete", true),
        ("restart.exclusive", false),
    ] {
        wire = check(wire, port, is_there, name, |wire| {
            wire.send(1, &queue::Declare { queue: short(name), passive: true, ..declare() });
        });
    }
    for (name, is_there) in
        [("restart.durable", true), ("restart.transient", false), ("restart.auto-delete", true)]
    {
        wire = check(wire, port, is_there, name, |wire| {
            let exchange = short(name);
            wire.send(1, &exchange::Declare { exchange, passive: true, ..Default::default() });
        });
    }
    // What was stored is all marked, whether or not it was delivered.
    for body in [b"persistent, unacknowledged".as_slice(), b"persistent"] {
        let got = get(&mut wire, "restart.durable", true);
        assert_eq!(got, Some((true, body.to_vec())));
    }
    assert_eq!(get(&mut wire, "restart.durable", true), None);
    // The binding of what is durable on both ends is there.
    publish(&mut wire, "restart.durable", "k", DeliveryMode::Transient, b"bound");
    assert_eq!(get(&mut wire, "restart.durable", true), Some((false, b"bound".to_vec())));
    for name in ["restart.durable", "restart.auto-delete"] {
        wire.send(1, &queue::Delete { queue: short(name), ..Default::default() });
        wire.expect("queue.DeleteOk");
        wire.send(1, &exchange::Delete { exchange: short(name), ..Default::default() });
        wire.expect("exchange.DeleteOk");
    }
}

/// Checks that what is asked for is there, or is refused with 404. Returns a connection with an open channel.
fn check(
    mut wire: RawConnection,
    port: u16,
    is_there: bool,
    name: &str,
    ask: impl FnOnce(&mut RawConnection),
) -> RawConnection {
    ask(&mut wire);
    let frame = wire.next_frame().unwrap();
    match frame.method() {
        Some(Method::ChannelClose(close)) => {
            assert!(close.reply_code == 404 && !is_there, "{name}: {close:?}");
            open(port)
        }
        _ => {
            assert!(is_there, "{name} is there: {}", frame.name());
            wire
        }
    }
}

fn open(port: u16) -> RawConnection {
    let mut wire = RawConnection::connect(port);
    wire.log_in(u16::MAX);
    wire
}

fn declare() -> queue::Declare<'static> {
    queue::Declare::default()
}

fn bind(wire: &mut RawConnection, exchange: &str, queue: &str) {
    let (queue, exchange) = (short(queue), short(exchange));
    wire.send(1, &queue::Bind { queue, exchange, routing_key: short("k"), ..Default::default() });
    wire.expect("queue.BindOk");
}

fn publish(wire: &mut RawConnection, exchange: &str, key: &str, mode: DeliveryMode, body: &[u8]) {
    let (exchange, routing_key) = (short(exchange), short(key));
    wire.send(1, &basic::Publish { exchange, routing_key, ..Default::default() });
    let mut properties = Vec::new();
    Properties::new().delivery_mode(mode).encode(&mut properties).unwrap();
    wire.send_content(1, &properties, body);
}

/// Gets a message: whether it is marked as redelivered, and its body.
fn get(wire: &mut RawConnection, queue: &str, no_ack: bool) -> Option<(bool, Vec<u8>)> {
    // What was published a moment ago, without a confirm, may not be there yet.
    for _ in 0..20 {
        wire.send(1, &basic::Get { queue: short(queue), no_ack, ..Default::default() });
        let frame = wire.next_frame().unwrap();
        if let Some(Method::BasicGetOk(ok)) = frame.method() {
            let redelivered = ok.redelivered;
            wire.next_frame().unwrap();
            return Some((redelivered, wire.next_frame().unwrap().payload.clone()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}
