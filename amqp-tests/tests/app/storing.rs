//! Messages as files: what is on the disk when something fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, mpsc};
use std::time::SystemTime;

use amqp_app::files::{Header, Writer, file_name, header_name, is_header_name};
use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_both, source, until, within};
use crate::files::Directory;

on_both! {
    gr_26_a_function_of_a_writer_may_block
    gr_26_a_batch_is_two_files_for_each_message
    gr_26_gr_27_a_message_is_two_files
    gr_26_a_message_that_is_not_committed_is_no_file
    gr_26_a_connection_that_is_lost_before_the_commit_leaves_no_file
    gr_26_a_cut_at_the_commit_loses_no_file_of_a_message
    gr_26_a_file_of_the_same_name_is_replaced_at_the_commit_only
    gr_26_a_message_that_is_not_committed_undoes_nothing_of_others
    gr_26_two_writers_store_one_name_one_after_the_other
    gr_26_messages_of_a_batch_with_one_name_are_handled_apart
    gr_26_what_a_message_says_stays_in_the_directory
    gr_26_a_directory_that_cannot_be_written_parks_the_message
}

/// Both ways in which a message is acknowledged.
fn both(queue: &str) -> [Consume; 2] {
    [source(queue), source(queue).transactional()]
}

async fn gr_26_gr_27_a_message_is_two_files<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    for consume in both(&queue) {
        let directory = Directory::new();
        let log = at.log.clone();
        let writer = Writer::new(&directory.0)
            .pattern("${date}/{routing_key}/${msgid}.xml")
            .unwrap()
            .on_stored(move |stored| {
                // The files are there when the function is called.
                let body = fs::read(stored.path()).unwrap();
                assert_eq!(*stored.body(), body);
                assert_eq!(Header::read(stored.header_path()).unwrap(), *stored.header());
                log.add(stored.name());
            });
        let headers = FieldTable::from([
            ("bytes", FieldValue::Bytes(vec![0, 255])),
            ("count", 3.into()),
            ("list", vec![FieldValue::from(true), FieldValue::Void, 0.1_f32.into()].into()),
            ("long", 5_000_000_000_i64.into()),
            ("rate", 0.1_f64.into()),
            ("text", "Ümläuten".into()),
        ]);
        let message = Message::new("<body/>").message_id("myid").headers(headers.clone());
        let message = message.property(|it| it.timestamp = Some(1_310_652_900)).priority(7);
        let report = beside(at.app().consume(consume, writer), async |_| {
            client.publish(message.clone().to_queue(&queue)).await;
            at.log.reach(1).await;
        })
        .await;
        assert_eq!((report.handled, client.ready(&queue).await), (1, 0));
        let name = format!("2011-07-14/{queue}/myid.xml");
        assert_eq!(at.log.take(), [name.as_str()]);
        assert_eq!(directory.names(), [header_name(&name), name.clone()]);
        assert_eq!(directory.files()[&name], "<body/>");
        let header = Header::beside(directory.0.join(&name)).unwrap();
        assert_eq!(
            (&*header.exchange, &*header.routing_key, &*header.queue),
            ("", &*queue, &*queue)
        );
        assert!(!header.redelivered);
        assert_eq!(header.properties, *message.properties());
        assert_eq!(header.properties.headers, Some(headers));
        assert_eq!(header.into_message("<body/>"), message.to_queue(&queue));
    }
}

