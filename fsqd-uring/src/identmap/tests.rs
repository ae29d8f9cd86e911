use super::*;

const GOOD: &str = "# who writes where\r\n\
    polaris tsmserver-8 15 1000 2000 /lustre/data/\r\n\
    \r\n\
    \tvega  tsmserver-8\t0 0 0 # whole mount\n\
    sirius tsmserver-9 2147483647 4294967294 7 ///\n";

fn error(text: &str) -> String {
    IdentityMap::parse(text, "/etc/identmap").expect_err(text).to_string()
}

#[test]
fn good_map() {
    let map = IdentityMap::parse(GOOD, "m").expect("good");
    let nodes: Vec<_> = map.iter().map(|identity| identity.node.as_str()).collect();
    assert_eq!(nodes, ["polaris", "vega", "sirius"]);
    let polaris = map.lookup("polaris").expect("there");
    assert_eq!(polaris.directory.as_deref(), Some("/lustre/data"));
    assert_eq!(
        polaris.to_string(),
        "node: 'polaris', servername: 'tsmserver-8', archive_id: 15, uid: 1000, gid: 2000"
    );
    assert_eq!(map.lookup("vega").expect("there").directory, None);
    let sirius = map.lookup("sirius").expect("there");
    assert_eq!(sirius.directory.as_deref(), Some("/"));
    assert_eq!((sirius.archive_id, sirius.uid), (i32::MAX, u32::MAX - 1));
    assert_eq!(map.lookup("Polaris"), None);
    assert_eq!(map.lookup(""), None);
}

#[test]
fn bad_lines_name_file_line_and_reason() {
    let long = format!("{} s 1 1 1", "n".repeat(65));
    let deep = format!("n s 1 1 1 /{}", "d".repeat(4000));
    let table = [
        ("n", "1 columns"),
        ("n s 1 1", "4 columns"),
        ("n s 1 1 1 /a /b", "7 columns"),
        ("n s -1 1 1 /a", "archive-id \"-1\""),
        ("n s 2147483648 1 1 /a", "archive-id"),
        ("n s x 1 1 /a", "archive-id \"x\""),
        ("n s 1 4294967295 1 /a", "uid \"4294967295\""),
        ("n s 1 root 1 /a", "uid \"root\""),
        ("n s 1 1 -5 /a", "gid \"-5\""),
        ("n s 1 1 1 a", "is not absolute"),
        ("n s 1 1 1 /a//b", "contains '//'"),
        ("n s 1 1 1 //a", "contains '//'"),
        ("n s 1 1 1 /a/../b", "'..'"),
        ("n s 1 1 1 /a/.", "'.'"),
        ("n s 1 1 1 /a\u{1b}b", "control character"),
        ("n\u{7f} s 1 1 1 /a", "control character"),
        (&long, "node has 65 bytes"),
        (&deep, "longer than"),
    ];
    for (line, reason) in table {
        let text = error(&format!("# first\nok s 1 1 1 /ok\n{line}\n"));
        assert!(text.starts_with("/etc/identmap:3: "), "{text}");
        assert!(text.contains(reason), "{text} lacks {reason}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn duplicate_nodes_are_an_error_that_names_both_lines() {
    let text = error("a s 1 1 1 /a\nb s 1 1 1 /b\na s 1 1 1 /c\n");
    assert_eq!(text, "/etc/identmap:3: node 'a' is already defined in line 1");
}

#[test]
fn an_empty_map_is_an_error() {
    assert!(error("# nothing\n\n").contains("/etc/identmap: no identity in it"));
}

#[test]
fn comments_need_not_be_utf8_but_columns_must() {
    let mut text = b"# Gr\xf6\xdfe\na s 1 1 1 /a\n".to_vec();
    IdentityMap::parse(&text, "m").expect("comment only");
    text.extend(b"b s 1 1 1 /\xf6\n");
    assert_eq!(IdentityMap::parse(&text, "m").expect_err("column").to_string(), "m:3: not UTF-8");
}

#[test]
fn a_bad_file_keeps_the_old_map() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("identmap");
    std::fs::write(&path, "a s 1 1 1 /a\n").expect("written");
    let shared = SharedIdentityMap::load(&path).expect("good");
    let clone = shared.clone();

    std::fs::write(&path, "b s 1 1 1 /b\nbroken\n").expect("written");
    let text = shared.reload().expect_err("bad").to_string();
    assert!(text.contains("identmap:2: 1 columns"), "{text}");
    assert!(clone.lookup("a").is_some() && clone.lookup("b").is_none());

    std::fs::remove_file(&path).expect("removed");
    assert!(shared.reload().is_err());
    assert!(clone.lookup("a").is_some());

    std::fs::write(&path, "b s 1 1 1 /b\n").expect("written");
    shared.reload().expect("good again");
    assert!(clone.lookup("a").is_none() && clone.lookup("b").is_some());
}
