//! Sources whose handler is called for several messages at once.

use std::sync::Arc;
use std::time::Instant;

use amqp_app::limits::CONFIRMS_TIMEOUT;
use amqp_app::prelude::*;
use amqp_app::{Error, Outcomes, Scope};
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{
    At, Log, Make, beside, header, on_model, on_rabbitmq, sleep, source, text, unique, until,
    within,
};

on_model! {
    messages_are_handled_in_batches_of_a_size_or_a_time
    a_bad_message_of_a_batch_is_told_apart_from_the_others
    messages_that_cannot_be_read_are_left_out_of_a_batch
    each_message_of_a_batch_has_its_own_outcome_and_replies
    a_handler_that_takes_the_deliveries_of_a_batch_acknowledges_them
    a_batch_is_given_back_as_a_whole
    a_batch_that_takes_too_long_is_halved
    what_is_gathered_at_a_shutdown_goes_back
    an_outcome_of_a_batch_whose_acks_are_lost_is_recognised
    u_1_a_batch_is_one_transaction
    u_1_a_refused_transaction_of_a_batch_parks_its_bad_message_alone
    u_1_a_lost_commit_of_a_batch_loses_nothing_that_it_sends_as_a_whole
    u_7_the_rest_of_a_batch_goes_back_when_the_time_for_a_shutdown_expires
    what_a_message_of_a_batch_sends_and_lets_join_shares_its_fate
    a_batch_has_one_message_of_a_key
    a_handler_of_single_messages_takes_no_batches
}

on_rabbitmq! {
    messages_are_handled_in_batches_of_a_size_or_a_time
    a_bad_message_of_a_batch_is_told_apart_from_the_others
    messages_that_cannot_be_read_are_left_out_of_a_batch
    each_message_of_a_batch_has_its_own_outcome_and_replies
    a_handler_that_takes_the_deliveries_of_a_batch_acknowledges_them
    what_is_gathered_at_a_shutdown_goes_back
    an_outcome_of_a_batch_whose_acks_are_lost_is_recognised
    u_1_a_batch_is_one_transaction
    u_1_a_refused_transaction_of_a_batch_parks_its_bad_message_alone
    u_1_a_lost_commit_of_a_batch_loses_nothing_that_it_sends_as_a_whole
    u_7_the_rest_of_a_batch_goes_back_when_the_time_for_a_shutdown_expires
    what_a_message_of_a_batch_sends_and_lets_join_shares_its_fate
}

/// No batch of a test ends by this time.
const NEVER: Duration = Duration::from_secs(3600);

/// Logs the bodies of a batch, and fails if a bad one is among them.
async fn log_all(Batch(texts): Batch<Text>, State(log): State<Log>) -> Result<(), Failure> {
    let texts: Vec<String> = texts.into_iter().map(|Text(text)| text).collect();
    log.add(texts.join(" "));
    match texts.iter().any(|it| it == "bad") {
        true => Err("one of them is bad".into()),
        false => Ok(()),
    }
}

async fn messages_are_handled_in_batches_of_a_size_or_a_time<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("batches").await;
    for number in 0..8 {
        client.send(&queue, number.to_string()).await;
    }
    let of_four = source(queue.as_str()).batches(4, NEVER);
    let report = beside(at.app().consume(of_four, log_all), async |_| {
        at.log.reach(2).await;
        until("all", async || client.ready(&queue).await == 0).await;
    })
    .await;
    assert_eq!(at.log.take(), ["0 1 2 3", "4 5 6 7"]);
    assert_eq!((report.handled, report.given_back, report.stale), (8, 0, 0));
    for number in 0..3 {
        client.send(&queue, number.to_string()).await;
    }
    let in_time = source(queue.as_str()).batches(1_000, Duration::from_millis(50));
    let report = beside(at.app().consume(in_time, log_all), async |_| {
        until("all", async || at.log.lines().join(" ") == "0 1 2").await;
    })
    .await;
    assert_eq!(report.handled, 3);
}

