//! How long a sentence takes to read: all of `corpus/`, those that are refused too, and the longest that are read at
//! all. Beside it, the same intents as JSON. `--quick` goes over them less often. Prints figures, asserts no times.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::expect_used, reason = "a bench stops at what it did not expect")]

use std::{
    fs,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Zoned;
use rollout::intent::{Intent, read};

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") {
        3
    } else {
        200
    };
    let now: Zoned = "2026-11-20T15:00:00+01:00[Europe/Berlin]".parse().expect("a time");
    let sentences = sentences();
    let (mut understood, mut refused) = (Vec::new(), Vec::new());
    for sentence in &sentences {
        match read(sentence, &now) {
            Ok(reading) => understood.push((sentence.as_str(), reading.intent)),
            Err(_) => refused.push(sentence.as_str()),
        }
    }
    println!(
        "{} sentences that are read, {} that are refused, {rounds} rounds",
        understood.len(),
        refused.len()
    );

    let read_one = |sentence: &str| {
        let begun = Instant::now();
        let _ = black_box(read(black_box(sentence), &now));
        begun.elapsed()
    };
    let over = |all: &[&str]| {
        (0..rounds)
            .flat_map(|_| all.iter().map(|sentence| read_one(sentence)))
            .collect()
    };
    let texts: Vec<&str> = understood.iter().map(|(sentence, _)| *sentence).collect();
    report("read", over(&texts));
    report("refused", over(&refused));
    let written: Vec<String> = understood.iter().map(|(_, intent)| intent.to_string()).collect();
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    report("canonical form, read", over(&written));
    // The longest sentences, of much that is tried and refused, and of much that is read.
    for (what, sentence) in [
        (
            "1,990 characters: please …",
            format!("{}deploy web v2", "please ".repeat(282)),
        ),
        (
            "… rollback if errors > 1% or …",
            format!(
                "deploy web v2, rollback if errors > 1%{}",
                " or errors > 1%".repeat(128)
            ),
        ),
        (
            "… canary 10% then 10% then …",
            format!("deploy web v2, canary 10%{}", " then 10%".repeat(218)),
        ),
        ("… a a a", format!("deploy web v2{}", " a".repeat(990))),
        ("… 1 1 1", format!("deploy web v2{}", " 1".repeat(990))),
        (
            "… add 1 gpu and 1 gpu and …",
            format!("deploy web v2, add 1 gpu{}", " and 1 gpu".repeat(196)),
        ),
        (
            "… if healthy if healthy …",
            format!("deploy web v2{}", " if healthy".repeat(180)),
        ),
        ("… A=b A=b …", format!("deploy web v2{}", " A=b".repeat(490))),
        ("… xxxxx", format!("deploy {}", "x".repeat(1_990))),
        ("… ,,,,,", format!("deploy web v2 {}", ",".repeat(1_980))),
    ] {
        report(what, over(&[sentence.as_str()]));
    }

    let json: Vec<String> = understood
        .iter()
        .map(|(_, intent)| serde_json::to_string(intent).expect("an intent"))
        .collect();
    let reference = (0..rounds)
        .flat_map(|_| {
            json.iter().map(|text| {
                let begun = Instant::now();
                let intent: Intent = serde_json::from_str(black_box(text)).expect("an intent");
                black_box(intent);
                begun.elapsed()
            })
        })
        .collect();
    report("reference: the same intents from JSON", reference);
}

/// The sentences of the corpus, as they are typed; those with escapes are left to the tests.
fn sentences() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    fs::read_dir(folder)
        .expect("the corpus")
        .map(|file| file.expect("a file").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "txt"))
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("text");
            text.lines()
                .filter_map(|line| line.strip_prefix("> "))
                .filter(|sentence| !sentence.contains("\\u{"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
    println!(
        "{what:40} mean {mean:8.1} µs   p50 {:8.1}   p99 {:8.1}   max {:8.1}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
