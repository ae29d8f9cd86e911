use std::fs;

use super::*;

const NEEDED: [&str; 5] = ["-l", "/staging", "-i", "/etc/identmap", "/lustre"];

fn parse(arguments: &[&str]) -> Result<Invocation, ConfigError> {
    Config::parse(["fsqd"].iter().chain(arguments).map(OsString::from))
}

/// With the required options in front.
fn config(arguments: &[&str]) -> Config {
    match parse(&[&NEEDED, arguments].concat()) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn error(arguments: &[&str]) -> (u8, String) {
    let error = parse(arguments).expect_err("must be refused");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text:?}");
    (error.exit_status(), text)
}

/// A conf file in a directory that lives as long as the test.
fn conf(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("fsqd.conf");
    fs::write(&path, text).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

#[test]
fn defaults() {
    let config = config(&[]);
    let expected = Config {
        target: "/lustre".into(),
        localfs: "/staging".into(),
        identmap: "/etc/identmap".into(),
        bind: "[::]:7625".parse().expect("address"),
        sthreads: config.sthreads,
        qthreads: 4,
        athreads: 4,
        tolerr: 16,
        max_sessions: 4096,
        buffer_memory_bytes: 256 << 20,
        durability: Durability::Fsync,
        auth: Auth::Tsm { asked: false, cache: Duration::from_secs(60) },
        tsm_library: None,
        archive: Archive::Default,
        target_io: TargetIo::Auto,
        striping: None,
        verify: Verify::Stream,
        staging_high_percent: 90,
        space_wait: Duration::from_secs(600),
        stall_timeout: Duration::from_secs(60),
        hung_after: Duration::from_secs(60),
        ring_mode: RingMode::Auto,
        verbose: Verbosity::Message,
        log_format: LogFormat::Fsq,
        stats_interval: Duration::ZERO,
        check_config: false,
    };
    assert_eq!(config, expected);
    assert!(config.sthreads >= 1);
}

#[test]
fn every_option_arrives() {
    let config = config(&[
        "-p",
        "0",
        "-s16",
        "--qthreads=3",
        "-t",
        "0",
        "-v",
        "debug",
        "--bind",
        "[::1]",
        "--max-sessions",
        "7",
        "--buffer-memory",
        "64m",
        "--durability",
        "written",
        "--auth",
        "file:/etc/pw:1",
        "--archive",
        "dir:/archive/",
        "--athreads",
        "2",
        "--target-io",
        "buffered",
        "--verify",
        "readback",
        "--staging-high",
        "75",
        "--space-wait",
        "0",
        "--stall-timeout",
        "5",
        "--hung-after",
        "6",
        "--ring-mode",
        "plain",
        "--log-format",
        "json",
        "--stats-interval",
        "10",
        "--check-config",
    ]);
    let expected = Config {
        target: "/lustre".into(),
        localfs: "/staging".into(),
        identmap: "/etc/identmap".into(),
        bind: "[::1]:0".parse().expect("address"),
        sthreads: 16,
        qthreads: 3,
        athreads: 2,
        tolerr: 0,
        max_sessions: 7,
        buffer_memory_bytes: 64 << 20,
        durability: Durability::Written,
        auth: Auth::File("/etc/pw:1".into()),
        tsm_library: None,
        archive: Archive::Dir("/archive".into()),
        target_io: TargetIo::Buffered,
        striping: None,
        verify: Verify::Readback,
        staging_high_percent: 75,
        space_wait: Duration::ZERO,
        stall_timeout: Duration::from_secs(5),
        hung_after: Duration::from_secs(6),
        ring_mode: RingMode::Plain,
        verbose: Verbosity::Debug,
        log_format: LogFormat::Json,
        stats_interval: Duration::from_secs(10),
        check_config: true,
    };
    assert_eq!(config, expected);
}

#[test]
fn usage_errors_are_one_line_with_status_2() {
    let table: &[(&[&str], &str)] = &[
        (&["--no-such"], "unexpected argument '--no-such'"),
        (&["--prot", "1"], "'--port'"),
        (&["-p"], "a value is required for '--port <N>'"),
        (&["-p", "65536"], "not a number from 0 to 65535"),
        (&["-p", "x"], "invalid value 'x' for '--port <N>'"),
        (&["-p", "1\n2"], "not a number"),
        (&["-s", "0"], "from 1 to 1024 (each ring is a thread)"),
        (&["-s", "1025"], "from 1 to 1024"),
        (&["-q", "257"], "from 1 to 256"),
        (&["-t=-1"], "from 0 to 1000000"),
        (&["--max-sessions", "65537"], "from 1 to 65536"),
        (&["--athreads", "0"], "from 1 to 256"),
        (&["--staging-high", "101"], "from 1 to 100"),
        (&["--space-wait", "86401"], "from 0 to 86400"),
        (&["--stall-timeout", "0"], "from 1 to 86400"),
        (&["--hung-after", "0"], "from 1 to 86400"),
        (&["--buffer-memory", "15M"], "not a size from 16M"),
        (&["--buffer-memory", "17179869184G"], "not a size from 16M"),
        (&["--buffer-memory", "M"], "not a size from 16M"),
        (&["--buffer-memory", "16M", "-s", "9"], "too little for --sthreads 9"),
        (&["--durability", "maybe"], "[possible values: fsync, written]"),
        (&["-v", "loud"], "[possible values: error, warn, message, info, debug]"),
        (&["--ring-mode", "x"], "auto, defer, coop, cqsize, plain"),
        (&["--bind", "localhost"], "not an IPv4 or IPv6 address"),
        (&["--auth", "file:"], "not tsm, file:PATH or none"),
        (&["--auth", "ldap"], "not tsm, file:PATH or none"),
        (&["--archive", "dir"], "not hsm, tsm, dir:PATH or none"),
        (&["--auth", "none"], "--insecure"),
        (&["--auth", "none", "--bind", "192.0.2.1"], "--insecure"),
        (&["--auth", "none", "--insecure=no"], "--insecure"),
        (&["/second"], "unexpected argument '/second'"),
        (&["-l", "/a/../b"], "contains '..'"),
        (&["-l", "/lustre/staging"], "must not lie in each other"),
        (&["-l", "/"], "must not lie in each other"),
        (&["--archive", "dir:/staging/a"], "must not lie in each other"),
    ];
    for (arguments, part) in table {
        let (status, text) = error(&[&NEEDED, *arguments].concat());
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(part), "{text} lacks {part}");
        assert!(text.ends_with("(fsqd --help shows all options)"), "{text}");
    }
}

