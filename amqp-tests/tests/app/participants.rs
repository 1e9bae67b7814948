//! Resources that take part in the commit of a message.

use std::sync::Arc;

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{
    At, Client, Log, Make, beside, header, on_model, on_rabbitmq, sleep, source, text, until,
    within,
};

on_model! {
    gr_17_participants_vote_before_anything_is_sent_and_finish_after_it
    gr_17_participants_abort_when_one_of_them_or_the_handler_fails
    gr_17_participants_abort_when_the_broker_cannot_take_what_is_sent
    gr_17_a_vote_may_give_the_message_back
    gr_17_u_7_a_commit_is_waited_for_at_the_deadline_of_a_shutdown
    gr_19_what_is_meant_for_a_failed_vote_is_sent_instead
    gr_19_a_vote_may_stop_the_application
}

on_rabbitmq! {
    gr_17_participants_vote_before_anything_is_sent_and_finish_after_it
    gr_17_participants_abort_when_one_of_them_or_the_handler_fails
    gr_17_participants_abort_when_the_broker_cannot_take_what_is_sent
    gr_17_a_vote_may_give_the_message_back
    gr_17_u_7_a_commit_is_waited_for_at_the_deadline_of_a_shutdown
    gr_19_what_is_meant_for_a_failed_vote_is_sent_instead
    gr_19_a_vote_may_stop_the_application
}

/// A resource that reports what it is asked.
struct Resource {
    name: &'static str,
    log: Log,
    vote: Result<(), &'static str>,
}

impl Participant for Resource {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.log.add(format!("{} votes", self.name));
        match self.vote {
            Err("panic") => panic!("of a participant"),
            Err("hang") => std::future::pending().await,
            Err("stop") => Err(Failure::stop("it cannot go on")),
            Err("later") => Err(Failure::give_back("not now")),
            vote => Ok(vote?),
        }
    }

    async fn finish(&mut self) {
        self.log.add(format!("{} finishes", self.name));
    }

    async fn abort(&mut self) {
        self.log.add(format!("{} aborts", self.name));
    }
}

/// A resource that reports how many messages are in a queue when it is asked.
struct Watching {
    name: &'static str,
    log: Log,
    client: Arc<Client>,
    queue: String,
}

impl Watching {
    async fn report(&self, what: &str) {
        let ready = self.client.ready(&self.queue).await;
        self.log.add(format!("{} {what} at {ready}", self.name));
    }
}

impl Participant for Watching {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.report("votes").await;
        Ok(())
    }

    async fn finish(&mut self) {
        self.report("finishes").await;
    }

    async fn abort(&mut self) {
        self.report("aborts").await;
    }
}

/// Both ways in which a message is acknowledged.
fn both(queue: &str) -> [Consume; 2] {
    [source(queue), source(queue).transactional()]
}

async fn gr_17_participants_vote_before_anything_is_sent_and_finish_after_it<P: Make>(at: At<P>) {
    let client = Arc::new(at.client().await);
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for consume in both(&queue) {
        let (to, other) = (answers.clone(), Arc::clone(&client));
        let handler = move |participants: Participants, State(log): State<Log>| {
            log.add("handler");
            for name in ["first", "second"] {
                let (log, client, queue) = (log.clone(), Arc::clone(&other), to.clone());
                participants.join(Watching { name, log, client, queue });
            }
            std::future::ready(Message::new("done").to_queue(&to))
        };
        let report = beside(at.app().consume(consume, handler), async |_| {
            client.send(&queue, "1").await;
            at.log.reach(5).await;
        })
        .await;
        let expected = [
            "handler",
            "first votes at 0",
            "second votes at 0",
            "first finishes at 1",
            "second finishes at 1",
        ];
        assert_eq!(at.log.take(), expected);
        assert_eq!(client.bodies(&answers, 1).await, ["done"]);
        assert_eq!((report.handled, client.ready(&queue).await), (1, 0));
    }
}

async fn gr_17_participants_abort_when_one_of_them_or_the_handler_fails<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for consume in both(&queue) {
        let to = answers.clone();
        let handler =
            move |Text(text): Text, participants: Participants, State(log): State<Log>| {
                let vote = match text.as_str() {
                    "panic" => Err("panic"),
                    "hang" => Err("hang"),
                    "no" => Err("it cannot"),
                    _ => Ok(()),
                };
                for (name, vote) in [("first", Ok(())), ("second", vote), ("third", Ok(()))] {
                    participants.join(Resource { name, log: log.clone(), vote });
                }
                std::future::ready(match text.as_str() {
                    "failure" => Err("of the handler"),
                    _ => Ok(Message::new("never").to_queue(&to)),
                })
            };
        let consume = consume.timeout(Duration::from_millis(300));
        let report = beside(at.app().consume(consume, handler), async |_| {
            for (text, reason, votes) in [
                ("no", "it cannot", 2),
                ("panic", "of a participant", 2),
                ("hang", "a participant did not vote within the timeout", 2),
                ("failure", "of the handler", 0),
            ] {
                client.send(&queue, text).await;
                let parked = client.expect(&format!("{queue}.parked")).await;
                assert!(header(&parked, "retry-error").unwrap().contains(reason), "{text}");
                parked.ack().unwrap();
                let lines = at.log.take();
                let voted = ["first votes", "second votes"];
                assert_eq!(lines[..votes], voted[..votes], "{text}");
                let aborted = ["first aborts", "second aborts", "third aborts"];
                assert_eq!(lines[votes..], aborted, "{text}");
            }
        })
        .await;
        assert_eq!((report.parked, report.panicked, report.timed_out), (4, 1, 1));
        assert_eq!(client.ready(&answers).await, 0);
    }
}

