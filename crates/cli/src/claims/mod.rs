//! `highwater claims`: what the mail of 2010 claims, of both sides, measured claim by claim.
//!
//! `list/` has the claims, each with a quotation, the runs that it needs, figures of those runs and a rule; `claim.rs` has
//! what becomes of a rule's answers; `runs.rs` the works and disks, `mail_stack.rs` the mail's stack table. Claims share
//! runs, so the whole takes about a minute of two CPUs.
//!
//! **Invariants.** CLAIM-1, CLAIM-2 (`claim.rs`); CLAIM-3: in the lab the output is a function of the seeds.
//! **Tests.** Beside each file; `tests/claims.rs` on whole runs, and on `docs/the-mail.md`.

mod args;
mod claim;
mod list;
mod mail_stack;
mod markdown;
mod output;
mod runs;
mod setting;

pub use args::{ClaimsArgs, EXAMPLES};

use crate::command_line::CommandLine;
use crate::error::{CliError, Result, did_you_mean};
use crate::parent::Options;
use crate::plan::WorldName;
use crate::report::ArmReport;
use crate::{cells, cleanup, outputs};
use claim::{Answer, Claim, Condition, Figures, Verdict, verdict};
use runs::{Plan, Run, Runs};

/// Seeds in the lab, and on real files.
const SEEDS: [u32; 2] = [5, 1];

/// A claim with what was found.
pub struct Judged {
    /// The claim.
    pub claim: Claim,
    /// Its conditions.
    pub conditions: Vec<Seen>,
    /// What they say together.
    pub verdict: Verdict,
}

/// A condition with the figures of its seeds.
pub struct Seen {
    /// The condition's name.
    pub name: &'static str,
    /// For each seed its figures and the rule's answer; one entry where nothing is run.
    pub seeds: Vec<(Figures, Answer)>,
    /// Why there are none, if there are none.
    pub not_measured: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Arguments that make no sense; the first run that fails; files that cannot be written.
pub fn run(args: &ClaimsArgs) -> Result<()> {
    let claims = choose(args.only.as_deref())?;
    let worlds = WorldName::parse_list(&args.world)?;
    let [world @ (WorldName::Os | WorldName::Lab)] = worlds[..] else {
        return Err(CliError::usage(
            "claims are about the engine's policies: they run in one of os and lab",
            "--world lab",
        ));
    };
    if let Some(path) = &args.update {
        // Before the runs, not after.
        markdown::check(path)?;
    }
    cleanup::watch_signals();
    let n = args
        .seeds
        .unwrap_or(SEEDS[usize::from(world == WorldName::Os)]);
    let seeds: Vec<u64> = (0..u64::from(n))
        .map(|i| args.seed.wrapping_add(i))
        .collect();
    let judged = look(claims, world, &seeds, args)?;
    if let Some(path) = &args.update {
        return markdown::update(path, &markdown::generated(&judged, &seeds));
    }
    if args.markdown {
        crate::print(&markdown::generated(&judged, &seeds));
        return Ok(());
    }
    let text = output::text(&judged, world, &CommandLine::here());
    outputs::publish(
        &text,
        &output::json(&judged, world, &seeds),
        args.json.as_deref(),
    )
}

/// The claims that `--only` names.
fn choose(only: Option<&str>) -> Result<Vec<Claim>> {
    let mut all = list::all();
    let Some(only) = only else {
        return Ok(all);
    };
    let mut chosen = Vec::new();
    for word in only.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        if let Some(at) = all.iter().position(|c| c.name == word) {
            chosen.push(all.remove(at));
        } else if !chosen.iter().any(|c: &Claim| c.name == word) {
            let near = did_you_mean(word, all.iter().map(|c| c.name));
            let hint = near.map_or(String::new(), |w| format!("; did you mean {w}?"));
            let names: Vec<&str> = list::all().iter().map(|c| c.name).collect();
            return Err(CliError::usage(
                format!("there is no claim {word:?}{hint}"),
                format!("--only with one or more of {}", names.join(", ")),
            ));
        }
    }
    if chosen.is_empty() {
        return Err(CliError::usage("--only names no claim", "--only splice"));
    }
    Ok(chosen)
}

