//! An application that a test ends by signals: `signalled URI QUEUE`. It prints what happens, and its handlers wait until a line
//! is written to its input.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amqp_app::prelude::*;
use amqp_tokio::Connector;

/// Whether handlers may go on.
static GO: AtomicBool = AtomicBool::new(false);

#[tokio::main]
async fn main() -> Result<Report, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(uri), Some(queue)) = (arguments.next(), arguments.next()) else {
        return Err("signalled URI QUEUE".into());
    };
    thread::spawn(|| {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        // The end of the input is not a line.
        GO.store(read.is_ok_and(|read| read > 0), Ordering::Release);
    });
    let app = App::new(Connector::new(&uri)?)
        .notify_systemd()
        .on_stopping(async |_| {
            println!("stopping");
            Ok::<_, io::Error>(())
        })
        .consume(Consume::new(queue).concurrency(3), async |Text(text): Text| {
            println!("began {text}");
            while !GO.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    // The test ends it before.
    let report = app.run(Shutdown::on_signals().within(Duration::from_secs(3_600))).await?;
    println!("{} handled, {} abandoned", report.handled, report.abandoned);
    Ok(report)
}
