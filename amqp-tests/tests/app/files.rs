//! Files as messages: what becomes of each file when something fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
#[cfg(unix)]
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use amqp_app::files::{FileError, FileId, Reader, Writer};
use amqp_app::prelude::*;
use amqp_app::{BoxError, Outbox, Relay};
use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};

use crate::at::{At, Client, Log, Make, on_both, rabbitmq, source, unique, until, within};
use crate::relaying::relayed;

on_both! {
    gr_25_a_file_is_sent_and_moved
    gr_25_a_file_that_reaches_no_queue_stays_until_it_does
    gr_25_a_file_that_cannot_be_sent_stops_no_other
    gr_25_a_file_whose_confirm_is_lost_comes_twice_with_one_id
}

/// A directory that is removed at the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let name = format!("amqp-app-files-{}-{}", std::process::id(), unique("directory"));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A maildir with these files, oldest first.
    fn spool(files: &[(&str, &str)]) -> Self {
        let spool = Self::new();
        for name in ["tmp", "new"] {
            fs::create_dir(spool.0.join(name)).unwrap();
        }
        for (age, (name, content)) in files.iter().rev().enumerate() {
            spool.put(name, content, age as u64);
        }
        spool
    }

    /// Puts a file into `new` as programs should, by a rename.
    fn put(&self, name: &str, content: &str, age: u64) {
        let [tmp, new] = ["tmp", "new"].map(|it| self.0.join(it).join(name));
        fs::write(&tmp, content).unwrap();
        let modified = SystemTime::now() - Duration::from_secs(60 + age);
        fs::File::options().write(true).open(&tmp).unwrap().set_modified(modified).unwrap();
        fs::rename(tmp, new).unwrap();
    }

    /// The files below it, with their contents.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        self.add(&self.0, &mut files);
        files
    }

    fn add(&self, directory: &Path, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add(&path, files);
                continue;
            }
            // One may be moved meanwhile.
            let Ok(content) = fs::read(&path) else { continue };
            let name = path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned();
            files.insert(name, String::from_utf8_lossy(&content).into_owned());
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }

    /// Whether there are this many files, and none with a temporary name.
    pub(crate) fn has(&self, count: usize) -> bool {
        let names = self.names();
        names.len() == count && names.iter().all(|it| !it.starts_with('.') && !it.contains("/."))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A queue that gets what is sent to a routing key of `amq.topic`: the key, and the queue.
async fn bound(client: &Client) -> (String, String) {
    let (key, queue) = (unique("files.key"), client.queue("files").await);
    bind(client, &queue, &key).await;
    (key, queue)
}

async fn bind(client: &Client, queue: &str, key: &str) {
    client.channel.queue_bind(QueueBind::new(queue, "amq.topic", key)).await.unwrap();
}

async fn gr_25_a_file_is_sent_and_moved<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (key, queue) = bound(&client).await;
    let spool = Directory::spool(&[("z.xml", "<first/>"), ("a.xml", "<second/>")]);
    spool.put(".hidden", "", 0);
    fs::create_dir(spool.0.join("new").join("directory")).unwrap();
    let reader = Reader::new(&spool.0, &key).unwrap();
    let report = relayed(reader, at.platform.clone(), async || {
        for (name, body) in [("z.xml", "<first/>"), ("a.xml", "<second/>"), ("a.xml", "<third/>")] {
            if body == "<third/>" {
                let moved = async || spool.names() == ["cur/a.xml", "cur/z.xml", "new/.hidden"];
                until("the moves", moved).await;
                // It has the name of one that was sent.
                spool.put(name, body, 0);
            }
            let delivery = client.expect(&queue).await;
            let properties = delivery.properties().unwrap();
            assert_eq!(delivery.body(), body.as_bytes());
            assert_eq!(properties.content_type.as_deref(), Some("text/xml"));
            assert_eq!(properties.delivery_mode, Some(2));
            assert!(properties.message_id.unwrap().starts_with(&format!("{name}-")));
            let headers = properties.headers.unwrap();
            assert_eq!(headers.get("X-Filename").unwrap().as_str(), Some(name));
            assert_eq!(delivery.routing_key().as_str().unwrap(), key);
            delivery.ack().unwrap();
        }
        let moved = async || spool.names().iter().filter(|it| it.starts_with("cur/")).count() == 3;
        until("the last move", moved).await;
    })
    .await;
    assert_eq!((report.sent, report.failed, report.left_out), (3, 0, 0), "{report:?}");
    let files = spool.files();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!((names[0], names[2], names[3]), ("cur/a.xml", "cur/z.xml", "new/.hidden"));
    assert_eq!(names.len(), 4);
    assert!(names[1].starts_with("cur/a.xml~"), "{names:?}");
    assert_eq!((&*files["cur/a.xml"], &*files[names[1]]), ("<second/>", "<third/>"));
}

