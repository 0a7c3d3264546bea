//! `kill -9` of gateway and agents, at any moment, while work flows.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write as _,
    path::PathBuf,
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, post, wait_for};

const AGENTS: usize = 3;
const GPUS: u64 = 4;
const ROUNDS: usize = 10;
const WORKLOADS: usize = 200;
const KILLS_A_ROUND: usize = 4;

/// Exit codes of a job that finds what must not be; its own are 0 to 7.
const GPU_HELD_TWICE: i64 = 99;
const WRONG_GPUS: i64 = 98;

/// Every GPU of a job is locked for as long as the job lives: the kernel tells of a second holder.
const JOB: &str = r#"
echo "$CLAWBERNETES_NODE $CLAWBERNETES_ATTEMPT" >>"$DIR/runs-$NAME"
IFS=,
set -- $CUDA_VISIBLE_DEVICES
[ $GPUS = 0 ] || [ $# = $GPUS ] || exit 98
[ $GPUS -lt 1 ] || { exec 8>>"$DIR/gpu-$CLAWBERNETES_NODE-$1"; flock -n 8 || exit 99; }
[ $GPUS -lt 2 ] || { exec 9>>"$DIR/gpu-$CLAWBERNETES_NODE-$2"; flock -n 9 || exit 99; }
n=1
while [ $n -le $LINES_EACH ]; do
    echo "out $n of $NAME"
    [ $((n % 3)) != 0 ] || echo "err $n of $NAME" >&2
    [ $n != $PAUSE_AT ] || sleep $PAUSE
    n=$((n + 1))
done
exit $CODE
"#;

/// Numbers from a seed: SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pause(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.below(most_ms)));
    }
}

/// A workload, and what must become of it.
struct Planned {
    name: String,
    lines: u64,
    code: u64,
    request: Value,
}

fn planned(number: usize, dice: &mut Dice, dir: &str) -> Planned {
    let name = format!("w{number:03}");
    let gpus = dice.below(3);
    let lines = dice.below(60);
    let code = dice.below(8);
    let pause = if dice.below(2) == 0 { 0 } else { dice.below(300) };
    let env = [
        ("DIR", dir.to_owned()),
        ("NAME", name.clone()),
        ("GPUS", gpus.to_string()),
        ("LINES_EACH", lines.to_string()),
        ("PAUSE_AT", dice.below(lines + 1).to_string()),
        ("PAUSE", format!("0.{pause:03}")),
        ("CODE", code.to_string()),
    ];
    let env: Vec<Value> = env
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let request = json!({ "name": name, "spec": {
        "image": "host", "command": ["sh", "-c", JOB], "gpus": { "count": gpus }, "env": env, "timeout": "10m",
    }});
    Planned {
        name,
        lines,
        code,
        request,
    }
}

/// The filter of a follower that doesn't want all.
const SEARCH: &[&str] = &["--search", "^err 1", "--context", "1"];

/// Someone who reads a workload's output as it comes, through all kills.
struct Follower {
    child: Child,
    id: String,
    filter: &'static [&'static str],
    file: PathBuf,
}

impl Follower {
    fn start(cluster: &Cluster, id: &str, filter: &'static [&'static str]) -> Self {
        let file = cluster.home.path(&format!("follow-{}-{id}", filter.len()));
        let child = cluster
            .home
            .command(["logs", id, "-f", "-o", "jsonl"])
            .args(filter)
            .stdout(fs::File::create(&file).unwrap())
            .stderr(fs::File::create(file.with_extension("err")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            id: id.to_owned(),
            filter,
            file,
        }
    }

    /// Waits for its end; what it read.
    fn end(mut self, cluster: &Cluster) -> Vec<Value> {
        let id = self.id.clone();
        let status = wait_for(&format!("the follower of {id}"), || self.child.try_wait().unwrap());
        let err = fs::read_to_string(self.file.with_extension("err")).unwrap();
        let read = parse_lines(&fs::read_to_string(&self.file).unwrap());
        // It came while the gateway was away, and there was nothing to take up again.
        if status.code() == Some(5) && read.is_empty() {
            return Self::start(cluster, &id, self.filter).end(cluster);
        }
        assert!(status.success(), "the follower of {id}: {status} {err}");
        read
    }
}

