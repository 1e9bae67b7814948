//! Connections that are lost and recovered, on every adapter. A proxy before the broker loses them, and every test waits
//! for the events of its connection.

use std::time::Duration;

use amqp_testkit::{Direction, Fault, Proxy};

use super::api::types::FailedEntity;
use super::api::{
    At, Backoff, Channel, CloseCause, Config, Connection, ConnectionEvent, Events, Recovery,
};
use super::{api, at};
use crate::support::within;

mod alarms;
mod ends;
mod handles;
mod in_flight;
mod loaded;
mod logins;
mod nodes;
mod record;
mod topology;

/// The delays of tests: a broker that comes back is noticed soon.
fn soon() -> Backoff {
    Backoff::fixed(Duration::from_millis(100))
}

/// A connection that a test can lose, and that recovers.
struct Lossy {
    proxy: Proxy,
    connection: Connection,
    events: Events,
}

impl Lossy {
    async fn connect(at: &At) -> Self {
        Self::open(at, |config| config).await
    }

    async fn open(at: &At, configure: impl FnOnce(Config) -> Config) -> Self {
        let proxy = Proxy::start(at.port()).unwrap();
        let recovery = Recovery::automatic().backoff(soon());
        let configure = |config: Config| configure(config.recovery(recovery));
        let connection = at.by_port(proxy.port()).open(configure).await.unwrap();
        let events = connection.events();
        Self { proxy, connection, events }
    }

    async fn channel(&self) -> Channel {
        self.connection.open_channel().await.unwrap()
    }

    /// The next event, apart from attempts.
    async fn event(&mut self) -> ConnectionEvent {
        loop {
            match within("an event", self.events.next()).await.unwrap() {
                ConnectionEvent::Retrying { .. } => {}
                event => return event,
            }
        }
    }

    async fn is_lost(&mut self) -> CloseCause {
        match self.event().await {
            ConnectionEvent::Lost(cause) => cause,
            other => panic!("not lost: {other:?}"),
        }
    }

    /// What could not be declared again.
    async fn is_recovered(&mut self) -> Vec<FailedEntity> {
        let (before, failed) = self.is_recovered_after().await;
        assert_eq!(before, []);
        failed
    }

    /// The events before, and what could not be declared again.
    async fn is_recovered_after(&mut self) -> (Vec<ConnectionEvent>, Vec<FailedEntity>) {
        let mut before = Vec::new();
        loop {
            match self.event().await {
                ConnectionEvent::Recovered { failed } => return (before, failed),
                event @ (ConnectionEvent::Lost(_) | ConnectionEvent::Closed(_)) => {
                    panic!("not recovered: {event:?}")
                }
                event => before.push(event),
            }
        }
    }

    /// The broker is beyond reach until `comes_back`. Returns when an attempt has failed.
    async fn goes_down(&mut self) -> CloseCause {
        self.proxy.at(Direction::ToClient, 0, Fault::Cut);
        self.proxy.inject(Direction::ToClient, Fault::Cut);
        let cause = self.is_lost().await;
        loop {
            match within("an attempt", self.events.next()).await.unwrap() {
                ConnectionEvent::Retrying { attempt: 1, .. } => {}
                ConnectionEvent::Retrying { cause: CloseCause::Connect(_), .. } => return cause,
                other => panic!("not a failed attempt: {other:?}"),
            }
        }
    }

    fn comes_back(&self) {
        self.proxy.heal();
    }
}
