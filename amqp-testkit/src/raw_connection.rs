//! One end of an AMQP connection, played by a test frame by frame and byte by byte.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::{Method, MethodId, WireMethod, channel, connection};
use amqp_proto::{
    ContentHeader, FieldTable, FieldValue, PROTOCOL_HEADER, RawProperties, RawTable, ShortStr,
};

/// A connection of which the test plays one end, the client's or the broker's. It can send anything, also what a correct
/// peer never sends.
///
/// Methods panic where a test cannot go on, and say what they waited for.
///
/// ```
/// use amqp_testkit::{ModelBroker, RawConnection};
/// let broker = ModelBroker::start()?;
/// let mut wire = RawConnection::connect(broker.port());
/// wire.log_in(9);
/// wire.send(1, &amqp_proto::method::channel::Close::default());
/// wire.expect("channel.CloseOk");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A frame that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedFrame {
    /// The kind of the frame.
    pub kind: FrameKind,
    /// The channel's number.
    pub channel: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

impl ReceivedFrame {
    /// Decodes the method. `None` if the frame is of another kind, or the method is unknown.
    pub fn method(&self) -> Option<Method<'_>> {
        (self.kind == FrameKind::Method).then(|| Method::decode(&self.payload).ok())?
    }

    /// Returns a method's name, such as `basic.Publish`, or the kind of another frame.
    pub fn name(&self) -> String {
        match self.kind {
            FrameKind::Method => match MethodId::split(&self.payload) {
                Ok((id, _)) => format!("{id:?}"),
                Err(_) => "a method without an id".into(),
            },
            kind => format!("{kind:?}"),
        }
    }
}

