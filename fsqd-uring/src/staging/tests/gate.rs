//! Sign-ons that are known, and others.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Knows "known", and asks a server about the others, which answers when told to.
struct Slow {
    asked: Mutex<Sender<String>>,
    go: Mutex<Receiver<()>>,
}

fn refused(node: &str, how: &str) -> Result<Arc<Identity>, Refusal> {
    Err(Refusal::new(Errno::ACCESS, format!("{node} {how}")))
}

impl Gate for Slow {
    fn recall(&self, node: &str, _: &Secret, _: &str) -> Option<Result<Arc<Identity>, Refusal>> {
        (node == "known").then(|| refused(node, "at once"))
    }

    fn sign_on(&self, node: &str, _: &Secret, _: &str) -> Result<Arc<Identity>, Refusal> {
        self.asked.lock().unwrap().send(node.to_owned()).expect("the test listens");
        // Also ends when the test does.
        let _ = self.go.lock().unwrap().recv();
        refused(node, "asked")
    }
}

fn sign_on(rig: &mut Rig<SimFs>, node: &str) -> Token {
    let (node, peer) = (node.to_owned(), "[::1]:9".to_owned());
    rig.submit(Job::SignOn { node, password: Secret::new(b"12345"), peer })
}

fn text(answer: Answer) -> String {
    let Answer::SignOn(Err(refusal)) = answer else { panic!("another answer") };
    refusal.text
}

#[test]
fn a_server_that_hangs_holds_up_only_who_waits_for_it() {
    let (asked, questions) = channel();
    let (go, wait) = channel();
    let gate = Slow { asked: Mutex::new(asked), go: Mutex::new(wait) };
    let mut rig = Rig::with_gate(&sim(), config(), Box::new(gate));
    let first = sign_on(&mut rig, "first");
    assert_eq!(questions.recv().expect("asked"), "first");
    let second = sign_on(&mut rig, "second");
    for _ in 0..100 {
        assert_eq!(say(&mut rig, "known"), "known at once");
    }
    go.send(()).expect("it waits");
    assert_eq!(text(rig.answers.wait(first)), "first asked");
    assert_eq!(questions.recv().expect("asked"), "second");

    // The server hangs for good: who waits in line is refused, and the service ends.
    let third = sign_on(&mut rig, "third");
    assert_eq!(say(&mut rig, "known"), "known at once", "the third is in line");
    drop(rig.service.take());
    assert!(text(rig.answers.wait(third)).contains("stopping"));
    drop(go);
    assert_eq!(text(rig.answers.wait(second)), "second asked");
}

#[test]
fn the_line_before_a_slow_server_is_bounded() {
    let (asked, questions) = channel();
    let (go, wait) = channel();
    let gate = Slow { asked: Mutex::new(asked), go: Mutex::new(wait) };
    let config = StagingConfig { jobs_max: 1, ..config() };
    let mut rig = Rig::with_gate(&sim(), config, Box::new(gate));
    let first = sign_on(&mut rig, "first");
    assert_eq!(questions.recv().expect("asked"), "first");
    let second = sign_on(&mut rig, "second");
    // The desk takes one job at a time here; once this is answered it has passed the second on.
    while say(&mut rig, "known") != "known at once" {}
    let third = say(&mut rig, "third");
    assert!(third.contains("too many requests"), "{third}");
    for _ in 0..2 {
        go.send(()).expect("it waits");
    }
    assert_eq!(text(rig.answers.wait(first)), "first asked");
    assert_eq!(text(rig.answers.wait(second)), "second asked");
}

/// What is answered to a sign-on.
fn say(rig: &mut Rig<SimFs>, node: &str) -> String {
    let token = sign_on(rig, node);
    text(rig.answers.wait(token))
}
