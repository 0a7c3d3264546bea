//! What `top` knows and shows, and what keys change about it: no terminal, no socket, no clock.

use api::{
    ApiError, GpuIndex, NodeName, Span, Timestamp, WorkloadId,
    node::{NodeStatus, NodeView},
    op::ClusterStatus,
    time,
    workload::WorkloadSummary,
};
use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Lines above the rows: title, sum, tabs, names of columns.
pub(super) const HEAD: u16 = 4;
/// Lines below the rows: the keys.
pub(super) const FOOT: u16 = 1;
/// How much older than the newest sign of life in the fleet one may be before its numbers count as old.
const STALE: Span = Span::secs(30);
/// Rows that scrolling by a page keeps in view.
const OVERLAP: usize = 1;

/// What is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Tab {
    /// A row a node
    #[default]
    Nodes,
    /// A row a GPU
    Gpus,
    /// A row a workload that hasn't ended, or has within the last hour
    Workloads,
}

impl Tab {
    /// All of them, in the order of their keys.
    pub(super) const ALL: [Self; 3] = [Self::Nodes, Self::Gpus, Self::Workloads];

    /// Its name.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes",
            Self::Gpus => "GPUs",
            Self::Workloads => "Workloads",
        }
    }

    /// What it can be sorted by; the first is where it begins.
    const fn sorts(self) -> &'static [Sort] {
        use Sort::{Attention, Free, Gpus, Memory, Name, Node, Power, Runtime, Submitted, Temperature, Utilization};
        match self {
            Self::Nodes => &[Attention, Name, Utilization, Temperature, Memory, Free],
            Self::Gpus => &[Attention, Node, Utilization, Temperature, Memory, Power],
            Self::Workloads => &[Attention, Name, Submitted, Runtime, Gpus, Node],
        }
    }

    const fn need(self) -> Need {
        match self {
            Self::Nodes | Self::Gpus => Need::Nodes,
            Self::Workloads => Need::Workloads,
        }
    }
}

/// What rows are sorted by. Numbers begin with the greatest, names with the first; what is unknown is always last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// What needs a look: what is wrong, then what is hottest and busiest.
    Attention,
    Name,
    Node,
    Utilization,
    Temperature,
    Memory,
    Power,
    Free,
    Gpus,
    Submitted,
    Runtime,
}

impl Sort {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Attention => "needs a look",
            Self::Name => "name",
            Self::Node => "node",
            Self::Utilization => "utilization",
            Self::Temperature => "temperature",
            Self::Memory => "GPU memory",
            Self::Power => "power",
            Self::Free => "free GPUs",
            Self::Gpus => "GPUs",
            Self::Submitted => "newest",
            Self::Runtime => "runtime",
        }
    }
}

/// What has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The nodes with their GPUs.
    Nodes,
    /// The workloads.
    Workloads,
}

/// What the screen needs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// The rows of the tab.
    pub(super) need: Need,
    /// Nothing for now.
    pub(super) paused: bool,
}

/// Rows from the gateway.
#[derive(Debug)]
pub(super) enum Answer {
    /// All nodes.
    Nodes(Vec<NodeView>),
    /// The workloads that haven't ended long ago.
    Workloads(Vec<WorkloadSummary>),
}

/// An answer, and when it came.
#[derive(Debug)]
pub(super) struct Fetched {
    /// By the clock here.
    pub(super) at: Timestamp,
    /// By the gateway's clock.
    pub(super) clock: Timestamp,
    /// The sum of the fleet.
    pub(super) cluster: ClusterStatus,
    /// The rows.
    pub(super) answer: Answer,
}

/// A row: positions in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Node(usize),
    /// Node and GPU.
    Gpu(usize, usize),
    Workload(usize),
}

/// What a row is about, whatever its place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Node(NodeName),
    Gpu(NodeName, GpuIndex),
    Workload(WorkloadId),
}