/// Counts how many times files are taken.
struct Counting {
    reader: Reader,
    takes: Arc<AtomicUsize>,
}

impl Outbox for Counting {
    type Id = FileId;

    async fn take(&mut self, most: usize) -> Result<Vec<(FileId, Message)>, BoxError> {
        self.takes.fetch_add(1, Ordering::SeqCst);
        self.reader.take(most).await
    }

    async fn sent(&mut self, ids: &[FileId]) -> Result<(), BoxError> {
        self.reader.sent(ids).await
    }

    fn left_out(&mut self) -> Vec<BoxError> {
        self.reader.left_out()
    }
}

async fn gr_25_a_file_that_reaches_no_queue_stays_until_it_does<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (key, queue) = (unique("files.none"), client.queue("files").await);
    let spool = Directory::spool(&[("1", "first"), ("2", "second")]);
    let reader = Reader::new(&spool.0, &key).unwrap().content_type("text/plain").unwrap();
    let takes = Arc::new(AtomicUsize::new(0));
    let outbox = Counting { reader, takes: Arc::clone(&takes) };
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let relaying = Relay::new(outbox, &pool).run_until_empty(Shutdown::never());
    let script = async {
        // It takes them again after the broker has returned them.
        until("the second attempt", async || takes.load(Ordering::SeqCst) > 1).await;
        assert_eq!(spool.names(), ["new/1", "new/2"]);
        bind(&client, &queue, &key).await;
        assert_eq!(client.bodies(&queue, 2).await, ["first", "second"]);
    };
    let (report, ()) = within("an empty outbox", smol::future::zip(relaying, script)).await;
    let report = report.unwrap();
    assert_eq!((report.sent, report.left_out), (2, 0));
    assert!(report.failed > 0 && report.last_error.is_some(), "{report:?}");
    assert_eq!(spool.names(), ["cur/1", "cur/2"]);
    pool.close().await;
}

async fn gr_25_a_file_that_cannot_be_sent_stops_no_other<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (key, queue) = bound(&client).await;
    let spool = Directory::spool(&[("large", "0123456789"), ("1", "first"), ("2", "second")]);
    let reader =
        || Reader::new(&spool.0, &key).unwrap().max_bytes(9).exchange("amq.topic").unwrap();
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let relay = Relay::new(reader(), &pool);
    let report = within("the relay", relay.run_until_empty(Shutdown::never())).await.unwrap();
    assert_eq!((report.sent, report.failed, report.left_out), (2, 0, 1));
    let error = report.last_error.unwrap();
    assert!(error.contains("new/large has 10 bytes, more than 9"), "{error}");
    assert_eq!(client.bodies(&queue, 2).await, ["first", "second"]);
    assert_eq!(spool.names(), ["cur/1", "cur/2", "new/large"]);

    // It is reported once, however many times it is tried, and sent when it can be.
    let report = relayed(reader(), at.platform.clone(), async || {
        for body in ["third", "fourth"] {
            spool.put(body, body, 0);
            assert_eq!(client.bodies(&queue, 1).await, [body]);
            let moved = async || spool.names().contains(&format!("cur/{body}"));
            until("the move", moved).await;
        }
        spool.put("large", "small", 0);
        assert_eq!(client.bodies(&queue, 1).await, ["small"]);
        until("the move", async || spool.names().contains(&"cur/large".to_owned())).await;
    })
    .await;
    assert_eq!((report.sent, report.failed, report.left_out), (3, 0, 1));
    pool.close().await;
}

