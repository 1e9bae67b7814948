use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::Method;
use amqp_core::proto::{ContentHeader, RawProperties, RawTable, TABLE_DEPTH_MAX};
use amqp_core::{AmqpUri, Config};

/// Frames cut from a stream: the same ones however it is fed, and never more than there was.
pub fn frame(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    let pieces = frames(stream, usize::from(*step).max(1));
    assert_eq!(whole, pieces, "another chunking gives other frames");
    for (kind, payload) in &whole.0 {
        match kind {
            FrameKind::Method => method(payload),
            FrameKind::Header => {
                if let Ok(header) = ContentHeader::decode(payload) {
                    let mut again = Vec::new();
                    header.encode(&mut again);
                    // The weight is not kept.
                    assert_eq!(again[..2], payload[..2]);
                    assert_eq!(again[4..], payload[4..]);
                    properties(header.properties.as_bytes());
                }
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
}

/// The frames of a stream that arrives `step` bytes at a time, and whether it went wrong.
fn frames(stream: &[u8], step: usize) -> (Vec<(FrameKind, Vec<u8>)>, bool) {
    let (mut input, mut found) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match frame::peek(&input, FrameLimits::default()) {
                Ok(Peek::Complete(frame)) => {
                    found.push((frame.kind, frame.payload.to_vec()));
                    let length = frame.frame_len();
                    input.drain(..length);
                }
                Ok(Peek::Incomplete(missing)) => {
                    assert!(missing > 0);
                    break;
                }
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// A method that can be decoded is the same after encoding and decoding again.
pub fn method(data: &[u8]) {
    let Ok(method) = Method::decode(data) else { return };
    let mut encoded = Vec::new();
    method.encode(&mut encoded);
    // What is reserved is read whatever it holds, and written empty.
    assert!(encoded.len() <= data.len(), "{method:?}");
    assert_eq!(Method::decode(&encoded), Ok(method));
}

/// A table is checked as it is decoded; what can be encoded is the same when it is decoded again.
pub fn table(data: &[u8]) {
    let raw = RawTable::new(data);
    let decoded = raw.decode(TABLE_DEPTH_MAX);
    assert_eq!(raw.check(TABLE_DEPTH_MAX), decoded.as_ref().map(|_| ()).map_err(|error| *error));
    let Ok(table) = decoded else { return };
    let mut encoded = Vec::new();
    // Numbers that are not finite are read and never written.
    if table.encode(&mut encoded).is_ok() {
        assert_eq!(encoded.len(), data.len() + 4);
        assert_eq!(RawTable::new(&encoded[4..]).decode(TABLE_DEPTH_MAX), Ok(table));
    }
}

/// Properties are checked as they are decoded; what can be encoded is the same when it is decoded
/// again.
pub fn properties(data: &[u8]) {
    let Ok(view) = RawProperties::new(data).decode() else { return };
    let owned = view.to_owned(TABLE_DEPTH_MAX);
    assert_eq!(view.check(TABLE_DEPTH_MAX), owned.as_ref().map(|_| ()).map_err(|error| *error));
    let mut again = Vec::new();
    view.encode(&mut again);
    assert_eq!(again, data);
    if let Some(headers) = view.headers {
        table(headers.as_bytes());
    }
    let Ok(owned) = owned else { return };
    let mut encoded = Vec::new();
    if owned.encode(&mut encoded).is_ok() {
        let view = RawProperties::new(&encoded).decode().expect("it was encoded");
        assert_eq!(view.to_owned(TABLE_DEPTH_MAX), Ok(owned));
    }
}

/// A URI is read or refused; neither shows its password.
pub fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let canary = "hunter2hunter2";
    match text.parse::<AmqpUri>() {
        Ok(uri) => {
            assert!(!uri.hosts.is_empty());
            assert!(uri.hosts.iter().all(|(host, port)| *port > 0 && !host.is_empty()));
            assert_eq!(uri.to_string_with_password().parse().as_ref(), Ok(&uri));
            let config = Config::from(uri);
            if let Some(rest) = text.strip_prefix("amqp://user:hunter2hunter2@") {
                // Hosts are lower-cased and decoded: the text may come from there.
                let elsewhere = rest.contains('%') || rest.to_ascii_lowercase().contains(canary);
                assert!(elsewhere || !format!("{config:?}").contains(canary));
            }
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            // The name of a query parameter alone may be shown, decoded.
            let query = text.split_once('?').map_or("", |(_, query)| query);
            let in_query = query.contains('%') || query.contains(canary);
            assert!(in_query || !shown.contains(canary), "{shown}");
        }
    }
}
