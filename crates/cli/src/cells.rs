//! Many small runs: cells of a grid, each a scenario, an arm and a seed, with one bar for all of them.
//!
//! Cells of the lab are independent, run in processes of their own, and depend on nothing of this machine, so as many run
//! at one time as there are CPUs. Cells on real files share a disk, and run one after the other.

use crate::cleanup;
use crate::counted::Counted;
use crate::cpu;
use crate::error::{CliError, Result};
use crate::parent::{self, Options};
use crate::plan::{Arm, PlanStack, WorldName};
use crate::report::ArmReport;
use crate::scenario::Scenario;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One run.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What the bar calls it.
    pub title: String,
    /// The work, as it is run.
    pub scenario: Scenario,
    /// The policies, and the world.
    pub arm: Arm,
    /// The seed of its random numbers, and of the lab.
    pub seed: u64,
    /// Measure how deep stacks get.
    pub stack: bool,
}

/// Runs all of them; the reports are in the order of `cells`, whichever ended first.
///
/// # Errors
/// The first cell that fails, by its place; the others then are given up.
pub fn run(cells: &[Cell], options: &Options) -> Result<Vec<ArmReport>> {
    run_with(cells, |cell| {
        let stack = PlanStack {
            trace: cell.stack,
            ..options.stack.clone()
        };
        let options = Options {
            stack,
            seed: cell.seed,
            quiet: true,
            repeat: 1,
            probe: None,
            ..options.clone()
        };
        let report = parent::run(
            cell.scenario.clone(),
            std::slice::from_ref(&cell.arm),
            &options,
        )?;
        let missing =
            || CliError::failed(format!("{}: no report", cell.title), "report this as a bug");
        report.arms.into_iter().next().ok_or_else(missing)
    })
}

/// As [`run`], with `body` in place of a process.
fn run_with(
    cells: &[Cell],
    body: impl Fn(&Cell) -> Result<ArmReport> + Sync,
) -> Result<Vec<ArmReport>> {
    let lab_only = cells.iter().all(|c| c.arm.world == WorldName::Lab);
    let jobs = if lab_only {
        cpu::count().min(cells.len())
    } else {
        1
    };
    let grid = Grid {
        cells,
        next: AtomicUsize::new(0),
        ended: AtomicU64::new(0),
        done: Mutex::new(cells.iter().map(|_| None).collect()),
        progress: Counted::new(cells.len() as u64, "runs"),
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| grid.work(&body));
        }
    });
    cleanup::wait_if_ending();
    grid.progress.end();
    let done = grid
        .done
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // The first failure by place comes first; what was not begun because of it has no result, and stands behind it.
    done.into_iter().flatten().collect()
}

struct Grid<'a> {
    cells: &'a [Cell],
    next: AtomicUsize,
    ended: AtomicU64,
    done: Mutex<Vec<Option<Result<ArmReport>>>>,
    progress: Counted,
}

impl Grid<'_> {
    /// Takes cells until there are none, or one has failed.
    fn work(&self, body: &(impl Fn(&Cell) -> Result<ArmReport> + Sync)) {
        loop {
            // Relaxed: only the number counts; results are handed over under the lock.
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = self.cells.get(at) else {
                return;
            };
            self.progress.message(&cell.title);
            let result = body(cell);
            if result.is_err() {
                self.next.store(self.cells.len(), Ordering::Relaxed);
            }
            let mut done = self.lock();
            done[at] = Some(result);
            drop(done);
            let ended = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
            self.progress.at(ended);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Result<ArmReport>>>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::arms;
    use crate::scenario::find;
    use highwater_engine::Preset;

    fn cells(n: u64) -> Vec<Cell> {
        let scenario = find("fits").unwrap();
        let arm = arms(&scenario, &[WorldName::Lab], &[Preset::V3_2], false, false).remove(0);
        (0..n)
            .map(|seed| Cell {
                title: format!("cell {seed}"),
                scenario: scenario.clone(),
                arm: arm.clone(),
                seed,
                stack: false,
            })
            .collect()
    }

    #[test]
    fn reports_lie_in_the_order_of_their_cells() {
        let reports = run_with(&cells(20), |cell| {
            // Later cells end sooner.
            std::thread::sleep(std::time::Duration::from_millis(20 - cell.seed));
            Ok(ArmReport {
                refused: cell.seed,
                ..ArmReport::default()
            })
        });
        let seeds: Vec<u64> = reports.unwrap().iter().map(|r| r.refused).collect();
        assert_eq!(seeds, (0..20).collect::<Vec<_>>());
        assert!(run_with(&[], |_| unreachable!()).unwrap().is_empty());
    }

    #[test]
    fn a_cell_that_fails_ends_the_run_with_its_error() {
        let begun = AtomicUsize::new(0);
        let result = run_with(&cells(1000), |cell| {
            begun.fetch_add(1, Ordering::Relaxed);
            match cell.seed {
                3 => Err(CliError::failed("cell 3 burnt", "water")),
                _ => Ok(ArmReport::default()),
            }
        });
        assert_eq!(result.unwrap_err().message, "cell 3 burnt");
        let begun = begun.load(Ordering::Relaxed);
        assert!(begun < 1000, "the others are given up: {begun}");
    }
}
