//! Calls and their replies: which are refused here, and which reply belongs to which call.

use amqp_core::errors::Misuse;
use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{basic, channel, connection};
use amqp_core::requests::{
    BasicRecover, ChannelFlow, ConfirmSelect, TxCommit, TxRollback, TxSelect,
};
use amqp_core::types::Secret;
use amqp_core::{CloseCause, Error, Event, Publish, PublishRefused, QueueDeclare};

use crate::peer::Peer;

/// BR-12: RabbitMQ would close the channel. The modes exclude each other from the moment they are asked for.
#[test]
fn confirms_and_transactions_exclude_each_other() {
    let refused = |refused: Misuse, error: Error| assert_eq!(error, Error::Misuse(refused));
    let mut peer = Peer::open();
    let (plain, confirming, transactional) = (peer.channel(1), peer.channel(2), peer.channel(3));
    let now = peer.now;
    let mut channel = peer.session.channel(plain);
    let error = channel.call(now, &TxCommit::default()).unwrap_err();
    refused(Misuse::NotTransactionMode, error);
    let error = channel.call(now, &TxRollback::default()).unwrap_err();
    refused(Misuse::NotTransactionMode, error);
    let mut channel = peer.session.channel(confirming);
    channel.call(now, &ConfirmSelect::default()).unwrap();
    let error = channel.call(now, &TxSelect::default()).unwrap_err();
    refused(Misuse::ConfirmMode, error);
    let mut channel = peer.session.channel(transactional);
    channel.call(now, &TxSelect::default()).unwrap();
    let error = channel.call(now, &ConfirmSelect::default()).unwrap_err();
    refused(Misuse::TransactionMode, error);
    // Asked for again, each is what it was; what was refused was not written.
    channel.call(now, &TxSelect::default()).unwrap();
    channel.call(now, &TxCommit::default()).unwrap();
    peer.session.channel(confirming).call(now, &ConfirmSelect::default()).unwrap();
    assert_eq!(
        peer.methods(),
        ["confirm.Select", "tx.Select", "tx.Select", "tx.Commit", "confirm.Select"]
    );
}

/// BR-3, and the broker's own wish for a pause.
#[test]
fn flow_is_asked_for_and_heeded() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let refused = peer.session.channel(id).call(peer.now, &ChannelFlow::new(false));
    assert_eq!(refused.unwrap_err(), Error::Misuse(Misuse::FlowInactive));
    let call = peer.session.channel(id).call(peer.now, &ChannelFlow::new(true)).unwrap();
    assert_eq!(peer.methods(), ["channel.Flow"]);
    peer.send(1, &channel::FlowOk { active: true });
    assert_eq!(peer.session.take_reply(&call), Some(Ok(true)));
    peer.events();

    let publish = Publish::new("", "q", b"x");
    peer.send(1, &channel::Flow { active: false });
    assert_eq!(peer.methods(), ["channel.FlowOk"]);
    assert_eq!(peer.session.channel(id).publish(&publish), Err(PublishRefused::Full));
    peer.send(1, &channel::Flow { active: true });
    assert_eq!(peer.events(), [Event::BufferSpace]);
    peer.session.channel(id).publish(&publish).unwrap();
}

/// PK-30.
#[test]
fn secrets_are_updated_in_order() {
    let mut peer = Peer::open();
    let secret = Secret::new("s");
    let first = peer.session.update_secret(peer.now, &secret, "r").unwrap();
    peer.last_method(|method| {
        let mut payload = Vec::new();
        method.encode(&mut payload);
        assert_eq!(payload, [0, 10, 0, 70, 0, 0, 0, 1, b's', 1, b'r']);
    });
    let second = peer.session.update_secret(peer.now, &secret, "r").unwrap();
    peer.send(0, &connection::UpdateSecretOk::default());
    assert_eq!(peer.events(), [Event::CallDone(first.key())]);
    assert_eq!(peer.session.take_reply(&first), Some(Ok(())));
    peer.lose();
    assert!(matches!(peer.session.take_reply(&second), Some(Err(Error::Connection(_)))));
    let huge = Secret::new("x".repeat(5_000));
    let mut peer = Peer::open();
    let error = peer.session.update_secret(peer.now, &huge, "r").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    peer.send(0, &connection::UpdateSecretOk::default());
    assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "nobody asked");
}

