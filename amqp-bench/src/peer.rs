//! What clients are measured against: a sink that counts what is published, and a source that floods
//! whoever consumes. Both check every frame, and are fast enough to be no one's limit.

mod channel;
mod conversation;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::socket::Socket;
use crate::tls::Server;
use conversation::Conversation;

/// What the source has for every consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deliveries {
    /// Bytes of each body.
    pub(crate) size: usize,
    pub(crate) count: u64,
}

/// What all connections did, and what one of them did wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Messages that arrived whole.
    pub(crate) published: u64,
    /// Bytes of their bodies.
    pub(crate) body_bytes: u64,
    /// Deliveries that were acknowledged.
    pub(crate) acked: u64,
    pub(crate) error: Option<String>,
}

/// A peer that serves on a port of 127.0.0.1 for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) uri: String,
    totals: Arc<Mutex<Totals>>,
    /// The thread that accepts does not end, and has no file to remove.
    _server: Option<Arc<Server>>,
}

impl Peer {
    pub(crate) fn serve(deliveries: Deliveries, tls: bool) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let server = if tls { Some(Arc::new(Server::new()?)) } else { None };
        let uri = match &server {
            None => format!("amqp://{address}"),
            Some(server) => {
                format!("amqps://{address}/%2f?cacertfile={}", server.authority_file().display())
            }
        };
        let totals = Arc::new(Mutex::new(Totals::default()));
        let of_all = Arc::clone(&totals);
        let serving = server.as_ref().map(Arc::downgrade);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (totals, server) = (Arc::clone(&of_all), serving.clone());
                thread::spawn(move || {
                    // An error is that of a client that has left, which is its own affair.
                    let socket = stream.set_nodelay(true).and_then(|()| match server {
                        None => Ok(Box::new(stream) as Box<dyn Socket>),
                        Some(server) => match server.upgrade() {
                            Some(server) => server.accept(stream),
                            None => Err(io::ErrorKind::NotConnected.into()),
                        },
                    });
                    if let Ok(socket) = socket {
                        converse(socket, deliveries, &totals);
                    }
                });
            }
        });
        Ok(Self { uri, totals, _server: server })
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a conversation ended early.
#[derive(Debug)]
enum Ended {
    /// The client left, which is its own affair.
    Left,
    /// The client sent what no client may.
    Wrong(String),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Left
    }
}

fn converse(socket: Box<dyn Socket>, deliveries: Deliveries, totals: &Mutex<Totals>) {
    if let Err(Ended::Wrong(error)) = Conversation::new(socket, deliveries, totals).run() {
        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.error.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests;
