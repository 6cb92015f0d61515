//! `highwater run all`: every built-in scenario, one after the other.

use crate::args::RunArgs;
use crate::columns;
use crate::console::width;
use crate::error::{CliError, Result};
use crate::html;
use crate::outputs;
use crate::plan::WorldName;
use crate::predict::{self, Prediction, Published};
use crate::report::Report;
use crate::run::{for_json, run_scenario};
use crate::scenario::{self, BUILTIN, Kind};
use crate::sentences;

/// What `run` calls all scenarios.
pub const NAME: &str = "all";

/// Does the run name no world but Linux?
fn only_linux(args: &RunArgs) -> bool {
    args.world
        .split(',')
        .all(|w| w.trim() == WorldName::Linux.name())
}

fn asks_for_blocks(name: &str) -> Result<bool> {
    let scenario = scenario::find(name)?;
    Ok(scenario.tasks.iter().any(|t| t.kind == Kind::AllocBlock))
}

/// Runs them; a table for each, and one of all predictions at the end.
///
/// # Errors
/// The first scenario that fails, with its name, once those before it are printed.
pub fn run(args: &RunArgs) -> Result<()> {
    if args.raw {
        return Err(CliError::usage(
            "--raw writes at random, and some scenarios have no writer",
            "highwater run random-write --raw",
        ));
    }
    if let Some(path) = &args.common.html {
        outputs::try_write("--html", path)?;
    }
    let (mut reports, mut abouts, mut verdict) = (Vec::new(), Vec::new(), Ok(()));
    for (name, _) in BUILTIN {
        if only_linux(args) && asks_for_blocks(name)? {
            say!("note: {name} is left out: Linux lends a process no block of page frames");
            continue;
        }
        let named = |mut e: CliError| {
            e.message = format!("{name}: {}", e.message);
            e
        };
        match run_scenario(args, name, None).map_err(named) {
            Ok((report, page)) => {
                verdict = report.verdict().map_err(named);
                reports.push(report);
                abouts.push(page.into_about());
            }
            // Before anything ran there is nothing to lose.
            Err(e) if reports.is_empty() => return Err(e),
            Err(e) => verdict = Err(e),
        }
        if verdict.is_err() {
            break;
        }
    }
    let predictions: Vec<Vec<Prediction>> = reports.iter().map(predict::predictions).collect();
    let pairs: Vec<(&Report, &[Prediction])> = reports
        .iter()
        .zip(predictions.iter().map(Vec::as_slice))
        .collect();
    let mut text = String::new();
    for report in &reports {
        text.push_str(&format!(
            "\n{}\n{}\n",
            report.head(),
            columns::table(report).render(width())
        ));
        for sentence in sentences::all(report) {
            text.push_str(&sentence);
            text.push('\n');
        }
    }
    let table = predict::table(&pairs, width());
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table);
    }
    let bare: Vec<Report> = reports.iter().map(|r| for_json(r, &args.common)).collect();
    let json: Vec<Published> = bare
        .iter()
        .zip(&predictions)
        .map(|(report, predictions)| Published {
            report,
            predictions,
        })
        .collect();
    outputs::publish(&text, &json, args.common.json.as_deref())?;
    if let Some(path) = &args.common.html {
        let parts: Vec<(Report, html::About)> = reports.iter().cloned().zip(abouts).collect();
        html::write(path, &html::page_of_all("All scenarios", &parts, &table))?;
    }
    verdict
}
