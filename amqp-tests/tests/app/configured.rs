//! Applications that a file configures.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Barrier};
use std::thread;

use amqp_app::config::{Format, LogLevel};
use amqp_app::prelude::*;

use crate::at::{
    At, Log, Make, OnThreads, beside, header, on_model, on_rabbitmq, rabbitmq, unique, until,
    within,
};

on_model! {
    gr_20_a_file_configures_an_application
    gr_20_a_file_makes_sources_transactional
    gr_20_a_source_that_is_not_there_ends_the_start
    gr_20_a_topology_that_is_refused_is_named
    gr_21_handlers_take_settings
}

on_rabbitmq! {
    gr_20_a_file_configures_an_application
    gr_20_a_file_makes_sources_transactional
    gr_20_a_topology_that_is_refused_is_named
    gr_21_handlers_take_settings
}

/// An application that a file configures, on the broker of the test.
fn configured<P: Make>(at: &At<P>, file: &str) -> App<P, Log> {
    let config: Config = format!("connection.url = \"{}\"\n{file}", at.uri)
        .parse()
        .unwrap_or_else(|it| panic!("{it}"));
    App::with_state(config.connector(P::to), at.log.clone()).configure(&config).unwrap()
}

async fn gr_20_a_file_configures_an_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (exchange, inner, queue) = (unique("room"), unique("inner"), unique("file"));
    let file = format!(
        r#"
        [topology]
        exchanges = [{{ name = "{exchange}", type = "topic" }}, {{ name = "{inner}", type = "fanout" }}]
        queues = [{{ name = "{queue}", type = "classic" }}]
        bindings = [
            {{ source = "{exchange}", destination = "{inner}", destination_type = "exchange", routing_key = "order.*" }},
            {{ source = "{inner}", destination = "{queue}" }},
        ]
        [worker]
        amount = 1
        [consume.{queue}]
        concurrency = 2
        retry.now = 1
        retry.after = ["20ms"]
        retry.then = "discard"
        "#
    );
    // The code has one worker, and parks at the first failure.
    let consume = Consume::new(queue.as_str()).concurrency(1).on_failure(Retry::none());
    let handler = |Text(text): Text, State(log): State<Log>, attempt: Attempt| async move {
        log.add(format!("{text} {}", attempt.0));
        if text == "fails" {
            return Err(io::Error::other("it always does"));
        }
        // Both are in work at the same time.
        log.find("one 1").await;
        log.find("two 1").await;
        Ok(())
    };
    let app = configured(&at, &file).consume(consume, handler);
    let report = beside(app, async |_| {
        client.declared(&format!("{queue}.retry.20ms")).await;
        // The bindings are declared before the queues of the policy.
        for text in ["one", "two", "fails"] {
            client.publish(Message::new(text).to(&exchange, "order.created")).await;
        }
        at.log.reach(5).await;
    })
    .await;
    assert_eq!((report.handled, report.failed, report.retried), (2, 3, 2));
    assert_eq!((report.parked, report.discarded), (0, 1));
    let lines = at.log.lines();
    let failed: Vec<_> = lines.iter().filter(|line| line.starts_with("fails")).collect();
    assert_eq!(failed, ["fails 1", "fails 2", "fails 3"]);
}

async fn gr_20_a_file_makes_sources_transactional<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("file").await, client.queue("answers").await);
    let file = "worker = { amount = 3, commit = \"transaction\" }";
    let to = answers.clone();
    let handler = move |Text(text): Text| std::future::ready(Message::new(text).to_queue(&to));
    let app = configured(&at, file).consume(Consume::new(queue.as_str()), handler);
    let report = beside(app, async |_| {
        until("a consumer for each worker", async || {
            let declared = client.channel.queue_declare(QueueDeclare::passive(&queue)).await;
            declared.unwrap().consumer_count == 3
        })
        .await;
        client.send(&queue, "1").await;
        assert_eq!(client.bodies(&answers, 1).await, ["1"]);
    })
    .await;
    assert_eq!(report.handled, 1);
}

async fn gr_20_a_source_that_is_not_there_ends_the_start<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("texts").await;
    let file = format!("[consume.{queue}s]\nconcurrency = 2");
    let app = configured(&at, &file).consume(queue.as_str(), async |_: Text| ());
    let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
    assert!(matches!(&error, Error::Config(it) if it.line() == Some(2)), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "line 2, column 10: no source consumes from \"{queue}s\": did you mean \"{queue}\"? the application consumes \
             from \"{queue}\""
        )
    );
}

