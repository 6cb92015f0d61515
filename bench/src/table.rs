//! The table, as text and as JSON.

use crate::host::Host;
use crate::row::{Goal, Row};
use crate::sample::Spread;
use serde_json::json;

const HEAD: [&str; 7] = ["what", "prediction", "result", "peer", "ratio", "goal", ""];

fn times(x: f64) -> String {
    if x.is_infinite() {
        "∞".into()
    } else if x >= 9.95 {
        format!("{x:.1} x")
    } else {
        format!("{x:.2} x")
    }
}

/// `30.1 ns (28.0–33.9)`.
fn cell(row: &Row, rounds: &[f64]) -> String {
    let s = Spread::of(rounds);
    if rounds.len() == 1 {
        return row.unit.show(s.median);
    }
    let bare = |x: f64| {
        let text = row.unit.show(x);
        let number = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        number.map_or(text.clone(), |end| text[..end].to_string())
    };
    format!(
        "{} ({}–{})",
        row.unit.show(s.median),
        bare(s.min),
        bare(s.max)
    )
}

fn cells(row: &Row) -> [String; 7] {
    let dash = || "–".to_string();
    if let Some(why) = &row.skipped {
        let what = format!("{}: {}", row.group, row.what);
        return [
            what,
            dash(),
            format!("not run: {why}"),
            dash(),
            dash(),
            dash(),
            dash(),
        ];
    }
    let (prediction, goal) = match row.goal {
        Goal::Ratio(least) => (times(row.prediction), format!("≥ {}", times(least))),
        Goal::AtMost(most) => (
            row.unit.show(row.prediction),
            format!("≤ {}", row.unit.show(most)),
        ),
        Goal::None => (row.unit.show(row.prediction), dash()),
    };
    [
        row.what.clone(),
        prediction,
        cell(row, &row.own),
        (row.peer.as_ref()).map_or_else(dash, |(name, rounds)| {
            format!("{name} {}", cell(row, rounds))
        }),
        row.ratio().map_or_else(dash, |r| {
            format!("{} ({:.2}–{:.2})", times(r.median), r.min, r.max)
        }),
        goal,
        match row.reached() {
            Some(true) => "reached".into(),
            Some(false) => "MISSED".into(),
            None => dash(),
        },
    ]
}

/// The rows under their head, then the notes.
pub fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(String::from)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        let fits = lines
            .iter()
            .zip(std::iter::once(None).chain(rows.iter().map(Some)));
        // The reason of a skipped row runs over its neighbours.
        let fits = fits.filter(|(_, row)| column != 2 || row.is_none_or(|r| r.skipped.is_none()));
        fits.map(|(l, _)| l[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        let padded: Vec<String> = (line.iter().zip(widths))
            .map(|(cell, width)| {
                format!(
                    "{cell}{}",
                    " ".repeat(width.saturating_sub(cell.chars().count()))
                )
            })
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
        if n == 0 {
            let total: usize = widths.iter().sum::<usize>() + 12;
            text.push_str(&"─".repeat(total));
            text.push('\n');
        }
    }
    for row in rows {
        for note in &row.notes {
            text.push_str(&format!("· {}: {note}\n", row.what));
        }
    }
    text
}

/// The same for programs: `{"host": …, "rows": […]}`, each row with its rounds, medians and verdict.
///
/// # Errors
/// None in practice: what serde answers.
pub fn json(host: &Host, rows: &[Row]) -> serde_json::Result<String> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "row": row,
                "result": (!row.own.is_empty()).then(|| Spread::of(&row.own)),
                "ratio": row.ratio(),
                "reached": row.reached(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "host": host, "rows": rows }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect;

    #[test]
    fn each_row_is_one_line_with_its_verdict() {
        let slow = Row::new("hit", &expect::HIT_1, vec![50.0, 60.0, 70.0]).note("why");
        let none = Row::skipped("fits", "fits", "not root; run it with sudo");
        let text = render(&[slow, none]);
        assert!(text.contains("60.0 ns (50.0–70.0)"), "{text}");
        assert!(text.contains("MISSED"), "{text}");
        assert!(
            text.contains("not run: not root; run it with sudo"),
            "{text}"
        );
        assert!(text.lines().count() == 5, "{text}");
    }
}
