//! `top` as it is drawn: from what is known to cells, for the rows in view alone.

use api::{
    Span,
    node::{GpuView, NodeStatus, NodeView},
    time,
    workload::{Phase, WorkloadSummary},
};
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span as Piece},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, Widget, Wrap},
};

use super::{
    detail,
    order::{hottest, memory, runtime, utilization},
    state::{FOOT, HEAD, Item, State, Tab},
};
use crate::output::{ago, dash, span_of};

/// Cells of a utilization bar.
const BAR: usize = 8;
/// Eighths of a full cell.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// From here on a GPU is about to slow down; the limits of most are 85 to 95 °C.
const HOT_CELSIUS: i16 = 85;
/// From here on it is worth a look.
const WARM_CELSIUS: i16 = 75;
/// An answer that takes longer than this is spoken of.
const SLOW: Span = Span::secs(2);

/// Draws all of it.
pub(super) fn draw(state: &State, area: Rect, buffer: &mut Buffer) {
    let line = |at: u16| Rect {
        y: area.y + at,
        height: 1,
        ..area
    };
    let below = state.pane();
    if area.height <= HEAD + FOOT + below {
        Line::raw("the terminal is too small").render(area, buffer);
        return;
    }
    let paint = Paint(state.color);
    title(state, &paint, line(0), buffer);
    sum(state, &paint).render(line(1), buffer);
    tabs(state, &paint).render(line(2), buffer);
    let body = Rect {
        y: area.y + HEAD - 1,
        // The names of the columns are part of the table.
        height: area.height - HEAD - FOOT - below + 1,
        ..area
    };
    if state.len() > 0 {
        rows(state, &paint, body, buffer);
    } else {
        Paragraph::new(nothing(state))
            .wrap(Wrap { trim: false })
            .render(body, buffer);
    }
    if below > 0 {
        let area = Rect {
            y: area.bottom() - FOOT - below,
            height: below,
            ..area
        };
        pane(state, &paint, area, buffer);
    }
    foot(state, line(area.height - 1), buffer);
    if state.help {
        help(area, buffer);
    }
}

