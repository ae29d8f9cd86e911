use rustix::io::Errno;

use super::*;

const CACHE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn refusal() -> Refusal {
    Refusal::new(Errno::ACCESS, "137 wrong")
}

/// A memory, and a server that knows one password for every node and counts the questions.
struct World {
    memory: Memory,
    now: Duration,
    asked: u32,
    right: &'static str,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new([7; 32], CACHE);
        Self { memory, now: seconds(1000), asked: 0, right: "right" }
    }

    fn recall(&self, node: &str, password: &str) -> Option<Result<(), Refusal>> {
        let account = Account::new("server", node);
        let digest = self.memory.digest(&account, password.as_bytes());
        self.memory.recall(self.now, &account, digest)
    }

    fn learn(&mut self, node: &str, password: &str, verdict: &Verdict) {
        let account = Account::new("server", node);
        let digest = self.memory.digest(&account, password.as_bytes());
        let generation = self.memory.generation();
        self.memory.learn(self.now, &account, digest, verdict, generation);
    }

    /// A sign-on as the daemon does it.
    fn sign_on(&mut self, node: &str, password: &str) -> Result<(), Refusal> {
        if let Some(answer) = self.recall(node, password) {
            return answer;
        }
        self.asked += 1;
        let right = password == self.right;
        let verdict = if right { Verdict::Right } else { Verdict::Wrong(refusal()) };
        self.learn(node, password, &verdict);
        if right { Ok(()) } else { Err(refusal()) }
    }
}

#[test]
fn a_right_password_is_believed_for_its_time_and_no_longer() {
    let mut world = World::new();
    for _ in 0..100 {
        assert_eq!(world.sign_on("polaris", "right"), Ok(()));
    }
    assert_eq!(world.asked, 1);
    world.now += CACHE - Duration::from_nanos(1);
    assert_eq!(world.recall("polaris", "right"), Some(Ok(())));
    // Case makes no other node.
    assert_eq!(world.recall("Polaris", "right"), Some(Ok(())));
    assert_eq!(world.recall("vega", "right"), None);
    world.now += Duration::from_nanos(1);
    assert_eq!(world.recall("polaris", "right"), None);

    let mut always = World { memory: Memory::new([7; 32], Duration::ZERO), ..World::new() };
    always.sign_on("polaris", "right").expect("right");
    always.sign_on("polaris", "right").expect("right");
    assert_eq!(always.asked, 2, "a time of zero means never");
}

#[test]
fn a_loop_with_a_wrong_password_asks_at_growing_intervals_up_to_a_bound() {
    let mut world = World::new();
    let begun = world.now;
    let mut asked_at = Vec::new();
    while world.now < begun + seconds(6 * 3600) {
        let before = world.asked;
        let refused = world.sign_on("polaris", "wrong").expect_err("wrong");
        assert!(refused.text.starts_with("137 wrong"), "{refused}");
        if world.asked > before {
            asked_at.push((world.now - begun).as_secs());
        }
        world.now += seconds(1);
    }
    // 10, 40, 160, 640, 2560 seconds, then an hour each.
    assert_eq!(asked_at[..6], [0, 10, 50, 210, 850, 3410]);
    assert!(asked_at[5..].windows(2).all(|pair| pair[1] - pair[0] == PAUSE_MAX.as_secs()));
}

#[test]
fn the_waiting_time_in_the_text_is_enough() {
    let mut world = World::new();
    world.sign_on("polaris", "wrong").expect_err("wrong");
    world.now += Duration::from_millis(2500);
    let refused = world.sign_on("polaris", "wrong").expect_err("wrong");
    assert!(refused.text.contains("tried again in 8 s"), "{refused}");
    world.now += seconds(8);
    assert_eq!(world.recall("polaris", "wrong"), None);
}

#[test]
fn another_password_is_tried_at_once_until_too_many_were_wrong() {
    let mut world = World::new();
    for password in ["wrong 1", "wrong 2", "wrong 3"] {
        world.sign_on("polaris", password).expect_err("wrong");
    }
    assert_eq!(world.asked, WRONG_IN_A_ROW_MAX);
    for password in ["wrong 1", "wrong 4", "right"] {
        let refused = world.sign_on("polaris", password).expect_err("not asked");
        assert!(refused.text.contains("3 wrong passwords came in a row"), "{refused}");
    }
    assert_eq!(world.asked, WRONG_IN_A_ROW_MAX);
    assert_eq!(world.recall("vega", "right"), None, "other nodes do not suffer");
    world.now += seconds(161);
    assert_eq!(world.sign_on("polaris", "right"), Ok(()));
    // The right one has set the count back.
    world.sign_on("polaris", "wrong 5").expect_err("wrong");
    assert_eq!(world.asked, WRONG_IN_A_ROW_MAX + 2);
}

