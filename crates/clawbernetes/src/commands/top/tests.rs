//! What `top` shows, at the size of a plain terminal, and what its keys do.

use std::collections::BTreeMap;

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp, WorkloadId,
    node::{EngineKind, GpuView, MoltView, NodeStatus, NodeView},
    op::ClusterStatus,
    time,
    workload::{Phase, Priority, WorkloadSummary},
};
use insta::assert_snapshot;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{
    state::{Answer, Fetched, Flow, Item, State, Tab},
    view,
};

fn now() -> Timestamp {
    "2026-02-16T14:00:00Z".parse().unwrap()
}

fn ago(seconds: u64) -> Timestamp {
    time::before(now(), Span::secs(seconds))
}

fn gpu(index: u32, busy: u8) -> GpuView {
    GpuView {
        index,
        uuid: format!("GPU-{index}"),
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_total_bytes: Some(Size::gib(80)),
        memory_used_bytes: Some(Size::gib(u64::from(busy) * 80 / 100)),
        utilization_percent: Some(busy),
        temperature_celsius: Some(30 + i16::from(busy) / 2),
        power_watts: Some(100.0 + 6.0 * f32::from(busy)),
        health: "ok".to_owned(),
        health_reason: None,
        simulated: false,
        workload: (busy > 0).then(|| WorkloadId::new(format!("w-{index}"))),
    }
}

fn node(name: &str, gpus: u32, busy: u8) -> NodeView {
    NodeView {
        id: name.parse().unwrap(),
        name: name.parse().unwrap(),
        status: NodeStatus::Healthy,
        gpus: (0..gpus).map(|index| gpu(index, busy)).collect(),
        gpus_free: if busy > 0 { 0 } else { gpus },
        cpu_cores: Some(64.0),
        memory_total_bytes: Some(Size::gib(1024)),
        memory_used_bytes: Some(Size::gib(100)),
        engine: Some(EngineKind::Docker),
        labels: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        taints: Vec::new(),
        molt: MoltView::default(),
        last_seen: Some(ago(3)),
    }
}

/// A healthy one, a hot one, one with a failed GPU, a silent one of which nothing is known, a simulated one.
fn few() -> Vec<NodeView> {
    let mut failed = node("gpu-3", 2, 10);
    failed.status = NodeStatus::Critical;
    failed.gpus[1].health = "failed".to_owned();
    failed.gpus[1].health_reason = Some("XID 79: fell off the bus".to_owned());
    let mut silent = node("gpu-4", 2, 0);
    silent.status = NodeStatus::Unreachable;
    silent.last_seen = None;
    (silent.memory_used_bytes, silent.engine, silent.cpu_cores) = (None, None, None);
    for gpu in &mut silent.gpus {
        gpu.health = "unknown".to_owned();
        (gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts) = (None, None, None);
        gpu.memory_used_bytes = None;
    }
    let mut simulated = node("sim-1", 4, 0);
    for gpu in &mut simulated.gpus {
        gpu.model = "H100".to_owned();
        gpu.simulated = true;
    }
    vec![node("gpu-1", 8, 0), node("gpu-2", 8, 97), failed, silent, simulated]
}

fn many() -> Vec<NodeView> {
    (0..5000)
        .map(|at| node(&format!("gpu-{at:04}"), 8, u8::try_from(at % 100).unwrap()))
        .collect()
}

fn workload(id: &str, phase: Phase, seconds: u64) -> WorkloadSummary {
    WorkloadSummary {
        id: WorkloadId::new(id),
        name: format!("train-{id}"),
        namespace: "default".to_owned(),
        owner: "ada".to_owned(),
        image: "pytorch:2".to_owned(),
        phase,
        reason: (phase == Phase::Failed).then(|| "OOM_KILLED".to_owned()),
        message: (phase == Phase::Failed).then(|| "more memory than its 32Gi".to_owned()),
        node: phase.placed().then(|| "gpu-2".parse().unwrap()),
        gpus: Vec::new(),
        gpus_requested: 8,
        priority: Priority::Normal,
        submitted_at: ago(seconds),
        started_at: (phase != Phase::Pending).then(|| ago(seconds)),
        finished_at: phase.ended().then(|| ago(5)),
        exit_code: None,
        restarts: 0,
        ready: None,
    }
}

