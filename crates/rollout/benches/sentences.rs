//! How long a sentence takes to read: all of `corpus/`, those that are refused too, and the longest that are read at
//! all, made of whatever can be said over and over. Beside it, the same intents as JSON. `--quick` goes over them less
//! often. Prints figures, asserts no times.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::expect_used, reason = "a bench stops at what it did not expect")]

use std::{
    fs,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Zoned;
use rollout::intent::{GUIDE, Intent, read};

/// As long as a sentence can be, in characters.
const LONGEST: usize = 2_000;

/// Of the sentences made up, so many of the slowest are shown.
const SHOWN: usize = 8;

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
    made_up(&sentences, rounds, &read_one);

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

/// Whatever can be said, and much that can't, over and over to the limit: the slowest of it. Of each sentence the quickest
/// of a few readings counts, so that what else the machine does isn't taken for the sentence.
fn made_up(corpus: &[String], rounds: usize, read_one: &dyn Fn(&str) -> Duration) {
    let quickest = |sentence: &str, times: usize| (0..times).map(|_| read_one(sentence)).min().unwrap_or_default();
    let mut times: Vec<(Duration, String)> = pieces(corpus)
        .iter()
        .flat_map(|piece| repeated(piece))
        .map(|sentence| (quickest(&sentence, 2), sentence))
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let count = times.len();
    for (time, sentence) in times.iter_mut().take(SHOWN * 4) {
        *time = quickest(sentence, rounds.max(5)).min(*time);
    }
    times.sort_unstable_by(|a, b| b.cmp(a));
    println!("{count} sentences of {LONGEST} characters made up of one thing over and over; the slowest:");
    for (time, sentence) in &times[..SHOWN.min(count)] {
        let shown: String = sentence.chars().take(70).collect();
        println!("{:8.1} µs  {shown}…", time.as_secs_f64() * 1e6);
    }
}

/// Every form that the grammar knows, every clause of the corpus, and what is neither.
fn pieces(corpus: &[String]) -> Vec<String> {
    let words = GUIDE.split("## Every word").nth(1).expect("the words");
    let forms = words.split('`').skip(1).step_by(2).map(str::to_owned);
    let clauses = corpus
        .iter()
        .flat_map(|sentence| sentence.split(", "))
        .map(str::to_owned);
    let odd = [
        "\"",
        "'",
        "\"a",
        "a\"",
        "\"a\"",
        "`",
        "A=\"",
        "A=\"b\"",
        "\\",
        "(",
        "[",
        "((a",
        ",",
        ", ,",
        ";",
        ".",
        "...",
        ":",
        "-",
        "->",
        ">",
        "<=",
        "=",
        "%",
        "9",
        "99999999",
        "999999999999",
        "0.0000001",
        "1.1.1.1",
        "-1",
        "1-2",
        "1..2",
        "1h",
        "1h1m1s",
        "64Gi",
        "1e9",
        "10%",
        "8x",
        "8xA100",
        "A100",
        "A100-80GB",
        "v2",
        "sha-abc",
        "abc1234",
        "a/b:c",
        "a@sha256:",
        "a:b",
        "a=b",
        "a_b",
        "a.b",
        "web's",
        "dep-x",
        "dep-x7k2m9q4ab",
        "p99",
        "p999999",
        "99th",
        "2026-12-01",
        "2026-12-01T09:00:00Z",
        "9:00",
        "9am",
        "+01:00",
        "Europe/Berlin",
        "EST",
        "1st",
        "frobnicate",
        "deplyo",
        "canry",
        "rolback",
        "erors",
        "memroy",
        "safly",
        "gpsu 8",
        "replcas 8",
        "canry 10%",
        "rolback if erors > 1%",
        "é",
        "日本",
        "🦀",
        "a é",
    ];
    let mut all: Vec<String> = forms.chain(clauses).chain(odd.map(str::to_owned)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A piece over and over, with this and that between, alone and behind what can be read.
fn repeated(piece: &str) -> Vec<String> {
    let mut all = Vec::new();
    for between in [" ", ", ", " 1 ", " 10% ", " and ", " x ", ""] {
        for before in ["", "deploy web v2 ", "deplyo web v2, canry 10%, "] {
            let room = LONGEST - before.len();
            let unit = format!("{piece}{between}");
            let text: String = unit.chars().cycle().take(room).collect();
            all.push(format!("{before}{text}"));
        }
    }
    all
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
