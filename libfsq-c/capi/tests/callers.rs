//! Programs in C and C++ against the installed library, the way deployed callers use it.
//!
//! The library is installed once per run with `scripts/install-libfsqapi` into a directory of the
//! build; every program is compiled as C11 and, where there is a C++ compiler, as C++17.

#[path = "../../tests/double/mod.rs"]
mod double;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use double::{Act, Double};
use libfsq::Op;

/// Longer than any fault may take, with the limits that the tests set.
const BOUND: Duration = Duration::from_secs(30);

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn must(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The prefix under which the library of this build is installed.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let stage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stage");
        if stage.exists() {
            fs::remove_dir_all(&stage).unwrap();
        }
        // Cargo leaves the libraries of a test build beside the test.
        let exe = std::env::current_exe().unwrap();
        must(
            Command::new(repository().join("scripts/install-libfsqapi"))
                .args(["--from".as_ref(), exe.parent().unwrap()])
                .env("DESTDIR", &stage)
                .env("PREFIX", "/opt/fsq"),
        );
        stage.join("opt/fsq")
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    C11,
    Cpp17,
}

/// The languages that can be tested here.
fn languages() -> Vec<Language> {
    let has_cpp = Command::new("c++").arg("--version").output().is_ok();
    if !has_cpp {
        println!("skipped as C++17: there is no c++ on the path");
    }
    [Language::C11, Language::Cpp17]
        .into_iter()
        .filter(|l| has_cpp || *l == Language::C11)
        .collect()
}

/// Compiles one source into a program linked with the shared library, `flags` in front of it.
fn compile(language: Language, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    link(language, source, name, flags, &["-lfsqapi", "-pthread"])
}

fn link(language: Language, source: &str, name: &str, flags: &[&str], libs: &[&str]) -> PathBuf {
    let mut command = match language {
        Language::C11 => Command::new("cc"),
        Language::Cpp17 => Command::new("c++"),
    };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{language:?}"));
    match language {
        Language::C11 => command.args(["-std=c11", "-D_GNU_SOURCE"]),
        Language::Cpp17 => command.args(["-std=c++17", "-x", "c++"]),
    };
    let lib = installed().join("lib");
    command
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"])
        .args(flags)
        .arg("-I")
        .arg(installed().join("include"))
        .arg(sources().join(source))
        .args(["-x", "none", "-o"])
        .arg(&program)
        .arg("-L")
        .arg(&lib)
        .arg(format!("-Wl,-rpath,{}", lib.display()))
        .args(libs);
    must(&mut command);
    program
}

/// A scenario of `caller.c`, with the double on this port.
fn scenario(program: &Path, name: &str, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args([name, &port.to_string()]).env("FSQ_REPLY_TIMEOUT_MS", "20000");
    command
}

fn refuses_first_open(op: Op, nth: usize) -> Act {
    if (op, nth) == (Op::Open, 0) { Act::Refuse(17, "the file exists") } else { Act::Grant }
}

/// Every scenario against a fresh double, which is then looked at.
fn every_scenario(mut run: impl FnMut(&str, u16)) {
    let good = |name: &str, run: &mut dyn FnMut(&str, u16)| {
        let double = Double::good();
        run(name, double.port);
        double
    };
    good("arguments", &mut run);
    good("messages", &mut run);
    good("unknown_host", &mut run);
    good("standard_descriptors", &mut run);

    let double = good("ten_files", &mut run);
    let files = double.files();
    assert_eq!((files.len(), double.logins().len()), (20, 2));
    assert!(files.iter().all(|file| file.is_acknowledged && file.bytes.len() == 10_000));
    assert!(double.logins().iter().all(|login| login.password == "correct-horse"));

    let file = good("event", &mut run).files().remove(0);
    assert_eq!((file.bytes.len(), file.dest, file.desc.as_str()), (8_000_064, 3, "described"));
    assert_eq!(file.sizes, [4_000_032, 4_000_000, 32], "the 32 bytes cost no round trip");
    assert_eq!((file.bytes[31], file.bytes[32], file.bytes[8_000_032]), (b'h', b'd', b't'));

    let files = good("abandoned", &mut run).files();
    let fates: Vec<_> = files.iter().map(|f| (f.path.as_str(), f.is_acknowledged)).collect();
    assert_eq!(fates, [("/lustre/never", false), ("/lustre/good", true), ("/lustre/better", true)]);
    assert!(files[1].bytes == vec![b'g'; 100_000]);

    let double = Double::scripted(refuses_first_open);
    run("failed_open", double.port);
    assert_eq!(double.files().last().unwrap().bytes, vec![b'n'; 10]);

    let files = good("threads", &mut run).files();
    assert_eq!(files.len(), 80);
    for file in files {
        let number: u8 = file.path["/lustre/".len()..].split('-').next().unwrap().parse().unwrap();
        assert!(file.is_acknowledged && file.bytes == vec![b'a' + number; 300_000]);
    }

    let file = good("by_hand", &mut run).files().remove(0);
    assert!(file.is_acknowledged && file.bytes == b"usual hand");
}

