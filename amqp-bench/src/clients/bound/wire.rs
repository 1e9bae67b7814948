//! A connection with channel 1 open: frames laid out by hand, and parsed by hand.

use crate::outcome::Failure;
use crate::socket::{self, Socket};
use crate::workload::QUEUE;

/// Bytes that are written at once.
const WRITE_AT: usize = 64 << 10;
/// Bytes that are read at once.
const READ: usize = 256 << 10;
/// What a frame has around its payload.
const OVERHEAD: usize = 8;
const FRAME_END: u8 = 0xce;
/// The negotiated number of channels.
const CHANNEL_MAX: u16 = 255;
/// The negotiated frame size.
const FRAME_MAX: u32 = 131_072;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Class and method of a payload.
pub(super) type Id = [u8; 4];
const START: Id = [0, 10, 0, 10];
const TUNE: Id = [0, 10, 0, 30];
const OPEN_OK: Id = [0, 10, 0, 41];
const CLOSE_OK: Id = [0, 10, 0, 51];
const CHANNEL_OPEN_OK: Id = [0, 20, 0, 11];
const DECLARE_OK: Id = [0, 50, 0, 11];
const DELIVER: Id = [0, 60, 0, 60];
const ACK: Id = [0, 60, 0, 80];
pub(super) const QOS_OK: Id = [0, 60, 0, 11];
pub(super) const CONSUME_OK: Id = [0, 60, 0, 21];
pub(super) const CONFIRM_SELECT_OK: Id = [0, 85, 0, 11];

/// `confirm.select`, with an answer.
pub(super) const CONFIRM_SELECT: &[u8] = &[1, 0, 1, 0, 0, 0, 5, 0, 85, 0, 10, 0, FRAME_END];

/// What came, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Ack {
        tag: u64,
        multiple: bool,
    },
    Delivery {
        tag: u64,
        size: u64,
    },
    /// An answer, and where its arguments lie.
    Method {
        id: Id,
        arguments_at: usize,
    },
}

/// What a queue has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) consumers: u64,
}

pub(super) struct Wire {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
    /// What of the input is parsed, and what is filled.
    at: usize,
    filled: usize,
    output: Vec<u8>,
}

impl Wire {
    /// Connects as the default user, and opens channel 1.
    pub(super) fn connect(uri: &str) -> Result<Self, Failure> {
        let mut wire = Self::open(uri)?;
        wire.call(&method(1, &[0, 20, 0, 10, 0]), CHANNEL_OPEN_OK)?;
        Ok(wire)
    }

