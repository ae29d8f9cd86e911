//! The Rust client against a server that reads and answers strictly in order.

mod double;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use double::{Act, Buffers, Double, noise};
use fsq::{Barred, Client, Error, Layout, Op, Options, StorageDest, Window};
use rustix::io::Errno;
use rustix::net::sockopt;

const PASSWORD: &str = "correct-horse";
/// Longer than anything here may take, shorter than the patience of whoever waits for the tests.
const BOUND: Duration = Duration::from_secs(30);

fn options(double: &Double) -> Options {
    let mut options = Options::new("localhost", "polaris", PASSWORD);
    options.port = double.port;
    options.reply_timeout = BOUND;
    options
}

fn windowed(double: &Double, packets: u32) -> Options {
    let mut options = options(double);
    options.window.packets = packets;
    options
}

fn open(client: &mut Client, path: &str) -> Result<(), Error> {
    client.open("/lustre", path, "a description", StorageDest::LustreTsm)
}

/// Opens a file, writes it in these pieces and closes it.
fn send(client: &mut Client, path: &str, content: &[u8], piece: usize) -> Result<(), Error> {
    open(client, path)?;
    for part in content.chunks(piece) {
        client.write(part)?;
    }
    client.close()
}

#[test]
fn files_arrive_whole_in_both_layouts_and_any_window() {
    for layout in [Layout::B, Layout::C] {
        for packets in [1, 2, 16, 256] {
            let double = Double::good();
            let options = Options { layout, ..windowed(&double, packets) };
            let mut client = Client::connect(&options).unwrap();
            let pieces = [(0, 1), (1, 1), (100_000, 33), (300_000, 65_536), (3_000_001, 1_000_000)];
            for (i, (len, piece)) in pieces.into_iter().enumerate() {
                let content = noise(i as u64, len);
                send(&mut client, &format!("/lustre/{i}"), &content, piece).unwrap();
                let file = double.files().pop().unwrap();
                assert!(file.bytes == content && file.is_acknowledged, "{layout} {packets} {len}");
                assert_eq!((file.fs.as_str(), file.path), ("/lustre", format!("/lustre/{i}")));
                assert_eq!((file.desc.as_str(), file.dest), ("a description", 4));
            }
            client.disconnect();
            double.wait_ended(1);
            let login = double.logins().pop().unwrap();
            assert_eq!((login.node.as_str(), login.password.as_str()), ("polaris", PASSWORD));
        }
    }
}

#[test]
fn small_writes_are_gathered_around_large_ones() {
    let double = Double::good();
    let mut client = Client::connect(&options(&double)).unwrap();
    let (edge, middle) = (noise(1, 32), noise(2, 4_000_000));
    open(&mut client, "/lustre/event").unwrap();
    client.write(&edge).unwrap();
    client.write(&middle).unwrap();
    client.write(&middle).unwrap();
    client.write(&edge).unwrap();
    client.close().unwrap();
    let file = double.files().pop().unwrap();
    assert!(file.bytes == [&edge[..], &middle, &middle, &edge].concat());
    assert_eq!(file.sizes, [4_000_032, 4_000_000, 32]);

    // A thousand small ones are a few DATA; stop and wait sends each as it is.
    send(&mut client, "/lustre/small", &noise(3, 1_000_000), 1000).unwrap();
    assert!(
        double.files()[1].sizes.iter().all(|&size| size > 200_000 || size == 1_000_000 % 262_000)
    );
    let mut client = Client::connect(&windowed(&double, 1)).unwrap();
    send(&mut client, "/lustre/each", &noise(3, 10_000), 1000).unwrap();
    assert_eq!(double.files()[2].sizes, [1000; 10]);
}

#[test]
fn no_deadlock_against_stop_and_wait_with_tiny_buffers() {
    for bytes in [1, 8_192] {
        let buffers = Buffers { receive: Some(bytes), send: Some(bytes) };
        for packets in [1, 2, 3, 16, 256] {
            for piece in [1_000, 65_536, 70_001, 1 << 20] {
                let double = Double::start(buffers, Box::new(|_, _| Act::Grant));
                let mut client = Client::connect(&windowed(&double, packets)).unwrap();
                let socket = client.socket().unwrap();
                sockopt::set_socket_recv_buffer_size(socket, bytes).unwrap();
                sockopt::set_socket_send_buffer_size(socket, bytes).unwrap();
                let content = noise(piece as u64, piece * 3 + 5);
                send(&mut client, "/lustre/x", &content, piece)
                    .unwrap_or_else(|error| panic!("{bytes} {packets} {piece}: {error}"));
                assert!(double.files()[0].bytes == content);
            }
        }
    }
}

