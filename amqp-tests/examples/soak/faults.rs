//! One node, and faults of all kinds.

use std::time::{Duration, Instant};

use amqp_testkit::{Direction, Fault, Proxy, RabbitMq};
use amqp_tokio::{Backoff, Config, Heartbeat, Recovery};

use crate::Report;
use crate::api::At;
use crate::load::Load;
use crate::support::{sleep, within};

#[derive(Clone, Copy)]
enum Kind {
    Blocked,
    CloseAll,
    Cut,
    CutAgain,
    HalfClosed,
    HalfOpen,
    NodeKilled,
    NodeRestarted,
    Reset,
}

/// The kinds with their names and shares. A node that starts again takes seconds, and silence is noticed after seconds.
const KINDS: [(Kind, &str, u32); 9] = [
    (Kind::Blocked, "cut during a memory alarm", 5),
    (Kind::CloseAll, "close_all_connections", 12),
    (Kind::Cut, "cut", 20),
    (Kind::CutAgain, "cut, and cut while recovering", 15),
    (Kind::HalfClosed, "half closed", 10),
    (Kind::HalfOpen, "half open", 8),
    (Kind::NodeKilled, "node killed", 7),
    (Kind::NodeRestarted, "node restarted", 3),
    (Kind::Reset, "reset", 20),
];

pub(crate) async fn run(seed: u64, faults: u64, report: &mut Report) -> Result<(), String> {
    let node = RabbitMq::start().map_err(|error| error.to_string())?;
    let at = At::new(node.uri());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut soaked =
        [Soaked::start(&at, &node, true, seed).await, Soaked::start(&at, &node, false, seed).await];
    // Definitions reach the disk a while after they are answered.
    ctl(&node, &["eval", "mnesia:dump_log()."])?;
    for number in 1..=faults {
        let (kind, name) = draw(&mut random);
        for it in &mut soaked {
            it.load.goes_on(random.u64(200..1_000)).await;
            // What is unconfirmed stays so until the fault.
            it.proxy.inject(Direction::ToClient, Fault::Pause);
            it.load.is_in_flight().await;
        }
        let begun = Instant::now();
        for it in &soaked {
            it.cause(kind, &mut random).await;
        }
        cause(kind, &node, &soaked, &mut random).await?;
        let mut lost = String::new();
        for it in &mut soaked {
            lost += &format!("; {}", it.load.is_recovered().await);
            it.proxy.resume();
        }
        report.add(name, begun.elapsed());
        println!("{number} {name}{lost}");
    }
    report.close(soaked.map(|it| (it.load, it.proxy)), &at).await
}

fn draw(random: &mut fastrand::Rng) -> (Kind, &'static str) {
    let drawn = KINDS.iter().flat_map(|(kind, name, share)| vec![(*kind, *name); *share as usize]);
    random.choice(drawn.collect::<Vec<_>>()).expect("there are kinds")
}

/// Causes the part of a fault that is the node's.
async fn cause(
    kind: Kind,
    node: &RabbitMq,
    soaked: &[Soaked],
    random: &mut fastrand::Rng,
) -> Result<(), String> {
    match kind {
        Kind::Blocked => {
            ctl(node, &["set_vm_memory_high_watermark", "absolute", "10MB"])?;
            soaked.iter().for_each(|it| it.proxy.inject(Direction::ToClient, Fault::Cut));
            sleep(Duration::from_millis(random.u64(0..500))).await;
            ctl(node, &["set_vm_memory_high_watermark", "absolute", "2GB"])
        }
        Kind::CloseAll => {
            soaked.iter().for_each(|it| it.proxy.resume());
            ctl(node, &["close_all_connections", "soak"])
        }
        Kind::NodeKilled => {
            let killed = node.kill();
            for it in soaked {
                // The confirms that the node has sent arrive after its end, or never.
                match random.bool() {
                    true => it.proxy.resume(),
                    false => it.proxy.inject(Direction::ToClient, Fault::Cut),
                }
            }
            killed.and_then(|()| node.launch()).map_err(|error| error.to_string())
        }
        Kind::NodeRestarted => {
            soaked.iter().for_each(|it| it.proxy.resume());
            node.restart().map_err(|error| error.to_string())
        }
        Kind::Cut | Kind::CutAgain | Kind::HalfClosed | Kind::HalfOpen | Kind::Reset => Ok(()),
    }
}

fn ctl(node: &RabbitMq, arguments: &[&str]) -> Result<(), String> {
    node.ctl(arguments).map(drop).map_err(|error| error.to_string())
}

/// A load behind a proxy.
struct Soaked {
    proxy: Proxy,
    load: Load,
}

impl Soaked {
    async fn start(at: &At, node: &RabbitMq, republishes: bool, seed: u64) -> Self {
        let proxy = Proxy::start(node.port()).expect("a port is free");
        let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
        let recovery = Recovery::automatic().backoff(backoff).republish(republishes);
        let configure = |config: Config| config.recovery(recovery).heartbeat(Heartbeat::Seconds(2));
        let connection = At::new(proxy.uri()).open(configure).await.expect("a connection");
        Self { load: Load::start(at, connection, republishes, seed).await, proxy }
    }

    /// Causes the part of a fault that is this connection's own.
    async fn cause(&self, kind: Kind, random: &mut fastrand::Rng) {
        let direction = if random.bool() { Direction::ToBroker } else { Direction::ToClient };
        match kind {
            Kind::Cut => self.proxy.inject(direction, Fault::Cut),
            Kind::CutAgain => {
                let before = self.proxy.accepted();
                self.proxy.at(direction, random.u64(0..4_000), Fault::Cut);
                self.proxy.inject(Direction::ToClient, Fault::Cut);
                within("the next connection", async {
                    while self.proxy.accepted() == before {
                        sleep(Duration::from_millis(1)).await;
                    }
                })
                .await;
                self.proxy.heal();
            }
            Kind::HalfClosed => {
                self.proxy.inject(direction, Fault::HalfClose);
                self.proxy.resume();
            }
            Kind::HalfOpen => self.proxy.inject(Direction::ToBroker, Fault::Pause),
            Kind::Reset => self.proxy.inject(direction, Fault::Reset),
            Kind::Blocked | Kind::CloseAll | Kind::NodeKilled | Kind::NodeRestarted => {}
        }
    }
}
