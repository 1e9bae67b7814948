//! Transactional sources: what a handler returns and the acknowledgement of its message are one transaction.

use amqp_app::HealthReport;
use amqp_app::prelude::*;
use amqp_async::Overflow;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{
    At, Client, Log, Make, beside, header, on_model, on_rabbitmq, sleep, source, text, unique,
    until,
};

on_model! {
    gr_5_gr_15_u_1_replies_and_acknowledgement_are_one_transaction
    gr_5_a_transactional_source_has_no_order_by_key_and_no_exclusive_workers
    gr_5_failures_follow_the_policy_in_a_transaction_too
    gr_5_a_handler_that_takes_the_delivery_commits_its_answer
    gr_5_a_late_answer_that_is_lost_holds_no_worker_up
    gr_5_a_transaction_waits_for_the_end_of_an_alarm
    gr_7_a_refused_commit_costs_no_worker_and_parks_its_message
    gr_16_gr_18_what_is_sent_deep_down_and_reports_go_with_the_transaction
    gr_19_what_is_meant_for_a_failed_commit_is_sent_instead
    u_5_f_1_a_reply_to_a_full_queue_is_parked_when_its_request_is_gone
    u_5_f_9_a_reply_that_reaches_no_queue_is_parked_when_its_request_is_gone
    u_2_each_worker_has_a_channel_of_its_own
    u_4_a_commit_that_is_not_confirmed_is_not_handled_twice
    u_7_a_shutdown_gives_back_what_is_not_committed
}

on_rabbitmq! {
    gr_5_gr_15_u_1_replies_and_acknowledgement_are_one_transaction
    gr_5_failures_follow_the_policy_in_a_transaction_too
    gr_5_a_handler_that_takes_the_delivery_commits_its_answer
    gr_5_a_late_answer_that_is_lost_holds_no_worker_up
    gr_7_a_refused_commit_costs_no_worker_and_parks_its_message
    gr_16_gr_18_what_is_sent_deep_down_and_reports_go_with_the_transaction
    gr_19_what_is_meant_for_a_failed_commit_is_sent_instead
    u_5_f_1_a_reply_to_a_full_queue_is_parked_when_its_request_is_gone
    u_5_f_9_a_reply_that_reaches_no_queue_is_parked_when_its_request_is_gone
    u_2_each_worker_has_a_channel_of_its_own
    u_4_a_commit_that_is_not_confirmed_is_not_handled_twice
    u_7_a_shutdown_gives_back_what_is_not_committed
}

fn transactional(queue: &str) -> Consume {
    source(queue).transactional()
}

async fn two(client: &Client) -> [String; 2] {
    [client.queue("requests").await, client.queue("answers").await]
}

async fn gr_5_gr_15_u_1_replies_and_acknowledgement_are_one_transaction<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    for number in 0..20 {
        let request = Message::new(number.to_string()).message_id(format!("r{number}"));
        client.publish(request.to_queue(&queue)).await;
    }
    let to = answers.clone();
    let handler = move |Text(text): Text| {
        let reply = |it| Message::new(format!("{text}{it}")).to_queue(&to);
        std::future::ready(["a", "b"].map(reply))
    };
    let app = at.app().consume(transactional(&queue).concurrency(4), handler);
    let health = app.health();
    let report = beside(app, async |_| {
        until("the answers", async || client.ready(&answers).await == 40).await;
        // The answers may be there before the last worker has started.
        let is_idle = |it: HealthReport| it.sources.iter().all(|source| source.in_work == 0);
        until("the counters", async || health.report().is_some_and(is_idle)).await;
        assert_eq!(health.report().unwrap().sources.len(), 1, "one state for all workers");
    })
    .await;
    assert_eq!((report.handled, report.failed, report.stale), (20, 0, 0));
    assert_eq!(client.ready(&queue).await, 0);
    let mut seen = Vec::new();
    for _ in 0..40 {
        let delivery = client.expect(&answers).await;
        let properties = delivery.properties().unwrap();
        let request = properties.correlation_id.unwrap();
        assert_eq!(header(&delivery, "references").as_deref(), Some(&*request));
        seen.push((text(&delivery), properties.message_id.unwrap()));
        delivery.ack().unwrap();
    }
    seen.sort();
    let expected =
        |it: u32| [(format!("{it}a"), format!("r{it}#0")), (format!("{it}b"), format!("r{it}#1"))];
    let mut expected: Vec<_> = (0..20).flat_map(expected).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

