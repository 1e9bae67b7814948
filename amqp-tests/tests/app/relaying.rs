//! Outboxes and their relays: through faults of the store and of the connection, nothing is lost, and duplicates have the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex};

use amqp_app::prelude::*;
use amqp_app::{BoxError, Outbox, Pool, Relay, RelayReport, Stopper};
use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};

use crate::at::{At, Make, on_model, on_rabbitmq, rabbitmq, unique, until, within};

on_model! {
    what_is_stored_is_sent_in_order_and_marked_after_its_confirm
    an_outbox_loses_nothing_when_its_connection_is_cut
    a_message_that_is_not_confirmed_is_sent_again_with_those_behind_it
}

on_rabbitmq! {
    what_is_stored_is_sent_in_order_and_marked_after_its_confirm
    an_outbox_loses_nothing_when_its_connection_is_cut
    a_message_that_is_not_confirmed_is_sent_again_with_those_behind_it
}

/// How the store fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Faults {
    #[default]
    None,
    /// Each fourth call is an error, and each seventh panics.
    Some,
}

/// A table in memory.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    rows: Arc<Mutex<BTreeMap<usize, Message>>>,
    calls: Arc<Mutex<usize>>,
    faults: Faults,
}

impl Rows {
    pub(crate) fn of(count: usize, queue: &str, faults: Faults) -> Self {
        let rows = (0..count).map(|id| (id, Message::new(id.to_string()).to_queue(queue)));
        Self { rows: Arc::new(Mutex::new(rows.collect())), calls: Arc::default(), faults }
    }

    pub(crate) fn left(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    fn call(&self) -> Result<(), BoxError> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        match self.faults {
            Faults::Some if call.is_multiple_of(7) => panic!("of the store"),
            Faults::Some if call.is_multiple_of(4) => Err("the store is locked".into()),
            _ => Ok(()),
        }
    }
}

impl Outbox for Rows {
    type Id = usize;

    async fn take(&mut self, most: usize) -> Result<Vec<(usize, Message)>, BoxError> {
        self.call()?;
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().take(most).map(|(id, message)| (*id, message.clone())).collect())
    }

    async fn sent(&mut self, ids: &[usize]) -> Result<(), BoxError> {
        self.call()?;
        let mut rows = self.rows.lock().unwrap();
        for id in ids {
            rows.remove(id);
        }
        Ok(())
    }
}

/// Checks bodies and ids in the order of the queue: each is there, and the last of each is in order.
pub(crate) fn check(received: &[(String, String)], count: usize) {
    let mut last = BTreeMap::new();
    for (place, (body, id)) in received.iter().enumerate() {
        assert_eq!(body, id, "the id of the outbox");
        last.insert(body.parse::<usize>().unwrap(), place);
    }
    assert_eq!(last.keys().copied().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
    let places: Vec<_> = last.into_values().collect();
    assert!(places.is_sorted(), "{places:?}");
}

/// Runs a relay beside a script.
pub(crate) async fn relayed<P: Make>(
    outbox: impl Outbox,
    platform: P,
    script: impl AsyncFnOnce(),
) -> RelayReport {
    let pool = Pool::new(platform, 1).connect().await.unwrap();
    let (stopper, shutdown) = Shutdown::manual();
    let relay = Relay::new(outbox, &pool).every(Duration::from_millis(5));
    let script = async {
        script().await;
        stopper.stop();
    };
    let both = smol::future::zip(relay.run(shutdown), script);
    let (report, ()) = within("the relay", both).await;
    pool.close().await;
    report.unwrap()
}

async fn received<P: Make>(at: &At<P>, queue: &str) -> Vec<(String, String)> {
    let client = at.client().await;
    let mut received = Vec::new();
    while let Some(delivery) = client.channel.basic_get(queue).await.unwrap() {
        let id = delivery.properties().unwrap().message_id.unwrap();
        received.push((crate::at::text(&delivery), id));
        delivery.ack().unwrap();
    }
    received
}

async fn what_is_stored_is_sent_in_order_and_marked_after_its_confirm<P: Make>(at: At<P>) {
    let queue = at.client().await.queue("stored").await;
    let rows = Rows::of(250, &queue, Faults::None);
    let report = relayed(rows.clone(), at.platform.clone(), async || {
        until("an empty outbox", async || rows.left() == 0).await;
        // More comes later. One has an id of its own.
        let own = Message::new("250").to_queue(&queue).message_id("250");
        rows.rows.lock().unwrap().insert(250, own);
        until("an empty outbox", async || rows.left() == 0).await;
    })
    .await;
    assert_eq!((report.sent, report.failed, report.last_error), (251, 0, None));
    let received = received(&at, &queue).await;
    check(&received, 251);
    assert_eq!(received.len(), 251, "without a fault, nothing is duplicated");
}

/// Before a publish, before a confirm, and while the store fails and panics.
async fn an_outbox_loses_nothing_when_its_connection_is_cut<P: Make>(at: At<P>) {
    for (direction, method, number) in [
        (Direction::ToBroker, "basic.publish", 1),
        (Direction::ToBroker, "basic.publish", 20),
        (Direction::ToClient, "basic.ack", 1),
    ] {
        let queue = at.client().await.queue("cut").await;
        let rows = Rows::of(40, &queue, Faults::Some);
        let proxy = Proxy::start(at.port()).unwrap();
        proxy.before(direction, method, number, Fault::Cut);
        let report = relayed(rows.clone(), P::to(&proxy.uri()), async || {
            until("an empty outbox", async || rows.left() == 0).await;
        })
        .await;
        assert!(report.failed > 0 && report.last_error.is_some(), "{report:?}");
        let received = received(&at, &queue).await;
        check(&received, 40);
        let ids: BTreeSet<_> = received.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), 40);
    }
}