/// A handler that stores its message, and what follows.
async fn gr_26_a_message_that_is_not_committed_is_no_file<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    for consume in both(&queue) {
        let directory = Directory::new();
        let writer = Writer::new(&directory.0).on_stored(|_| panic!("of a function"));
        let handler = move |context: Context<Log>, participants: Participants| {
            let text = String::from_utf8(context.body().to_vec()).unwrap();
            // The names are visible at the vote of the participant behind it.
            let stored = writer.store(&context);
            participants.join(Refusing(text == "vote"));
            std::future::ready(match text.as_str() {
                "handler" => Err(Failure::permanent("of the handler")),
                "sent" => stored.map(|()| vec![Message::new("").to("not there", "")]),
                _ => stored.map(|()| Vec::new()),
            })
        };
        let report = beside(at.app().consume(consume, handler), async |_| {
            for (text, reason) in [
                ("handler", "of the handler"),
                ("vote", "it does not agree"),
                ("sent", "not there"),
            ] {
                client.send(&queue, text).await;
                let parked = client.expect(&format!("{queue}.parked")).await;
                let error = crate::at::header(&parked, "retry-error").unwrap();
                assert!(error.contains(reason), "{text}: {error}");
                parked.ack().unwrap();
                assert_eq!(directory.names(), [""; 0], "{text}");
            }
            client.send(&queue, "stored").await;
            until("both files", async || directory.has(2)).await;
        })
        .await;
        // The panic of a function is not that of a message.
        assert_eq!((report.parked, report.handled, report.panicked), (3, 1, 0));
        assert!(directory.has(2));
    }
}

struct Refusing(bool);

impl Participant for Refusing {
    async fn vote(&mut self) -> Result<(), Failure> {
        if self.0 { Err(Failure::permanent("it does not agree")) } else { Ok(()) }
    }
    async fn finish(&mut self) {}
    async fn abort(&mut self) {}
}

/// A participant that agrees when the test says so.
struct Waiting(Log);

impl Participant for Waiting {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.0.add("voting");
        self.0.find("go on").await;
        Ok(())
    }

    async fn finish(&mut self) {
        self.0.add("finished");
    }

    async fn abort(&mut self) {
        self.0.add("aborted");
    }
}

async fn gr_26_a_connection_that_is_lost_before_the_commit_leaves_no_file<P: Make>(at: At<P>) {
    let client = at.client().await;
    for transactional in [false, true] {
        // One that is not acknowledged comes again, perhaps after the end.
        let queue = client.queue("stored").await;
        let [confirms, tx] = both(&queue);
        let consume = if transactional { tx } else { confirms };
        let directory = Directory::new();
        let proxy = Proxy::start(at.port()).unwrap();
        let writer = Writer::new(&directory.0);
        let handler =
            move |context: Context<Log>, participants: Participants, State(log): State<Log>| {
                let stored = writer.store(&context);
                participants.join(Waiting(log));
                std::future::ready(stored)
            };
        let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
            client.publish(Message::new("body").message_id("it").to_queue(&queue)).await;
            within("the vote", at.log.find("voting")).await;
            assert!(directory.has(2), "visible before the commit");
            let before = proxy.accepted();
            proxy.inject(Direction::ToBroker, Fault::Cut);
            // The loss of each is known then.
            until("other connections", async || proxy.accepted() >= 2 * before).await;
            at.log.add("go on");
            within("the end", at.log.find("finished")).await;
        })
        .await;
        let files = directory.files();
        let lines = at.log.take();
        assert_eq!((files.len(), report.parked), (2, 0), "{files:?} {lines:?}");
        let body = files.keys().find(|name| !is_header_name(name)).unwrap();
        // With confirms nothing has failed, and the message is acknowledged when it comes again.
        let header = Header::beside(directory.0.join(body)).unwrap();
        assert_eq!(header.redelivered, transactional, "{lines:?}");
        assert_eq!(lines.contains(&"aborted".to_owned()), transactional, "{lines:?}");
    }
}

/// What is known of the messages in a directory, by message id.
fn headers(directory: &Directory) -> BTreeMap<String, Vec<Header>> {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    let is_body = |name: &String| !is_header_name(name) && !name.starts_with('.');
    for name in directory.names().into_iter().filter(is_body) {
        let header = Header::beside(directory.0.join(name)).unwrap();
        let id = header.properties.message_id.clone().unwrap();
        headers.entry(id).or_default().push(header);
    }
    headers
}