fn fetched(answer: Answer) -> Fetched {
    Fetched {
        at: now(),
        clock: now(),
        cluster: ClusterStatus {
            status: "degraded".to_owned(),
            score: Some(60),
            total_nodes: 5,
            healthy_nodes: 3,
            total_gpus: 24,
            available_gpus: 12,
            active_workloads: BTreeMap::from([(Phase::Running, 2), (Phase::Pending, 1)]),
        },
        answer,
    }
}

fn with(tab: Tab, answer: Answer) -> State {
    let mut state = State::new("ws://head:9000".to_owned(), Span::secs(2), true, tab, now());
    state.apply(Ok(fetched(answer)));
    state.resize(80, 24);
    state
}

fn press(state: &mut State, keys: &str) -> Flow {
    let mut flow = Flow::Go;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '\t' => KeyCode::Tab,
            letter => KeyCode::Char(letter),
        };
        flow = state.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    flow
}

fn drawn(state: &State) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal
        .draw(|frame| view::draw(state, frame.area(), frame.buffer_mut()))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn screen(state: &State) -> String {
    let buffer = drawn(state);
    let lines = buffer.content.chunks(80).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The names in the first column of the rows, in order.
fn order(state: &State) -> Vec<String> {
    let (_, items) = state.visible();
    let name = |item: &Item| match *item {
        Item::Node(at) => state.node(at).name.to_string(),
        Item::Gpu(at, gpu) => format!("{}/{gpu}", state.node(at).name),
        Item::Workload(at) => state.workload(at).id.to_string(),
    };
    items.iter().map(name).collect()
}

#[test]
fn nodes_that_need_a_look_come_first() {
    assert_snapshot!(screen(&with(Tab::Nodes, Answer::Nodes(few()))), @r#"
    clawbernetes top ws://head:9000                                      data 0s old
    degraded  3/5 nodes healthy  12/24 GPUs free  2 running  1 pending
     1 Nodes  2 GPUs  3 Workloads   by: needs a look
    NODE             STATUS      FREE  UTILIZATION   TEMP  GPUS             SEEN
    gpu-3            critical    0/2   ▊·······  10% 35°C  H100 80GB HBM3   3s ago
    gpu-4            unreachable 2/2   -             -     H100 80GB HBM3   -
    gpu-2            healthy     0/8   ███████▊  97% 78°C  H100 80GB HBM3   3s ago
    gpu-1            healthy     8/8   ········   0% 30°C  H100 80GB HBM3   3s ago
    sim-1            healthy     4/4   ········   0% 30°C  (sim) H100       3s ago














    Enter detail  / filter  s sort  r reverse  p pause  ? help  q quit      1-5 of 5
    "#);
}

#[test]
fn gpus_are_shown_with_their_faults() {
    let mut state = with(Tab::Gpus, Answer::Nodes(few()));
    press(&mut state, "\n");
    assert_snapshot!(screen(&state), @r#"
    clawbernetes top ws://head:9000                                      data 0s old
    degraded  3/5 nodes healthy  12/24 GPUs free  2 running  1 pending
     1 Nodes  2 GPUs  3 Workloads   by: needs a look
    NODE               GPU HEALTH   UTILIZATION   TEMP  MEMORY    MODEL
    gpu-3              1   failed   ▊·······  10% 35°C  8/80Gi    H100 80GB HBM3
    gpu-4              0   unknown  -             -     -/80Gi    H100 80GB HBM3
    gpu-4              1   unknown  -             -     -/80Gi    H100 80GB HBM3
    gpu-2              0   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              1   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              2   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              3   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              4   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              5   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
    gpu-2              6   ok       ███████▊  97% 78°C  77/80Gi   H100 80GB HBM3
     gpu-3 GPU 1 ───────────────────────────────────────────────────────────────────
    Model       NVIDIA H100 80GB HBM3
    UUID        GPU-1
    Health      failed: XID 79: fell off the bus
    Measured    utilization 10%, 35°C, memory 8/80Gi, 160 W, 3s ago
    Workload    w-1
    Node        gpu-3, critical
    More        clawbernetes metrics gpu.temperature --node gpu-3 --gpu 1

    Enter detail  / filter  s sort  r reverse  p pause  ? help  q quit    1-10 of 24
    "#);
}

#[test]
fn workloads_that_ended_badly_come_first() {
    let workloads = vec![
        workload("a", Phase::Running, 4000),
        workload("b", Phase::Succeeded, 300),
        workload("c", Phase::Pending, 20),
        workload("d", Phase::Pending, 90),
        workload("e", Phase::Failed, 600),
    ];
    let mut state = with(Tab::Workloads, Answer::Workloads(workloads));
    assert_eq!(order(&state), ["e", "d", "c", "a", "b"]);
    press(&mut state, "\n");
    assert_snapshot!(screen(&state), @r#"
    clawbernetes top ws://head:9000                                      data 0s old
    degraded  3/5 nodes healthy  12/24 GPUs free  2 running  1 pending
     1 Nodes  2 GPUs  3 Workloads   by: needs a look
    NAME                    PHASE      GPUS NODE            RUNTIME  REASON
    train-e                 failed     8    -               9m55s    OOM_KILLED
    train-d                 pending    8    -               -        -
    train-c                 pending    8    -               -        -
    train-a                 running    8    gpu-2           1h6m     -
    train-b                 succeeded  8    -               4m55s    -





     train-e ───────────────────────────────────────────────────────────────────────
    Phase       failed (OOM_KILLED): more memory than its 32Gi
    Id          e, namespace default, owner ada
    Image       pytorch:2
    GPUs        8 asked for, none held
    Times       submitted 10m ago, started 10m ago, finished 5s ago
    Exit        code -, 0 restarts
    More        clawbernetes workload status e

    Enter detail  / filter  s sort  r reverse  p pause  ? help  q quit      1-5 of 5
    "#);
}

#[test]
fn of_forty_thousand_gpus_only_those_in_view_are_drawn() {
    let mut state = with(Tab::Nodes, Answer::Nodes(many()));
    assert_eq!((state.len(), state.visible().1.len()), (5000, 19));
    press(&mut state, "\t");
    assert_eq!((state.len(), state.visible().1.len()), (40_000, 19));
    press(&mut state, "sG");
    assert_eq!(state.visible().0, 40_000 - 19);
    assert_eq!(order(&state).last().unwrap(), "gpu-4999/7");
    let shown = screen(&state);
    assert!(shown.contains("39982-40000 of 40000"), "{shown}");
    press(&mut state, "/GPU-0042 w-3");
    assert_eq!(order(&state), ["gpu-0042/3"]);
}

#[test]
fn the_whole_terminal_is_enough_for_a_wide_row() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    state.resize(150, 8);
    let text = view::text(&state, 150, 8);
    assert_snapshot!(text, @r#"
    clawbernetes top ws://head:9000                                                                                                            data 0s old
    degraded  3/5 nodes healthy  12/24 GPUs free  2 running  1 pending
     1 Nodes  2 GPUs  3 Workloads   by: needs a look
    NODE                              STATUS      FREE  UTILIZATION   TEMP  GPU MEMORY    GPUS                              MEMORY        ENGINE  SEEN
    gpu-3                             critical    0/2   ▊·······  10% 35°C  16/160Gi      H100 80GB HBM3                    100/1024Gi    docker  3s ago
    gpu-4                             unreachable 2/2   -             -     -             H100 80GB HBM3                    -             -       -
    gpu-2                             healthy     0/8   ███████▊  97% 78°C  616/640Gi     H100 80GB HBM3                    100/1024Gi    docker  3s ago
    ... and 2 more
    "#);
    assert!(text.lines().all(|line| line.chars().count() <= 150));
}

#[test]
fn the_selection_follows_its_node() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    assert_eq!(order(&state), ["gpu-3", "gpu-4", "gpu-2", "gpu-1", "sim-1"]);
    // What comes first stays selected until someone chooses.
    press(&mut state, "s");
    assert_eq!((state.selected(), state.cursor()), (Some(Item::Node(0)), 0));
    press(&mut state, "j");
    assert_eq!(state.selected(), Some(Item::Node(1)));
    press(&mut state, "r");
    assert_eq!((state.selected(), state.cursor()), (Some(Item::Node(1)), 3));
    let mut fewer = few();
    fewer.remove(0);
    state.apply(Ok(fetched(Answer::Nodes(fewer))));
    assert_eq!(order(&state), ["sim-1", "gpu-4", "gpu-3", "gpu-2"]);
    assert_eq!((state.selected(), state.cursor()), (Some(Item::Node(0)), 3));
}

#[test]
fn what_is_unknown_is_last_in_both_directions() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    press(&mut state, "ss");
    assert_eq!(order(&state), ["gpu-2", "gpu-3", "gpu-1", "sim-1", "gpu-4"]);
    press(&mut state, "r");
    assert_eq!(order(&state), ["gpu-1", "sim-1", "gpu-3", "gpu-2", "gpu-4"]);
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    press(&mut state, "/crit");
    assert_eq!(order(&state), ["gpu-3"]);
    // Letters are no commands while typing.
    assert_eq!(press(&mut state, "q"), Flow::Go);
    assert!(screen(&state).contains("Nothing holds 'critq'"));
    press(&mut state, "\u{8}\n");
    assert_eq!((order(&state), state.typing), (vec!["gpu-3".to_owned()], false));
    assert_eq!(press(&mut state, "\u{1b}"), Flow::Go);
    assert_eq!(state.len(), 5);
    assert_eq!(press(&mut state, "\u{1b}"), Flow::Quit);
}

#[test]
fn every_way_out_ends_it() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    assert_eq!(press(&mut state, "q"), Flow::Quit);
    press(&mut state, "?\n");
    assert!(screen(&state).contains(" Keys "));
    assert_eq!(press(&mut state, "\u{1b}\u{1b}"), Flow::Go);
    assert_eq!(press(&mut state, "\u{1b}"), Flow::Quit);
    press(&mut state, "/");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(interrupt), Flow::Quit);
}

