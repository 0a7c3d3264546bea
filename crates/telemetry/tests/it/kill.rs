//! `kill -9` of a real process: what it was told to be durable is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use telemetry::logs::Query;

use crate::{line, number, open, read_all, runtime, stream};

const DIR: &str = "LOG_STORE_KILL_DIR";

/// The child: appends to four streams as fast as it can and prints what was acknowledged. Does nothing
/// where the parent did not start it.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let store = Arc::new(open(std::path::Path::new(&dir)));
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for rank in 0..4u32 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                let id = stream("job", 1, rank);
                let mut next = store.last(&id).unwrap() + 1;
                // Until it is killed.
                loop {
                    let lines = (next..next + 5)
                        .map(|n| line(n, n as i64, &format!("rank {rank} line {n}")))
                        .collect();
                    let acked = store.append(vec![(id.clone(), lines)]).await.unwrap();
                    next = acked[0].1 + 1;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {rank} {}", acked[0].1).unwrap();
                    out.flush().unwrap();
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn acknowledged_lines_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = [0u64; 4];
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |text: &str| {
            // The harness prints on the same line before the first.
            let Some((_, ack)) = text.rsplit_once("ack ") else {
                return false;
            };
            let mut words = ack.split(' ').map(|word| word.parse::<u64>());
            if let (Some(Ok(rank)), Some(Ok(last))) = (words.next(), words.next()) {
                let place = &mut acked[rank as usize];
                *place = last.max(*place);
            }
            true
        };
        let mut seen = 0;
        while seen < 60 + round * 45 {
            let text = output.next().expect("the child ended by itself").unwrap();
            seen += usize::from(note(&text));
        }
        child.kill().unwrap();
        // What it printed before it died counts as well; the last line may be cut short.
        let rest: Vec<String> = output.map_while(Result::ok).collect();
        for text in rest.iter().take(rest.len().saturating_sub(1)) {
            note(text);
        }
        child.wait().unwrap();
        let store = open(dir.path());
        for (rank, &acked) in (0..).zip(&acked) {
            let query = Query {
                rank: Some(rank),
                ..Query::default()
            };
            let entries = read_all(&store, "job", query);
            let numbers: Vec<u64> = entries.iter().map(number).collect();
            assert!(numbers.len() as u64 >= acked, "rank {rank} lost lines");
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        }
    }
    assert!(acked.iter().sum::<u64>() > 0);
}