    /// Connects as the default user.
    pub(super) fn open(uri: &str) -> Result<Self, Failure> {
        let socket = socket::connect(uri)?;
        let output = Vec::with_capacity(2 * WRITE_AT);
        let mut wire = Self { socket, input: vec![0; READ], at: 0, filled: 0, output };
        wire.lay(b"AMQP\0\0\x09\x01")?;
        wire.flush()?;
        wire.expect(START)?;
        let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0];
        short(&mut start_ok, "PLAIN");
        let response = b"\0guest\0guest";
        start_ok.extend_from_slice(&(response.len() as u32).to_be_bytes());
        start_ok.extend_from_slice(response);
        short(&mut start_ok, "en_US");
        wire.call(&method(0, &start_ok), TUNE)?;
        let mut tune_ok = vec![0, 10, 0, 31];
        tune_ok.extend_from_slice(&CHANNEL_MAX.to_be_bytes());
        tune_ok.extend_from_slice(&FRAME_MAX.to_be_bytes());
        tune_ok.extend_from_slice(&[0, 0]);
        wire.lay(&method(0, &tune_ok))?;
        wire.call(&method(0, b"\0\x0a\0\x28\x01/\0\0"), OPEN_OK)?;
        Ok(wire)
    }

    /// Closes the connection in good order.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.call(&method(0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]), CLOSE_OK)
    }

    /// Lays down frames, and writes when there are enough.
    #[inline]
    pub(super) fn lay(&mut self, frames: &[u8]) -> Result<(), Failure> {
        self.output.extend_from_slice(frames);
        if self.output.len() >= WRITE_AT {
            self.flush()?;
        }
        Ok(())
    }

    /// Lays down a message, and writes when there is enough.
    #[inline]
    pub(super) fn publish(&mut self, body: &[u8]) -> Result<(), Failure> {
        publish(&mut self.output, body);
        if self.output.len() >= WRITE_AT {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.socket.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Sends a method and waits for its answer.
    pub(super) fn call(&mut self, frame: &[u8], answer: Id) -> Result<(), Failure> {
        self.lay(frame)?;
        self.flush()?;
        self.expect(answer).map(drop)
    }

    /// Asks for a queue.
    pub(super) fn declare_passive(&mut self, queue: &str) -> Result<Counts, Failure> {
        let mut declare = vec![0, 50, 0, 10, 0, 0];
        short(&mut declare, queue);
        declare.extend_from_slice(&[1, 0, 0, 0, 0]);
        self.lay(&method(1, &declare))?;
        self.flush()?;
        let at = self.expect(DECLARE_OK)?;
        let counts_at = at + 1 + usize::from(self.input[at]);
        let counts = self.input.get(counts_at..).and_then(<[u8]>::first_chunk);
        let [m0, m1, m2, m3, c0, c1, c2, c3] = *counts.ok_or("a short answer")?;
        let messages = u32::from_be_bytes([m0, m1, m2, m3]).into();
        Ok(Counts { messages, consumers: u32::from_be_bytes([c0, c1, c2, c3]).into() })
    }

    /// Whether what was read goes on.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.at < self.filled
    }

    /// The next thing that is whole, read if need be.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Arrived, Failure> {
        let (start, end) = self.frame(METHOD)?;
        let payload = &self.input[start..end];
        let Some((&id, arguments)) = payload.split_first_chunk() else {
            return Err("a short method".into());
        };
        match id {
            ACK => match *arguments {
                [t0, t1, t2, t3, t4, t5, t6, t7, multiple] => Ok(Arrived::Ack {
                    tag: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
                    multiple: multiple & 1 == 1,
                }),
                _ => Err("a malformed ack".into()),
            },
            DELIVER => {
                let tag = delivery_tag(arguments).ok_or("a malformed delivery")?;
                let (start, end) = self.frame(HEADER)?;
                let size = header_size(&self.input[start..end]).ok_or("a malformed header")?;
                let mut left = size;
                while left > 0 {
                    let (start, end) = self.frame(BODY)?;
                    left = left.checked_sub((end - start) as u64).ok_or("a body too long")?;
                }
                Ok(Arrived::Delivery { tag, size })
            }
            id => Ok(Arrived::Method { id, arguments_at: start + 4 }),
        }
    }

    /// Reads an answer. Returns where its arguments are.
    pub(super) fn expect(&mut self, answer: Id) -> Result<usize, Failure> {
        match self.next()? {
            Arrived::Method { id, arguments_at } if id == answer => Ok(arguments_at),
            other => Err(format!("{other:?} instead of {answer:?}").into()),
        }
    }

    /// The next frame, which must be of that kind; returns where its payload lies.
    #[inline]
    fn frame(&mut self, kind: u8) -> Result<(usize, usize), Failure> {
        loop {
            let rest = &self.input[self.at..self.filled];
            if let [found, _, _, s0, s1, s2, s3, ..] = *rest {
                let size = u32::from_be_bytes([s0, s1, s2, s3]);
                if size > FRAME_MAX {
                    return Err(format!("a frame of {size} B").into());
                }
                let size = size as usize;
                if let Some(&end) = rest.get(size + OVERHEAD - 1) {
                    if found != kind || end != FRAME_END {
                        return Err(format!("a frame {found} instead of {kind}").into());
                    }
                    let start = self.at + OVERHEAD - 1;
                    self.at += size + OVERHEAD;
                    return Ok((start, start + size));
                }
            }
            self.read()?;
        }
    }

    #[cold]
    fn read(&mut self) -> Result<(), Failure> {
        self.input.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
        match self.socket.read(&mut self.input[self.filled..])? {
            0 => Err("the connection was closed".into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

/// Lays down a whole message to the queue, field by field.
#[inline]
fn publish(out: &mut Vec<u8>, body: &[u8]) {
    let key = QUEUE.as_bytes();
    let size = 4 + 2 + 1 + 1 + key.len() + 1;
    out.extend_from_slice(&[METHOD, 0, 1, 0, 0, 0, size as u8, 0, 60, 0, 40, 0, 0, 0]);
    out.push(key.len() as u8);
    out.extend_from_slice(key);
    out.extend_from_slice(&[0, FRAME_END, HEADER, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0]);
    out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(&[0, 0, FRAME_END]);
    for piece in body.chunks(FRAME_MAX as usize - OVERHEAD) {
        frame(out, BODY, 1, piece);
    }
}

/// `basic.consume` of the queue.
pub(super) fn consume(no_ack: bool) -> Vec<u8> {
    let mut arguments = vec![0, 60, 0, 20, 0, 0];
    short(&mut arguments, QUEUE);
    short(&mut arguments, "bound");
    arguments.extend_from_slice(&[u8::from(no_ack) << 1, 0, 0, 0, 0]);
    method(1, &arguments)
}

pub(super) fn qos(prefetch: u16) -> Vec<u8> {
    let [high, low] = prefetch.to_be_bytes();
    method(1, &[0, 60, 0, 10, 0, 0, 0, 0, high, low, 0])
}

/// `basic.ack` of one delivery.
#[inline]
pub(super) const fn ack(tag: u64) -> [u8; 21] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tag.to_be_bytes();
    [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, t0, t1, t2, t3, t4, t5, t6, t7, 0, FRAME_END]
}

fn method(channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, METHOD, channel, payload);
    out
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u8, payload: &[u8]) {
    out.extend_from_slice(&[kind, 0, channel]);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Behind the consumer's tag.
#[inline]
fn delivery_tag(arguments: &[u8]) -> Option<u64> {
    let (&length, rest) = arguments.split_first()?;
    Some(u64::from_be_bytes(*rest.get(usize::from(length)..)?.first_chunk()?))
}

/// Behind class and weight.
#[inline]
fn header_size(header: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*header.get(4..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use amqp_proto::frame::{self, FrameLimits, Peek};
    use amqp_proto::method::Method;

    use super::{CONFIRM_SELECT, ack, consume, publish, qos};

    #[test]
    fn what_is_laid_by_hand_is_what_the_codec_reads() {
        let read = |bytes: &[u8], expected: &str| match frame::peek(bytes, FrameLimits::default()) {
            Ok(Peek::Complete(found)) => {
                let method = format!("{:?}", Method::decode(found.payload));
                assert!(method.contains(expected), "{method} instead of {expected}");
                assert_eq!(found.channel, 1);
            }
            other => panic!("{other:?}"),
        };
        read(CONFIRM_SELECT, "ConfirmSelect");
        read(&ack(7), "delivery_tag: 7");
        read(&qos(9), "prefetch_count: 9");
        read(&consume(true), "no_ack: true");
        let mut message = Vec::new();
        publish(&mut message, b"xxx");
        read(&message, "BasicPublish");
    }
}
