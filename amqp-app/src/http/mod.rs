//! Health over HTTP, for the probes of an orchestrator (feature `http`). One thread accepts, and each connection has a thread
//! for its one request. [`answer`] is pure: what a request gets.

mod answer;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::answer::Answer;
use crate::app::health::Health;
use crate::limits::{
    HTTP_ACCEPT_PAUSE, HTTP_CONNECTIONS, HTTP_HEAD_BYTES, HTTP_IGNORED_BYTES, HTTP_TIMEOUT,
};
use crate::sync::lock;

impl Health {
    /// Answers probes over HTTP at this address, on threads of its own, until the process ends or
    /// [`HealthServer::stop`] is called.
    ///
    /// | request | answer |
    /// | --- | --- |
    /// | `GET /live` | 200 if the application [is live](Self::is_live), otherwise 503 |
    /// | `GET /ready` | 200 if it [is ready](Self::is_ready), otherwise 503 with the reasons as text |
    /// | `GET /metrics` | what the function of [`set_metrics`](Self::set_metrics) returns, 404 without one |
    ///
    /// The server has no TLS and no authentication, so it is for addresses that only the orchestrator reaches. It is bounded:
    /// 16 connections at a time, 8 KiB and 5 s for a request, one request for each connection.
    ///
    /// ```no_run
    /// # fn example<P: amqp_app::Platform>(app: amqp_app::App<P>) -> std::io::Result<()> {
    /// app.health().serve("127.0.0.1:8080")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of the operating system if it cannot listen there.
    pub fn serve(&self, address: impl ToSocketAddrs) -> io::Result<HealthServer> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            health: self.clone(),
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new().name("amqp-app-health".into());
        let thread = thread.spawn(move || accepting.accept(&listener))?;
        Ok(HealthServer { address, shared, thread: Mutex::new(Some(thread)) })
    }
}

/// A server of [`Health::serve`]. It runs on when this is dropped.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    health: Health,
    stopping: AtomicBool,
    /// Connections that are being answered.
    open: AtomicUsize,
}

impl HealthServer {
    /// Returns the address at which it listens, with the port that the operating system has chosen for port 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, and returns when the port is free. Requests that have begun are answered.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let Some(thread) = lock(&self.thread).take() else { return };
        // A connection ends the wait for one. Without it, the next one does.
        let reached = TcpStream::connect_timeout(&reachable(self.address), HTTP_TIMEOUT);
        if reached.is_ok() {
            let _ = thread.join();
        }
    }
}

/// The address at which this machine reaches a listener of all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.answer_beside(stream),
                // Too many open files, for example.
                Err(_) => thread::sleep(HTTP_ACCEPT_PAUSE),
            }
        }
    }

    /// Answers on a thread. Waits while there are too many.
    fn answer_beside(self: &Arc<Self>, stream: TcpStream) {
        while self.open.load(Ordering::Acquire) >= HTTP_CONNECTIONS {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(HTTP_ACCEPT_PAUSE);
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(Arc::clone(self));
        let thread = thread::Builder::new().name("amqp-app-probe".into());
        // If the system has no more threads, the connection is dropped, and the probe comes again.
        let _ = thread.spawn(move || {
            // A peer that has gone needs no answer.
            let _ = slot.0.answer(stream);
        });
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + HTTP_TIMEOUT;
        let answer = read_head(&mut stream, deadline)?
            .map_or_else(|| Answer::of_status(431), |head| answer::answer(&head, &self.health));
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(&answer.into_bytes())?;
        // A close with unread input would make the peer lose the answer.
        stream.shutdown(Shutdown::Write)?;
        let (mut ignored, mut buffer) = (0, [0; 1_024]);
        while ignored < HTTP_IGNORED_BYTES {
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut buffer)? {
                0 => break,
                read => ignored += read,
            }
        }
        Ok(())
    }
}

/// A connection that is being answered.
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reads until the empty line behind the headers, or the end of the input. `None` if the head is too large.
fn read_head(stream: &mut TcpStream, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1_024]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..read]);
        if read == 0 || answer::is_whole(&head) {
            return Ok(Some(head));
        }
        if head.len() >= HTTP_HEAD_BYTES {
            return Ok(None);
        }
    }
}

/// The time until a deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