async fn a_bad_message_of_a_batch_is_told_apart_from_the_others<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("isolated").await;
    for text in ["0", "1", "2", "3", "4", "bad", "6", "7"] {
        client.send(&queue, text).await;
    }
    let consume = source(queue.as_str()).batches(8, NEVER);
    let report = beside(at.app().consume(consume, log_all), async |_| {
        let parked = client.expect(&format!("{queue}.parked")).await;
        assert_eq!(text(&parked), "bad");
        assert_eq!(header(&parked, "retry-error").unwrap(), "one of them is bad");
        parked.ack().unwrap();
        at.log.find("6 7").await;
    })
    .await;
    let halves = ["0 1 2 3 4 bad 6 7", "0 1 2 3", "4 bad 6 7", "4 bad", "4", "bad", "6 7"];
    assert_eq!(at.log.lines(), halves);
    assert_eq!((report.handled, report.failed, report.parked), (7, 1, 1));
    assert_eq!(client.ready(&queue).await, 0);
}

async fn messages_that_cannot_be_read_are_left_out_of_a_batch<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("unreadable").await;
    for text in ["1", "nonsense", "3", "4"] {
        client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
    }
    type Read = (Json<u32>, MessageId);
    let handler = async |State(log): State<Log>, Batch(numbers): Batch<Read>| {
        let line = |(Json(number), MessageId(id)): Read| format!("{number}={}", id.unwrap());
        log.add(numbers.into_iter().map(line).collect::<Vec<_>>().join(" "));
    };
    let consume = source(queue.as_str()).batches(4, NEVER);
    let report = beside(at.app().consume(consume, handler), async |_| {
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["nonsense"]);
    })
    .await;
    assert_eq!(at.log.take(), ["1=1 3=3 4=4"]);
    assert_eq!((report.handled, report.failed, report.parked), (3, 1, 1));

    for text in ["nonsense", "none"] {
        client.send(&queue, text).await;
    }
    let consume = source(queue.as_str()).batches(2, NEVER);
    let report = beside(at.app().consume(consume, handler), async |_| {
        let parked = client.bodies(&format!("{queue}.parked"), 2).await;
        assert_eq!(parked, ["nonsense", "none"]);
    })
    .await;
    assert!(at.log.lines().is_empty(), "the handler is not called without a message");
    assert_eq!((report.handled, report.failed, report.parked), (0, 2, 2));
}

async fn each_message_of_a_batch_has_its_own_outcome_and_replies<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("each").await, client.queue("answers").await];
    for text in ["1", "never", "3", "later", "nobody asks"] {
        let request = Message::new(text).message_id(format!("id of {text}")).to_queue(&queue);
        let request = if text == "nobody asks" { request } else { request.reply_to(&answers) };
        client.publish(request).await;
    }
    type Read = (Text, Attempt);
    let handler = async |Batch(texts): Batch<Read>, State(log): State<Log>| {
        log.add(texts.len().to_string());
        let outcome = |(Text(text), Attempt(attempt)): Read| match (&*text, attempt) {
            ("never", _) => Err(Failure::permanent("not this one")),
            ("later", 1) => Err(Failure::retry("not yet")),
            _ => Ok(Reply(format!("{text}, attempt {attempt}"))),
        };
        Outcomes(texts.into_iter().map(outcome).collect())
    };
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).on_failure(policy).batches(5, NEVER);
    let report = beside(at.app().consume(consume, handler), async |_| {
        let mut replies = Vec::new();
        for _ in 0..3 {
            let reply = client.expect(&answers).await;
            let properties = reply.properties().unwrap();
            let ids = [properties.message_id.unwrap(), properties.correlation_id.unwrap()];
            replies.push(format!("{}: {}", text(&reply), ids.join(", ")));
            reply.ack().unwrap();
        }
        assert_eq!(
            replies,
            [
                "1, attempt 1: id of 1#0, id of 1",
                "3, attempt 1: id of 3#0, id of 3",
                "later, attempt 2: id of later#0, id of later",
            ]
        );
        let mut parked = client.bodies(&format!("{queue}.parked"), 2).await;
        parked.sort();
        assert_eq!(parked, ["never", "nobody asks"]);
    })
    .await;
    assert_eq!(at.log.take(), ["5", "1"]);
    assert_eq!((report.handled, report.failed, report.retried, report.parked), (3, 3, 1, 2));

    // One outcome for two messages: none of them counts, and one for each alone does.
    let short = async |Batch(texts): Batch<Text>, State(log): State<Log>| {
        log.add(texts.len().to_string());
        Outcomes(vec![()])
    };
    client.send(&queue, "a").await;
    client.send(&queue, "b").await;
    let consume = source(queue.as_str()).batches(2, NEVER);
    let report = beside(at.app().consume(consume, short), async |_| {
        at.log.reach(3).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["2", "1", "1"]);
    assert_eq!((report.handled, report.failed), (2, 0));
}

