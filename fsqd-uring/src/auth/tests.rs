use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::identmap::IdentityMap;

const MAP: &str = "polaris tsmserver-8 15 1000 2000 /lustre/data\nvega tsmserver-8 1 1 1\n";
const NO_LIBRARY: &str = "/nonexistent/libApiTSM64.so";
const PASSWORDS: &str = "polaris polaris1234\nstranger stranger1234\n";

fn write(path: &Path, text: &str, mode: u32) {
    // Written again, it may have a mode that does not let its owner write.
    let _ = fs::remove_file(path);
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode set");
}

fn sign_on(auth: &Auth) -> SignOn {
    let map = IdentityMap::parse(MAP, "map").expect("good");
    let map = SharedIdentityMap::new(map, "/no/such/map".into());
    let auth = authenticator(auth, Some(Path::new(NO_LIBRARY)), Arc::new(SystemClock::new()));
    SignOn { map, auth: auth.expect("usable") }
}

fn try_sign_on(door: &SignOn, node: &str, password: &str) -> Result<String, Refusal> {
    let signed_on = door.sign_on(node, &Secret::new(password.as_bytes()), "192.0.2.1:99");
    signed_on.map(|identity| identity.node.clone())
}

#[test]
fn unknown_nodes_and_wrong_passwords_get_the_same_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("passwords");
    write(&path, PASSWORDS, 0o600);
    let door = sign_on(&Auth::File(path));
    assert_eq!(try_sign_on(&door, "polaris", "polaris1234"), Ok("polaris".to_owned()));
    // In the map without a password, in neither, with a wrong one.
    for node in ["vega", "nobody", "polaris", "stranger", "", "no\nbody"] {
        let refusal = try_sign_on(&door, node, "hidden").expect_err(node);
        assert_eq!(refusal.errno, Errno::ACCESS);
        let shown = Quoted(node.as_bytes());
        let expected = format!("node {shown} is unknown here or its password is wrong");
        assert_eq!(refusal.text, expected);
    }
    // Who has a password may know what is missing.
    let refusal = try_sign_on(&door, "stranger", "stranger1234").expect_err("not in the map");
    assert_eq!(refusal.errno, Errno::ACCESS);
    assert!(refusal.text.contains("'stranger' is not in the identity map"), "{refusal}");
}

#[test]
fn without_a_check_the_name_is_enough() {
    let door = sign_on(&Auth::None);
    assert_eq!(try_sign_on(&door, "vega", "anything"), Ok("vega".to_owned()));
    assert_eq!(try_sign_on(&door, "nobody", "").expect_err("unknown").errno, Errno::ACCESS);
}

#[test]
fn without_the_tsm_library_the_default_refuses_everybody_with_the_reason() {
    let door = sign_on(&Auth::Tsm { asked: false, cache: Duration::ZERO });
    let refusal = try_sign_on(&door, "polaris", "polaris1234").expect_err("refused");
    assert_eq!(refusal.errno, Errno::ACCESS);
    for part in ["nobody can sign on here: ", NO_LIBRARY, "--auth file:PATH", "--tsm-library"] {
        assert!(refusal.text.contains(part), "{refusal}");
    }
}

#[test]
fn without_the_tsm_library_no_daemon_starts_that_was_asked_for_it() {
    let auth = Auth::Tsm { asked: true, cache: Duration::ZERO };
    let library = Some(Path::new(NO_LIBRARY));
    let error = authenticator(&auth, library, Arc::new(SystemClock::new())).err().expect("none");
    assert_eq!(error.exit_status(), 1);
    for part in ["--auth tsm: ", NO_LIBRARY, "No such file", "--auth file:PATH"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_password_file_that_others_can_read_is_refused_with_the_cure() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("passwords");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
        write(&path, PASSWORDS, mode);
        let text = FileAuth::load(&path).expect_err("open to others").to_string();
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
        assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
    }
    for mode in [0o600, 0o400, 0o700] {
        write(&path, PASSWORDS, mode);
        FileAuth::load(&path).expect("the owner's alone");
    }
    fs::remove_file(&path).expect("removed");
    assert!(FileAuth::load(&path).expect_err("gone").to_string().contains("No such file"));
}

#[test]
fn a_reload_takes_what_is_good_and_keeps_the_old_of_what_is_bad() {
    let dir = tempfile::tempdir().expect("a directory");
    let (map, passwords) = (dir.path().join("identmap"), dir.path().join("passwords"));
    write(&map, MAP, 0o644);
    write(&passwords, PASSWORDS, 0o600);
    let door = SignOn {
        map: SharedIdentityMap::load(&map).expect("good"),
        auth: Box::new(FileAuth::load(&passwords).expect("usable")),
    };
    assert!(door.reload().is_empty());

    write(&passwords, "polaris new\n", 0o644);
    write(&map, "broken\n", 0o644);
    let errors: Vec<String> = door.reload().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("chmod 600"), "{errors:?}");
    assert!(errors[1].contains("identmap:1: "), "{errors:?}");
    assert!(try_sign_on(&door, "polaris", "polaris1234").is_ok());

    write(&passwords, "polaris new\n", 0o600);
    let errors = door.reload();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(try_sign_on(&door, "polaris", "polaris1234").is_err());
    assert!(try_sign_on(&door, "polaris", "new").is_ok());
}

#[test]
fn no_password_reaches_an_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("passwords");
    write(&path, "polaris hidden\n", 0o600);
    for auth in [Auth::File(path), Auth::Tsm { asked: false, cache: Duration::ZERO }] {
        for given in ["secret-one", "hidde", "hidden2"] {
            let refusal = try_sign_on(&sign_on(&auth), "polaris", given).expect_err("wrong");
            let text = format!("{refusal} {refusal:?}");
            assert!(!text.contains(given) && !text.contains("hidden"), "{text}");
        }
    }
}
