//! What all seeds of a soak did together.

use crate::units::show_count;
use highwater_engine::Event;
use highwater_lab::soak::{SoakOptions, SoakReport, kind_of};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counters that no seed may raise.
const NEVER: &[Event] = &[Event::LostWakeups];
/// A seed that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    pub seed: u64,
    pub options: String,
    pub text: String,
}

/// What all seeds did together; the shape of `--json`.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub first_seed: u64,
    pub seeds: u64,
    pub operations: u64,
    pub operations_failed: u64,
    pub pages_checked: u64,
    pub crash_images: u64,
    pub scheduler_steps: u64,
    pub virtual_s: f64,
    pub seeds_by_trouble: BTreeMap<String, u64>,
    /// Seeds with two troubles at one time.
    pub seeds_with_two_troubles: u64,
    /// Seeds where some files lie on a journaled volume each.
    pub seeds_with_volumes: u64,
    /// Seeds where pages are moved about by tasks of their own accord.
    pub seeds_with_moves: u64,
    /// Seeds where the scheduler is rude.
    pub seeds_rude: u64,
    /// Seeds where one disk fails and another does not.
    pub seeds_with_a_spared_disk: u64,
    pub disks_by_model: BTreeMap<&'static str, u64>,
    pub seeds_by_policy: BTreeMap<String, u64>,
    /// What devices did wrong, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    pub counters: BTreeMap<&'static str, u64>,
    pub never_reached: Vec<&'static str>,
    pub failures: Vec<Failure>,
}

impl Summary {
    pub fn add(&mut self, drawn: &SoakOptions, report: &SoakReport) {
        self.seeds += 1;
        self.operations += report.ops;
        self.operations_failed += report.failed;
        self.pages_checked += report.pages_checked;
        self.crash_images += report.crashes;
        self.scheduler_steps += report.steps;
        self.virtual_s += report.took.as_secs_f64();
        for trouble in drawn.trouble.iter() {
            *self.seeds_by_trouble.entry(trouble.name()).or_default() += 1;
        }
        self.seeds_with_two_troubles += u64::from(drawn.trouble.iter().count() > 1);
        self.seeds_with_volumes += u64::from(drawn.has_volumes());
        self.seeds_with_moves += u64::from(drawn.mix.compact > 0);
        self.seeds_rude += u64::from(drawn.rude);
        self.seeds_with_a_spared_disk += u64::from(drawn.spared.is_some());
        for disk in &drawn.disks {
            *self.disks_by_model.entry(kind_of(&disk.model)).or_default() += 1;
        }
        let policy = drawn.preset.map_or("drawn".into(), |p| p.to_string());
        *self.seeds_by_policy.entry(policy).or_default() += 1;
        let (files, hung) = (report.faults.files, report.faults.hung);
        for (kind, n) in [
            ("read_errors", files.reads),
            ("write_errors", files.writes),
            ("no_space", files.no_space),
            ("flush_errors", files.flushes),
            ("lossy_flush_errors", files.lossy_flushes),
            ("permanent_ranges", files.permanent),
            ("spikes", files.spikes),
            ("hung_requests", hung),
            ("crash_images", report.crashes),
        ] {
            *self.faults.entry(kind).or_default() += n;
        }
        for event in Event::ALL {
            *self.counters.entry(event.name()).or_default() += report.stats.event(*event);
        }
    }

    /// The slow paths that no seed reached.
    pub fn cover(&mut self) {
        self.never_reached = Event::ALL
            .iter()
            .filter(|e| !NEVER.contains(e))
            .map(|e| e.name())
            .filter(|name| self.counters.get(name).is_none_or(|n| *n == 0))
            .collect();
        let faults = self.faults.iter().filter(|(_, n)| **n == 0);
        self.never_reached.extend(faults.map(|(name, _)| *name));
    }

    pub fn text(&self, seconds: f64) -> String {
        let mut text = format!(
            "{} {} from {}, {} operations ({} failed, as their trouble allows), {} pages compared, {} crash images; {} seeds with volumes, {} where pages move, {} with a rude scheduler\n\
             {:.1} s of virtual time in {:.1} s: {:.0} seeds a minute\n",
            self.seeds,
            if self.seeds == 1 { "seed" } else { "seeds" },
            self.first_seed,
            show_count(self.operations),
            show_count(self.operations_failed),
            show_count(self.pages_checked),
            show_count(self.crash_images),
            self.seeds_with_volumes,
            self.seeds_with_moves,
            self.seeds_rude,
            self.virtual_s,
            seconds,
            self.seeds as f64 * 60.0 / seconds.max(1e-9),
        );
        text.push_str(&line("policies", &self.seeds_by_policy));
        text.push_str(&line("disks", &self.disks_by_model));
        text.push_str(&line("troubles", &self.seeds_by_trouble));
        text.push_str(&line("faults", &self.faults));
        text
    }

    pub fn coverage_text(&self) -> String {
        let mut text = String::from("Slow paths and counters, over all seeds:\n");
        for (name, n) in &self.counters {
            let count = match *n {
                0 if self.never_reached.contains(name) => "NOT REACHED".into(),
                n => show_count(n),
            };
            text.push_str(&format!("  {name:<32}{count}\n"));
        }
        text
    }
}

/// `title: name n, name n`, and nothing without any.
fn line<K: std::fmt::Display>(title: &str, counts: &BTreeMap<K, u64>) -> String {
    let counts: Vec<_> = counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(name, n)| format!("{name} {}", show_count(*n)))
        .collect();
    if counts.is_empty() {
        return String::new();
    }
    format!("{title}: {}\n", counts.join(", "))
}