async fn gr_5_a_transactional_source_has_no_order_by_key_and_no_exclusive_workers<P: Make>(
    at: At<P>,
) {
    let consume = transactional("q").by_header("tenant");
    let error = at.app().consume(consume, async || {}).run(Shutdown::never()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a transactional source cannot keep the order of keys"), "{error}");
    let consume = transactional("q").concurrency(2).exclusive();
    let error = at.app().consume(consume, async || {}).run(Shutdown::never()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("an exclusive consumer is one"), "{error}");
}

async fn gr_5_failures_follow_the_policy_in_a_transaction_too<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let to = answers.clone();
    let handler = move |Text(text): Text, Attempt(attempt): Attempt| {
        let reply = Message::new(format!("{text} {attempt}")).to_queue(&to);
        std::future::ready(match (text.as_str(), attempt) {
            ("never", _) => Err(Failure::permanent("never")),
            ("discard", _) => Err(Failure::discard("not wanted")),
            ("back", _) => Err(Failure::give_back("not here")),
            (_, attempt) if attempt < 3 => Err(Failure::retry("not yet")),
            _ => Ok(reply),
        })
    };
    let policy = Retry::now(1).and_after([Duration::from_millis(50)]);
    let consume = transactional(&queue).concurrency(2).on_failure(policy);
    for text in ["later", "never", "discard"] {
        client.send(&queue, text).await;
    }
    let report = beside(at.app().consume(consume, handler), async |_| {
        assert_eq!(client.bodies(&answers, 1).await, ["later 3"]);
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["never"]);
        until("the discarded one", async || client.ready(&queue).await == 0).await;
        client.send(&queue, "back").await;
        sleep(Duration::from_millis(20)).await;
    })
    .await;
    assert_eq!((report.handled, report.parked, report.discarded), (1, 1, 1));
    let back = client.expect(&queue).await;
    assert_eq!(text(&back), "back");
    back.ack().unwrap();
}

async fn gr_5_a_handler_that_takes_the_delivery_commits_its_answer<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    client.send(&queue, "1").await;
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("redelivered: {}", delivery.redelivered()));
        // Both are committed: otherwise the message would not come again while the channel is open.
        if delivery.redelivered() { delivery.ack() } else { delivery.requeue() }
    };
    let app = at.app().consume(transactional(&queue), handler);
    let report = beside(app, async |_| {
        at.log.reach(2).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["redelivered: false", "redelivered: true"]);
    assert_eq!((report.handled, client.ready(&queue).await), (2, 0));
}

/// Its transaction was begun before the loss, and cannot be committed.
async fn gr_5_a_late_answer_that_is_lost_holds_no_worker_up<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("late").await;
    client.send(&queue, "1").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let (sender, taken) = smol::channel::unbounded();
    let handler = move |delivery: Delivery, State(log): State<Log>| {
        log.add(text(&delivery));
        // The first one is answered when its handler has returned, and is committed with the next one.
        let first = !delivery.redelivered();
        let answered = if first {
            sender.try_send(delivery).map_err(|_| "ended")
        } else {
            drop(delivery.ack());
            Ok(())
        };
        std::future::ready(answered)
    };
    let consume = transactional(&queue).prefetch(2);
    let app = at.app_at(&proxy.uri()).consume(consume, handler);
    let health = app.health();
    let report = beside(app, async |_| {
        let late = taken.recv().await.unwrap();
        until("the worker", async || health.report().unwrap().sources[0].in_work == 0).await;
        late.ack().unwrap();
        let before = proxy.accepted();
        proxy.inject(Direction::ToClient, Fault::Cut);
        at.log.reach(2).await;
        assert!(proxy.accepted() > before);
        until("the worker", async || health.report().unwrap().sources[0].in_work == 0).await;
    })
    .await;
    assert_eq!((report.handled, report.stale), (2, 0));
    assert_eq!(client.ready(&queue).await, 0, "the answer is committed");
}

