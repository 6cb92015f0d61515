//! How far an arm is: its child counts, the parent shows, and gives up a child that no longer gets on.
//!
//! Only the child knows: virtual time passes at a speed of its own, a run may end with its operations or its trace, and a
//! warm-up takes as long as it takes. What it knows stands in one word ([`at`]); a thread of its own says it on standard
//! error, since a task's stack may be too small for that ([`tell`]).
//!
//! **Tests.** Here and in `samples/ends.rs`; `tests/command.rs` for the command.

use crate::counted::Seldom;
use crate::plan::{Arm, Plan};
use crate::report::ArmReport;
use crate::units::{show_rate, show_us};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an arm is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Writes memory through the cache before anything is measured.
    WarmUp = 1,
    /// Settles, then measures.
    Measure = 2,
    /// The final sync.
    Sync = 3,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::WarmUp, Phase::Measure, Phase::Sync];

    fn name(self) -> &'static str {
        match self {
            Phase::WarmUp => "warm-up",
            Phase::Measure => "measuring",
            Phase::Sync => "final sync",
        }
    }
}

/// A phase, and how many thousandths of it are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step(pub Phase, pub u32);

/// The child's step, as a word; 0 before the first.
static NOW: AtomicU64 = AtomicU64::new(0);
/// How often the child looks for news.
const LOOK: Duration = Duration::from_millis(200);
/// Begins a line that is the parent's, not the user's.
const MARK: char = '\u{1}';

/// `done` of `of` in `phase`. Cheap, and may be called on any task's stack. A run goes forward: what is behind its step by now,
/// as the sampler's last samples are during the final sync, is no news.
pub fn at(phase: Phase, done: u64, of: u64) {
    // Relaxed: a statistic that nothing else goes by.
    NOW.fetch_max(word(phase, done, of), Ordering::Relaxed);
}

fn word(phase: Phase, done: u64, of: u64) -> u64 {
    (phase as u64) << 32 | thousandths(done, of)
}

fn thousandths(done: u64, of: u64) -> u64 {
    (u128::from(done.min(of)) * 1_000 / u128::from(of.max(1))) as u64
}

/// As the child says it.
fn line(word: u64) -> String {
    format!("{MARK}{} {}\n", word >> 32, word as u32)
}

/// Tells the parent each new step from now on, in the child.
pub fn tell() {
    let body = || {
        let mut told = 0;
        loop {
            std::thread::sleep(LOOK);
            // Relaxed: as where it is stored.
            let word = NOW.load(Ordering::Relaxed);
            if word == std::mem::replace(&mut told, word) {
                continue;
            }
            // One write, so that no other line comes between; a parent that went away needs no news.
            let _ = std::io::stderr().write_all(line(word).as_bytes());
        }
    };
    // An arm runs without it.
    let _ = std::thread::Builder::new()
        .name("progress".into())
        .stack_size(128 << 10)
        .spawn(body);
}

/// The step that a line of the child tells; none for a line that is meant for people.
pub fn told(line: &str) -> Option<Step> {
    let (phase, thousandths) = line.trim_end().strip_prefix(MARK)?.split_once(' ')?;
    let phase: u64 = phase.parse().ok()?;
    let phase = Phase::ALL.into_iter().find(|p| *p as u64 == phase)?;
    Some(Step(phase, thousandths.parse().ok()?))
}

/// A bar on a terminal, else a line now and then and one for each arm that ended.
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    begin: Instant,
    planned: Duration,
    seldom: Seldom,
    silent: bool,
}

impl Progress {
    /// Shows nothing but notes.
    pub fn silent(arm: &Arm) -> Progress {
        Progress {
            bar: None,
            label: arm.title(),
            begin: Instant::now(),
            planned: Duration::ZERO,
            seldom: Seldom::new(),
            silent: true,
        }
    }

    /// For the arm `index` of `of`.
    pub fn new(index: usize, of: usize, arm: &Arm, plan: &Plan) -> Progress {
        let label = format!("{}/{of} {}", index + 1, arm.title());
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1_000);
            // The name last: what the terminal has no room for is cut off there.
            let style = "{bar:30} {percent:>3} % {elapsed}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_message(label.clone());
            bar
        });
        Progress {
            bar,
            label,
            begin: Instant::now(),
            planned: Duration::from_nanos(plan.settle_ns + plan.duration_ns),
            seldom: Seldom::new(),
            silent: false,
        }
    }

    /// Shows how far the child is.
    pub fn show(&self, step: Option<Step>) {
        let Some(bar) = &self.bar else {
            if let Some(Step(phase, thousandths)) = step
                && !self.silent
                && self.seldom.due()
            {
                let (label, percent) = (&self.label, thousandths / 10);
                say!("{label}, {}: {percent} %", phase.name());
            }
            return;
        };
        // The position first: each of these draws, and no number may stand beside another's name.
        bar.set_position(position(step, self.begin.elapsed(), self.planned));
        if let Some(Step(phase, _)) = step {
            bar.set_message(format!("{}, {}", self.label, phase.name()));
        }
        bar.tick();
    }

    /// Says `text` to the user.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("note: {text}")),
            None => say!("note: {text}"),
        }
    }

    /// The arm has ended so.
    pub fn finish(&self, report: &ArmReport) {
        self.give_up();
        if self.silent {
            return;
        }
        say!(
            "{}: {} ops/s, longest wait {}  ({:.1} s)",
            self.label,
            show_rate(report.ops_per_s),
            report
                .stall_s
                .longest
                .map_or("-".into(), |s| show_us(s * 1e6)),
            self.begin.elapsed().as_secs_f64(),
        );
        if let Some(real) = report.real.as_ref() {
            say!("{}: {real}", self.label);
        }
    }

    /// Takes the bar away.
    pub fn give_up(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Thousandths of what is being done. As long as a child says nothing, as those that have no tasks, its plan's time is all
/// there is to go by.
fn position(step: Option<Step>, elapsed: Duration, planned: Duration) -> u64 {
    match step {
        Some(Step(_, thousandths)) => thousandths.into(),
        None => thousandths(elapsed.as_millis() as u64, planned.as_millis() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_and_read_back_and_no_other_line_is_one() {
        let line = line(word(Phase::Measure, 1, 3));
        assert_eq!(told(&line), Some(Step(Phase::Measure, 333)));
        for line in [
            "",
            "2 333",
            "\u{1}9 333",
            "\u{1}2",
            "\u{1}2 x",
            "highwater: no",
        ] {
            assert_eq!(told(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_bar_has_one_scale_whoever_moves_it() {
        let ms = Duration::from_millis;
        assert_eq!(position(None, ms(200), ms(1_000)), 200);
        assert_eq!(position(None, ms(9_000), ms(1_000)), 1_000);
        // An hour's plan: 200 ms are next to nothing of it.
        assert_eq!(position(None, ms(200), ms(3_600_000)), 0);
        let step = Step(Phase::Measure, 140);
        assert_eq!(position(Some(step), ms(200), ms(3_600_000)), 140);
    }

    #[test]
    fn no_number_makes_more_than_all_or_overflows_and_a_later_phase_is_more() {
        for (done, of) in [(0, 0), (5, 0), (u64::MAX, u64::MAX), (7, 3)] {
            let thousandths = word(Phase::WarmUp, done, of) as u32;
            assert!(thousandths <= 1_000, "{done} of {of}: {thousandths}");
        }
        assert!(word(Phase::Sync, 0, 1) > word(Phase::Measure, 1, 1));
    }
}
