//! The record against a plain list of everything, and the traps of recovery in particular.

mod model;

use std::cell::Cell;

use amqp_proto::{FieldTable, FieldValue, ShortStr};
use proptest::prelude::*;

use super::{Stage, Topology};
use crate::config::Recovery;
use crate::error::{BrokerError, ChannelCause, Error};
use crate::ids::ConsumerKey;
use crate::request::sealed::Request;
use crate::request::{
    Change, ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, QueueBind, QueueDeclare,
    QueueDelete, QueuePurge, QueueUnbind,
};
use crate::slab::Key;
use crate::types::{FailedEntity, TopologyEntity};
use model::{Model, any_action};

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the comparisons of bindings.
pub(super) fn count_step() {
    STEPS.set(STEPS.get() + 1);
}

impl Topology {
    /// A request is confirmed.
    fn confirm(&mut self, request: &impl Request) {
        self.apply(*request.change().unwrap(), None, None);
    }

    fn declare_queue(&mut self, declare: &QueueDeclare, name: &str) {
        self.apply(*declare.change().unwrap(), Some(name), None);
    }

    /// What is declared again, as a report names it.
    fn shown(&self) -> Vec<String> {
        self.shown_for(&Recovery::automatic())
    }

    fn shown_for(&self, recovery: &Recovery) -> Vec<String> {
        let steps = self.steps(recovery).into_iter();
        steps.map(|step| self.declaration(step).unwrap().entity().to_string()).collect()
    }

    /// What is declared again: how a report names it, and the request.
    fn requests(&self) -> Vec<(String, Change)> {
        let steps = self.steps(&Recovery::automatic()).into_iter();
        let request = |step| {
            let declaration = self.declaration(step).unwrap();
            (declaration.entity().to_string(), *declaration.request().change().unwrap())
        };
        steps.map(request).collect()
    }

    /// The record of a connection that declares the same. Queues keep their names.
    fn replayed(&self) -> Self {
        let mut other = Self::default();
        for step in self.steps(&Recovery::automatic()) {
            let declaration = self.declaration(step).unwrap();
            let change = *declaration.request().change().unwrap();
            other.apply(change, declaration.former_name(), None);
        }
        other
    }
}

const fn consumer(index: u32) -> ConsumerKey {
    ConsumerKey(Key { index, generation: 0 })
}

fn events_and_orders() -> Topology {
    let mut topology = Topology::default();
    topology.confirm(&ExchangeDeclare::topic("events"));
    topology.confirm(&QueueDeclare::quorum("orders"));
    topology.confirm(&QueueBind::new("orders", "events", "order.*"));
    topology
}

#[test]
fn the_order_is_exchanges_their_bindings_queues_their_bindings() {
    let mut topology = Topology::default();
    topology.confirm(&QueueDeclare::new("q1"));
    topology.confirm(&QueueBind::new("q1", "amq.topic", "k"));
    topology.confirm(&ExchangeDeclare::topic("b"));
    topology.confirm(&ExchangeBind::new("b", "amq.fanout", ""));
    topology.confirm(&ExchangeDeclare::topic("a"));
    topology.confirm(&QueueDeclare::new("q0").exclusive());
    // The same again has the same place.
    topology.confirm(&ExchangeDeclare::fanout("b").durable());
    topology.confirm(&QueueBind::new("q1", "amq.topic", "k"));
    // Every broker has these.
    topology.confirm(&ExchangeDeclare::topic("amq.topic").durable());
    let expected = [
        r#"exchange "b""#,
        r#"exchange "a""#,
        r#"binding of exchange "b" to exchange "amq.fanout" with routing key """#,
        r#"queue "q1""#,
        r#"queue "q0""#,
        r#"binding of queue "q1" to exchange "amq.topic" with routing key "k""#,
    ];
    assert_eq!(topology.shown(), expected);
    let fanout = Change::ExchangeDeclare(ExchangeDeclare::fanout("b").durable());
    assert_eq!(topology.requests()[0].1, fanout);
    let stages: Vec<_> = topology.steps(&Recovery::automatic()).iter().map(|it| it.stage).collect();
    assert!(stages.is_sorted());
    assert_eq!((stages[0], stages[5]), (Stage::Exchanges, Stage::QueueBindings));
}