/// Kills parts of the fleet and starts them again.
fn round_of_kills(cluster: &Cluster, dice: &mut Dice) {
    for kill in 0..KILLS_A_ROUND {
        dice.pause(500);
        // The gateway at least once a round, and often with an agent.
        let victim = dice.below(AGENTS as u64 + 2) as usize;
        let gateway = kill == 0 || victim >= AGENTS;
        if victim < AGENTS {
            cluster.kill_agent(victim);
        }
        if gateway {
            dice.pause(50);
            cluster.kill_gateway();
        }
        dice.pause(400);
        if gateway {
            cluster.start_gateway();
            dice.pause(200);
        }
        if victim < AGENTS {
            cluster.start_agent(victim);
        }
    }
}

/// What `node list` says must fit together at every moment.
fn check_nodes(nodes: &Value) {
    let mut held: HashMap<&str, u64> = HashMap::new();
    for node in nodes.as_array().unwrap() {
        let gpus = node["gpus"].as_array().unwrap();
        let busy = gpus.iter().filter_map(|gpu| gpu["workload"].as_str());
        busy.clone().for_each(|id| *held.entry(id).or_default() += 1);
        let busy = busy.count() as u64;
        let free = node["gpusFree"].as_u64().unwrap();
        assert!(gpus.len() as u64 == GPUS && free + busy <= GPUS, "{node:#}");
    }
    assert!(
        held.values().all(|count| *count <= 2),
        "more GPUs than asked for: {held:?}"
    );
}

fn check_lines(planned: &Planned, entries: &[Value], source: &str) {
    let name = &planned.name;
    let of = |source: &str| -> Vec<&str> {
        let own = entries.iter().filter(|entry| entry["source"] == source);
        own.map(|entry| entry["text"].as_str().unwrap()).collect()
    };
    let out: Vec<String> = (1..=planned.lines).map(|n| format!("out {n} of {name}")).collect();
    let err: Vec<String> = (1..=planned.lines)
        .filter(|n| n % 3 == 0)
        .map(|n| format!("err {n} of {name}"))
        .collect();
    assert_eq!(of("stdout"), out, "{source}: stdout of {name}");
    assert_eq!(of("stderr"), err, "{source}: stderr of {name}");
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=(out.len() + err.len()) as u64).collect();
    assert_eq!(numbers, expected, "{source}: numbers of {name}: {entries:?}");
    let whole = entries
        .iter()
        .all(|e| e["gap"].is_null() && e["partial"].is_null() && e["attempt"] == 1);
    assert!(whole, "{source}: {name}: {entries:?}");
}

/// What [`SEARCH`] finds is what stands in the whole.
fn check_found(kept: &[Value], found: &[Value]) {
    let number = |entry: &Value| entry["number"].as_u64().unwrap();
    let matches = |entry: &&Value| entry["text"].as_str().unwrap().starts_with("err 1");
    let hits: Vec<u64> = kept.iter().filter(matches).map(number).collect();
    let near = |entry: &&Value| hits.iter().any(|hit| hit.abs_diff(number(entry)) <= 1);
    let line = |entry: &Value| (number(entry), entry["text"].clone());
    let expected: Vec<_> = kept.iter().filter(near).map(line).collect();
    assert_eq!(found.iter().map(line).collect::<Vec<_>>(), expected);
    for entry in found {
        assert_eq!(entry["context"].is_null(), hits.contains(&number(entry)), "{entry}");
    }
}

