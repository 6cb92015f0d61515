//! What the engine's work costs the lab's CPUs: a table in nanoseconds, from a file.
//!
//! `costs.toml` beside the crate is the one the command runs with unless `--costs` names another; `highwater costs`
//! measures such a table on the real engine.

mod bench;
mod measure;
mod metered;
mod round;
mod spread;
mod wake;

pub use measure::run;

use crate::error::{CliError, Result};
use crate::located::Source;
use serde::{Deserialize, Serialize};
use spread::{Spread, Spreads};
use std::path::Path;

/// The table that comes with the command.
const BUILTIN: &str = include_str!("../../costs.toml");
/// No piece of work takes longer: a figure above it has a wrong unit.
const COST_MAX: u64 = 100_000_000;

/// Nanoseconds for a piece of each kind of work.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// One look-up that hit: the page in place, pinned.
    pub hit_ns: u64,
    /// One page read by `read_at` from memory: its look-up and its copy.
    pub read_page_ns: u64,
    /// One page written by `write_at` in memory: its look-up, its copy and its dirtying.
    pub write_page_ns: u64,
    /// One page that was not in memory entered: its frame, its place in the index and in the LRU.
    pub install_page_ns: u64,
    /// One page looked at by reclaim, and freed where it is free to go.
    pub scan_page_ns: u64,
    /// One page moved to another frame by compaction.
    pub move_page_ns: u64,
    /// One allocation slow path entered.
    pub alloc_slow_ns: u64,
    /// One page put under writeback, on its way to a request.
    pub writeback_page_ns: u64,
    /// One request submitted, with its share of the system call.
    pub submit_ns: u64,
    /// One further piece of memory of a request.
    pub segment_ns: u64,
    /// One request completed, with its share of the system call.
    pub complete_ns: u64,
    /// One page of a request completed.
    pub end_page_ns: u64,
    /// CPU of the kernel for one request, beside its caller's: the interrupt, and threads of the kernel.
    pub interrupt_ns: u64,
    /// One turn of a spin loop.
    pub spin_ns: u64,
    /// CPU of one 4 KiB read on the calling thread; it lies within the device's time.
    pub syscall_ns: u64,
    /// What a scenario's task does itself for one operation: its random numbers, two clocks, its histogram.
    pub task_ns: u64,
    /// CPU of one wake-up of a sleeping task, for the one who wakes it.
    pub unpark_ns: u64,
    /// From a wake-up until the task runs, on an idle CPU.
    pub wake_ns: u64,
    /// The same on a CPU that ran another task until then.
    pub switch_ns: u64,
    /// How much later a thread runs that a disk's interrupt wakes on an idle CPU other than the interrupt's own.
    pub resched_ipi_ns: u64,
    /// How much later than asked for a timer goes off that no other timer joins, `wake_ns` not counted.
    pub timer_slack_ns: u64,
    /// How single look-ups and copies lie about their mean; without it they are all alike.
    #[serde(default)]
    pub spread: Spreads,
}

impl CostTable {
    /// The table of the text that came from `origin`.
    ///
    /// # Errors
    /// With the place of what makes no sense.
    fn load(origin: &str, text: &str) -> Result<CostTable> {
        let source = Source {
            origin,
            text,
            remedy: "`highwater costs --out FILE` writes a complete table",
        };
        let table: CostTable = source.parse()?;
        for (name, ns) in table.rows() {
            if ns > COST_MAX {
                let message = format!("{name}: expected nanoseconds, at most {COST_MAX}");
                return Err(source.at(source.key(name), &message, None));
            }
        }
        for (name, spread) in table.spread.rows() {
            if let Err(e) = spread.latency() {
                let message = format!("spread of {name}: {e}");
                return Err(source.at(source.key(name), &message, None));
            }
        }
        Ok(table)
    }

    /// The table that comes with the command.
    pub fn builtin() -> CostTable {
        CostTable::load("costs.toml", BUILTIN).expect("the table that comes with the command loads")
    }

