//! What a body announces costs nothing before it arrives: a list reserves 1 MiB at most, texts and bytes nothing.

use amqp_app::Payload;
use amqp_app::prelude::*;
use amqp_testkit::alloc::Region;

use crate::ALLOCATOR;

const LIST_BYTES: usize = 1 << 20;
/// The context, the failure and its text.
const BESIDE_BYTES: usize = 8 << 10;

/// Decodes a body that ends too early. Returns the bytes that were allocated on the way, freed ones too.
fn allocated<T: serde::de::DeserializeOwned>(content_type: &str, body: Vec<u8>) -> usize {
    let context = Context::of(Message::new(body).content_type(content_type));
    let region = Region::new(ALLOCATOR);
    let decoded = Payload::<T>::from_context(&context);
    let stats = region.change();
    assert!(decoded.is_err());
    stats.bytes_allocated
}

pub(crate) fn announced() {
    let cbor = |head: u8, length: u64| [&[head][..], &length.to_be_bytes()].concat();
    let msgpack = |head: u8, length: u32| [&[head][..], &length.to_be_bytes()].concat();
    for length in [u32::MAX, 1 << 31, 1 << 24] {
        for wide in [u64::from(length), u64::from(length) << 31] {
            let list = allocated::<Vec<u64>>("application/cbor", cbor(0x9b, wide));
            assert!(list <= LIST_BYTES + BESIDE_BYTES, "{list}");
            let text = allocated::<String>("application/cbor", cbor(0x7b, wide));
            assert!(text <= BESIDE_BYTES, "{text}");
            let bytes = allocated::<Vec<u8>>("application/cbor", cbor(0x5b, wide));
            assert!(bytes <= BESIDE_BYTES, "{bytes}");
        }
        let list = allocated::<Vec<u64>>("application/msgpack", msgpack(0xdd, length));
        assert!(list <= LIST_BYTES + BESIDE_BYTES, "{list}");
        let text = allocated::<String>("application/msgpack", msgpack(0xdb, length));
        assert!(text <= BESIDE_BYTES, "{text}");
        let bytes = allocated::<String>("application/msgpack", msgpack(0xc6, length));
        assert!(bytes <= BESIDE_BYTES, "{bytes}");
    }
}