#[test]
fn layouts_and_names_are_those_of_the_old_headers() {
    for language in languages() {
        for (name, flags) in [
            ("layout", &[][..]),
            ("layout-wrapped", &["-DWRAPPED"]),
            ("layout-neighbour", &["-DNEIGHBOUR_HEADERS"]),
            ("layout-both", &["-DNEIGHBOUR_HEADERS", "-DWRAPPED"]),
        ] {
            let program = compile(language, "layout.c", name, flags);
            let output = run(&mut Command::new(&program));
            assert!(output.status.success(), "{program:?}: {output:?}");
            if !flags.contains(&"-DNEIGHBOUR_HEADERS") {
                let told = String::from_utf8(output.stderr).unwrap();
                let lines: Vec<_> = told.lines().collect();
                assert_eq!(lines.len(), 4, "{told}");
                assert!(lines[0].ends_with("] failed with 7: Input/output error"), "{told}");
                assert!(lines[1].starts_with("[E] 1") && lines[1].contains("layout.c:"));
                assert!(lines[1].ends_with(" no arguments: No such file or directory"), "{told}");
                assert!(lines[2].starts_with("[W] ") && lines[2].ends_with(" one 1"), "{told}");
                assert!(lines[3].starts_with("[M] ") && lines[3].ends_with(" a message"), "{told}");
            }
        }
    }
}

#[test]
fn callers_of_the_field_linked_shared() {
    for language in languages() {
        for (name, flags) in [("caller", &[][..]), ("caller-wrapped", &["-DWRAPPED"])] {
            let program = compile(language, "caller.c", name, flags);
            every_scenario(|name, port| {
                must(&mut scenario(&program, name, port));
            });
            // And as before, one reply at a time.
            let double = Double::good();
            must(scenario(&program, "event", double.port).env("FSQ_WINDOW", "1"));
            assert_eq!(double.files()[0].sizes, [32, 4_000_000, 4_000_000, 32]);
        }
    }
}

#[test]
fn callers_of_the_field_linked_static() {
    let archive = installed().join("lib/libfsqapi.a");
    let libs = [archive.to_str().unwrap(), "-lgcc_s", "-lpthread", "-lm", "-ldl"];
    // Into a plug-in, without relocations in its text.
    let plugin = ["-shared", "-fPIC", "-Wl,-z,text", "-Wl,--no-undefined"];
    link(Language::C11, "caller.c", "plugin.so", &plugin, &libs);
    for language in languages() {
        let program = link(language, "caller.c", "caller-static", &[], &libs);
        every_scenario(|name, port| {
            must(&mut scenario(&program, name, port));
        });
    }
}

#[test]
fn callers_are_clean_under_valgrind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: there is no valgrind on the path");
        return;
    }
    let program = compile(Language::C11, "caller.c", "caller-valgrind", &[]);
    every_scenario(|name, port| {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--error-exitcode=99", "--leak-check=full", "--track-fds=no"]);
        command.args(["--errors-for-leak-kinds=definite"]).arg(&program);
        must(command.args([name, &port.to_string()]).env("FSQ_REPLY_TIMEOUT_MS", "100000"));
    });
}

