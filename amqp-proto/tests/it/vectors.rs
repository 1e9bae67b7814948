//! Byte vectors: each frame and table decodes to its value and is encoded to the same bytes.

use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{Method, basic, channel, confirm, connection, queue, tx};
use amqp_proto::{
    ContentHeader, Decimal, EncodeError, FieldTable, FieldValue, Malformed, Properties,
    PropertiesRef, RawProperties, RawTable, ShortStr, TABLE_DEPTH_MAX,
};

#[cfg(feature = "serde")]
use std::option::IntoIter;

#[cfg(feature = "serde")]
use serde::de::value::{self, MapAccessDeserializer, MapDeserializer};
#[cfg(feature = "serde")]
use serde::de::{Deserialize, IntoDeserializer};

use crate::hex;

fn s(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

fn peek(bytes: &[u8]) -> Result<Peek<'_>, Malformed> {
    frame::peek(bytes, FrameLimits::default())
}

#[track_caller]
fn method_frame<'a>(wire: &'a [u8], channel: u16, expected: Method<'a>) {
    let Ok(Peek::Complete(frame)) = peek(wire) else { panic!("no whole frame") };
    assert_eq!((frame.kind, frame.channel), (FrameKind::Method, channel));
    assert_eq!(frame.frame_len(), wire.len());
    assert_eq!(Method::decode(frame.payload).unwrap(), expected);
    let mut payload = Vec::new();
    expected.encode(&mut payload);
    assert_eq!(payload, frame.payload);
}

#[test]
fn methods() {
    method_frame(&hex("010001000000050014000a00ce"), 1, channel::Open::default().into());
    method_frame(
        &hex("0100010000001a0014002800c80f4e6f726d616c2073687574646f776e00000000ce"),
        1,
        channel::Close { reply_code: 200, reply_text: s("Normal shutdown"), ..Default::default() }
            .into(),
    );
    method_frame(
        &hex("0100010000000a003c0028000000017101ce"),
        1,
        basic::Publish { routing_key: s("q"), mandatory: true, ..Default::default() }.into(),
    );
    method_frame(
        &hex("0100010000001c0032000a00000171060000000f09782d6578706972657349000003e8ce"),
        1,
        queue::Declare {
            queue: s("q"),
            durable: true,
            exclusive: true,
            arguments: RawTable::new(&hex("09782d6578706972657349000003e8")),
            ..Default::default()
        }
        .into(),
    );
    method_frame(
        &hex("0100010000000f003c00140000017101740200000000ce"),
        1,
        basic::Consume { queue: s("q"), consumer_tag: s("t"), no_ack: true, ..Default::default() }
            .into(),
    );
    method_frame(
        &hex("0100010000000d003c0078000000000000000703ce"),
        1,
        basic::Nack { delivery_tag: 7, multiple: true, requeue: true }.into(),
    );
    method_frame(
        &hex("0100010000000d003c0050000000000000006400ce"),
        1,
        basic::Ack { delivery_tag: 100, multiple: false }.into(),
    );
    method_frame(
        &hex("0100010000000b003c000a00000000000a01ce"),
        1,
        basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true }.into(),
    );
    method_frame(&hex("010001000000050055000a00ce"), 1, confirm::Select::default().into());
    method_frame(&hex("01000100000004005a0014ce"), 1, tx::Commit::default().into());
    method_frame(
        &hex("0100000000000c000a001f07ff00020000003cce"),
        0,
        connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }.into(),
    );
    method_frame(
        &hex("01000000000008000a0028012f0000ce"),
        0,
        connection::Open { virtual_host: s("/"), ..Default::default() }.into(),
    );
    method_frame(
        &hex("0100000000000b000a004600000001730172ce"),
        0,
        connection::UpdateSecret { new_secret: b"s", reason: s("r") }.into(),
    );
}

#[test]
fn protocol_header_and_heartbeat() {
    assert_eq!(amqp_proto::PROTOCOL_HEADER.as_slice(), hex("414d515000000901"));
    assert_eq!(frame::HEARTBEAT.as_slice(), hex("08000000000000ce"));
    let Ok(Peek::Complete(frame)) = peek(&frame::HEARTBEAT) else { panic!("no whole frame") };
    assert_eq!(frame.kind, FrameKind::Heartbeat);
}

