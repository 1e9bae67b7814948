//! The process of the application.

use std::io;
use std::process::{Child, Command, ExitStatus};

use crate::TRANSACTIONAL;
use crate::worker::Mode;

/// A process that is killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts this program as the application.
    pub(crate) fn start(uri: &str, queue: &str, answers: &str, mode: Mode) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        if mode == Mode::Transactions {
            command.arg(TRANSACTIONAL);
        }
        Ok(Self(command.args(["--worker", uri, queue, answers]).spawn()?))
    }

    /// Kills the process (SIGKILL).
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// Returns how the process has ended, `None` if it runs.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Asks the process to end (SIGTERM), and waits for it.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.0.id())).status()?;
        self.0.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.kill();
    }
}
