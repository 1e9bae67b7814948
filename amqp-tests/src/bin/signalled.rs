//! An application that a test ends by signals: `signalled URI QUEUE [--threads] [--transactional]`. It prints what happens, and
//! its handlers wait until a line is written to its input.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amqp_app::Error as AppError;
use amqp_app::prelude::*;

/// Whether handlers may go on.
static GO: AtomicBool = AtomicBool::new(false);

const POLL: Duration = Duration::from_millis(5);

fn main() -> Result<Report, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(uri), Some(queue)) = (arguments.next(), arguments.next()) else {
        return Err("signalled URI QUEUE [--threads] [--transactional]".into());
    };
    let options: Vec<String> = arguments.collect();
    let is_set = |name| options.iter().any(|it| it == name);
    thread::spawn(|| {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        // The end of the input is not a line.
        GO.store(read.is_ok_and(|read| read > 0), Ordering::Release);
    });
    let consume = Consume::new(queue).concurrency(3);
    let consume = if is_set("--transactional") { consume.transactional() } else { consume };
    // The test ends it before.
    let shutdown = Shutdown::on_signals().within(Duration::from_secs(3_600));
    let report = match is_set("--threads") {
        true => on_threads(amqp_blocking::Connector::new(&uri)?, consume, shutdown)?,
        false => on_tokio(amqp_tokio::Connector::new(&uri)?, consume, shutdown)?,
    };
    println!("{} handled, {} abandoned", report.handled, report.abandoned);
    Ok(report)
}

#[tokio::main]
async fn on_tokio(
    connector: amqp_tokio::Connector,
    consume: Consume,
    shutdown: Shutdown,
) -> Result<Report, AppError> {
    let handler = async |Text(text): Text| {
        println!("began {text}");
        while !GO.load(Ordering::Acquire) {
            tokio::time::sleep(POLL).await;
        }
    };
    let app = App::new(connector).notify_systemd().on_stopping(async |_| {
        println!("stopping");
        Ok::<_, io::Error>(())
    });
    app.consume(consume, handler).run(shutdown).await
}

fn on_threads(
    connector: amqp_blocking::Connector,
    consume: Consume,
    shutdown: Shutdown,
) -> Result<Report, AppError> {
    let handler = |Text(text): Text| {
        println!("began {text}");
        while !GO.load(Ordering::Acquire) {
            thread::sleep(POLL);
        }
    };
    let app = App::new(connector).notify_systemd().on_stopping(|_| {
        println!("stopping");
        Ok::<_, io::Error>(())
    });
    app.consume(consume, handler).run(shutdown)
}
