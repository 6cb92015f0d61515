//! Highwater's numbers, one table: what was predicted, what came out, the peer of the same run, the goal.
//!
//! `cargo run --release -p highwater-bench [-- ROW ...] [--quick] [--dir DIR] [--json FILE]`
//!
//! **Method.** A row's sides run in turn, one short round each, at least seven times (three with `--quick`, which says
//! so); a cell is the median of the rounds with the least and the most beside it, and a ratio is the median of the
//! ratios of each round, so that a drift of the machine falls on both sides. Above 1 a ratio means that Highwater is
//! better, whatever the unit. Predictions and goals stand in `expect.rs`, and were written before the first run.
#![deny(unsafe_code)]

mod args;
mod expect;
mod host;
mod keys;
mod memory;
mod place;
mod raw;
mod row;
mod rows;
mod sample;
mod table;
mod threads;

use args::Args;
use clap::Parser;
use host::Host;
use place::Place;
use row::Row;
use rows::Bench;
use std::process::ExitCode;

/// Any failure, as text that ends with what to do.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("highwater-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    if cfg!(debug_assertions) {
        return Err("built without optimization; run it with cargo run --release".into());
    }
    let place = Place::make(args.dir.as_deref())?;
    let host = Host::read(place.dir(), args);
    let mut bench = Bench::new(args, &place);
    println!("{}", host.head());
    let mut all: Vec<Row> = Vec::new();
    for group in rows::GROUPS.iter().filter(|g| args.wants(g)) {
        eprintln!("{}: {} ...", group.name, group.about);
        let rows = (group.run)(&mut bench, group.name)
            .unwrap_or_else(|e| vec![Row::skipped(group.name, group.about, &e.to_string())]);
        eprintln!("{}", table::render(&rows));
        all.extend(rows);
    }
    println!("{}", table::render(&all));
    println!("load average {} before, {} after", host.load, host::load());
    if let Some(path) = &args.json {
        std::fs::write(path, table::json(&host, &all)?)
            .map_err(|e| format!("{}: {e}; name a file that you may write", path.display()))?;
    }
    Ok(())
}