#[test]
fn guesses_do_not_lock_out_who_has_the_right_password() {
    let mut world = World::new();
    assert_eq!(world.sign_on("polaris", "right"), Ok(()));
    for round in 0..1000 {
        world.sign_on("polaris", &format!("guess {round}")).expect_err("wrong");
        world.now += Duration::from_millis(100);
    }
    let guesses = world.asked - 1;
    assert_eq!(guesses, WRONG_IN_A_ROW_MAX);
    // Not from memory: the server's count of wrong passwords is set back with it.
    assert_eq!(world.recall("polaris", "right"), None);
    assert_eq!(world.sign_on("polaris", "right"), Ok(()));
    assert_eq!(world.recall("polaris", "right"), Some(Ok(())));
}

#[test]
fn a_changed_password_takes_the_place_of_the_old_one() {
    let mut world = World::new();
    world.sign_on("polaris", "right").expect("right");
    world.right = "new";
    assert_eq!(world.sign_on("polaris", "right"), Ok(()), "for as long as it is believed");
    assert_eq!(world.sign_on("polaris", "new"), Ok(()));
    world.sign_on("polaris", "right").expect_err("no more");
    world.sign_on("polaris", "right").expect_err("from memory");
    assert_eq!(world.asked, 3);
}

#[test]
fn what_bars_a_node_is_no_wrong_password() {
    let mut world = World::new();
    world.sign_on("polaris", "right").expect("right");
    let locked = Verdict::Barred(Refusal::new(Errno::ACCESS, "61 locked"));
    for _ in 0..10 {
        world.learn("polaris", "right", &locked);
        let refused = world.recall("polaris", "right").expect("known").expect_err("locked");
        assert!(refused.text.starts_with("61 locked"), "{refused}");
        world.now += PAUSE_MIN;
        assert_eq!(world.recall("polaris", "right"), None, "the pause does not grow");
    }
    assert_eq!(world.sign_on("polaris", "right"), Ok(()));
}

#[test]
fn a_silent_server_is_left_alone_for_a_moment_but_what_is_known_stays() {
    let mut world = World::new();
    world.sign_on("vega", "right").expect("right");
    let silent = Refusal::new(Errno::AGAIN, "-50 down");
    world.learn("polaris", "right", &Verdict::Silent(silent.clone()));
    assert_eq!(world.recall("polaris", "right"), Some(Err(silent.clone())));
    assert_eq!(world.recall("capella", "any"), Some(Err(silent)));
    assert_eq!(world.recall("vega", "right"), Some(Ok(())));
    world.now += OUTAGE;
    assert_eq!(world.recall("polaris", "right"), None);
    world.sign_on("polaris", "right").expect("right");

    let other = Account::new("other server", "polaris");
    let digest = world.memory.digest(&other, b"right");
    assert_eq!(world.memory.recall(world.now, &other, digest), None);
}

#[test]
fn forgetting_is_complete_and_answers_from_before_do_not_count() {
    let mut world = World::new();
    world.sign_on("polaris", "right").expect("right");
    world.sign_on("vega", "wrong").expect_err("wrong");
    let generation = world.memory.generation();
    world.memory.forget();
    assert_eq!(world.recall("polaris", "right"), None);
    assert_eq!(world.recall("vega", "wrong"), None);
    let account = Account::new("server", "polaris");
    let digest = world.memory.digest(&account, b"right");
    world.memory.learn(world.now, &account, digest, &Verdict::Right, generation);
    assert_eq!(world.recall("polaris", "right"), None);
}

#[test]
fn the_memory_is_bounded_and_loses_the_oldest_first() {
    let mut world = World::new();
    for number in 0..ACCOUNTS_MAX + 10 {
        world.sign_on(&format!("node{number}"), "right").expect("right");
        world.now += Duration::from_nanos(1);
    }
    assert_eq!(world.memory.accounts.len(), ACCOUNTS_MAX);
    assert_eq!(world.recall("node9", "right"), None);
    assert_eq!(world.recall("node10", "right"), Some(Ok(())));
}

#[test]
fn digests_tell_salts_accounts_and_passwords_apart() {
    let digest = |salt: u8, server: &str, node: &str, password: &[u8]| {
        let account = Account::new(server, node);
        Memory::new([salt; 32], CACHE).digest(&account, password).0
    };
    let one = digest(1, "server", "node", b"password");
    assert_eq!(one, digest(1, "server", "NODE", b"password"));
    assert_ne!(one, digest(2, "server", "node", b"password"));
    assert_ne!(one, digest(1, "servern", "ode", b"password"));
    assert_ne!(one, digest(1, "server", "nodep", b"assword"));
    assert_ne!(one, digest(1, "server", "node", b"passwore"));
    assert_ne!(one, digest(1, "server", "node", b""));
}
