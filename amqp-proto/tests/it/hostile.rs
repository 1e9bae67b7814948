//! Bytes from a peer that means harm, or has no idea: typed errors, no panic, no deep recursion.

use amqp_proto::frame::{self, FrameLimits};
use amqp_proto::method::Method;
use amqp_proto::{
    ContentHeader, EncodeError, FieldTable, FieldValue, Malformed, RawProperties, RawTable,
    TABLE_DEPTH_MAX,
};
use proptest::collection::vec;
use proptest::prelude::{any, proptest};

/// `levels` tables in one another, as raw bytes.
fn nested_tables(levels: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 1..levels {
        let mut outer = vec![1, b'a', b'F'];
        outer.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        outer.append(&mut table);
        table = outer;
    }
    table
}

#[test]
fn depth_is_limited_both_ways() {
    let deepest = nested_tables(TABLE_DEPTH_MAX);
    let table = RawTable::new(&deepest).decode(TABLE_DEPTH_MAX).unwrap();
    table.encode(&mut Vec::new()).unwrap();

    let too_deep = nested_tables(TABLE_DEPTH_MAX + 1);
    let error = RawTable::new(&too_deep).decode(TABLE_DEPTH_MAX);
    assert_eq!(error, Err(Malformed::TooDeep));
    let one_more = FieldTable::from([("a", FieldValue::Table(table))]);
    assert_eq!(one_more.encode(&mut Vec::new()), Err(EncodeError::TooDeep));

    let absurd = nested_tables(3_000);
    assert!(RawTable::new(&absurd).decode(TABLE_DEPTH_MAX).is_err());
}

#[test]
fn lengths_beyond_the_bytes_are_cut_short() {
    for kind in [b'S', b'x', b'A', b'F'] {
        let field = [1, b'a', kind, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(RawTable::new(&field).decode(TABLE_DEPTH_MAX), Err(Malformed::Truncated));
    }
}

#[test]
fn property_flags_that_name_no_property_are_refused() {
    for bit in 0..2 {
        let flags = (1_u16 << bit).to_be_bytes();
        let error = RawProperties::new(&flags).decode();
        assert_eq!(error, Err(Malformed::UnknownPropertyFlags(1 << bit)));
    }
}

#[test]
fn a_header_with_weight_is_read() {
    let header = ContentHeader::decode(&[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0]).unwrap();
    assert_eq!(header.body_size, 5);
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..400), length in 0..400_usize) {
        let _ = frame::peek(&bytes, FrameLimits::default());
        let _ = Method::decode(&bytes);
        let _ = RawTable::new(&bytes).decode(TABLE_DEPTH_MAX);
        if let Ok(properties) = RawProperties::new(&bytes).decode() {
            let _ = properties.to_owned(TABLE_DEPTH_MAX);
        }
        if let Ok(header) = ContentHeader::decode(&bytes) {
            let mut again = Vec::new();
            header.encode(&mut again);
            assert_eq!(again.len(), bytes.len());
        }
        // A valid table cut anywhere is an error or a shorter valid table, never a panic.
        let mut table = Vec::new();
        FieldTable::from([("a", FieldValue::Bytes(bytes))]).encode(&mut table).unwrap();
        let _ = RawTable::new(&table[4..length.clamp(4, table.len())]).decode(TABLE_DEPTH_MAX);
    }
}

/// The fields of a table as they stand are the table, or end with the first error.
#[test]
fn fields_are_pieces_of_the_table() {
    let every_type = b"\x01at\x01\x01bb\xff\x01BB\xff\x01ss\0\x01\x01uu\0\x01\x01UU\0\x01\x01II\0\0\0\x01\
        \x01ii\0\0\0\x01\x01ff\0\0\0\x01\x01ll\0\0\0\0\0\0\0\x01\x01LL\0\0\0\0\0\0\0\x01\x01dd\0\0\0\0\0\0\0\x01\
        \x01TT\0\0\0\0\0\0\0\x01\x01DD\x02\0\0\0\x01\x01SS\0\0\0\x01x\x01xx\0\0\0\x01x\x01AA\0\0\0\x01V\
        \x01FF\0\0\0\x03\x01nV\x01VV";
    let fields: Vec<_> = RawTable::new(every_type).fields().collect::<Result<_, _>>().unwrap();
    let names: String = fields.iter().map(|field| field.name.as_str().unwrap()).collect();
    assert_eq!(names, "abBsuUIiflLdTDSxAFV");
    let bytes: Vec<u8> = fields.iter().flat_map(|field| field.bytes).copied().collect();
    assert_eq!(bytes, every_type);

    let cut = RawTable::new(b"\x01aV\x01bI\0\0").fields().collect::<Vec<_>>();
    assert_eq!(cut.len(), 2);
    assert_eq!(cut[1], Err(Malformed::Truncated));
    let unknown = RawTable::new(b"\x01aZ\x01bV").fields().collect::<Vec<_>>();
    assert_eq!(unknown, [Err(Malformed::UnknownFieldType(b'Z'))]);
    assert_eq!(RawTable::new(b"").fields().count(), 0);
    // Nesting costs nothing.
    let absurd = nested_tables(3_000);
    assert_eq!(RawTable::new(&absurd).fields().collect::<Result<Vec<_>, _>>().unwrap().len(), 1);
}

proptest! {
    #[test]
    fn fields_of_any_bytes_end(bytes in vec(any::<u8>(), 0..200)) {
        let fields = RawTable::new(&bytes).fields().collect::<Result<Vec<_>, _>>();
        if let Ok(fields) = fields {
            let all: Vec<u8> = fields.iter().flat_map(|field| field.bytes).copied().collect();
            assert_eq!(all, bytes);
        }
    }
}