/// If the broker may have committed, the files stay, and the message is not handled again when it comes again. An
/// acknowledgement has no reply: one that is lost is not known to be lost.
async fn gr_26_a_cut_at_the_commit_loses_no_file_of_a_message<P: Make>(at: At<P>) {
    let client = at.client().await;
    let answers = client.queue("answers").await;
    let proxy = Proxy::start(at.port()).unwrap();
    for transactional in [false, true] {
        let queue = client.queue("stored").await;
        let [confirms, tx] = both(&queue);
        let consume = if transactional { tx } else { confirms };
        let directory = Directory::new();
        let (writer, to) = (Writer::new(&directory.0), answers.clone());
        let handler = move |context: Context<Log>| {
            let stored = writer.store(&context);
            std::future::ready(stored.map(|()| Message::new("stored").to_queue(&to)))
        };
        let points = match transactional {
            false => [
                (Direction::ToBroker, "basic.publish"),
                (Direction::ToClient, "basic.ack"),
                (Direction::ToBroker, "basic.ack"),
            ],
            true => [
                (Direction::ToBroker, "basic.publish"),
                (Direction::ToBroker, "tx.commit"),
                (Direction::ToClient, "tx.commit-ok"),
            ],
        };
        let app = at.app_at(&proxy.uri()).consume(consume, handler);
        let health = app.health();
        let report = beside(app, async |_| {
            for (number, (direction, method)) in points.into_iter().enumerate() {
                until("the consumer", async || health.is_ready()).await;
                let before = proxy.faulted().len();
                proxy.before(direction, method, 1, Fault::Cut);
                let id = number.to_string();
                client.publish(Message::new("").message_id(&id).to_queue(&queue)).await;
                until("the fault", async || proxy.faulted().len() > before).await;
                client.expect(&answers).await.ack().unwrap();
            }
            client.publish(Message::new("last").message_id("last").to_queue(&queue)).await;
            let stored = async || directory.files().values().any(|body| body == "last");
            until("the last one", stored).await;
        })
        .await;
        assert_eq!(report.parked, 0);
        let headers = headers(&directory);
        assert_eq!(headers.keys().map(String::as_str).collect::<Vec<_>>(), ["0", "1", "2", "last"]);
        for (id, headers) in headers {
            let again = headers.iter().filter(|header| header.redelivered).count();
            let is_once = headers.len() == 1;
            assert!(is_once || (!transactional && headers.len() == again + 1), "{id}: {headers:?}");
        }
        assert!(directory.names().iter().all(|name| !name.starts_with('.')));
    }
}

async fn gr_26_a_file_of_the_same_name_is_replaced_at_the_commit_only<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    for consume in both(&queue) {
        let directory = Directory::new();
        let writer = Writer::new(&directory.0).pattern("last.xml").unwrap();
        let handler = move |context: Context<Log>, participants: Participants| {
            let stored = writer.store(&context);
            participants.join(Refusing(context.body() == b"refused"));
            std::future::ready(stored)
        };
        let report = beside(at.app().consume(consume.concurrency(4), handler), async |_| {
            client.send(&queue, "first").await;
            until("the files", async || directory.names() == ["last.header.xml", "last.xml"]).await;
            let before = directory.files();
            client.send(&queue, "refused").await;
            assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["refused"]);
            assert_eq!(directory.files(), before, "what was there is there again");
            // Several at a time are stored one after the other.
            for number in 0..20 {
                let body = if number % 2 == 0 { "refused".to_owned() } else { number.to_string() };
                client.send(&queue, body).await;
            }
            assert_eq!(client.bodies(&format!("{queue}.parked"), 10).await, ["refused"; 10]);
            until("an empty queue", async || client.ready(&queue).await == 0).await;
        })
        .await;
        assert_eq!((report.handled, report.parked), (11, 11));
        let files = directory.files();
        assert_eq!(directory.names(), ["last.header.xml", "last.xml"]);
        assert!(files["last.xml"].parse::<u32>().is_ok_and(|it| it % 2 == 1), "{files:?}");
    }
}

