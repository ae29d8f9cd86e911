//! [`Watches`]: when a file that Lustre was asked to archive is looked at again, and when its
//! request is given up for lost. Told the time, asks nobody.
//!
//! Looking at a file is cheap, asking what is queued for it makes the server search its queue. So a
//! file is looked at after a quarter of the time that it has waited, the queue is asked only after a
//! while and ever more rarely, and a request counts as gone only when it was missed twice, with more
//! time in between than the coordinator needs for a round.
//!
//! Invariant: forgetting a watch costs a question, never a file or a second request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tsm_bindings::lustre::Fid;

/// Bounds of the time between two looks at a file.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(300);

/// When the queue is first asked about a file, and how rarely in the end.
const ASK_MIN: Duration = Duration::from_secs(30);
const ASK_MAX: Duration = Duration::from_secs(600);

/// A request that is not in the queue is looked for again after this: the coordinator goes its
/// rounds every 10 s.
const MISSED_FOR: Duration = Duration::from_secs(15);

/// More than the queue of this daemon holds files.
const WATCHES_MAX: usize = 1 << 17;

/// Watches of all threads.
#[derive(Debug)]
pub(super) struct Watches {
    of: Mutex<HashMap<Fid, Watch>>,
    max: usize,
}

impl Default for Watches {
    fn default() -> Self {
        Self::at_most(WATCHES_MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    since: Duration,
    /// This daemon has asked for it, in this run.
    requested: bool,
    ask_at: Duration,
    missed_at: Option<Duration>,
}

/// What is to be done about a file that is not archived yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again after this time.
    Look(Duration),
    /// There is no request any more.
    Gone {
        /// There was one in this run.
        requested: bool,
    },
}

impl Watches {
    /// None yet; of more than `max` all are forgotten.
    fn at_most(max: usize) -> Self {
        Self { of: Mutex::default(), max }
    }

    /// A request was accepted. How long to wait before the first look.
    pub(super) fn requested(&self, fid: Fid, now: Duration) -> Duration {
        self.insert(
            fid,
            Watch { since: now, requested: true, ask_at: now + ASK_MIN, missed_at: None },
        );
        LOOK_MIN
    }

    /// Whether the queue is to be asked about this file now: a file that nothing is known of at
    /// once, since it may never have been requested.
    pub(super) fn asks(&self, fid: Fid, now: Duration) -> bool {
        let watch = self.get(fid, now);
        now >= watch.ask_at || watch.missed_at.is_some()
    }

    /// The file is not archived; `queued` is what the queue said if it was asked.
    pub(super) fn looked(&self, fid: Fid, now: Duration, queued: Option<bool>) -> Next {
        let mut watch = self.get(fid, now);
        let age = now.saturating_sub(watch.since);
        let next = match (queued, watch.missed_at) {
            (None, _) => Next::Look((age / 4).clamp(LOOK_MIN, LOOK_MAX)),
            (Some(true), _) => {
                watch.missed_at = None;
                watch.ask_at = now + age.clamp(ASK_MIN, ASK_MAX);
                Next::Look((age / 4).clamp(LOOK_MIN, LOOK_MAX))
            }
            (Some(false), Some(at)) if now >= at + MISSED_FOR => {
                self.forget(fid);
                return Next::Gone { requested: watch.requested };
            }
            (Some(false), missed) => {
                let at = *watch.missed_at.insert(missed.unwrap_or(now));
                Next::Look((at + MISSED_FOR).saturating_sub(now))
            }
        };
        self.insert(fid, watch);
        next
    }

    /// Nothing more is to be known of it.
    pub(super) fn forget(&self, fid: Fid) {
        self.lock().remove(&fid);
    }

    fn get(&self, fid: Fid, now: Duration) -> Watch {
        let new = Watch { since: now, requested: false, ask_at: now, missed_at: None };
        self.lock().get(&fid).copied().unwrap_or(new)
    }