    /// The table in the file `path`.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub fn find(path: &Path) -> Result<CostTable> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            CliError::usage(
                format!("cannot read the cost table {}: {e}", path.display()),
                "`highwater costs --out FILE` writes one",
            )
        })?;
        CostTable::load(&path.display().to_string(), &text)
    }

    /// Names and figures, in the order of the file.
    fn rows(&self) -> [(&'static str, u64); 21] {
        [
            ("hit_ns", self.hit_ns),
            ("read_page_ns", self.read_page_ns),
            ("write_page_ns", self.write_page_ns),
            ("install_page_ns", self.install_page_ns),
            ("scan_page_ns", self.scan_page_ns),
            ("move_page_ns", self.move_page_ns),
            ("alloc_slow_ns", self.alloc_slow_ns),
            ("writeback_page_ns", self.writeback_page_ns),
            ("submit_ns", self.submit_ns),
            ("segment_ns", self.segment_ns),
            ("complete_ns", self.complete_ns),
            ("end_page_ns", self.end_page_ns),
            ("interrupt_ns", self.interrupt_ns),
            ("spin_ns", self.spin_ns),
            ("syscall_ns", self.syscall_ns),
            ("task_ns", self.task_ns),
            ("unpark_ns", self.unpark_ns),
            ("wake_ns", self.wake_ns),
            ("switch_ns", self.switch_ns),
            ("resched_ipi_ns", self.resched_ipi_ns),
            ("timer_slack_ns", self.timer_slack_ns),
        ]
    }

    /// As the lab takes it.
    pub fn for_lab(&self) -> highwater_lab::Costs {
        let spread = |s: &Spread| s.latency().expect("a table is checked when it is loaded");
        highwater_lab::Costs {
            hit_spread: spread(&self.spread.hit),
            copy_spread: spread(&self.spread.read_page),
            copy_in_spread: spread(&self.spread.write_page),
            hit: self.hit_ns,
            copy: self.read_page_ns,
            copy_in: self.write_page_ns,
            install: self.install_page_ns,
            scan: self.scan_page_ns,
            move_page: self.move_page_ns,
            alloc_slow: self.alloc_slow_ns,
            writeback: self.writeback_page_ns,
            submit: self.submit_ns,
            segment: self.segment_ns,
            complete: self.complete_ns,
            end_page: self.end_page_ns,
            interrupt: self.interrupt_ns,
            // A turn takes time, or a loop that spins for another task would never let it run.
            spin: self.spin_ns.max(1),
            syscall: self.syscall_ns,
            task: self.task_ns,
            unpark: self.unpark_ns,
            wake: self.wake_ns,
            switch: self.switch_ns,
            resched_ipi: self.resched_ipi_ns,
            timer_slack: self.timer_slack_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_table_reaches_the_lab() {
        let table = CostTable::builtin();
        assert!(table.hit_ns > 0 && table.read_page_ns > 0 && table.wake_ns > 0);
        let lab = table.for_lab();
        assert_eq!((lab.copy, lab.wake), (table.read_page_ns, table.wake_ns));
        let still = CostTable::default().for_lab();
        assert_eq!(still.spin, 1, "time passes in a spin loop");
    }

    #[test]
    fn a_wrong_table_is_refused_with_its_place() {
        let error = |from: &str, to: &str| {
            let text = BUILTIN.replace(from, to);
            assert_ne!(text, BUILTIN, "{from}");
            CostTable::load("c.toml", &text).unwrap_err().to_string()
        };
        let e = error("\nhit_ns = ", "\nhitt_ns = ");
        assert!(e.contains("hitt_ns") && e.contains("hit_ns"), "{e}");
        let e = error("\nwake_ns = ", "\nwake_ns = -");
        assert!(e.contains("c.toml") && e.contains("wake_ns = -"), "{e}");
        let e = error("\nscan_page_ns = ", "\nscan_page_ns = 99999999999");
        assert!(e.contains("scan_page_ns: expected nanoseconds"), "{e}");
        let e = error("\nspin_ns = ", "\n# spin_ns = ");
        assert!(e.contains("missing field `spin_ns`"), "{e}");
        assert!(e.contains("highwater costs --out"), "{e}");
        let e = error("[spread]", "[spread]\nhits = { p50 = 1 }");
        assert!(e.contains("hits") && e.contains("read_page"), "{e}");
        let e = error("\nread_page = { p01 =", "\nread_page = { p9x = 3, p01 =");
        assert!(
            e.contains("spread of read_page") && e.contains("p99_9"),
            "{e}"
        );
        let e = CostTable::find(Path::new("/nowhere/c.toml")).unwrap_err();
        assert!(e.message.contains("/nowhere/c.toml"), "{e}");
    }
}