/// PK-52: nobody answers, and nobody waits.
#[test]
fn no_wait_expects_no_answer() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let declare = QueueDeclare::new("q");
    peer.session.channel(id).call_no_wait(&declare).unwrap();
    peer.last_method(|method| {
        let amqp_core::proto::method::Method::QueueDeclare(declare) = method else { panic!() };
        assert!(declare.no_wait);
    });
    let call = peer.session.channel(id).call(peer.now, &declare).unwrap();
    peer.last_method(|method| {
        let amqp_core::proto::method::Method::QueueDeclare(declare) = method else { panic!() };
        assert!(!declare.no_wait);
    });
    let queue = ShortStr::new("q").unwrap();
    let ok = amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() };
    peer.send(1, &ok);
    assert_eq!(peer.session.take_reply(&call).unwrap().unwrap().name(), "q");
}

/// PK-53: an answer for another queue is no answer to this call.
#[test]
fn pk_53_an_answer_for_another_queue_is_a_breach() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let mut declare =
        |name| peer.session.channel(id).call(peer.now, &QueueDeclare::new(name)).unwrap();
    let (named, unnamed) = (declare("q"), declare(""));
    let ok = |name| {
        let queue = ShortStr::new(name).unwrap();
        amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() }
    };
    peer.send(1, &ok("q"));
    peer.send(1, &ok("amq.gen-1"));
    assert_eq!(peer.session.take_reply(&named).unwrap().unwrap().name(), "q");
    assert_eq!(peer.session.take_reply(&unnamed).unwrap().unwrap().name(), "amq.gen-1");
    peer.session.channel(id).call(peer.now, &QueueDeclare::new("q")).unwrap();
    peer.send(1, &ok("other"));
    assert_eq!(peer.breach(), 503);
}

/// RabbitMQ drops line ends from the names of queues.
#[test]
fn a_queue_name_may_lose_its_line_end() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    for (asked, answered) in [("orders\n", "orders"), ("\r\n", "amq.gen-1")] {
        let declare = QueueDeclare::new(asked);
        let call = peer.session.channel(id).call(peer.now, &declare).unwrap();
        let queue = ShortStr::new(answered).unwrap();
        let ok = amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() };
        peer.send(1, &ok);
        assert_eq!(peer.session.take_reply(&call).unwrap().unwrap().name(), answered);
    }
}

/// Calls that a blocked broker does not answer take memory, be their time over or not.
#[test]
fn calls_are_refused_where_too_many_await_their_replies() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    for _ in 0..amqp_core::limits::CALLS_MAX {
        let call = peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        peer.session.forget(peer.now, call.key());
    }
    let refused = peer.session.channel(id).call(peer.now, &BasicRecover::default());
    assert_eq!(refused.unwrap_err(), Error::Misuse(Misuse::TooManyCalls));
    peer.send(1, &basic::RecoverOk::default());
    peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
    // A close is let through.
    peer.session.channel(id).close(peer.now);
}

/// The refusal of an unconfirmed publish meets the close of its channel, which no handle holds any more: the event
/// alone has the reason.
#[test]
fn why_a_released_channel_closed_is_reported() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).release(peer.now);
    peer.events();
    let reply_text = ShortStr::new("NOT_FOUND").unwrap();
    let close = channel::Close { reply_code: 404, reply_text, class_id: 60, method_id: 40 };
    peer.send(1, &close);
    let events = peer.events();
    let [Event::ChannelClosed { channel, number: 1, cause }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*channel, id);
    assert_eq!(cause.to_string(), "by the broker: 404 NOT_FOUND (basic.publish)");
    assert_eq!(peer.session.channel(id).number(), None);
}
