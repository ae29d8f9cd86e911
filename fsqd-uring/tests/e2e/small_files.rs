//! Small files from deployed clients. Their kernels hold a small payload back until its header is
//! acknowledged: unless the daemon sees to it, each file takes 40 ms.

use std::time::{Duration, Instant};

use fsq_wire::StorageDest;

use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::site::Site;
use crate::support::sole_turn;

const CONNECTIONS: usize = 8;
const FILES: usize = 250;
const FILE_BYTES: usize = 4096;

/// Far below the 40 ms of a delayed acknowledgement, far above what a file takes on a busy machine.
const FILE_TIME_MAX: Duration = Duration::from_millis(10);

/// The rate is only printed: what it must be on an idle machine is checked by scripts/check-rates.
#[test]
fn no_file_waits_for_a_delayed_acknowledgement() {
    let _turn = sole_turn();
    let site = Site::new();
    let daemon = site.start();
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let port = daemon.port();
            std::thread::spawn(move || {
                let mut client = Deployed::signed_on(port);
                let content = bytes(connection as u64, FILE_BYTES);
                let times = (0..FILES).map(|n| {
                    let path = format!("/lustre/data/small/{connection}/{n}");
                    let started = Instant::now();
                    client.upload(&path, StorageDest::Null, &content, FILE_BYTES);
                    started.elapsed()
                });
                times.collect::<Vec<_>>()
            })
        })
        .collect();
    let mut times: Vec<_> =
        clients.into_iter().flat_map(|client| client.join().expect("is served")).collect();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("rate: {rate:.0} files/s ({CONNECTIONS} connections, {FILE_BYTES} bytes, null)");
    assert!(median < FILE_TIME_MAX, "half of the files took {median:?} and more");
    daemon.stop();
}
