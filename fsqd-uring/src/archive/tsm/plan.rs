//! [`Plan`]: which files of a batch travel together next, and what became of each.
//!
//! A transaction that the server aborts says nothing of whose fault it was. So its files go again
//! in two halves, and on, until who is to blame travels alone; where two alone are refused and
//! none has arrived, the server is not able at present, and the rest is spared. Pure.
//!
//! Invariant: a file is in one group at most, and in none once it has a verdict; so it is never
//! sent twice after it was committed.

use super::super::Verdict;
use crate::queue::{Failure, FailureClass};

/// What a file weighs and where it may travel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Length, bytes.
    pub(super) bytes: u64,
    /// Files of different filespaces travel apart: the server stores those of one together.
    pub(super) filespace: usize,
}

/// The most that travels together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) objects: usize,
    /// A larger file travels alone.
    pub(super) bytes: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Plan {
    /// The next one last.
    groups: Vec<Vec<usize>>,
    verdicts: Vec<Option<Verdict>>,
    /// Refused alone, in a way that may be the server's state as well as theirs.
    suspects: Vec<(usize, Failure)>,
    arrived: bool,
}

impl Plan {
    /// A plan for files of which some may have their verdict already.
    pub(super) fn new(
        loads: &[Option<Load>],
        verdicts: Vec<Option<Verdict>>,
        bounds: Bounds,
    ) -> Self {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        // Per filespace: the group that is being filled and the bytes in it.
        let mut filling: Vec<(usize, usize, u64)> = Vec::new();
        for (index, load) in loads.iter().enumerate() {
            let Some(load) = load else { continue };
            let known = filling.iter().position(|(filespace, ..)| *filespace == load.filespace);
            if let Some(at) = known {
                let (_, group, bytes) = &mut filling[at];
                let fits = groups[*group].len() < bounds.objects
                    && bytes.saturating_add(load.bytes) <= bounds.bytes;
                if fits {
                    groups[*group].push(index);
                    *bytes += load.bytes;
                    continue;
                }
                filling.swap_remove(at);
            }
            filling.push((load.filespace, groups.len(), load.bytes));
            groups.push(vec![index]);
        }
        groups.reverse();
        Self { groups, verdicts, suspects: Vec::new(), arrived: false }
    }

