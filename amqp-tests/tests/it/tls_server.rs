//! A server that speaks TLS and passes what it decrypts on to a broker.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use crate::certificates::{Identity, trusted, uri};

/// What a server presents and demands.
#[derive(Debug)]
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    decrypted: AtomicUsize,
    resumed: AtomicUsize,
    closed: AtomicBool,
}

impl TlsServer {
    /// A server whose certificate is trusted, in front of the broker on this port.
    pub(crate) fn trusted(broker: u16) -> Self {
        Self::start(config(&trusted(), &[&TLS12, &TLS13], None), broker)
    }

    pub(crate) fn uri(&self) -> String {
        uri(&format!("127.0.0.1:{}", self.port))
    }

    /// Passes the plaintext of each connection on to a port.
    pub(crate) fn start(config: ServerConfig, broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::new(Counts::default());
        let (config, counted) = (Arc::new(config), Arc::clone(&counts));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if counted.closed.load(Ordering::SeqCst) {
                    break;
                }
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let counts = Arc::clone(&counted);
                thread::spawn(move || Passing::new(session, client, broker).run(&counts));
            }
        });
        Self { port, counts }
    }

    /// How many bytes of plaintext clients have sent.
    pub(crate) fn decrypted(&self) -> usize {
        self.counts.decrypted.load(Ordering::SeqCst)
    }

    /// How many sessions of TLS were resumed.
    pub(crate) fn resumed(&self) -> usize {
        self.counts.resumed.load(Ordering::SeqCst)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.counts.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The configuration of a server with this certificate.
pub(crate) fn config(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    client_authority: Option<&str>,
) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match client_authority {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    builder.with_single_cert(chain, key).unwrap()
}

/// One connection: ciphertext on one side, plaintext on the other.
struct Passing {
    session: ServerConnection,
    client: TcpStream,
    broker: TcpStream,
    for_broker: Vec<u8>,
    for_client: Vec<u8>,
    /// The kind of its handshake is counted.
    counted: bool,
}

/// How much waits for either side.
const PASSED_BYTES_MAX: usize = 64 * 1024;

impl Passing {
    fn new(session: ServerConnection, client: TcpStream, broker: u16) -> Self {
        let broker = TcpStream::connect(("127.0.0.1", broker)).unwrap();
        for socket in [&client, &broker] {
            socket.set_nonblocking(true).unwrap();
        }
        Self {
            session,
            client,
            broker,
            for_broker: Vec::new(),
            for_client: Vec::new(),
            counted: false,
        }
    }

    /// Until either side ends.
    fn run(mut self, counts: &Counts) {
        loop {
            match self.step(counts) {
                Ok(true) => {}
                Ok(false) => thread::sleep(Duration::from_millis(1)),
                Err(_) => return self.end(),
            }
        }
    }

    /// Sends the alert or the farewell, and leaves the closing of the socket to the client.
    fn end(self) {
        let Self { mut session, mut client, broker, .. } = self;
        drop(broker);
        let _ = client.set_nonblocking(false);
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            let _ = set(&client, Some(Duration::from_secs(60)));
        }
        session.send_close_notify();
        while session.wants_write() && session.write_tls(&mut client).is_ok() {}
        while client.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }

    /// Whether there was something to do.
    fn step(&mut self, counts: &Counts) -> io::Result<bool> {
        let mut progress = false;
        if self.session.wants_write() {
            progress |= moved(self.session.write_tls(&mut self.client))?;
        }
        if self.for_broker.len() < PASSED_BYTES_MAX {
            let mut buffer = [0; 16 * 1024];
            match self.session.reader().read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    counts.decrypted.fetch_add(count, Ordering::SeqCst);
                    if !self.counted {
                        let kind = self.session.handshake_kind();
                        let resumed = usize::from(kind == Some(HandshakeKind::Resumed));
                        counts.resumed.fetch_add(resumed, Ordering::SeqCst);
                        self.counted = true;
                    }
                    self.for_broker.extend_from_slice(&buffer[..count]);
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // It wants none while it holds plaintext.
            if self.session.wants_read() {
                match self.session.read_tls(&mut self.client) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => progress |= moved(read)?,
                }
                self.session.process_new_packets().map_err(io::Error::other)?;
            }
        }
        if !self.for_broker.is_empty() {
            let written = self.broker.write(&self.for_broker);
            progress |= drained(&mut self.for_broker, written)?;
        }
        if self.for_client.len() < PASSED_BYTES_MAX && !self.session.is_handshaking() {
            let mut buffer = [0; 16 * 1024];
            match self.broker.read(&mut buffer) {
                Ok(0) if self.for_client.is_empty() && !self.session.wants_write() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count) => {
                    self.for_client.extend_from_slice(&buffer[..count]);
                    progress |= count > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !self.for_client.is_empty() {
            let written = self.session.writer().write(&self.for_client);
            progress |= drained(&mut self.for_client, written)?;
        }
        Ok(progress)
    }
}

fn moved(result: io::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn drained(buffer: &mut Vec<u8>, written: io::Result<usize>) -> io::Result<bool> {
    let count = match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        written => written?,
    };
    buffer.drain(..count);
    Ok(count > 0)
}
