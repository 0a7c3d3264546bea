//! How fast the scheduler decides. `--quick` runs a small version once, as a
//! smoke test. Prints figures, asserts no times.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::expect_used, reason = "a bench stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hint::black_box;
use std::time::{Duration, Instant};

use clawbernetes_scheduler::{
    Allocation, AllocationKey, Context, Engine, Fleet, Gpu, GpuLink, Limits, Link, Node, Plan, Priority, Queue,
    Request, RequestId, Usage, explain, schedule,
};

const GIB: u64 = 1 << 30;

/// A small seeded generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).expect("small")]
    }
}

/// Half H100 with NVSwitch, three in ten A100 with NVLink pairs, the rest L4
/// on PCIe; three pools, five images, some nodes hot.
fn node(i: usize, dice: &mut Dice) -> Node {
    let (model, memory, links) = match dice.roll(10) {
        0..=4 => ("NVIDIA H100 80GB HBM3", 80, 2),
        5..=7 => ("NVIDIA A100-SXM4-40GB", 40, 1),
        _ => ("NVIDIA L4", 24, 0),
    };
    let place = |gpu: u32| Gpu {
        numa: Some(gpu / 4),
        switch: Some(gpu / 2),
        ..Gpu::new(gpu, model, Some(memory * GIB))
    };
    let links = match links {
        2 => (0..8).flat_map(|a| (a + 1..8).map(move |b| (a, b, 18))).collect(),
        1 => vec![(0, 1, 4), (2, 3, 4), (4, 5, 4), (6, 7, 4)],
        _ => Vec::new(),
    };
    let name = format!("node-{i:05}");
    Node {
        labels: BTreeMap::from([
            ("hostname".to_owned(), name.clone()),
            ("pool".to_owned(), dice.pick(&["a", "b", "c"]).to_owned()),
        ]),
        engines: BTreeSet::from([Engine::Docker, Engine::Native]),
        cpu_millicores: 128_000,
        memory_bytes: 1024 * GIB,
        gpus: (0..8).map(place).collect(),
        links: links
            .into_iter()
            .map(|(a, b, lanes)| GpuLink {
                a,
                b,
                link: Link::NvLink(lanes),
            })
            .collect(),
        images: (0..5)
            .filter(|_| dice.roll(3) == 0)
            .map(|image| format!("image-{image}"))
            .collect(),
        heat: (dice.roll(20) == 0).then_some(0.9),
        ..Node::new(name)
    }
}

/// Every fifth node has GPUs but next to no CPU left.
fn stranding(i: usize) -> Allocation {
    Allocation {
        key: AllocationKey::new(format!("stranding-{i}"), 0),
        node: format!("node-{i:05}").into(),
        gpus: vec![0, 1, 2, 3, 4, 5],
        cpu_millicores: 127_500,
        memory_bytes: 64 * GIB,
        owner: "system".into(),
        priority: Priority::Normal,
        started_at_ms: 0,
        min_run_until_ms: None,
        expected_end_ms: None,
        preemptible: false,
        evicting_for: None,
    }
}

/// Mixed models, sizes, priorities and owners; one in twenty is a gang.
fn request(i: usize, dice: &mut Dice) -> Request {
    let gpus = dice.pick(&[0, 1, 1, 1, 1, 2, 2, 4, 4, 8]);
    let gang = dice.roll(20) == 0;
    Request {
        priority: dice.pick(&[
            Priority::Low,
            Priority::Low,
            Priority::Normal,
            Priority::Normal,
            Priority::Normal,
            Priority::High,
        ]),
        submitted_at_ms: i64::try_from(i).expect("small"),
        nodes: if gang { dice.pick(&[2, 4, 8, 16]) } else { 1 },
        gpus: if gang { 8 } else { gpus },
        gpu_model: dice
            .pick(&[None, None, Some("H100"), Some("A100"), Some("L4")])
            .map(str::to_owned),
        gpu_memory_bytes: dice.pick(&[0, 0, 0, 40 * GIB]),
        cpu_millicores: dice.pick(&[1_000, 2_000, 4_000, 8_000]),
        memory_bytes: dice.pick(&[4, 8, 16, 32]) * GIB,
        node_selector: match dice.roll(10) {
            0 => BTreeMap::from([("pool".to_owned(), dice.pick(&["a", "b", "c"]).to_owned())]),
            _ => BTreeMap::new(),
        },
        timeout_ms: dice.pick(&[None, Some(3_600_000), Some(14_400_000), Some(86_400_000)]),
        image: format!("image-{}", dice.roll(8)),
        ..Request::new(format!("wl-{i:06}"), format!("team-{}", dice.roll(24)))
    }
}