/// The process cannot move a file that the broker has: it is sent again.
async fn gr_25_a_file_whose_confirm_is_lost_comes_twice_with_one_id<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (key, queue) = bound(&client).await;
    let spool = Directory::spool(&[("1", "first"), ("2", "second"), ("3", "third")]);
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(Direction::ToClient, "basic.ack", 1, Fault::Cut);
    let reader = Reader::new(&spool.0, &key).unwrap();
    let report = relayed(reader, P::to(&proxy.uri()), async || {
        until("the moves", async || spool.names() == ["cur/1", "cur/2", "cur/3"]).await;
    })
    .await;
    assert_eq!(report.sent, 3);
    assert!(report.failed > 0);
    let (mut ids, mut count) = (BTreeMap::<_, BTreeSet<_>>::new(), 0);
    while let Some(delivery) = client.channel.basic_get(&queue).await.unwrap() {
        let id = delivery.properties().unwrap().message_id.unwrap();
        ids.entry(crate::at::text(&delivery)).or_default().insert(id);
        count += 1;
        delivery.ack().unwrap();
    }
    assert!(count > 3, "{count}: none was sent again");
    assert!(ids.len() == 3 && ids.values().all(|ids| ids.len() == 1), "{ids:?}");
}

/// As a process that is killed between the confirm and the move, and one that another program has overtaken.
#[test]
fn gr_25_a_file_that_was_not_moved_has_the_same_id_in_the_next_process() {
    smol::block_on(async {
        let long = "x".repeat(255);
        let spool = Directory::spool(&[("a", "1"), (&long, "2")]);
        let taken = async |reader: &mut Reader| {
            let taken = reader.take(10).await.unwrap();
            taken.into_iter().map(|(id, message)| (id.to_string(), id, message)).collect::<Vec<_>>()
        };
        let mut first = Reader::new(&spool.0, "key").unwrap();
        let before = taken(&mut first).await;
        let mut second = Reader::new(&spool.0, "key").unwrap();
        let after = taken(&mut second).await;
        let ids =
            |taken: &[(String, _, _)]| taken.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&before), ids(&after));
        assert_eq!(before.len(), 2);
        assert!(before.iter().all(|(text, _, _)| text.len() <= 255), "{before:?}");
        assert_eq!(before[1].1.name(), long.as_str());

        // Another file of this name, which was not sent.
        spool.put("a", "other", 5);
        let sent: Vec<_> = after.iter().map(|(_, id, _)| id.clone()).collect();
        second.sent(&sent).await.unwrap();
        second.sent(&sent).await.unwrap();
        assert_eq!(spool.names(), [format!("cur/{long}"), "new/a".into()]);
        let other = taken(&mut second).await;
        assert_eq!((other.len(), other[0].2.body().as_ref()), (1, &b"other"[..]));
        assert_ne!(other[0].0, after[0].0);
    });
}

/// Of the same name, size and time.
#[cfg(unix)]
#[test]
fn gr_25_a_file_that_looks_like_one_that_was_sent_is_another_one() {
    smol::block_on(async {
        let spool = Directory::spool(&[("a", "first")]);
        let mut reader = Reader::new(&spool.0, "key").unwrap();
        let new = spool.0.join("new").join("a");
        let modified = fs::metadata(&new).unwrap().modified().unwrap();
        let sent: Vec<_> = reader.take(1).await.unwrap().into_iter().map(|it| it.0).collect();
        spool.put("a", "other", 0);
        fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
        reader.sent(&sent).await.unwrap();
        assert_eq!(spool.files(), [("new/a".to_owned(), "other".to_owned())].into());
    });
}

