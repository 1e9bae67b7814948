//! What there is of TLS in a program without it: errors.

use std::io;
use std::net::TcpStream;
use std::path::Path;

use crate::outcome::Failure;
use crate::socket::Socket;

const ABSENT: &str = "TLS is not part of this program; see the feature `tls`";

/// There is none.
#[derive(Debug)]
pub(crate) enum Server {}

impl Server {
    pub(crate) fn new() -> Result<Self, Failure> {
        Err(ABSENT.into())
    }

    pub(crate) const fn authority_file(&self) -> &Path {
        match *self {}
    }

    pub(crate) fn accept(&self, _: TcpStream) -> io::Result<Box<dyn Socket>> {
        match *self {}
    }
}

pub(crate) fn connect(_: TcpStream, _: &str) -> Result<Box<dyn Socket>, Failure> {
    Err(ABSENT.into())
}
