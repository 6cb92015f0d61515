//! How many of many are done: a bar on a terminal, else a line now and then.
//!
//! Lines come at 10 s, 20 s, 40 s, ... and from then on every ten minutes: a short run says nothing, a long one is known to
//! be alive, and a night's log has a hundred lines.
//!
//! **Tests.** Here; `tests/terminal.rs` for the bar.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
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
#[derive(Debug)]
pub struct Counted {
    bar: Option<ProgressBar>,
    of: u64,
    what: &'static str,
    seldom: Seldom,
}

impl Counted {
    /// `of` of `what` ("runs") are to be done.
    pub fn new(of: u64, what: &'static str) -> Counted {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(of);
            let style =
                format!("{{pos}}/{{len}} {what} {{bar:30}} {{per_sec}}, {{eta}} left  {{msg}}");
            if let Ok(style) = ProgressStyle::with_template(&style) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Counted {
            bar,
            of,
            what,
            seldom: Seldom::new(),
        }
    }

    /// So many are done.
    pub fn at(&self, done: u64) {
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

    /// Takes the bar away.
    pub fn end(&self) {
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