struct Bench {
    fleet: Fleet,
    queue: Queue,
    usage: Usage,
    waiting: BTreeMap<RequestId, Request>,
    running: VecDeque<RequestId>,
    dice: Dice,
    submitted: usize,
    now_ms: i64,
    limits: Limits,
}

impl Bench {
    fn new(nodes: usize, queued: usize) -> Self {
        let mut dice = Dice(42);
        let mut fleet = Fleet::new();
        for i in 0..nodes {
            fleet.upsert_node(node(i, &mut dice));
            if i % 5 == 4 {
                fleet.bind(stranding(i));
            }
        }
        let mut bench = Self {
            fleet,
            queue: Queue::new(),
            usage: Usage::new(),
            waiting: BTreeMap::new(),
            running: VecDeque::new(),
            dice,
            submitted: 0,
            now_ms: 0,
            limits: Limits::default(),
        };
        bench.submit(queued);
        bench
    }

    fn submit(&mut self, count: usize) {
        for _ in 0..count {
            let request = request(self.submitted, &mut self.dice);
            self.submitted += 1;
            self.waiting.insert(request.id.clone(), request.clone());
            self.queue.upsert(request);
        }
    }

    fn plan(&self) -> Plan {
        schedule(&self.fleet, &self.queue, &self.usage, self.now_ms, &self.limits)
    }

    /// Carries a plan out; victims are gone at once and wait again.
    fn apply(&mut self, plan: &Plan) {
        for placement in &plan.placements {
            let request = self.queue.remove(&placement.request).expect("it waited");
            self.waiting.remove(&request.id);
            for member in &placement.members {
                self.fleet.bind(Allocation {
                    key: AllocationKey::new(request.id.clone(), member.rank),
                    node: member.node.clone(),
                    gpus: member.gpus.clone(),
                    cpu_millicores: request.cpu_millicores,
                    memory_bytes: request.memory_bytes,
                    owner: request.owner.clone(),
                    priority: request.priority,
                    started_at_ms: self.now_ms,
                    min_run_until_ms: None,
                    expected_end_ms: request.timeout_ms.map(|t| self.now_ms + t),
                    preemptible: true,
                    evicting_for: None,
                });
            }
            self.running.push_back(request.id);
        }
        for preemption in &plan.preemptions {
            self.queue.set_preempting(&preemption.request, true);
            for victim in &preemption.victims {
                self.end(&victim.request);
            }
        }
    }

    fn end(&mut self, id: &RequestId) {
        for rank in 0.. {
            if self.fleet.release(&AllocationKey::new(id.clone(), rank)).is_none() {
                return;
            }
        }
    }

    /// Ends `count` running workloads, each chosen at random.
    fn end_some(&mut self, count: usize) {
        for _ in 0..count {
            let left = self.running.len() as u64;
            if left == 0 {
                return;
            }
            let at = usize::try_from(self.dice.roll(left)).expect("small");
            if let Some(id) = self.running.swap_remove_back(at) {
                self.end(&id);
            }
        }
    }
}