#[test]
fn an_unreachable_gateway_leaves_what_was_known() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    state.now = time::after(now(), Span::secs(12));
    state.asking = Some(time::after(now(), Span::secs(8)));
    let lines = screen(&state);
    let first = lines.lines().next().unwrap();
    assert!(first.ends_with("no answer for 4s, data 12s old"), "{first}");
    let error = ApiError::new(ErrorCode::ConnectionRefused, "no gateway answers at ws://head:9000");
    state.apply(Err(error.clone().hint("start it")));
    let lines = screen(&state);
    assert!(lines.contains("error[ECONNREFUSED]: no gateway answers"), "{lines}");
    assert!(lines.contains("gpu-2"), "{lines}");
    // All of it is old now: a healthy node's row is dimmed too.
    let buffer = drawn(&state);
    assert!((4..9).all(|y| buffer[(0, y)].modifier.contains(Modifier::DIM)));

    state.apply(Ok(fetched(Answer::Nodes(few()))));
    assert!(!screen(&state).contains("error["));

    let mut empty = State::new("ws://head:9000".to_owned(), Span::secs(2), true, Tab::Nodes, now());
    assert!(screen(&empty).contains("Asking the gateway"));
    empty.apply(Err(error.hint("start it")));
    let lines = screen(&empty);
    assert!(
        lines.contains("no data yet") && lines.contains("try: start it"),
        "{lines}"
    );
}

