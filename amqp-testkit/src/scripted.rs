//! A broker that says what a test tells it to.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use amqp_proto::method::connection;

use crate::raw_connection::RawConnection;

/// A peer on a free port of 127.0.0.1 that plays one conversation, byte for byte as a script says, on
/// a thread of its own.
///
/// ```
/// use amqp_testkit::Scripted;
/// let peer = Scripted::open(|mut wire| {
///     // The handshake is done; what comes next is up to the script.
///     wire.expect("connection.Close");
///     wire.send(0, &amqp_proto::method::connection::CloseOk::default());
/// })?;
/// # amqp_testkit::RawConnection::connect(peer.port());
/// println!("connect a client to {}", peer.uri());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Scripted {
    port: u16,
    playing: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Plays `script` with the first client that connects, from its first byte on.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub fn start(script: impl FnOnce(RawConnection) + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let playing = thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                script(RawConnection::new(stream));
            }
        });
        Ok(Self { port, playing: Some(playing) })
    }

    /// Plays `script` after a handshake that offers 9 channels, frames of 131,072 bytes and no
    /// heartbeats.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub fn open(script: impl FnOnce(RawConnection) + Send + 'static) -> io::Result<Self> {
        Self::start(|mut wire| {
            wire.accept(connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
            script(wire);
        })
    }

    /// The port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The peer's URI.
    pub fn uri(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// Waits until the script has ended.
    ///
    /// # Panics
    /// If the script did.
    pub fn join(mut self) {
        if let Some(playing) = self.playing.take()
            && let Err(panic) = playing.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Scripted {
    /// The script is let go: it ends when its client does.
    fn drop(&mut self) {
        if self.playing.as_ref().is_some_and(|playing| !playing.is_finished()) {
            // One that still waits for a client gets one that says nothing.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        }
    }
}
