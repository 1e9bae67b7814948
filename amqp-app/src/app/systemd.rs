//! What systemd hears of an application (feature `systemd`, on Unix).

#[cfg(all(unix, feature = "systemd"))]
pub(crate) use self::notifying::Systemd;
#[cfg(not(all(unix, feature = "systemd")))]
pub(crate) use self::silent::Systemd;

#[cfg(all(unix, feature = "systemd"))]
mod notifying {
    use std::pin::pin;

    use sd_notify::NotifyState;

    use crate::app::App;
    use crate::app::engine::{Engine, NOW};
    use crate::limits::WATCHDOG_PAUSE;
    use crate::sync::{Either, race};
    use crate::trace;

    /// Whether an application notifies systemd.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Systemd(bool);

    impl<P, S> App<P, S> {
        /// Notifies systemd, for a unit with `Type=notify`: the service is ready when every source consumes and the functions of
        /// [`on_started`](Self::on_started) have returned, and it is stopping when a shutdown begins. So units that come after
        /// it are started in time.
        ///
        /// If the unit has `WatchdogSec=`, systemd hears of the application twice in that time, from a task of the runtime. A
        /// runtime that is stuck is silent, and systemd restarts the service. On threads the task is a thread of its own.
        ///
        /// Without systemd (`NOTIFY_SOCKET`) it has no effect.
        pub fn notify_systemd(mut self) -> Self {
            self.systemd = Systemd(true);
            self
        }
    }

    impl Systemd {
        pub(crate) const fn off() -> Self {
            Self(false)
        }

        /// Every source consumes.
        pub(crate) fn ready(self, engine: &Engine) {
            if !self.0 || engine.is_stopping() {
                return;
            }
            notify(NotifyState::Ready);
            let Some(time) = sd_notify::watchdog_enabled() else { return };
            let pause = (time / 2).max(WATCHDOG_PAUSE);
            let (runner, stop) = (engine.runner.clone(), engine.stop.clone());
            engine.runner.spawn(async move {
                loop {
                    notify(NotifyState::Watchdog);
                    let mut sleep = pin!(runner.sleep(pause));
                    let ended = race(&mut sleep, &mut stop.reached(NOW)).await;
                    if let Either::Second(()) = ended {
                        return;
                    }
                }
            });
        }

        /// A shutdown has begun.
        pub(crate) fn stopping(self) {
            if self.0 {
                notify(NotifyState::Stopping);
            }
        }
    }

    fn notify(state: NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            trace::not_notified(&error);
        }
    }
}

#[cfg(not(all(unix, feature = "systemd")))]
mod silent {
    use crate::app::engine::Engine;

    /// Takes the place of notifications.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Systemd;

    impl Systemd {
        pub(crate) const fn off() -> Self {
            Self
        }

        pub(crate) const fn ready(self, _: &Engine) {}

        pub(crate) const fn stopping(self) {}
    }
}
