//! Opening an io_uring: the ladder of setup flags, and what a refusal means to the operator.
//!
//! The ladder goes down by refusal (EINVAL), never by a version string: distribution kernels carry
//! back-ports. Flag and feature versions are those of the io_uring_setup(2) manual page.

use std::io;

use io_uring::{IoUring, opcode};
use rustix::io::Errno;

/// A rung of the ladder; the best one that the kernel accepts is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Any kernel with io_uring; the floor is 5.10.
    Plain,
    /// A completion queue of our size (5.5): what is in flight always fits.
    Cqsize,
    /// COOP_TASKRUN and SUBMIT_ALL (5.19): no interrupts of our code, and one bad entry does not
    /// stop a batch.
    Coop,
    /// SINGLE_ISSUER and DEFER_TASKRUN (6.1): completions are run only when we ask for them, which
    /// batches them.
    Defer,
    /// The same without the index array (NO_SQARRAY, 6.6).
    DeferNoArray,
}

impl Rung {
    const LADDER: [Self; 5] =
        [Self::DeferNoArray, Self::Defer, Self::Coop, Self::Cqsize, Self::Plain];
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Cqsize => "cqsize",
            Self::Coop => "coop",
            Self::Defer => "defer",
            Self::DeferNoArray => "defer+no_sqarray",
        })
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel has none.
    #[error(
        "io_uring is not there (ENOSYS): the kernel was built without it, or a seccomp filter hides \
         it; run on Linux 5.10 or newer and allow io_uring_setup, io_uring_enter and \
         io_uring_register in the container's seccomp profile"
    )]
    Missing,
    /// The kernel refuses it.
    #[error(
        "io_uring is forbidden (EPERM): sysctl kernel.io_uring_disabled is {disabled}; set it to 0 \
         (or 1 and put the daemon into kernel.io_uring_group), or allow io_uring in the container's \
         seccomp profile"
    )]
    Forbidden {
        /// The sysctl's value, or what stands in its place.
        disabled: String,
    },
    /// Locked memory is short.
    #[error(
        "no memory for a ring of {entries} entries (ENOMEM): the limit on locked memory is {limit}; \
         raise it (LimitMEMLOCK=infinity in the unit, ulimit -l) or give CAP_IPC_LOCK"
    )]
    Memlock {
        /// Submission entries asked for.
        entries: u32,
        /// RLIMIT_MEMLOCK in words.
        limit: String,
    },
    /// Operations are filtered out.
    #[error("this kernel's io_uring lacks the operations {missing}; Linux 5.10 or newer is needed")]
    Operations {
        /// Their names.
        missing: String,
    },
    /// Anything else.
    #[error("io_uring_setup failed: {0}")]
    Other(Errno),
}

/// Opens a ring of `entries` submissions and `completions` completions on the best rung not above
/// `best`.
///
/// # Errors
/// See [`SetupError`].
pub fn open(entries: u32, completions: u32, best: Rung) -> Result<(IoUring, Rung), SetupError> {
    let mut refused = Errno::INVAL;
    for rung in Rung::LADDER.into_iter().filter(|&rung| rung <= best) {
        match build(entries, completions, rung) {
            Ok(ring) => {
                check_operations(&ring)?;
                return Ok((ring, rung));
            }
            Err(error) => {
                refused = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                if refused != Errno::INVAL {
                    break;
                }
            }
        }
    }
    Err(match refused {
        Errno::NOSYS => SetupError::Missing,
        Errno::PERM | Errno::ACCESS => SetupError::Forbidden { disabled: disabled_sysctl() },
        Errno::NOMEM => SetupError::Memlock { entries, limit: memlock_limit() },
        other => SetupError::Other(other),
    })
}

fn build(entries: u32, completions: u32, rung: Rung) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if rung >= Rung::Cqsize {
        builder.setup_cqsize(completions.next_power_of_two().max(entries * 2)).setup_clamp();
    }
    if rung >= Rung::Coop {
        builder.setup_submit_all();
    }
    match rung {
        Rung::Plain | Rung::Cqsize => {}
        Rung::Coop => {
            builder.setup_coop_taskrun();
        }
        Rung::Defer => {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        Rung::DeferNoArray => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
        }
    }
    builder.build(entries)
}

fn check_operations(ring: &IoUring) -> Result<(), SetupError> {
    let mut probe = io_uring::Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| SetupError::Other(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let wanted = [
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("WRITE", opcode::Write::CODE),
        ("WRITE_FIXED", opcode::WriteFixed::CODE),
        ("READ", opcode::Read::CODE),
        ("READ_FIXED", opcode::ReadFixed::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("TIMEOUT", opcode::Timeout::CODE),
        ("CLOSE", opcode::Close::CODE),
    ];
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(_, code)| !probe.is_supported(*code))
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SetupError::Operations { missing: missing.join(", ") })
    }
}

fn disabled_sysctl() -> String {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map_or_else(|_| "not there".to_owned(), |value| value.trim().to_owned())
}

/// RLIMIT_MEMLOCK in words.
#[must_use]
pub fn memlock_limit() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    limit.current.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024))
}