#[test]
fn pk_102_headers() {
    let mut headers = FieldTable::new();
    headers.insert("k", 1);
    let all = Properties::new()
        .content_type("a")
        .content_encoding("b")
        .headers(headers)
        .delivery_mode(2)
        .priority(9)
        .correlation_id("c")
        .reply_to("r")
        .expiration("60000")
        .message_id("m")
        .timestamp(1_u64)
        .kind("t")
        .user_id("u")
        .app_id("ap")
        .cluster_id("cl");
    let vectors = [
        ("0200010000000f003c00000000000000000064100002ce", 100, Properties::new().delivery_mode(2)),
        (
            "0200010000003d003c00000000000000000003fffc0161016200000007016b490000000102090163017205\
             3630303030016d00000000000000010174017502617002636cce",
            3,
            all,
        ),
        ("0200010000000e003c000000000000000000000000ce", 0, Properties::new()),
    ];
    for (wire, size, properties) in vectors {
        let wire = hex(wire);
        let Ok(Peek::Complete(frame)) = peek(&wire) else { panic!("no whole frame") };
        assert_eq!((frame.kind, frame.channel), (FrameKind::Header, 1));
        let header = ContentHeader::decode(frame.payload).unwrap();
        assert_eq!((header.class_id, header.body_size), (60, size));
        let borrowed = header.properties.decode().unwrap();
        assert_eq!(borrowed.to_owned(TABLE_DEPTH_MAX).unwrap(), properties);

        let mut again = Vec::new();
        frame::write_header(&mut again, 1, &header);
        assert_eq!(again, wire);
        again.clear();
        frame::write_header_ref(&mut again, 1, size, &borrowed);
        assert_eq!(again, wire);
        again.clear();
        properties.encode(&mut again).unwrap();
        assert_eq!(again, header.properties.as_bytes());
    }
}

#[test]
fn body() {
    let wire = hex("0300010000001449206c696b65206974207468617420736f756e64ce");
    let Ok(Peek::Complete(frame)) = peek(&wire) else { panic!("no whole frame") };
    assert_eq!((frame.kind, frame.payload), (FrameKind::Body, b"I like it that sound".as_slice()));
    let mut again = Vec::new();
    frame::write_body(&mut again, 1, frame.payload);
    assert_eq!(again, wire);
}

#[test]
fn pk_100_negative_frames() {
    assert_eq!(peek(b"AMQPa"), Err(Malformed::UnknownFrameType(b'A')));
    let ack = hex("0100010000000d003c0050000000000000006400ce");
    for length in 0..ack.len() {
        let Ok(Peek::Incomplete(needed)) = peek(&ack[..length]) else { panic!("at {length}") };
        assert!(needed > 0 && needed <= ack.len() - length);
    }
    let mut bad_end = ack;
    *bad_end.last_mut().unwrap() = 0x41;
    assert_eq!(peek(&bad_end), Err(Malformed::BadFrameEnd(0x41)));
    assert_eq!(peek(&[9, 0, 0]), Err(Malformed::UnknownFrameType(9)));
    assert_eq!(
        peek(&hex("030001 ffffffff")),
        Err(Malformed::FrameTooLarge { size: u32::MAX, limit: 131_064 })
    );
    assert_eq!(peek(&hex("080000 00000001")), Err(Malformed::HeartbeatPayload));
}

#[track_caller]
fn table_vector(wire: &str, expected: &FieldTable) {
    let wire = hex(wire);
    let length = u32::from_be_bytes(wire[..4].try_into().unwrap());
    assert_eq!(length as usize, wire.len() - 4);
    let table = RawTable::new(&wire[4..]).decode(TABLE_DEPTH_MAX).unwrap();
    assert_eq!(table, *expected);
    let mut again = Vec::new();
    expected.encode(&mut again).unwrap();
    assert_eq!(again, wire);
}

/// A table of one field called `a`.
#[track_caller]
fn value_vector(wire: &str, expected: impl Into<FieldValue>) {
    let value = hex(wire);
    let length = value.len() + 2;
    table_vector(&format!("{length:08x} 0161 {wire}"), &FieldTable::from([("a", expected.into())]));
}

