use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const TARGET: &str = "/lustre";

fn identity(directory: Option<&str>) -> Identity {
    Identity {
        node: "polaris".into(),
        servername: "tsmserver-8".into(),
        archive_id: 1,
        uid: 1000,
        gid: 2000,
        directory: directory.map(Into::into),
    }
}

fn admission(target: &str, map: &str) -> (Admission, Vec<Arc<Identity>>) {
    let map = IdentityMap::parse(map, "map").expect("good map");
    let identities = map.iter().cloned().collect();
    let map = SharedIdentityMap::new(map, PathBuf::from("map"));
    (Admission::new(target.into(), map, Ok(()), Some(4000)), identities)
}

fn captures() -> Admission {
    admission(TARGET, "polaris tsmserver-8 1 1000 2000 /lustre/data").0
}

fn admit(fs: &[u8], fpath: &[u8]) -> Result<Placement, Errno> {
    let refused = captures().admit(&identity(Some("/lustre/data")), fs, fpath, b"", 2);
    refused.map(|admitted| admitted.placement).map_err(|refusal| refusal.errno)
}

fn placement(staging: &str, target: &str) -> Placement {
    Placement { staging: staging.into(), target: target.into() }
}

#[test]
fn what_the_recorded_clients_send_is_admitted() {
    let admitted = captures()
        .admit(
            &identity(Some("/lustre/data")),
            b"/lustre",
            b"/lustre/data/x/small.dat",
            b"run 7\n",
            1,
        )
        .expect("admitted");
    let expected = Admitted {
        dest: StorageDest::Local,
        placement: placement("data/x/small.dat", "data/x/small.dat"),
        fs: "/lustre".into(),
        fpath: "/lustre/data/x/small.dat".into(),
        desc: b"run 7\n".to_vec(),
    };
    assert_eq!(admitted, expected);
    assert_eq!(admit(b"/lustre", b"/lustre/other/mid.dat"), Err(Errno::ACCESS));
}

#[test]
fn good_names() {
    let long = [b"/lustre/data/".as_slice(), &[b'a'; 255]].concat();
    let table: &[(&[u8], &[u8], &str, &str)] = &[
        (b"/lustre", b"/lustre/data/f", "data/f", "data/f"),
        (b"/lustre/", b"/lustre/data/f", "data/f", "data/f"),
        (b"/", b"/lustre/data/f", "lustre/data/f", "data/f"),
        (b"/lustre/data", b"/lustre/data/a/f", "a/f", "data/a/f"),
        (b"/lustre", b"/lustre/data/..f", "data/..f", "data/..f"),
        (b"/lustre", b"/lustre/data/ f '", "data/ f '", "data/ f '"),
        (b"/lustre", b"/lustre/data/.fsqd", "data/.fsqd", "data/.fsqd"),
        (b"/lustre", b"/lustre/data/.fsq-partly", "data/.fsq-partly", "data/.fsq-partly"),
    ];
    for &(fs, fpath, staging, target) in table {
        assert_eq!(admit(fs, fpath), Ok(placement(staging, target)), "{}", Quoted(fpath));
    }
    admit(b"/lustre", &long).expect("a component of 255 bytes");
    let latin1 = admit(b"/lustre", b"/lustre/data/M\xfcnchen").expect("bytes");
    assert_eq!(latin1.staging.as_os_str().as_bytes(), b"data/M\xfcnchen");
}

