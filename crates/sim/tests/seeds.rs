//! Seeds: `CLAWBERNETES_SIM_SEED=n` tells the story of one, `CLAWBERNETES_SIM_SEEDS=a..b` runs others than usual.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use clawbernetes_sim::{Report, run};

/// Seeds that are run where nobody says which.
const SEEDS: u64 = if cfg!(debug_assertions) { 60 } else { 1000 };

fn live(seed: u64) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, None))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.trim().parse().ok()?..to.trim().parse().ok()?)
}

#[test]
fn whatever_happens_every_gpu_has_one_owner() {
    if let Ok(seed) = std::env::var("CLAWBERNETES_SIM_SEED") {
        let seed = seed.parse().expect("CLAWBERNETES_SIM_SEED is a number");
        let report = run(seed, Some(Box::new(|line| println!("{line}"))));
        println!("seed {seed}: {report:#?}");
        assert!(report.is_ok());
        return;
    }
    let seeds = match std::env::var("CLAWBERNETES_SIM_SEEDS") {
        Ok(text) => range(&text).expect("CLAWBERNETES_SIM_SEEDS is a range: 0..1000"),
        Err(_) => 0..SEEDS,
    };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new((0, 0, 0, 0, 0, 0));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        match live(seed) {
            Ok(r) => {
                let mut t = total.lock().unwrap();
                *t = (
                    t.0 + r.events,
                    t.1 + r.commits,
                    t.2 + r.started,
                    t.3 + r.lost,
                    t.4 + r.preempted,
                    t.5 + r.conflicts,
                );
            }
            Err(why) => {
                println!("seed {seed}: {why}");
                println!(
                    "to see it again: CLAWBERNETES_SIM_SEED={seed} cargo test --release -p clawbernetes-sim -- --nocapture"
                );
                failed.lock().unwrap().push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (events, commits, started, lost, preempted, conflicts) = *total.lock().unwrap();
    println!(
        "{} seeds: {events} events, {commits} transactions ({conflicts} overtaken), {started} processes, {lost} lost, {preempted} preempted",
        seeds.end.saturating_sub(seeds.start)
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

#[test]
fn a_seed_says_it_all() {
    for seed in 2_000..if cfg!(debug_assertions) { 2_002 } else { 2_008 } {
        let (once, again) = (live(seed), live(seed));
        match (once, again) {
            (Ok(once), Ok(again)) => assert_eq!(once.digest, again.digest, "seed {seed}"),
            (once, again) => assert_eq!(once.err(), again.err(), "seed {seed}"),
        }
    }
}
