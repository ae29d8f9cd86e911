//! What is remembered of the servers' answers, so that they are asked seldom.
//!
//! Pure: it is told the time. A password is remembered as a [`Digest`], salted with what only this
//! process knows, and a server counts wrong passwords whether they come from an intruder or from a
//! client that tries for ever, and locks the node after a few. Invariant: an account that was
//! refused is not asked about again before its pause is over, except with the password that was
//! last right, which sets the server's count back.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::refusal::Refusal;

/// Most accounts that are remembered; the one not asked about for longest makes room.
pub(super) const ACCOUNTS_MAX: usize = 4096;

/// How long a refused password is refused from memory, the first time. Four times as long after
/// each further refusal: a client in a loop costs five questions in its first hour.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(10);

/// The longest such time: so long may a client stay locked out after its password was set right on
/// the server, unless the daemon is told (SIGHUP).
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Wrong passwords in a row after which any other is made to wait as well. Servers are commonly set
/// to lock a node after five or more.
pub(super) const WRONG_IN_A_ROW_MAX: u32 = 3;

/// How long a server that gave no answer is left alone.
pub(super) const OUTAGE: Duration = Duration::from_secs(5);

/// Random bytes that make digests worthless elsewhere.
pub(super) type Salt = [u8; 32];

/// A password with its account, salted and hashed. A fast hash will do: it leaves the process no
/// more than the password of the next sign-on does, and it must not cost what it saves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// Who is asked about whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Account {
    /// Stanza of the server.
    pub(super) server: String,
    /// The node in capitals: TSM does not tell case apart.
    node: String,
}

impl Account {
    pub(super) fn new(server: &str, node: &str) -> Self {
        Self { server: server.to_owned(), node: node.to_ascii_uppercase() }
    }
}

/// What a server said, or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The password is the node's.
    Right,
    /// It is not; the server counts.
    Wrong(Refusal),
    /// The node may not sign on, whatever its password.
    Barred(Refusal),
    /// No answer.
    Silent(Refusal),
}

/// A refused sign-on.
#[derive(Clone)]
struct Pause {
    digest: Digest,
    refusal: Refusal,
    until: Duration,
    /// Wrong passwords since the last right one.
    wrong: u32,
}

#[derive(Default)]
struct Known {
    /// The password last found right, and until when that is believed.
    right: Option<(Digest, Duration)>,
    pause: Option<Pause>,
    touched: Duration,
}

/// The memory.
pub(super) struct Memory {
    salt: Salt,
    cache: Duration,
    accounts: HashMap<Account, Known>,
    /// Servers that gave no answer, and until when they are left alone.
    outages: HashMap<String, (Duration, Refusal)>,
    generation: u64,
}

impl Memory {
    /// Believes a right password for the time `cache`.
    pub(super) fn new(salt: Salt, cache: Duration) -> Self {
        let (accounts, outages) = (HashMap::new(), HashMap::new());
        Self { salt, cache, accounts, outages, generation: 0 }
    }

    pub(super) fn digest(&self, account: &Account, password: &[u8]) -> Digest {
        let mut hash = Sha256::new_with_prefix(self.salt);
        for part in [account.server.as_bytes(), account.node.as_bytes(), password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Digest(hash.finalize().into())
    }

    /// Grows with every [`Self::forget`].
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The answer, if it is known; `None`: the server is to be asked.
    pub(super) fn recall(
        &self,
        now: Duration,
        account: &Account,
        digest: Digest,
    ) -> Option<Result<(), Refusal>> {
        let known = self.accounts.get(account);
        let right = known.and_then(|known| known.right).filter(|&(right, _)| right == digest);
        if right.is_some_and(|(_, until)| now < until) {
            return Some(Ok(()));
        }
        let pause = known.and_then(|known| known.pause.as_ref()).filter(|pause| now < pause.until);
        if let Some(pause) = pause
            && right.is_none()
            && (pause.digest == digest || pause.wrong >= WRONG_IN_A_ROW_MAX)
        {
            return Some(Err(pause.recalled(now, digest)));
        }
        let (until, refusal) = self.outages.get(&account.server)?;
        (now < *until).then(|| Err(refusal.clone()))
    }

    /// Takes down an answer. Those to questions of an earlier generation are not believed.
    pub(super) fn learn(
        &mut self,
        now: Duration,
        account: &Account,
        digest: Digest,
        verdict: &Verdict,
        generation: u64,
    ) {
        if generation != self.generation {
            return;
        }
        let believed = now + self.cache;
        let (wrong, refusal) = match verdict {
            Verdict::Silent(refusal) => {
                self.outages.retain(|_, (until, _)| now < *until);
                self.outages.insert(account.server.clone(), (now + OUTAGE, refusal.clone()));
                return;
            }
            Verdict::Right => {
                let known = self.known(now, account);
                known.right = Some((digest, believed));
                known.pause = None;
                return;
            }
            Verdict::Wrong(refusal) => (1, refusal),
            Verdict::Barred(refusal) => (0, refusal),
        };
        let known = self.known(now, account);
        let before = known.pause.as_ref().map_or(0, |pause| pause.wrong);
        let until = now + if wrong > 0 { pause(before) } else { PAUSE_MIN };
        let wrong = before.saturating_add(wrong);
        // What was right may be so no longer: it has to be asked about again.
        known.right = match known.right {
            Some((right, _)) if right != digest => Some((right, now)),
            _ => None,
        };
        known.pause = Some(Pause { digest, refusal: refusal.clone(), until, wrong });
    }

    /// Forgets everything: what was answered before counts no more.
    pub(super) fn forget(&mut self) {
        self.accounts.clear();
        self.outages.clear();
        self.generation += 1;
    }

    fn known(&mut self, now: Duration, account: &Account) -> &mut Known {
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(account) {
            let oldest = self.accounts.iter().min_by_key(|(_, known)| known.touched);
            let oldest = oldest.map(|(account, _)| account.clone());
            oldest.and_then(|account| self.accounts.remove(&account));
        }
        let known = self.accounts.entry(account.clone()).or_default();
        known.touched = now;
        known
    }
}

impl Pause {
    /// The refusal of `digest` without a question.
    fn recalled(&self, now: Duration, digest: Digest) -> Refusal {
        // Rounded up: who comes back then is asked about.
        let seconds = (self.until - now).as_secs() + 1;
        let Refusal { errno, text } = &self.refusal;
        let text = if self.digest == digest {
            format!("{text}; the same password is tried again in {seconds} s at the earliest")
        } else {
            format!(
                "{text}; since {} wrong passwords came in a row, the next is tried in {seconds} s \
                 at the earliest, lest the server locks the node",
                self.wrong
            )
        };
        Refusal::new(*errno, text)
    }
}

/// How long to refuse from memory after one wrong password more than `wrong`.
fn pause(wrong: u32) -> Duration {
    // Four to the tenth is beyond any bound.
    PAUSE_MIN.saturating_mul(1 << (2 * wrong.min(10))).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;