/// Ends the watching thread, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn parse_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn work_flows_through_kills_of_gateway_and_agents() {
    let begun = Instant::now();
    let seed = match std::env::var("CLAWBERNETES_TEST_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => u64::from(std::process::id()) << 20 | u64::from(begun.elapsed().subsec_nanos()),
    };
    // Past the capture of tests that pass.
    let _ = writeln!(std::io::stderr(), "kill test: CLAWBERNETES_TEST_SEED={seed}");
    let mut cluster = Cluster::start();
    for agent in 0..AGENTS {
        let flags = ["--engine", "native", "--simulate-gpus", &format!("{GPUS}xH100")];
        cluster.join(&format!("n{agent}"), &flags);
    }
    let cluster = cluster;
    let dir = cluster.home.path("jobs");
    fs::create_dir(&dir).unwrap();
    let mut dice = Dice(seed);
    let dir_text = dir.display().to_string();
    let work: Vec<Planned> = (0..WORKLOADS).map(|n| planned(n, &mut dice, &dir_text)).collect();

    let mut ids: Vec<String> = Vec::new();
    let mut followers: Vec<(usize, Follower)> = Vec::new();
    let mut searchers: Vec<(usize, Follower)> = Vec::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        let watching = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Some(nodes) = cluster.try_call("node.list", &json!({})) {
                    check_nodes(&nodes);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for (round, batch) in work.chunks(WORKLOADS / ROUNDS).enumerate() {
            let seed = dice.next();
            let (mut pace, mut dice) = (Dice(dice.next()), Dice(seed));
            let cluster = &cluster;
            let kills = scope.spawn(move || round_of_kills(cluster, &mut dice));
            for (n, planned) in batch.iter().enumerate() {
                pace.pause(150);
                let id = cluster.submit(&format!("{seed}-{n}"), &planned.request);
                if n == 0 || n == 10 {
                    followers.push((ids.len(), Follower::start(cluster, &id, &[])));
                    searchers.push((ids.len(), Follower::start(cluster, &id, SEARCH)));
                }
                ids.push(id);
            }
            kills.join().unwrap();
            assert!(!watching.is_finished(), "round {round}: node list was wrong");
        }
        for (id, planned) in ids.iter().zip(&work) {
            wait_for(&format!("{} ({id}) to end", planned.name), || {
                let detail = cluster.call("workload.get", &json!({ "id": id }));
                detail["finishedAt"].is_string().then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
        watching.join().unwrap();
    });
    let flowed = begun.elapsed();

    // Every end is known exactly once, and is the true one.
    let events = cluster.call("event.list", &json!({ "kind": "workload", "limit": 100_000 }));
    let mut steps: HashMap<&str, BTreeMap<&str, usize>> = HashMap::new();
    for event in events.as_array().unwrap() {
        let of = steps.entry(event["subject"].as_str().unwrap()).or_default();
        *of.entry(event["reason"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(steps.len(), WORKLOADS, "no workload was submitted twice");
    for (id, planned) in ids.iter().zip(&work) {
        let detail = cluster.call("workload.get", &json!({ "id": id }));
        let code = detail["exitCode"].as_i64();
        assert_ne!(code, Some(GPU_HELD_TWICE), "a GPU was held twice: {detail:#}");
        assert_ne!(code, Some(WRONG_GPUS), "not the GPUs that it asked for: {detail:#}");
        assert_eq!(code, Some(planned.code as i64), "{detail:#}");
        let end = if planned.code == 0 { "Succeeded" } else { "Failed" };
        assert_eq!(detail["phase"], end.to_lowercase(), "{detail:#}");
        assert_eq!(
            (&detail["attempt"], &detail["restarts"]),
            (&json!(1), &json!(0)),
            "{detail:#}"
        );
        let expected = ["Submitted", "Scheduled", "Started", end];
        let expected: BTreeMap<&str, usize> = expected.iter().map(|reason| (*reason, 1)).collect();
        assert_eq!(steps[id.as_str()], expected, "{detail:#}");
        let runs = fs::read_to_string(dir.join(format!("runs-{}", planned.name))).unwrap();
        let node = detail["members"][0]["node"].as_str().unwrap();
        assert_eq!(
            runs,
            format!("{node} 1\n"),
            "{} ran once, where it should",
            planned.name
        );

        let token = cluster.token();
        let request = json!({ "id": id }).to_string();
        let logs = post(cluster.address(), "workload.logs", &token, &[], request.as_bytes()).unwrap();
        check_lines(planned, &parse_lines(&logs.body), "kept");
    }
    for (n, follower) in followers {
        check_lines(&work[n], &follower.end(&cluster), "followed");
    }
    for (n, searcher) in searchers {
        let request = json!({ "id": ids[n] }).to_string();
        let logs = post(
            cluster.address(),
            "workload.logs",
            &cluster.token(),
            &[],
            request.as_bytes(),
        )
        .unwrap();
        check_found(&parse_lines(&logs.body), &searcher.end(&cluster));
    }

    // Nothing is held, or runs, any more.
    let total = AGENTS as u64 * GPUS;
    let fleet = wait_for("all nodes to be back", || {
        let fleet = cluster.home.run("status --json").json();
        (fleet["cluster"]["healthyNodes"] == AGENTS).then_some(fleet)
    });
    assert_eq!(fleet["cluster"]["totalGPUs"], total, "{fleet:#}");
    assert_eq!(fleet["cluster"]["availableGPUs"], total, "{fleet:#}");
    assert_eq!(fleet["workloads"], json!([]), "{fleet:#}");
    for node in cluster.home.run("node list --json").json().as_array().unwrap() {
        assert_eq!(node["gpusFree"], GPUS, "{node:#}");
    }
    cluster.end();
    let _ = writeln!(
        std::io::stderr(),
        "kill test: {WORKLOADS} workloads through {} kills in {flowed:.0?}, checked in {:.0?}",
        ROUNDS * KILLS_A_ROUND,
        begun.elapsed() - flowed
    );
}
