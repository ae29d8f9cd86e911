//! What sending costs: time under latency, and processor time.
//!
//! The servers here do the least that the protocol asks for, so that the client is what is
//! measured. Each figure is the best of several runs, since a busy machine only ever adds; runs go
//! on until the bound holds, up to a limit that a real miss does reach.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fsq::{Client, Options, StorageDest};
use fsq_wire::PACKET_BYTES;
use fsq_wire::server::{Next, Request, ServerSession};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const WRITE_BYTES: usize = 1 << 20;

const ROUNDS_MIN: u32 = 5;
const ROUNDS_MAX: u32 = 50;

/// The measurements take turns.
static TURN: Mutex<()> = Mutex::new(());

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Takes bytes off a socket without looking at them; false at its end.
fn discard(stream: &TcpStream, mut bytes: u64) -> bool {
    // MSG_TRUNC leaves TCP data uncopied (tcp(7)); the buffer only bounds how much.
    let mut bound = vec![0; WRITE_BYTES];
    while bytes > 0 {
        let want = bound.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        match recv(stream, &mut bound[..want], RecvFlags::TRUNC) {
            Ok((_, count)) if count > 0 => bytes -= count as u64,
            _ => return false,
        }
    }
    true
}

/// Grants everything and drops every payload, strictly in order.
fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut session = ServerSession::new();
    let mut packet = [0; PACKET_BYTES];
    while stream.read_exact(&mut packet).is_ok() {
        match session.packet(&packet).unwrap() {
            Request::Disconnect => return,
            Request::Data { size } => {
                if !discard(&stream, size) {
                    return;
                }
                session.payload(size);
            }
            Request::Connect(_) | Request::Open(_) | Request::Close => {}
        }
        let next = session.reply(&mut packet, Ok(()));
        if stream.write_all(&packet).is_err() || next == Next::Close {
            return;
        }
    }
}

fn start_server() -> u16 {
    let (listener, port) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Bytes on their way through the delaying proxy.
struct InFlight {
    due: Instant,
    bytes: usize,
    pipe: Pipe,
}

struct Pipe {
    out: std::os::fd::OwnedFd,
    into: std::os::fd::OwnedFd,
}

/// Carries one direction, every byte `delay` late, without copying.
fn delay_line(from: TcpStream, to: TcpStream, delay: Duration) {
    const PIPES: usize = 32;
    let (give, take): (Sender<InFlight>, Receiver<InFlight>) = channel();
    let (give_back, take_back) = channel();
    for _ in 0..PIPES {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // The default of 64 KiB serves where the limit for unprivileged users is reached.
        let _ = fcntl_setpipe_size(&into, WRITE_BYTES);
        give_back.send(Pipe { out, into }).unwrap();
    }
    thread::spawn(move || {
        while let Ok(pipe) = take_back.recv() {
            poll(&mut [PollFd::new(&from, PollFlags::IN)], None).unwrap();
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match splice(&from, None, &pipe.into, None, WRITE_BYTES, flags) {
                Ok(bytes) if bytes > 0 => {
                    let due = Instant::now() + delay;
                    if give.send(InFlight { due, bytes, pipe }).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    });
    thread::spawn(move || {
        for InFlight { due, mut bytes, pipe } in take {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            while bytes > 0 {
                match splice(&pipe.out, None, &to, None, bytes, SpliceFlags::MOVE) {
                    Ok(count) if count > 0 => bytes -= count,
                    _ => return,
                }
            }
            let _ = give_back.send(pipe);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// A way to `port` that takes `delay` in either direction.
fn start_proxy(port: u16, delay: Duration) -> u16 {
    let (listener, proxy_port) = listen();
    thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.unwrap();
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            delay_line(near.try_clone().unwrap(), far.try_clone().unwrap(), delay);
            delay_line(far, near, delay);
        }
    });
    proxy_port
}

fn connect(port: u16, window: Option<u32>) -> Client {
    let mut options = Options::new("127.0.0.1", "polaris", "pw");
    options.port = port;
    options.reply_timeout = Duration::from_secs(60);
    if let Some(packets) = window {
        options.window.packets = packets;
    }
    Client::connect(&options).unwrap()
}

fn send_file(client: &mut Client, writes: usize, payload: &[u8]) {
    client.open("/lustre", "/lustre/x", "", StorageDest::Null).unwrap();
    for _ in 0..writes {
        client.write(payload).unwrap();
    }
    client.close().unwrap();
}

#[test]
fn a_window_hides_the_round_trips() {
    const WRITES: usize = 64;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = start_proxy(start_server(), Duration::from_millis(1));
    let payload = vec![0; WRITE_BYTES];
    let seconds = |window| {
        let mut client = connect(port, window);
        // The first file fills the congestion window.
        send_file(&mut client, WRITES, &payload);
        let begin = Instant::now();
        send_file(&mut client, WRITES, &payload);
        begin.elapsed().as_secs_f64()
    };
    let (mut stop_and_wait, mut windowed) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS_MAX {
        stop_and_wait = stop_and_wait.min(seconds(Some(1)));
        windowed = windowed.min(seconds(None));
        if stop_and_wait >= 4.0 * windowed {
            break;
        }
    }
    println!(
        "1 MiB writes, 1 ms each way: {:.0} MiB/s one at a time, {:.0} MiB/s in the window",
        WRITES as f64 / stop_and_wait,
        WRITES as f64 / windowed
    );
    assert!(
        stop_and_wait >= 4.0 * windowed,
        "{WRITES} MiB took {stop_and_wait:.4} s one at a time, {windowed:.4} s in the window"
    );
}

/// Keeps this thread on one processor: whether the peer runs on the same one decides who pays for
/// the loopback's work.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    // A machine or container without that processor measures with more noise.
    let _ = sched_setaffinity(None, &set);
}

fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("processor time is not negative")
}

#[test]
fn sending_costs_little_more_than_a_plain_send_loop() {
    const WRITES: usize = 192;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let payload = vec![0; WRITE_BYTES];
    // Threads inherit it.
    pin(1);
    let server = start_server();
    let (listener, port) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            discard(&stream.unwrap(), u64::MAX);
        }
    });
    pin(0);
    let (mut loop_, mut ours) = (Duration::MAX, Duration::MAX);
    for round in 1..=ROUNDS_MAX {
        // New connections each time: what the kernel has tuned their buffers to matters too.
        let mut plain = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        plain.set_nodelay(true).unwrap();
        let mut client = connect(server, None);
        plain.write_all(&payload).unwrap();
        send_file(&mut client, 1, &payload);

        let begin = thread_cpu_time();
        for _ in 0..WRITES {
            plain.write_all(&payload).unwrap();
        }
        let middle = thread_cpu_time();
        send_file(&mut client, WRITES, &payload);
        let end = thread_cpu_time();
        (loop_, ours) = (loop_.min(middle - begin), ours.min(end - middle));
        if round >= ROUNDS_MIN && ours <= loop_.mul_f64(1.1) {
            break;
        }
    }
    println!("{WRITES} MiB: {loop_:?} of processor time in a send loop, {ours:?} in the client");
    assert!(ours <= loop_.mul_f64(1.1), "the client took {ours:?}, a send loop {loop_:?}");
}