/// A frame as lines of text, without colours.
pub(super) fn text(state: &State, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(state, area, &mut buffer);
    let line = |y| {
        let cells = (0..width).filter_map(|x| buffer.cell((x, y)));
        let text: String = cells.map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    };
    let mut lines: Vec<String> = (0..height).map(line).collect();
    // Keys mean nothing on paper.
    lines.truncate(lines.len().saturating_sub(usize::from(FOOT)));
    let used = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(0, |last| last + 1);
    lines.truncate(used);
    let left = state.len() - state.visible().1.len();
    if left > 0 {
        lines.push(format!("... and {left} more"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Styles, with colours where there may be any.
struct Paint(bool);

impl Paint {
    fn fg(&self, color: Color) -> Style {
        if self.0 { Style::new().fg(color) } else { Style::new() }
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn node(&self, status: NodeStatus) -> Style {
        match status {
            NodeStatus::Healthy => self.fg(Color::Green),
            NodeStatus::Critical | NodeStatus::Unreachable => self.fg(Color::Red).add_modifier(Modifier::BOLD),
            NodeStatus::Degraded | NodeStatus::Draining | NodeStatus::Joining => self.fg(Color::Yellow),
            NodeStatus::Unknown => self.dim(),
        }
    }

    fn health(&self, health: &str) -> Style {
        match health {
            "ok" => self.fg(Color::Green),
            "failed" => self.fg(Color::Red).add_modifier(Modifier::BOLD),
            "degraded" => self.fg(Color::Yellow),
            _ => self.dim(),
        }
    }

    fn phase(&self, phase: Phase) -> Style {
        match phase {
            Phase::Running => self.fg(Color::Green),
            Phase::Failed | Phase::Lost | Phase::TimedOut | Phase::Preempted => {
                self.fg(Color::Red).add_modifier(Modifier::BOLD)
            }
            Phase::Pending | Phase::Scheduled | Phase::Pulling => self.fg(Color::Yellow),
            Phase::Succeeded | Phase::Cancelled => self.dim(),
        }
    }

    fn heat(&self, celsius: Option<i16>) -> Style {
        match celsius {
            Some(HOT_CELSIUS..) => self.fg(Color::Red).add_modifier(Modifier::BOLD),
            Some(WARM_CELSIUS..) => self.fg(Color::Yellow),
            _ => Style::new(),
        }
    }
}

fn title(state: &State, paint: &Paint, area: Rect, buffer: &mut Buffer) {
    Line::from(vec![
        Piece::styled("clawbernetes top ", paint.bold()),
        Piece::raw(state.address.as_str()),
    ])
    .render(area, buffer);
    let mut words = Vec::new();
    if state.paused {
        words.push("PAUSED".to_owned());
    }
    if let Some(asking) = state.asking {
        let waited = time::between(asking, state.now);
        if waited >= SLOW {
            words.push(format!("no answer for {}", span_of(waited)));
        }
    }
    words.push(match state.came() {
        Some(at) => format!("data {} old", span_of(time::between(at, state.now))),
        None => "no data yet".to_owned(),
    });
    let style = if state.old() || state.paused {
        paint.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    Line::styled(format!("  {}", words.join(", ")), style)
        .right_aligned()
        .render(area, buffer);
}

/// The sum of the fleet, or why nothing newer is known.
fn sum(state: &State, paint: &Paint) -> Line<'static> {
    if let Some(error) = &state.trouble {
        let text = format!("error[{}]: {}", error.code, error.message);
        return Line::styled(text, paint.fg(Color::Red).add_modifier(Modifier::BOLD));
    }
    let Some(cluster) = &state.cluster else {
        return Line::default();
    };
    let style = match cluster.status.as_str() {
        "healthy" => paint.fg(Color::Green),
        "critical" => paint.fg(Color::Red),
        "degraded" => paint.fg(Color::Yellow),
        _ => Style::new(),
    };
    let mut text = format!(
        "  {}/{} nodes healthy  {}/{} GPUs free",
        cluster.healthy_nodes, cluster.total_nodes, cluster.available_gpus, cluster.total_gpus
    );
    for (phase, count) in cluster.active_workloads.iter().rev() {
        text.push_str(&format!("  {count} {}", phase.name()));
    }
    Line::from(vec![Piece::styled(cluster.status.clone(), style), Piece::raw(text)])
}

fn tabs(state: &State, paint: &Paint) -> Line<'static> {
    let mut pieces = Vec::new();
    for (at, tab) in Tab::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", at + 1, tab.title());
        let style = if tab == state.tab {
            paint.bold().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        pieces.push(Piece::styled(text, style));
    }
    let (sort, reversed) = state.sort();
    let reversed = if reversed { ", reversed" } else { "" };
    pieces.push(Piece::raw(format!("  by: {}{reversed}", sort.name())));
    if state.typing || !state.filter().is_empty() {
        let cursor = if state.typing { "_" } else { "" };
        pieces.push(Piece::styled(
            format!("  /{}{cursor}", state.filter()),
            paint.fg(Color::Cyan).add_modifier(Modifier::BOLD),
        ));
    }
    Line::from(pieces)
}

/// What stands where no rows are.
fn nothing(state: &State) -> String {
    if !state.filter().is_empty() && state.came().is_some() {
        return format!("Nothing holds '{}'. Esc clears the filter.", state.filter());
    }
    match (state.came(), &state.trouble) {
        (Some(_), _) => match state.tab {
            Tab::Nodes => {
                "No nodes yet: clawbernetes auth join-token, then clawbernetes node start --join TOKEN".to_owned()
            }
            Tab::Gpus => "No node has a GPU.".to_owned(),
            Tab::Workloads => "No workload waits or runs, and none has ended within the last hour.".to_owned(),
        },
        (None, Some(error)) => {
            let mut text = String::new();
            if let Some(cause) = &error.cause {
                text.push_str(&format!("cause: {cause}\n"));
            }
            if let Some(hint) = &error.hint {
                text.push_str(&format!("try: {hint}\n"));
            }
            text.push_str(&format!("Asking again every {}.", state.interval));
            text
        }
        (None, None) => "Asking the gateway ...".to_owned(),
    }
}

/// A column: its name, its width, and from which width of the screen on it is shown.
type Column = (&'static str, Constraint, u16);

const NODES: &[Column] = &[
    ("NODE", Constraint::Fill(2), 0),
    ("STATUS", Constraint::Length(11), 0),
    ("FREE", Constraint::Length(5), 0),
    ("UTILIZATION", Constraint::Length(13), 0),
    ("TEMP", Constraint::Length(5), 0),
    ("GPU MEMORY", Constraint::Length(13), 100),
    ("GPUS", Constraint::Fill(2), 0),
    ("MEMORY", Constraint::Length(13), 120),
    ("ENGINE", Constraint::Length(7), 140),
    ("SEEN", Constraint::Length(8), 0),
];

const GPUS: &[Column] = &[
    ("NODE", Constraint::Fill(2), 0),
    ("GPU", Constraint::Length(3), 0),
    ("HEALTH", Constraint::Length(8), 0),
    ("UTILIZATION", Constraint::Length(13), 0),
    ("TEMP", Constraint::Length(5), 0),
    ("MEMORY", Constraint::Length(9), 0),
    ("POWER", Constraint::Length(6), 90),
    ("MODEL", Constraint::Fill(2), 0),
    ("WORKLOAD", Constraint::Fill(2), 100),
];

const WORKLOADS: &[Column] = &[
    ("NAME", Constraint::Fill(3), 0),
    ("PHASE", Constraint::Length(10), 0),
    ("GPUS", Constraint::Length(4), 0),
    ("NODE", Constraint::Fill(2), 0),
    ("RUNTIME", Constraint::Length(8), 0),
    ("SUBMITTED", Constraint::Length(9), 90),
    ("PRIORITY", Constraint::Length(8), 110),
    ("OWNER", Constraint::Length(12), 120),
    ("REASON", Constraint::Fill(2), 0),
];

fn rows(state: &State, paint: &Paint, area: Rect, buffer: &mut Buffer) {
    let columns = match state.tab {
        Tab::Nodes => NODES,
        Tab::Gpus => GPUS,
        Tab::Workloads => WORKLOADS,
    };
    let shown = |column: &&Column| area.width >= column.2;
    let (top, items) = state.visible();
    let rows = items.iter().enumerate().map(|(at, item)| {
        let (cells, stale) = match *item {
            Item::Node(at) => (node_cells(state, paint, state.node(at)), state.stale(state.node(at))),
            Item::Gpu(at, gpu) => {
                let node = state.node(at);
                (gpu_cells(paint, node, &node.gpus[gpu]), state.stale(node))
            }
            Item::Workload(at) => (workload_cells(state, paint, state.workload(at)), false),
        };
        let cells = cells.into_iter().zip(columns).filter(|(_, column)| shown(column));
        let mut style = Style::new();
        if stale || state.old() {
            style = style.add_modifier(Modifier::DIM);
        }
        if top + at == state.cursor() {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Row::new(cells.map(|(cell, _)| cell)).style(style)
    });
    let names = columns.iter().filter(shown).map(|column| column.0);
    Table::new(rows, columns.iter().filter(shown).map(|column| column.1))
        .header(Row::new(names).style(paint.bold()))
        .column_spacing(1)
        .render(area, buffer);
}

fn node_cells(state: &State, paint: &Paint, node: &NodeView) -> Vec<Cell<'static>> {
    let hottest = hottest(&node.gpus);
    let first = node.gpus.first();
    let model = first.map(|gpu| {
        let more = if node.gpus.iter().any(|other| other.model != gpu.model) {
            " ..."
        } else {
            ""
        };
        format!("{}{more}", model(gpu))
    });
    let machine = node.memory_used_bytes.zip(node.memory_total_bytes);
    vec![
        Cell::new(node.name.to_string()),
        Cell::new(node.status.name()).style(paint.node(node.status)),
        Cell::new(format!("{}/{}", node.gpus_free, node.gpus.len())),
        bar(paint, utilization(&node.gpus)),
        Cell::new(degrees(hottest)).style(paint.heat(hottest)),
        Cell::new(dash(memory(&node.gpus).map(of))),
        Cell::new(dash(model)),
        Cell::new(dash(machine.map(of))),
        Cell::new(dash(node.engine.map(|engine| engine.name()))),
        Cell::new(ago(node.last_seen, state.clock())),
    ]
}

fn gpu_cells(paint: &Paint, node: &NodeView, gpu: &GpuView) -> Vec<Cell<'static>> {
    vec![
        Cell::new(node.name.to_string()),
        Cell::new(gpu.index.to_string()),
        Cell::new(gpu.health.clone()).style(paint.health(&gpu.health)),
        bar(paint, gpu.utilization_percent.map(f32::from)),
        Cell::new(degrees(gpu.temperature_celsius)).style(paint.heat(gpu.temperature_celsius)),
        Cell::new(gpu_memory(gpu)),
        Cell::new(watts(gpu)),
        Cell::new(model(gpu)),
        Cell::new(dash(gpu.workload.as_ref())),
    ]
}

fn workload_cells(state: &State, paint: &Paint, workload: &WorkloadSummary) -> Vec<Cell<'static>> {
    vec![
        Cell::new(workload.name.clone()),
        Cell::new(workload.phase.name()).style(paint.phase(workload.phase)),
        Cell::new(workload.gpus_requested.to_string()),
        Cell::new(dash(workload.node.as_ref())),
        Cell::new(dash(runtime(workload, state.clock()).map(span_of))),
        Cell::new(ago(Some(workload.submitted_at), state.clock())),
        Cell::new(workload.priority.name()),
        Cell::new(workload.owner.clone()),
        Cell::new(dash(workload.reason.as_deref())),
    ]
}

/// `█████▌··  69%`, or a dash.
fn bar(paint: &Paint, percent: Option<f32>) -> Cell<'static> {
    let Some(percent) = percent else {
        return Cell::new("-");
    };
    let eighths = ((percent.clamp(0.0, 100.0) / 100.0) * (BAR * 8) as f32).round() as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let done = format!("{}{}", "█".repeat(full), EIGHTHS[rest]);
    let left = "·".repeat(BAR - full - usize::from(rest > 0));
    Cell::new(Line::from(vec![
        Piece::styled(done, paint.fg(Color::Cyan)),
        Piece::styled(left, paint.dim()),
        Piece::raw(format!(" {percent:>3.0}%")),
    ]))
}

/// What a GPU is; made-up ones say so where it can't be cut off.
fn model(gpu: &GpuView) -> String {
    let name = gpu.model.strip_prefix("NVIDIA ").unwrap_or(&gpu.model);
    if gpu.simulated {
        format!("(sim) {name}")
    } else {
        name.to_owned()
    }
}

pub(super) fn degrees(celsius: Option<i16>) -> String {
    dash(celsius.map(|celsius| format!("{celsius}°C")))
}

pub(super) fn watts(gpu: &GpuView) -> String {
    dash(gpu.power_watts.map(|watts| format!("{watts:.0} W")))
}

fn gib(size: api::Size) -> f64 {
    size.bytes() as f64 / (1u64 << 30) as f64
}

/// `31/640Gi`.
pub(super) fn of((used, total): (api::Size, api::Size)) -> String {
    format!("{:.0}/{:.0}Gi", gib(used), gib(total))
}

pub(super) fn gpu_memory(gpu: &GpuView) -> String {
    match gpu.memory_total_bytes {
        None => "-".to_owned(),
        Some(total) => {
            let used = gpu.memory_used_bytes.map(|used| format!("{:.0}", gib(used)));
            format!("{}/{:.0}Gi", dash(used), gib(total))
        }
    }
}

fn pane(state: &State, paint: &Paint, area: Rect, buffer: &mut Buffer) {
    let Some(item) = state.selected() else { return };
    let (name, mut lines) = detail::lines(state, item);
    let space = usize::from(area.height.saturating_sub(1));
    if lines.len() > space {
        let left = lines.len() + 1 - space.max(1);
        lines.truncate(space.saturating_sub(1));
        lines.push(format!("... {left} more lines in a taller terminal"));
    }
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Line::styled(format!(" {name} "), paint.bold()));
    Paragraph::new(lines.into_iter().map(Line::raw).collect::<Vec<_>>())
        .block(block)
        .render(area, buffer);
}

fn foot(state: &State, area: Rect, buffer: &mut Buffer) {
    let keys = if state.typing {
        "type to filter  Enter keep  Esc clear"
    } else {
        "Enter detail  / filter  s sort  r reverse  p pause  ? help  q quit"
    };
    Line::raw(keys).render(area, buffer);
    let (top, items) = state.visible();
    if !items.is_empty() {
        Line::raw(format!("  {}-{} of {}", top + 1, top + items.len(), state.len()))
            .right_aligned()
            .render(area, buffer);
    }
}

const HELP: &str = "\
1 2 3 Tab     nodes, GPUs, workloads
Up Down j k   move; PgUp PgDn Home End too
Enter         show the selected thing in full
/             only rows that hold all these words
s             sort by the next column
r             the other way round
p Space       pause: nothing is asked for
Esc           close what is open, else quit
q Ctrl-C      quit

-             not known     dim    old
(sim)         a simulated GPU";

fn help(area: Rect, buffer: &mut Buffer) {
    let lines = HELP.lines().count();
    let (width, height) = (
        54.min(area.width),
        u16::try_from(lines + 2).unwrap_or(u16::MAX).min(area.height),
    );
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, buffer);
    Paragraph::new(HELP)
        .block(Block::bordered().title(" Keys "))
        .render(area, buffer);
}