async fn a_message_that_is_not_confirmed_is_sent_again_with_those_behind_it<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, missing] = [client.queue("behind").await, unique("missing")];
    let rows = Rows::of(20, &queue, Faults::None);
    rows.rows.lock().unwrap().insert(7, Message::new("7").to(&missing, "key"));
    let report = relayed(rows.clone(), at.platform.clone(), async || {
        until("those before it", async || rows.left() == 13).await;
        client.channel.exchange_declare(ExchangeDeclare::fanout(&missing)).await.unwrap();
        client.channel.queue_bind(QueueBind::new(&queue, &missing, "")).await.unwrap();
        until("an empty outbox", async || rows.left() == 0).await;
    })
    .await;
    assert_eq!(report.sent, 20);
    assert!(report.failed > 0);
    check(&received(&at, &queue).await, 20);
    client.channel.exchange_delete(ExchangeDelete::new(&missing)).await.unwrap();
}

/// An outbox that cannot remove what it has sent, when the shutdown begins.
struct Last {
    queue: String,
    stopper: Stopper,
    faults: Vec<BoxError>,
}

impl Outbox for Last {
    type Id = usize;

    async fn take(&mut self, _: usize) -> Result<Vec<(usize, Message)>, BoxError> {
        Ok(vec![(0, Message::new("last").to_queue(&self.queue))])
    }

    async fn sent(&mut self, _: &[usize]) -> Result<(), BoxError> {
        self.faults.push("it cannot be removed".into());
        self.stopper.stop();
        Ok(())
    }

    fn left_out(&mut self) -> Vec<BoxError> {
        mem::take(&mut self.faults)
    }
}

#[test]
fn what_is_left_out_at_the_end_is_reported() {
    smol::block_on(async {
        let at = At::<amqp_smol::Connector>::model();
        let queue = at.client().await.queue("last").await;
        let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
        let (stopper, shutdown) = Shutdown::manual();
        let relay = Relay::new(Last { queue, stopper, faults: Vec::new() }, &pool);
        let report = within("the relay", relay.run(shutdown)).await.unwrap();
        assert_eq!((report.sent, report.failed, report.left_out), (1, 0, 1), "{report:?}");
        let expected = "outbox: message left out: it cannot be removed";
        assert_eq!(report.last_error.as_deref(), Some(expected));
        pool.close().await;
    });
}

#[test]
fn a_relay_on_threads() {
    let model = ModelBroker::start().unwrap();
    for uri in [model.uri(), rabbitmq().uri()] {
        let pool = Pool::new(amqp_blocking::Connector::new(&uri).unwrap(), 1).connect().unwrap();
        let member = pool.connection().unwrap();
        let queue = unique("on-threads");
        let channel = member.open_channel().unwrap();
        channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
        let rows = Rows::of(30, &queue, Faults::Some);
        let (stopper, shutdown) = Shutdown::manual();
        let relay = Relay::new(rows.clone(), &pool);
        let relaying = std::thread::spawn(move || relay.run(shutdown).unwrap());
        let mut bodies = Vec::new();
        while bodies.len() < 30 {
            let delivery = member.consume_one(&queue, Duration::from_secs(50)).unwrap().unwrap();
            bodies.push((delivery.body().to_vec(), delivery.properties().unwrap().message_id));
            delivery.ack().unwrap();
        }
        stopper.stop();
        assert_eq!(relaying.join().unwrap().sent, 30);
        assert_eq!(rows.left(), 0);
        for (number, (body, id)) in bodies.into_iter().enumerate() {
            assert_eq!((body, id), (number.to_string().into_bytes(), Some(number.to_string())));
        }
        pool.close();
    }
}
