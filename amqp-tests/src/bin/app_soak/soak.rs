//! Runs the application and its producer, causes the faults, and closes the ledger.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy, RabbitMq};
use amqp_tokio::{Backoff, Connection, Connector, Recovery};
use tokio::time::sleep;

use crate::faults::{self, Kind, Loss};
use crate::ledger::Ledger;
use crate::process::Process;
use crate::producer::Producer;
use crate::worker::Mode;

const QUEUE: &str = "soaked";
const WAITING: &str = "soaked.retry.100ms";
const PARKED: &str = "soaked.parked";
const ANSWERS: &str = "answers";
/// Longer than any recovery takes, also of a node that is started again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Definitions reach the disk a while after they are answered: those of queues, and the list of the members of quorum queues.
const WRITE_DEFINITIONS: &str = "mnesia:dump_log(), [dets:sync(Table) || Table <- dets:all()].";
/// The interval in which the broker counts the messages of quorum queues, and a little more.
const COUNTED: Duration = Duration::from_secs(6);
/// Longer than it takes until a message has left a queue from which it has expired: if the broker does not confirm to itself
/// that the message is in its next queue, as may happen at a kill, it moves the message again after 180 s.
const DRAINED: Duration = Duration::from_secs(400);
const POLL: Duration = Duration::from_millis(20);
/// The number of messages that are done after a fault before the next one.
const BETWEEN: u64 = 30;