#[test]
fn only_silent_nodes_are_dimmed() {
    let state = with(Tab::Nodes, Answer::Nodes(few()));
    let buffer = drawn(&state);
    let dimmed: Vec<bool> = (4..9)
        .map(|y| buffer[(0, y)].modifier.contains(Modifier::DIM))
        .collect();
    assert_eq!(dimmed, [false, true, false, false, false]);
}

#[test]
fn without_colours_there_are_none() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    let colored = |state: &State| {
        let buffer = drawn(state);
        buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(colored(&state));
    state.color = false;
    assert!(!colored(&state));
}

#[test]
fn while_paused_nothing_changes() {
    let mut state = with(Tab::Nodes, Answer::Nodes(few()));
    press(&mut state, "p");
    assert!(state.want().paused);
    state.apply(Ok(fetched(Answer::Nodes(Vec::new()))));
    assert_eq!(state.len(), 5);
    assert!(screen(&state).lines().next().unwrap().contains("PAUSED"));
    // A tab that was never seen is asked for once.
    press(&mut state, "3");
    assert!(!state.want().paused);
    state.apply(Ok(fetched(Answer::Workloads(vec![workload("a", Phase::Running, 9)]))));
    assert_eq!((state.len(), state.want().paused), (1, true));
}

#[test]
fn no_size_is_too_small() {
    let mut state = with(Tab::Nodes, Answer::Nodes(many()));
    press(&mut state, "\n?");
    for (width, height) in [(1, 1), (5, 3), (20, 5), (20, 6), (39, 9), (300, 90)] {
        state.resize(width, height);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| view::draw(&state, frame.area(), frame.buffer_mut()))
            .unwrap();
    }
}
