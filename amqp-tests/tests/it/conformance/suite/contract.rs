//! What an adapter's I/O owes (PK-85): bytes in pieces of any size, ends of every kind at any byte, and
//! timers that are never early. Over TLS it is the same, and the bytes are ciphertext.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use amqp_testkit::{Direction, Fault, Proxy};

use super::api::{
    At, BasicConsume, CloseCause, Config, ConnectError, ConnectFailure, Error, Publish,
    QueueDeclare, TlsErrorKind,
};
use super::at::{Scene, next, on_every_adapter};
use crate::support::{exclusive, sleep, within};

macro_rules! plain_and_over_tls {
    ($($name:ident)*) => {
        on_every_adapter! { $($name)* }
        super::api::on_model_over_tls! { $($name)* }
    };
}

plain_and_over_tls! {
    pk_85_bytes_may_come_and_go_in_any_pieces
    pk_85_writes_may_be_partial
    pk_85_an_end_while_connecting_is_a_typed_failure
    pk_85_an_end_while_open_is_told_to_every_handle
    pk_85_half_a_connection_is_none
    pk_85_timers_are_never_early_and_in_order
    pk_85_a_long_line_is_used_to_the_full
    pk_85_floods_pass_in_both_directions_at_once
}

fn proxy(at: &At) -> (Proxy, At) {
    let port = at.port();
    let proxy = Proxy::start(port).unwrap();
    let through = at.by_port(proxy.port());
    (proxy, through)
}

async fn pk_85_bytes_may_come_and_go_in_any_pieces(at: At) {
    for size in [1, 3, 7, 100] {
        let (proxy, at) = proxy(&at);
        let dribble = Fault::Dribble { size, pause: Duration::ZERO };
        proxy.at(Direction::ToBroker, 0, dribble);
        proxy.at(Direction::ToClient, 0, dribble);
        let connection = within("a connection", at.connect()).await;
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("dribble")).await.unwrap().queue;
        let publisher = channel.confirm_select().await.unwrap();
        let body = vec![9; 10_000];
        publisher.publish(Publish::new("", &queue, &body).mandatory()).await.unwrap();
        let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
        assert!(got.body() == body);
        got.ack().unwrap();
        assert_eq!(connection.close().await, CloseCause::ByClient);
    }
}

/// The proxy reads slowly, so that the system takes the client's bytes in parts.
async fn pk_85_writes_may_be_partial(at: At) {
    let (proxy, at) = proxy(&at);
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("partial")).await.unwrap().queue;
    let publisher = channel.confirm_select().await.unwrap();
    proxy.inject(Direction::ToBroker, Fault::Pause);
    let body: Vec<u8> = (0..16_u32 << 20).map(|at| (at % 251) as u8).collect();
    let confirm = publisher.send(Publish::new("", &queue, &body).mandatory()).await.unwrap();
    let mut sent = u64::MAX;
    // Until the sockets take no more.
    while std::mem::replace(&mut sent, connection.stats().bytes_sent) != sent {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(connection.stats().unsent_bytes > 0);
    proxy.resume();
    within("a confirm", confirm).await.unwrap();
    let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
    assert!(got.body() == body);
    got.ack().unwrap();
    connection.close().await;
}

async fn pk_85_an_end_while_connecting_is_a_typed_failure(at: At) {
    let whole = {
        let (proxy, at) = proxy(&at);
        let connection = at.connect().await;
        let whole = proxy.passed(Direction::ToClient);
        connection.close().await;
        whole
    };
    // Nothing, part of a frame's head, about half, and part of the last frame: of ciphertext the length varies a little.
    for offset in [0, 4, whole / 2, whole - 8] {
        for fault in [Fault::Cut, Fault::Reset] {
            let (proxy, at) = proxy(&at);
            proxy.at(Direction::ToClient, offset, fault);
            let quick = |config: Config| config.address_timeout(Duration::from_secs(10));
            let error = within("a failure", at.open(quick)).await.unwrap_err();
            let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
            let failure = &attempts[0].failure;
            let ended = matches!(
                failure,
                ConnectFailure::Lost { .. }
                    | ConnectFailure::ProbablyAuthentication(_)
                    | ConnectFailure::TuningRefused(_)
                    | ConnectFailure::Tls { kind: TlsErrorKind::Truncated, .. }
            );
            assert!(ended && attempts.len() == 1, "{offset}, {fault:?}: {failure:?}");
            // With the fault gone, the next attempt is as good as any.
            proxy.heal();
            at.connect().await.close().await;
        }
    }
}

