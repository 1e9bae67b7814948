//! A publisher or a consumer in one call takes one round trip.

use amqp_async::Connection;
use amqp_async::core::errors::Misuse;
use amqp_async::core::proto::ShortStr;
use amqp_async::core::proto::method::{basic, channel, confirm};
use amqp_async::core::{BasicConsume, Error};
use futures_core::FusedFuture;

use crate::played::Peer;

/// A `confirm.select-ok` that was not asked for would end the connection: the request was sent ahead of `open-ok`.
#[test]
fn a_publisher_is_opened_in_one_round_trip() {
    let (mut peer, connection) = Peer::open(0);
    let mut opening = connection.publisher();
    assert!(peer.poll(&mut opening).is_pending());
    peer.run();
    peer.sends(1, &channel::OpenOk::default());
    peer.sends(1, &confirm::SelectOk::default());
    peer.run();
    let publisher = peer.resolves(&mut opening).unwrap();
    assert!(opening.is_terminated() && publisher.is_open());
    assert_eq!(publisher.channel().number(), Some(1));
    drop(opening);
    assert!(publisher.is_open());
}

#[test]
fn a_consumer_is_opened_in_one_round_trip() {
    let (mut peer, connection) = Peer::open(0);
    let mut opening = connection.consume(BasicConsume::new("q").prefetch(7));
    assert!(peer.poll(&mut opening).is_pending());
    peer.run();
    answer_consume(&peer);
    peer.run();
    let consumer = peer.resolves(opening).unwrap();
    assert_eq!((consumer.tag(), consumer.channel().number()), ("ctag-1.1", Some(1)));
}

fn answer_consume(peer: &Peer) {
    peer.sends(1, &channel::OpenOk::default());
    peer.sends(1, &basic::QosOk::default());
    peer.sends(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("ctag-1.1").unwrap() });
}

/// Dropped before, between and after the replies, the channel is closed.
#[test]
fn one_that_is_dropped_closes_its_channel() {
    for answered in 0..=3 {
        let (mut peer, connection) = Peer::open(0);
        let mut opening = connection.consume(BasicConsume::new("q"));
        assert!(peer.poll(&mut opening).is_pending());
        peer.run();
        let consumer_tag = ShortStr::new("ctag-1.1").unwrap();
        for reply in 0..3 {
            if reply == answered {
                drop(opening);
                opening = connection.consume(BasicConsume::new("never polled"));
                peer.run();
            }
            match reply {
                0 => peer.sends(1, &channel::OpenOk::default()),
                1 => peer.sends(1, &basic::QosOk::default()),
                _ => peer.sends(1, &basic::ConsumeOk { consumer_tag }),
            }
            peer.run();
        }
        drop(opening);
        peer.run();
        // The broker answers what was asked for alone, or the connection would end.
        peer.sends(1, &channel::CloseOk::default());
        peer.run();
        assert_eq!(connection.close_cause(), None, "{answered}");
        assert_eq!(connection.stats().channels, 0, "{answered}");
    }
}

#[test]
fn one_that_cannot_be_sent_closes_its_channel() {
    let (mut peer, connection) = Peer::open(0);
    peer.resolves(connection.consume(BasicConsume::new("q").consumer_tag(""))).unwrap_err();
    peer.run();
    peer.sends(1, &channel::OpenOk::default());
    peer.sends(1, &channel::CloseOk::default());
    peer.run();
    assert_eq!((connection.close_cause(), connection.stats().channels), (None, 0));
}

#[test]
fn without_a_free_number_nothing_is_sent() {
    let (mut peer, connection) = Peer::open(0);
    let channels: Vec<_> = (1..=9).map(|number| open(&mut peer, &connection, number)).collect();
    let error = peer.resolves(connection.publisher()).unwrap_err();
    let no_number = |error| matches!(error, Error::Misuse(Misuse::NoFreeChannels { .. }));
    assert!(no_number(error));
    drop(channels);
}

fn open(peer: &mut Peer, connection: &Connection, number: u16) -> amqp_async::Channel {
    let mut opening = connection.open_channel();
    assert!(peer.poll(&mut opening).is_pending());
    peer.sends(number, &channel::OpenOk::default());
    peer.run();
    peer.resolves(opening).unwrap()
}
