//! Command lines, old and new.

use std::ffi::OsString;
use std::io::Write;

use super::*;

fn parse(line: &str) -> Result<Options, clap::Error> {
    let words = line.split_whitespace().map(OsString::from).collect();
    Options::try_parse_from(with_command(words))
}

fn run(line: &str) -> RunArgs {
    match parse(line).expect("a good command line").command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn plan(line: &str) -> Plan {
    let args = run(line);
    args.load.plan(&args.servername).expect("a good plan")
}

fn refusal(line: &str) -> String {
    let args = run(line);
    match args.load.plan(&args.servername) {
        Err(Error::Usage(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn old_command_lines_work() {
    let line = "fsqbench -z 1048576 -b 4096 -t 4 -d 2 -f /lustre -a /lustre/data -o lustre_tsm \
                -n polaris -p polaris1234 -s 127.0.0.1 -v debug";
    let args = run(line);
    assert!(!format!("{args:?}").contains("polaris1234"));
    assert_eq!(args.verbose, Verbosity::Debug);
    let plan = args.load.plan(&args.servername).expect("a good plan");
    assert_eq!(plan.sizes, Sizes::Fixed(1 << 20));
    assert_eq!((plan.chunk_bytes, plan.connections, plan.window), (4096, 4, 1));
    assert_eq!(plan.quota, Quota { end_ns: Some(2_000_000_000), ..Quota::default() });
    assert_eq!((plan.fs.as_str(), plan.dir.as_str()), ("/lustre", "/lustre/data"));
    assert_eq!((plan.dest, plan.behaviour), (StorageDest::LustreTsm, Behaviour::Deployed));
    assert_eq!(plan.login().node, b"polaris");
    assert_eq!(plan.login().password, b"polaris1234");
    assert_eq!((plan.login().hostname, plan.login().port), (&b"127.0.0.1"[..], 7625));
    assert!(plan.path(7).starts_with("/lustre/data/fsq-bench-"));
    assert!(plan.path(7).ends_with("/00000007"));
}

#[test]
fn help_and_commands_are_not_taken_for_old_options() {
    for line in ["fsq-bench --help", "fsq-bench -V"] {
        let error = parse(line).expect_err("help is no command");
        assert_eq!(error.exit_code(), 0, "{line}");
    }
    assert!(parse("fsq-bench reference-server /tmp").is_ok());
    assert!(parse("fsq-bench").is_err());
}

#[test]
fn without_count_and_duration_each_connection_sends_a_file() {
    let files = |line: &str| plan(line).quota.files;
    assert_eq!(files("b -n n -f /l -t 8"), Some(8));
    assert_eq!(files("b -n n -f /l -t 8 -d 1"), None);
    assert_eq!(files("b -n n -f /l -t 8 -d 1 --files 3"), Some(3));
}

#[test]
fn the_warm_up_comes_on_top() {
    let plan = plan("b -n n -f /l -d 2 --warm-up 0.5");
    assert_eq!((plan.warm_up_ns, plan.quota.end_ns), (500_000_000, Some(2_500_000_000)));
}

#[test]
fn a_window_needs_the_pipelined_client() {
    assert_eq!(plan("b -n n -f /l --client pipelined").window, PIPELINED_WINDOW);
    assert_eq!(plan("b -n n -f /l --client pipelined --window 32").window, 32);
    assert_eq!(plan("b -n n -f /l --window 1").window, 1);
    assert!(refusal("b -n n -f /l --window 2").contains("--client pipelined"));
    assert!(parse("b -n n -f /l --client pipelined --window 33").is_err());
}

#[test]
fn bad_values_are_refused_before_the_run() {
    for options in ["-t 0", "-z 1Q", "-b x", "-o tape", "--rate 0", "--files 0", "-d -1"] {
        assert!(parse(&format!("b -n n -f /l {options}")).is_err(), "{options}");
    }
    assert!(refusal("b -n n -f /l -b 0").contains("--chunk"));
    assert!(refusal("b -n n -f /l -b 2G").contains("--chunk"));
    let long = "n".repeat(65);
    assert!(refusal(&format!("b -n {long} -f /l")).contains("node"));
    assert!(refusal("b -n n -f /l -s :1").contains("no server"));
}

#[test]
fn servers_have_names_ports_and_brackets() {
    let split = |server| split_server(server).expect("a server");
    assert_eq!(split("host"), ("host".into(), 7625));
    assert_eq!(split("host:80"), ("host".into(), 80));
    assert_eq!(split("::1"), ("::1".into(), 7625));
    assert_eq!(split("[::1]:80"), ("::1".into(), 80));
    assert_eq!(split("[::1]"), ("::1".into(), 7625));
    for bad in ["", ":80", "host:0", "host:x", "[::1", "[::1]80"] {
        assert!(split_server(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_password_file_wins_and_only_its_first_line_counts() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"secret\nother\n").expect("written");
    let plan = plan(&format!("b -n n -f /l --password-file {}", file.path().display()));
    assert_eq!(plan.login().password, b"secret");
    let load = run("b -n n -f /l --password-file /nonexistent").load;
    let error = load.plan("127.0.0.1").expect_err("no file");
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

#[test]
fn a_comparison_has_two_servers_and_a_load() {
    let words = ["b", "compare", "host:1", "host:2=fsqd -p 2", "-n", "n", "-f", "/l", "-t", "3"];
    let options = Options::try_parse_from(words).expect("a good command line");
    let Command::Compare(args) = options.command else { panic!("not a comparison") };
    assert_eq!(args.a, Target { address: "host:1".into(), command: None });
    assert_eq!(args.b.command.as_deref(), Some("fsqd -p 2"));
    assert_eq!(args.load.connections, 3);
    assert!(args.probe.limits(&args.load, &args.arrival).expect("no probes").is_none());
    assert!(parse("b compare a:1 b:2 -n n -f /l --limit").is_err(), "--limit needs --staging");
    let line = "b compare a:1 b:2 -n n -f /l -t 3 --limit --staging /s";
    let Command::Compare(args) = parse(line).expect("good").command else { panic!("{line}") };
    let (_, limits) = args.probe.limits(&args.load, &args.arrival).expect("good").expect("probes");
    assert_eq!((limits.connections, limits.chunk_bytes), (3, 1 << 20));
}

#[test]
fn a_sweep_has_lists() {
    let line = "b sweep host:1 --out /o -n n -f /l --over-sizes 4K,1M --over-windows 1,32";
    let Command::Sweep(args) = parse(line).expect("good").command else { panic!("{line}") };
    assert_eq!(args.sizes, [4096, 1 << 20]);
    assert_eq!(args.windows, [1, 32]);
    assert_eq!(args.connections_list, [1, 2, 4, 8, 16]);
    assert!(parse(&format!("{line} --over-connections 0")).is_err());
}

fn compare(line: &str) -> CompareArgs {
    let common = "fsq-bench compare 127.0.0.1 127.0.0.1 -n polaris -f /lustre";
    match parse(&format!("{common} {line}")).expect("a good command line").command {
        Command::Compare(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_load_of_b_can_differ() {
    let [a, b] = compare("-b 1M --chunk-b 4000000 --idle-b 100").loads();
    assert_eq!((a.chunk, a.idle), (1 << 20, 0));
    assert_eq!((b.chunk, b.idle), (4_000_000, 100));
    let [a, b] = compare("-b 5 --idle 7").loads();
    assert_eq!((a.chunk, a.idle), (b.chunk, b.idle));
}

#[test]
fn runs_are_held_against_what_fits_them() {
    let yardstick = |line: &str| {
        let args = compare(line);
        let limits = args.probe.limits(&args.load, &args.arrival);
        limits.map(|limits| limits.map(|(yardstick, _)| yardstick))
    };
    let is = |line: &str, expected| assert_eq!(yardstick(line).expect("it fits"), expected);
    is("-o local", None);
    is("--limit --staging /tmp -o null -z 4K", Some(Yardstick::Loopback));
    is("--limit --staging /tmp -o local -z 4K", Some(Yardstick::SmallFiles));
    is("--limit --staging /tmp -o local -z 256M", Some(Yardstick::Staging));
    is("--limit --limit-of loopback --staging /tmp -o local", Some(Yardstick::Loopback));
    let all = "--limit --staging /tmp -o lustre --arrival /data --target";
    is(&format!("{all} /data"), Some(Yardstick::EndToEnd));
    let error =
        yardstick("--limit --staging /tmp -o lustre --arrival /data").expect_err("a target");
    assert!(matches!(error, Error::Usage(_)), "{error}");
}