/// The broker blocks a connection when it publishes for the first time.
async fn gr_5_a_transaction_waits_for_the_end_of_an_alarm<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let model = at.model.as_ref().unwrap();
    client.send(&queue, "1").await;
    client.send(&queue, "2").await;
    let to = answers.clone();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        log.add(&text);
        std::future::ready(Message::new(text).to_queue(&to))
    };
    let app = at.app().consume(transactional(&queue), handler);
    let health = app.health();
    model.set_alarm(Some("memory"));
    let report = beside(app, async |_| {
        let blocked = async || health.report().is_some_and(|it| it.blocked.is_some());
        until("the alarm", blocked).await;
        // Long enough to see a commit that should not be carried out.
        sleep(Duration::from_millis(100)).await;
        assert_eq!((model.ready(&answers), model.held().unacknowledged), (Some(0), 1));
        model.set_alarm(None);
        until("the commits", async || model.ready(&answers) == Some(2)).await;
        until("the ack", async || model.held().unacknowledged == 0).await;
    })
    .await;
    assert_eq!((report.handled, report.stale, report.given_back), (2, 0, 0));
}

async fn gr_7_a_refused_commit_costs_no_worker_and_parks_its_message<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let exchange = unique("answers");
    client.channel.exchange_declare(ExchangeDeclare::fanout(&exchange)).await.unwrap();
    client.channel.queue_bind(QueueBind::new(&answers, &exchange, "")).await.unwrap();
    let channel = client.channel.clone();
    let to = exchange.clone();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let (channel, to) = (channel.clone(), to.clone());
        async move {
            log.add(&text);
            if text == "delete" {
                // It was found a moment ago, for the message before.
                channel.exchange_delete(ExchangeDelete::new(&to)).await.unwrap();
            }
            let to = if text == "last" { "amq.topic" } else { &to };
            let message = Message::new(text.clone()).to(to, "key").optional();
            [message]
        }
    };
    let report = beside(at.app().consume(transactional(&queue), handler), async |_| {
        for text in ["first", "delete", "last"] {
            client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
        }
        assert_eq!(client.bodies(&answers, 1).await, ["first"]);
        let parked = client.expect(&format!("{queue}.parked")).await;
        assert_eq!(text(&parked), "delete");
        let error = header(&parked, "retry-error").unwrap();
        assert!(
            error.contains("the broker refused the transaction") && error.contains("404"),
            "{error}"
        );
        parked.ack().unwrap();
        at.log.find("last").await;
        until("the last one", async || client.ready(&queue).await == 0).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["first", "delete", "last"], "the handler is not called again");
    assert_eq!((report.handled, report.parked, report.stale), (2, 1, 1));
}

async fn gr_16_gr_18_what_is_sent_deep_down_and_reports_go_with_the_transaction<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let errors = client.queue("errors").await;
    let to = answers.clone();
    let handler = move |Text(text): Text, outgoing: Outgoing| {
        outgoing.send(Message::new(format!("deep {text}")).to_queue(&to));
        std::future::ready(match text.as_str() {
            "bad" => Err("it is\0bad"),
            _ => Ok(Message::new(text).to_queue(&to)),
        })
    };
    let policy = Retry::none().then_report("", &errors);
    let consume = transactional(&queue).on_failure(policy);
    for text in ["1", "bad", "2"] {
        client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
    }
    let report = beside(at.app().consume(consume, handler), async |_| {
        assert_eq!(client.bodies(&answers, 4).await, ["1", "deep 1", "2", "deep 2"]);
        let report = client.expect(&errors).await;
        assert_eq!(text(&report), "it isbad");
        assert_eq!(report.properties().unwrap().correlation_id.as_deref(), Some("bad"));
        report.ack().unwrap();
    })
    .await;
    assert_eq!((report.handled, report.failed, report.discarded), (2, 1, 1));
    assert_eq!((client.ready(&queue).await, client.ready(&answers).await), (0, 0));
}