/// While the files are visible, another writer begins, and another program replaces one of them.
async fn gr_26_a_message_that_is_not_committed_undoes_nothing_of_others<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [refused, stored] = [client.queue("refused").await, client.queue("stored").await];
    let directory = Directory::new();
    let path = |name: &str| directory.0.join(name);
    for name in ["it", "it.header"] {
        fs::write(path(name), "old").unwrap();
        let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
        fs::File::options().write(true).open(path(name)).unwrap().set_modified(old).unwrap();
    }
    let writer = Writer::new(&directory.0).pattern("it").unwrap();
    let handler =
        move |context: Context<Log>, participants: Participants, State(log): State<Log>| {
            let stored = writer.store(&context);
            participants.join(Waiting(log));
            participants.join(Refusing(true));
            std::future::ready(stored)
        };
    let other = Writer::new(&directory.0).pattern("other").unwrap();
    let app = at.app().consume(source(&*refused), handler).consume(source(&*stored), other);
    beside(app, async |_| {
        client.send(&refused, "new").await;
        within("the vote", at.log.find("voting")).await;
        assert_eq!(directory.files()["it"], "new");
        client.send(&stored, "other").await;
        until("the other file", async || path("other").exists()).await;
        fs::write(path("written"), "by a program").unwrap();
        fs::rename(path("written"), path("it")).unwrap();
        at.log.add("go on");
        client.expect(&format!("{refused}.parked")).await.ack().unwrap();
    })
    .await;
    let files = directory.files();
    assert_eq!(directory.names(), ["it", "it.header", "other", "other.header"]);
    assert_eq!((&*files["it"], &*files["it.header"]), ("by a program", "old"));
}

/// With another path of the same directory.
async fn gr_26_two_writers_store_one_name_one_after_the_other<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [first, second] = [client.queue("first").await, client.queue("second").await];
    let directory = Directory::new();
    fs::create_dir(directory.0.join("below")).unwrap();
    let writer = Writer::new(&directory.0).pattern("it").unwrap();
    let waiting =
        move |context: Context<Log>, participants: Participants, State(log): State<Log>| {
            let stored = writer.store(&context);
            participants.join(Waiting(log));
            std::future::ready(stored)
        };
    let writer = Writer::new(directory.0.join("below").join("..")).pattern("{msgid}").unwrap();
    let other = move |context: Context<Log>, participants: Participants, State(log): State<Log>| {
        let stored = writer.store(&context);
        let id = String::from_utf8(context.body().to_vec()).unwrap();
        log.add(format!("{id} is called"));
        participants.join(Voting(log, id));
        std::future::ready(stored)
    };
    let app = at.app().consume(source(&*first), waiting);
    let app = app.consume(source(&*second).concurrency(2), other);
    beside(app, async |_| {
        client.send(&first, "first").await;
        within("the vote", at.log.find("voting")).await;
        for id in ["it", "another"] {
            client.publish(Message::new(id).message_id(id).to_queue(&second)).await;
            within("the handler", at.log.find(&format!("{id} is called"))).await;
        }
        within("the vote", at.log.find("another votes")).await;
        assert_eq!(directory.files()["it"], "first");
        at.log.add("go on");
        within("the vote", at.log.find("it votes")).await;
    })
    .await;
    let lines = at.log.take();
    let place = |text: &str| lines.iter().position(|line| line == text).unwrap();
    assert!(place("go on") < place("it votes"), "{lines:?}");
    assert_eq!(directory.files()["it"], "it");
}

/// A participant that logs its vote.
struct Voting(Log, String);

impl Participant for Voting {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.0.add(format!("{} votes", self.1));
        Ok(())
    }
    async fn finish(&mut self) {}
    async fn abort(&mut self) {}
}

/// It waits for what another task of the runtime does.
async fn gr_26_a_function_of_a_writer_may_block<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    let directory = Directory::new();
    let (go_on, waits) = mpsc::channel();
    let (log, waits) = (at.log.clone(), Mutex::new(waits));
    let writer = Writer::new(&directory.0).on_stored(move |stored| {
        log.add(format!("{} waits", stored.header().properties.message_id.as_deref().unwrap()));
        waits.lock().unwrap().recv().unwrap();
    });
    let report = beside(at.app().consume(source(queue.as_str()), writer), async |_| {
        for id in ["1", "2"] {
            client.publish(Message::new("").message_id(id).to_queue(&queue)).await;
            within("the function", at.log.find(&format!("{id} waits"))).await;
            go_on.send(()).unwrap();
        }
    })
    .await;
    assert_eq!(report.handled, 2);
}