#[test]
fn r4_what_is_deleted_or_unbound_does_not_come_back() {
    let mut topology = events_and_orders();
    topology.confirm(&QueueUnbind::new(QueueBind::new("orders", "events", "order.*")));
    assert_eq!(topology.shown(), [r#"exchange "events""#, r#"queue "orders""#]);
    // With a queue or an exchange, its bindings go.
    let mut topology = events_and_orders();
    topology.confirm(&QueueDelete::new("orders"));
    topology.confirm(&QueueDeclare::new("orders"));
    assert_eq!(topology.shown(), [r#"exchange "events""#, r#"queue "orders""#]);
    let mut topology = events_and_orders();
    topology.confirm(&ExchangeDeclare::topic("all"));
    topology.confirm(&ExchangeBind::new("events", "all", "#"));
    topology.confirm(&ExchangeBind::new("all", "events", "#"));
    topology.confirm(&ExchangeDelete::new("events"));
    assert_eq!(topology.shown(), [r#"exchange "all""#, r#"queue "orders""#]);
}

#[test]
fn r4_an_unbind_removes_the_equal_binding_alone() {
    let bind = |key: &str| QueueBind::new("orders", "events", key);
    let (one, two) = (bind("k").argument("x", 1).argument("y", 2), bind("k").argument("x", 1_i64));
    let mut topology = events_and_orders();
    for binding in [&bind("k"), &one, &two, &bind("l")] {
        topology.confirm(binding);
    }
    assert_eq!(topology.shown().len(), 7);
    // Other arguments, another type of number, another key, exchange or queue.
    for other in [bind("k").argument("x", 1), bind("m"), QueueBind::new("orders", "k", "events")] {
        topology.confirm(&QueueUnbind::new(other));
    }
    assert_eq!(topology.shown().len(), 7);
    // RabbitMQ does not compare the order of arguments.
    topology.confirm(&QueueUnbind::new(bind("k").argument("y", 2).argument("x", 1)));
    let left: Vec<_> = topology.requests().into_iter().skip(2).map(|(_, change)| change).collect();
    assert_eq!(left, [bind("order.*"), bind("k"), two, bind("l")].map(Change::QueueBind));
}

#[test]
fn r4_an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut topology = Topology::default();
    topology.confirm(&QueueDeclare::new("auto").auto_delete());
    topology.confirm(&QueueBind::new("auto", "amq.fanout", ""));
    topology.confirm(&QueueDeclare::new("stays"));
    for (index, queue) in ["auto", "auto", "stays"].into_iter().enumerate() {
        topology.consumer_started(consumer(index as u32), queue);
    }
    topology.consumer_ended(consumer(0));
    topology.consumer_ended(consumer(0));
    topology.consumer_ended(consumer(2));
    assert_eq!(topology.shown().len(), 3);
    topology.consumer_ended(consumer(1));
    assert_eq!(topology.shown(), [r#"queue "stays""#]);
}

/// The broker deletes the queue then, too, but it is needed again.
#[test]
fn r4_a_lost_connection_forgets_no_auto_delete_queue() {
    let mut topology = Topology::default();
    topology.confirm(&QueueDeclare::new("auto").auto_delete());
    topology.consumer_started(consumer(0), "auto");
    topology.consumer_started(consumer(1), "auto");
    topology.consumer_lost(consumer(0));
    // The other one consumes on the next connection.
    topology.consumer_started(consumer(1), "auto");
    assert_eq!(topology.shown(), [r#"queue "auto""#]);
    topology.consumer_ended(consumer(1));
    assert!(topology.shown().is_empty());
}

#[test]
fn r4_an_auto_delete_exchange_goes_with_its_last_binding() {
    let mut topology = Topology::default();
    for exchange in ["first", "second", "third"] {
        topology.confirm(&ExchangeDeclare::fanout(exchange).auto_delete());
    }
    topology.confirm(&QueueDeclare::new("q"));
    topology.confirm(&ExchangeBind::new("second", "first", ""));
    topology.confirm(&ExchangeBind::new("third", "second", ""));
    topology.confirm(&QueueBind::new("q", "third", ""));
    topology.confirm(&QueueBind::new("q", "second", ""));
    // Nothing was bound to these names.
    topology.confirm(&QueueUnbind::new(QueueBind::new("q", "first", "")));
    topology.confirm(&ExchangeUnbind::new(ExchangeBind::new("first", "second", "")));
    assert_eq!(topology.shown().len(), 8);
    topology.confirm(&QueueUnbind::new(QueueBind::new("q", "third", "")));
    assert!(!topology.shown().contains(&r#"exchange "third""#.to_owned()));
    // One takes the next with it.
    topology.confirm(&QueueDelete::new("q"));
    assert!(topology.shown().is_empty(), "{:?}", topology.shown());
}

#[test]
fn r4_passive_declarations_are_no_changes() {
    assert_eq!(QueueDeclare::passive("q").change(), None);
    assert_eq!(ExchangeDeclare::passive("e").change(), None);
    assert_eq!(QueuePurge::new("q").change(), None);
    assert!(QueueDeclare::new("q").change().is_some());
}

/// The broker cancels a consumer when its queue is gone. The report may be late.
#[test]
fn r4_a_late_cancel_does_not_forget_the_next_queue_of_that_name() {
    let mut topology = events_and_orders();
    topology.consumer_started(consumer(0), "orders");
    topology.consumer_cancelled(consumer(0));
    assert_eq!(topology.shown(), [r#"exchange "events""#]);

    topology.confirm(&QueueDeclare::new("orders"));
    topology.consumer_started(consumer(1), "orders");
    topology.confirm(&QueueDelete::new("orders"));
    topology.confirm(&QueueDeclare::new("orders").auto_delete());
    topology.consumer_started(consumer(2), "orders");
    topology.consumer_cancelled(consumer(1));
    topology.consumer_ended(consumer(1));
    assert_eq!(topology.shown(), [r#"exchange "events""#, r#"queue "orders""#]);
    topology.consumer_ended(consumer(2));
    assert_eq!(topology.shown(), [r#"exchange "events""#]);
}

#[test]
fn r5_what_names_a_renamed_queue_follows() {
    let mut topology = Topology::default();
    let declare = QueueDeclare::new("").exclusive().auto_delete();
    topology.declare_queue(&declare, "amq.gen-1");
    topology.confirm(&QueueDeclare::new("fixed"));
    topology.confirm(&QueueBind::new("amq.gen-1", "amq.topic", "a"));
    topology.confirm(&QueueBind::new("fixed", "amq.topic", "a"));
    topology.confirm(&QueueBind::new("amq.gen-1", "amq.topic", "b"));
    topology.consumer_started(consumer(0), "amq.gen-1");
    for (from, to) in [("amq.gen-1", "amq.gen-2"), ("amq.gen-2", "amq.gen-3")] {
        let steps = topology.steps(&Recovery::automatic());
        let queue = topology.declaration(steps[0]).unwrap();
        assert_eq!(queue.former_name(), Some(from));
        // It is declared with an empty name.
        assert_eq!(queue.request().change(), declare.change());
        topology.rename(from, to);
        // The steps that were collected before go on.
        let shown = steps.iter().map(|it| topology.declaration(*it).unwrap().entity().to_string());
        let binding = |queue, key| {
            format!("binding of queue {queue:?} to exchange \"amq.topic\" with routing key {key:?}")
        };
        let expected = [
            format!("queue {to:?}"),
            "queue \"fixed\"".to_owned(),
            binding(to, "a"),
            binding("fixed", "a"),
            binding(to, "b"),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }
    topology.confirm(&QueueUnbind::new(QueueBind::new("amq.gen-3", "amq.topic", "b")));
    topology.consumer_ended(consumer(0));
    assert_eq!(topology.shown().len(), 2);
}

#[test]
fn r5_a_new_name_may_be_one_that_is_known() {
    let mut topology = Topology::default();
    topology.declare_queue(&QueueDeclare::new(""), "amq.gen-1");
    topology.confirm(&QueueBind::new("amq.gen-1", "amq.topic", "a"));
    topology.confirm(&QueueDeclare::new("amq.gen-2"));
    topology.confirm(&QueueBind::new("amq.gen-2", "amq.topic", "a"));
    topology.rename("amq.gen-1", "amq.gen-2");
    topology.rename("unknown", "amq.gen-2");
    topology.rename("amq.gen-2", "");
    let binding =
        r#"binding of queue "amq.gen-2" to exchange "amq.topic" with routing key "a""#.to_owned();
    assert_eq!(topology.shown(), [r#"queue "amq.gen-2""#.to_owned(), binding]);
    topology.confirm(&QueueDelete::new("amq.gen-2"));
    assert!(topology.shown().is_empty());
}

/// An empty name means the queue that was declared last on the channel. With an empty routing key, that name is the
/// routing key (AMQP 0-9-1, 1.7.2.3).
#[test]
fn an_empty_name_is_the_last_queue_of_the_channel() {
    let mut topology = Topology::default();
    topology.declare_queue(&QueueDeclare::new(""), "amq.gen-1");
    let last = Some("amq.gen-1");
    let change = |request: &dyn Request| *request.change().unwrap();
    let (short, keyed) = (QueueBind::new("", "e", ""), QueueBind::new("", "e", "k"));
    topology.apply(change(&short), None, last);
    topology.apply(change(&keyed), None, last);
    // Without such a queue the broker refuses it.
    topology.apply(change(&QueueBind::new("", "e", "none")), None, None);
    topology.rename("amq.gen-1", "amq.gen-2");
    let binding = |key| Change::QueueBind(QueueBind::new("amq.gen-2", "e", key));
    let changes = |topology: &Topology| {
        topology.requests().into_iter().skip(1).map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(changes(&topology), [binding("amq.gen-2"), binding("k")]);
    let last = Some("amq.gen-2");
    topology.apply(change(&QueueUnbind::new(short)), None, last);
    assert_eq!(changes(&topology), [binding("k")]);
    topology.apply(change(&QueueDelete::new("")), None, last);
    assert!(topology.shown().is_empty());
}

/// RabbitMQ drops line ends from names.
#[test]
fn line_ends_make_no_other_name() {
    let mut topology = Topology::default();
    topology.confirm(&ExchangeDeclare::topic("e\r\n"));
    topology.declare_queue(&QueueDeclare::new("q\n"), "q");
    topology.confirm(&QueueBind::new("\nq", "e\n", "k\n"));
    assert_eq!(topology.shown().len(), 3);
    topology.confirm(&QueueUnbind::new(QueueBind::new("q", "e", "k\n")));
    topology.confirm(&QueueDelete::new("q\r"));
    topology.confirm(&ExchangeDelete::new("e"));
    assert!(topology.shown().is_empty());
}

#[test]
fn r6_a_failure_names_its_entity() {
    let text = ShortStr::new("PRECONDITION_FAILED - why").unwrap();
    let error = BrokerError::new(406, text, 0, 0);
    let entity = TopologyEntity::Queue { name: "or\"ders\n".into() };
    let failed = FailedEntity { entity, error: Error::Channel(ChannelCause::ByBroker(error)) };
    let text =
        r#"queue "or\"ders\n": channel closed: by the broker: 406 PRECONDITION_FAILED - why"#;
    assert_eq!(failed.to_string(), text);
}

/// What failed, or was deleted meanwhile, does not stop the other steps.
#[test]
fn r6_a_step_may_have_nothing_to_declare() {
    let mut topology = events_and_orders();
    let steps = topology.steps(&Recovery::automatic());
    topology.confirm(&QueueDelete::new("orders"));
    let left: Vec<_> = steps.iter().map(|it| topology.declaration(*it).is_some()).collect();
    assert_eq!(left, [true, false, false]);
    // What is declared later has a place of its own.
    topology.confirm(&QueueDeclare::new("other"));
    assert!(topology.declaration(steps[1]).is_none());
}

#[test]
fn the_policy_skips_names_and_their_bindings() {
    let mut topology = events_and_orders();
    topology.confirm(&ExchangeDeclare::topic("tmp.x"));
    topology.confirm(&ExchangeBind::new("events", "tmp.x", ""));
    topology.confirm(&ExchangeBind::new("tmp.x", "events", ""));
    topology.confirm(&QueueDeclare::new("tmp.q"));
    topology.confirm(&QueueBind::new("tmp.q", "events", ""));
    topology.confirm(&QueueBind::new("orders", "tmp.x", ""));
    let all = Recovery::automatic();
    let shown = |recovery: &Recovery| topology.shown_for(recovery);
    assert_eq!(shown(&all).len(), 9);
    assert!(shown(&all.clone().without_topology()).is_empty());
    let queues = all.clone().skip_queues_with_prefix("tmp.");
    assert_eq!(shown(&queues).len(), 7);
    assert!(!shown(&queues).iter().any(|it| it.contains("tmp.q")));
    let both = queues.skip_exchanges_with_prefix("tmp.");
    assert_eq!(shown(&both), events_and_orders().shown());
    assert_eq!(shown(&both.skip_exchanges_with_prefix("")), [r#"queue "orders""#]);
}

/// Declaring and deleting for ever. Each name has the word.
#[test]
fn churn_leaves_nothing() {
    let mut topology = Topology::default();
    for round in 0..1_000 {
        let [exchange, source, queue] =
            ["e", "s", "q"].map(|kind| format!("churn-{kind}-{}", round % 7));
        topology.confirm(&ExchangeDeclare::topic(&exchange));
        topology.confirm(&ExchangeDeclare::topic(&source).auto_delete());
        topology.confirm(&ExchangeBind::new(&exchange, &source, "churn-key"));
        topology.declare_queue(&QueueDeclare::new("").auto_delete(), &queue);
        topology.confirm(&QueueBind::new(&queue, &exchange, "churn-key").argument("churn", 1));
        topology.confirm(&QueueBind::new(&queue, "amq.topic", "churn-key"));
        topology.consumer_started(consumer(round), &queue);
        let renamed = format!("churn-renamed-{round}");
        topology.rename(&queue, &renamed);
        match round % 4 {
            0 => topology.consumer_ended(consumer(round)),
            1 => topology.consumer_cancelled(consumer(round)),
            2 => topology.confirm(&QueueDelete::new(&renamed)),
            _ => {
                topology.consumer_lost(consumer(round));
                topology.confirm(&QueueDelete::new(&renamed));
            }
        }
        topology.confirm(&ExchangeDelete::new(&exchange));
    }
    assert!(topology.shown().is_empty());
    let all = format!("{topology:?}");
    assert!(!all.contains("churn"), "{all}");
}

/// 1,000 queues with a binding to one exchange each, and 1,000 bindings of one queue.
#[test]
fn no_change_searches_through_the_record() {
    const COUNT: usize = 1_000;
    let queue = |index: usize| format!("queue-{index}");
    let mut topology = Topology::default();
    topology.confirm(&ExchangeDeclare::topic("events"));
    let fill = |topology: &mut Topology| {
        for index in 0..COUNT {
            topology.declare_queue(&QueueDeclare::new(""), &queue(index));
            topology.confirm(&QueueBind::new(queue(index), "events", "k"));
            topology.confirm(&QueueBind::new("one", "events", queue(index)));
        }
    };
    type Act = fn(&mut Topology, String);
    let acts: [Act; 3] = [
        |topology, name| topology.confirm(&QueueDelete::new(name)),
        |topology, name| {
            topology.confirm(&QueueUnbind::new(QueueBind::new(name.clone(), "events", "k")));
            topology.confirm(&QueueUnbind::new(QueueBind::new("one", "events", name)));
        },
        |topology, name| topology.rename(&name, &format!("new-{name}")),
    ];
    for act in acts {
        fill(&mut topology);
        STEPS.set(0);
        for index in 0..COUNT {
            act(&mut topology, queue(index));
        }
        // Each looks for a few bindings in an ordered map of at most 4,000.
        assert!(STEPS.get() < COUNT * 200, "{}", STEPS.get());
    }
    fill(&mut topology);
    STEPS.set(0);
    topology.confirm(&ExchangeDelete::new("events"));
    assert!(STEPS.get() < 4 * COUNT * 50, "{}", STEPS.get());
    assert!(!topology.shown().iter().any(|it| it.contains("binding")));
}

#[test]
fn arguments_are_equal_by_name_type_and_value() {
    let table = |value: FieldValue| FieldTable::from([("a", value)]);
    let mut topology = Topology::default();
    for arguments in [table(1.into()), table(FieldValue::I64(1)), table("1".into())] {
        let mut bind = QueueBind::new("q", "e", "k");
        bind.arguments = arguments;
        topology.confirm(&bind);
        topology.confirm(&bind);
    }
    assert_eq!(topology.shown().len(), 3);
}

proptest! {
    /// Whatever happens, it is the same as in a list of everything. R9 and R16: what is declared again depends on no
    /// channel, and declaring it again changes nothing.
    #[test]
    fn r9_r16_the_record_equals_the_list_and_its_own_replay(
        actions in proptest::collection::vec(any_action(), 0..80),
    ) {
        let (mut topology, mut model) = (Topology::default(), Model::default());
        for action in &actions {
            action.apply(&mut topology);
            model.apply(action);
            prop_assert_eq!(topology.requests(), model.requests(), "after {:?}", action);
        }
        let once = topology.replayed();
        prop_assert_eq!(once.requests(), topology.requests());
        prop_assert_eq!(once.replayed().requests(), topology.requests());
        // The same on the connection itself, on which it was declared before.
        let before = topology.requests();
        for (name, change) in &before {
            let declared = matches!(change, Change::QueueDeclare(_)).then(|| {
                name.trim_start_matches("queue ").trim_matches('"')
            });
            topology.apply(change.clone(), declared, None);
        }
        prop_assert_eq!(topology.requests(), before);
    }
}
