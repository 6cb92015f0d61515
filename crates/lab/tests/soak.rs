//! Seeds of the soak. `HIGHWATER_SEED=n` runs one, `HIGHWATER_SEEDS=a..b` a range.

use highwater_lab::soak::{SoakOptions, run_seed};

fn seeds() -> std::ops::Range<u64> {
    let number = |s: &str| s.trim().parse::<u64>().ok();
    if let Some(n) = std::env::var("HIGHWATER_SEED")
        .ok()
        .and_then(|s| number(&s))
    {
        return n..n + 1;
    }
    let range = std::env::var("HIGHWATER_SEEDS").ok();
    let range = range.as_deref().and_then(|s| s.split_once(".."));
    match range.map(|(a, b)| (number(a), number(b))) {
        Some((Some(a), Some(b))) => a..b,
        _ => 0..100,
    }
}

#[test]
fn seeds_run_and_every_byte_is_right() {
    for seed in seeds() {
        println!("{}", SoakOptions::draw(seed));
        let report = run_seed(seed);
        println!(
            "  {} ops, {} failed, {} crashes, {} pages compared, {:?}, {} steps",
            report.ops,
            report.failed,
            report.crashes,
            report.pages_checked,
            report.took,
            report.steps
        );
        assert!(report.ops >= 20_000);
    }
}

#[test]
fn lab_4_a_seed_run_twice_leaves_the_same_trace() {
    for seed in 1_000..1_003 {
        let (a, b) = (run_seed(seed), run_seed(seed));
        assert_eq!((a.trace, a.stats), (b.trace, b.stats), "seed {seed}");
    }
}
