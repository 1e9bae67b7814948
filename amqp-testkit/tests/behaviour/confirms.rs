//! Confirms of publishes that arrive together.

use amqp_proto::FieldTable;
use amqp_proto::frame;
use amqp_proto::method::{Method, basic, confirm};
use amqp_proto::{ContentHeader, RawProperties};

use crate::wire::short;
use crate::{At, on_both, unique};

on_both! {
    br_70_publishes_are_confirmed_one_by_one_or_several_at_once
}

fn br_70_publishes_are_confirmed_one_by_one_or_several_at_once(at: &At) {
    let mut wire = at.open();
    let name = unique("confirmed");
    wire.declare(&name, FieldTable::new());
    wire.raw.send(1, &confirm::Select { nowait: false });
    wire.expect("confirm.SelectOk");
    let mut batch = Vec::new();
    for _ in 0..10 {
        let publish = basic::Publish { routing_key: short(&name), ..Default::default() };
        frame::write_method(&mut batch, 1, &publish);
        let properties = RawProperties::new(&[0, 0]);
        frame::write_header(
            &mut batch,
            1,
            &ContentHeader { class_id: 60, body_size: 0, properties },
        );
    }
    let mut multiples = 0;
    for number in 1..=10 {
        wire.raw.send_bytes(&batch);
        let mut confirmed = [false; 10];
        while confirmed.contains(&false) {
            let frame = wire.next();
            let Some(Method::BasicAck(ack)) = frame.method() else { panic!("{frame:?}") };
            let last = ack.delivery_tag as usize - (number - 1) * 10;
            multiples += usize::from(ack.multiple);
            let first = if ack.multiple { 1 } else { last };
            confirmed[first - 1..last].fill(true);
        }
    }
    if at.exact().is_some() {
        assert_eq!(multiples, 3);
    }
    assert_eq!(wire.count(&name), Some(100));
}
