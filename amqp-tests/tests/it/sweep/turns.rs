//! Who waits for whom on one thread: tasks that never have to wait, and tasks that are woken and not polled.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use amqp_async::core::{BasicConsume, Publish, QueueDeclare};
use amqp_async::limits::{TURN_DELIVERIES_MAX, TURN_PUBLISHES_MAX};
use amqp_async::{Channel, Connection};

use super::staged::World;

/// Whether a task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls a task to its end, and the world in between. Returns the most that `done` grew by in one poll.
fn longest_turn(world: &World, task: impl Future<Output = ()>, done: &Cell<u32>) -> u32 {
    let mut task = pin!(task);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut longest = 0;
    loop {
        let before = done.get();
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        longest = longest.max(done.get() - before);
        if polled.is_ready() {
            return longest;
        }
        // The other tasks have their turn: all of them, until there is nothing left to do.
        world.finish();
        assert!(woken.take(), "a task that yields is polled again");
    }
}

fn connect(world: &World) -> (Connection, Channel, String) {
    let connection = world.block_on(world.connect()).unwrap();
    let channel = world.block_on(connection.open_channel()).unwrap();
    let declare = channel.queue_declare(QueueDeclare::new("").exclusive());
    let queue = world.block_on(declare).unwrap().queue;
    (connection, channel, queue)
}

#[test]
fn publishers_that_never_wait_let_others_have_their_turn() {
    let world = World::new();
    let (connection, channel, _) = connect(&world);
    let publishing = world.block_on(connection.open_channel()).unwrap();
    let publisher = world.block_on(publishing.confirm_select()).unwrap();
    let count = 10 * TURN_PUBLISHES_MAX;
    for confirmed in [false, true] {
        let (published, mut confirms) = (Cell::new(0), Vec::new());
        let task = async {
            while published.get() < count {
                let publish = Publish::new("amq.direct", "nobody", b"");
                if confirmed {
                    confirms.push(publisher.send(publish).await.unwrap());
                } else {
                    channel.basic_publish(publish).await.unwrap();
                }
                published.set(published.get() + 1);
            }
        };
        let longest = longest_turn(&world, task, &published);
        assert!((1..=TURN_PUBLISHES_MAX).contains(&longest), "{longest} publishes in one turn");

        // So do those who collect confirms that have come.
        let collected = Cell::new(0);
        let task = async {
            for confirm in confirms {
                confirm.await.unwrap();
                collected.set(collected.get() + 1);
            }
        };
        let longest = longest_turn(&world, task, &collected);
        assert!(longest <= TURN_PUBLISHES_MAX, "{longest} confirms in one turn");
    }
    assert_eq!(connection.stats().published, 2 * u64::from(count), "each is sent once");
}

#[test]
fn consumers_that_never_wait_let_others_have_their_turn() {
    let world = World::new();
    let (_connection, channel, queue) = connect(&world);
    let count = 10 * TURN_DELIVERIES_MAX;
    // From one consumer, and from two in turn, which share the budget of the thread.
    for consumers in [1, 2] {
        let consume = || channel.basic_consume(BasicConsume::new(&queue).no_ack());
        let mut consumers: Vec<_> =
            (0..consumers).map(|_| world.block_on(consume()).unwrap()).collect();
        for number in 0..count {
            let body = number.to_be_bytes();
            let publish = Publish::new("", &queue, &body);
            world.block_on(channel.basic_publish(publish)).unwrap();
        }
        world.finish();
        let (read, mut sum) = (Cell::new(0), 0);
        let task = async {
            while read.get() < count {
                for consumer in &mut consumers {
                    let delivery = consumer.next().await.unwrap().unwrap();
                    sum += u32::from_be_bytes(delivery.body().try_into().unwrap());
                    read.set(read.get() + 1);
                }
            }
        };
        let longest = longest_turn(&world, task, &read);
        assert!((1..=TURN_DELIVERIES_MAX).contains(&longest), "{longest} deliveries in one turn");
        assert_eq!(sum, (0..count).sum::<u32>(), "each is read once");
        drop(consumers);
        world.finish();
    }
}

/// What the guide on backpressure says of a future that is kept and not polled.
#[test]
fn a_publish_that_is_woken_and_not_polled_holds_its_channel_until_it_is_dropped() {
    let world = World::new();
    let (connection, channel, queue) = connect(&world);
    let other = world.block_on(connection.open_channel()).unwrap();
    let large = vec![0; 2 << 20];
    let fill = channel.basic_publish(Publish::new("", &queue, &large));
    let woken: [Arc<Woken>; 3] = Default::default();
    assert!(poll(pin!(fill), &woken[0]).is_ready());
    let publish = || channel.basic_publish(Publish::new("", "q", b"x"));
    let (mut first, mut second, late) = (Box::pin(publish()), pin!(publish()), pin!(publish()));
    assert!(poll(first.as_mut(), &woken[0]).is_pending());
    assert!(poll(second.as_mut(), &woken[1]).is_pending());

    // There is buffer space again: the first in line is woken, and nothing polls it.
    world.finish();
    assert!(woken[0].take() && !woken[1].take());
    assert!(poll(second.as_mut(), &woken[1]).is_pending());
    assert!(poll(late, &woken[2]).is_pending());
    world.finish();
    assert!(!woken[1].take() && !woken[2].take(), "its channel waits for it");
    let elsewhere = other.basic_publish(Publish::new("", "q", b"x"));
    assert!(poll(pin!(elsewhere), &woken[2]).is_ready(), "other channels do not");

    drop(first);
    assert!(woken[1].take() && !woken[2].take(), "the next in line is woken");
    assert!(matches!(poll(second, &woken[1]), Poll::Ready(Ok(()))));
    assert!(woken[2].take(), "and so on");
}

fn poll<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}