#[test]
fn callers_are_clean_under_the_address_sanitizer() {
    let sanitize = "-fsanitize=address,undefined";
    let probe = Command::new("cc")
        .args([sanitize, "-xc", "-", "-o", "/dev/null"])
        .stdin(fs::File::open(sources().join("neighbour.c")).unwrap())
        .arg("-shared")
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("skipped: cc cannot link with {sanitize}");
        return;
    }
    let flags = [sanitize, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let program = compile(Language::C11, "caller.c", "caller-sanitized", &flags);
    every_scenario(|name, port| {
        must(&mut scenario(&program, name, port));
    });
}

#[test]
fn a_fault_at_any_stage_is_a_negative_errno_in_time() {
    const TIMED_OUT: &str = "110";
    let program = compile(Language::C11, "caller.c", "caller-fault", &[]);
    let stages = [(Op::Connect, 0), (Op::Open, 0), (Op::Data, 0), (Op::Data, 2), (Op::Close, 0)];
    for (stage, nth) in stages {
        for act in [Act::Vanish, Act::VanishInPayload(70_000), Act::Silence] {
            if matches!(act, Act::VanishInPayload(_)) && stage != Op::Data {
                continue;
            }
            for window in ["1", "16"] {
                let double =
                    Double::scripted(
                        move |op, count| {
                            if (op, count) == (stage, nth) { act } else { Act::Grant }
                        },
                    );
                let begin = Instant::now();
                let mut command = scenario(&program, "fault", double.port);
                command.env("FSQ_WINDOW", window).env("FSQ_REPLY_TIMEOUT_MS", "300");
                let errno = must(&mut command);
                let place = format!("{stage} {nth} {act:?} window {window}: errno {errno}");
                assert!(begin.elapsed() < BOUND, "{place}");
                match act {
                    Act::Silence => assert_eq!(errno.trim(), TIMED_OUT, "{place}"),
                    _ => assert!(["104", "32"].contains(&errno.trim()), "{place}"),
                }
            }
        }
    }
    // Nobody listens there.
    assert_eq!(must(&mut scenario(&program, "fault", 1)).trim(), "111");
    let refused = Double::scripted(|_, _| Act::RefuseAndVanish(13, "unknown node"));
    assert_eq!(must(&mut scenario(&program, "fault", refused.port)).trim(), "13");
}

#[test]
fn a_neighbour_that_comes_first_governs_the_level() {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let neighbour = sources().join("neighbour.c");
    must(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(tmp.join("libneighbour.so"))
            .arg(&neighbour),
    );
    let object = tmp.join("neighbour.o");
    must(Command::new("cc").args(["-c", "-DSTATIC_NEIGHBOUR", "-o"]).arg(&object).arg(&neighbour));
    let static_neighbour = tmp.join("libneighbour.a");
    must(Command::new("ar").arg("rcs").arg(&static_neighbour).arg(&object));

    let (tmp_dir, archive) = (format!("-L{}", tmp.display()), installed().join("lib/libfsqapi.a"));
    let rpath = format!("-Wl,-rpath,{}", tmp.display());
    let shared = [&*tmp_dir, &rpath, "-lneighbour", "-lfsqapi", "-pthread"];
    // Whole, so that all its names meet all of ours.
    let statically = [
        "-Wl,--whole-archive",
        static_neighbour.to_str().unwrap(),
        archive.to_str().unwrap(),
        "-Wl,--no-whole-archive",
        "-lgcc_s",
        "-lpthread",
        "-lm",
        "-ldl",
    ];
    for language in languages() {
        for (name, libs) in [("beside-shared", &shared[..]), ("beside-static", &statically)] {
            for (suffix, flags) in [("", &[][..]), ("-headers", &["-DNEIGHBOUR_HEADERS"])] {
                let name = format!("{name}{suffix}");
                let program = link(language, "caller.c", &name, flags, libs);
                let double = Double::good();
                let output = run(&mut scenario(&program, "neighbour_level", double.port));
                assert!(output.status.success(), "{name}: {output:?}");
                let told = String::from_utf8(output.stderr).unwrap();
                let (off, on) = told.split_once("--\n").unwrap();
                assert_eq!(off, "", "{name}: silent at the neighbour's level 0");
                assert!(on.contains("no file is open"), "{name}: told at its level 6: {on}");
                let double = Double::good();
                must(&mut scenario(&program, "event", double.port));
            }
        }
    }
}

