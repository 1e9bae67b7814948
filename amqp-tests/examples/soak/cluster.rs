//! Three nodes: each fault kills the one to which the first connection is connected. The connection goes on with another of
//! its endpoints.

use std::time::{Duration, Instant};

use amqp_testkit::{Direction, Proxy, RabbitMq};
use amqp_tokio::{Backoff, Config, Endpoint, HostOrder, Recovery};
use tokio::task::JoinHandle;

use crate::Report;
use crate::api::{At, Connection, ConnectionEvent};
use crate::load::Load;
use crate::support::{sleep, within};

const NODES: usize = 3;
/// The maximum time in which a member of a quorum queue gets what it has missed.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Whether all members of each queue have the same last entry of the log.
const EQUAL_MEMBERS: &str = r#"lists:all(
    fun(Queue) ->
        {resource, Host, queue, Name} = amqqueue:get_name(Queue),
        Indexes = [proplists:get_value(<<"Log Index">>, Member)
            || Member <- rabbit_quorum_queue:status(Host, Name)],
        length(Indexes) =:= 3 andalso length(lists:usort(Indexes)) =:= 1
            andalso is_integer(hd(Indexes))
    end,
    rabbit_amqqueue:list())."#;

pub(crate) async fn run(seed: u64, faults: u64, report: &mut Report) -> Result<(), String> {
    let nodes = RabbitMq::start_cluster(NODES).map_err(|error| error.to_string())?;
    let at = At::new(nodes[0].uri());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut members = [
        Member::start(&at, &nodes, true, seed).await,
        Member::start(&at, &nodes, false, seed).await,
    ];
    for number in 1..=faults {
        for it in &mut members {
            it.load.goes_on(random.u64(1_000..5_000)).await;
            it.load.is_in_flight().await;
        }
        let [killed, other] = [members[0].node().await, members[1].node().await];
        let (watching, begun) = (members[0].watch(), Instant::now());
        nodes[killed].kill().map_err(|error| error.to_string())?;
        let (recovered, confirmed) =
            within("the recovery", watching).await.expect("it does not panic");
        let [recovered, confirmed] = [recovered - begun, confirmed - begun];
        report.add("node killed: recovered", recovered);
        report.add("node killed: confirms", confirmed);
        let cause = members[0].load.is_recovered().await;
        if other == killed {
            members[1].load.is_recovered().await;
        }
        let present = members[0].node().await;
        println!(
            "{number} node {killed} killed ({cause}): on node {present} after {recovered:?}, \
             confirms after {confirmed:?}"
        );
        // Both are served while a node is away.
        for it in &members {
            it.load.goes_on(1_000).await;
        }
        come_back(&nodes, killed).await?;
    }
    report.close(members.map(|it| (it.load, it.proxies)), &at).await
}

/// Launches a node, and waits until its members of the queues have what the others have. Without that, the next fault would
/// leave a majority that has to catch up before anything is confirmed.
async fn come_back(nodes: &[RabbitMq], killed: usize) -> Result<(), String> {
    let ctl = |node: usize, arguments: &[&str]| {
        nodes[node].ctl(arguments).map_err(|error| error.to_string())
    };
    // Blocks the publishers of the cluster, so that the members can catch up.
    let blocking = (killed + 1) % NODES;
    ctl(blocking, &["set_vm_memory_high_watermark", "0.00001"])?;
    nodes[killed].launch().map_err(|error| error.to_string())?;
    ctl(killed, &["await_online_nodes", &NODES.to_string()])?;
    let begun = Instant::now();
    while ctl(killed, &["eval", EQUAL_MEMBERS])?.trim() != "true" {
        if begun.elapsed() > CATCH_UP {
            return Err(format!("node {killed} has not caught up"));
        }
        sleep(Duration::from_millis(200)).await;
    }
    println!("node {killed} is back; its queues had caught up after {:?}", begun.elapsed());
    ctl(blocking, &["set_vm_memory_high_watermark", "0.4"]).map(drop)
}

/// A load that has an endpoint for each node.
struct Member {
    proxies: Vec<Proxy>,
    connection: Connection,
    load: Load,
}

impl Member {
    async fn start(at: &At, nodes: &[RabbitMq], republishes: bool, seed: u64) -> Self {
        let proxies = nodes.iter().map(|node| Proxy::start(node.port()).expect("a port is free"));
        let proxies: Vec<_> = proxies.collect();
        let endpoints: Vec<_> =
            proxies.iter().map(|proxy| Endpoint::new("127.0.0.1", proxy.port())).collect();
        let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
        let recovery = Recovery::automatic().backoff(backoff).republish(republishes);
        let configure = |config: Config| {
            config.endpoints(endpoints).host_order(HostOrder::Shuffled).recovery(recovery)
        };
        let connection = at.open(configure).await.expect("a connection");
        let load = Load::start(at, connection.clone(), republishes, seed).await;
        Self { proxies, connection, load }
    }

    /// The node to which it is connected.
    async fn node(&self) -> usize {
        let is_connected = |proxy: &Proxy| proxy.passed(Direction::ToClient) > 0;
        within("one connection", async {
            loop {
                let mut connected = (0..NODES).filter(|node| is_connected(&self.proxies[*node]));
                if let (Some(node), None) = (connected.next(), connected.next()) {
                    return node;
                }
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// Waits for the next recovery and the first confirm after it, and returns when they came.
    fn watch(&self) -> JoinHandle<(Instant, Instant)> {
        let (mut events, connection) = (self.connection.events(), self.connection.clone());
        tokio::spawn(async move {
            while !matches!(events.next().await, Some(ConnectionEvent::Recovered { .. })) {}
            let (recovered, before) = (Instant::now(), connection.stats().confirmed);
            while connection.stats().confirmed == before {
                sleep(Duration::from_millis(1)).await;
            }
            (recovered, Instant::now())
        })
    }
}