async fn a_handler_that_takes_the_deliveries_of_a_batch_acknowledges_them<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("taken").await;
    let handler = async |Batch(taken): Batch<Delivery>, State(log): State<Log>| {
        for delivery in taken {
            let body = text(&delivery);
            log.add(&body);
            if body == "reject" { delivery.reject(false) } else { delivery.ack() }?;
        }
        Ok::<_, Failure>(())
    };
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        for text in ["1", "reject", "3"] {
            client.send(&queue, text).await;
        }
        let app = at.app().consume(consume.batches(3, NEVER), handler);
        let health = app.health();
        let report = beside(app, async |_| {
            at.log.reach(3).await;
            until("the end", async || health.report().unwrap().sources[0].in_work == 0).await;
        })
        .await;
        assert_eq!(at.log.take(), ["1", "reject", "3"]);
        assert_eq!((report.handled, report.failed, report.stale), (3, 0, 0));
        assert_eq!(client.ready(&queue).await, 0, "nothing comes again");
    }
}

async fn a_batch_is_given_back_as_a_whole<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("back").await;
    let send = async || {
        for text in ["1", "2"] {
            client.send(&queue, text).await;
        }
    };
    let handler = async |Batch(each): Batch<Redelivered>, State(log): State<Log>| {
        log.add(format!("{} {}", each.len(), each[0].0));
        if each[0].0 { Ok(()) } else { Err(Failure::give_back("not now")) }
    };
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        send().await;
        let app = at.app().consume(consume.batches(2, NEVER), handler);
        let report = beside(app, async |_| {
            at.log.reach(2).await;
        })
        .await;
        assert_eq!(at.log.take(), ["2 false", "2 true"]);
        assert_eq!((report.handled, report.failed, report.given_back), (2, 2, 2));
    }
    send().await;
    let consume = source(queue.as_str()).batches(2, NEVER);
    let app = at.app().consume(consume, async |_: Batch<Body>| Failure::stop("the disk is full"));
    let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(client.ready(&queue).await, 2);
}

async fn a_batch_that_takes_too_long_is_halved<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("slow").await;
    for text in ["1", "hang", "panic", "4"] {
        client.send(&queue, text).await;
    }
    let handler = async |Batch(texts): Batch<Text>, State(log): State<Log>| {
        let texts: Vec<String> = texts.into_iter().map(|Text(text)| text).collect();
        log.add(texts.join(" "));
        if texts.iter().any(|it| it == "hang") {
            std::future::pending::<()>().await;
        }
        assert!(texts.iter().all(|it| it != "panic"), "of the handler");
    };
    let consume = source(queue.as_str()).batches(4, NEVER).timeout(Duration::from_secs(1));
    let report = beside(at.app().consume(consume, handler), async |_| {
        let parked = client.bodies(&format!("{queue}.parked"), 2).await;
        assert_eq!(parked, ["hang", "panic"]);
        at.log.find("4").await;
    })
    .await;
    let calls = ["1 hang panic 4", "1 hang", "1", "hang", "panic 4", "panic", "4"];
    assert_eq!(at.log.lines(), calls);
    assert_eq!((report.handled, report.parked), (2, 2));
    assert_eq!((report.timed_out, report.panicked), (1, 1), "those of single messages");
}