#[test]
fn pk_104_tables() {
    table_vector("00000000", &FieldTable::new());
    value_vector("49 00000001", 1);
    value_vector("6c 0000000080000000", 2_147_483_648_i64);
    value_vector("6c ffffffff7fffffff", -2_147_483_649_i64);
    value_vector("6c ffffffffffff8ad0", -30_000_i64);
    value_vector("44 00 00000001", Decimal { scale: 0, mantissa: 1 });
    value_vector("44 03 00000005", Decimal { scale: 3, mantissa: 5 });
    value_vector("44 02 ffffffff", Decimal { scale: 2, mantissa: -1 });
    value_vector("54 000000004d1e6e43", FieldValue::Timestamp(1_293_839_939));
    value_vector("74 01", true);
    value_vector("74 00", false);
    value_vector("56", FieldValue::Void);
    value_vector("64 3ff0000000000000", 1.0_f64);
    value_vector("66 3f800000", 1.0_f32);
    value_vector(
        "41 00000019 4900000001 4900000002 4900000003 4900000004 49ffffffff",
        [1, 2, 3, 4, -1].map(FieldValue::from).to_vec(),
    );
    value_vector("53 00000001 78", "x");
    value_vector("78 00000002 0001", FieldValue::Bytes(vec![0, 1]));
    value_vector(
        "46 0000000c 03666f6f 53 00000003 626172",
        FieldTable::from([("foo", "bar".into())]),
    );
    value_vector("62 ff", -1_i8);
    value_vector("42 ff", 255_u8);
    value_vector("73 8000", i16::MIN);
    value_vector("75 ffff", u16::MAX);
    value_vector("69 ffffffff", u32::MAX);
}

#[test]
fn types_that_are_read_and_never_written() {
    let read = |wire: &str| {
        let bytes = hex(&format!("0161 {wire}"));
        RawTable::new(&bytes).decode(TABLE_DEPTH_MAX).map(|table| table.get("a").cloned().unwrap())
    };
    assert_eq!(read("55 ffff"), Ok(FieldValue::I16(-1)));
    assert_eq!(read("4c ffffffffffffffff"), Ok(FieldValue::I64(-1)));
    assert!(matches!(read("64 7ff8000000000000"), Ok(FieldValue::F64(nan)) if nan.is_nan()));
    assert_eq!(read("64 7ff0000000000000"), Ok(FieldValue::F64(f64::INFINITY)));
    assert_eq!(read("74 02"), Ok(FieldValue::Bool(true)));
    assert_eq!(read("5a 00"), Err(Malformed::UnknownFieldType(b'Z')));

    let written = |value: FieldValue| FieldTable::from([("a", value)]).encode(&mut Vec::new());
    assert_eq!(written(f64::NAN.into()), Err(EncodeError::NotFinite));
    assert_eq!(written(f64::INFINITY.into()), Err(EncodeError::NotFinite));
    assert_eq!(written(f32::NEG_INFINITY.into()), Err(EncodeError::NotFinite));
    assert_eq!(written(u64::MAX.into()), Err(EncodeError::NotSigned(u64::MAX)));
}

#[test]
fn unsigned_numbers_become_signed_ones() {
    assert_eq!(FieldValue::from(10_u64), FieldValue::I64(10));
    assert_eq!(FieldValue::from(10_usize), FieldValue::I64(10));
    assert_eq!(FieldValue::from(i64::MAX as u64), FieldValue::I64(i64::MAX));
    assert_eq!(FieldValue::from(1_u64 << 63), FieldValue::U64(1 << 63));
}

#[test]
fn values_are_read_by_their_type() {
    let nested = FieldTable::from([("a", 1.into())]);
    let table = FieldTable::from([
        ("array", vec![FieldValue::from(1), "two".into()].into()),
        ("bytes", FieldValue::Bytes(vec![0xff])),
        ("float", 0.5_f32.into()),
        ("table", nested.clone().into()),
        ("text", (&String::from("text")).into()),
        ("time", FieldValue::Timestamp(7)),
    ]);
    let field = |name: &str| table.get(name).unwrap();
    assert_eq!(field("array").as_array(), Some(&[1.into(), "two".into()][..]));
    assert_eq!(field("bytes").as_bytes(), Some(&[0xff][..]));
    assert_eq!(field("float").as_f64(), Some(0.5));
    assert_eq!(field("table").as_table(), Some(&nested));
    assert_eq!(field("text").as_bytes(), Some(&b"text"[..]));
    assert_eq!(field("time").as_timestamp(), Some(7));
    let value = field("text");
    assert_eq!((value.as_array(), value.as_table(), value.as_f64()), (None, None, None));
    assert_eq!((value.as_timestamp(), field("time").as_bytes()), (None, None));

    let borrowed: Vec<&str> = (&table).into_iter().map(|(name, _)| name).collect();
    assert_eq!(borrowed, ["array", "bytes", "float", "table", "text", "time"]);
    assert_eq!((table.iter().len(), table.clone().into_iter().count()), (6, 6));
    let mut extended = nested;
    extended.extend([("a", 2.into()), ("b", 3.into())]);
    assert_eq!(extended, FieldTable::from([("a", 2.into()), ("b", 3.into())]));
}