    fn insert(&self, fid: Fid, watch: Watch) {
        let mut watches = self.lock();
        if watches.len() >= self.max && !watches.contains_key(&fid) {
            watches.clear();
        }
        watches.insert(fid, watch);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fid, Watch>> {
        // Each change is one call of the map: a panic elsewhere leaves it whole.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Fid = Fid { seq: 1, oid: 2, ver: 0 };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_and_questions_become_rarer_and_do_not_end() {
        let watches = Watches::default();
        let mut now = watches.requested(FILE, Duration::ZERO);
        let (mut looks, mut questions) = (0, 0);
        while now < 7 * 86_400 * SECOND {
            looks += 1;
            let queued = watches.asks(FILE, now).then(|| {
                questions += 1;
                true
            });
            let Next::Look(delay) = watches.looked(FILE, now, queued) else { panic!("queued") };
            assert!((LOOK_MIN..=LOOK_MAX).contains(&delay));
            now += delay;
        }
        assert!((2000..2100).contains(&looks), "{looks} looks in a week");
        assert!((900..1100).contains(&questions), "{questions} questions in a week");
    }

    #[test]
    fn a_request_is_gone_when_it_was_missed_twice_with_time_between() {
        let watches = Watches::default();
        watches.requested(FILE, Duration::ZERO);
        assert!(!watches.asks(FILE, 29 * SECOND));
        let now = 30 * SECOND;
        assert!(watches.asks(FILE, now));
        assert_eq!(watches.looked(FILE, now, Some(false)), Next::Look(MISSED_FOR));
        assert_eq!(watches.looked(FILE, now + 5 * SECOND, Some(false)), Next::Look(10 * SECOND));
        assert!(watches.asks(FILE, now + 6 * SECOND), "a miss is followed up");
        // It was there after all: an answer to the first question from before a restart.
        assert!(matches!(watches.looked(FILE, now + 7 * SECOND, Some(true)), Next::Look(_)));
        let now = 100 * SECOND;
        assert_eq!(watches.looked(FILE, now, Some(false)), Next::Look(MISSED_FOR));
        let gone = watches.looked(FILE, now + MISSED_FOR, Some(false));
        assert_eq!(gone, Next::Gone { requested: true });
        // Now it is a file that nothing is known of.
        assert!(watches.asks(FILE, now));
        assert_eq!(watches.looked(FILE, now, Some(false)), Next::Look(MISSED_FOR));
        let gone = watches.looked(FILE, now + MISSED_FOR, Some(false));
        assert_eq!(gone, Next::Gone { requested: false });
    }

    /// Files that are queued for a day, more than there is room for: a watch that was forgotten
    /// costs questions, and no request is taken for lost.
    #[test]
    fn memory_is_bounded_and_forgetting_costs_no_request() {
        let (max, files) = (8, 12);
        let watches = Watches::at_most(max);
        let file = |oid| Fid { oid, ..FILE };
        let mut next: Vec<_> =
            (0..files).map(|oid| watches.requested(file(oid), Duration::ZERO)).collect();
        let mut questions = 0;
        while let Some(now) = next.iter().min().copied().filter(|at| *at < 86_400 * SECOND) {
            for (oid, at) in (0..files).zip(&mut next) {
                if *at > now {
                    continue;
                }
                let queued = watches.asks(file(oid), now).then_some(true);
                questions += u32::from(queued.is_some());
                match watches.looked(file(oid), now, queued) {
                    Next::Look(delay) => *at = now + delay,
                    Next::Gone { .. } => panic!("{oid} is queued"),
                }
                assert!(watches.lock().len() <= max);
            }
        }
        assert!(questions > 12 * 150, "{questions}: nothing was forgotten");
    }

    #[test]
    fn what_is_watched_already_makes_no_other_be_forgotten() {
        let watches = Watches::at_most(2);
        for oid in [1, 2] {
            watches.requested(Fid { oid, ..FILE }, Duration::ZERO);
        }
        watches.looked(Fid { oid: 1, ..FILE }, SECOND, None);
        assert_eq!(watches.lock().len(), 2);
    }
}
