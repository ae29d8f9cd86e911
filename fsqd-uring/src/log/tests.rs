use std::io::Read;
use std::os::fd::OwnedFd;

use tracing::{debug, error, info, trace, warn};

use super::*;

fn fixed_clock() -> Duration {
    Duration::from_nanos(1_579_167_563_000_042_999)
}

fn fixed_thread() -> i32 {
    174_822
}

fn output(writer: OwnedFd) -> Output {
    Output::start(writer).expect("a thread")
}

/// What `events` logs, on a pipe.
fn logged(layout: Layout, verbosity: Verbosity, events: impl FnOnce()) -> String {
    let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().expect("a pipe");
    let lines = Lines { layout, now: fixed_clock, thread: fixed_thread };
    tracing::subscriber::with_default(subscriber(lines, verbosity, output(writer)), events);
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).expect("the log is UTF-8");
    text
}

const FSQ: Layout = Layout::Fsq { colours: false };

#[test]
fn golden_lines() {
    let first = line!() + 2;
    let text = logged(FSQ, Verbosity::Debug, || {
        error!("bad");
        warn!("doubtful {}", 1);
        info!("listening on port {}", 7625);
        debug!("node: '{}'", "polaris");
        trace!(files = 3, name = "a b", "late");
    });
    let expected = format!(
        "[E] 1579167563.000042 [174822] tests.rs:{} bad\n\
         [W] 1579167563.000042 [174822] tests.rs:{} doubtful 1\n\
         [M] 1579167563.000042 [174822] tests.rs:{} listening on port 7625\n\
         [I] 1579167563.000042 [174822] tests.rs:{} node: 'polaris'\n\
         [D] 1579167563.000042 [174822] tests.rs:{} late files=3 name=\"a b\"\n",
        first,
        first + 1,
        first + 2,
        first + 3,
        first + 4
    );
    assert_eq!(text, expected);
}

#[test]
fn each_verbosity_shows_its_letters() {
    for (verbosity, letters) in [
        (Verbosity::Error, "E"),
        (Verbosity::Warn, "EW"),
        (Verbosity::Message, "EWM"),
        (Verbosity::Info, "EWMI"),
        (Verbosity::Debug, "EWMID"),
    ] {
        let text = logged(FSQ, verbosity, || {
            error!("x");
            warn!("x");
            info!("x");
            debug!("x");
            trace!("x");
        });
        let shown: String = text.lines().filter_map(|line| line.chars().nth(1)).collect();
        assert_eq!(shown, letters);
    }
}

#[test]
fn colours_touch_the_letter_only() {
    let text = logged(Layout::Fsq { colours: true }, Verbosity::Message, || error!("\x1b[2Jbad"));
    assert!(text.starts_with("[\x1b[31mE\x1b[0m] 1579167563."), "{text:?}");
    assert_eq!(text.matches('\x1b').count(), 2, "{text:?}");
}

const HOSTILE: &str = "a\n[E] 1.000000 [1] x:1 forged\r\x1b[2J\0\u{85}\u{2028}\u{202e}\t\u{e4}\"\\";

#[test]
fn strings_of_clients_cannot_forge_lines() {
    let text = logged(FSQ, Verbosity::Message, || {
        info!(name = HOSTILE, shown = %HOSTILE, "node '{HOSTILE}'");
    });
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let line = text.strip_suffix('\n').expect("one line");
    assert!(!line.chars().any(escape_needed), "{line:?}");
    let shown =
        "a\\n[E] 1.000000 [1] x:1 forged\\r\\u{1b}[2J\\u{0}\\u{85}\\u{2028}\\u{202e}\\t\u{e4}\"\\";
    assert!(line.contains(&format!("node '{shown}'")), "{line}");
    assert!(line.contains(&format!(" shown={shown}")), "{line}");
}

fn escape_needed(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{202e}')
}

#[test]
fn golden_json() {
    let line = line!() + 2;
    let text = logged(Layout::Json, Verbosity::Message, || {
        info!(
            files = 3_u64,
            back = -1,
            ok = true,
            share = 0.5,
            nan = f64::NAN,
            "he said \"{}\"",
            1
        );
    });
    let expected = format!(
        "{{\"ts\":1579167563.000042,\"level\":\"message\",\"tid\":174822,\
         \"where\":\"tests.rs:{line}\",\"message\":\"he said \\\"1\\\"\",\"fields\":{{\"files\":3,\
         \"back\":-1,\"ok\":true,\"share\":0.5,\"nan\":\"NaN\"}}}}\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn json_strings_are_escaped() {
    let text = logged(Layout::Json, Verbosity::Message, || {
        info!(name = HOSTILE, kind = ?Some(1), "{HOSTILE}");
    });
    let shown =
        "a\\n[E] 1.000000 [1] x:1 forged\\r\\u001b[2J\\u0000\\u0085\\u2028\\u202e\\t\u{e4}\\\"\\\\";
    let expected = format!(
        "\"message\":\"{shown}\",\"fields\":{{\"name\":\"{shown}\",\"kind\":\"Some(1)\"}}}}\n"
    );
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn a_reader_that_has_gone_does_no_harm() {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    drop(reader);
    let lines = Lines { layout: FSQ, now: wall_clock, thread: thread_id };
    tracing::subscriber::with_default(subscriber(lines, Verbosity::Debug, output(writer)), || {
        for _ in 0..3 {
            error!("nobody reads this");
        }
    });
}

#[test]
fn threads_do_not_mix_their_lines() {
    const THREADS: usize = 8;
    const LINES: usize = 50;
    // Longer than a pipe takes at once, so that a line needs several writes.
    const LENGTH: usize = 100_000;
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let lines = Lines { layout: FSQ, now: wall_clock, thread: thread_id };
    let dispatch = tracing::Dispatch::new(subscriber(lines, Verbosity::Debug, output(writer)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let dispatch = dispatch.clone();
            std::thread::spawn(move || {
                let text = char::from(b'a' + thread as u8).to_string().repeat(LENGTH);
                tracing::dispatcher::with_default(&dispatch, || {
                    for _ in 0..LINES {
                        info!("{text}");
                    }
                });
                thread_id()
            })
        })
        .collect();
    drop(dispatch);
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).expect("the log is UTF-8");
    let ids: Vec<String> =
        threads.into_iter().map(|thread| thread.join().expect("done").to_string()).collect();
    assert_eq!(text.lines().count(), THREADS * LINES);
    for line in text.lines() {
        let (head, body) = line.split_at(line.len() - LENGTH);
        assert!(head.starts_with("[M] "), "{head}");
        let thread = usize::from(body.as_bytes()[0] - b'a');
        assert!(body.bytes().all(|byte| byte == body.as_bytes()[0]), "mixed");
        assert!(head.contains(&format!(" [{}] ", ids[thread])), "{head} lacks {}", ids[thread]);
    }
}

#[test]
fn the_wall_clock_is_not_before_this_was_written() {
    assert!(wall_clock() > Duration::from_secs(1_700_000_000));
}
