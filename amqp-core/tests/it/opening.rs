//! Channels whose open the broker has not answered, and frames on channels that cannot carry them.

use amqp_core::errors::Misuse;
use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{basic, channel, confirm};
use amqp_core::requests::ConfirmSelect;
use amqp_core::{
    BasicConsume, BasicQos, ChannelCause, CloseCause, Error, Publish, PublishRefused, QueueDeclare,
};

use crate::peer::Peer;

/// Nothing is closed: the caller has not waited.
#[test]
fn a_channel_that_is_not_open_yet_says_so() {
    let mut peer = Peer::open();
    let (id, open) = peer.session.open_channel(peer.now).unwrap();
    peer.methods();
    let not_open = Error::Misuse(Misuse::ChannelNotOpen);
    let mut channel = peer.session.channel(id);
    assert!(!channel.is_open() && channel.closed_cause().is_none() && channel.cause().is_none());
    let refused = PublishRefused::Error(not_open);
    assert_eq!(channel.call_no_wait(&QueueDeclare::new("q")).unwrap_err(), refused);
    assert_eq!(channel.publish(&Publish::new("", "q", b"x")).unwrap_err(), refused);
    assert_eq!(peer.methods(), [] as [&str; 0]);
    peer.send(1, &channel::OpenOk::default());
    peer.session.take_reply(&open).unwrap().unwrap();
    assert!(peer.session.channel(id).is_open());
    peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
}

/// One round trip: the broker reads the calls behind the open.
#[test]
fn calls_are_pipelined_behind_the_open() {
    let mut peer = Peer::open();
    let (id, open) = peer.session.open_channel(peer.now).unwrap();
    let select = peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
    let consume = peer.session.channel(id).consume(peer.now, &BasicConsume::new("q")).unwrap();
    let sent = ["channel.Open", "confirm.Select", "basic.Qos", "basic.Consume"];
    assert_eq!(peer.methods(), sent);
    peer.send(1, &channel::OpenOk::default());
    peer.send(1, &confirm::SelectOk::default());
    peer.send(1, &basic::QosOk::default());
    let consumer_tag = ShortStr::new("ctag-1.1").unwrap();
    peer.send(1, &basic::ConsumeOk { consumer_tag });
    peer.session.take_reply(&open).unwrap().unwrap();
    peer.session.take_reply(&select).unwrap().unwrap();
    peer.session.take_reply(&consume).unwrap().unwrap();
    let mut channel = peer.session.channel(id);
    assert!(channel.is_open() && channel.confirms());
    assert_eq!((channel.number(), peer.session.cause()), (Some(1), None));
}

#[test]
fn what_is_pipelined_behind_a_refused_open_fails_with_it() {
    let mut peer = Peer::open();
    let (id, open) = peer.session.open_channel(peer.now).unwrap();
    let select = peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
    let consume = peer.session.channel(id).consume(peer.now, &BasicConsume::new("q")).unwrap();
    peer.methods();
    peer.send(1, &channel::Close { reply_code: 504, ..Default::default() });
    let refused = peer.session.take_reply(&open).unwrap().unwrap_err();
    assert_eq!(refused.reply_code().unwrap().code(), 504);
    assert_eq!(peer.session.take_reply(&select).unwrap().unwrap_err(), refused);
    assert_eq!(peer.session.take_reply(&consume).unwrap().unwrap_err(), refused);
    let cause = peer.session.channel(id).closed_cause();
    assert!(matches!(cause, Some(ChannelCause::ByBroker(_))), "{cause:?}");
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
}

/// The caller is gone before the broker has answered anything: the channel is closed behind the calls.
#[test]
fn a_released_channel_is_closed_behind_what_is_pipelined() {
    let mut peer = Peer::open();
    let (id, open) = peer.session.open_channel(peer.now).unwrap();
    let consume = peer.session.channel(id).consume(peer.now, &BasicConsume::new("q")).unwrap();
    for call in [open.key(), consume.key()] {
        peer.session.forget(peer.now, call);
    }
    peer.session.channel(id).release(peer.now);
    let sent = ["channel.Open", "basic.Qos", "basic.Consume", "channel.Close"];
    assert_eq!(peer.methods(), sent);
    peer.send(1, &channel::OpenOk::default());
    peer.send(1, &basic::QosOk::default());
    let consumer_tag = ShortStr::new("ctag-1.1").unwrap();
    peer.send(1, &basic::ConsumeOk { consumer_tag });
    peer.send(1, &channel::CloseOk::default());
    assert_eq!(peer.session.cause(), None);
    assert_eq!(peer.methods(), [] as [&str; 0]);
    assert_eq!(peer.session.channel(id).number(), None);
    peer.channel(2);
}

/// Nothing overtakes the reply to the open.
#[test]
fn a_reply_ahead_of_open_ok_breaks_the_protocol() {
    let mut peer = Peer::open();
    let (id, _open) = peer.session.open_channel(peer.now).unwrap();
    let _consume = peer.session.channel(id).consume(peer.now, &BasicConsume::new("q")).unwrap();
    let consumer_tag = ShortStr::new("ctag-1.1").unwrap();
    peer.send(1, &basic::ConsumeOk { consumer_tag });
    let CloseCause::Protocol(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
    assert!(error.to_string().contains("basic.consume-ok"), "{error}");
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
