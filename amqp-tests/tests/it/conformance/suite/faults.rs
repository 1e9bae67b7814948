//! Messages that no client of ours would publish, and that RabbitMQ relays all the same (rows 17 and
//! 40 of the fault matrix): each costs itself alone.

use super::api::{
    self, At, Fault, FieldTable, Malformed, Properties, Publish, QueueBind, QueueDeclare,
};
use super::at::{consumer_of, next, on_every_adapter, ready};
use amqp_proto::ShortStr;
use amqp_proto::method::{basic, queue};
use amqp_testkit::RawConnection;
use amqp_testkit::raw_connection::nested_headers;

use crate::support::{exclusive, unique};

on_every_adapter! {
    c6_poison_is_delivered_with_its_fault
    c5_a_header_that_grew_beyond_frame_max_is_received
}

async fn c6_poison_is_delivered_with_its_fault(at: At) {
    let port = at.port();
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let name = unique("poison");
    channel.queue_declare(QueueDeclare::new(&name)).await.unwrap();
    let bind = QueueBind::new(&name, "amq.topic", format!("{name}.#"));
    channel.queue_bind(bind).await.unwrap();
    let prefix = name.clone();
    let publishing = smol::unblock(move || {
        let mut wire = RawConnection::connect(port);
        wire.log_in(u16::MAX);
        // 16,000 levels are 112 KB: beyond what a client's stack would bear.
        let messages: [(&[u8], Vec<u8>); 5] = [
            (b".a", nested_headers(16_000)),
            (b".\xff\xfe", vec![0, 0]),
            (b".b", vec![0x80, 0, 2, 0xff, 0xfe]),
            (b".c", vec![4, 0, 2, 0xc3, 0x28]),
            (b".d", [&[0x20, 0, 0, 0, 0, 4, 2, 0xff, 0xfe, b'V'][..]].concat()),
        ];
        for (key, properties) in messages {
            let key = [prefix.as_bytes(), key].concat();
            let publish = basic::Publish {
                exchange: ShortStr::new("amq.topic").unwrap(),
                routing_key: ShortStr::from_bytes(&key).unwrap(),
                ..Default::default()
            };
            wire.send(1, &publish);
            wire.send_content(1, &properties, b"poison");
        }
        wire.send(1, &queue::Declare { exclusive: true, ..Default::default() });
        wire.expect("queue.DeclareOk");
    });
    publishing.await;
    ready(&channel, &name, 5).await;
    channel.basic_publish(Publish::new("", &name, b"sound")).await.unwrap();

    let mut consumer = consumer_of(&channel, &name).await;
    for fault in [Malformed::TooDeep].into_iter().chain([Malformed::NotUtf8; 4]) {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.fault(), Some(Fault::Malformed(fault)));
        assert_eq!(delivery.body(), b"poison");
        delivery.reject(false).unwrap();
    }
    let sound = next(&mut consumer).await;
    assert_eq!((sound.fault(), sound.body()), (None, b"sound".as_slice()));
    sound.ack().unwrap();
    drop(consumer);
    ready(&channel, &name, 0).await;
    channel.queue_delete(api::QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}

/// C5: headers that were within `frame_max` grow beyond it when the message is dead-lettered.
async fn c5_a_header_that_grew_beyond_frame_max_is_received(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let grave = channel.queue_declare(exclusive("grave")).await.unwrap().queue;
    let declare = exclusive("source").dead_letter_exchange("").dead_letter_routing_key(&grave);
    let source = channel.queue_declare(declare).await.unwrap().queue;
    let headers = FieldTable::from([("large", "x".repeat(130_900).into())]);
    let properties = Properties::new().headers(headers);
    channel
        .basic_publish(Publish::new("", &source, b"body").properties(&properties))
        .await
        .unwrap();
    ready(&channel, &source, 1).await;
    channel.basic_get(source.as_str()).await.unwrap().unwrap().reject(false).unwrap();
    ready(&channel, &grave, 1).await;
    let grown = channel.basic_get(grave.as_str()).await.unwrap().unwrap();
    let size = grown.message().raw_properties().as_bytes().len();
    assert!(size > connection.tuning().frame_max as usize, "{size} bytes of properties");
    assert_eq!(grown.fault(), None);
    assert!(grown.headers().unwrap().get("x-death").is_some());
    grown.ack().unwrap();
    connection.close().await;
}
