//! The part of `docs/the-mail.md` that is made from claims: between two markers, so that the rest is written by hand.

use super::output::{answer_text, values};
use super::{Judged, mail_stack};
use crate::error::{CliError, Result};
use crate::units::show_count;
use std::path::Path;

/// Before the part.
const BEGIN: &str = "<!-- begin: highwater claims --markdown -->";
/// After it.
const END: &str = "<!-- end: highwater claims --markdown -->";

/// The part, without its markers.
pub fn generated(judged: &[Judged], seeds: &[u64]) -> String {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let mut out = format!(
        "{}\n## Claims\n\nIn the lab, seeds {}. Figures that differ between seeds stand in the order of the seeds.\n\n",
        stack_table(),
        seeds.join(", ")
    );
    out.push_str("| claim | who | verdict |\n|---|---|---|\n");
    for j in judged {
        out.push_str(&format!(
            "| [{}](#{}) | {} | **{}** |\n",
            j.claim.claim,
            j.claim.name,
            j.claim.who.name(),
            j.verdict.text()
        ));
    }
    for j in judged {
        out.push_str(&section(j));
    }
    out
}

fn section(j: &Judged) -> String {
    let c = &j.claim;
    let mut out = format!(
        "\n### {}\n\n> {}\n>\n> — {}\n\nClaim: {}. Measured: {}. Rule: {}. Verdict: **{}**.\n\n",
        c.name,
        c.quote,
        c.who.name(),
        c.claim,
        c.measured,
        c.rule_text,
        j.verdict.text()
    );
    out.push_str("| condition | figures | answer |\n|---|---|---|\n");
    for seen in &j.conditions {
        let figures: Vec<String> = values(seen)
            .into_iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        out.push_str(&format!(
            "| {} | {} | {} |\n",
            seen.name,
            figures.join("; "),
            answer_text(seen)
        ));
    }
    out
}

/// The mail's table, added up again.
fn stack_table() -> String {
    let rows = mail_stack::rows();
    let total = mail_stack::total(&rows);
    let mut out = format!(
        "## The mail's stack, added up again\n\n{} rows, {} bytes in all; {} of them lie below `->writepage`.\n\n\
         | part | bytes | share |\n|---|---:|---:|\n",
        rows.len(),
        show_count(total),
        show_count(mail_stack::below_writepage(&rows))
    );
    for (part, bytes) in mail_stack::by_subsystem(&rows) {
        out.push_str(&format!(
            "| {} | {} | {:.0} % |\n",
            part.name(),
            show_count(bytes),
            bytes as f64 * 100.0 / total as f64
        ));
    }
    out
}

/// The text around the markers.
fn around<'a>(text: &'a str, path: &Path) -> Result<(&'a str, &'a str)> {
    let parts = text
        .split_once(BEGIN)
        .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    parts.ok_or_else(|| {
        CliError::usage(
            format!(
                "{} lacks the markers between which the claims go",
                path.display()
            ),
            format!("two lines in it: {BEGIN} and {END}"),
        )
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| CliError::os(path.display(), e, "--update docs/the-mail.md"))
}

/// Fails when the file has no place for the part.
///
/// # Errors
/// As said.
pub fn check(path: &Path) -> Result<()> {
    around(&read(path)?, path).map(drop)
}

/// Puts `part` between the file's markers.
///
/// # Errors
/// No markers, or what the file system answers.
pub fn update(path: &Path, part: &str) -> Result<()> {
    let text = read(path)?;
    let (head, tail) = around(&text, path)?;
    let new = format!("{head}{BEGIN}\n\n{part}\n{END}{tail}");
    std::fs::write(path, new).map_err(|e| {
        CliError::os(
            path.display(),
            e,
            "--update with a file that you may write to",
        )
    })?;
    say!("updated: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::super::output::tests::judged;
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/the-mail.md");

    #[test]
    fn the_page_has_each_claim_as_the_code_has_it() {
        let (_, rest) = PAGE.split_once(BEGIN).expect("a begin");
        let (part, _) = rest.split_once(END).expect("an end");
        for c in list::all() {
            for text in [
                format!("### {}\n\n> {}\n>\n> — {}\n", c.name, c.quote, c.who.name()),
                format!(
                    "Claim: {}. Measured: {}. Rule: {}. Verdict: **",
                    c.claim, c.measured, c.rule_text
                ),
                format!("| [{}](#{}) | {} |", c.claim, c.name, c.who.name()),
            ] {
                assert!(
                    part.contains(&text),
                    "run `highwater claims --update docs/the-mail.md`: {text}"
                );
            }
        }
        let sections = part.matches("\n### ").count();
        assert_eq!(sections, list::all().len(), "a claim that is no more");
        assert!(part.contains(&stack_table()));
    }

    #[test]
    fn a_part_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.md");
        std::fs::write(
            &path,
            format!("head\n{BEGIN}\nthe part before\n{END}\ntail\n"),
        )
        .unwrap();
        update(&path, &generated(&judged(), &[1, 2])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("head\n") && text.ends_with(&format!("\n{END}\ntail\n")));
        assert!(text.contains("### few-dirty-pages") && !text.contains("the part before"));
        assert!(
            text.contains(
                "| hard | scanned 1,234; dirty_share 5.0 % · 30.0 % | holds with 1 of 2 seeds |"
            ),
            "{text}"
        );
        // Once more is the same.
        update(&path, &generated(&judged(), &[1, 2])).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_page_without_markers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.md");
        std::fs::write(&path, format!("{END} {BEGIN}")).unwrap();
        assert!(
            check(&path)
                .unwrap_err()
                .message
                .contains("lacks the markers")
        );
        assert!(check(&dir.path().join("none.md")).is_err());
    }
}