async fn gr_19_what_is_meant_for_a_failed_commit_is_sent_instead<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let exchange = unique("there");
    client.channel.exchange_declare(ExchangeDeclare::fanout(&exchange)).await.unwrap();
    let channel = client.channel.clone();
    let to = answers.clone();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let (channel, exchange, to) = (channel.clone(), exchange.clone(), to.clone());
        async move {
            log.add(&text);
            if text == "refused" {
                channel.exchange_delete(ExchangeDelete::new(&exchange)).await.unwrap();
            }
            let exchange = if text == "missing" { "not there" } else { &exchange };
            let instead = Message::new(format!("{text} failed")).to_queue(to);
            let reply = Message::new(text).to(exchange, "").optional();
            Outcome::send([reply]).on_commit_failure([instead])
        }
    };
    let report = beside(at.app().consume(transactional(&queue), handler), async |_| {
        for text in ["good", "missing", "refused"] {
            client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
        }
        assert_eq!(client.bodies(&answers, 2).await, ["missing failed", "refused failed"]);
    })
    .await;
    assert_eq!(at.log.lines(), ["good", "missing", "refused"]);
    assert_eq!((report.handled, report.parked, report.discarded), (1, 0, 2));
    assert_eq!((client.ready(&queue).await, client.ready(&answers).await), (0, 0));
}

/// A full queue that rejects publishes, and has one message.
async fn full(client: &Client) -> String {
    let queue = unique("full");
    let declare = QueueDeclare::classic(&queue).max_length(1).overflow(Overflow::RejectPublish);
    client.channel.queue_declare(declare).await.unwrap();
    client.send(&queue, "the first").await;
    queue
}

async fn u_5_f_1_a_reply_to_a_full_queue_is_parked_when_its_request_is_gone<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let full = full(&client).await;
    let to = answers.clone();
    let handler = move |Text(text): Text| {
        let replies = [Message::new("lost").to_queue(&full), Message::new("sent").to_queue(&to)];
        let instead = Message::new("instead").to_queue(&to);
        let outcome = Outcome::send(replies);
        std::future::ready(match text.as_str() {
            "with another" => outcome.on_commit_failure([instead]),
            _ => outcome,
        })
    };
    let report = beside(at.app().consume(transactional(&queue), handler), async |_| {
        client.send(&queue, "alone").await;
        let parking = format!("{queue}.parked");
        let mut parked = [client.expect(&parking).await, client.expect(&parking).await];
        parked.sort_by_key(text);
        assert_eq!([text(&parked[0]), text(&parked[1])], ["lost", "sent"]);
        let error = header(&parked[0], "retry-error").unwrap();
        assert!(error.contains("a part of a transaction") && error.contains("406"), "{error}");
        for parked in parked {
            parked.ack().unwrap();
        }
        assert_eq!(client.bodies(&answers, 1).await, ["sent"]);
        client.send(&queue, "with another").await;
        let mut bodies = client.bodies(&answers, 2).await;
        bodies.sort();
        assert_eq!(bodies, ["instead", "sent"]);
        assert_eq!(client.ready(&parking).await, 0);
    })
    .await;
    assert_eq!((report.handled, report.failed, report.discarded, report.parked), (0, 2, 2, 2));
    assert_eq!(client.ready(&queue).await, 0, "the request is gone");
}

async fn u_5_f_9_a_reply_that_reaches_no_queue_is_parked_when_its_request_is_gone<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let to = answers.clone();
    let handler = move |Text(text): Text| {
        let nowhere = Message::new(text.clone()).to("amq.direct", "no binding");
        let reply = Message::new("to the requester").reply();
        let sent = Message::new("sent").to_queue(&to);
        std::future::ready(if text == "reply" { vec![reply, sent] } else { vec![nowhere, sent] })
    };
    let report = beside(at.app().consume(transactional(&queue), handler), async |_| {
        client.send(&queue, "1").await;
        let parked = client.expect(&format!("{queue}.parked")).await;
        assert_eq!(text(&parked), "1");
        assert_eq!(header(&parked, "retry-exchange").as_deref(), Some("amq.direct"));
        assert_eq!(header(&parked, "retry-routing-key").as_deref(), Some("no binding"));
        assert!(header(&parked, "retry-error").unwrap().contains("NO_ROUTE"));
        parked.ack().unwrap();
        assert_eq!(client.bodies(&answers, 1).await, ["sent"]);
        // A requester that is gone is counted, and that is all.
        let request = Message::new("reply").property(|it| it.reply_to = Some(unique("gone")));
        client.publish(request.to_queue(&queue)).await;
        assert_eq!(client.bodies(&answers, 1).await, ["sent"]);
    })
    .await;
    assert_eq!((report.handled, report.unroutable, report.parked), (2, 2, 1));
    assert_eq!(client.ready(&queue).await, 0);
}