async fn gr_26_a_batch_is_two_files_for_each_message<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    for consume in both(&queue) {
        let directory = Directory::new();
        let log = at.log.clone();
        let writer = Writer::new(&directory.0).pattern("{msgid}.xml").unwrap();
        let writer = writer.on_stored(move |stored| {
            log.add(stored.name());
        });
        let handler = move |Batch(messages): Batch<Context<Log>>| {
            let stored = messages.iter().try_for_each(|message| {
                let participants = Participants::from_context(message)?;
                writer.store(message)?;
                participants.join(Refusing(message.body() == b"refused"));
                Ok::<_, Failure>(())
            });
            std::future::ready(stored)
        };
        for (id, body) in [("a", "1"), ("b", "2"), ("c", "refused"), ("d", "3")] {
            client.publish(Message::new(body).message_id(id).to_queue(&queue)).await;
        }
        let consume = consume.batches(4, Duration::from_secs(60));
        let report = beside(at.app().consume(consume, handler), async |_| {
            assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["refused"]);
            at.log.reach(3).await;
        })
        .await;
        assert_eq!((report.handled, report.parked), (3, 1));
        let names = ["a", "b", "d"].map(|id| [format!("{id}.header.xml"), format!("{id}.xml")]);
        assert_eq!(directory.names(), names.concat());
        let files = directory.files();
        assert_eq!([&*files["a.xml"], &*files["b.xml"], &*files["d.xml"]], ["1", "2", "3"]);
        at.log.take();
    }
}

/// The latter one waits for no commit, as that of the former one waits for it.
async fn gr_26_messages_of_a_batch_with_one_name_are_handled_apart<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    let directory = Directory::new();
    let writer = Writer::new(&directory.0).pattern("it").unwrap();
    let twice = writer.clone();
    let handler = move |Batch(messages): Batch<Context<Log>>, State(log): State<Log>| {
        log.add(format!("{} messages", messages.len()));
        let stored = messages.iter().try_for_each(|message| {
            writer.store(message)?;
            Participants::from_context(message)?.join(Voting(log.clone(), "one".to_owned()));
            Ok::<_, Failure>(())
        });
        std::future::ready(stored)
    };
    for body in ["1", "2"] {
        client.send(&queue, body).await;
    }
    let consume = source(&*queue).batches(2, Duration::from_secs(60));
    let report = beside(at.app().consume(consume, handler), async |_| {
        at.log.reach(6).await;
    })
    .await;
    assert_eq!((report.handled, report.parked), (2, 0));
    let lines = at.log.take();
    let expected =
        ["2 messages", "one votes", "1 messages", "one votes", "1 messages", "one votes"];
    assert_eq!(lines, expected);
    assert_eq!(directory.files()["it"], "2");

    let handler = move |context: Context<Log>| {
        std::future::ready(twice.store(&context).and_then(|()| twice.store(&context)))
    };
    beside(at.app().consume(source(&*queue), handler), async |_| {
        client.send(&queue, "twice").await;
        let parked = client.expect(&format!("{queue}.parked")).await;
        let error = crate::at::header(&parked, "retry-error").unwrap();
        assert!(error.contains("is stored twice"), "{error}");
        parked.ack().unwrap();
    })
    .await;
    assert_eq!(directory.files()["it"], "2");
}