#[test]
fn exactly_the_public_symbols_and_the_soname() {
    const FSQ_API: [&str; 15] = [
        "api_error",
        "api_error_callback_set",
        "api_info_callback_set",
        "api_msg_get_level",
        "api_msg_set_level",
        "fsq_fclose",
        "fsq_fconnect",
        "fsq_fdisconnect",
        "fsq_fdopen",
        "fsq_fopen",
        "fsq_fwrite",
        "fsq_init",
        "fsq_packet_endian_swap",
        "fsq_recv",
        "fsq_send",
    ];
    let lib = installed().join("lib");
    let names = |table: String| {
        let names = table.lines().filter_map(|line| line.split_whitespace().nth(2));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    let shared =
        must(Command::new("nm").args(["-D", "--defined-only"]).arg(lib.join("libfsqapi.so")));
    let mut expected = FSQ_API.to_vec();
    expected.extend(["parse_conf", "read_size", "time_now", "write_size"]);
    assert_eq!(names(shared), expected);
    let archive =
        must(Command::new("nm").args(["-g", "--defined-only"]).arg(lib.join("libfsqapi.a")));
    assert_eq!(names(archive), FSQ_API);

    let dynamic = must(Command::new("readelf").arg("-d").arg(lib.join("libfsqapi.so")));
    assert!(dynamic.contains("Library soname: [libfsqapi.so.1]"), "{dynamic}");
    let target = |name: &str| fs::read_link(lib.join(name)).unwrap();
    assert_eq!(target("libfsqapi.so"), Path::new("libfsqapi.so.1"));
    assert_eq!(target("libfsqapi.so.1"), Path::new("libfsqapi.so.1.0.0"));
}

#[test]
fn pkg_config_knows_the_library() {
    let config = installed().join("lib/pkgconfig/fsqapi.pc");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("prefix=/opt/fsq\nlibdir=/opt/fsq/lib\n"), "{text}");
    if Command::new("pkg-config").arg("--version").output().is_err() {
        println!("skipped: there is no pkg-config on the path");
        return;
    }
    let flags = must(Command::new("pkg-config").args(["--cflags", "--libs"]).arg(&config));
    assert_eq!(flags.trim(), "-I/opt/fsq/include -L/opt/fsq/lib -lfsqapi");
}

/// The complete programs of the documentation, as they stand there.
#[test]
fn the_documented_programs_work() {
    let page = fs::read_to_string(repository().join("docs/libfsqapi.md")).unwrap();
    let program = |fence: &str| {
        let (_, rest) = page.split_once(&format!("```{fence}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    for language in languages() {
        let (fence, std) = match language {
            Language::C11 => ("c", "-std=c11"),
            Language::Cpp17 => ("cpp", "-std=c++17"),
        };
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = tmp.join(format!("documented.{fence}"));
        fs::write(&source, program(fence)).unwrap();
        let name = format!("documented-{fence}");
        let binary = tmp.join(&name);
        let lib = installed().join("lib");
        must(
            Command::new(if language == Language::C11 { "cc" } else { "c++" })
                .args([std, "-Wall", "-Wextra", "-Werror", "-o"])
                .arg(&binary)
                .arg("-I")
                .arg(installed().join("include"))
                .arg(&source)
                .arg("-L")
                .arg(&lib)
                .arg(format!("-Wl,-rpath,{}", lib.display()))
                .arg("-lfsqapi"),
        );
        let double = Double::good();
        let port = double.port.to_string();
        let mut command = Command::new(&binary);
        command.args(["localhost", &port, "polaris", "/lustre", "/lustre/hello"]);
        must(command.env("FSQ_PASSWORD", "pw"));
        let file = double.files().remove(0);
        assert!(file.is_acknowledged && file.bytes == b"hello, world\n", "{file:?}");

        let double = Double::scripted(refuses_first_open);
        let port = double.port.to_string();
        let mut command = Command::new(&binary);
        command.args(["localhost", &port, "polaris", "/lustre", "/lustre/hello"]);
        let output = run(command.env("FSQ_PASSWORD", "pw"));
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("the file exists"));
    }
}
