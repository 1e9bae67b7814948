//! A peer that plays the script of a test, to show how a client handles a broker that misbehaves.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use amqp_proto::method::connection;

use crate::raw_connection::RawConnection;

/// A peer on a free port of 127.0.0.1 that plays one conversation by a script, frame by frame or byte by byte, on a thread
/// of its own.
///
/// ```
/// use amqp_testkit::Scripted;
/// let peer = Scripted::open(|mut wire| {
///     // The handshake is done. The script decides what comes next.
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
    /// Starts a peer that plays `script` with the first client that connects, from the first byte of the connection on.
    ///
    /// # Errors
    /// If it cannot listen on a port.
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

    /// Starts a peer that plays `script` after a handshake that offers 9 channels, frames of 131,072 bytes and no
    /// heartbeats.
    ///
    /// # Errors
    /// If it cannot listen on a port.
    pub fn open(script: impl FnOnce(RawConnection) + Send + 'static) -> io::Result<Self> {
        Self::start(|mut wire| {
            wire.accept(connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
            script(wire);
        })
    }

    /// Returns the port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the peer's URI.
    pub fn uri(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// Waits until the script has ended.
    ///
    /// # Panics
    /// If the script panicked.
    pub fn join(mut self) {
        if let Some(playing) = self.playing.take()
            && let Err(panic) = playing.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Scripted {
    /// Does not wait for the script. It ends when its client disconnects.
    fn drop(&mut self) {
        if self.playing.as_ref().is_some_and(|playing| !playing.is_finished()) {
            // If the script has not begun, this is its client. It sends nothing and disconnects.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        }
    }
}
