//! Publishes 100,000 confirmed messages while it consumes and acknowledges them.
//!
//! `cargo run --profile quick -p quickstart` runs on an embedded broker, or on the one that
//! `AMQP_URL=amqp://user:password@host/vhost` names.
//!
//! The exit status is 0 only if the ids confirmed, consumed and acknowledged are the same 100,000.

use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    BasicConsume, Channel, Confirm, Connection, Connector, Consumer, Publish, Publisher,
    QueueDeclare,
};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

const MESSAGES: u64 = 100_000;
/// The maximum number of publishes that await their confirms.
const WINDOW: usize = 1_000;
/// How long to wait for a message that is lost.
const DEADLINE: Duration = Duration::from_secs(120);
/// The maximum number of unacknowledged deliveries.
const PREFETCH: u16 = 1_000;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match connect_and_run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quickstart failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn connect_and_run() -> Result<(), Failure> {
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    // Polled once, it listens.
    if poll_fn(|cx| Poll::Ready(interrupted.as_mut().poll(cx).is_ready())).await {
        return Err("interrupted".into());
    }
    let broker = EnvBroker::start()?;
    let connector = Connector::new(&broker.uri)?.connection_name("quickstart");
    let connection = tokio::select! {
        connection = connector.connect() => connection?,
        _ = &mut interrupted => return Err("interrupted".into()),
    };
    let properties = connection.server_properties();
    let text =
        |name| properties.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    println!("connected to {} {}", text("product"), text("version"));
    let result = tokio::select! {
        result = run(&connection) => result,
        () = tokio::time::sleep(DEADLINE) => Err("not done in time".into()),
        _ = &mut interrupted => Err("interrupted".into()),
    };
    connection.close().await;
    result
}

async fn run(connection: &Connection) -> Result<(), Failure> {
    let publishing = connection.open_channel().await?;
    let consuming = connection.open_channel().await?;
    let queue = publishing.queue_declare(QueueDeclare::new("").exclusive()).await?;
    let publisher = publishing.confirm_select().await?;
    let consume = BasicConsume::new(queue.name()).prefetch(PREFETCH);
    let consumer = consuming.basic_consume(consume).await?;

    let bar = ProgressBar::new(2 * MESSAGES);
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent:>3} %  {per_sec}  {elapsed}")?);
    let begun = Instant::now();
    let (published, consumed) = tokio::try_join!(
        spawn(publish(publisher, queue.name().to_owned(), begun, bar.clone())),
        spawn(consume_and_acknowledge(consumer, begun, bar.clone())),
    )?;
    let left = messages_left(connection, &consuming, queue.name()).await?;
    bar.finish_and_clear();
    report(&published, &consumed);
    check(&published, &consumed, left)
}

/// Runs a task beside the others, so that publishing and consuming really overlap; it ends with its
/// caller.
async fn spawn<T: Send + 'static>(
    task: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut tasks = JoinSet::from_iter([task]);
    tasks.join_next().await.ok_or("the task is gone")??
}

/// What one side saw.
struct Side {
    /// Whether each id was seen.
    seen: Vec<bool>,
    /// Ids that were seen twice.
    repeated: u64,
    /// From publish to confirm, or to delivery, in microseconds.
    latency: Histogram<u64>,
    from: Duration,
    to: Duration,
}

impl Side {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            seen: vec![false; MESSAGES as usize],
            repeated: 0,
            latency: Histogram::new(3)?,
            from: Duration::MAX,
            to: Duration::ZERO,
        })
    }

    fn saw(&mut self, id: u64, sent_at: Duration, now: Duration) -> Result<(), Failure> {
        let seen = self.seen.get_mut(usize::try_from(id)?).ok_or("an id that was not published")?;
        self.repeated += u64::from(std::mem::replace(seen, true));
        self.latency.record(now.saturating_sub(sent_at).as_micros() as u64)?;
        self.from = self.from.min(now);
        self.to = self.to.max(now);
        Ok(())
    }

    fn rate(&self) -> f64 {
        MESSAGES as f64 / (self.to - self.from).as_secs_f64()
    }
}