async fn what_is_gathered_at_a_shutdown_goes_back<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("gathered").await;
    for number in 0..3 {
        client.send(&queue, number.to_string()).await;
    }
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        let app = at.app().consume(consume.batches(4, NEVER), log_all);
        let report = beside(app, async |_| {
            until("the delivery", async || client.ready(&queue).await == 0).await;
        })
        .await;
        assert!(at.log.lines().is_empty());
        assert_eq!((report.handled, report.abandoned), (0, 0));
        until("all of them", async || client.ready(&queue).await == 3).await;
    }
}

/// The handler succeeds, what it sends is confirmed, and the connection that consumes is lost before the acks.
async fn an_outcome_of_a_batch_whose_acks_are_lost_is_recognised<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("recognised").await, client.queue("answers").await];
    let proxy = Arc::new(Proxy::start(at.port()).unwrap());
    let (cut, to) = (Arc::clone(&proxy), answers.clone());
    let handler = move |Batch(texts): Batch<Text>, State(log): State<Log>| {
        let (cut, to) = (Arc::clone(&cut), to.clone());
        async move {
            log.add(texts.len().to_string());
            let before = cut.accepted();
            cut.inject(Direction::ToClient, Fault::Cut);
            while cut.accepted() < before + 2 {
                sleep(Duration::from_millis(5)).await;
            }
            let reply = |Text(text): Text| Message::new(text).to_queue(&to);
            Outcomes(texts.into_iter().map(reply).collect())
        }
    };
    for text in ["1", "2", "3"] {
        client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
    }
    let consume = source(queue.as_str()).batches(3, NEVER);
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
        let bodies = client.bodies(&answers, 6).await;
        assert_eq!(bodies, ["1", "2", "3", "1", "2", "3"], "each reply twice, with the same id");
        until("the acks", async || client.ready(&queue).await == 0).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["3"], "the handler is called once");
    assert_eq!((report.handled, report.stale, report.failed), (3, 3, 0));
}

async fn u_1_a_batch_is_one_transaction<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("requests").await, client.queue("answers").await];
    for number in 0..8 {
        let request = Message::new(number.to_string()).message_id(number.to_string());
        client.publish(request.to_queue(&queue)).await;
    }
    let proxy = Proxy::start(at.port()).unwrap();
    // The connection is lost before the second commit.
    proxy.before(Direction::ToBroker, "tx.commit", 2, Fault::Cut);
    let to = answers.clone();
    let handler = move |Batch(texts): Batch<Text>, outgoing: Outgoing, State(log): State<Log>| {
        log.add(texts.len().to_string());
        outgoing.send(Message::new(format!("{} together", texts.len())).to_queue(&to));
        let reply = |Text(text): Text| Message::new(text).to_queue(&to);
        std::future::ready(Outcomes(texts.into_iter().map(reply).collect()))
    };
    let consume = source(queue.as_str()).transactional().batches(4, NEVER);
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
        let bodies = client.bodies(&answers, 5).await;
        assert_eq!(bodies, ["0", "1", "2", "3", "4 together"]);
        let bodies = client.bodies(&answers, 5).await;
        assert_eq!(bodies, ["4", "5", "6", "7", "4 together"], "each once");
        until("the commits", async || client.ready(&queue).await == 0).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["4", "4", "4"]);
    assert_eq!((report.handled, report.failed, report.stale), (8, 0, 4));
    assert_eq!((client.ready(&queue).await, client.ready(&answers).await), (0, 0));
}

async fn u_1_a_refused_transaction_of_a_batch_parks_its_bad_message_alone<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("requests").await, client.queue("answers").await];
    let exchange = unique("there");
    client.channel.exchange_declare(ExchangeDeclare::fanout(&exchange)).await.unwrap();
    let channel = client.channel.clone();
    let to = answers.clone();
    let handler = move |Batch(texts): Batch<Text>, State(log): State<Log>| {
        let (channel, exchange, to) = (channel.clone(), exchange.clone(), to.clone());
        async move {
            let texts: Vec<String> = texts.into_iter().map(|Text(text)| text).collect();
            log.add(texts.join(" "));
            if texts == ["1", "bad", "3"] {
                // The messages before have found it a moment ago.
                channel.exchange_delete(ExchangeDelete::new(&exchange)).await?;
            }
            let reply = |text: String| match &*text {
                "bad" | "good" => Message::new(text).to(&exchange, "").optional(),
                _ => Message::new(text).to_queue(&to),
            };
            Ok::<_, Failure>(Outcomes(texts.into_iter().map(reply).collect()))
        }
    };
    for text in ["good", "good", "good", "1", "bad", "3"] {
        client.send(&queue, text).await;
    }
    let consume = source(queue.as_str()).transactional().batches(3, NEVER);
    let report = beside(at.app().consume(consume, handler), async |_| {
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["bad"]);
        assert_eq!(client.bodies(&answers, 2).await, ["1", "3"], "each once");
    })
    .await;
    let calls = ["good good good", "1 bad 3", "1", "bad", "3"];
    assert_eq!(at.log.lines(), calls);
    assert_eq!((report.handled, report.parked), (5, 1));
    assert_eq!((client.ready(&queue).await, client.ready(&answers).await), (0, 0));
}

