//! Channels whose open the broker has not answered, and frames on channels that cannot carry them.

use amqp_core::proto::method::channel;
use amqp_core::{
    BasicConsume, BasicQos, CloseCause, Error, Misuse, Publish, PublishRefused, QueueDeclare,
};

use crate::peer::Peer;

/// Nothing is closed: the caller has not waited.
#[test]
fn a_channel_that_is_not_open_yet_says_so() {
    let mut peer = Peer::open();
    let (id, open) = peer.session.open_channel(peer.now).unwrap();
    peer.methods();
    let not_open = Error::Misuse(Misuse::ChannelNotOpen);
    let (now, mut channel) = (peer.now, peer.session.channel(id));
    assert_eq!(channel.call(now, &BasicQos::new(1)).unwrap_err(), not_open);
    assert_eq!(channel.consume(now, &BasicConsume::new("q")).unwrap_err(), not_open);
    let refused = PublishRefused::Error(not_open);
    assert_eq!(channel.call_no_wait(&QueueDeclare::new("q")).unwrap_err(), refused);
    assert_eq!(channel.publish(&Publish::new("", "q", b"x")).unwrap_err(), refused);
    assert_eq!(peer.methods(), [] as [&str; 0]);
    peer.send(1, &channel::OpenOk::default());
    peer.session.take_reply(&open).unwrap().unwrap();
    peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
}

/// Ahead of open-ok, a copy of the close that the number's last channel had is let pass; an older one cannot
/// come any more.
#[test]
fn a_close_ahead_of_open_ok_is_a_copy_or_refuses_the_open() {
    let mut peer = Peer::open();
    let close = channel::Close { reply_code: 406, ..Default::default() };
    for number in 1..=10 {
        peer.channel(number);
    }
    peer.send(1, &close);
    let (id, opening) = peer.session.open_channel(peer.now).unwrap();
    peer.methods();
    peer.send(1, &close);
    peer.send(1, &channel::OpenOk::default());
    peer.session.take_reply(&opening).unwrap().unwrap();
    peer.session.channel(id).close(peer.now);
    peer.send(1, &channel::CloseOk::default());
    let (_, opening) = peer.session.open_channel(peer.now).unwrap();
    peer.send(1, &close);
    let refused = peer.session.take_reply(&opening).unwrap().unwrap_err();
    assert_eq!(refused.reply_code().unwrap().code(), 406);
    assert_eq!(peer.session.cause(), None);
}

/// AMQP 0-9-1, 4.2.7: it is no content.
#[test]
fn a_heartbeat_on_a_channel_is_named() {
    let mut peer = Peer::open();
    peer.channel(1);
    peer.send_bytes(&[8, 0, 1, 0, 0, 0, 0, 0xce]);
    let CloseCause::Protocol(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
    assert_eq!(error.to_string(), "505 UNEXPECTED_FRAME: heartbeat on channel 1 instead of 0");
}
