//! A test program's own children, told by an environment variable what to do, and killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a child is told.
pub const ROLE: &str = "HIGHWATER_TEST_CHILD";

/// Spreads the bits of a number.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// This test program once more, as its test `child` in the role `role`.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(ROLE, role);
    command
}

/// Runs a child until it is killed; the last batch that it reported as synced.
pub fn run_and_kill(role: &str, after: Duration) -> Option<u64> {
    kill_after(command(role), after)
}

/// The same of any command.
pub fn kill_after(mut command: Command, after: Duration) -> Option<u64> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut last = None;
        for line in BufReader::new(out).lines() {
            let Ok(line) = line else { break };
            // A line that the kill has cut is no report.
            if let Some(v) = line.strip_prefix("SYNCED ") {
                last = v.parse().ok().or(last);
            }
        }
        last
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(
        !status.success() && status.code().is_none(),
        "killed, not ended: {status}"
    );
    reader.join().unwrap()
}