/// What a batch as a whole sends belongs to none of its messages.
async fn u_1_a_lost_commit_of_a_batch_loses_nothing_that_it_sends_as_a_whole<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("requests").await, client.queue("answers").await];
    for number in 0..3 {
        // The first one has no id.
        let request = Message::new(number.to_string());
        let request = if number == 0 { request } else { request.message_id(number.to_string()) };
        client.publish(request.to_queue(&queue)).await;
    }
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(Direction::ToBroker, "tx.commit", 1, Fault::Cut);
    let to = answers.clone();
    let handler = move |Batch(texts): Batch<Text>| {
        let texts: Vec<String> = texts.into_iter().map(|Text(text)| text).collect();
        std::future::ready(Message::new(texts.join(" ")).to_queue(&to))
    };
    let consume = source(queue.as_str()).transactional().batches(3, NEVER);
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
        assert_eq!(client.bodies(&answers, 1).await, ["0 1 2"]);
        until("the commit", async || client.ready(&queue).await == 0).await;
    })
    .await;
    assert_eq!((report.handled, report.stale, report.failed), (3, 3, 0));
}

/// A participant that logs what it is asked.
struct Logged(String, Log);

impl Participant for Logged {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.1.add(format!("{} votes", self.0));
        Ok(())
    }

    async fn finish(&mut self) {
        self.1.add(format!("{} finishes", self.0));
    }

    async fn abort(&mut self) {
        self.1.add(format!("{} aborts", self.0));
    }
}

async fn what_a_message_of_a_batch_sends_and_lets_join_shares_its_fate<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("fates").await, client.queue("answers").await];
    type Each = (Context<Log>, Participants, Text);
    let to = answers.clone();
    let handler = move |all: Participants, Batch(messages): Batch<Each>, State(log): State<Log>| {
        all.join(Logged("all".into(), log.clone()));
        let one = |(context, participants, Text(text)): Each| {
            context.send(Message::new(text.clone()).to_queue(&to));
            let is_good = text != "bad";
            participants.join(Logged(text, log.clone()));
            if is_good { Ok(()) } else { Err("it is bad") }
        };
        std::future::ready(Outcomes(messages.into_iter().map(one).collect()))
    };
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        for text in ["1", "bad"] {
            client.publish(Message::new(text).message_id(text).to_queue(&queue)).await;
        }
        let parking = format!("{queue}.parked");
        let app = at.app().consume(consume.batches(2, NEVER), handler.clone());
        let report = beside(app, async |_| {
            let sent = client.expect(&answers).await;
            assert_eq!(sent.properties().unwrap().message_id.as_deref(), Some("1#0"));
            sent.ack().unwrap();
            assert_eq!(client.bodies(&parking, 1).await, ["bad"]);
            for _ in 0..2 {
                client.send(&queue, "bad").await;
            }
            assert_eq!(client.bodies(&parking, 2).await, ["bad", "bad"]);
        })
        .await;
        let both = ["bad aborts", "all votes", "1 votes", "all finishes", "1 finishes"];
        assert_eq!(
            at.log.take(),
            [&both[..], &["all aborts", "bad aborts", "bad aborts"]].concat()
        );
        assert_eq!((report.handled, report.parked), (1, 3));
        assert_eq!(client.ready(&answers).await, 0, "nothing of what has failed");
    }
}

