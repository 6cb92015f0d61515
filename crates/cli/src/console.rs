//! What the command prints: results on standard output, all else on standard error.
//!
//! A reader may go away (`| head`): then the command ends as SIGPIPE would end it, quietly, and removes what it made. A
//! result that has no place (a full disk) is an error.
//!
//! **Invariants.** CONSOLE-1: nothing is printed but through here (`clippy::print_stdout`, `print_stderr`), as `println!`
//! and `eprintln!` panic where a write fails.
//! **Tests.** `tests/pipes.rs`.

use crate::cleanup;
use crate::error::Exit;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// No line of a table is longer, in a file or a pipe.
pub const WIDTH: usize = 160;
/// Nor is a terminal taken to be narrower: the widest group of columns has so many.
const WIDTH_MIN: usize = 80;

/// What a shell shows of a process that SIGPIPE ended.
const PIPE_CLOSED: i32 = 128 + 13;

/// A line on standard error, as of `eprintln!`.
macro_rules! say {
    ($($arg:tt)*) => { crate::console::line(format_args!($($arg)*)) };
}

/// Prints `text` on standard output.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drop(out);
    match written {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ended(PIPE_CLOSED),
        Err(e) => {
            say!(
                "highwater: standard output: {e}\n  try: a place for it that has room, or --json FILE"
            );
            ended(Exit::Failed as i32);
        }
    }
}

/// A line on standard error.
pub fn line(text: Arguments<'_>) {
    print_err(format_args!("{text}\n"));
}

/// Text on standard error, as it is.
pub fn print_err(text: Arguments<'_>) {
    // In one write, so that no line of another process comes between.
    let text = text.to_string();
    let written = std::io::stderr().lock().write_all(text.as_bytes());
    // Notes that go to a full disk are lost; the results are not.
    if written.is_err_and(|e| e.kind() == ErrorKind::BrokenPipe) {
        ended(PIPE_CLOSED);
    }
}

/// Ends the command with `code`, unless it is ending: what is undone then may say something, too.
fn ended(code: i32) {
    if !cleanup::is_ending() {
        cleanup::end(code);
    }
}

/// How long a line on standard output may be: the terminal's width, so that no row of a table is broken in two.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.map_or(0, |s| usize::from(s.ws_col));
    match columns {
        0 => WIDTH,
        n => n.clamp(WIDTH_MIN, WIDTH),
    }
}
