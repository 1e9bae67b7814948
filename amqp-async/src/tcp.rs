//! TCP sockets: how they are dialled, and with which options. It is the same on every runtime.

use std::io;
use std::net::{SocketAddr, TcpStream};

use amqp_core::{Target, TcpOptions};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Dials a TCP socket: creates one with the options of the target, disables Nagle's algorithm (`TCP_NODELAY`), and
/// begins to connect it to the target's address. It is for implementations of [`Runtime::dial`](crate::Runtime::dial).
///
/// `connected` receives the socket, which is non-blocking. Its future waits until the socket is writable, checks
/// [`take_error`](TcpStream::take_error), and resolves to the transport.
///
/// # Errors
/// Those of the operating system and of `connected`; [`Unsupported`](io::ErrorKind::Unsupported) for an option that
/// the platform does not have; [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for a target without an address,
/// or whose address is of another IP version than the local address.
pub async fn dial_tcp<T, F: Future<Output = io::Result<T>>>(
    target: Target,
    connected: impl FnOnce(TcpStream) -> F,
) -> io::Result<T> {
    let address = target.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
    connected(begin(address, &target.tcp)?).await
}

/// Creates a socket, and begins to connect it.
fn begin(address: SocketAddr, options: &TcpOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Output is collected before it is written, so that waiting for more would only add latency.
    socket.set_tcp_nodelay(true)?;
    apply(&socket, options)?;
    if let Some(local) = options.local_address {
        if local.is_ipv4() != address.is_ipv4() {
            let text = "the local address is of another IP version than the host's";
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        }
        let bound = socket.bind(&SocketAddr::new(local, 0).into());
        bound.map_err(|error| named("local address", &error))?;
    }
    match socket.connect(&address.into()) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn apply(socket: &Socket, options: &TcpOptions) -> io::Result<()> {
    let mut keepalive = TcpKeepalive::new();
    let mut wants_keepalive = false;
    if let Some(idle) = options.keepalive_idle {
        keepalive = with_idle(keepalive, idle)?;
        wants_keepalive = true;
    }
    if let Some(interval) = options.keepalive_interval {
        keepalive = with_interval(keepalive, interval)?;
        wants_keepalive = true;
    }
    if let Some(retries) = options.keepalive_retries {
        keepalive = with_retries(keepalive, retries)?;
        wants_keepalive = true;
    }
    if wants_keepalive {
        socket.set_tcp_keepalive(&keepalive).map_err(|error| named("keepalive", &error))?;
    }
    if let Some(timeout) = options.user_timeout {
        set_user_timeout(socket, timeout).map_err(|error| named("TCP_USER_TIMEOUT", &error))?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        let set = socket.set_send_buffer_size(bytes as usize);
        set.map_err(|error| named("SO_SNDBUF", &error))?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        let set = socket.set_recv_buffer_size(bytes as usize);
        set.map_err(|error| named("SO_RCVBUF", &error))?;
    }
    Ok(())
}

/// An error of the operating system that says which option it refused.
fn named(option: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{option}: {error}"))
}

/// Whether a non-blocking connect goes on.
fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

/// Defines a function that sets an option where the platform has it, and returns an error elsewhere.
macro_rules! where_supported {
    (
        $(#[$doc:meta])*
        $option:literal on [$($system:literal)*]:
        fn $name:ident($target:ident: $type:ty, $value:ident: $kind:ty) -> $output:ty $body:block
    ) => {
        $(#[$doc])*
        #[cfg(any($(target_os = $system),*))]
        fn $name($target: $type, $value: $kind) -> io::Result<$output> $body

        $(#[$doc])*
        #[cfg(not(any($(target_os = $system),*)))]
        fn $name(_: $type, _: $kind) -> io::Result<$output> {
            let text = concat!($option, " is not supported on this platform");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    };
}

where_supported! {
    "TCP_KEEPIDLE" on ["android" "freebsd" "illumos" "ios" "linux" "macos" "netbsd" "windows"]:
    fn with_idle(keepalive: TcpKeepalive, idle: std::time::Duration) -> TcpKeepalive {
        Ok(keepalive.with_time(idle))
    }
}

where_supported! {
    "TCP_KEEPINTVL" on ["android" "freebsd" "illumos" "ios" "linux" "macos" "netbsd" "windows"]:
    fn with_interval(keepalive: TcpKeepalive, interval: std::time::Duration) -> TcpKeepalive {
        Ok(keepalive.with_interval(interval))
    }
}

where_supported! {
    "TCP_KEEPCNT" on ["android" "freebsd" "illumos" "ios" "linux" "macos" "netbsd" "windows"]:
    fn with_retries(keepalive: TcpKeepalive, retries: u32) -> TcpKeepalive {
        Ok(keepalive.with_retries(retries))
    }
}

where_supported! {
    "TCP_USER_TIMEOUT" on ["android" "fuchsia" "linux"]:
    fn set_user_timeout(socket: &Socket, timeout: std::time::Duration) -> () {
        socket.set_tcp_user_timeout(Some(timeout))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
    use std::time::Duration;

    use amqp_core::TcpOptions;
    use socket2::SockRef;

    use super::begin;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn a_socket_has_the_options_of_the_configuration() {
        let listener = listener();
        let options = TcpOptions::default()
            .keepalive_idle(Duration::from_millis(60_001))
            .keepalive_interval(Duration::from_secs(7))
            .keepalive_retries(3)
            .user_timeout(Duration::from_millis(12_345))
            .send_buffer_bytes(20_000)
            .receive_buffer_bytes(30_000)
            .local_address([127, 0, 0, 2]);
        let stream = begin(listener.local_addr().unwrap(), &options).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        // Linux doubles what is asked for.
        assert_eq!(socket.send_buffer_size().unwrap(), 40_000);
        assert_eq!(socket.recv_buffer_size().unwrap(), 60_000);
        let peer = listener.accept().unwrap().1;
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 2]));
    }

    #[test]
    fn without_options_only_nagle_is_off() {
        let listener = listener();
        let stream = begin(listener.local_addr().unwrap(), &TcpOptions::default()).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    }

    /// One of them is enough: the others are the system's.
    #[test]
    fn any_keepalive_option_turns_keepalive_on() {
        for options in [
            TcpOptions::default().keepalive_idle(Duration::ZERO),
            TcpOptions::default().keepalive_interval(Duration::MAX),
            TcpOptions::default().keepalive_retries(0),
        ] {
            let stream = begin(listener().local_addr().unwrap(), &options).unwrap();
            assert!(SockRef::from(&stream).keepalive().unwrap(), "{options:?}");
        }
    }

    #[test]
    fn an_option_that_is_refused_is_named() {
        let address = listener().local_addr().unwrap();
        let error = |options: TcpOptions| begin(address, &options).unwrap_err().to_string();
        let mut invalid = TcpOptions::default();
        invalid.keepalive_idle = Some(Duration::from_secs(40_000));
        assert!(error(invalid).starts_with("keepalive: "));
        let foreign = TcpOptions::default().local_address([203, 0, 113, 1]);
        assert!(error(foreign).starts_with("local address: "));
        let other_version = TcpOptions::default().local_address(Ipv6Addr::LOCALHOST);
        assert!(error(other_version).contains("another IP version"));
    }
}