pub(crate) async fn run(mode: Mode, seed: u64, count: usize) -> Result<(), String> {
    let begun = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut soak = Soak::start(mode).await?;
    let mut table = BTreeMap::<&'static str, Vec<Duration>>::new();
    let kinds = match mode {
        Mode::Confirms => faults::choose(&mut random, count),
        Mode::Transactions => faults::choose_kills(&mut random, count),
    };
    for (number, kind) in kinds.into_iter().enumerate() {
        soak.goes_on(random.u64(1..BETWEEN)).await?;
        let caused = Instant::now();
        soak.cause(kind, &mut random).await?;
        let done = soak.goes_on(BETWEEN).await?;
        println!("{} {}: {done} messages done", number + 1, kind.name());
        table.entry(kind.name()).or_default().push(caused.elapsed());
    }
    let (confirmed, again) = soak.producer.stop().await?;
    let summary = soak.close(confirmed, again).await?;
    println!("\n{:<36} {:>5} {:>9} {:>9} {:>9}", "went on after", "times", "min", "median", "max");
    for (name, mut times) in table {
        times.sort_unstable();
        let seconds = |at: usize| format!("{:.3} s", times[at].as_secs_f64());
        let [min, median, max] = [0, times.len() / 2, times.len() - 1].map(seconds);
        println!("{name:<36} {:>5} {min:>9} {median:>9} {max:>9}", times.len());
    }
    println!("{summary}\n{:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Soak {
    mode: Mode,
    node: RabbitMq,
    /// Between the application and its node, and between the producer and the node.
    proxies: [Proxy; 2],
    application: Process,
    producer: Producer,
    /// A connection that is lost with the node alone.
    watching: Connection,
    starts: usize,
}

impl Soak {
    async fn start(mode: Mode) -> Result<Self, String> {
        let node = RabbitMq::start().map_err(text)?;
        let proxy = || Proxy::start(node.port()).map_err(text);
        let proxies = [proxy()?, proxy()?];
        let watching = connect(&node.uri()).await?;
        let channel = watching.open_channel().await.map_err(text)?;
        // A quorum queue may keep a part of a transaction whose connection ends during the commit.
        let answers = match mode {
            Mode::Confirms => QueueDeclare::quorum(ANSWERS),
            Mode::Transactions => QueueDeclare::classic(ANSWERS),
        };
        for queue in [QueueDeclare::quorum(QUEUE), answers] {
            channel.queue_declare(queue).await.map_err(text)?;
        }
        let producing = connect(&proxies[1].uri()).await?;
        let producer = Producer::start(&producing, QUEUE);
        let application = start(&proxies[0], mode)?;
        let mut soak = Self { mode, node, proxies, application, producer, watching, starts: 1 };
        soak.goes_on(1).await?;
        soak.node.ctl(&["eval", WRITE_DEFINITIONS]).map_err(text)?;
        Ok(soak)
    }

    /// Waits until this many more messages are done. Returns how many are.
    async fn goes_on(&mut self, count: u64) -> Result<u64, String> {
        let begun = Instant::now();
        let mut aim = None;
        loop {
            // Not while the node is away.
            if let (Some(answers), Some(parked)) =
                (self.ready(ANSWERS).await, self.ready(PARKED).await)
            {
                let done = u64::from(answers) / self.mode.replies() as u64 + u64::from(parked);
                self.producer.done(done);
                if done >= *aim.get_or_insert(done + count) {
                    return Ok(done);
                }
            }
            if let Some(status) = self.application.ended().map_err(text)? {
                return Err(format!("the application has ended: {status}"));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("no progress within {PATIENCE:?}:\n{}", state(&self.node)));
            }
            sleep(POLL).await;
        }
    }

    /// The number of messages that are ready in a queue, if the broker can be asked.
    async fn ready(&self, queue: &str) -> Option<u32> {
        let passive = async |channel: amqp_tokio::Channel| {
            channel.queue_declare(QueueDeclare::passive(queue)).await
        };
        Some(self.watching.with_channel(passive).await.ok()?.message_count)
    }

    async fn cause(&mut self, kind: Kind, random: &mut fastrand::Rng) -> Result<(), String> {
        match kind {
            Kind::Connection(loss) => {
                // The producer's connection is lost in the same way now and then. It has no deliveries.
                let both = !matches!(loss, Loss::Before(..)) && random.bool();
                let count = if both { 2 } else { 1 };
                for proxy in &self.proxies[..count] {
                    self.lose(proxy, loss).await?;
                }
                Ok(())
            }
            Kind::Process => {
                self.application.kill().map_err(text)?;
                sleep(faults::moment(random)).await;
                self.start_again()
            }
            Kind::ProcessBefore(direction, method) => {
                let proxy = &self.proxies[0];
                let before = proxy.faulted().len();
                proxy.before(direction, method, random.usize(1..30), Fault::Pause);
                until(method, || proxy.faulted().len() > before).await?;
                self.application.kill().map_err(text)?;
                // What was held up never reaches the broker.
                proxy.inject(Direction::ToBroker, Fault::Cut);
                self.start_again()
            }
            Kind::Node => {
                self.node.kill().map_err(text)?;
                sleep(faults::moment(random)).await;
                self.node.launch().map_err(text)
            }
        }
    }

    async fn lose(&self, proxy: &Proxy, loss: Loss) -> Result<(), String> {
        let (accepted, faulted) = (proxy.accepted(), proxy.faulted().len());
        match loss {
            Loss::Now(direction, fault) => proxy.inject(direction, fault),
            Loss::HalfOpen => {
                for direction in [Direction::ToBroker, Direction::ToClient] {
                    proxy.inject(direction, Fault::Pause);
                }
            }
            Loss::Again(direction, bytes) => {
                proxy.at(direction, bytes, Fault::Cut);
                proxy.inject(Direction::ToClient, Fault::Cut);
                until("the next connection", || proxy.accepted() > accepted).await?;
                proxy.heal();
            }
            Loss::Before(direction, method, number, fault) => {
                proxy.before(direction, method, number, fault);
                until(method, || proxy.faulted().len() > faulted).await?;
            }
        }
        until("the next connection", || proxy.accepted() > accepted).await
    }

    fn start_again(&mut self) -> Result<(), String> {
        self.application = start(&self.proxies[0], self.mode)?;
        self.starts += 1;
        Ok(())
    }

    /// Waits until the application has nothing left to do, and ends it.
    async fn finish(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            self.wait_for_nothing(begun).await?;
            let status = self.application.stop().map_err(text)?;
            if !status.success() {
                return Err(format!("the application has failed: {status}"));
            }
            // What was unacknowledged a moment ago is ready.
            if self.ready(QUEUE).await == Some(0) && self.ready(WAITING).await == Some(0) {
                return Ok(());
            }
            self.start_again()?;
        }
    }

    /// Waits until the broker says for longer than it takes to count that nothing is left, also unacknowledged or expired.
    async fn wait_for_nothing(&self, begun: Instant) -> Result<(), String> {
        let mut since = None;
        while since.is_none_or(|since: Instant| since.elapsed() < COUNTED) {
            let counts = self.node.ctl(&["list_queues", "name", "messages"]).map_err(text)?;
            let empty = |queue: &str| counts.lines().any(|line| line == format!("{queue}\t0"));
            if [QUEUE, WAITING].into_iter().all(empty) {
                since.get_or_insert_with(Instant::now);
            } else {
                since = None;
            }
            if begun.elapsed() > DRAINED {
                return Err(format!("not done within {DRAINED:?}:\n{}", state(&self.node)));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Drains everything, and compares it with what was confirmed.
    async fn close(mut self, confirmed: u64, again: u64) -> Result<String, String> {
        self.finish().await?;
        let mut ledger = Ledger::new(self.mode);
        let channel = self.watching.open_channel().await.map_err(text)?;
        for queue in [ANSWERS, PARKED, QUEUE, WAITING] {
            while let Some(delivery) = channel.basic_get(queue).await.map_err(text)? {
                let properties = delivery.properties().map_err(text)?;
                let id = properties.message_id.unwrap_or_default();
                let body = String::from_utf8_lossy(delivery.body()).into_owned();
                let reason = delivery.header("retry-error").map_err(text)?;
                let reason = reason.as_ref().and_then(FieldValue::as_str).unwrap_or_default();
                match queue {
                    ANSWERS => ledger.answer(&id, &body)?,
                    PARKED => ledger.park(&id, &body, reason)?,
                    _ => return Err(format!("{id:?} is left in {queue}")),
                }
                delivery.ack().map_err(text)?;
            }
        }
        let balance = ledger.balance(confirmed)?;
        let [answers, parked] = balance.duplicates;
        Ok(format!(
            "{confirmed} messages confirmed ({again} publishes repeated) = {} answered ({} replies each) + {} parked + {} lost\n\
             duplicates, each with the id of the first: {answers} answers, {parked} parked\n\
             {} processes, {} connections of the application",
            balance.answered,
            self.mode.replies(),
            balance.parked,
            confirmed - (balance.answered + balance.parked) as u64,
            self.starts,
            self.proxies[0].accepted(),
        ))
    }
}

fn start(proxy: &Proxy, mode: Mode) -> Result<Process, String> {
    // Short, so that silence is noticed soon.
    Process::start(&format!("{}?heartbeat=2", proxy.uri()), QUEUE, ANSWERS, mode).map_err(text)
}

/// What the broker has, for an error.
fn state(node: &RabbitMq) -> String {
    let lists = [
        &["list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"][..],
        &[
            "list_channels",
            "name",
            "consumer_count",
            "messages_unacknowledged",
            "messages_unconfirmed",
        ],
    ];
    lists.map(|list| node.ctl(list).unwrap_or_else(text)).concat()
}

async fn connect(uri: &str) -> Result<Connection, String> {
    let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
    let connector = Connector::new(&format!("{uri}?heartbeat=2")).map_err(text)?;
    connector.recovery(Recovery::automatic().backoff(backoff)).connect().await.map_err(text)
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{what}: nothing within {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn text(error: impl Display) -> String {
    error.to_string()
}