impl RawConnection {
    /// Wraps a connected socket. Reads have a timeout of 20 s.
    ///
    /// # Panics
    /// If the socket's options cannot be set.
    pub fn new(stream: TcpStream) -> Self {
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(20))));
        set.unwrap_or_else(|error| panic!("a socket's options: {error}"));
        Self { stream, input: Vec::new() }
    }

    /// Connects to a port of 127.0.0.1, as a client. Nothing is sent yet.
    ///
    /// # Panics
    /// If the connection is refused.
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port));
        Self::new(stream.unwrap_or_else(|error| panic!("port {port}: {error}")))
    }

    /// Plays a client's part of the handshake, as `guest` on the virtual host `/`, with at most
    /// `channel_max` channels, and opens channel 1. Returns the broker's `connection.start` and `connection.tune`.
    ///
    /// # Panics
    /// If the broker does not keep to the handshake.
    pub fn log_in(&mut self, channel_max: u16) -> (ReceivedFrame, connection::Tune) {
        let capabilities =
            ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify"];
        let start = self.begin_login("guest", &capabilities);
        let tune = self.expect("connection.Tune");
        let Some(Method::ConnectionTune(tune)) = tune.method() else { panic!("{tune:?}") };
        let (channel_max, frame_max) = (channel_max.min(tune.channel_max), tune.frame_max);
        self.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        self.send(0, &connection::Open { virtual_host: short("/"), ..Default::default() });
        self.expect("connection.OpenOk");
        self.send(1, &channel::Open::default());
        self.expect("channel.OpenOk");
        (start, tune)
    }

    /// Sends the protocol header and `connection.start-ok`, with the user `guest`, this password and these
    /// capabilities. Returns the broker's `connection.start`.
    ///
    /// # Panics
    /// If the broker does not send `connection.start`.
    pub fn begin_login(&mut self, password: &str, capabilities: &[&str]) -> ReceivedFrame {
        self.send_bytes(&PROTOCOL_HEADER);
        let start = self.expect("connection.Start");
        let capabilities: FieldTable =
            capabilities.iter().map(|name| (*name, FieldValue::Bool(true))).collect();
        let properties = FieldTable::from([("capabilities", capabilities.into())]);
        let mut table = Vec::new();
        let encoded = properties.encode(&mut table);
        encoded.unwrap_or_else(|error| panic!("client properties: {error}"));
        let response = format!("\0guest\0{password}");
        let start_ok = connection::StartOk {
            client_properties: RawTable::new(&table[4..]),
            mechanism: short("PLAIN"),
            response: response.as_bytes(),
            locale: short("en_US"),
        };
        self.send(0, &start_ok);
        start
    }

    /// Plays a broker's part of the handshake, offering `tune`.
    ///
    /// # Panics
    /// If the client does not keep to the handshake.
    pub fn accept(&mut self, tune: connection::Tune) {
        let header = self.take(PROTOCOL_HEADER.len());
        assert_eq!(header, PROTOCOL_HEADER, "the protocol header");
        self.send(0, &start());
        self.expect("connection.StartOk");
        self.send(0, &tune);
        self.expect("connection.TuneOk");
        self.expect("connection.Open");
        self.send(0, &connection::OpenOk::default());
    }

    /// Sends a method.
    ///
    /// # Panics
    /// If the peer has closed the connection.
    pub fn send<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        self.send_bytes(&bytes);
    }

    /// Sends a content header with these properties (flags and values), and the body in one frame unless it is empty.
    ///
    /// # Panics
    /// If the peer has closed the connection.
    pub fn send_content(&mut self, channel: u16, properties: &[u8], body: &[u8]) {
        let properties = RawProperties::new(properties);
        let header = ContentHeader { class_id: 60, body_size: body.len() as u64, properties };
        let mut bytes = Vec::new();
        frame::write_header(&mut bytes, channel, &header);
        if !body.is_empty() {
            frame::write_body(&mut bytes, channel, body);
        }
        self.send_bytes(&bytes);
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// If the peer has closed the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = self.stream.write_all(bytes);
        sent.unwrap_or_else(|error| panic!("{} bytes to a peer: {error}", bytes.len()));
    }

    /// Sends bytes. Returns whether the socket took them.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads and drops frames up to a method of this name, such as `basic.Publish`. Returns that frame.
    ///
    /// # Panics
    /// If the peer closes, or sends nothing for 20 s.
    pub fn expect(&mut self, name: &str) -> ReceivedFrame {
        let mut last = String::new();
        while let Some(frame) = self.next_frame() {
            if frame.name() == name {
                return frame;
            }
            last = frame.name();
        }
        panic!("the peer closed the connection before {name}; its last frame was {last:?}")
    }

    /// Reads and drops frames up to a close of the channel or the connection. Returns its code, and its text with
    /// `channel: ` or `connection: ` in front.
    ///
    /// # Panics
    /// If the peer disconnects without one, or sends nothing for 20 s.
    pub fn expect_refusal(&mut self) -> (u16, String) {
        let mut last = String::new();
        while let Some(frame) = self.next_frame() {
            match frame.method() {
                Some(Method::ChannelClose(close)) => {
                    return (close.reply_code, format!("channel: {}", close.reply_text));
                }
                Some(Method::ConnectionClose(close)) => {
                    return (close.reply_code, format!("connection: {}", close.reply_text));
                }
                _ => last = frame.name(),
            }
        }
        panic!("the peer closed the connection without a reason; its last frame was {last:?}")
    }

    /// Reads the next frame. `None` if the peer has closed the connection.
    ///
    /// # Panics
    /// If the bytes are not a frame, or nothing comes for 20 s.
    pub fn next_frame(&mut self) -> Option<ReceivedFrame> {
        loop {
            match frame::peek(&self.input, FrameLimits::default()) {
                Ok(Peek::Complete(found)) => {
                    let received = ReceivedFrame {
                        kind: found.kind,
                        channel: found.channel,
                        payload: found.payload.to_vec(),
                    };
                    let length = found.frame_len();
                    self.input.drain(..length);
                    return Some(received);
                }
                Ok(Peek::Incomplete(_)) => {}
                Err(error) => panic!("the peer sent bytes that are not a frame: {error}"),
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// Reads everything until the peer closes the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.input)
    }

    /// Reads until the peer closes the connection, and drops what it reads.
    pub fn discard_to_end(&mut self) {
        while self.read() {
            self.input.clear();
        }
    }

    /// Returns whether nothing comes within this time, not even the end of the stream.
    ///
    /// # Panics
    /// If the socket's options cannot be set.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        let set = |wire: &Self, time| {
            let set = wire.stream.set_read_timeout(Some(time));
            set.unwrap_or_else(|error| panic!("a socket's options: {error}"));
        };
        set(self, time);
        let silent = self.input.is_empty()
            && self.stream.peek(&mut [0]).is_err_and(|error| is_timeout(&error));
        set(self, Duration::from_secs(20));
        silent
    }

    /// Reads exactly this many bytes.
    ///
    /// # Panics
    /// If the peer closes the connection before.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(
                self.read(),
                "the peer closed the connection after {} of {count} bytes",
                self.input.len()
            );
        }
        self.input.drain(..count).collect()
    }

    /// Reads once. Returns false at the end of the stream.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if is_timeout(&error) => {
                panic!("nothing from the peer for 20 s")
            }
            // A reset counts as the end of the stream.
            Err(_) => false,
        }
    }
}

/// Returns a minimal `connection.start`: AMQP 0-9-1, `PLAIN`, no properties.
pub fn start() -> connection::Start<'static> {
    connection::Start {
        version_minor: 9,
        mechanisms: b"PLAIN",
        locales: b"en_US",
        ..Default::default()
    }
}

/// Returns encoded properties (flags and values) whose headers are tables nested `levels` deep.
pub fn nested_headers(levels: usize) -> Vec<u8> {
    let length = |table: &[u8]| u32::try_from(table.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut table = Vec::new();
    for _ in 1..levels {
        table = [&[1, b'a', b'F'], &length(&table)[..], &table].concat();
    }
    [&[0x20, 0], &length(&table)[..], &table].concat()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn short(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap_or_default()
}
