//! Recovery: what the session sends on another transport, and what becomes of what was in flight.

mod channels;
mod consumers;
mod decisions;
mod every_byte;
mod herd;
mod hooks;
mod losses;
mod republishing;
mod topology;

use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::{Method, WireMethod, basic, channel, confirm, exchange, queue, tx};
use amqp_core::proto::{Properties, ShortStr};
use amqp_core::{Config, Event, Recovery};

use crate::contents::encoded;
use crate::peer::Peer;

/// An open session that recovers.
fn recovering() -> Peer {
    Peer::open_with(Config::default().recovery(Recovery::automatic()))
}

/// The frames that the session has written: the channel, and the method with the arguments that matter here.
fn wire(peer: &mut Peer) -> Vec<String> {
    peer.write();
    let written = std::mem::take(&mut peer.written);
    let mut rest = written.as_slice();
    let mut all = Vec::new();
    while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
        rest = &rest[frame.frame_len()..];
        if frame.kind != FrameKind::Method {
            continue;
        }
        let method = match Method::decode(frame.payload).unwrap() {
            Method::BasicQos(qos) if qos.global => format!("qos {} global", qos.prefetch_count),
            Method::BasicQos(qos) => format!("qos {}", qos.prefetch_count),
            Method::BasicConsume(it) => {
                format!("consume {} as {}", text(it.queue), text(it.consumer_tag))
            }
            Method::BasicCancel(cancel) => format!("cancel {}", text(cancel.consumer_tag)),
            Method::BasicAck(ack) => format!("ack {}", ack.delivery_tag),
            Method::BasicNack(nack) => format!("nack {}", nack.delivery_tag),
            Method::ExchangeDeclare(it) => format!("exchange {}", text(it.exchange)),
            Method::ExchangeBind(it) => {
                format!("bind-exchange {} to {}", text(it.destination), text(it.source))
            }
            Method::QueueDeclare(it) => format!("queue {}", text(it.queue)),
            Method::QueueBind(it) => format!("bind {} to {}", text(it.queue), text(it.exchange)),
            Method::QueuePurge(purge) => format!("purge {}", text(purge.queue)),
            method => format!("{:?}", method.id()),
        };
        all.push(format!("{} {method}", frame.channel));
    }
    assert!(rest.is_empty(), "half a frame");
    all
}

fn text(text: ShortStr<'_>) -> &str {
    text.as_str().unwrap()
}

/// The broker grants what these frames ask for, in their order.
fn grant(peer: &mut Peer, frames: &[String]) {
    for frame in frames {
        let words: Vec<_> = frame.split(' ').collect();
        let number = words[0].parse().unwrap();
        match words[1] {
            "channel.Open" => peer.send(number, &channel::OpenOk::default()),
            "confirm.Select" => peer.send(number, &confirm::SelectOk::default()),
            "tx.Select" => peer.send(number, &tx::SelectOk::default()),
            "qos" => peer.send(number, &basic::QosOk::default()),
            "exchange" => peer.send(number, &exchange::DeclareOk::default()),
            "bind-exchange" => peer.send(number, &exchange::BindOk::default()),
            "bind" => peer.send(number, &queue::BindOk::default()),
            "queue" => {
                let queue = ShortStr::new(if words[2].is_empty() { "amq.gen-2" } else { words[2] });
                let queue = queue.unwrap();
                peer.send(number, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
            }
            "channel.Close" => peer.send(number, &channel::CloseOk::default()),
            "consume" => {
                let consumer_tag = ShortStr::new(words[4]).unwrap();
                peer.send(number, &basic::ConsumeOk { consumer_tag });
            }
            other => panic!("{other} is not answered"),
        }
    }
}

/// The session reconnects, and the broker grants everything. Returns what the session has sent to restore.
fn recover(peer: &mut Peer) -> Vec<String> {
    peer.reconnect();
    let mut all = wire(peer);
    grant(peer, &all);
    if all.last().is_some_and(|last| is_topology(last)) {
        // The channel of the topology is closed, and then the others are opened.
        let closes = wire(peer);
        grant(peer, &closes);
        let channels = wire(peer);
        grant(peer, &channels);
        all.extend(closes.into_iter().chain(channels));
    }
    all
}

fn is_topology(frame: &str) -> bool {
    ["exchange", "bind", "queue"].iter().any(|word| frame.contains(word))
}

fn has_recovered(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Recovered(report) if report.failed.is_empty()))
}

/// A delivery with this tag and the body "hi".
fn deliver(peer: &mut Peer, number: u16, consumer_tag: &str, delivery_tag: u64) {
    let consumer_tag = ShortStr::new(consumer_tag).unwrap();
    let deliver = basic::Deliver { consumer_tag, delivery_tag, ..Default::default() };
    peer.send_content(number, &deliver, &encoded(&Properties::default()), b"hi");
}

/// The broker closes a channel.
fn close(peer: &mut Peer, number: u16, code: u16, reason: &str) {
    let (class_id, method_id) = (basic::Consume::ID.class, basic::Consume::ID.method);
    let reply_text = ShortStr::new(reason).unwrap();
    peer.send(number, &channel::Close { reply_code: code, reply_text, class_id, method_id });
}
