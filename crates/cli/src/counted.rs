//! How many of many are done: a bar on a terminal, else a line now and then; and on Ctrl-C how many were.
//!
//! Lines come at 10 s, 20 s, 40 s, ... and from then on every ten minutes: a short run says nothing, a long one is known to
//! be alive, and a night's log has a hundred lines.
//!
//! **Tests.** Here; `tests/terminal.rs` for the bar.

use crate::cleanup::{self, Undo, undo};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first line comes after so long.
const FIRST: Duration = Duration::from_secs(10);
/// The lines are at most so far apart.
const MOST: Duration = Duration::from_secs(600);

/// When to say something.
#[derive(Debug)]
pub struct Seldom {
    begin: Instant,
    next: Mutex<Duration>,
}

impl Seldom {
    /// From now on.
    pub fn new() -> Seldom {
        Seldom {
            begin: Instant::now(),
            next: Mutex::new(FIRST),
        }
    }

    /// Is it time for a line? Of those who ask at one time, one is told so.
    pub fn due(&self) -> bool {
        self.due_at(self.begin.elapsed())
    }

    fn due_at(&self, now: Duration) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now >= *next;
        if due {
            *next = now + now.min(MOST);
        }
        due
    }
}

/// The progress of a command that does one thing many times.
pub struct Counted {
    bar: Option<ProgressBar>,
    of: u64,
    what: &'static str,
    seldom: Seldom,
    done: Arc<AtomicU64>,
    interrupted: Mutex<Option<Undo>>,
}

impl Counted {
    /// `of` of `what` ("runs") are to be done.
    pub fn new(of: u64, what: &'static str) -> Counted {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(of);
            let style = format!("{{pos}}/{{len}} {what} {{bar:20}} {{eta}} left  {{wide_msg}}");
            if let Ok(style) = ProgressStyle::with_template(&style) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let done = Arc::new(AtomicU64::new(0));
        let (count, gone) = (done.clone(), bar.clone());
        let interrupted = undo(move || {
            if cleanup::is_ending() {
                if let Some(bar) = &gone {
                    bar.finish_and_clear();
                }
                // Relaxed: a number for people.
                let n = count.load(Ordering::Relaxed);
                say!("interrupted: {n} of {of} {what} had ended; no result is written");
            }
        });
        Counted {
            bar,
            of,
            what,
            seldom: Seldom::new(),
            done,
            interrupted: Mutex::new(Some(interrupted)),
        }
    }

    /// So many are done.
    pub fn at(&self, done: u64) {
        // Relaxed: as where it is read.
        self.done.store(done, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.set_position(done.min(self.of)),
            None if self.seldom.due() => say!("{done} of {} {}", self.of, self.what),
            None => {}
        }
    }

    /// What it is at, beside the bar.
    pub fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        }
    }

    /// A line to the user.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("{text}")),
            None => say!("{text}"),
        }
    }

    /// All that will be done is done: takes the bar away.
    pub fn end(&self) {
        let interrupted = &self.interrupted;
        *interrupted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rare_and_never_stop() {
        let seldom = Seldom::new();
        let said: Vec<u64> = (0..3_600 * 3)
            .filter(|s| seldom.due_at(Duration::from_secs(*s)))
            .collect();
        assert_eq!(said[..7], [10, 20, 40, 80, 160, 320, 640]);
        assert_eq!(said[7..9], [1_240, 1_840], "every ten minutes");
        assert!(said.len() < 30);
    }
}