#[test]
fn what_is_required_is_named() {
    assert!(error(&["-i", "/i", "/lustre"]).1.contains("--localfs is missing"));
    assert!(error(&["-l", "/l", "/lustre"]).1.contains("--identmap is missing"));
    assert!(error(&["-l", "/l", "-i", "/i"]).1.contains("<lustre_mount_point> is missing"));
    assert_eq!(error(&[]).0, 2);
}

#[test]
fn sign_on_at_tsm_is_told_from_its_being_the_default() {
    let (_dir, path) = conf("auth tsm\nsign-on-cache 5\ntsm-library libApiTSM64.so.8\n");
    let tsm = config(&["-c", &path]);
    assert_eq!(tsm.auth, Auth::Tsm { asked: true, cache: Duration::from_secs(5) });
    // As given: a bare name is for the dynamic linker to find.
    assert_eq!(tsm.tsm_library, Some("libApiTSM64.so.8".into()));
    assert_eq!(config(&["-c", &path, "--auth=file:/pw"]).auth, Auth::File("/pw".into()));
    let auth = config(&["--sign-on-cache", "0"]).auth;
    assert_eq!(auth, Auth::Tsm { asked: false, cache: Duration::ZERO });
    let too_long = error(&[&NEEDED, &["--sign-on-cache", "86401"][..]].concat()).1;
    assert!(too_long.contains("from 0 to 86400"), "{too_long}");
}