fn report(what: &str, decisions: u64, took: Duration, rest: &str) {
    let rate = decisions as f64 / took.as_secs_f64();
    println!(
        "  {what:<34} {decisions:>9} decisions  {:>10.2?}  {rate:>12.0}/s  {rest}",
        took
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn bench(nodes: usize, queued: usize, passes: usize) {
    println!("{nodes} nodes x 8 GPUs, {queued} queued");
    let mut bench = Bench::new(nodes, 0);
    let start = Instant::now();
    bench.submit(queued);
    report("submit to the queue", queued as u64, start.elapsed(), "");

    // Fill an empty fleet until nothing more starts; every pass decides a
    // full queue.
    let (mut decisions, mut placed, mut took, mut applied) = (0, 0, Duration::ZERO, Duration::ZERO);
    loop {
        let start = Instant::now();
        let plan = bench.plan();
        took += start.elapsed();
        decisions += plan.decisions;
        placed += plan.placements.len();
        let start = Instant::now();
        bench.apply(&plan);
        applied += start.elapsed();
        if plan.placements.len() < queued / 100 + 1 {
            break;
        }
        bench.submit(plan.placements.len());
    }
    report("fill from empty", decisions, took, &format!("{placed} placed"));
    let per_bind = applied.as_secs_f64() * 1e6 / placed.max(1) as f64;
    println!("  carried out (bind, dequeue)         {per_bind:.1} us a placement");
    bench.submit(queued - bench.queue.len().min(queued));

    // Settle: preemptors start on what their victims left.
    for _ in 0..20 {
        let plan = bench.plan();
        bench.apply(&plan);
        if plan.is_idle() {
            break;
        }
    }
    bench.submit(queued - bench.queue.len().min(queued));
    while !bench.plan().is_idle() {
        let plan = bench.plan();
        bench.apply(&plan);
    }

    // Steady state: some work ends, new work comes, one pass.
    let (mut decisions, mut placed, mut evicted, mut took) = (0, 0, 0, Duration::ZERO);
    for _ in 0..passes {
        bench.now_ms += 1_000;
        bench.end_some(nodes / 10);
        let missing = queued - bench.queue.len().min(queued);
        bench.submit(missing);
        let start = Instant::now();
        let plan = bench.plan();
        took += start.elapsed();
        decisions += plan.decisions;
        placed += plan.placements.len();
        evicted += plan.preemptions.len();
        bench.apply(&plan);
    }
    let rest = format!("{placed} placed, {evicted} preemptions, {passes} passes");
    report("steady state", decisions, took, &rest);

    // Everything is blocked; one workload ends.
    while !bench.plan().is_idle() {
        let plan = bench.plan();
        bench.apply(&plan);
    }
    let mut times = Vec::new();
    let mut blocked = 0;
    for _ in 0..passes {
        bench.end_some(1);
        let start = Instant::now();
        let plan = bench.plan();
        times.push(start.elapsed());
        blocked += plan.waiting.values().sum::<u64>();
        bench.apply(&plan);
    }
    println!(
        "  pass after one end                  {:.2?} median, {} blocked",
        median(times),
        blocked / passes as u64
    );

    // Explanations of blocked requests.
    let requests: Vec<Request> = bench.waiting.values().take(passes * 4).cloned().collect();
    let plan = bench.plan();
    let context = Context {
        queue: Some(&bench.queue),
        usage: Some(&bench.usage),
        plan: Some(&plan),
    };
    let times = requests.iter().map(|request| {
        let start = Instant::now();
        black_box(explain(&bench.fleet, request, &context, bench.now_ms));
        start.elapsed()
    });
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    println!(
        "  explain a blocked request           {:.2?} median, {:.2?} slowest",
        times[times.len() / 2],
        times[times.len() - 1]
    );

    // One small job on an idle fleet.
    let idle = Bench::new(nodes, 0);
    let mut queue = Queue::new();
    queue.upsert(Request {
        gpus: 1,
        ..Request::new("wl-small", "team-1")
    });
    let times = (0..passes * 10).map(|_| {
        let start = Instant::now();
        let plan = schedule(&idle.fleet, &queue, &idle.usage, 0, &idle.limits);
        let took = start.elapsed();
        assert_eq!(plan.placements.len(), 1, "an idle fleet has room");
        took
    });
    println!(
        "  pass over one job, idle fleet       {:.2?} median",
        median(times.collect())
    );
}

fn main() {
    // `cargo test --benches` and `--quick` ask for a smoke run.
    let quick = std::env::args().any(|arg| arg == "--quick" || arg == "--test");
    if quick {
        bench(100, 1_000, 5);
    } else {
        bench(1_000, 10_000, 50);
        bench(10_000, 10_000, 50);
    }
}
