//! Takes connections and deals them out to the ingest rings.
//!
//! One thread, one listener: a session is placed on the ring with the fewest, which hashing by
//! address (SO_REUSEPORT) does not do. Invariant: every accepted socket is posted to exactly one
//! ring, or closed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_keepalive, set_socket_reuseaddr, set_tcp_keepcnt, set_tcp_keepidle,
    set_tcp_keepintvl, set_tcp_nodelay,
};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind, getsockname,
    ipproto, listen, socket_with,
};
use tracing::{error, warn};

use super::inbox::{Inbox, Message};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long nothing is accepted after the system has run out of something.
const RETRY: Duration = Duration::from_millis(100);

/// A peer that has not answered keep-alives for this long is gone: 60 s of rest, then 6 questions
/// 10 s apart. An idle session whose client lives stays for hours.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is taken.
    #[error(
        "port {} is taken by another process; stop it (ss -ltnp 'sport = :{}' names it) or choose \
         another port with -p",
        .0.port(), .0.port()
    )]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {errno}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        errno: Errno,
    },
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// The port, also where any free one was asked for.
    pub port: u16,
}

impl Listener {
    /// Binds and listens. All IPv6 addresses include IPv4; where IPv6 is off, all IPv4 ones are
    /// taken instead.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = match listener(address) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if any_v6(address) => {
                listener(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
            }
            bound => bound,
        };
        let refused = |errno| match errno {
            Errno::ADDRINUSE => ListenError::InUse(address),
            errno => ListenError::Other { address, errno },
        };
        let socket = bound.map_err(refused)?;
        let name = getsockname(&socket).map_err(refused)?;
        let port = SocketAddr::try_from(name).map_or_else(|_| address.port(), |name| name.port());
        Ok(Self { socket, port })
    }
}

fn any_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn listener(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, !any_v6(address))?;
    }
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A ring, as the acceptor sees it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where to post connections.
    pub inbox: Arc<Inbox>,
    /// Its sessions.
    pub load: Arc<AtomicUsize>,
}

/// The running acceptor.
#[derive(Debug)]
pub struct Acceptor {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no eventfd.
    pub fn start(listener: Listener, places: Vec<Place>) -> std::io::Result<Self> {
        assert!(!places.is_empty(), "at least one ring");
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("fsq_accept".to_owned())
            .spawn(move || run(&listener.socket, &stopped, &places))?;
        Ok(Self { stop, thread })
    }

    /// Stops listening and waits for the thread.
    pub fn stop(self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if self.thread.join().is_err() {
            error!("the accepting thread has panicked");
        }
    }
}

fn run(listener: &OwnedFd, stop: &OwnedFd, places: &[Place]) {
    loop {
        let mut ready = [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                error!("waiting for connections failed, no more are taken: {errno}");
                return;
            }
        }
        if !ready[0].revents().is_empty() {
            return;
        }
        loop {
            match acceptfrom_with(listener, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => place(socket, peer, places),
                Err(Errno::AGAIN) => break,
                // The connection was gone before we took it.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(errno) => {
                    warn!(
                        "cannot take a connection: {errno}; trying again (raise LimitNOFILE if \
                         file descriptors are short)"
                    );
                    std::thread::sleep(RETRY);
                    break;
                }
            }
        }
    }
}

fn place(socket: OwnedFd, peer: Option<SocketAddrAny>, places: &[Place]) {
    // Only promptness is lost where these fail.
    let _ = set_tcp_nodelay(&socket, true);
    let _ = set_socket_keepalive(&socket, true);
    let (idle, interval, count) = KEEPALIVE;
    let _ = set_tcp_keepidle(&socket, idle);
    let _ = set_tcp_keepintvl(&socket, interval);
    let _ = set_tcp_keepcnt(&socket, count);
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| unmapped(peer).to_string());
    let least = places.iter().min_by_key(|place| place.load.load(Ordering::Relaxed));
    let least = least.expect("at least one ring");
    least.load.fetch_add(1, Ordering::Relaxed);
    least.inbox.post(Message::Session { socket, peer });
}

/// IPv4 addresses look like such in the log.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_named() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let first = Listener::bind(any).expect("a free port");
        let again = SocketAddr::new(any.ip(), first.port);
        let error = Listener::bind(again).expect_err("taken");
        assert!(matches!(error, ListenError::InUse(_)));
        assert!(error.to_string().contains(&format!("port {} is taken", first.port)));
    }

    #[test]
    fn all_addresses_include_ipv4() {
        let all: SocketAddr = "[::]:0".parse().expect("an address");
        let listener = Listener::bind(all).expect("a free port");
        std::net::TcpStream::connect(("127.0.0.1", listener.port)).expect("reachable by IPv4");
    }
}