async fn gr_20_a_topology_that_is_refused_is_named<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("refused").await;
    for (item, expected, code) in [
        (
            format!("queues = [{{ name = \"{queue}\", arguments.x-max-length = 1 }}]"),
            format!("cannot set up queue {queue:?} of [topology]: "),
            406,
        ),
        (
            "exchanges = [{ name = \"amq.topic\", type = \"direct\" }]".to_owned(),
            "cannot set up exchange \"amq.topic\" of [topology]: ".to_owned(),
            406,
        ),
        (
            format!("bindings = [{{ source = \"none\", destination = \"{queue}\" }}]"),
            format!(
                "cannot set up the binding of queue {queue:?} to exchange \"none\" of [topology]: "
            ),
            404,
        ),
    ] {
        let app = configured(&at, &format!("[topology]\n{item}"));
        let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&expected) && text.contains(&code.to_string()), "{text}");
    }
}

async fn gr_21_handlers_take_settings<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("settings").await, client.queue("answers").await);
    client.send(&queue, "text").await;
    let file = format!("[settings]\n\"answers.queue\" = \"{answers}\"\n\"Ümläuten\" = \"ünd\"\n");
    let handler = async |settings: Settings, Text(text): Text| {
        let body = format!("{text} {}", settings.require("Ümläuten")?);
        Ok::<_, Failure>(Message::new(body).to_queue(settings.require("answers.queue")?))
    };
    let app = configured(&at, &file).consume(queue.as_str(), handler);
    let report = beside(app, async |_| {
        assert_eq!(client.bodies(&answers, 1).await, ["text ünd"]);
    })
    .await;
    assert_eq!(report.handled, 1);

    // An application without a configuration parks what asks for settings, with the reason.
    client.send(&queue, "text").await;
    let app = at.app().consume(queue.as_str(), handler);
    let report = beside(app, async |_| {
        let parked = client.expect(&format!("{queue}.parked")).await;
        let reason = header(&parked, "retry-error").unwrap();
        assert_eq!(reason, "no settings: the application is not configured (App::configured)");
        parked.ack().unwrap();
    })
    .await;
    assert_eq!(report.parked, 1);
}

#[test]
fn gr_8_gr_20_gr_21_a_file_configures_an_application_on_threads() {
    let file = format!(
        "[connection]\nurl = \"{}\"\n[worker]\namount = 10\n[settings]\n\"your.custom.settings\" = \"here\"\n",
        rabbitmq().uri()
    );
    ten_workers_on_threads(&file.parse().unwrap());
}

#[test]
fn gr_20_gr_21_a_file_of_gocept_amqprun_configures_an_application_on_threads() {
    let port = At::<OnThreads>::rabbitmq().port();
    let file = format!(
        "<eventlog>\n  level DEBUG\n  <logfile>\n    path STDOUT\n  </logfile>\n</eventlog>\n\
         <amqp-server>\n  hostname 127.0.0.1\n  port {port}\n  username guest\n  password guest\n</amqp-server>\n\
         <worker>\n  amount 10\n  component-configuration site.zcml\n</worker>\n\
         <settings>\n  your.custom.settings here\n</settings>\n"
    );
    let config = Config::parse(Format::ZConfig, &file).unwrap();
    assert_eq!((config.ignored().len(), config.log_level()), (2, Some(LogLevel::Debug)));
    ten_workers_on_threads(&config);
}

/// The plain functions of gocept.amqprun, with its settings and ten workers.
fn ten_workers_on_threads(config: &Config) {
    let queue = unique("on-threads");
    let (stopper, shutdown) = Shutdown::manual();
    let (log, barrier) = (Log::default(), Arc::new(Barrier::new(10)));
    let lines = log.clone();
    let handler = move |settings: Settings, Text(text): Text| {
        lines.add(format!("{text} {}", settings.get("your.custom.settings").unwrap_or("none")));
        // All ten are in work at the same time.
        if barrier.wait().is_leader() {
            stopper.stop();
        }
    };
    let to = queue.clone();
    let app = App::configured(config, amqp_blocking::Connector::new)
        .unwrap()
        .consume(Consume::topic(&queue, [format!("{queue}.key")]), handler)
        .on_started(move |connection| {
            let publisher = connection.publisher()?;
            for _ in 0..10 {
                let message = Message::new("text").to("amq.topic", format!("{to}.key"));
                publisher.publish(&message).map_err(|error| io::Error::other(error.to_string()))?;
            }
            Ok::<_, Box<dyn StdError + Send + Sync>>(())
        });
    let report = thread::spawn(move || app.run(shutdown)).join().unwrap().unwrap();
    assert_eq!((report.handled, log.lines()), (10, vec!["text here".to_owned(); 10]));
}