/// Runs what the claims need, and judges them.
fn look(
    claims: Vec<Claim>,
    world: WorldName,
    seeds: &[u64],
    args: &ClaimsArgs,
) -> Result<Vec<Judged>> {
    let with_conditions: Vec<(Claim, Vec<Condition>)> = claims
        .into_iter()
        .map(|claim| {
            let conditions = (claim.conditions)();
            (claim, conditions)
        })
        .collect();
    let all = with_conditions.iter().flat_map(|(_, c)| c);
    let possible = |run: &Run| run.refused_in(world).is_none();
    let runs = all.flat_map(|c| c.runs.clone()).filter(possible);
    let plan = Plan::new(runs, seeds);
    let cells = plan.cells(world)?;
    if !cells.is_empty() {
        say!(
            "claims: {} runs for {} claims, with {} seeds in the world {}",
            cells.len(),
            with_conditions.len(),
            seeds.len(),
            world.name()
        );
    }
    let options = Options {
        dir: args.dir.clone(),
        ..Options::default()
    };
    let reports = cells::run(&cells, &options)?;
    let judge = |(claim, conditions): (Claim, Vec<Condition>)| {
        judge(claim, &conditions, &plan, &reports, seeds.len())
    };
    Ok(with_conditions.into_iter().map(judge).collect())
}

fn judge(
    claim: Claim,
    conditions: &[Condition],
    plan: &Plan,
    reports: &[ArmReport],
    seeds: usize,
) -> Judged {
    let seen: Vec<Seen> = conditions
        .iter()
        .map(|condition| {
            // What is computed is the same with each seed.
            let seeds = if condition.runs.is_empty() { 1 } else { seeds };
            let figures: std::result::Result<Vec<Figures>, String> = (0..seeds)
                .map(|seed| figures_of(condition, plan, reports, seed))
                .collect();
            let judged = |f: Figures| {
                let answer = (claim.rule)(&f);
                (f, answer)
            };
            Seen {
                name: condition.name,
                not_measured: figures.as_ref().err().cloned(),
                seeds: figures
                    .unwrap_or_default()
                    .into_iter()
                    .map(judged)
                    .collect(),
            }
        })
        .collect();
    let answers: Vec<Vec<Answer>> = seen
        .iter()
        .map(|s| s.seeds.iter().map(|(_, a)| *a).collect())
        .collect();
    let why = seen.iter().find_map(|s| s.not_measured.clone());
    let verdict = match (verdict(claim.depends, &answers), why) {
        (Verdict::NotMeasured(_), Some(why)) => Verdict::NotMeasured(why),
        (verdict, _) => verdict,
    };
    Judged {
        claim,
        conditions: seen,
        verdict,
    }
}

/// The figures of one condition and seed, or why there are none.
fn figures_of(
    condition: &Condition,
    plan: &Plan,
    reports: &[ArmReport],
    seed: usize,
) -> std::result::Result<Figures, String> {
    let runs = condition.runs.iter().map(|run| {
        let report = plan.report(reports, run, seed);
        let why = run.refused_in(WorldName::Os).unwrap_or("it did not run");
        report
            .map(|r| (run.label, r))
            .ok_or_else(|| why.to_string())
    });
    let runs = Runs::new(runs.collect::<std::result::Result<_, _>>()?);
    (condition.figures)(&runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_chosen_once_and_in_their_order() {
        let names = |only| -> Vec<&str> { choose(only).unwrap().iter().map(|c| c.name).collect() };
        assert_eq!(
            names(Some("splice, false-oom,splice")),
            ["splice", "false-oom"]
        );
        assert!(names(None).len() > 15);
        let e = choose(Some("flase-oom")).err().unwrap();
        assert!(e.message.contains("did you mean false-oom?"), "{e}");
        assert!(e.remedy.contains("naps-below-2"), "{e}");
        assert!(choose(Some(",")).is_err());
    }

    #[test]
    fn what_is_computed_needs_no_run() {
        let claim = choose(Some("splice")).unwrap().remove(0);
        let conditions = (claim.conditions)();
        let plan = Plan::new([], &[1, 2, 3]);
        let judged = judge(claim, &conditions[..1], &plan, &[], 3);
        assert_eq!(judged.conditions[0].seeds.len(), 1);
        // 5,064 + 3,776 = 8,840 bytes on a stack of 8,192.
        assert_eq!(judged.verdict, Verdict::Holds);
    }

    #[test]
    fn what_cannot_run_says_why() {
        let claim = choose(Some("too-small")).unwrap().remove(0);
        let conditions = (claim.conditions)();
        let judged = judge(claim, &conditions, &Plan::new([], &[1]), &[], 1);
        let Verdict::NotMeasured(why) = &judged.verdict else {
            panic!("{:?}", judged.verdict);
        };
        assert!(why.contains("the lab's"), "{why}");
    }
}
