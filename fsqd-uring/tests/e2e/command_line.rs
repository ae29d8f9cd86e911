//! The command line as operators know it, and what the daemon says when it starts.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::daemon::{Daemon, run_to_end};
use crate::support::log::Line;
use crate::support::site::{PASSWORD, Site};
use crate::support::{shared_turn, text};

const IDENTMAP: &str = "\
# node   servername   archive-id uid  gid
polaris  tsmserver-8  15         1000 2000
capella  tsmserver-8  16         1001 2000  /lustre/capella # with a directory
vega     tsmserver-9  0          0    0
";

#[test]
fn start_is_logged_as_operators_know_it() {
    let _turn = shared_turn();
    let site = Site::new();
    site.write_identmap(IDENTMAP);
    let (localfs, identmap, target) = (site.staging(), site.identmap(), site.target());
    let mut command = Site::bare_command();
    // Port 7625 may be taken on this machine.
    command.args(["-l", text(&localfs), "-i", text(&identmap), "-s", "16", "-q", "12"]);
    command.args(["-v", "info", "-p", "0"]).arg(&target);
    let daemon = Daemon::start(&mut command, &[PASSWORD]);
    let (port, pid) = (daemon.port(), daemon.pid());
    daemon.log().wait("of the last worker", |line| line.ends_with("fsq_queue/11"));
    let log = daemon.log().clone();
    daemon.stop();

    let lines = log.lines();
    let parsed: Vec<Line<'_>> = lines
        .iter()
        .map(|line| Line::parse(line).unwrap_or_else(|| panic!("not in the known form: {line}")))
        .collect();
    let texts = |letter| {
        let lines = parsed.iter().filter(move |line| line.letter == letter);
        lines.map(|line| line.text).collect::<Vec<_>>()
    };
    let (infos, messages) = (texts('I'), texts('M'));
    let nodes: Vec<_> = infos.iter().filter(|text| text.starts_with("node: ")).collect();
    assert_eq!(
        nodes,
        [
            &"node: 'polaris', servername: 'tsmserver-8', archive_id: 15, uid: 1000, gid: 2000",
            &"node: 'capella', servername: 'tsmserver-8', archive_id: 16, uid: 1001, gid: 2000",
            &"node: 'vega', servername: 'tsmserver-9', archive_id: 0, uid: 0, gid: 0",
        ]
    );
    let listening = format!(
        "listening on port {port} with 16 socket threads, 12 queue worker threads, local fs '{}' \
         and number of tolerated file errors 16",
        text(&localfs)
    );
    assert_eq!(messages.iter().filter(|&&text| text == listening).count(), 1, "{messages:?}");
    let workers: Vec<_> = messages
        .iter()
        .filter_map(|text| text.strip_prefix("created queue consumer thread fsq_queue/"))
        .map(|number| number.parse::<u32>().expect("a number"))
        .collect();
    assert_eq!(workers.len(), 12);
    assert_eq!(workers.into_iter().collect::<BTreeSet<_>>(), (0..12).collect());
    assert!(lines.iter().any(|line| line.contains(" caps: ")), "what the kernel can do is missing");

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    for line in &parsed {
        let age = now.saturating_sub(Duration::from_secs(line.seconds));
        assert!(age < Duration::from_secs(600), "{line:?}");
        assert!(line.thread > 0, "{line:?}");
    }
    let pid = i32::try_from(pid).expect("a pid");
    assert!(parsed.iter().any(|line| line.thread == pid), "no line of the main thread");
    assert!(parsed.iter().any(|line| line.thread != pid), "no line of another thread");
}

#[test]
fn conf_file_holds_the_options_and_the_command_line_wins() {
    let _turn = shared_turn();
    let site = Site::new();
    let conf = site.root().join("fsqd.conf");
    let (localfs, identmap) = (site.staging(), site.identmap());
    let options = format!(
        "# fsqd\nlocalfs {}\nidentmap {}\nport 1\nsthreads 3\nqthreads 5\ntolerr 7\n\
         verbose error\nbind 127.0.0.1\n",
        text(&localfs),
        text(&identmap)
    );
    fs::write(&conf, options).expect("written");
    let mut command = Site::bare_command();
    command.args(["-c", text(&conf), "-p", "0", "-v", "info"]).arg(site.target());
    let daemon = Daemon::start(&mut command, &[]);
    daemon.log().wait("with the options of both", |line| {
        line.contains(" with 3 socket threads, 5 queue worker threads, ")
            && line.ends_with("number of tolerated file errors 7")
    });
    daemon.stop();
}

#[test]
fn check_config_starts_nothing() {
    let _turn = shared_turn();
    let site = Site::new();
    let ended = run_to_end(&mut site.command(&["--check-config"]));
    assert_eq!(ended.status, 0, "{}", ended.text);
    assert!(!ended.text.contains("listening"), "{}", ended.text);

    site.write_identmap("polaris tsmserver-8\n");
    let ended = run_to_end(&mut site.command(&["--check-config"]));
    assert_eq!(ended.status, 1, "{}", ended.text);
    assert!(ended.text.contains("identmap.conf:1: "), "{}", ended.text);
}

#[test]
fn help_and_version_are_printed() {
    for (option, words) in [("--help", "lustre_mount_point"), ("--version", "fsqd ")] {
        let ended = run_to_end(Site::bare_command().arg(option));
        assert_eq!(ended.status, 0);
        assert!(ended.text.contains(words), "{}", ended.text);
    }
}