/// How a tab is looked at.
#[derive(Debug, Default)]
struct Look {
    /// Position among the tab's sorts.
    sort: usize,
    reversed: bool,
    filter: String,
    /// Followed when rows move. `None`: whatever comes first.
    selected: Option<Id>,
    /// Row of the selection.
    cursor: usize,
    /// First row in view.
    top: usize,
}

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    Quit,
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    /// Where the gateway is.
    pub(super) address: String,
    /// How often it is asked.
    pub(super) interval: Span,
    /// Whether there may be colours.
    pub(super) color: bool,
    /// The time here.
    pub(super) now: Timestamp,
    /// What is shown.
    pub(super) tab: Tab,
    looks: [Look; 3],
    nodes: Vec<NodeView>,
    workloads: Vec<WorkloadSummary>,
    /// When the lists came, in the order of [`Need`].
    came: [Option<Timestamp>; 2],
    /// The gateway's clock less the one here, in milliseconds.
    ahead_ms: i64,
    newest: Option<Timestamp>,
    /// The sum of the fleet.
    pub(super) cluster: Option<ClusterStatus>,
    /// Why the last question had no answer.
    pub(super) trouble: Option<ApiError>,
    /// Since when an answer is waited for.
    pub(super) asking: Option<Timestamp>,
    rows: Vec<Item>,
    size: (u16, u16),
    /// Nothing is asked for.
    pub(super) paused: bool,
    /// The keys are explained.
    pub(super) help: bool,
    /// The selection is shown in full.
    pub(super) detail: bool,
    /// Keys go to the filter.
    pub(super) typing: bool,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(address: String, interval: Span, color: bool, tab: Tab, now: Timestamp) -> Self {
        Self {
            address,
            interval,
            color,
            now,
            tab,
            looks: Default::default(),
            nodes: Vec::new(),
            workloads: Vec::new(),
            came: [None; 2],
            ahead_ms: 0,
            newest: None,
            cluster: None,
            trouble: None,
            asking: None,
            rows: Vec::new(),
            size: (80, 24),
            paused: false,
            help: false,
            detail: false,
            typing: false,
        }
    }

    /// What has to be asked for.
    pub(super) fn want(&self) -> Want {
        Want {
            need: self.tab.need(),
            // What was never seen can't be looked at in peace.
            paused: self.paused && self.came().is_some(),
        }
    }

    /// The screen's size.
    pub(super) fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.scroll();
    }

    /// Takes an answer. After a failure, what was known stays; while paused, everything does.
    pub(super) fn apply(&mut self, answer: Result<Fetched, ApiError>) {
        self.asking = None;
        if self.want().paused {
            return;
        }
        let fetched = match answer {
            Ok(fetched) => fetched,
            Err(error) => {
                self.trouble = Some(error);
                return;
            }
        };
        self.trouble = None;
        self.cluster = Some(fetched.cluster);
        self.ahead_ms = fetched.clock.as_millisecond() - fetched.at.as_millisecond();
        match fetched.answer {
            Answer::Nodes(nodes) => {
                self.newest = nodes.iter().filter_map(|node| node.last_seen).max();
                self.nodes = nodes;
                self.came[Need::Nodes as usize] = Some(fetched.at);
            }
            Answer::Workloads(workloads) => {
                self.workloads = workloads;
                self.came[Need::Workloads as usize] = Some(fetched.at);
            }
        }
        self.arrange();
    }

    /// When the rows in view came. `None`: they haven't yet.
    pub(super) fn came(&self) -> Option<Timestamp> {
        self.came[self.tab.need() as usize]
    }

    /// Whether the rows in view are older than a gateway in order would let them be.
    pub(super) fn old(&self) -> bool {
        let limit = Span(self.interval.millis().saturating_mul(3).max(5_000));
        !self.paused && self.came().is_some_and(|at| time::between(at, self.now) > limit)
    }

    /// The time at the gateway, which its times are told against.
    pub(super) fn clock(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now.as_millisecond().saturating_add(self.ahead_ms)).unwrap_or(self.now)
    }

    /// Whether a node's numbers are old: it is silent.
    pub(super) fn stale(&self, node: &NodeView) -> bool {
        matches!(node.status, NodeStatus::Unreachable | NodeStatus::Unknown)
            || match (node.last_seen, self.newest) {
                (Some(seen), Some(newest)) => time::between(seen, newest) > STALE,
                _ => true,
            }
    }

    /// The rows' number, after the filter.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows in view, and the first one's position.
    pub(super) fn visible(&self) -> (usize, &[Item]) {
        let top = self.look().top.min(self.rows.len());
        let end = (top + self.height()).min(self.rows.len());
        (top, &self.rows[top..end])
    }

    /// Row of the selection.
    pub(super) fn cursor(&self) -> usize {
        self.look().cursor
    }

    /// What is selected.
    pub(super) fn selected(&self) -> Option<Item> {
        self.rows.get(self.look().cursor).copied()
    }

    /// What the rows are sorted by, and whether the other way round.
    pub(super) fn sort(&self) -> (Sort, bool) {
        let look = self.look();
        (self.tab.sorts()[look.sort], look.reversed)
    }

    /// What rows have to hold.
    pub(super) fn filter(&self) -> &str {
        &self.look().filter
    }

    /// The node of a row.
    pub(super) fn node(&self, at: usize) -> &NodeView {
        &self.nodes[at]
    }

    /// The workload of a row.
    pub(super) fn workload(&self, at: usize) -> &WorkloadSummary {
        &self.workloads[at]
    }

    /// Lines of the pane that shows the selection in full; 0 while it is closed.
    pub(super) fn pane(&self) -> u16 {
        if self.detail && !self.rows.is_empty() {
            self.size.1.saturating_sub(HEAD + FOOT) / 2
        } else {
            0
        }
    }

    /// Lines for rows.
    fn height(&self) -> usize {
        usize::from(self.size.1.saturating_sub(HEAD + FOOT + self.pane()))
    }

    fn look(&self) -> &Look {
        &self.looks[self.tab as usize]
    }

    fn look_mut(&mut self) -> &mut Look {
        &mut self.looks[self.tab as usize]
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Flow {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Flow::Quit;
        }
        if self.typing {
            self.type_filter(key.code, control);
            return Flow::Go;
        }
        let page = isize::try_from(self.height().saturating_sub(OVERLAP).max(1)).unwrap_or(1);
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc => return self.close(),
            KeyCode::Char('1') => self.open(Tab::Nodes),
            KeyCode::Char('2') => self.open(Tab::Gpus),
            KeyCode::Char('3') => self.open(Tab::Workloads),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char('d') if control => self.step(page / 2),
            KeyCode::Char('u') if control => self.step(-(page / 2)),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(page),
            KeyCode::PageUp => self.step(-page),
            KeyCode::Home | KeyCode::Char('g') => self.first(),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Enter => {
                self.detail = !self.detail;
                self.scroll();
            }
            KeyCode::Char('/') => {
                self.help = false;
                self.typing = true;
            }
            KeyCode::Char('s') => {
                let sorts = self.tab.sorts().len();
                let look = self.look_mut();
                look.sort = (look.sort + 1) % sorts;
                look.reversed = false;
                self.arrange();
            }
            KeyCode::Char('r') => {
                let look = self.look_mut();
                look.reversed = !look.reversed;
                self.arrange();
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            _ => {}
        }
        Flow::Go
    }

    /// Closes what was opened last; where nothing is, the program ends.
    fn close(&mut self) -> Flow {
        if self.help {
            self.help = false;
        } else if self.detail {
            self.detail = false;
            self.scroll();
        } else if !self.filter().is_empty() {
            self.look_mut().filter.clear();
            self.arrange();
        } else {
            return Flow::Quit;
        }
        Flow::Go
    }

    fn type_filter(&mut self, code: KeyCode, control: bool) {
        let filter = &mut self.looks[self.tab as usize].filter;
        match code {
            KeyCode::Enter => {
                self.typing = false;
                return;
            }
            KeyCode::Esc => {
                self.typing = false;
                filter.clear();
            }
            KeyCode::Backspace => {
                if filter.pop().is_none() {
                    self.typing = false;
                }
            }
            KeyCode::Char('u') if control => filter.clear(),
            KeyCode::Char(letter) if !control => filter.push(letter),
            KeyCode::Down => return self.step(1),
            KeyCode::Up => return self.step(-1),
            _ => return,
        }
        self.arrange();
    }

    fn open(&mut self, tab: Tab) {
        if tab != self.tab {
            self.tab = tab;
            self.arrange();
        }
    }

    fn turn(&mut self, by: usize) {
        self.open(Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()]);
    }

    /// Selects whatever comes first, now and later.
    fn first(&mut self) {
        let look = self.look_mut();
        (look.cursor, look.selected) = (0, None);
        self.scroll();
    }

    fn step(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        let cursor = self.look().cursor.saturating_add_signed(by).min(last);
        let selected = self.rows.get(cursor).map(|item| self.id(*item));
        let look = self.look_mut();
        (look.cursor, look.selected) = (cursor, selected);
        self.scroll();
    }

    fn id(&self, item: Item) -> Id {
        match item {
            Item::Node(at) => Id::Node(self.nodes[at].name.clone()),
            Item::Gpu(at, gpu) => Id::Gpu(self.nodes[at].name.clone(), self.nodes[at].gpus[gpu].index),
            Item::Workload(at) => Id::Workload(self.workloads[at].id.clone()),
        }
    }

    fn is(&self, item: Item, id: &Id) -> bool {
        match (item, id) {
            (Item::Node(at), Id::Node(name)) => self.nodes[at].name == *name,
            (Item::Gpu(at, gpu), Id::Gpu(name, index)) => {
                self.nodes[at].gpus[gpu].index == *index && self.nodes[at].name == *name
            }
            (Item::Workload(at), Id::Workload(id)) => self.workloads[at].id == *id,
            _ => false,
        }
    }

    /// Puts the rows of the tab in order, and finds the selection again.
    fn arrange(&mut self) {
        let words: Vec<&str> = self.filter().split_whitespace().collect();
        let items: Vec<Item> = match self.tab {
            Tab::Nodes => (0..self.nodes.len()).map(Item::Node).collect(),
            Tab::Gpus => {
                let gpus = |(at, node): (usize, &NodeView)| (0..node.gpus.len()).map(move |gpu| Item::Gpu(at, gpu));
                self.nodes.iter().enumerate().flat_map(gpus).collect()
            }
            Tab::Workloads => (0..self.workloads.len()).map(Item::Workload).collect(),
        };
        let (sort, reversed) = self.sort();
        let mut keyed: Vec<(Option<i64>, Item)> = items
            .into_iter()
            .filter(|item| words.iter().all(|word| self.holds(*item, word)))
            .map(|item| (self.number(item, sort), item))
            .collect();
        keyed.sort_unstable_by(|a, b| {
            let names = self.name(a.1).cmp(&self.name(b.1));
            let order = match (a.0, b.0) {
                (None, Some(_)) => return std::cmp::Ordering::Greater,
                (Some(_), None) => return std::cmp::Ordering::Less,
                (a, b) if a == b => match sort {
                    Sort::Name | Sort::Node => names,
                    _ => return names,
                },
                (a, b) => b.cmp(&a),
            };
            if reversed { order.reverse() } else { order }
        });
        self.rows = keyed.into_iter().map(|(_, item)| item).collect();
        let last = self.rows.len().saturating_sub(1);
        let found = match &self.look().selected {
            Some(id) => self.rows.iter().position(|item| self.is(*item, id)),
            None => Some(0),
        };
        let look = self.look_mut();
        look.cursor = found.unwrap_or(look.cursor).min(last);
        self.scroll();
    }

    /// Brings the selection into view.
    fn scroll(&mut self) {
        let (height, rows) = (self.height().max(1), self.rows.len());
        let look = self.look_mut();
        if look.cursor < look.top {
            look.top = look.cursor;
        } else if look.cursor >= look.top + height {
            look.top = look.cursor + 1 - height;
        }
        look.top = look.top.min(rows.saturating_sub(height));
    }
}
