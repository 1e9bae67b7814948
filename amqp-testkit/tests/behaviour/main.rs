//! What brokers do by themselves, frame by frame: the model against RabbitMQ.
//!
//! Each case is a function over [`At`], which runs on both. Time passes by [`At::pass`]: the clock of the model stands
//! still otherwise, RabbitMQ's goes on. A case waits for what it expects, for as long as a slow machine needs.
#![allow(clippy::needless_pass_by_value, reason = "cases are read more easily without borrows")]

mod access;
mod confirms;
mod dead_letters;
mod declaring;
mod expiry;
mod limits;
mod quorum;
mod restarts;
mod streams;
mod timeouts;
mod wire;

use std::time::Duration;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use amqp_testkit::{ModelBroker, RabbitMq};

use wire::Wire;

/// The RabbitMQ that the cases share.
static RABBITMQ: LazyLock<RabbitMq> =
    LazyLock::new(|| RabbitMq::start().unwrap_or_else(|error| panic!("{error}")));

/// The broker that a case runs on.
pub(crate) enum At {
    Model(ModelBroker),
    RabbitMq,
}

impl At {
    pub(crate) fn model() -> Self {
        Self::Model(ModelBroker::start_with_stopped_clock().unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Model(model) => model.port(),
            Self::RabbitMq => RABBITMQ.port(),
        }
    }

    /// Connects, and opens channel 1.
    pub(crate) fn open(&self) -> Wire {
        Wire::open(self.port())
    }

    /// Lets at least this time pass. On the model it is exactly this time.
    pub(crate) fn pass(&self, time: Duration) {
        match self {
            Self::Model(model) => model.advance(time),
            Self::RabbitMq => std::thread::sleep(time),
        }
    }

    /// Adds a user with the password `secret`, and sets its permissions: configure, write, read.
    pub(crate) fn add_user(&self, user: &str, permissions: Option<[&str; 3]>) {
        match self {
            Self::Model(model) => {
                model.add_user(user, "secret");
                if let Some([configure, write, read]) = permissions {
                    model.set_permissions(user, configure, write, read).unwrap();
                }
            }
            Self::RabbitMq => {
                RABBITMQ.ctl(&["add_user", user, "secret"]).unwrap();
                if let Some([configure, write, read]) = permissions {
                    let set = ["set_permissions", "-p", "/", user, configure, write, read];
                    RABBITMQ.ctl(&set).unwrap();
                }
            }
        }
    }

    /// Sets what only RabbitMQ has, by an Erlang expression.
    pub(crate) fn eval(&self, expression: &str) {
        if matches!(self, Self::RabbitMq) {
            RABBITMQ.ctl(&["eval", expression]).unwrap();
        }
    }

    /// Returns the model, whose clock does not go on between two steps of a case.
    pub(crate) const fn exact(&self) -> Option<&ModelBroker> {
        match self {
            Self::Model(model) => Some(model),
            Self::RabbitMq => None,
        }
    }
}

/// A RabbitMQ that may be disturbed, by one case at a time. It is to be left as it was found.
pub(crate) fn fragile() -> MutexGuard<'static, RabbitMq> {
    static NODE: LazyLock<Mutex<RabbitMq>> =
        LazyLock::new(|| Mutex::new(RabbitMq::start().unwrap_or_else(|error| panic!("{error}"))));
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other case uses.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Turns each `fn name(at: &At)` into a test on the model and one on RabbitMQ.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod model {
            $(
                #[test]
                fn $name() {
                    super::$name(&crate::At::model());
                }
            )*
        }
        mod rabbitmq {
            $(
                #[test]
                fn $name() {
                    super::$name(&crate::At::RabbitMq);
                }
            )*
        }
    };
}

pub(crate) use on_both;
