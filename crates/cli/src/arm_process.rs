//! The process that runs one arm, as its parent sees it: started, listened to, killed when the command ends before it does.

use crate::child::Order;
use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use crate::plan::WorldName;
use crate::progress::{self, Progress, Step};
use crate::report::ArmReport;
use crate::stack;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A child with its end ensured: killed when the command ends before it does.
struct Running {
    child: Arc<Mutex<Child>>,
    _undo: Undo,
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(|e| e.into_inner())
}

impl Running {
    fn new(child: Child) -> Running {
        let child = Arc::new(Mutex::new(child));
        let doomed = child.clone();
        let undo = undo(move || {
            let mut child = lock(&doomed);
            let _ = child.kill();
            let _ = child.wait();
        });
        Running { child, _undo: undo }
    }
}

/// Runs it to its end, or until it got no further for `limit`.
///
/// # Errors
/// Its own last words; that it got no further.
pub fn run(order: &Order, limit: Duration, progress: &Progress) -> Result<ArmReport> {
    let remedy = "report this as a bug, with the scenario";
    let title = order.plan.arm.title();
    let fail = |e: &dyn std::fmt::Display| CliError::failed(format!("{title}: {e}"), remedy);
    let exe = std::env::current_exe().map_err(|e| fail(&e))?;
    let mut command = Command::new(exe);
    if order.plan.stack.trace {
        stack::fix_addresses(&mut command);
    }
    let mut child = command
        .arg("run-arm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| fail(&e))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let running = Running::new(child);
    if let Some(mut stdin) = stdin {
        let text = serde_json::to_vec(order).map_err(|e| fail(&e))?;
        // A child that died before it read says why on its standard error.
        let _ = stdin.write_all(&text);
    }
    let step = Arc::new(Mutex::new(None));
    let out = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stdout) = stdout {
            let _ = stdout.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let news = step.clone();
    let err = std::thread::spawn(move || stderr.map_or(String::new(), |s| words(s, &news)));
    let (mut begin, mut last) = (Instant::now(), None);
    let status = loop {
        if let Some(status) = lock(&running.child).try_wait().map_err(|e| fail(&e))? {
            break status;
        }
        let now = *step.lock().unwrap_or_else(|e| e.into_inner());
        if now != last {
            (begin, last) = (Instant::now(), now);
        }
        if begin.elapsed() > limit {
            let remedy = match order.plan.arm.world {
                WorldName::Lab => remedy,
                _ => "check the disk (`dmesg`); on a slow disk use a smaller --memory",
            };
            return Err(CliError::failed(
                format!("{title}: got no further for {} s", limit.as_secs()),
                remedy,
            ));
        }
        progress.show(now);
        std::thread::sleep(Duration::from_millis(50));
    };
    let (out, err) = (
        out.join().unwrap_or_default(),
        err.join().unwrap_or_default(),
    );
    if status.success() {
        for line in err.lines() {
            progress.note(line);
        }
        return serde_json::from_str(out.trim()).map_err(|e| fail(&e));
    }
    Err(child_error(&title, &status.to_string(), &err))
}

/// What a child says to the user; what it says of its progress goes to `step`.
fn words(stream: impl Read, step: &Mutex<Option<Step>>) -> String {
    let mut stream = BufReader::new(stream);
    let (mut text, mut line) = (String::new(), Vec::new());
    while matches!(stream.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let said = String::from_utf8_lossy(&line);
        match progress::told(&said) {
            Some(news) => *step.lock().unwrap_or_else(|e| e.into_inner()) = Some(news),
            None => text.push_str(&said),
        }
        line.clear();
    }
    text
}

/// A child's last words, with its own remedy if it had one.
fn child_error(title: &str, status: &str, err: &str) -> CliError {
    let err = err.trim();
    match err.rsplit_once("\n  try: ") {
        Some((message, remedy)) => CliError::failed(
            message.trim_start_matches("highwater: ").to_string(),
            remedy.to_string(),
        ),
        None => CliError::failed(
            format!("{title}: the process of this arm ended with {status}\n{err}"),
            "report this as a bug, with the scenario; `--preset` runs the other arms meanwhile",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_no_word_to_the_user() {
        let step = Mutex::new(None);
        let said = words(&b"one\n\x011 250\ntwo\n\x012 7\nthree"[..], &step);
        assert_eq!(said, "one\ntwo\nthree");
        let last = *step.lock().unwrap();
        assert_eq!(last, Some(Step(progress::Phase::Measure, 7)));
    }

    #[test]
    fn a_child_s_remedy_is_passed_on() {
        let e = child_error(
            "os 3.2",
            "exit status: 1",
            "highwater: os 3.2: disk gone\n  try: another disk\n",
        );
        assert_eq!(
            (e.message.as_str(), e.remedy.as_str()),
            ("os 3.2: disk gone", "another disk")
        );
        let e = child_error("os 3.2", "signal: 6", "thread main panicked");
        assert!(e.message.contains("signal: 6") && e.message.contains("panicked"));
    }
}
