//! Handlers that block, and still run when their timeout has expired. They cannot be interrupted. So they are counted, and
//! their worker calls no other before they have returned: the threads stay bounded, and no message is handled by two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use event_listener::Event;

/// The calls of a worker that run although nothing waits for their results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    count: AtomicUsize,
    returned: Event,
}

/// The states of a call: its result is awaited, or is not, or it has returned.
const AWAITED: u8 = 0;
const ABANDONED: u8 = 1;
const RETURNED: u8 = 2;

#[derive(Debug)]
struct Call {
    state: AtomicU8,
    late: Late,
}

/// The side of a call that waits for its result.
#[derive(Debug)]
pub(crate) struct Awaiting(Arc<Call>);

/// The side of a call that runs it.
#[derive(Debug)]
pub(crate) struct Running(Arc<Call>);

impl Late {
    /// Begins a call. It is late if the first side is dropped before the second.
    pub(crate) fn begin(&self) -> (Awaiting, Running) {
        let call = Arc::new(Call { state: AtomicU8::new(AWAITED), late: self.clone() });
        (Awaiting(Arc::clone(&call)), Running(call))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Waits until no call is late.
    pub(crate) async fn none(&self) {
        while self.count() > 0 {
            let returned = self.0.returned.listen();
            if self.count() > 0 {
                returned.await;
            }
        }
    }

    fn one_less(&self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.returned.notify(usize::MAX);
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let Call { state, late } = &*self.0;
        // Counted first, so that a call that returns at the same time is not subtracted before it is added.
        late.0.count.fetch_add(1, Ordering::SeqCst);
        if state.compare_exchange(AWAITED, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            late.one_less();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Call { state, late } = &*self.0;
        if state.swap(RETURNED, Ordering::SeqCst) == ABANDONED {
            late.one_less();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::Late;

    #[test]
    fn a_call_is_late_from_its_abandonment_until_it_returns() {
        let late = Late::default();
        let (awaiting, running) = late.begin();
        drop(running);
        drop(awaiting);
        assert_eq!(late.count(), 0, "it has returned in time");
        let (awaiting, running) = late.begin();
        drop(awaiting);
        assert_eq!(late.count(), 1);
        let mut none = pin!(late.none());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(none.as_mut().poll(&mut cx).is_pending());
        drop(running);
        assert_eq!(late.count(), 0);
        assert!(none.as_mut().poll(&mut cx).is_ready());
    }
}
