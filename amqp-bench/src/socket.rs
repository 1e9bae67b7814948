//! What the bound and the peer read and write: TCP, or TLS over it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::outcome::Failure;
use crate::tls;

/// A connected socket.
pub(crate) trait Socket: Read + Write {
    /// Whether a read of nothing returns at once.
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Self::set_nonblocking(self, nonblocking)
    }
}

/// Connects to the host of a URI, over TLS if it names the file of an authority.
pub(crate) fn connect(uri: &str) -> Result<Box<dyn Socket>, Failure> {
    let stream = TcpStream::connect(address(uri))?;
    stream.set_nodelay(true)?;
    match split_authority(uri).1 {
        None => Ok(Box::new(stream)),
        Some(authority) => tls::connect(stream, authority),
    }
}

/// The host and port of a URI without anything unusual in it.
pub(crate) fn address(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority)
}

/// A URI, and the file of the TLS authority that it names.
pub(crate) fn split_authority(uri: &str) -> (&str, Option<&str>) {
    uri.split_once("?cacertfile=").map_or((uri, None), |(uri, file)| (uri, Some(file)))
}
