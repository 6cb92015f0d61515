//! The command `highwater`: one scenario in three worlds, as a table.
//!
//! A parent process owns what must be cleaned up (files, cgroup, loop device, sysctls); each arm runs in a child of its
//! own (`run-arm`), so that peaks of memory and failures do not leak from one arm into the next.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[macro_use]
mod console;

mod adjust;
mod affinity;
mod all;
mod args;
mod arm_process;
mod blocks;
mod cells;
mod child;
mod claims;
mod cleanup;
mod columns;
mod command_line;
mod costs;
mod counted;
mod cpu;
mod device;
mod disk;
mod engine_arm;
mod error;
mod ftrace;
mod html;
mod jobs;
mod least_squares;
mod linux;
mod located;
mod matrix;
mod measure;
mod outputs;
mod parent;
mod place;
mod plan;
mod predict;
mod probe;
mod progress;
mod quantile;
mod raw;
mod repeats;
mod replay;
mod report;
mod rng;
mod run;
mod samples;
mod scenario;
mod sentences;
mod soak;
mod stack;
mod sweep;
mod table;
mod target;
mod tasks;
mod units;
mod volume;
mod world_lab;
mod world_linux;
mod world_os;

use args::{Cli, Command, DeviceCommand, RunArgs, ScenarioCommand};
use clap::Parser;
use console::print;
use error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.as_ref().map_or(Ok(()), outputs::check) {
        Ok(()) => dispatch(cli.command),
        Err(e) => Err(e),
    };
    cleanup::wait_if_ending();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say!("highwater: {e}");
            ExitCode::from(e.exit as u8)
        }
    }
}

fn dispatch(command: Option<Command>) -> Result<()> {
    match command {
        None => run::run(&RunArgs::default()),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Matrix(args)) => matrix::run(&args),
        Some(Command::Sweep(args)) => sweep::run(&args),
        Some(Command::Claims(args)) => claims::run(&args),
        Some(Command::Soak(args)) => soak::run(&args),
        Some(Command::Costs(args)) => costs::run(&args),
        Some(Command::Stack(args)) => stack::run(&args),
        Some(Command::Scenarios) => list(),
        Some(Command::Scenario {
            what: ScenarioCommand::Show { name },
        }) => show(&name),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Devices) => device::list().map(|text| print(&text)),
        Some(Command::Device {
            what: DeviceCommand::Show { name },
        }) => device::find(&name).map(|named| print(&named.text)),
        Some(Command::Replay(args)) => replay::replay(&args),
        Some(Command::Trace { what }) => replay::trace(&what),
        Some(Command::Volume { what }) => volume::run(&what),
        Some(Command::RunArm) => child::main(),
    }
}

fn list() -> Result<()> {
    let mut out = String::new();
    for (name, text) in scenario::BUILTIN {
        let scenario = scenario::load(name, text)?;
        out.push_str(&format!("{name:<14}{}\n", scenario.about));
    }
    out.push_str(
        "\n`highwater run NAME` runs one; `highwater scenario show NAME` prints its TOML.\n",
    );
    print(&out);
    Ok(())
}

fn show(name: &str) -> Result<()> {
    let (_, text) = scenario::text(name)?;
    print(&text);
    Ok(())
}
