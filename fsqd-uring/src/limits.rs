//! Every bound of the ingest side and of staging in one place, with its arithmetic.
//!
//! Memory of one ring: its share of `--buffer-memory` in windows, plus [`SLOT_BYTES`] for each
//! session it may hold (touched only once a session has used the slot), plus one scratch window.

use fsq_wire::PACKET_BYTES;

/// Alignment of O_DIRECT offsets, lengths and memory. 4096 suits 512-byte and 4 KiB sector devices
/// and both ext4 and XFS; the start-up self-test checks that it does here.
pub const BLOCK_BYTES: u32 = 4096;

/// Memory of one window: what a session receives into before it needs another.
pub const WINDOW_BYTES: u32 = 1 << 20;

/// What is received at a time of payload that is dropped: it stays in the cache nearest to a core
/// (docs/performance.md, receive and drop).
pub const SCRATCH_BYTES: u32 = 256 << 10;

/// One write to staging. Registered 512 KiB writes are the fastest that still go out as one bio and
/// are therefore never handed to the kernel's worker pool.
pub const WRITE_BYTES: u32 = 512 << 10;

/// Windows a session may hold while others would have to wait: one being received into, one whose
/// writes are on their way.
pub const WINDOWS_PER_SESSION: u32 = 2;

/// Windows a session may hold while most of the pool is free: more writes in flight for devices
/// that need depth.
pub const WINDOWS_PER_SESSION_MAX: u32 = 4;

/// First preallocation step; doubled with every further step.
pub const EXTEND_BYTES_MIN: u64 = 16 << 20;

/// Largest preallocation step: bounds what CLOSE has to give back.
pub const EXTEND_BYTES_MAX: u64 = 256 << 20;

/// A payload up to this size may be held back by the deployed client's kernel until its header is
/// acknowledged: two loopback segments (64 KiB each) and a margin.
pub const QUICK_ACK_PAYLOAD_BYTES_MAX: u64 = 256 << 10;

/// Slot memory of a session: two packets (one being received, one being sent) and the carry, each
/// beginning on its own page.
pub const SLOT_BYTES: u32 = 2 * PACKET_SLOT_BYTES + BLOCK_BYTES;

/// Room of one packet in a slot.
pub const PACKET_SLOT_BYTES: u32 = 8192;

const _: () = assert!(PACKET_BYTES <= PACKET_SLOT_BYTES as usize);
const _: () = assert!(SCRATCH_BYTES <= WINDOW_BYTES);
const _: () = assert!(WINDOW_BYTES.is_multiple_of(WRITE_BYTES));
const _: () = assert!(WRITE_BYTES.is_multiple_of(BLOCK_BYTES));

/// Sessions beyond `--max-sessions` that one ring takes only to tell them that they are too many.
pub const REFUSED_SESSIONS_PER_RING: u32 = 8;

/// How long a session that was told to go may still read its reply before the socket is closed.
pub const LINGER_MS: u64 = 2_000;

/// How long a receive may keep its window without progress while other sessions wait for one.
pub const WINDOW_HOLD_MS: u64 = 100;

/// How often deadlines are looked at.
pub const TICK_MS: u64 = 50;

/// Threads that create, extend and complete staging files. Each call takes tens of microseconds
/// and mostly waits; the syncs have a thread of their own.
pub const STAGING_THREADS: usize = 4;

/// How long a sign-on that a server is being asked about is waited for at the end.
pub const SIGN_ON_STOP_MS: u64 = 2_000;

/// Files made durable together at most; bounds how long the first of a batch waits for the last.
pub const SYNC_BATCH_MAX: usize = 512;

/// A batch of up to so many files is synced file by file, a larger one with a single syncfs (the
/// measurement is in `staging::sync`).
pub const SYNC_EACH_MAX: usize = 2;

/// How long a batch waits for commits that are already under way. A prepared commit takes about
/// 0.2 ms, a sync 0.3 to 2 ms.
pub const SYNC_LINGER_US: u64 = 500;

/// Preallocation is tried in ever smaller steps down to this one while space is short.
pub const EXTEND_BYTES_SHORT: u64 = 4 << 20;

/// Smaller steps are multiples of this, so that space is not taken in crumbs.
pub const EXTEND_ALIGN_BYTES: u64 = 64 << 10;

/// How long an answer of statfs is believed.
pub const SPACE_CACHE_MS: u64 = 100;

/// How often jobs that wait for space are looked at.
pub const SPACE_RECHECK_MS: u64 = 1_000;
