//! Sockets over TLS, with rustls on the thread that reads and writes.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::DerefMut;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, SideData, StreamOwned,
};

use crate::outcome::Failure;
use crate::socket::Socket;

/// The only name of the server.
const NAME: &str = "127.0.0.1";
/// Ciphertext that is read at once.
const READ: usize = 256 << 10;

/// A server with a certificate that it has signed itself, in a file as long as the server is there.
#[derive(Debug)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    authority_file: PathBuf,
}

impl Server {
    pub(crate) fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let name = format!("amqp-bench-{}.pem", std::process::id());
        let authority_file = std::env::temp_dir().join(name);
        std::fs::write(&authority_file, made.cert.pem())?;
        Ok(Self { config: Arc::new(config), authority_file })
    }

    pub(crate) fn authority_file(&self) -> &Path {
        &self.authority_file
    }

    pub(crate) fn accept(&self, stream: TcpStream) -> io::Result<Box<dyn Socket>> {
        let session = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        Ok(Box::new(Encrypted::new(session, stream)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority_file);
    }
}

/// Encrypts a connection to a server whose authority is in this file.
pub(crate) fn connect(stream: TcpStream, authority: &str) -> Result<Box<dyn Socket>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
    Ok(Box::new(Encrypted::new(session, stream)))
}

struct Encrypted<C>(StreamOwned<C, Buffered>);

impl<C: DerefMut<Target = ConnectionCommon<S>>, S: SideData> Encrypted<C> {
    fn new(mut session: C, stream: TcpStream) -> Self {
        // What is written at once is encrypted and written at once.
        session.set_buffer_limit(None);
        Self(StreamOwned::new(session, Buffered(BufReader::with_capacity(READ, stream))))
    }
}

impl<C: DerefMut<Target = ConnectionCommon<S>>, S: SideData> Read for Encrypted<C> {
    /// Reads what has arrived, of which rustls returns a record at a time.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.0.read(buffer)?;
        while count > 0 && count < buffer.len() && !self.0.sock.0.buffer().is_empty() {
            match self.0.read(&mut buffer[count..]) {
                Ok(more) if more > 0 => count += more,
                // The next read finds the end or the error again.
                _ => break,
            }
        }
        Ok(count)
    }
}

impl<C: DerefMut<Target = ConnectionCommon<S>>, S: SideData> Write for Encrypted<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<C: DerefMut<Target = ConnectionCommon<S>>, S: SideData> Socket for Encrypted<C> {
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.sock.0.get_ref().set_nonblocking(nonblocking)
    }
}

/// Rustls reads 4 KiB at a time.
struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}
