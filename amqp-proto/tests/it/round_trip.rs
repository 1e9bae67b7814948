//! decode(encode(value)) == value, for every method and every value that can be built.

use amqp_proto::method::{Domain, Method, TABLE};
use amqp_proto::{
    Decimal, FieldTable, FieldValue, Properties, RawProperties, RawTable, TABLE_DEPTH_MAX,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

fn value() -> impl Strategy<Value = FieldValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        proptest::num::f32::NORMAL.prop_map(FieldValue::F32),
        proptest::num::f64::NORMAL.prop_map(FieldValue::F64),
        (any::<u8>(), any::<i32>())
            .prop_map(|(scale, mantissa)| FieldValue::Decimal(Decimal { scale, mantissa })),
        vec(any::<u8>(), 0..40).prop_map(FieldValue::LongString),
        vec(any::<u8>(), 0..40).prop_map(FieldValue::Bytes),
        any::<u64>().prop_map(FieldValue::Timestamp),
        Just(FieldValue::Void),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(FieldValue::Array),
            table_of(inner).prop_map(FieldValue::Table),
        ]
    })
}

fn table_of(values: impl Strategy<Value = FieldValue>) -> impl Strategy<Value = FieldTable> {
    vec((".{0,20}", values), 0..6).prop_map(FieldTable::from_iter)
}

fn properties() -> impl Strategy<Value = Properties> {
    let text = || of(".{0,20}");
    let texts = (text(), text(), text(), text(), text(), text(), text(), text(), text(), text());
    let rest = (of(table_of(value())), of(any::<u8>()), of(any::<u8>()), of(any::<u64>()));
    (texts, rest).prop_map(|(texts, (headers, delivery_mode, priority, timestamp))| {
        let mut properties = Properties::new();
        properties.content_type = texts.0;
        properties.content_encoding = texts.1;
        properties.correlation_id = texts.2;
        properties.reply_to = texts.3;
        properties.expiration = texts.4;
        properties.message_id = texts.5;
        properties.kind = texts.6;
        properties.user_id = texts.7;
        properties.app_id = texts.8;
        properties.cluster_id = texts.9;
        properties.headers = headers;
        properties.delivery_mode = delivery_mode;
        properties.priority = priority;
        properties.timestamp = timestamp;
        properties
    })
}

#[cfg(feature = "serde")]
proptest! {
    #[test]
    fn properties_through_serde(properties in properties()) {
        let json = serde_json::to_string(&properties).unwrap();
        assert_eq!(serde_json::from_str::<Properties>(&json).unwrap(), properties);
        let bytes = postcard::to_allocvec(&properties).unwrap();
        assert_eq!(postcard::from_bytes::<Properties>(&bytes).unwrap(), properties);
    }
}

proptest! {
    #[test]
    fn tables(table in table_of(value())) {
        let mut wire = Vec::new();
        table.encode(&mut wire).unwrap();
        assert_eq!(RawTable::new(&wire[4..]).decode(TABLE_DEPTH_MAX).unwrap(), table);
    }

    #[test]
    fn message_properties(properties in properties()) {
        let mut wire = Vec::new();
        properties.encode(&mut wire).unwrap();
        let borrowed = RawProperties::new(&wire).decode().unwrap();
        assert_eq!(borrowed.to_owned(TABLE_DEPTH_MAX).unwrap(), properties);
        let mut again = Vec::new();
        borrowed.encode(&mut again);
        assert_eq!(again, wire);
    }

    /// The arguments of every method in turn, from the table itself: any bits, numbers and texts.
    #[test]
    fn methods(seed in vec(any::<u8>(), 256)) {
        for spec in TABLE {
            let mut wire = Vec::new();
            wire.extend(spec.id.class.to_be_bytes());
            wire.extend(spec.id.method.to_be_bytes());
            let mut random = seed.iter().copied().cycle();
            let mut bits = 0;
            for field in spec.fields {
                let octet = if field.reserved { 0 } else { random.next().unwrap() };
                if field.domain != Domain::Bit {
                    bits = 0;
                }
                match field.domain {
                    Domain::Bit => {
                        if bits % 8 == 0 {
                            wire.push(0);
                        }
                        *wire.last_mut().unwrap() |= (octet & 1) << (bits % 8);
                        bits += 1;
                    }
                    Domain::Octet => wire.push(octet),
                    Domain::Short => wire.extend([octet; 2]),
                    Domain::Long => wire.extend([octet; 4]),
                    Domain::LongLong => wire.extend([octet; 8]),
                    Domain::ShortStr => {
                        wire.push(octet);
                        wire.extend(random.by_ref().take(octet.into()));
                    }
                    Domain::LongStr | Domain::Table => {
                        wire.extend(u32::from(octet).to_be_bytes());
                        wire.extend(random.by_ref().take(octet.into()));
                    }
                    unknown => panic!("no test for {unknown:?}"),
                }
            }
            let method = Method::decode(&wire).unwrap();
            assert_eq!(method.id(), spec.id);
            assert_eq!(method.has_content(), spec.content);
            let mut again = Vec::new();
            method.encode(&mut again);
            assert_eq!(again, wire, "{}", spec.id);

            for length in 4..wire.len() {
                assert!(Method::decode(&wire[..length]).is_err(), "{} cut short", spec.id);
            }
            wire.push(0);
            assert!(Method::decode(&wire).is_err(), "{} with a byte left over", spec.id);
        }
    }
}
