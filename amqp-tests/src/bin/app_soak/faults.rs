//! The faults, and the choice of them.

use std::time::Duration;

use amqp_testkit::{Direction, Fault};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection(Loss),
    /// The process is killed at any moment, and started again.
    Process,
    /// The process is killed while the frame of a method is under way, and started again.
    ProcessBefore(Direction, &'static str),
    Node,
}

/// How connections are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// At any moment.
    Now(Direction, Fault),
    /// In silence: nothing passes, and neither side sees an end.
    HalfOpen,
    /// At any moment, and the next connections after this many bytes.
    Again(Direction, u64),
    /// Before the frame of a method.
    Before(Direction, &'static str, usize, Fault),
}

/// The steps in which connections are lost that a handled message goes through.
const POINTS: [(Direction, &str, &str); 4] = [
    (Direction::ToClient, "basic.deliver", "connection lost before a delivery"),
    (Direction::ToBroker, "basic.publish", "connection lost before a publish"),
    (Direction::ToClient, "basic.ack", "connection lost before a confirm"),
    (Direction::ToBroker, "basic.ack", "connection lost before an ack"),
];
/// What is under way when the process of an application is killed.
const AT_KILLS: [(Direction, &str, &str); 4] = [
    (Direction::ToBroker, "basic.ack", "process killed before an ack"),
    (Direction::ToBroker, "basic.publish", "process killed before a publish"),
    (Direction::ToBroker, "tx.commit", "process killed before a commit"),
    (Direction::ToClient, "tx.commit-ok", "process killed before a commit-ok"),
];
/// The largest number of frames of a method that pass before the fault.
const FRAMES: usize = 30;
/// Enough for the handshake, the recovery and some messages.
const BYTES: u64 = 20_000;

/// Chooses faults: of six, three are of connections, two of the process, and one of the node.
pub(crate) fn choose(random: &mut fastrand::Rng, count: usize) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = (0..count)
        .map(|number| match number % 6 {
            0 => Kind::Node,
            1 => Kind::Process,
            2 => Kind::ProcessBefore(Direction::ToBroker, "basic.ack"),
            _ => Kind::Connection(loss(random)),
        })
        .collect();
    random.shuffle(&mut kinds);
    kinds
}

/// Chooses kills of the process: of five, one at any moment, and four at the steps of a transaction.
pub(crate) fn choose_kills(random: &mut fastrand::Rng, count: usize) -> Vec<Kind> {
    let kinds = (0..count).map(|number| match AT_KILLS.get(number % 5) {
        Some((direction, method, _)) => Kind::ProcessBefore(*direction, method),
        None => Kind::Process,
    });
    let mut kinds: Vec<Kind> = kinds.collect();
    random.shuffle(&mut kinds);
    kinds
}

fn loss(random: &mut fastrand::Rng) -> Loss {
    let direction = if random.bool() { Direction::ToBroker } else { Direction::ToClient };
    let fault = if random.bool() { Fault::Cut } else { Fault::Reset };
    match random.usize(0..9) {
        0 => Loss::Now(direction, Fault::Cut),
        1 => Loss::Now(direction, Fault::Reset),
        2 => Loss::Now(direction, Fault::HalfClose),
        3 => Loss::HalfOpen,
        4 => Loss::Again(direction, random.u64(0..BYTES)),
        point => {
            let (direction, method, _) = POINTS[point - 5];
            Loss::Before(direction, method, random.usize(1..=FRAMES), fault)
        }
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connection(Loss::Now(_, Fault::HalfClose)) => "connection half closed",
            Self::Connection(Loss::Now(_, Fault::Reset)) => "connection reset",
            Self::Connection(Loss::Now(..)) => "connection cut",
            Self::Connection(Loss::HalfOpen) => "connection half open",
            Self::Connection(Loss::Again(..)) => "connection cut while recovering",
            Self::Connection(Loss::Before(direction, method, ..)) => {
                let of = |it: &&(Direction, &str, &str)| (it.0, it.1) == (direction, method);
                POINTS.iter().find(of).map_or(method, |(.., name)| name)
            }
            Self::Process => "process killed",
            Self::ProcessBefore(direction, method) => {
                let of = |it: &&(Direction, &str, &str)| (it.0, it.1) == (direction, method);
                AT_KILLS.iter().find(of).map_or(method, |(.., name)| name)
            }
            Self::Node => "node killed",
        }
    }
}

/// A short time that is up to chance.
pub(crate) fn moment(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(random.u64(0..300))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, choose, choose_kills};

    #[test]
    fn a_seed_chooses_the_same_faults_of_all_kinds() {
        let chosen = |seed| choose(&mut fastrand::Rng::with_seed(seed), 12);
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        let count = |is: fn(&Kind) -> bool| chosen(1).iter().filter(|it| is(it)).count();
        assert_eq!(count(|it| matches!(it, Kind::Connection(_))), 6);
        assert_eq!(count(|it| matches!(it, Kind::Process | Kind::ProcessBefore(..))), 4);
        assert_eq!(count(|it| *it == Kind::Node), 2);
        let names =
            |seed| choose_kills(&mut fastrand::Rng::with_seed(seed), 5).into_iter().map(Kind::name);
        assert_eq!(names(1).collect::<BTreeSet<_>>().len(), 5);
    }
}