#[test]
fn the_archive_s_account_goes_with_tsm_only() {
    let account = |arguments: &[&str]| match config(arguments).archive {
        Archive::Tsm(account) => account,
        other => panic!("{other:?}"),
    };
    assert_eq!(account(&["--archive", "tsm"]), TsmAccount::default());
    let all = ["--archive", "tsm", "--archive-node", "POLARIS", "--archive-server", "tsm-8"];
    let password = ["--archive-password-file", "/etc/fsqd.pw"];
    let expected = TsmAccount {
        node: Some("POLARIS".into()),
        password_file: Some("/etc/fsqd.pw".into()),
        server: Some("tsm-8".into()),
    };
    assert_eq!(account(&[&all[..], &password].concat()), expected);
    assert_eq!(config(&["--archive", "hsm"]).archive, Archive::Hsm);
    assert_eq!(config(&["--archive", "none"]).archive, Archive::None);
    for (arguments, part) in [
        (&["--archive-node", "x"][..], "--archive tsm only"),
        (&["--archive", "none", "--archive-server", "x"], "--archive tsm only"),
        (&["--archive", "tsm", "--archive-password-file", "/p"], "needs --archive-node"),
        (&["--archive", "tsm", "--archive-node", "a b"], "printable ASCII"),
        (&["--archive", "tsm", "--archive-server", "a'b"], "without quotes"),
    ] {
        let (status, text) = error(&[&NEEDED, arguments].concat());
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn striping_is_off_unless_it_is_said_from_which_size_on() {
    let striping = |arguments: &[&str]| config(arguments).striping;
    let wide = |above_bytes| {
        let layout = Layout { stripes: StripeCount::All, stripe_bytes: None, pool: None };
        Some(StripeHint { above_bytes, layout })
    };
    assert_eq!(striping(&[]), None);
    assert_eq!(striping(&["--stripe-above", "64K"]), wide(64 << 10));
    assert_eq!(striping(&["--stripe-above", "1024T", "--stripe-count", "all"]), wide(1 << 50));
    let (_dir, path) = conf("stripe-above 10g\nstripe-count 8\nstripe-size 4m\nstripe-pool nvme\n");
    let eight = std::num::NonZeroU16::new(8).expect("not zero");
    let layout = Layout {
        stripes: StripeCount::Number(eight),
        stripe_bytes: Some(4 << 20),
        pool: Some("nvme".into()),
    };
    assert_eq!(layout.to_string(), "stripe count 8, stripe size 4194304 bytes, pool nvme");
    assert_eq!(striping(&["-c", &path]), Some(StripeHint { above_bytes: 10 << 30, layout }));

    let above = ["--stripe-above", "1G"];
    for (arguments, part) in [
        (&["--stripe-count", "4"][..], "go with --stripe-above only"),
        (&["--stripe-size", "1M"], "go with --stripe-above only"),
        (&["--stripe-pool", "nvme"], "go with --stripe-above only"),
        (&["--stripe-above", "65535"], "not a size from 64K to 1024T"),
        (&["--stripe-above", "1025T"], "not a size from 64K to 1024T"),
        (&[above[0], above[1], "--stripe-count", "0"], "neither all nor a number from 1 to 65534"),
        (&[above[0], above[1], "--stripe-count", "65535"], "neither all nor a number"),
        (&[above[0], above[1], "--stripe-size", "96K"], "not a multiple of 64K below 4G"),
        (&[above[0], above[1], "--stripe-size", "0"], "not a multiple of 64K below 4G"),
        (&[above[0], above[1], "--stripe-size", "4G"], "not a multiple of 64K below 4G"),
        (&[above[0], above[1], "--stripe-pool", "sixteen-letters!"], "not 1 to 15 printable"),
        (&[above[0], above[1], "--stripe-pool", "a b"], "not 1 to 15 printable"),
    ] {
        let (status, text) = error(&[&NEEDED, arguments].concat());
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn no_authentication_on_loopback_or_when_asked_twice() {
    for bind in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(config(&["--auth", "none", "--bind", bind]).auth, Auth::None, "{bind}");
    }
    assert_eq!(config(&["--auth", "none", "--insecure"]).auth, Auth::None);
}

#[test]
fn help_and_version_are_for_standard_output() {
    for (flag, part) in [
        ("-h", "--space-wait"),
        ("-h", "Usage: fsqd [OPTIONS] -l <DIR> -i <FILE> <lustre_mount_point>"),
        ("--help", "--identmap"),
        ("-V", "fsqd "),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let Ok(Invocation::Print(text)) = parse(&[flag]) else { panic!("{flag}") };
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_command_line_wins_over_the_conf_file() {
    let text = "# site\r\nlocalfs /conf staging # two words\r\n\nidentmap\t/conf/map\nport 1\n\
                sthreads 2\nqthreads 3\ntolerr 4\nverbose warn\nauth none\ninsecure yes\n\
                buffer-memory 32M\nlog-format json\n";
    let (_dir, path) = conf(text);
    let Ok(Invocation::Run(config)) = parse(&["-c", &path, "/lustre"]) else { panic!("good") };
    assert_eq!(config.localfs, Path::new("/conf staging"));
    assert_eq!(config.identmap, Path::new("/conf/map"));
    assert_eq!((config.bind.port(), config.sthreads, config.qthreads), (1, 2, 3));
    assert_eq!((config.tolerr, config.verbose), (4, Verbosity::Warn));
    assert_eq!((config.auth, config.buffer_memory_bytes), (Auth::None, 32 << 20));

    let Ok(Invocation::Run(config)) = parse(&[
        "/lustre",
        "-p",
        "9",
        "--conf",
        &path,
        "-l/cli",
        "-v",
        "error",
        "--log-format=fsq",
        "--auth",
        "file:/pw",
        "-q5",
    ]) else {
        panic!("good")
    };
    assert_eq!(config.localfs, Path::new("/cli"));
    assert_eq!(config.identmap, Path::new("/conf/map"));
    assert_eq!((config.bind.port(), config.sthreads, config.qthreads), (9, 2, 5));
    assert_eq!((config.verbose, config.log_format), (Verbosity::Error, LogFormat::Fsq));
    assert_eq!(config.auth, Auth::File("/pw".into()));
}

#[test]
fn bad_conf_lines_name_file_and_line() {
    let table = [
        ("loclafs /a", "unknown key \"loclafs\"; keys are: localfs identmap port"),
        ("conf /other", "unknown key \"conf\""),
        ("check-config yes", "unknown key \"check-config\""),
        ("help yes", "unknown key \"help\""),
        ("target /lustre", "unknown key \"target\""),
        ("port=1", "unknown key \"port=1\""),
        ("p 1", "unknown key \"p\""),
        ("-p 1", "unknown key \"-p\""),
        ("port", "key port has no value"),
        ("port # none", "key port has no value"),
        ("port 70000", "from 0 to 65535"),
        ("port 1 2", "from 0 to 65535"),
        ("sthreads two", "from 1 to 1024"),
        ("verbose loud", "[possible values: error, warn"),
        ("insecure perhaps", "'perhaps' for '--insecure"),
        ("tolerr 3", "already set in line 2"),
    ];
    for (line, reason) in table {
        let (_dir, path) = conf(&format!("# comment\ntolerr 1\n\n{line}\n"));
        let (status, text) = error(&[&NEEDED, &["-c", path.as_str()][..]].concat());
        assert_eq!(status, 1, "{text}");
        assert!(text.starts_with(&format!("{path}:4: ")), "{text}");
        assert!(text.contains(reason), "{text} lacks {reason}");
    }
    let (status, text) = error(&[&NEEDED, &["-c", "/no/such/conf"][..]].concat());
    assert_eq!(status, 1);
    assert!(text.starts_with("/no/such/conf: No such file"), "{text}");
}

#[test]
fn every_contract_key_is_accepted_and_listed() {
    let lines = "localfs /l\nidentmap /i\nport 1\nsthreads 1\nqthreads 1\ntolerr 1\nverbose info\n\
                 bind ::1\nmax-sessions 1\nbuffer-memory 16M\ndurability fsync\nauth file:/p\n\
                 archive none\narchive-node n\narchive-password-file /p\narchive-server s\n\
                 athreads 1\ntarget-io auto\nverify stream\nstaging-high 90\nspace-wait 1\n\
                 ring-mode auto\nlog-format fsq\ninsecure no\nstall-timeout 1\nhung-after 2\n\
                 sign-on-cache 1\ntsm-library l\nstripe-above 1G\nstripe-count all\n\
                 stripe-size 1M\nstripe-pool p\n";
    let arguments = conf::arguments(lines.as_bytes(), "c").expect("all known");
    assert_eq!(arguments.len(), lines.lines().count());
    let text = conf::arguments(b"x y", "c").expect_err("unknown").to_string();
    for line in lines.lines() {
        let key = line.split(' ').next().expect("a key");
        assert!(text.contains(&format!(" {key}")), "{text} lacks {key}");
    }
}

#[test]
fn the_default_number_of_rings_is_what_cores_and_memory_allow() {
    assert_eq!(ring_count(None, 8, 256 << 20).expect("default"), 8);
    assert_eq!(ring_count(None, 0, 256 << 20).expect("default"), 1);
    assert_eq!(ring_count(None, 512, 256 << 20).expect("default"), 128);
    assert_eq!(ring_count(None, 4096, 1 << 40).expect("default"), 1024);
    assert_eq!(ring_count(Some(16), 2, 256 << 20).expect("more rings than cores"), 16);
}

#[test]
fn paths_are_made_absolute_and_normal() {
    let here = std::env::current_dir().expect("a working directory");
    assert_eq!(normalised("o", Path::new("a//./b/")).expect("good"), here.join("a/b"));
    assert_eq!(normalised("o", Path::new("//a//b//")).expect("good"), Path::new("/a/b"));
    assert!(normalised("o", Path::new("")).is_err());
}

#[test]
fn check_paths_names_what_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let config = Config {
        localfs: root.join("staging"),
        target: root.join("target"),
        identmap: root.join("map"),
        archive: Archive::Dir(root.join("archive")),
        ..config(&[])
    };
    let fails = |part: &str| {
        let error = config.check_paths().expect_err(part);
        assert_eq!(error.exit_status(), 1);
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    };
    fails("staging: No such file");
    fs::write(root.join("staging"), "").expect("written");
    fails("staging is not a directory");
    fs::remove_file(root.join("staging")).expect("removed");
    fs::create_dir(root.join("staging")).expect("made");
    fails("target: No such file");
    std::os::unix::fs::symlink("staging", root.join("target")).expect("linked");
    fails("archive: No such file");
    fs::create_dir(root.join("archive")).expect("made");
    fails("map: No such file");
    fs::write(root.join("map"), "n s 1 1 1\n").expect("written");
    fails("must not lie in each other");
    fs::remove_file(root.join("target")).expect("removed");
    fs::create_dir(root.join("target")).expect("made");
    config.check_paths().expect("all there");
}