#[test]
fn a_full_window_of_replies_does_not_stop_a_send() {
    // Far more replies than the buffers on their way hold, behind a send buffer that holds two
    // payloads: the double stops in the middle of a reply while a payload is on its way to it.
    let double =
        Double::start(Buffers { send: Some(1), ..Buffers::default() }, Box::new(|_, _| Act::Grant));
    let mut client = Client::connect(&windowed(&double, 256)).unwrap();
    let socket = client.socket().unwrap();
    sockopt::set_socket_recv_buffer_size(socket, 1 << 14).unwrap();
    sockopt::set_socket_send_buffer_size(socket, 1 << 16).unwrap();
    let content = noise(1, 65_536 * 250);
    send(&mut client, "/lustre/x", &content, 65_536).unwrap();
    assert!(double.files()[0].bytes == content);
}

#[test]
fn the_socket_is_set_up() {
    let double = Double::good();
    let client = Client::connect(&options(&double)).unwrap();
    let socket = client.socket().unwrap();
    assert!(sockopt::tcp_nodelay(socket).unwrap());
    assert!(sockopt::socket_keepalive(socket).unwrap());
    assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), Duration::from_secs(60));
    assert!(rustix::io::fcntl_getfd(socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert!(!rustix::fs::fcntl_getfl(socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn a_refused_connect_names_the_reason_and_not_the_password() {
    // The old server's way to say it.
    let double = Double::scripted(|_, _| Act::Refuse(13, "node 'polaris', passwd 'correct-horse'"));
    let error = Client::connect(&options(&double)).unwrap_err();
    assert_eq!(error.errno(), Errno::ACCESS);
    let text = format!("{error} {error:?}");
    assert!(text.contains("node 'polaris', passwd '***'") && !text.contains(PASSWORD), "{text}");
}

#[test]
fn a_refused_open_leaves_the_session_to_the_next_file() {
    let double = Double::scripted(|op, nth| match (op, nth) {
        (Op::Open, 0) => Act::Refuse(17, "the file exists"),
        _ => Act::Grant,
    });
    let mut client = Client::connect(&options(&double)).unwrap();
    let error = open(&mut client, "/lustre/old").unwrap_err();
    assert_eq!(error.errno(), Errno::EXIST);
    assert!(error.to_string().ends_with("refused OPEN of '/lustre/old': the file exists"));
    assert_eq!(client.write(b"x").unwrap_err(), Error::Barred(Barred::NoFile(Op::Data)));
    assert_eq!(client.close().unwrap_err(), Error::Barred(Barred::NoFile(Op::Close)));
    send(&mut client, "/lustre/new", b"content", 7).unwrap();
    assert_eq!(double.files()[1].bytes, b"content");
}

#[test]
fn an_old_server_closes_after_a_refused_open() {
    let double = Double::scripted(|op, _| match op {
        Op::Open => Act::RefuseAndVanish(13, "not yours"),
        _ => Act::Grant,
    });
    let mut client = Client::connect(&options(&double)).unwrap();
    assert_eq!(open(&mut client, "/lustre/a").unwrap_err().errno(), Errno::ACCESS);
    double.wait_ended(1);
    let error = open(&mut client, "/lustre/b").unwrap_err();
    assert!([Errno::CONNRESET, Errno::PIPE].contains(&error.errno()), "{error}");
    assert!(!client.is_connected());
    client.disconnect();
}

#[test]
fn a_refusal_in_the_middle_of_a_window_sticks_to_its_file() {
    for packets in [1, 4, 256] {
        let double = Double::scripted(|op, nth| match (op, nth) {
            (Op::Data, 2) => Act::Refuse(28, "staging is full"),
            _ => Act::Grant,
        });
        let mut client = Client::connect(&windowed(&double, packets)).unwrap();
        open(&mut client, "/lustre/a").unwrap();
        let part = noise(1, 1 << 20);
        let first = (0..400).find_map(|i| client.write(&part).err().map(|error| (i, error)));
        let (at, error) = first.expect("the refusal shows long before 400 MiB");
        assert!(at >= 2, "not before the third write");
        assert_eq!(error.errno(), Errno::NOSPC);
        assert_eq!(client.write(b"small").unwrap_err(), error, "later writes fail alike");
        assert_eq!(client.close().unwrap_err(), error, "and so does the close");
        assert!(client.is_connected());
        send(&mut client, "/lustre/b", b"good", 4).unwrap();
        let files = double.files();
        assert!(!files[0].is_acknowledged && files[1].is_acknowledged);
        assert_eq!(files[1].bytes, b"good");
    }
}

#[test]
fn a_failed_file_may_be_left_for_the_next() {
    let double = Double::scripted(|op, nth| match (op, nth) {
        (Op::Data, 0) => Act::Refuse(5, "disk"),
        _ => Act::Grant,
    });
    let mut client = Client::connect(&windowed(&double, 4)).unwrap();
    open(&mut client, "/lustre/a").unwrap();
    let part = noise(1, 100_000);
    while client.write(&part).is_ok() {}
    send(&mut client, "/lustre/b", b"good", 4).unwrap();
    assert_eq!(double.files()[1].bytes, b"good");
}

#[test]
fn a_refusal_of_the_last_part_shows_at_close() {
    for packets in [1, 16] {
        let double = Double::scripted(|op, _| match op {
            Op::Close => Act::Refuse(5, "the disk failed at the sync"),
            _ => Act::Grant,
        });
        let mut client = Client::connect(&windowed(&double, packets)).unwrap();
        let error = send(&mut client, "/lustre/a", b"content", 7).unwrap_err();
        assert_eq!(error.errno(), Errno::IO);
        assert!(client.is_connected());
    }
}

/// Sends one file; the stages at which the server goes away all lie in here.
fn session(options: &Options) -> (Result<(), Error>, Option<Client>) {
    let mut client = match Client::connect(options) {
        Ok(client) => client,
        Err(error) => return (Err(error), None),
    };
    let result = send(&mut client, "/lustre/x", &noise(1, 4 << 20), 1 << 20);
    (result, Some(client))
}

const STAGES: [(Op, usize); 5] =
    [(Op::Connect, 0), (Op::Open, 0), (Op::Data, 0), (Op::Data, 3), (Op::Close, 0)];

#[test]
fn a_server_that_goes_away_at_any_stage_is_an_error_in_time() {
    for (stage, nth) in STAGES {
        for act in [Act::Vanish, Act::VanishInPayload(0), Act::VanishInPayload(300_000)] {
            for packets in [1, 2, 16] {
                if matches!(act, Act::VanishInPayload(_)) && stage != Op::Data {
                    continue;
                }
                let double =
                    Double::scripted(
                        move |op, count| {
                            if (op, count) == (stage, nth) { act } else { Act::Grant }
                        },
                    );
                let begin = Instant::now();
                let (result, client) = session(&windowed(&double, packets));
                let error = result.unwrap_err();
                assert!(begin.elapsed() < BOUND);
                let is_reset = matches!(error.errno(), Errno::CONNRESET | Errno::PIPE);
                assert!(is_reset, "{stage} {nth} {act:?} {packets}: {error}");
                let Some(mut client) = client else { continue };
                // Closed once, and it stays that way.
                assert!(client.socket().is_none() && !client.is_connected());
                assert_eq!(client.write(b"x").unwrap_err(), error);
                assert_eq!(client.close().unwrap_err(), error);
                assert_eq!(open(&mut client, "/lustre/y").unwrap_err(), error);
                client.disconnect();
            }
        }
    }
}

#[test]
fn a_silent_server_is_an_error_in_time() {
    for (stage, nth) in STAGES {
        for packets in [1, 16] {
            let double = Double::scripted(move |op, count| {
                if (op, count) == (stage, nth) { Act::Silence } else { Act::Grant }
            });
            let reply_timeout = Duration::from_millis(150);
            let options = Options { reply_timeout, ..windowed(&double, packets) };
            let begin = Instant::now();
            let error = session(&options).0.unwrap_err();
            assert_eq!(error.errno(), Errno::TIMEDOUT, "{stage} {nth} {packets}: {error}");
            assert!(begin.elapsed() >= reply_timeout && begin.elapsed() < BOUND);
            double.wait_ended(1);
        }
    }
}

#[test]
fn a_server_that_stops_reading_is_an_error_in_time() {
    let buffers = Buffers { receive: Some(1), send: None };
    let script = |op, _| if op == Op::Data { Act::Silence } else { Act::Grant };
    let double = Double::start(buffers, Box::new(script));
    let reply_timeout = Duration::from_millis(150);
    let options = Options { reply_timeout, ..options(&double) };
    let mut client = Client::connect(&options).unwrap();
    open(&mut client, "/lustre/x").unwrap();
    // More than the send buffer ever grows to.
    let error = client.write(&vec![0; 64 << 20]).unwrap_err();
    assert_eq!(error.errno(), Errno::TIMEDOUT, "{error}");
}

#[test]
fn nonsense_from_the_server_ends_the_session() {
    for (stage, nth) in STAGES {
        let double =
            Double::scripted(
                move |op, count| {
                    if (op, count) == (stage, nth) { Act::Babble } else { Act::Grant }
                },
            );
        let error = session(&windowed(&double, 1)).0.unwrap_err();
        // With payload unread the double's close is a reset, which may be noticed first.
        let legal: &[Errno] = if stage == Op::Data {
            &[Errno::PROTO, Errno::CONNRESET, Errno::PIPE]
        } else {
            &[Errno::PROTO]
        };
        assert!(legal.contains(&error.errno()), "{stage}: {error}");
    }
}

#[test]
fn an_unknown_host_and_a_closed_port() {
    let error = Client::connect(&Options::new("no-such-host.invalid", "n", "p")).unwrap_err();
    assert_eq!(error.errno(), Errno::HOSTUNREACH);
    assert!(error.to_string().contains("'no-such-host.invalid'"), "{error}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut options = Options::new("127.0.0.1", "n", "p");
    options.port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.errno(), Errno::CONNREFUSED);
    let place = format!("cannot connect to 127.0.0.1:{}: Connection refused", options.port);
    assert_eq!(error.to_string(), place);
}

#[test]
fn connecting_is_bounded() {
    // A listener whose queue is full drops every further SYN.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue never fills");
    }
    let mut options = Options::new("127.0.0.1", "n", "p");
    options.port = address.port();
    options.connect_timeout = Duration::from_millis(100);
    let begin = Instant::now();
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.errno(), Errno::TIMEDOUT, "{error}");
    assert!(begin.elapsed() >= options.connect_timeout && begin.elapsed() < BOUND);
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_anything_is_sent() {
    let double = Double::good();
    let long = "x".repeat(65);
    for options in [
        Options { node: long.clone().into(), ..options(&double) },
        Options { password: fsq::Secret::new(long.clone()), ..options(&double) },
    ] {
        assert_eq!(Client::connect(&options).unwrap_err().errno(), Errno::OVERFLOW);
    }
    let mut client = Client::connect(&options(&double)).unwrap();
    assert_eq!(
        open(&mut client, &format!("/lustre/{}", "x".repeat(4096))).unwrap_err().errno(),
        Errno::NAMETOOLONG
    );
    assert_eq!(open(&mut client, "/lustre/a\0b").unwrap_err().errno(), Errno::INVAL);
    send(&mut client, "/lustre/a", b"fine", 4).unwrap();
    assert_eq!(
        open(&mut client, "/lustre/b").and_then(|()| open(&mut client, "/lustre/c")),
        Err(Error::Barred(Barred::FileOpen))
    );
    assert_eq!(double.logins().len(), 1);
}

#[test]
fn dropping_a_client_closes_without_acknowledging() {
    let double = Double::good();
    let mut client = Client::connect(&options(&double)).unwrap();
    open(&mut client, "/lustre/x").unwrap();
    client.write(&noise(1, 1 << 20)).unwrap();
    drop(client);
    double.wait_ended(1);
    assert!(!double.files()[0].is_acknowledged);
}

#[test]
fn a_window_in_bytes_bounds_what_is_outstanding() {
    let double = Double::good();
    let window = Window { packets: 256, bytes: 150_000 };
    let mut client = Client::connect(&Options { window, ..options(&double) }).unwrap();
    let content = noise(1, 2_000_000);
    send(&mut client, "/lustre/x", &content, 100_000).unwrap();
    assert!(double.files()[0].bytes == content);
}