/// What is put in the place of a file when the directory was listed already.
#[cfg(unix)]
#[test]
fn gr_25_links_and_pipes_are_no_files() {
    smol::block_on(async {
        let spool = Directory::spool(&[("1", "first"), ("2", "second"), ("3", "third")]);
        let mut reader = Reader::new(&spool.0, "key").unwrap().max_bytes(usize::MAX);
        let sent: Vec<_> = reader.take(1).await.unwrap().into_iter().map(|it| it.0).collect();
        assert_eq!(sent.len(), 1);
        reader.sent(&sent).await.unwrap();
        let [link, pipe] = ["2", "3"].map(|name| spool.0.join("new").join(name));
        fs::remove_file(&link).unwrap();
        fs::remove_file(&pipe).unwrap();
        symlink(spool.0.join("cur").join("1"), link).unwrap();
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let taken = within("files to be read", reader.take(10)).await.unwrap();
        assert!(taken.is_empty() && reader.left_out().is_empty());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn gr_25_a_directory_to_which_no_file_can_be_moved_is_an_error() {
    let spool = Directory::spool(&[("a", "first")]);
    symlink("/proc/self", spool.0.join("cur")).unwrap();
    let error = Reader::new(&spool.0, "key").unwrap_err().to_string();
    assert!(error.contains("cannot move files to"), "{error}");
    fs::remove_file(spool.0.join("cur")).unwrap();
    assert_eq!(spool.names(), ["new/a"]);
}

/// A message with such a text cannot be sent, and the reader would try for ever.
#[test]
fn a_reader_takes_no_text_that_is_too_long_for_a_message() {
    let directory = Directory::new();
    let [fits, long] = [255, 256].map(|length| "x".repeat(length));
    let reader = || Reader::new(&directory.0, &fits).unwrap();
    reader().exchange(&fits).unwrap().content_type(&fits).unwrap();
    for (result, text) in [
        (Reader::new(&directory.0, &long), "the routing key of a reader has 256 bytes"),
        (reader().exchange(&long), "the exchange of a reader has 256 bytes"),
        (reader().content_type(&long), "the content type of a reader has 256 bytes"),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, FileError::TooLong { bytes: 256, .. }), "{error:?}");
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn gr_25_many_files_are_taken_in_order_and_in_parts() {
    smol::block_on(async {
        let spool = Directory::spool(&[]);
        for number in 0..250 {
            spool.put(&format!("{number:03}"), &number.to_string(), 1_000 - number);
        }
        let mut reader = Reader::new(&spool.0, "key").unwrap();
        let mut bodies = Vec::new();
        loop {
            let taken = reader.take(100).await.unwrap();
            if taken.is_empty() {
                break;
            }
            // What is not marked as sent comes again.
            let (ids, messages): (Vec<_>, Vec<_>) = taken.into_iter().take(60).unzip();
            bodies.extend(messages.iter().map(|it| String::from_utf8(it.body().to_vec()).unwrap()));
            reader.sent(&ids).await.unwrap();
        }
        assert_eq!(bodies, (0..250).map(|it| it.to_string()).collect::<Vec<_>>());
        assert!(reader.left_out().is_empty());
    });
}

#[test]
fn gr_25_gr_26_files_on_threads() {
    let model = ModelBroker::start().unwrap();
    for uri in [model.uri(), rabbitmq().uri()] {
        let connector = amqp_blocking::Connector::new(&uri).unwrap();
        let pool = Pool::new(connector.clone(), 1).connect().unwrap();
        let (key, queue) = (unique("files.threads"), unique("files"));
        let channel = pool.connection().unwrap().open_channel().unwrap();
        channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
        channel.queue_bind(QueueBind::new(&queue, "amq.topic", &key)).unwrap();
        let (from, to) =
            (Directory::spool(&[("1.xml", "<1/>"), ("2.xml", "<2/>")]), Directory::new());
        let relay = Relay::new(Reader::new(&from.0, &key).unwrap(), &pool);
        let report = relay.run_until_empty(Shutdown::never()).unwrap();
        assert_eq!((report.sent, report.last_error), (2, None));
        assert_eq!(from.names(), ["cur/1.xml", "cur/2.xml"]);

        let log = Log::default();
        let (stored, (stopper, shutdown)) = (log.clone(), Shutdown::manual());
        let writer = Writer::new(&to.0).pattern("{xfilename}").unwrap().on_stored(move |it| {
            stored.add(it.name());
            if stored.lines().len() == 2 {
                stopper.stop();
            }
        });
        let app = App::new(connector).consume(source(queue.as_str()).transactional(), writer);
        assert_eq!(app.run(shutdown).unwrap().handled, 2);
        assert_eq!(log.take(), ["1.xml", "2.xml"]);
        assert_eq!(to.names(), ["1.header.xml", "1.xml", "2.header.xml", "2.xml"]);
        pool.close();
    }
}