async fn gr_17_participants_abort_when_the_broker_cannot_take_what_is_sent<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    for consume in both(&queue) {
        let handler = async |participants: Participants, State(log): State<Log>| {
            participants.join(Resource { name: "it", log, vote: Ok(()) });
            Message::new("reply").to("not there", "")
        };
        beside(at.app().consume(consume, handler), async |_| {
            client.send(&queue, "1").await;
            client.expect(&format!("{queue}.parked")).await.ack().unwrap();
        })
        .await;
        assert_eq!(at.log.take(), ["it votes", "it aborts"]);
    }
}

async fn gr_17_a_vote_may_give_the_message_back<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for consume in both(&queue) {
        let to = answers.clone();
        let handler = move |participants: Participants,
                            Attempt(attempt): Attempt,
                            Redelivered(again): Redelivered,
                            State(log): State<Log>| {
            log.add(format!("attempt {attempt}"));
            let vote = if again { Ok(()) } else { Err("later") };
            for (name, vote) in [("first", Ok(())), ("second", vote)] {
                participants.join(Resource { name, log: log.clone(), vote });
            }
            let [reply, instead] =
                ["stored", "not stored"].map(|it| Message::new(it).to_queue(&to));
            std::future::ready(Outcome::send([reply]).on_commit_failure([instead]))
        };
        let report = beside(at.app().consume(consume, handler), async |_| {
            client.send(&queue, "1").await;
            at.log.reach(10).await;
        })
        .await;
        let votes = ["attempt 1", "first votes", "second votes"];
        let [aborts, finishes] =
            [["first aborts", "second aborts"], ["first finishes", "second finishes"]];
        assert_eq!(at.log.take(), [&votes[..], &aborts, &votes, &finishes].concat());
        assert_eq!((report.handled, report.given_back, report.parked), (1, 1, 0));
        assert_eq!(client.bodies(&answers, 1).await, ["stored"]);
        assert_eq!((client.ready(&queue).await, client.ready(&answers).await), (0, 0));
    }
}

async fn gr_19_what_is_meant_for_a_failed_vote_is_sent_instead<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for consume in both(&queue) {
        let to = answers.clone();
        let handler = move |participants: Participants, State(log): State<Log>| {
            participants.join(Resource { name: "it", log, vote: Err("it cannot") });
            let [reply, instead] =
                ["stored", "not stored"].map(|it| Message::new(it).to_queue(&to));
            std::future::ready(Outcome::send([reply]).on_commit_failure([instead]))
        };
        let report = beside(at.app().consume(consume, handler), async |_| {
            client.publish(Message::new("1").message_id("r").to_queue(&queue)).await;
            let answer = client.expect(&answers).await;
            assert_eq!(text(&answer), "not stored");
            assert_eq!(answer.properties().unwrap().correlation_id.as_deref(), Some("r"));
            answer.ack().unwrap();
            until("the acknowledgement", async || client.ready(&queue).await == 0).await;
        })
        .await;
        assert_eq!(at.log.take(), ["it votes", "it aborts"]);
        assert_eq!((report.handled, report.discarded, report.parked), (0, 1, 0));
    }
}

/// The second signal comes while the commit is under way, and its reply never comes.
async fn gr_17_u_7_a_commit_is_waited_for_at_the_deadline_of_a_shutdown<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(Direction::ToClient, "tx.commit-ok", 1, Fault::Pause);
    let handler = async |participants: Participants, State(log): State<Log>| {
        participants.join(Resource { name: "it", log, vote: Ok(()) });
    };
    let consume = source(queue.as_str()).transactional();
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |stopper| {
        client.send(&queue, "1").await;
        until("the commit", async || proxy.faulted().len() == 1).await;
        stopper.stop();
        stopper.stop_now();
        // Long enough to see a commit dropped that should not be.
        sleep(Duration::from_millis(200)).await;
        assert_eq!(at.log.lines(), ["it votes"], "nothing is decided");
        proxy.inject(Direction::ToClient, Fault::Cut);
        at.log.reach(2).await;
    })
    .await;
    // The broker has committed, or has not: a duplicate is better than a loss.
    assert_eq!(at.log.take(), ["it votes", "it finishes"]);
    assert_eq!((report.stale, report.abandoned), (1, 0));
    assert_eq!(client.ready(&queue).await, 0, "it has");
}

async fn gr_19_a_vote_may_stop_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    client.send(&queue, "1").await;
    for consume in both(&queue) {
        let to = answers.clone();
        let handler = move |participants: Participants, State(log): State<Log>| {
            participants.join(Resource { name: "it", log, vote: Err("stop") });
            let instead = Message::new("not stored").to_queue(&to);
            std::future::ready(Outcome::success().on_commit_failure([instead]))
        };
        let running = at.app().consume(consume, handler).run(Shutdown::never());
        let error = within("the end", running).await.unwrap_err();
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
        assert_eq!(at.log.take(), ["it votes", "it aborts"]);
        until("the message", async || client.ready(&queue).await == 1).await;
    }
    assert_eq!(client.ready(&answers).await, 0);
}
