//! Tasks, timers and work that blocks, on the executor of every adapter.

use std::future::poll_fn;
use std::sync::mpsc;
use std::time::Duration;

use amqp_async::{Executor, Timer};

use crate::support::within;

async fn runs_all_kinds_of_work(executor: impl Executor) {
    executor.check().unwrap();
    let (report, done) = smol::channel::unbounded();
    let (release, gate) = mpsc::channel();

    let worked = report.clone();
    executor.spawn_blocking(move || {
        gate.recv().unwrap();
        worked.send_blocking("work").unwrap();
    });
    let on = executor.clone();
    executor.spawn(async move {
        let deadline = on.now() + Duration::from_millis(20);
        let mut timer = on.timer();
        // A later deadline is replaced.
        let far = deadline + Duration::from_secs(3_600);
        assert!(poll_fn(|cx| std::task::Poll::Ready(timer.poll_until(cx, far))).await.is_pending());
        poll_fn(|cx| timer.poll_until(cx, deadline)).await;
        assert!(deadline <= on.now());
        report.send("task").await.unwrap();
    });

    let next = async || within("the executor", done.recv()).await.unwrap();
    assert_eq!(next().await, "task", "work that blocks keeps no task waiting");
    release.send(()).unwrap();
    assert_eq!(next().await, "work");
}

#[test]
fn tokio_runs_all_kinds_of_work() {
    let mut builders = [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ];
    for builder in &mut builders {
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(runs_all_kinds_of_work(amqp_tokio::runtime::Tokio::default()));
    }
}

#[test]
fn smol_runs_all_kinds_of_work() {
    smol::block_on(runs_all_kinds_of_work(amqp_smol::runtime::Smol::default()));
}

#[test]
fn async_std_runs_all_kinds_of_work() {
    async_std::task::block_on(runs_all_kinds_of_work(amqp_async_std::runtime::AsyncStd::default()));
}

#[test]
fn threads_run_all_kinds_of_work() {
    let threads = amqp_blocking::runtime::Threads;
    threads.block_on(runs_all_kinds_of_work(threads.clone()));
}
