//! Under paused time a connection lives by tokio's clock, as everything else of the runtime does.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use amqp_async::core::proto::frame::{self, HEARTBEAT};
use amqp_async::core::proto::method::connection::{OpenOk, Tune};
use amqp_testkit::raw_connection::start;
use amqp_tokio::{CloseCause, Config, Connection, Connector, Error, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, interval, sleep};

const HEARTBEAT_SECONDS: u16 = 10;
/// Far more than an hour of heartbeats takes. A driver that spins reaches it at once.
const POLLS_MAX: u32 = 20_000;

/// Plays a broker that opens the connection and answers nothing. With `heartbeats` it shows that it lives.
async fn play(mut stream: DuplexStream, heartbeats: bool) {
    let mut opening = Vec::new();
    frame::write_method(&mut opening, 0, &start());
    let tune = Tune { channel_max: 9, frame_max: 131_072, heartbeat: HEARTBEAT_SECONDS };
    frame::write_method(&mut opening, 0, &tune);
    frame::write_method(&mut opening, 0, &OpenOk::default());
    stream.write_all(&opening).await.unwrap();
    let mut interval = interval(Duration::from_secs(u64::from(HEARTBEAT_SECONDS) / 2));
    let mut sink = [0; 1024];
    loop {
        tokio::select! {
            _ = interval.tick(), if heartbeats => {
                let _ = stream.write_all(&HEARTBEAT).await;
            }
            read = stream.read(&mut sink) => {
                if read.is_err() || read.is_ok_and(|count| count == 0) {
                    return;
                }
            }
        }
    }
}

/// A connection whose driver panics when it was polled [`POLLS_MAX`] times.
async fn open(heartbeats: bool) -> Connection {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(play(theirs, heartbeats));
    let connector = Connector::from(Config::default());
    let (connecting, mut driver) = connector.driver_with(ours).unwrap();
    let mut polls = 0;
    tokio::spawn(poll_fn(move |cx| {
        polls += 1;
        assert!(polls < POLLS_MAX, "the driver spins");
        Pin::new(&mut driver).poll(cx)
    }));
    connecting.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_lives_for_hours_of_paused_time() {
    let connection = open(true).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(connection.close_cause(), None);
    // Both sides have sent a heartbeat each few seconds.
    assert!(connection.stats().frames_received > 700, "{:?}", connection.stats());
    assert!(connection.stats().frames_sent > 700, "{:?}", connection.stats());
}

#[tokio::test(start_paused = true)]
async fn deadlines_expire_in_paused_time() {
    let connection = open(true).await;
    // The clock of the system is far behind by then.
    sleep(Duration::from_secs(600)).await;
    let begun = Instant::now();
    let error = connection.open_channel().await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    let waited = begun.elapsed();
    let exact = limits::CALL_TIMEOUT..limits::CALL_TIMEOUT + Duration::from_millis(10);
    assert!(exact.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_noticed_in_paused_time() {
    let connection = open(false).await;
    let begun = Instant::now();
    let cause = connection.closed().await;
    assert!(matches!(cause, CloseCause::HeartbeatTimeout { .. }), "{cause:?}");
    let waited = begun.elapsed().as_secs();
    assert!((20..=30).contains(&waited), "{waited} s");
}
