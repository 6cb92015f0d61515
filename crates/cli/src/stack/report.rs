//! What an arm's stacks were used for, in the shape of `--json`.
//!
//! **Invariants.** STACKS-1: the frames' bytes of a chain add up to the first frame's depth (CHAIN-1 of the lab).

use highwater::ThreadStack;
use highwater_engine::TaskId;
use highwater_lab::stack::{CallUse, Chain, ChainFrame, Overflow, StackUse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The stacks of one arm.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StackReport {
    /// Tasks of one kind together, the deepest kind first.
    pub tasks: Vec<TaskStack>,
    /// The deepest call of each public entry point that the tasks used.
    pub calls: Vec<CallStack>,
    /// A stack was too small: who overflowed it, and the chain. The arm ended there, and measured nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<StackOverflow>,
}

/// A stack that was too small.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StackOverflow {
    /// The task's name.
    pub task: String,
    /// Bytes of its stack.
    pub size: u64,
    /// The byte that it touched, counted from the top.
    pub fault: u64,
    /// Virtual nanoseconds.
    pub at_ns: u64,
    /// Who called whom.
    pub chain: Vec<StackFrame>,
    /// All of it as text.
    pub text: String,
}

/// The deepest stack of one kind of task.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskStack {
    /// The kind: a name without the thread's number.
    pub task: String,
    /// How many there were.
    pub threads: u32,
    /// Their numbers in the lab, of the deepest first.
    pub numbers: Vec<u32>,
    /// Bytes of its stack; in the OS world, the bytes that were painted.
    pub size: u64,
    /// Bytes that it used.
    pub deepest: u64,
    /// All that was painted was used: it may have gone deeper.
    pub at_least: bool,
    /// Bytes of the record chain from the engine's outermost function on; null without a chain.
    pub engine: Option<u64>,
    /// That function.
    pub entry: Option<String>,
    /// The chain at the record, deepest first; in the OS world at the deepest of the places that look.
    pub chain: Vec<StackFrame>,
}

/// One row of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StackFrame {
    /// Bytes from the stack's top to the frame's lowest.
    pub depth: u64,
    /// The frame's own.
    pub size: u64,
    /// The function, and where in it.
    pub location: String,
}

/// One public entry point.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CallStack {
    /// Its name.
    pub entry: String,
    /// How often it was called.
    pub calls: u64,
    /// Bytes that it needs below its caller's frame.
    pub deepest: u64,
}

/// How deep one task was, as either world tells it.
pub struct Used {
    /// What the world knows.
    pub stack: StackUse,
    /// See [`TaskStack::at_least`].
    pub at_least: bool,
    /// The chain is of a place that looked, not of the record.
    pub looked: bool,
}

impl StackReport {
    /// Tasks of a kind, and entry points, together.
    pub fn new(used: Vec<Used>, calls: &[CallUse]) -> StackReport {
        let mut kinds: BTreeMap<String, TaskStack> = BTreeMap::new();
        for Used {
            stack,
            at_least,
            looked,
        } in used
        {
            let Some(deepest) = stack.deepest else {
                continue;
            };
            let kind = kinds.entry(kind(&stack.name).to_owned()).or_default();
            kind.threads += 1;
            kind.numbers.push(stack.task.0);
            // Of equals the first whose chain is known.
            let first_chain = kind.chain.is_empty() && stack.chain.is_some();
            if kind.threads == 1 || (deepest, first_chain) > (kind.deepest, false) {
                let last = kind.numbers.len() - 1;
                kind.numbers.swap(0, last);
                (kind.size, kind.deepest, kind.at_least) = (stack.size, deepest, at_least);
                kind.set_chain(stack.chain.as_ref(), looked);
            }
        }
        for (name, kind) in &mut kinds {
            kind.task.clone_from(name);
        }
        let tasks = kinds.into_values().collect();
        let calls = calls
            .iter()
            .map(|c| CallStack {
                entry: c.entry.name().to_owned(),
                calls: c.calls,
                deepest: c.deepest,
            })
            .collect();
        let mut report = StackReport {
            tasks,
            calls,
            overflow: None,
        };
        report.sort();
        report
    }

    /// As `new`, of a traced world's threads; their chains are of the deepest place that looked.
    pub fn of_threads(threads: Vec<ThreadStack>, calls: Vec<CallStack>) -> StackReport {
        let used = threads.into_iter().enumerate().map(|(n, t)| Used {
            stack: StackUse {
                task: TaskId(n as u32),
                name: t.name,
                size: t.painted,
                deepest: Some(t.deepest),
                chain: t.record.as_ref().map(|r| Chain::of(r).without(is_probe)),
            },
            at_least: t.at_least,
            looked: true,
        });
        StackReport {
            calls,
            ..StackReport::new(used.collect(), &[])
        }
    }

    /// Of an arm that ended with an overflow.
    pub fn overflowed(overflow: &Overflow) -> StackReport {
        StackReport {
            overflow: Some(StackOverflow {
                task: overflow.task.clone(),
                size: overflow.size,
                fault: overflow.fault,
                at_ns: overflow.at.0,
                chain: overflow.chain.frames.iter().map(StackFrame::of).collect(),
                text: overflow.to_string(),
            }),
            ..StackReport::default()
        }
    }

    fn sort(&mut self) {
        self.tasks
            .sort_by(|a, b| b.deepest.cmp(&a.deepest).then(a.task.cmp(&b.task)));
    }
}

