use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use tsm_bindings::tsm::CallError;

use super::*;
use crate::clock::SystemClock;
use crate::services::Secret;

/// Answers as scripted, then that all is well; remembers what it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<tsm::Error>>,
    asked: Mutex<Vec<(String, String)>>,
    /// Questions at the same time, now and at most.
    inside: AtomicU32,
    most: AtomicU32,
}

impl Servers for Arc<Script> {
    fn check_password(&self, server: &str, node: &str, _: &[u8]) -> Result<(), tsm::Error> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        lock(&self.asked).push((server.to_owned(), node.to_owned()));
        let answer = lock(&self.answers).pop_front();
        std::thread::yield_now();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        answer.map_or(Ok(()), Err)
    }
}

fn code(code: i16) -> tsm::Error {
    let message = "ANS1234E in the catalog's language".to_owned();
    CallError { call: "dsmInitEx", code: ReturnCode(code), reason: None, message }.into()
}

fn auth(answers: impl IntoIterator<Item = tsm::Error>) -> (TsmAuth, Arc<Script>) {
    let script = Arc::new(Script::default());
    lock(&script.answers).extend(answers);
    let (cache, clock) = (Duration::from_secs(60), Arc::new(SystemClock::new()));
    let auth = TsmAuth::new(Box::new(Arc::clone(&script)), cache, clock);
    (auth.expect("random bytes"), script)
}

/// What a client would be answered: from memory, else by the server.
fn sign_on(auth: &TsmAuth, password: &str) -> Result<(), Refusal> {
    let password = Secret::new(password.as_bytes());
    let login = Login { node: "polaris", server: Some("tsmserver-8"), password: &password };
    auth.recall(&login).unwrap_or_else(|| auth.sign_on(&login))
}

#[test]
fn the_server_of_the_identity_map_is_asked_once() {
    let (auth, script) = auth([]);
    for _ in 0..10 {
        assert_eq!(sign_on(&auth, "geheim"), Ok(()));
    }
    assert_eq!(*lock(&script.asked), [("tsmserver-8".to_owned(), "polaris".to_owned())]);
    auth.reload().expect("nothing to read");
    assert_eq!(sign_on(&auth, "geheim"), Ok(()));
    assert_eq!(lock(&script.asked).len(), 2);
}

#[test]
fn nobody_is_asked_about_a_node_that_is_not_in_the_identity_map() {
    let (auth, script) = auth([]);
    let password = Secret::new(b"geheim");
    let login = Login { node: "backup-of-all", server: None, password: &password };
    let refusal = auth.recall(&login).expect("known at once").expect_err("refused");
    assert_eq!(refusal.errno, Errno::ACCESS);
    assert_eq!(refusal.text, "node 'backup-of-all' is unknown here or its password is wrong");
    assert_eq!(auth.sign_on(&login), Err(refusal));
    assert!(lock(&script.asked).is_empty());
}

#[test]
fn refusals_carry_the_code_in_words() {
    let table = [
        (137, Errno::ACCESS, "refuses the password: 137 DSM_RC_"),
        (52, Errno::ACCESS, "refuses the sign-on: 52 DSM_RC_"),
        (53, Errno::ACCESS, "refuses the sign-on: 53 DSM_RC_"),
        (61, Errno::ACCESS, "refuses the sign-on: 61 DSM_RC_"),
        (927, Errno::ACCESS, "refuses the sign-on: 927 DSM_RC_"),
        (51, Errno::AGAIN, "cannot check passwords now, try again later: 51 DSM_RC_"),
        (-50, Errno::AGAIN, "cannot check passwords now, try again later: -50 DSM_RC_"),
        (12345, Errno::AGAIN, "cannot sign the node on now, try again later: 12345 unlisted"),
    ];
    for (number, errno, words) in table {
        let (auth, script) = auth([code(number)]);
        let first = sign_on(&auth, "geheim").expect_err("refused");
        assert_eq!(first.errno, errno, "{first}");
        let expected = format!("node 'polaris': TSM server 'tsmserver-8' {words}");
        assert!(first.text.starts_with(&expected), "{first}");
        assert!(!first.text.contains("ANS1234E") && !first.text.contains("geheim"), "{first}");
        let again = sign_on(&auth, "geheim").expect_err("from memory");
        assert!(again.text.starts_with(&first.text), "{again}");
        assert_eq!((again.errno, lock(&script.asked).len()), (errno, 1));
    }
    let (auth, _) = auth([tsm::Error::PasswordNotChecked]);
    let refusal = sign_on(&auth, "geheim").expect_err("refused");
    assert!(refusal.text.contains("PASSWORDACCESS PROMPT"), "{refusal}");
    assert_eq!(refusal.errno, Errno::ACCESS);
}

#[test]
fn clients_that_come_together_cost_one_question() {
    let (auth, script) = auth([]);
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let password = Secret::new(b"geheim");
                let server = Some("tsmserver-8");
                let login = Login { node: "polaris", server, password: &password };
                together.wait();
                assert_eq!(auth.sign_on(&login), Ok(()));
            });
        }
    });
    assert_eq!(lock(&script.asked).len(), 1);
    assert_eq!(script.most.load(Ordering::SeqCst), 1);
}