async fn publish(
    publisher: Publisher,
    queue: String,
    begun: Instant,
    bar: ProgressBar,
) -> Result<Side, Failure> {
    let mut side = Side::new()?;
    let mut window: VecDeque<(u64, Duration, Confirm)> = VecDeque::new();
    for id in 0..MESSAGES {
        if window.len() == WINDOW {
            confirmed(&mut window, &mut side, begun, &bar).await?;
        }
        let sent_at = begun.elapsed();
        let mut body = [0; 16];
        body[..8].copy_from_slice(&id.to_be_bytes());
        body[8..].copy_from_slice(&(sent_at.as_nanos() as u64).to_be_bytes());
        let confirm = publisher.send(Publish::new("", &queue, &body).mandatory()).await?;
        window.push_back((id, sent_at, confirm));
    }
    while !window.is_empty() {
        confirmed(&mut window, &mut side, begun, &bar).await?;
    }
    Ok(side)
}

/// Awaits the oldest confirm.
async fn confirmed(
    window: &mut VecDeque<(u64, Duration, Confirm)>,
    side: &mut Side,
    begun: Instant,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let Some((id, sent_at, confirm)) = window.pop_front() else { return Ok(()) };
    confirm.await?;
    bar.inc(1);
    side.saw(id, sent_at, begun.elapsed())
}

async fn consume_and_acknowledge(
    mut consumer: Consumer,
    begun: Instant,
    bar: ProgressBar,
) -> Result<Side, Failure> {
    let mut side = Side::new()?;
    for _ in 0..MESSAGES {
        let delivery = consumer.next().await.ok_or("the consumer ended early")??;
        let body: [u8; 16] = delivery.body().try_into()?;
        let [id, sent_at] = [&body[..8], &body[8..]]
            .map(|half| half.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
        delivery.ack()?;
        bar.inc(1);
        side.saw(id, Duration::from_nanos(sent_at), begun.elapsed())?;
    }
    Ok(side)
}

/// Closing a channel requeues what it had not acknowledged: what is left was not.
async fn messages_left(
    connection: &Connection,
    consuming: &Channel,
    queue: &str,
) -> Result<u32, Failure> {
    consuming.close().await?;
    let channel = connection.open_channel().await?;
    Ok(channel.queue_declare(QueueDeclare::passive(queue)).await?.message_count)
}

fn report(published: &Side, consumed: &Side) {
    for (what, side) in [("confirmed", published), ("consumed", consumed)] {
        println!("{what:>9}: {:>9.0} messages/s", side.rate());
    }
    let both = published.to.min(consumed.to).saturating_sub(published.from.max(consumed.from));
    let either = published.to.max(consumed.to).saturating_sub(published.from.min(consumed.from));
    println!("overlap of the two: {:.0} %", 100.0 * both.as_secs_f64() / either.as_secs_f64());
    println!("latency in ms      p50      p90      p99    p99.9      max");
    for (what, side) in [("to confirm", published), ("to delivery", consumed)] {
        print!("{what:>12}");
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            print!("{:>9.2}", side.latency.value_at_quantile(quantile) as f64 / 1000.0);
        }
        println!();
    }
}

fn check(published: &Side, consumed: &Side, left: u32) -> Result<(), Failure> {
    let count = |side: &Side| side.seen.iter().filter(|seen| **seen).count();
    println!(
        "{} confirmed, {} consumed, {left} not acknowledged, {} repeated",
        count(published),
        count(consumed),
        published.repeated + consumed.repeated,
    );
    let all = published.seen.iter().chain(&consumed.seen).all(|seen| *seen);
    if all && left == 0 && published.repeated + consumed.repeated == 0 {
        Ok(())
    } else {
        Err("the ids confirmed, consumed and acknowledged are not the same".into())
    }
}