async fn gr_26_what_a_message_says_stays_in_the_directory<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    let directory = Directory::new();
    let below = directory.0.join("a").join("b");
    let writer = Writer::new(&below).pattern("{xfilename}/{msgid}-{routing_key}").unwrap();
    let long = "x".repeat(10_000);
    let texts = ["../../etc/passwd", "\0", &long, "", ".", "..", "a/b", "/etc/passwd", ".hidden"];
    let report = beside(at.app().consume(source(queue.as_str()), writer), async |_| {
        for text in texts {
            // An id is a short string.
            let id = &text[..text.len().min(255)];
            let message = Message::new(text.to_owned()).header("X-Filename", text).message_id(id);
            client.publish(message.to_queue(&queue)).await;
        }
        until("the files", async || directory.has(2 * texts.len())).await;
    })
    .await;
    assert_eq!(report.handled, texts.len() as u64);
    let files = directory.files();
    let mut bodies: Vec<_> = Vec::new();
    for (name, body) in files.iter().filter(|(name, _)| !is_header_name(name)) {
        let parts: Vec<_> = name.split('/').collect();
        assert_eq!((parts.len(), &parts[..2]), (4, &["a", "b"][..]), "{name}");
        let header = Header::beside(directory.0.join(name)).unwrap();
        let headers = header.properties.headers.unwrap();
        assert_eq!(headers.get("X-Filename").unwrap().as_str(), Some(body.as_str()));
        bodies.push(body.as_str());
    }
    bodies.sort_unstable();
    let mut texts = texts.map(str::to_owned);
    texts.sort_unstable();
    assert_eq!(bodies, texts);
}

async fn gr_26_a_directory_that_cannot_be_written_parks_the_message<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stored").await;
    for consume in both(&queue) {
        let directory = Directory::new();
        fs::write(directory.0.join("file"), "").unwrap();
        fs::create_dir_all(directory.0.join("directory").join("x")).unwrap();
        // A file where a directory should be, and the other way round.
        let writer = Writer::new(&directory.0).pattern("{msgid}/x").unwrap();
        let report = beside(at.app().consume(consume, writer), async |_| {
            for (id, reason) in [("file", "cannot create"), ("directory", "cannot replace")] {
                client.publish(Message::new("").message_id(id).to_queue(&queue)).await;
                let parked = client.expect(&format!("{queue}.parked")).await;
                let error = crate::at::header(&parked, "retry-error").unwrap();
                assert!(error.contains(reason), "{error}");
                parked.ack().unwrap();
            }
        })
        .await;
        assert_eq!(report.parked, 2);
        assert_eq!(directory.names(), ["file"]);
    }
}

/// What writers of processes that were killed have left behind.
#[test]
fn gr_26_old_temporary_files_are_removed() {
    smol::block_on(async {
        let at = At::<amqp_smol::Connector>::model();
        let client = at.client().await;
        let queue = client.queue("stored").await;
        let directory = Directory::new();
        for (name, days) in
            [(".amqp-app-1.tmp", 2), (".amqp-app-2.tmp", 0), (".other", 2), ("x.tmp", 2)]
        {
            let file = fs::File::create(directory.0.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
        }
        let writer = Writer::new(&directory.0).pattern("it").unwrap();
        beside(at.app().consume(source(queue.as_str()), writer), async |_| {
            client.send(&queue, "1").await;
            until("the files", async || directory.names().contains(&"it.header".to_owned())).await;
        })
        .await;
        assert_eq!(directory.names(), [".amqp-app-2.tmp", ".other", "it", "it.header", "x.tmp"]);
    });
}

#[test]
fn gr_26_gr_27_names_are_those_of_the_pattern() {
    let properties = Properties::new().message_id("myid").timestamp(1_310_652_900_u64);
    for (pattern, expected) in [
        ("${date}/${msgid}.xml", "2011-07-14/myid.xml"),
        ("{date}/{msgid}.xml", "2011-07-14/myid.xml"),
        ("${routing_key}.xml", "a%2F..%2Fb.xml"),
    ] {
        assert_eq!(file_name(pattern, "a/../b", &properties).unwrap(), expected);
    }
    for pattern in ["${nothing}", "${date", "../{msgid}", "/{msgid}", "$date"] {
        let error = Writer::new("directory").pattern(pattern).unwrap_err();
        assert!(error.to_string().contains(pattern), "{error}");
    }
    let names = (0..1_000).map(|_| file_name("{unique}", "", &properties).unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>().len(), 1_000);
}
