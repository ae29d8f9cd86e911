//! [`Bystander`]: a session that writes files all along, to see that it is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use fsq_wire::StorageDest;

use super::content::bytes;
use super::deployed::Deployed;
use super::eventually;
use super::site::{OTHER_NODE, OTHER_PASSWORD, Site};

const PIECE_BYTES: usize = 40_000;

/// Length of its n-th file, bytes.
fn len(n: u64) -> usize {
    usize::try_from(n * 7919 % 150_000).expect("small")
}

fn name(n: u64) -> String {
    format!("vega/bystander/{n}")
}

/// Writes one file after the other until it is asked to stop; every refusal is a failed test.
#[derive(Debug)]
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    pub(crate) fn start(port: u16) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let mut client = Deployed::connect(port);
            client.sign_on(OTHER_NODE, OTHER_PASSWORD).accepted(fsq_wire::Op::Connect);
            while !stopped.load(Ordering::Relaxed) {
                let n = count.load(Ordering::Relaxed);
                let fpath = format!("/lustre/{}", name(n));
                client.upload(&fpath, StorageDest::Lustre, &bytes(n, len(n)), PIECE_BYTES);
                count.store(n + 1, Ordering::Relaxed);
            }
            client.disconnect();
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Waits until it has written another file, that is: the daemon is alive.
    pub(crate) fn wait_progress(&self) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("another file of the other session", || {
            let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            assert!(is_alive, "the other session was disturbed");
            // Two: the one under way may be older than what was done to the daemon.
            (self.written.load(Ordering::Relaxed) > before + 1).then_some(())
        });
    }

    /// Stops it; all its files must arrive as they were sent.
    pub(crate) fn finish(mut self, site: &Site) {
        self.wait_progress();
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("the other session was not disturbed");
        for n in 0..self.written.load(Ordering::Relaxed) {
            let path = site.delivered(&name(n));
            let content = eventually("a file of the other session", || std::fs::read(&path).ok());
            assert!(content == bytes(n, len(n)), "{} has other content", path.display());
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