    /// The files of the next transaction; none: it is all over.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        self.groups.pop()
    }

    /// They are in the archive.
    pub(super) fn confirmed(&mut self, group: &[usize]) {
        self.arrived |= !group.is_empty();
        self.give(group, &Verdict::Confirmed);
    }

    /// They get this verdict.
    pub(super) fn give(&mut self, group: &[usize], verdict: &Verdict) {
        for &index in group {
            self.verdicts[index] = Some(verdict.clone());
        }
    }

    /// They go again, next.
    pub(super) fn again(&mut self, group: Vec<usize>) {
        if !group.is_empty() {
            self.groups.push(group);
        }
    }

    /// Nothing of the group was stored, and who of it is to blame is not known.
    pub(super) fn aborted(&mut self, mut group: Vec<usize>, failure: Failure) {
        if let [alone] = group[..] {
            return self.refused(alone, failure);
        }
        let second = group.split_off(group.len() / 2);
        self.again(second);
        self.again(group);
    }

    fn refused(&mut self, alone: usize, failure: Failure) {
        if failure.class != FailureClass::Target {
            return self.give(&[alone], &failure.into());
        }
        self.suspects.push((alone, failure.clone()));
        if !self.arrived && self.suspects.len() > 1 {
            self.spare(&failure);
        }
    }

    /// Whatever is not decided fails because of the server.
    pub(super) fn spare(&mut self, failure: &Failure) {
        let failed = Verdict::Failed { class: FailureClass::Target, text: failure.text.clone() };
        self.suspects.clear();
        self.groups.clear();
        for verdict in &mut self.verdicts {
            verdict.get_or_insert_with(|| failed.clone());
        }
    }

    /// What became of each.
    pub(super) fn finish(mut self) -> Vec<Verdict> {
        for (index, mut failure) in std::mem::take(&mut self.suspects) {
            if self.arrived {
                // Others have passed meanwhile: it is this file.
                failure.class = FailureClass::File;
            }
            self.give(&[index], &failure.into());
        }
        let decided = self
            .verdicts
            .into_iter()
            .map(|verdict| verdict.expect("a file is in a group until it has its verdict"));
        decided.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { objects: 4, bytes: 100 };

    fn plan(bytes: &[u64], bounds: Bounds) -> Plan {
        let loads: Vec<_> = bytes.iter().map(|&bytes| Some(Load { bytes, filespace: 0 })).collect();
        Plan::new(&loads, vec![None; bytes.len()], bounds)
    }

    fn groups(mut plan: Plan) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| plan.next()).collect()
    }

    fn failure(class: FailureClass) -> Failure {
        Failure::new(class, "no")
    }

    #[test]
    fn groups_keep_their_bounds_and_their_filespace() {
        assert_eq!(groups(plan(&[1; 9], BOUNDS)), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
        let sizes = [60, 40, 1, 500, 0, 99];
        assert_eq!(groups(plan(&sizes, BOUNDS)), [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        let loads = [0, 1, 0, 1, 0].map(|filespace| Some(Load { bytes: 50, filespace }));
        let apart = Plan::new(&loads, vec![None; 5], BOUNDS);
        assert_eq!(groups(apart), [vec![0, 2], vec![1, 3], vec![4]]);
        let decided = vec![None, Some(Verdict::Missing)];
        let plan = Plan::new(&[Some(Load { bytes: 1, filespace: 0 }), None], decided, BOUNDS);
        assert_eq!(groups(plan), [vec![0]]);
    }

    /// Runs a plan against a server that refuses these files, alone and in company.
    fn run(count: usize, bad: &[usize], class: FailureClass) -> (Vec<Verdict>, usize) {
        let mut plan = plan(&vec![1; count], Bounds { objects: 1000, bytes: u64::MAX });
        let mut transactions = 0;
        while let Some(group) = plan.next() {
            transactions += 1;
            if group.iter().any(|index| bad.contains(index)) {
                plan.aborted(group, failure(class));
            } else {
                plan.confirmed(&group);
            }
        }
        (plan.finish(), transactions)
    }

    #[test]
    fn who_is_to_blame_is_found_and_the_others_arrive() {
        for bad in [0, 1, 255, 511] {
            for class in [FailureClass::Target, FailureClass::File, FailureClass::Permanent] {
                let (verdicts, transactions) = run(512, &[bad], class);
                assert!(transactions < 25, "{transactions} transactions");
                for (index, verdict) in verdicts.into_iter().enumerate() {
                    match verdict {
                        Verdict::Confirmed => assert_ne!(index, bad),
                        Verdict::Failed { class: found, .. } => {
                            assert_eq!(index, bad);
                            let expected = match class {
                                FailureClass::Target => FailureClass::File,
                                class => class,
                            };
                            assert_eq!(found, expected);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_server_that_refuses_everything_is_not_asked_for_each() {
        let all: Vec<usize> = (0..512).collect();
        let (verdicts, transactions) = run(512, &all, FailureClass::Target);
        assert!(transactions < 15, "{transactions} transactions");
        let target = |v: &Verdict| matches!(v, Verdict::Failed { class: FailureClass::Target, .. });
        assert!(verdicts.iter().all(target), "nothing is counted against a file");
        let (verdicts, _) = run(1, &[0], FailureClass::Target);
        assert!(verdicts.iter().all(target), "one alone proves nothing");
        let (verdicts, _) = run(512, &all, FailureClass::Permanent);
        assert!(verdicts.iter().all(|v| !target(v)), "each is told");
    }

    #[test]
    fn what_did_not_fit_and_what_is_unknown_keep_their_place() {
        let mut plan = plan(&[1; 4], BOUNDS);
        let group = plan.next().expect("one");
        plan.confirmed(&group[..2]);
        plan.again(group[2..].to_vec());
        let group = plan.next().expect("the rest");
        assert_eq!(group, [2, 3]);
        plan.give(&group[..1], &Verdict::Missing);
        plan.again(vec![3]);
        plan.spare(&failure(FailureClass::Target));
        assert!(plan.next().is_none());
        let verdicts = plan.finish();
        assert_eq!(verdicts[..3], [Verdict::Confirmed, Verdict::Confirmed, Verdict::Missing]);
        assert!(matches!(verdicts[3], Verdict::Failed { class: FailureClass::Target, .. }));
    }
}