async fn u_7_the_rest_of_a_batch_goes_back_when_the_time_for_a_shutdown_expires<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let queue = client.queue("expired").await;
    for text in ["1", "2", "hang", "4"] {
        client.send(&queue, text).await;
    }
    let handler = async |Batch(texts): Batch<Text>, State(log): State<Log>| {
        let texts: Vec<String> = texts.into_iter().map(|Text(text)| text).collect();
        log.add(texts.join(" "));
        match &*texts.join(" ") {
            "1 2 hang 4" => Err("not together"),
            "1 2" => Ok(()),
            _ => std::future::pending().await,
        }
    };
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        let app = at.app().consume(consume.batches(4, NEVER), handler);
        let begun = Instant::now();
        let report = beside(app, async |stopper| {
            at.log.find("hang 4").await;
            stopper.stop();
            stopper.stop_now();
        })
        .await;
        assert!(begun.elapsed() < CONFIRMS_TIMEOUT, "it waits for no commit");
        assert_eq!(at.log.take(), ["1 2 hang 4", "1 2", "hang 4"]);
        assert_eq!((report.handled, report.abandoned, report.failed), (2, 2, 0));
        until("the rest", async || client.ready(&queue).await == 2).await;
        for text in ["1", "2"] {
            client.send(&queue, text).await;
        }
        let mut bodies = client.bodies(&queue, 4).await;
        bodies.sort();
        assert_eq!(bodies, ["1", "2", "4", "hang"]);
        for text in ["1", "2", "hang", "4"] {
            client.send(&queue, text).await;
        }
    }
}

async fn a_batch_has_one_message_of_a_key<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("keys").await;
    for text in ["a1", "a2", "b1", "b2"] {
        client.send(&queue, text).await;
    }
    let key = |message: &amqp_async::ReceivedMessage| {
        Some(char::from(*message.body().first()?).to_string())
    };
    let consume = source(queue.as_str()).by_key(key).batches(2, NEVER);
    let report = beside(at.app().consume(consume, log_all), async |_| {
        at.log.reach(2).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["a1 b1", "a2 b2"]);
    assert_eq!((report.handled, report.given_back), (4, 0));
}

/// An argument that a program has written, and that does not read a message.
struct Tenant;

impl<S> FromContext<S> for Tenant {
    const SCOPE: Scope = Scope::Application;

    fn from_context(_: &Context<S>) -> Result<Self, Failure> {
        Ok(Self)
    }
}

async fn a_handler_of_single_messages_takes_no_batches<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("misfit").await;
    let batches = || source(queue.as_str()).batches(2, NEVER);
    let invalid = async |app: App<P, Log>| match app.run(Shutdown::never()).await {
        Err(Error::Invalid(text)) => text,
        other => panic!("{other:?}"),
    };
    let text = invalid(at.app().consume(batches(), async |_: Text| ())).await;
    assert!(text.contains("as a Batch"), "{text}");
    invalid(at.app().consume(batches(), async |_: Batch<Text>, _: Attempt| ())).await;
    invalid(at.app().consume(batches(), async |_: Batch<Text>, _: Batch<Body>| ())).await;
    invalid(at.app().consume(batches(), async |_: Option<Delivery>| ())).await;
    // Those would handle one message, or none, and all would be acknowledged.
    invalid(at.app().consume(batches(), async |_: Context<Log>| ())).await;
    invalid(at.app().consume(batches(), async |_: State<Log>| ())).await;
    let text = invalid(
        at.app()
            .consume(batches().batches(u16::MAX, NEVER).concurrency(2), async |_: Batch<Text>| ()),
    )
    .await;
    assert!(text.contains("65,535"), "{text}");
    client.send(&queue, "1").await;
    // In a source without batches, a batch has one message.
    let fits = async |_: Tenant, Batch(texts): Batch<Text>, State(log): State<Log>, _: Outgoing| {
        log.add(texts.len().to_string());
    };
    beside(at.app().consume(source(queue.as_str()), fits), async |_| {
        at.log.reach(1).await;
    })
    .await;
    assert_eq!(at.log.take(), ["1"]);
}
