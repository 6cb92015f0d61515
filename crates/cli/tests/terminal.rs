//! What a terminal shows: tables as wide as it is, and how far a run is.

mod common;

use common::{command, err, ok, words};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;

/// What `args` print on a terminal of so many columns, both outputs together.
fn on_terminal(columns: u16, args: &[&str]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let path = name.to_str().unwrap();
    let slave = File::options().read(true).write(true).open(path).unwrap();
    let mut child = command();
    child.args(args).env("TERM", "xterm");
    child.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut running = child.spawn().unwrap();
    // Its ends of the terminal: the last to close it is the child.
    drop(child);
    let mut text = Vec::new();
    // The end is an error on a terminal (EIO).
    let _ = File::from(master).read_to_end(&mut text);
    assert!(running.wait().unwrap().success());
    String::from_utf8_lossy(&text).into_owned()
}

const RUN: &str = "run rfc --world lab --memory 4MiB --duration 50ms --preset 2.6.35,highwater";

/// The longest line of the tables.
fn widest(text: &str) -> usize {
    let rows = text.lines().filter(|l| l.contains('│') || l.contains('┼'));
    rows.map(|l| l.trim_end().chars().count()).max().unwrap()
}

#[test]
fn no_row_of_a_table_is_wider_than_the_terminal() {
    let args = words(RUN);
    for columns in [80, 100, 120] {
        let text = on_terminal(columns, &args);
        let widest = widest(&text);
        assert!(widest <= columns.into(), "{widest} of {columns}:\n{text}");
    }
    let pipe = widest(&String::from_utf8_lossy(&ok(&args).stdout));
    assert!(pipe > 80, "{pipe}");
    assert_eq!(pipe, widest(&on_terminal(160, &args)), "as on a wide one");
}

#[test]
fn the_bar_moves_by_the_run_s_own_time_and_only_on_a_terminal() {
    let args = words("run fits --world lab --memory 16MiB --preset highwater --ops 1000000");
    let text = on_terminal(80, &args);
    let percent = |line: &str| {
        let (before, _) = line.split_once(" %")?;
        before.split_whitespace().last()?.parse::<u32>().ok()
    };
    let seen = |phase: &str| {
        let bars = text.split('\r').filter(|b| b.contains(phase));
        bars.filter_map(percent).max().unwrap_or(0)
    };
    assert!(seen("measuring") > 10, "{text:?}");
    // What a child tells its parent is for nobody else.
    assert!(!text.contains('\u{1}') && !err(&ok(&args)).contains('\u{1}'));
}

/// The widest line of `text` that has `word` in it, in columns: without the sequences that move the cursor.
fn widest_bar(text: &str, word: &str) -> usize {
    let bars = text.split(['\r', '\n']).filter(|b| b.contains(word));
    let visible = |b: &str| {
        let parts = b.split('\u{1b}').enumerate().map(|(i, p)| match i {
            0 => p,
            _ => p
                .split_once(|c: char| c.is_ascii_alphabetic())
                .map_or("", |x| x.1),
        });
        parts.map(|p| p.chars().count()).sum::<usize>()
    };
    bars.map(visible).max().expect("a bar")
}

/// A bar that is wider than the terminal would be drawn anew below itself.
#[test]
fn bars_fit_into_a_narrow_terminal() {
    let sweep = "sweep fits --memory 4MiB --duration 50ms --seeds 2 --preset highwater";
    let run = "run fits --world lab --memory 4MiB --duration 50ms --preset highwater";
    for (line, word) in [(sweep, " runs "), (run, "░")] {
        let text = on_terminal(50, &words(line));
        let widest = widest_bar(&text, word);
        assert!(widest <= 50, "{line}: {widest}: {text:?}");
    }
}