async fn u_2_each_worker_has_a_channel_of_its_own<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    let to = answers.clone();
    let (release, released) = smol::channel::bounded::<()>(1);
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let (released, to) = (released.clone(), to.clone());
        async move {
            log.add(&text);
            if text == "slow" {
                released.recv().await.unwrap_err();
            }
            Message::new(text).to_queue(to)
        }
    };
    let consume = transactional(&queue).concurrency(3);
    let report = beside(at.app().consume(consume, handler), async |_| {
        let passive = QueueDeclare::passive(&queue);
        until("three consumers", async || {
            let declared = client.channel.queue_declare(passive.clone()).await.unwrap();
            declared.consumer_count == 3
        })
        .await;
        client.send(&queue, "slow").await;
        at.log.find("slow").await;
        // The commits of the others have nothing of the slow one.
        let others: Vec<_> = (0..6).map(|it| it.to_string()).collect();
        for text in &others {
            client.send(&queue, text).await;
        }
        let mut bodies = client.bodies(&answers, 6).await;
        bodies.sort();
        assert_eq!(bodies, others);
        drop(release);
        assert_eq!(client.bodies(&answers, 1).await, ["slow"]);
    })
    .await;
    assert_eq!((report.handled, report.stale), (7, 0));
}

async fn u_4_a_commit_that_is_not_confirmed_is_not_handled_twice<P: Make>(at: At<P>) {
    // Before the broker gets it, and after.
    for (point, comes_again) in
        [((Direction::ToBroker, "tx.commit"), true), ((Direction::ToClient, "tx.commit-ok"), false)]
    {
        let client = at.client().await;
        let [queue, answers] = two(&client).await;
        client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
        let proxy = Proxy::start(at.port()).unwrap();
        proxy.before(point.0, point.1, 1, Fault::Cut);
        let to = answers.clone();
        let handler = move |Text(text): Text, State(log): State<Log>| {
            log.add("called");
            std::future::ready(Message::new(text).to_queue(&to))
        };
        let app = at.app_at(&proxy.uri()).consume(transactional(&queue), handler);
        let health = app.health();
        let report = beside(app, async |_| {
            until("the fault", async || proxy.faulted().len() == 1).await;
            until("the answer", async || client.ready(&answers).await == 1).await;
            // What comes again is handled before this one.
            until("the new start", async || health.is_ready()).await;
            client.publish(Message::new("2").message_id("n").to_queue(&queue)).await;
            until("the second one", async || client.ready(&answers).await == 2).await;
        })
        .await;
        assert_eq!(at.log.take(), ["called", "called"], "{point:?}: once for each message");
        assert_eq!((report.stale, report.handled), (1, 1 + u64::from(comes_again)), "{point:?}");
        let mut ids = Vec::new();
        while let Some(delivery) = client.channel.basic_get(answers.as_str()).await.unwrap() {
            ids.push(delivery.properties().unwrap().message_id.unwrap());
            delivery.ack().unwrap();
        }
        assert_eq!((ids, client.ready(&queue).await), (vec!["m#0".into(), "n#0".into()], 0));
    }
}

async fn u_7_a_shutdown_gives_back_what_is_not_committed<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = two(&client).await;
    for number in 0..10 {
        client.send(&queue, number.to_string()).await;
    }
    let to = answers.clone();
    let (release, released) = smol::channel::bounded::<()>(1);
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let (released, to) = (released.clone(), to.clone());
        async move {
            log.add(&text);
            released.recv().await.unwrap_err();
            Message::new(text).to_queue(to)
        }
    };
    let consume = transactional(&queue).concurrency(2).prefetch(8);
    let report = beside(at.app().consume(consume, handler), async |stopper| {
        at.log.reach(2).await;
        stopper.stop();
        // Those that no worker has begun come back at once.
        until("what is not begun", async || client.ready(&queue).await >= 2).await;
        drop(release);
    })
    .await;
    assert_eq!((report.handled, report.abandoned), (2, 0));
    assert_eq!((client.ready(&answers).await, client.ready(&queue).await), (2, 8));
}