#[test]
fn hostile_names() {
    let component = [b"/lustre/data/".as_slice(), &[b'a'; 256]].concat();
    let whole = [b"/lustre/data".as_slice(), &b"/a".repeat(2042)].concat();
    assert_eq!(whole.len(), 4096);
    let table: &[(&[u8], &[u8], Errno)] = &[
        (b"/lustre", b"", Errno::INVAL),
        (b"", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre", b"lustre/data/f", Errno::INVAL),
        (b"lustre", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre", b"/lustre/data/f\n", Errno::INVAL),
        (b"/lustre", b"/lustre/data/\0f", Errno::INVAL),
        (b"/lustre", b"/lustre/data/\x7f", Errno::INVAL),
        (b"/lustre\x1b", b"/lustre\x1b/data/f", Errno::INVAL),
        (b"/lustre", b"/lustre/data/../other/f", Errno::ACCESS),
        (b"/lustre", b"/lustre/data/..", Errno::ACCESS),
        (b"/lustre/..", b"/lustre/data/f", Errno::ACCESS),
        (b"/lustre", b"/lustre/data/./f", Errno::INVAL),
        (b"/lustre", b"/lustre/data/.", Errno::INVAL),
        (b"/lustre", b"/lustre/data//f", Errno::INVAL),
        (b"/lustre", b"//lustre/data/f", Errno::INVAL),
        (b"//lustre", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre//", b"/lustre/data/f", Errno::INVAL),
        (b"//", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre", b"/lustre/data/f/", Errno::INVAL),
        (b"/lustre", b"/lustre/data/", Errno::INVAL),
        (b"/lustre", b"/lustre/data", Errno::ACCESS),
        (b"/lustre", b"/lustre/database/f", Errno::ACCESS),
        (b"/lustre", b"/lustre/other/f", Errno::ACCESS),
        (b"/lus", b"/lustre/data/f", Errno::INVAL),
        (b"/other", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre/data/f", b"/lustre/data/f", Errno::INVAL),
        (b"/lustre/data/f/g", b"/lustre/data/f", Errno::INVAL),
        (b"/", b"/", Errno::INVAL),
        (b"/lustre", &component, Errno::NAMETOOLONG),
        (b"/lustre", &whole, Errno::NAMETOOLONG),
        (b"/lustre/data", b"/lustre/data/.fsqd/lock", Errno::INVAL),
        (b"/lustre/data", b"/lustre/data/.fsqd", Errno::INVAL),
        (b"/lustre", b"/lustre/data/.fsq-part.1-2", Errno::INVAL),
        (b"/lustre", b"/lustre/data/.fsq-part.1-2/f", Errno::INVAL),
    ];
    for &(fs, fpath, errno) in table {
        assert_eq!(admit(fs, fpath), Err(errno), "{} {}", Quoted(fs), Quoted(fpath));
    }
}

#[test]
fn a_node_without_directory_writes_below_the_target() {
    let (admission, identities) = admission("/mnt/lustre", "vega s 1 1 1");
    let admit = |fpath: &[u8]| admission.admit(&identities[0], b"/mnt", fpath, b"", 2);
    let admitted = admit(b"/mnt/lustre/a/f").expect("below");
    assert_eq!(admitted.placement, placement("lustre/a/f", "a/f"));
    assert_eq!(admit(b"/mnt/other/f").expect_err("outside").errno, Errno::ACCESS);
    assert_eq!(admit(b"/mnt/lustre").expect_err("itself").errno, Errno::ACCESS);
}

#[test]
fn a_mount_point_seen_elsewhere_is_mapped_by_fs() {
    let map = "a s 1 1 1 /lustre/p1\nb s 1 1 1 /lustre/p2/x\nc s 1 1 1\n";
    let (admission, identities) = admission("/mnt/l1", map);
    type Case = (usize, &'static [u8], &'static [u8], Result<&'static str, Errno>);
    let table: &[Case] = &[
        (0, b"/lustre", b"/lustre/p1/f", Ok("p1/f")),
        (0, b"/lustre/", b"/lustre/p1/f", Ok("p1/f")),
        (0, b"/", b"/lustre/p1/f", Ok("lustre/p1/f")),
        (1, b"/lustre", b"/lustre/p2/x/f", Ok("p2/x/f")),
        // With a deeper fs the node could call its directory what it likes.
        (0, b"/lustre/p1", b"/lustre/p1/p2/x/f", Err(Errno::ACCESS)),
        (0, b"/lustre/p1/p2", b"/lustre/p1/p2/x/f", Err(Errno::ACCESS)),
        (1, b"/lustre/p2", b"/lustre/p2/x/f", Err(Errno::ACCESS)),
        (2, b"/lustre", b"/lustre/p3/f", Err(Errno::ACCESS)),
        (2, b"/lustre", b"/mnt/l1/f", Err(Errno::INVAL)),
        (2, b"/mnt", b"/mnt/l1/f", Ok("f")),
    ];
    for &(node, fs, fpath, ref expected) in table {
        let admitted = admission.admit(&identities[node], fs, fpath, b"", 2);
        let target = admitted.map(|admitted| admitted.placement.target);
        let expected = expected.map(PathBuf::from);
        assert_eq!(target.map_err(|refusal| refusal.errno), expected, "{}", Quoted(fpath));
    }
}

#[test]
fn two_legal_choices_of_fs_cannot_meet_in_one_directory() {
    // "/" gives node a the landing l/a, and "/l" gives node b the same.
    let map = "a s 1 1 1 /l/a\nb s 1 1 1 /l/l/a\nc s 1 1 1 /mnt/l/x\n";
    let (admission, identities) = admission("/mnt", map);
    let errno = |node: usize, fs: &[u8], fpath: &[u8]| {
        admission.admit(&identities[node], fs, fpath, b"", 2).map_err(|refusal| refusal.errno)
    };
    // A directory below the target fixes fs to "/": nothing else is above all three.
    assert_eq!(errno(1, b"/l", b"/l/l/a/f"), Err(Errno::ACCESS));
    assert!(errno(1, b"/", b"/l/l/a/f").is_ok());
    assert!(errno(0, b"/", b"/l/a/f").is_ok());

    let (admission, identities) = self::admission("/mnt", "a s 1 1 1 /l/a\nb s 1 1 1 /l/l/a\n");
    let errno = |node: usize, fs: &[u8], fpath: &[u8]| {
        let admitted = admission.admit(&identities[node], fs, fpath, b"", 2);
        admitted.map(|_| ()).map_err(|refusal| refusal.errno)
    };
    assert_eq!(errno(0, b"/", b"/l/a/f"), Err(Errno::ACCESS));
    assert_eq!(errno(1, b"/l", b"/l/l/a/f"), Err(Errno::ACCESS));
    assert_eq!(errno(0, b"/l", b"/l/a/f"), Ok(()));
    assert_eq!(errno(1, b"/", b"/l/l/a/f"), Ok(()));

    // Node a would land in what node c, below the target, calls its own.
    let (admission, identities) = self::admission("/mnt", "a s 1 1 1 /x/p\nc s 1 1 1 /mnt/x/p\n");
    let refused = admission.admit(&identities[0], b"/", b"/x/p/f", b"", 2).expect_err("taken");
    assert!(refused.text.contains("another node"), "{refused}");
    admission.admit(&identities[1], b"/mnt", b"/mnt/x/p/f", b"", 2).expect("its own");
}

#[test]
fn a_reload_counts_at_the_next_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("identmap");
    std::fs::write(&path, "a s 1 1 1 /l/a\n").expect("written");
    let map = SharedIdentityMap::load(&path).expect("good");
    let admission = Admission::new("/mnt".into(), map.clone(), Ok(()), None);
    let node = map.lookup("a").expect("there");
    admission.admit(&node, b"/l/a", b"/l/a/f", b"", 2).expect("alone");
    std::fs::write(&path, "a s 1 1 1 /l/a\nb s 1 1 1 /l/b\n").expect("written");
    map.reload().expect("good");
    let refused = admission.admit(&node, b"/l/a", b"/l/a/f", b"", 2).expect_err("no longer");
    assert_eq!(refused.errno, Errno::ACCESS);
}

#[test]
fn destinations() {
    let node = identity(None);
    let (mut admission, _) = admission(TARGET, "n s 1 1 1");
    let admit = |admission: &Admission, dest| {
        let admitted = admission.admit(&node, b"/lustre", b"/lustre/f", b"", dest);
        admitted.map(|admitted| admitted.dest).map_err(|refusal| refusal.errno)
    };
    for (number, dest) in [
        (0, StorageDest::Null),
        (1, StorageDest::Local),
        (2, StorageDest::Lustre),
        (3, StorageDest::Tsm),
        (4, StorageDest::LustreTsm),
    ] {
        assert_eq!(admit(&admission, number), Ok(dest));
    }
    for number in [-1, 5, i32::MIN, i32::MAX] {
        assert_eq!(admit(&admission, number), Err(Errno::INVAL));
    }
    admission.archive = Err("no archive is configured".into());
    assert_eq!(admit(&admission, 2), Ok(StorageDest::Lustre));
    for number in [3, 4] {
        assert_eq!(admit(&admission, number), Err(Errno::NOSYS));
    }
    let refused = admission.admit(&node, b"/lustre", b"/lustre/f", b"", 3).expect_err("refused");
    assert!(refused.text.ends_with(": no archive is configured"), "{refused}");
}

#[test]
fn attributes_that_do_not_fit_are_refused_at_the_exact_byte() {
    let node = identity(None);
    let (mut admission, _) = admission(TARGET, "n s 1 1 1");
    let fpath = [b"/lustre".as_slice(), &b"/abcdefg".repeat(8)].concat();
    let needed = attribute_bytes(7, fpath.len(), 9);
    let mut errno = |max| {
        admission.attribute_bytes_max = max;
        let admitted = admission.admit(&node, b"/lustre", &fpath, b"some text", 2);
        admitted.map(|_| ()).map_err(|refusal| refusal.errno)
    };
    assert_eq!(errno(Some(needed)), Ok(()));
    assert_eq!(errno(Some(needed - 1)), Err(Errno::NAMETOOLONG));
    assert_eq!(errno(None), Ok(()));
}

#[test]
fn target_paths_of_recovered_files() {
    let path = |target: &str, fs: &str, fpath: &str| {
        target_path(Path::new(target), OsStr::new(fs), OsStr::new(fpath))
    };
    assert_eq!(path("/lustre", "/", "/lustre/a/f"), Some("a/f".into()));
    assert_eq!(path("/mnt", "/lustre/", "/lustre/a/f"), Some("a/f".into()));
    assert_eq!(path("/mnt", "/lustre", "/lustre"), None);
    assert_eq!(path("/mnt", "/lustre", "/lustre/../f"), None);
    assert_eq!(path("/mnt", "/other", "/lustre/f"), None);
    assert_eq!(path("/mnt", "", "/lustre/f"), None);
    assert_eq!(path("/mnt", "", ""), None);
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::sample::select(vec![
            "lustre", "data", "p1", "p2", "f", "", ".", "..", ".fsqd", ".fsq-part.1", "...", "\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), proptest::collection::vec(piece(), 0..20)).prop_map(|(absolute, pieces)| {
        let mut name = if absolute { b"/".to_vec() } else { Vec::new() };
        name.extend(pieces.join(&b'/'));
        name
    })
}

fn confined(path: &Path) -> bool {
    !path.as_os_str().is_empty()
        && path.as_os_str().as_bytes().split(|&byte| byte == b'/').all(|part| {
            !matches!(part, b"" | b"." | b"..") && !part.iter().any(u8::is_ascii_control)
        })
}

const MAP: &str = "a s 1 1 1 /lustre/data\nb s 1 1 1 /lustre/p1\nc s 1 1 1\nd s 1 1 1 /data/p2\n\
                   e s 1 1 1 /lustre/lustre/p1\n";

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        max_global_rejects: 40_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_admitted_stays_below_its_roots(
        node in 0usize..5,
        target in proptest::sample::select(vec!["/lustre", "/mnt", "/"]),
        fs in name(),
        fpath in name(),
        cut in proptest::option::of(0usize..3000),
    ) {
        // Random names seldom match; most cases take fs from the front of fpath.
        let fs = cut.map_or(fs, |cut| fpath[..cut % (fpath.len() + 1)].to_vec());
        let (admission, identities) = admission(target, MAP);
        match admission.admit(&identities[node], &fs, &fpath, b"", 2) {
            Ok(admitted) => {
                let Placement { staging, target: below_target } = &admitted.placement;
                prop_assert!(confined(staging), "{staging:?}");
                prop_assert!(confined(below_target), "{below_target:?}");
                let again = target_path(Path::new(target), &admitted.fs, &admitted.fpath);
                prop_assert_eq!(again.as_ref(), Some(below_target));
                prop_assert!(admitted.fpath.as_bytes().ends_with(staging.as_os_str().as_bytes()));
            }
            Err(refusal) => {
                prop_assert!(refusal.text.len() < 1000, "{}", refusal.text);
                prop_assert!(!refusal.text.chars().any(char::is_control));
            }
        }
    }

    /// Nodes whose directories do not contain each other never write to one path of the target.
    #[test]
    fn no_node_lands_where_another_may(
        one in "(/[ab]){1,3}",
        two in "(/[ab]){1,3}",
        target in "(/[ab]){1,2}",
        rest in "(/[ab]){1,3}",
        other in "(/[ab]){1,3}",
        fs in (0usize..4, 0usize..4),
    ) {
        let (first, second) = (Path::new(&one), Path::new(&two));
        prop_assume!(!first.starts_with(second) && !second.starts_with(first));
        // A node that owns the whole target shares it with all.
        prop_assume!(!Path::new(&target).starts_with(first));
        prop_assume!(!Path::new(&target).starts_with(second));
        let map = format!("one s 1 1 1 {one}\ntwo s 1 1 1 {two}\n");
        let (admission, identities) = admission(&target, &map);
        let land = |node: usize, fpath: String, depth: usize| {
            let fs = Path::new(&fpath).ancestors().nth(depth + 1)?.as_os_str().as_bytes().to_vec();
            admission.admit(&identities[node], &fs, fpath.as_bytes(), b"", 2).ok()
        };
        let landed = land(0, format!("{one}{rest}"), fs.0);
        let neighbour = land(1, format!("{two}{other}"), fs.1);
        if let (Some(landed), Some(neighbour)) = (landed, neighbour) {
            prop_assert_ne!(landed.placement.target, neighbour.placement.target);
        }
    }
}