impl StackReport {
    /// Takes the chains that a second run kept. A record that did not come again (the heap's slow paths depend on what is
    /// not of the run) is lowered to the second run's, for the next run to find.
    pub fn take_chains(&mut self, again: StackReport) {
        for task in &mut self.tasks {
            let other = again.tasks.iter().find(|t| t.task == task.task);
            if let Some(other) = other.filter(|_| task.chain.is_empty()) {
                *task = other.clone();
            }
        }
        self.sort();
    }
}

impl TaskStack {
    fn set_chain(&mut self, chain: Option<&Chain>, looked: bool) {
        (self.engine, self.entry) = (None, None);
        self.chain.clear();
        // A stack that was used deeper after the line was crossed has another record.
        let Some(chain) = chain.filter(|c| looked || c.depth() == self.deepest) else {
            return;
        };
        if let Some((bytes, frame)) = chain.from(is_engine) {
            self.engine = Some(bytes);
            self.entry = Some(frame.symbol.clone());
        }
        self.chain = chain.frames.iter().map(StackFrame::of).collect();
    }

    /// In the text of Linux's stack tracer.
    pub fn chain_text(&self) -> String {
        let n = self.chain.len();
        let mut text = format!("        Depth    Size   Location    ({n} entries)\n");
        text.push_str("        -----    ----   --------\n");
        for (n, f) in self.chain.iter().enumerate() {
            text.push_str(&format!(
                "{n:3}) {:8} {:5}   {}\n",
                f.depth, f.size, f.location
            ));
        }
        text
    }
}

impl StackFrame {
    fn of(frame: &ChainFrame) -> StackFrame {
        StackFrame {
            depth: frame.depth,
            size: frame.size,
            location: frame.location(),
        }
    }
}

/// Is this function the engine's own, or the library's? (The command's binary has the library's name, but no such rooms.)
fn is_engine(symbol: &str) -> bool {
    let name = symbol.trim_start_matches('<');
    [
        "highwater_engine::",
        "highwater::file::",
        "highwater::cache::",
    ]
    .iter()
    .any(|room| name.starts_with(room))
        && !name.starts_with("highwater_engine::stack::")
}

/// Is this function one that looks at the stack?
fn is_probe(symbol: &str) -> bool {
    ["highwater_engine::stack::", "highwater::world::stack::"]
        .iter()
        .any(|room| symbol.starts_with(room))
}

/// The name without what tells the threads of one kind apart: `writer-3`, `kswapd0`, `flush-1:0`.
fn kind(name: &str) -> &str {
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == ':');
    if kind.is_empty() { name } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(number: u32, name: &str, deepest: u64, chain: Option<Chain>) -> Used {
        Used {
            stack: StackUse {
                task: TaskId(number),
                name: name.into(),
                size: 8192,
                deepest: Some(deepest),
                chain,
            },
            at_least: false,
            looked: false,
        }
    }

    fn chain(sizes: &[(u64, &str)]) -> Chain {
        let mut depth = sizes.iter().map(|(s, _)| s).sum();
        let frames = sizes.iter().map(|&(size, symbol)| {
            let frame = ChainFrame {
                depth,
                size,
                symbol: symbol.into(),
                offset: 0x10,
                symbol_size: 0x20,
                module: None,
            };
            depth -= size;
            frame
        });
        Chain {
            frames: frames.collect(),
        }
    }

    #[test]
    fn threads_of_a_kind_are_one_row_and_the_deepest_counts() {
        let report = StackReport::new(
            vec![
                used(3, "writer-0", 900, None),
                used(4, "kswapd0", 1_000, None),
                used(5, "writer-1", 1_200, None),
                used(6, "writer-2", 1_200, Some(chain(&[(1_200, "main")]))),
            ],
            &[],
        );
        let rows: Vec<_> = report
            .tasks
            .iter()
            .map(|t| (&*t.task, t.threads, t.numbers[0], t.deepest))
            .collect();
        assert_eq!(rows, [("writer", 3, 6, 1_200), ("kswapd", 1, 4, 1_000)]);
    }

    #[test]
    fn who_looked_is_not_of_the_chain() {
        let looked = chain(&[
            (8, "highwater_engine::stack::Snapshot::here"),
            (16, "highwater::world::stack::look"),
            (80, "highwater::device::queue::OsQueue::submit"),
            (40, "highwater_engine::stack::call::call"),
        ]);
        let left = looked.without(is_probe);
        assert_eq!((left.depth(), left.frames.len()), (120, 2));
    }

    #[test]
    fn the_engine_s_share_begins_at_its_outermost_function() {
        let chain = chain(&[
            (100, "malloc"),
            (200, "highwater_engine::zone::alloc"),
            (
                50,
                "<highwater_lab::world::LabWorld as highwater_engine::world::World>::park",
            ),
            (300, "<highwater_engine::file::File<W>>::read_at"),
            (70, "highwater::file::File::read_at"),
            (90, "highwater::tasks::run"),
            (400, "stack_init_trampoline"),
        ]);
        let report = StackReport::new(vec![used(2, "t", 1_210, Some(chain))], &[]);
        let task = &report.tasks[0];
        assert_eq!(task.engine, Some(720));
        assert_eq!(
            task.entry.as_deref(),
            Some("highwater::file::File::read_at")
        );
        let text = task.chain_text();
        assert!(text.starts_with("        Depth    Size   Location    (7 entries)\n"));
        assert!(
            text.contains("\n  0)     1210   100   malloc+0x10/0x20\n"),
            "{text}"
        );
        assert_eq!(task.chain.iter().map(|f| f.size).sum::<u64>(), 1_210);
    }
}