#[test]
fn short_strings_compare_with_text() {
    let key = ShortStr::new("orders").unwrap();
    assert_eq!(key, "orders");
    assert_eq!("orders", key);
    assert_eq!(key, *"orders");
    assert_eq!(*"orders", key);
    assert_ne!(key, "order");
    assert_eq!(ShortStr::try_from("orders"), Ok(key));
    let long = "x".repeat(256);
    assert_eq!(ShortStr::try_from(long.as_str()), Err(EncodeError::StringTooLong(256)));
}

/// The formats are part of the interface: applications keep them in files.
#[cfg(feature = "serde")]
#[test]
fn tables_in_json_keep_their_types() {
    let table = FieldTable::from([
        ("bytes", FieldValue::Bytes(vec![1, 2])),
        ("decimal", Decimal { scale: 1, mantissa: 15 }.into()),
        ("latin", FieldValue::LongString(vec![0xe4])),
        ("list", vec![FieldValue::from(true), FieldValue::Void].into()),
        ("number", 10.into()),
        ("table", FieldTable::from([("text", "abc".into())]).into()),
    ]);
    let json = concat!(
        r#"{"bytes":{"bytes":[1,2]},"decimal":{"decimal":{"scale":1,"mantissa":15}},"#,
        r#""latin":{"long_string":[228]},"list":{"array":[{"bool":true},"void"]},"#,
        r#""number":{"i32":10},"table":{"table":{"text":{"long_string":"abc"}}}}"#,
    );
    assert_eq!(serde_json::to_string(&table).unwrap(), json);
    assert_eq!(serde_json::from_str::<FieldTable>(json).unwrap(), table);
    let bytes = postcard::to_allocvec(&table).unwrap();
    assert_eq!(postcard::from_bytes::<FieldTable>(&bytes).unwrap(), table);
    assert!(serde_json::from_str::<FieldTable>(r#"{"number":10}"#).is_err());
}

/// JSON has no infinite numbers. Decoded tables may.
#[cfg(feature = "serde")]
#[test]
fn numbers_that_are_not_finite_are_text_in_json() {
    for (value, json) in [
        (f64::INFINITY.into(), r#"{"f64":"inf"}"#),
        (f32::NEG_INFINITY.into(), r#"{"f32":"-inf"}"#),
        (FieldValue::from(1.0_f32), r#"{"f32":1.0}"#),
        (FieldValue::from(0.1_f32), r#"{"f32":0.1}"#),
        (FieldValue::from(f64::MIN_POSITIVE), r#"{"f64":2.2250738585072014e-308}"#),
    ] {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<FieldValue>(json).unwrap(), value);
        let bytes = postcard::to_allocvec(&value).unwrap();
        assert_eq!(postcard::from_bytes::<FieldValue>(&bytes).unwrap(), value);
    }
    let json = serde_json::to_string(&FieldValue::F64(f64::NAN)).unwrap();
    let read = serde_json::from_str(&json).unwrap();
    assert!(matches!(read, FieldValue::F64(number) if number.is_nan()), "{json}");
    assert!(serde_json::from_str::<FieldValue>(r#"{"f64":"one"}"#).is_err());
}

/// Fields of many types in one table.
#[test]
fn a_large_table() {
    let table = FieldTable::from([
        ("array", [1, 2, 3].map(FieldValue::from).to_vec().into()),
        ("boolval", true.into()),
        ("decimal", Decimal { scale: 2, mantissa: 314 }.into()),
        ("decimal_too", Decimal { scale: 0, mantissa: 100 }.into()),
        ("dictval", FieldTable::from([("foo", "bar".into())]).into()),
        ("intval", 1.into()),
        ("bigint", 2_592_000_000_i64.into()),
        ("longval", 912_598_613.into()),
        ("neg", (-1).into()),
        ("null", FieldValue::Void),
        ("strval", "Test".into()),
        ("timestampval", FieldValue::Timestamp(1_164_126_610)),
        ("unicode", "utf8=✓".into()),
        ("bytes", FieldValue::Bytes(vec![0, 1, 2, 3])),
    ]);
    table_vector(
        "000000df 056172726179 410000000f 4900000001 4900000002 4900000003 \
         07626f6f6c76616c 7401 07646563696d616c 44020000013a \
         0b646563696d616c5f746f6f 440000000064 \
         076469637476616c 460000000c 03666f6f 5300000003 626172 06696e7476616c 4900000001 \
         06626967696e74 6c000000009a7ec800 076c6f6e6776616c 4936652655 036e6567 49ffffffff \
         046e756c6c 56 0673747276616c 5300000004 54657374 \
         0c74696d657374616d7076616c 5400000000456329 92 07756e69636f6465 5300000008 \
         757466383de29c93 056279746573 7800000004 00010203",
        &table,
    );
}

#[test]
fn pk_103_short_strings() {
    assert_eq!(ShortStr::new(&"x".repeat(255)).unwrap().len(), 255);
    assert_eq!(ShortStr::new(&"x".repeat(256)), Err(EncodeError::StringTooLong(256)));
    let raw = [2, 0xff, 0xfe];
    let Ok(ok) = <basic::CancelOk<'_> as amqp_proto::method::WireMethod<'_>>::decode(&raw) else {
        panic!("bytes that are no UTF-8 stay bytes")
    };
    assert_eq!(ok.consumer_tag.as_bytes(), [0xff, 0xfe]);
    assert_eq!(ok.consumer_tag.as_str(), Err(Malformed::NotUtf8));
}

/// The short way and the long way lay down the same bytes.
#[test]
fn a_publish_at_one_go_is_a_publish() {
    let long_name = "k".repeat(255);
    let names = ["", "orders", &long_name];
    let bodies = [&b""[..], b"x", &[7; 4_095]];
    for (exchange, routing_key, body) in iter_product(names, bodies) {
        for (delivery_mode, flags) in [(None, 0), (Some(1), 1), (Some(2), 2), (None, 3)] {
            let publish = basic::Publish {
                exchange: ShortStr::new(exchange).unwrap(),
                routing_key: ShortStr::new(routing_key).unwrap(),
                mandatory: flags & 1 != 0,
                immediate: flags & 2 != 0,
                ..Default::default()
            };
            let (mut long, mut short) = (b"before".to_vec(), b"before".to_vec());
            frame::write_method(&mut long, 0x0102, &publish);
            let properties = PropertiesRef { delivery_mode, ..Default::default() };
            frame::write_header_ref(&mut long, 0x0102, body.len() as u64, &properties);
            if !body.is_empty() {
                frame::write_body(&mut long, 0x0102, body);
            }
            frame::write_publish(&mut short, 0x0102, &publish, delivery_mode, body);
            assert_eq!(short, long);
        }
    }
}

fn iter_product<'a>(
    names: [&'a str; 3],
    bodies: [&'a [u8]; 3],
) -> impl Iterator<Item = (&'a str, &'a str, &'a [u8])> {
    let pairs = names.into_iter().flat_map(move |one| names.map(|other| (one, other)));
    pairs.flat_map(move |(one, other)| bodies.map(|body| (one, other, body)))
}

/// An ack that was laid down becomes another.
#[test]
fn a_rewritten_ack_is_an_ack() {
    let (mut rewritten, mut fresh) = (Vec::new(), Vec::new());
    frame::write_method(&mut rewritten, 3, &basic::Ack { delivery_tag: 7, multiple: false });
    frame::write_method(&mut fresh, 3, &basic::Ack { delivery_tag: u64::MAX - 1, multiple: true });
    frame::rewrite_ack(&mut rewritten, u64::MAX - 1, true);
    assert_eq!(rewritten, fresh);
}

/// Frames that were laid down for one channel are sent on another.
#[test]
fn frames_can_be_moved_to_another_channel() {
    let frames = |channel| {
        let mut out = Vec::new();
        frame::write_method(&mut out, channel, &basic::Ack { delivery_tag: 7, multiple: false });
        frame::write_body(&mut out, channel, &[3, 0, 3, 0, 0, 0, 0]);
        out
    };
    let mut moved = frames(3);
    frame::set_channel(&mut moved, 0x0102);
    assert_eq!(moved, frames(0x0102));
    frame::set_channel(&mut moved[..5], 4);
    assert_eq!(moved, frames(0x0102), "no frame is complete");
}

/// Headers are for people to read, whatever a peer sent.
#[test]
fn tables_are_shown_as_they_read() {
    let table = FieldTable::from([
        ("x-retries", 3.into()),
        ("name", "a \"b\"".into()),
        ("raw", FieldValue::LongString(vec![0xff, b'a', 0])),
        ("bytes", FieldValue::Bytes(vec![1, b'z'])),
        ("list", vec![true.into(), FieldValue::Void, 1.5.into()].into()),
        ("inner", FieldTable::from([("at", FieldValue::Timestamp(7))]).into()),
        ("price", Decimal { scale: 2, mantissa: 1_234 }.into()),
    ]);
    let shown = r#"{"x-retries": 3, "name": "a \"b\"", "raw": b"\xffa\x00", "bytes": b"\x01z", "#
        .to_owned()
        + r#""list": [true, void, 1.5], "inner": {"at": timestamp 7}, "price": 1234e-2}"#;
    assert_eq!(format!("{table:?}"), shown);
    let mut bytes = Vec::new();
    table.encode(&mut bytes).unwrap();
    assert_eq!(format!("{:?}", RawTable::new(&bytes[4..])), shown);
    assert_eq!(format!("{:?}", RawTable::new(b"\x01")), r#"b"\x01""#);
    assert_eq!(format!("{:?}", FieldValue::I32(-1)), "-1");

    let properties = Properties::new().headers(FieldTable::from([("k", "v".into())]));
    let mut bytes = Vec::new();
    frame::write_header_ref(&mut bytes, 1, 0, &properties.view(&mut Vec::new()).unwrap());
    let raw = RawProperties::new(&bytes[19..bytes.len() - 1]);
    assert!(format!("{properties:?}").contains(r#"{"k": "v"}"#), "{properties:?}");
    assert!(format!("{raw:?}").contains(r#"{"k": "v"}"#), "{raw:?}");
}

#[test]
fn what_is_shown_of_a_table_is_bounded() {
    let many: FieldTable = (0..1_000).map(|at| (format!("k{at}"), at.into())).collect();
    let long = FieldTable::from([("k", "\u{e9}".repeat(1_000_000).into())]);
    for table in [many, long] {
        for shown in [format!("{table:?}"), format!("{table:#?}")] {
            assert!(shown.len() < 1_100 && shown.ends_with("..."), "{} bytes", shown.len());
        }
    }
}

/// A number as `serde_json` passes it with its feature `arbitrary_precision`: a map of one text.
#[cfg(feature = "serde")]
struct Digits(&'static str, &'static str);

#[cfg(feature = "serde")]
impl<'de> IntoDeserializer<'de> for Digits {
    type Deserializer = MapDeserializer<'de, IntoIter<(&'static str, &'static str)>, value::Error>;

    fn into_deserializer(self) -> Self::Deserializer {
        MapDeserializer::new(Some((self.0, self.1)).into_iter())
    }
}

#[cfg(feature = "serde")]
#[test]
fn numbers_are_read_with_arbitrary_precision_too() {
    let read = |tag: &'static str, key, digits| {
        let tagged = MapDeserializer::new(Some((tag, Digits(key, digits))).into_iter());
        FieldValue::deserialize(MapAccessDeserializer::new(tagged))
    };
    let key = "$serde_json::private::Number";
    for (tag, digits, expected) in [
        ("f64", "0.1", FieldValue::from(0.1_f64)),
        ("f64", "2.2250738585072014e-308", f64::MIN_POSITIVE.into()),
        ("f64", "7", 7.0_f64.into()),
        ("f32", "0.1", 0.1_f32.into()),
        ("f32", "-7", (-7.0_f32).into()),
    ] {
        assert_eq!(read(tag, key, digits), Ok(expected));
        assert!(read(tag, "another key", digits).is_err());
    }
    assert!(read("f64", key, "one").is_err());
    // Integers, which some formats write for whole numbers.
    for (json, expected) in [("7", 7.0), ("-7", -7.0)] {
        let read = serde_json::from_str::<FieldValue>(&format!(r#"{{"f64":{json}}}"#));
        assert_eq!(read.unwrap(), expected.into());
    }
}