async fn pk_85_an_end_while_open_is_told_to_every_handle(at: At) {
    for (fault, kind) in
        [(Fault::Cut, ErrorKind::UnexpectedEof), (Fault::Reset, ErrorKind::ConnectionReset)]
    {
        let (proxy, at) = proxy(&at);
        let connection = at.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("cut")).await.unwrap().queue;
        let consume = BasicConsume::new(&queue);
        let mut consumer = channel.basic_consume(consume).await.unwrap();
        proxy.inject(Direction::ToClient, fault);
        let cause = within("the loss", connection.closed()).await;
        let CloseCause::Transport(error) = &cause else { panic!("{cause:?}") };
        assert_eq!(error.kind, kind, "{fault:?}");
        let lost = Error::Connection(cause.clone());
        assert_eq!(within("the end", consumer.next()).await.unwrap().unwrap_err(), lost);
        assert_eq!(connection.open_channel().await.unwrap_err(), lost);
        let declare = QueueDeclare::passive(&queue);
        assert_eq!(channel.queue_declare(declare).await.unwrap_err(), lost);
        assert_eq!(connection.close().await, cause);
    }
}

async fn pk_85_half_a_connection_is_none(at: At) {
    for direction in [Direction::ToClient, Direction::ToBroker] {
        let (proxy, at) = proxy(&at);
        let connection = at.connect().await;
        connection.open_channel().await.unwrap();
        proxy.inject(direction, Fault::HalfClose);
        let cause = within("the loss", connection.closed()).await;
        assert!(matches!(cause, CloseCause::Transport(_)), "{direction:?}: {cause:?}");
    }
}

async fn pk_85_timers_are_never_early_and_in_order(at: At) {
    // What comes before the pause has this long too.
    const DEADLINE: Duration = Duration::from_secs(4);
    let (proxy, at) = proxy(&at);
    let connection = at.open(|config| config.call_timeout(DEADLINE)).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("timers")).await.unwrap().queue;
    proxy.inject(Direction::ToClient, Fault::Pause);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let (channel, queue) = (channel.clone(), queue.clone());
        calls.push(at.spawn(async move {
            let begun = Instant::now();
            let result = channel.queue_declare(QueueDeclare::passive(&queue)).await;
            (begun, Instant::now(), result)
        }));
        sleep(Duration::from_secs(1)).await;
    }
    let mut before = None;
    for call in calls {
        let (begun, ended, result) = within("a deadline", call).await;
        assert!(matches!(result, Err(Error::Deadline { .. })), "{result:?}");
        assert!(ended - begun >= DEADLINE, "{:?}", ended - begun);
        assert!(before.replace(ended) < Some(ended), "in order");
    }
    // The late answers are nobody's.
    proxy.resume();
    let late = channel.queue_declare(QueueDeclare::passive(&queue)).await.unwrap();
    assert_eq!(late.queue, queue);
    connection.close().await;
}

async fn pk_85_a_long_line_is_used_to_the_full(at: At) {
    const LATENCY: Duration = Duration::from_millis(40);
    let (proxy, at) = proxy(&at);
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("far")).await.unwrap().queue;
    let publisher = channel.confirm_select().await.unwrap();
    proxy.delay(LATENCY);
    let begun = Instant::now();
    channel.queue_declare(QueueDeclare::passive(&queue)).await.unwrap();
    assert!(begun.elapsed() >= 2 * LATENCY, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut confirms = Vec::new();
    for _ in 0..200 {
        confirms.push(publisher.send(Publish::new("", &queue, b"x").mandatory()).await.unwrap());
    }
    for confirm in confirms {
        within("a confirm", confirm).await.unwrap();
    }
    // One behind the other they would take 16 s.
    let taken = begun.elapsed();
    assert!(taken >= 2 * LATENCY && taken < 400 * LATENCY, "{taken:?}");
    connection.close().await;
}

/// More than all sockets and buffers on the way hold, so that each direction has to wait for the other's progress.
async fn pk_85_floods_pass_in_both_directions_at_once(at: At) {
    const COUNT: u32 = 2_000;
    let body = |number: u32| number.to_be_bytes().repeat(4_096);
    let Scene { connection, channel, queue } = at.scene("flood").await;
    let mut consumer =
        channel.basic_consume(BasicConsume::new(queue.name()).no_ack()).await.unwrap();
    let (publishing, queue) = (connection.open_channel().await.unwrap(), queue.queue);
    let published = at.spawn(async move {
        for number in 0..COUNT {
            publishing.basic_publish(Publish::new("", &queue, body(number))).await.unwrap();
        }
    });
    for number in 0..COUNT {
        let delivery = next(&mut consumer).await;
        assert!(delivery.body() == body(number), "message {number}");
    }
    within("the last publish", published).await;
    connection.close().await;
}
