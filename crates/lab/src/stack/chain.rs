//! A call chain with each frame's bytes, in the text of Linux's stack tracer.
//!
//! **Invariants.** CHAIN-1: the sizes of a chain's frames add up to its depth.

use super::module::{Module, Place};
use super::unwind;
use highwater_engine::Nanos;
use highwater_engine::stack::Snapshot;
use std::fmt;

/// A call chain at one moment, deepest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Its frames.
    pub frames: Vec<ChainFrame>,
}

/// One frame of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainFrame {
    /// Bytes from the stack's top to the frame's lowest byte.
    pub depth: u64,
    /// The frame's own bytes, up to its caller's: its locals, what it saved, its return address.
    pub size: u64,
    /// The function, without hash.
    pub symbol: String,
    /// Bytes into the function: where it returns to, of the deepest where it is.
    pub offset: u64,
    /// The function's bytes of code.
    pub symbol_size: u64,
    /// The library it is of, unless it is the program's.
    pub module: Option<String>,
}

impl Chain {
    /// The chain of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Chain {
        let mut modules = Module::all();
        let steps = unwind::frames(snapshot, &modules);
        let top = snapshot.top as u64;
        let mut frames = Vec::new();
        let mut low = snapshot.deepest as u64;
        for (n, step) in steps.iter().enumerate() {
            let last = n + 1 == steps.len();
            // CHAIN-1: the outermost frame takes what is left: the entry's argument, and the link to who started it.
            let high = if last { top } else { step.cfa.min(top) };
            let within = if n == 0 { step.ip } else { step.ip - 1 };
            let place = match modules.iter_mut().find(|m| m.contains(within)) {
                Some(module) => module.place(within, step.ip),
                None => unknown(step.ip),
            };
            frames.push(frame(top, low, high, place));
            low = high;
        }
        if frames.is_empty() {
            frames.push(frame(top, low, top, unknown(0)));
        }
        Chain { frames }
    }

    /// Without the innermost frames that `is` accepts: those of whoever looked.
    pub fn without(mut self, is: impl Fn(&str) -> bool) -> Chain {
        let inner = self.frames.iter().take_while(|f| is(&f.symbol)).count();
        self.frames.drain(..inner);
        self
    }

    /// Bytes from the stack's top to the deepest byte.
    pub fn depth(&self) -> u64 {
        self.frames.first().map_or(0, |f| f.depth)
    }

    /// Depth from the outermost frame on whose name `is` accepts, its own bytes included; `None` when there is none.
    pub fn from(&self, is: impl Fn(&str) -> bool) -> Option<(u64, &ChainFrame)> {
        let frame = self.frames.iter().rev().find(|f| is(&f.symbol))?;
        Some((self.depth() - (frame.depth - frame.size), frame))
    }
}

fn unknown(ip: u64) -> Place {
    Place {
        symbol: format!("{ip:#x}"),
        offset: 0,
        size: 0,
        module: None,
    }
}

fn frame(top: u64, low: u64, high: u64, place: Place) -> ChainFrame {
    ChainFrame {
        depth: top - low,
        size: high - low,
        symbol: place.symbol,
        offset: place.offset,
        symbol_size: place.size,
        module: place.module,
    }
}

impl ChainFrame {
    /// `symbol+0xoff/0xsize [module]`; an address where no symbol is known.
    pub fn location(&self) -> String {
        let mut text = self.symbol.clone();
        if self.symbol_size > 0 {
            text += &format!("+{:#x}/{:#x}", self.offset, self.symbol_size);
        }
        if let Some(module) = &self.module {
            text += &format!(" [{module}]");
        }
        text
    }
}

/// As `stack_trace` of Linux's tracefs prints it.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.frames.len();
        writeln!(f, "        Depth    Size   Location    ({n} entries)")?;
        writeln!(f, "        -----    ----   --------")?;
        for (n, frame) in self.frames.iter().enumerate() {
            let (depth, size) = (frame.depth, frame.size);
            writeln!(f, "{n:3}) {depth:8} {size:5}   {}", frame.location())?;
        }
        Ok(())
    }
}

/// A task that used more stack than it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overflow {
    /// The run's seed.
    pub seed: u64,
    /// The task's name.
    pub task: String,
    /// Bytes of its stack.
    pub size: u64,
    /// The address that it touched, in bytes below the stack's top.
    pub fault: u64,
    /// The virtual time.
    pub at: Nanos,
    /// Who called whom.
    pub chain: Chain,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: task {} overflowed its stack of {} bytes at virtual time {:?}: it touched byte {} below the top",
            self.seed, self.task, self.size, self.at, self.fault
        )?;
        write!(f, "{}", self.chain)
    }
}

impl std::error::Error for Overflow {}
