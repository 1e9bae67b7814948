//! The codec by itself, one message of three frames at a time: `cargo bench -p amqp-bench --bench codec`,
//! with `--features peers` beside `amq-protocol`, the codec of lapin.

use amqp_proto::frame::{self, FrameLimits, Peek};
use amqp_proto::method::{MethodId, WireMethod, basic};
use amqp_proto::{ContentHeader, PropertiesRef, ShortStr};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

const BODY: [u8; 16] = *b"sixteen bytes...";

fn text(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

fn properties() -> PropertiesRef<'static> {
    PropertiesRef {
        content_type: Some(text("application/json")),
        delivery_mode: Some(2),
        message_id: Some(text("0123456789abcdef")),
        timestamp: Some(1_700_000_000),
        ..PropertiesRef::default()
    }
}

fn delivery(properties: &PropertiesRef<'_>) -> Vec<u8> {
    let deliver = basic::Deliver {
        consumer_tag: text("consumer-1"),
        delivery_tag: 7,
        redelivered: false,
        exchange: text("events"),
        routing_key: text("order.created"),
    };
    let mut out = Vec::new();
    frame::write_method(&mut out, 1, &deliver);
    frame::write_header_ref(&mut out, 1, BODY.len() as u64, properties);
    frame::write_body(&mut out, 1, &BODY);
    out
}

fn publish() -> basic::Publish<'static> {
    let (exchange, routing_key) = (text("events"), text("order.created"));
    basic::Publish { exchange, routing_key, ..basic::Publish::default() }
}

/// Every frame cut and checked, every field read.
fn parse(mut input: &[u8]) -> usize {
    let mut read = 0;
    while let Ok(Peek::Complete(frame)) = frame::peek(input, FrameLimits::default()) {
        input = &input[frame.frame_len()..];
        match frame.kind {
            frame::FrameKind::Method => {
                // As the state machine does: by its ids, without the detour of an enum of all.
                let (id, arguments) = MethodId::split(frame.payload).unwrap();
                assert_eq!(id, basic::Deliver::ID);
                black_box(basic::Deliver::decode(arguments).unwrap());
            }
            frame::FrameKind::Header => {
                let header = ContentHeader::decode(frame.payload).unwrap();
                black_box((header.body_size, header.properties.decode().unwrap()));
            }
            _ => read += black_box(frame.payload).len(),
        }
    }
    read
}

#[divan::bench]
fn parse_plain(bencher: Bencher<'_, '_>) {
    let input = delivery(&PropertiesRef::default());
    bencher.bench_local(|| parse(black_box(&input)));
}

#[divan::bench]
fn parse_properties(bencher: Bencher<'_, '_>) {
    let input = delivery(&properties());
    bencher.bench_local(|| parse(black_box(&input)));
}

#[divan::bench]
fn encode_plain(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(1 << 10);
    bencher.bench_local(|| {
        out.clear();
        frame::write_publish(&mut out, 1, black_box(&publish()), Some(2), black_box(&BODY));
        black_box(out.len())
    });
}

#[divan::bench]
fn encode_properties(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(1 << 10);
    bencher.bench_local(|| {
        out.clear();
        frame::write_method(&mut out, 1, black_box(&publish()));
        frame::write_header_ref(&mut out, 1, BODY.len() as u64, black_box(&properties()));
        frame::write_body(&mut out, 1, black_box(&BODY));
        black_box(out.len())
    });
}

#[cfg(feature = "peers")]
mod amq_protocol_codec {
    use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
    use amq_protocol::protocol::{AMQPClass, basic};
    use divan::{Bencher, black_box};

    use super::{BODY, PropertiesRef, delivery};

    fn properties() -> basic::AMQPProperties {
        basic::AMQPProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id("0123456789abcdef".into())
            .with_timestamp(1_700_000_000)
    }

    fn parse(mut input: &[u8]) -> usize {
        let mut read = 0;
        while !input.is_empty() {
            let (rest, frame) = parse_frame(input).unwrap();
            input = rest;
            if let AMQPFrame::Body(_, body) = black_box(&frame) {
                read += body.len();
            }
        }
        read
    }

    fn encode(buffer: Vec<u8>, properties: basic::AMQPProperties) -> Vec<u8> {
        let publish = basic::Publish {
            exchange: "events".into(),
            routing_key: "order.created".into(),
            mandatory: false,
            immediate: false,
        };
        let header = AMQPContentHeader { class_id: 60, body_size: BODY.len() as u64, properties };
        let frames = [
            AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))),
            AMQPFrame::Header(1, header),
            AMQPFrame::Body(1, BODY.to_vec()),
        ];
        let mut context = WriteContext::from(buffer);
        for frame in &frames {
            context = gen_frame(black_box(frame))(context).unwrap();
        }
        context.into_inner().0
    }

    #[divan::bench]
    fn parse_plain(bencher: Bencher<'_, '_>) {
        let input = delivery(&PropertiesRef::default());
        bencher.bench_local(|| parse(black_box(&input)));
    }

    #[divan::bench]
    fn parse_properties(bencher: Bencher<'_, '_>) {
        let input = delivery(&super::properties());
        bencher.bench_local(|| parse(black_box(&input)));
    }

    #[divan::bench]
    fn encode_plain(bencher: Bencher<'_, '_>) {
        let mut out = Vec::with_capacity(1 << 10);
        bencher.bench_local(|| {
            let mut buffer = std::mem::take(&mut out);
            buffer.clear();
            let properties = basic::AMQPProperties::default().with_delivery_mode(2);
            out = encode(buffer, properties);
            black_box(out.len())
        });
    }

    #[divan::bench]
    fn encode_properties(bencher: Bencher<'_, '_>) {
        let mut out = Vec::with_capacity(1 << 10);
        bencher.bench_local(|| {
            let mut buffer = std::mem::take(&mut out);
            buffer.clear();
            out = encode(buffer, properties());
            black_box(out.len())
        });
    }
}
