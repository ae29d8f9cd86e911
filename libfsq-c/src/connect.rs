//! From a name to a connected socket, in bounded time.
//!
//! Invariant: the socket is blocking (foreign code may read and write its number), close-on-exec,
//! never one of the three standard descriptors, and has TCP_NODELAY and keepalive set.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use crate::error::Error;
use crate::link::poll;

/// A peer that died without a word is noticed after idle + interval x count = 2 min, while the
/// default of Linux is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;

/// Connects to the first address of `host` that answers. The time left is shared evenly between
/// the addresses left, so that a dead first one does not use up the time of a good second one.
pub(crate) fn connect(host: &str, port: u16, timeout: Duration) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + timeout;
    let addresses = resolve(host, port)?;
    let mut reason = Errno::HOSTUNREACH;
    for (i, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        match try_address(address, Instant::now() + share)? {
            Ok(socket) => return Ok(socket),
            Err(errno) => reason = errno,
        }
    }
    Err(Error::Connect { peer: peer_name(host, port), errno: reason, tried: addresses.len() })
}

/// Name and port for messages.
pub(crate) fn peer_name(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let failed = |reason: String| Error::Resolve { host: host.escape_debug().to_string(), reason };
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| {
            let text = error.to_string();
            let reason = text.strip_prefix("failed to lookup address information: ");
            failed(reason.unwrap_or(&text).to_owned())
        })?
        .collect();
    if addresses.is_empty() { Err(failed("no address".to_owned())) } else { Ok(addresses) }
}

/// The outer error is ours (no descriptors left), the inner one is the address's.
fn try_address(address: &SocketAddr, deadline: Instant) -> Result<Result<OwnedFd, Errno>, Error> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
        Ok(socket) => socket,
        Err(errno @ Errno::AFNOSUPPORT) => return Ok(Err(errno)),
        Err(errno) => return Err(Error::Socket(errno)),
    };
    let socket = above_standard(socket).map_err(Error::Socket)?;
    let connected = match rustix::net::connect(&socket, address) {
        // An interrupted connect goes on in the background, like a non-blocking one.
        Err(Errno::INPROGRESS | Errno::INTR) => wait_connected(&socket, deadline),
        other => other,
    };
    if let Err(errno) = connected {
        return Ok(Err(errno));
    }
    set_up(&socket).map_err(Error::Socket)?;
    Ok(Ok(socket))
}

/// A caller's zeroed session struct says descriptor 0; no session may ever own that number.
fn above_standard(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    const FIRST_FREE: i32 = 3;
    if socket.as_raw_fd() >= FIRST_FREE {
        Ok(socket)
    } else {
        fcntl_dupfd_cloexec(&socket, FIRST_FREE)
    }
}

fn wait_connected(socket: &OwnedFd, deadline: Instant) -> Result<(), Errno> {
    if poll(socket, PollFlags::OUT, deadline)?.is_empty() {
        return Err(Errno::TIMEDOUT);
    }
    sockopt::socket_error(socket)?
}

fn set_up(socket: &OwnedFd) -> Result<(), Errno> {
    ioctl_fionbio(socket, false)?;
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)
}
