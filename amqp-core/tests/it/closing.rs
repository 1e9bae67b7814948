//! Ends of a connection.

use amqp_core::errors::TransportError;
use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{channel, connection, queue};
use amqp_core::{Action, BasicQos, CloseCause, Error, Event, Publish, QueueDeclare, Transmit};
use bytes::Bytes;

use crate::peer::Peer;

/// K12, K14: what came before the close counts; everything pending gets the same cause.
#[test]
fn a_brokers_close_reaches_everything_and_is_answered() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let answered = peer.session.channel(id).call(peer.now, &QueueDeclare::new("q")).unwrap();
    let lost = peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
    peer.methods();
    let mut bytes = Vec::new();
    let queue = ShortStr::new("q").unwrap();
    let ok = queue::DeclareOk { queue, message_count: 0, consumer_count: 0 };
    amqp_core::proto::frame::write_method(&mut bytes, 1, &ok);
    let close = connection::Close {
        reply_code: 320,
        reply_text: ShortStr::new("CONNECTION_FORCED - bye\n").unwrap(),
        ..Default::default()
    };
    amqp_core::proto::frame::write_method(&mut bytes, 0, &close);
    peer.send_bytes(&bytes);
    assert_eq!(peer.methods(), ["connection.CloseOk"]);
    assert!(peer.session.take_reply(&answered).unwrap().is_ok());
    let cause = peer.cause();
    assert_eq!(cause.to_string(), "by the broker: 320 CONNECTION_FORCED - bye\\n");
    assert_eq!(
        peer.session.take_reply(&lost).unwrap().unwrap_err(),
        Error::Connection(cause.clone())
    );
    assert_eq!(peer.events().last(), Some(&Event::Closed(cause.clone())));
    assert!(matches!(peer.session.poll_action(), Some(Action::Finish { .. })));
    assert_eq!(peer.session.open_channel(peer.now).unwrap_err(), Error::Connection(cause));
    // Nothing more is read or written.
    peer.send(1, &queue::BindOk::default());
    assert_eq!(peer.methods(), [] as [&str; 0]);
    assert_eq!(peer.session.poll_timeout(), None);
}

#[test]
fn close_goes_out_behind_everything_queued() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let body = Bytes::from(vec![0; 10_000]);
    peer.session.channel(id).publish(&Publish::new("", "q", &body)).unwrap();
    peer.session.close(peer.now);
    let refused = peer.session.channel(id).publish(&Publish::new("", "q", b"late"));
    assert!(refused.is_err());
    let frames = peer.methods();
    assert_eq!(frames, ["basic.Publish", "Header", "Body", "Body", "Body", "connection.Close"]);
    peer.send(0, &connection::CloseOk::default());
    assert_eq!(peer.cause(), CloseCause::ByClient);
}

/// A large content keeps our close waiting, unless the broker's close of the channel drops it.
#[test]
fn close_waits_for_no_content_of_a_closed_channel() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let body = Bytes::from(vec![0; 10_000]);
    peer.session.channel(id).publish(&Publish::new("", "q", &body)).unwrap();
    peer.session.close(peer.now);
    peer.send(1, &channel::Close { reply_code: 404, ..Default::default() });
    // Both leave with the next write.
    let mut out = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    peer.written = out.to_vec();
    out.advance(peer.written.len());
    assert!(!peer.session.poll_transmit(peer.now, &mut out));
    assert_eq!(peer.methods(), ["channel.CloseOk", "connection.Close"]);
}

#[test]
fn crossing_closes_end_as_ours() {
    let mut peer = Peer::open();
    peer.session.close(peer.now);
    peer.methods();
    peer.send(0, &connection::Close { reply_code: 320, ..Default::default() });
    assert_eq!(peer.methods(), ["connection.CloseOk"]);
    assert_eq!(peer.cause(), CloseCause::ByClient);
}

#[test]
fn a_loss_while_closing_is_a_forced_close() {
    let mut peer = Peer::open();
    peer.session.close(peer.now);
    peer.methods();
    peer.lose();
    assert_eq!(peer.cause(), CloseCause::ByClientForced);
}

#[test]
fn a_late_report_changes_nothing() {
    let mut peer = Peer::open();
    peer.lose();
    let cause = peer.cause();
    let error = TransportError::new(std::io::ErrorKind::ConnectionReset, "reset");
    peer.session.handle_disconnected(peer.now, peer.attempt, error, 0);
    peer.session.close(peer.now);
    peer.session.abort(CloseCause::DriverGone);
    assert_eq!(peer.cause(), cause);
    assert_eq!(peer.events(), [Event::Closed(cause)]);
}

/// K9, PK-31
#[test]
fn blocked_and_unblocked_are_told() {
    let mut peer = Peer::open();
    peer.send(0, &connection::Blocked { reason: ShortStr::new("low on memory").unwrap() });
    peer.send(0, &connection::Unblocked::default());
    assert_eq!(peer.events(), [Event::Blocked("low on memory".into()), Event::Unblocked]);
}

#[test]
fn an_abort_writes_nothing_more() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).publish(&Publish::new("", "q", b"x")).unwrap();
    peer.session.abort(CloseCause::Aborted);
    let action = peer.session.poll_action();
    assert!(matches!(action, Some(Action::Finish { at_once: true, .. })));
    assert!(peer.methods().is_empty());
}
