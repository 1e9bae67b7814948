//! Shutdown by signals of the process. A thread waits for them, so they work on every runtime.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::engine::{NOW, STOPPING};
use super::shutdown::Shutdown;

impl Shutdown {
    /// Creates a shutdown that begins at SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1. A second signal ends the time of messages in
    /// work at once. When the application has ended, signals do again what they do by default.
    ///
    /// A [`Report`](crate::Report) that `main` returns makes the exit code 1 after SIGUSR1, and 0 after the others.
    ///
    /// If the system refuses to report signals, running the application returns
    /// [`Error::Signals`](crate::Error::Signals).
    pub fn on_signals() -> Self {
        let (_, mut shutdown) = Self::manual();
        if let Err(error) = shutdown.listen() {
            shutdown.error = Some(error);
        }
        shutdown
    }

    fn listen(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
        let (stop, first) = (self.stop.clone(), Arc::clone(&self.signal));
        let listen = move || {
            for signal in signals.forever() {
                match stop.get() {
                    NOW => drop(emulate_default_handler(signal)),
                    STOPPING => stop.raise(NOW),
                    _ => {
                        first.store(signal, Ordering::Release);
                        stop.raise(STOPPING);
                    }
                }
            }
        };
        thread::Builder::new().name("amqp-app-signals".into()).spawn(listen).map(drop)
    }
}
