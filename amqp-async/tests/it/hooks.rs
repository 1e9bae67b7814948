//! What the application runs when a connection opens, is lost, is blocked or closes.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use amqp_async::core::errors::ConnectFailure;
use amqp_async::core::proto::method::{channel, connection};
use amqp_async::core::{CloseCause, ConnectError, Error};
use amqp_async::futures::Connecting;
use amqp_async::{Connection, Hooks, Plugins};

use crate::played::{Peer, Task};

/// What was called, in its order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn note(&self, call: impl Into<String>) {
        self.0.lock().unwrap().push(call.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Notes that it is dropped.
struct Dropped(Calls);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

/// A connection whose handshake is done.
fn greeted(hooks: Hooks) -> (Peer, Connecting) {
    let (mut peer, connecting) = Peer::dialling(Plugins { hooks, ..Plugins::default() });
    peer.run();
    peer.greets(0);
    (peer, connecting)
}

fn hook_error(error: &ConnectError) -> String {
    let ConnectError::Failed { attempts } = error else { panic!("{error:?}") };
    let ConnectFailure::Hook(error) = &attempts[0].failure else { panic!("{error:?}") };
    error.to_string()
}

#[test]
fn na_5_hooks_set_up_each_connection_in_turn() {
    let calls = Calls::default();
    let mut hooks = Hooks::new();
    let first = calls.clone();
    hooks.on_connect(move |connection: Connection| {
        let calls = first.clone();
        async move {
            assert!(connection.is_open());
            let channel = connection.open_channel().await?;
            calls.note(format!("first on {:?}", channel.number()));
            Ok::<_, Error>(())
        }
    });
    let second = calls.clone();
    hooks.on_connect(move |_| {
        second.note("second");
        async { Ok::<_, Error>(()) }
    });
    let (mut peer, mut connecting) = greeted(hooks);
    assert!(peer.poll(&mut connecting).is_pending() && calls.take().is_empty());
    peer.sends(1, &channel::OpenOk::default());
    peer.run();
    let connection = peer.resolves(connecting).unwrap();
    assert_eq!(calls.take(), ["first on Some(1)", "second"]);

    // The first channel of the hook is closed when its handle is dropped.
    peer.sends(1, &channel::CloseOk::default());
    let channel = peer.open_channel_on(&connection, 2);
    peer.hangs_up();
    peer.is_dialled_again();
    assert!(!connection.is_open() && !channel.is_open());
    peer.sends(1, &channel::OpenOk::default());
    peer.run();
    assert_eq!(calls.take(), ["first on Some(1)", "second"]);
    peer.sends(1, &channel::CloseOk::default());
    peer.sends(2, &channel::OpenOk::default());
    peer.run();
    assert!(connection.is_open() && channel.is_open());
}

#[test]
fn na_5_a_hook_that_fails_or_panics_fails_the_attempt() {
    let mut hooks = Hooks::new();
    hooks.on_connect(|_| async { Err("no such exchange") });
    let (peer, connecting) = greeted(hooks);
    assert_eq!(hook_error(&peer.resolves(connecting).unwrap_err()), "no such exchange");

    for polled in [false, true] {
        let mut hooks = Hooks::new();
        hooks.on_connect(move |_| {
            assert!(polled, "expected by this test");
            async move { if polled { panic!("expected by this test") } else { Ok::<_, Error>(()) } }
        });
        let (peer, connecting) = greeted(hooks);
        assert_eq!(hook_error(&peer.resolves(connecting).unwrap_err()), "a hook panicked");
    }
}

/// A runtime that ends drops its tasks.
#[test]
fn na_5_a_hook_whose_task_is_dropped_fails_the_attempt() {
    let mut hooks = Hooks::new();
    hooks.on_connect(|_| std::future::pending::<Result<(), Error>>());
    let (mut peer, connecting) = greeted(hooks);
    let tasks: Vec<Task> = std::mem::take(&mut peer.state().tasks);
    assert_eq!(tasks.len(), 1);
    drop(tasks);
    peer.run();
    assert_eq!(hook_error(&peer.resolves(connecting).unwrap_err()), "a hook was dropped");
}

#[test]
fn na_5_a_hook_is_dropped_with_its_transport_and_at_its_timeout() {
    let calls = Calls::default();
    let mut hooks = Hooks::new();
    let hook = calls.clone();
    let runs = Mutex::new(0);
    hooks.on_connect(move |_| {
        let calls = hook.clone();
        let mut runs = runs.lock().unwrap();
        *runs += 1;
        let hangs = *runs > 1;
        async move {
            let _dropped = Dropped(calls);
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>(())
        }
    });
    let (mut peer, connecting) = greeted(hooks);
    let connection = peer.resolves(connecting).unwrap();
    assert_eq!(calls.take(), ["dropped"]);
    peer.hangs_up();
    peer.is_dialled_again();
    assert!(calls.take().is_empty());
    peer.hangs_up();
    assert_eq!(calls.take(), ["dropped"]);
    peer.is_dialled_again();
    peer.time_passes(Duration::from_secs(30));
    peer.run();
    assert_eq!(calls.take(), ["dropped"]);
    // The driver ends with its runtime.
    peer.is_dialled_again();
    assert!(calls.take().is_empty());
    peer.drop_driver();
    peer.run();
    assert_eq!(calls.take(), ["dropped"]);
    assert_eq!(connection.close_cause(), Some(CloseCause::DriverGone));
}

/// What a hook keeps of its connection keeps nothing open, and is of no use on the next transport.
#[test]
fn na_5_the_connection_of_a_hook_ends_with_its_transport() {
    let kept = Arc::<Mutex<Vec<Connection>>>::default();
    let mut hooks = Hooks::new();
    let hook = Arc::clone(&kept);
    hooks.on_connect(move |connection| {
        hook.lock().unwrap().push(connection);
        async { Ok::<_, Error>(()) }
    });
    let (mut peer, connecting) = greeted(hooks);
    let connection = peer.resolves(connecting).unwrap();
    let first = kept.lock().unwrap()[0].clone();
    let channel = peer.open_channel_on(&first, 1);
    peer.hangs_up();
    assert!(channel.close_cause().is_some() && !first.is_open());
    peer.is_dialled_again();
    assert!(connection.is_open() && !first.is_open());
    let error = peer.resolves(first.open_channel()).unwrap_err();
    assert!(matches!(error, Error::ConnectionLost(CloseCause::Transport(_))), "{error:?}");
    let second = kept.lock().unwrap()[1].clone();
    assert!(second.is_open());
    drop(connection);
    peer.run();
    peer.sends(0, &connection::CloseOk::default());
    peer.run();
    assert_eq!(second.close_cause(), Some(CloseCause::ByClient));
}

#[test]
fn na_5_a_hook_may_close_its_connection() {
    let mut hooks = Hooks::new();
    let calls = Calls::default();
    let hook = calls.clone();
    hooks.on_connect(move |connection| {
        let calls = hook.clone();
        async move {
            calls.note(connection.close().await.to_string());
            Ok::<_, Error>(())
        }
    });
    let (mut peer, mut connecting) = greeted(hooks);
    assert!(peer.poll(&mut connecting).is_pending());
    peer.sends(0, &connection::CloseOk::default());
    peer.run();
    assert_eq!(peer.resolves(connecting).unwrap_err(), ConnectError::Aborted);
}

/// The function runs without the lock: it may use the connection.
#[test]
fn pk_91_a_function_decides_which_losses_are_recovered() {
    for panics in [false, true] {
        let (calls, kept) = (Calls::default(), Arc::<OnceLock<Connection>>::default());
        let (asked, used) = (calls.clone(), Arc::clone(&kept));
        let mut hooks = Hooks::new();
        hooks.recover_if(move |cause| {
            asked.note(format!("open: {:?}", used.get().map(Connection::is_open)));
            let closed = matches!(cause, CloseCause::ByBroker(_));
            assert!(!closed || !panics, "expected by this test");
            !closed
        });
        let (mut peer, connecting) = greeted(hooks);
        let connection = peer.resolves(connecting).unwrap();
        assert!(kept.set(connection.clone()).is_ok());
        peer.hangs_up();
        peer.is_dialled_again();
        assert!(connection.is_open());
        assert_eq!(calls.take(), ["open: Some(false)"]);
        peer.sends(0, &connection::Close { reply_code: 320, ..Default::default() });
        peer.run();
        assert_eq!(calls.take(), ["open: Some(false)"]);
        let cause = connection.close_cause();
        assert!(matches!(cause, Some(CloseCause::ByBroker(_))), "{cause:?}");
    }
}

/// All callbacks, which note their calls; and one before them that panics.
fn callbacks(calls: &Calls) -> Hooks {
    let mut hooks = Hooks::new();
    hooks.on_error(|_, _| panic!("expected by this test"));
    let noting = calls.clone();
    hooks.on_error(move |connection, cause| {
        noting.note(format!("error, open: {}: {cause}", connection.is_open()));
    });
    let noting = calls.clone();
    hooks.on_blocked(move |_, reason| noting.note(format!("blocked: {reason}")));
    let noting = calls.clone();
    hooks.on_unblocked(move |_| noting.note("unblocked"));
    let noting = calls.clone();
    hooks.on_close(move |_, cause| noting.note(format!("closed: {cause}")));
    hooks
}

#[test]
fn na_6_callbacks_hear_of_losses_and_of_the_end() {
    let calls = Calls::default();
    let (mut peer, connecting) = greeted(callbacks(&calls));
    let connection = peer.resolves(connecting).unwrap();
    let reason = amqp_async::core::proto::ShortStr::new("low on memory").unwrap();
    peer.sends(0, &connection::Blocked { reason });
    peer.sends(0, &connection::Unblocked::default());
    peer.run();
    assert_eq!(calls.take(), ["blocked: low on memory", "unblocked"]);
    peer.hangs_up();
    let lost = connection.events();
    drop(lost);
    let called = calls.take();
    assert!(called.len() == 1 && called[0].starts_with("error, open: false: "), "{called:?}");
    peer.is_dialled_again();
    assert!(calls.take().is_empty());
    let mut closing = connection.close();
    assert!(peer.poll(&mut closing).is_pending());
    peer.run();
    peer.sends(0, &connection::CloseOk::default());
    peer.run();
    let closed = calls.take();
    assert!(closed.len() == 1 && closed[0].starts_with("closed: "), "{closed:?}");
    assert!(peer.state().tasks.is_empty(), "the task has ended");
}

#[test]
fn na_6_a_connection_that_never_opened_calls_nothing() {
    let calls = Calls::default();
    let hooks = callbacks(&calls);
    let (mut peer, connecting) = Peer::dialling(Plugins { hooks, ..Plugins::default() });
    peer.run();
    peer.hangs_up();
    peer.resolves(connecting).unwrap_err();
    assert_eq!(calls.take(), [""; 0]);
    assert!(peer.state().tasks.is_empty());
}
