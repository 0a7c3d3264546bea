//! Tables: plain columns without lines between them, as wide as their content, or as the terminal.

use std::{io::IsTerminal, os::fd::AsFd};

use api::Timestamp;
use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table, Width};

/// Columns between two cells, and where the terminal is narrow.
const GAPS: [usize; 2] = [2, 1];

/// A text in a cell of at most this length isn't broken.
const WHOLE: usize = 12;

/// The least width of a longer text, which is broken between words: a narrower column is hard to read.
const PROSE: usize = 24;

/// A word may be broken beyond this.
const WORD: usize = 24;

/// How tables are drawn.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The moment that relative times are told against.
    pub(crate) now: Timestamp,
    /// Columns of the terminal. `None`: there is none, lines may be as long as they want.
    pub(crate) width: Option<u16>,
    /// Whether words may be coloured.
    pub(crate) color: bool,
}

impl View {
    /// How tables are drawn on this stream, which may be a terminal.
    pub(crate) fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let terminal = stream.is_terminal();
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(stream).ok())
            .flatten()
            .map(|size| size.ws_col)
            .filter(|columns| *columns >= 40);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            now: Timestamp::now(),
            width,
            color: terminal && !no_color,
        }
    }
}

/// Text for people, put together from tables and lines.
pub(crate) struct Page {
    /// How tables are drawn.
    pub(crate) view: View,
    /// What there is so far.
    pub(crate) text: String,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(view: View) -> Self {
        Self {
            view,
            text: String::new(),
        }
    }

    /// The moment that relative times are told against.
    pub(crate) fn now(&self) -> Timestamp {
        self.view.now
    }

    /// A line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// A heading, after an empty line unless the page is empty.
    pub(crate) fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(text);
    }

    /// Labels and values in two columns.
    pub(crate) fn fields<L: Into<String>>(&mut self, fields: impl IntoIterator<Item = (L, String)>) {
        let mut grid = Grid::bare();
        for (label, value) in fields {
            grid.row([label.into(), value]);
        }
        self.grid(&grid);
    }

    /// A table.
    pub(crate) fn grid(&mut self, grid: &Grid) {
        let text = grid.draw(&self.view);
        self.text.push_str(&text);
    }
}

/// A table to be.
pub(crate) struct Grid {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    lesser: Vec<&'static str>,
}

/// The columns that a terminal gets.
struct Fit {
    /// Which, by their place.
    columns: Vec<usize>,
    /// Columns of the terminal between two of them. `None`: they don't fit without breaking what is better left whole.
    gap: Option<usize>,
}

impl Grid {
    /// A table with these headings.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            lesser: Vec::new(),
        }
    }

    /// Headings of columns that are left out on a terminal that is too narrow for all of them, the first named first.
    pub(crate) fn lesser(mut self, columns: impl IntoIterator<Item = &'static str>) -> Self {
        self.lesser = columns.into_iter().collect();
        self
    }

    /// A table without headings.
    pub(crate) fn bare() -> Self {
        Self {
            header: Vec::new(),
            rows: Vec::new(),
            lesser: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The texts of a column, its heading first.
    fn column(&self, at: usize) -> impl Iterator<Item = &str> {
        let cells = self.rows.iter().filter_map(move |row| row.get(at));
        self.header.get(at).into_iter().chain(cells).map(String::as_str)
    }

    /// The least width of a column that breaks nothing that is better left whole.
    fn least(&self, at: usize) -> usize {
        let least = |text: &str| match text.chars().count() {
            length @ ..=WHOLE => length,
            _ => {
                let words = text.split_whitespace().map(|word| word.chars().count());
                let longest = words.max().unwrap_or(0).min(WORD);
                if text.contains(char::is_whitespace) {
                    longest.max(PROSE)
                } else {
                    longest
                }
            }
        };
        self.column(at).map(least).max().unwrap_or(0)
    }

    /// The columns for a terminal of this width: all, if need be without those that hold nothing, with smaller gaps, and
    /// without the lesser ones, in this order.
    fn fitted(&self, width: usize) -> Fit {
        let count = self
            .rows
            .iter()
            .map(Vec::len)
            .chain([self.header.len()])
            .max()
            .unwrap_or(0);
        let mut columns: Vec<usize> = (0..count).collect();
        let gap = |columns: &[usize]| {
            let content: usize = columns.iter().map(|at| self.least(*at)).sum();
            GAPS.into_iter()
                .find(|gap| content + gap * columns.len().saturating_sub(1) <= width)
        };
        if gap(&columns) != Some(GAPS[0]) {
            // The first one is what the row is about.
            let empty =
                |at: usize| at > 0 && !self.header.is_empty() && self.column(at).skip(1).all(|text| text == "-");
            columns.retain(|at| !empty(*at));
        }
        let mut lesser = self.lesser.iter();
        loop {
            let gap = gap(&columns);
            match lesser.next().filter(|_| gap.is_none()) {
                Some(heading) => columns.retain(|at| self.header.get(*at).is_none_or(|text| text != heading)),
                None => return Fit { columns, gap },
            }
        }
    }

    fn draw(&self, view: &View) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.force_no_tty();
        let fit = self.fitted(view.width.map_or(usize::MAX, usize::from));
        match view.width {
            Some(width) => {
                table.set_width(width);
                table.set_content_arrangement(ContentArrangement::Dynamic);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        if view.color {
            table.enforce_styling();
        }
        let shown = |row: &[String]| -> Vec<Cell> {
            fit.columns
                .iter()
                .filter_map(|at| row.get(*at))
                .map(Cell::new)
                .collect()
        };
        if !self.header.is_empty() {
            table.set_header(shown(&self.header).into_iter().map(|cell| {
                if view.color {
                    cell.add_attribute(Attribute::Dim)
                } else {
                    cell
                }
            }));
        }
        for row in &self.rows {
            table.add_row(shown(row).into_iter().map(|cell| match color_of(&cell.content()) {
                Some(color) if view.color => cell.fg(color),
                _ => cell,
            }));
        }
        let last = fit.columns.len().saturating_sub(1);
        for (place, (column, at)) in table.column_iter_mut().zip(&fit.columns).enumerate() {
            let gap = if place == last { 0 } else { fit.gap.unwrap_or(GAPS[0]) };
            column.set_padding((0, u16::try_from(gap).unwrap_or(0)));
            if view.width.is_some() && fit.gap.is_some() {
                let least = u16::try_from(self.least(*at) + gap).unwrap_or(u16::MAX);
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
            }
        }
        // What things are called is never broken over two lines.
        if let Some(first) = table.column_mut(0) {
            first.set_constraint(ColumnConstraint::ContentWidth);
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The colour of a word for a state.
fn color_of(word: &str) -> Option<comfy_table::Color> {
    use comfy_table::Color::{Cyan, Green, Red, Yellow};
    Some(match word {
        "healthy" | "succeeded" | "ok" | "valid" | "complete" | "pass" | "good" => Green,
        "running" | "rolling" | "canary" | "promoting" => Cyan,
        "pending" | "scheduled" | "pulling" | "degraded" | "draining" | "joining" | "warning" | "expiring"
        | "paused" | "insufficient" => Yellow,
        "failed" | "lost" | "timed-out" | "preempted" | "critical" | "unreachable" | "error" | "expired"
        | "revoked" | "denied" | "rolled-back" | "fail" | "bad" => Red,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(width: Option<u16>) -> View {
        View {
            now: Timestamp::UNIX_EPOCH,
            width,
            color: false,
        }
    }

    fn grid() -> Grid {
        let mut grid = Grid::new(["NAME", "MESSAGE"]);
        grid.row(["gpu-7", "a sentence that is somewhat longer than the terminal"]);
        grid.row(["gpu-10", "-"]);
        grid
    }

    #[test]
    fn tables_are_plain_columns() {
        insta::assert_snapshot!(grid().draw(&view(None)), @r"
        NAME    MESSAGE
        gpu-7   a sentence that is somewhat longer than the terminal
        gpu-10  -
        ");
    }

    #[test]
    fn tables_fit_the_terminal() {
        let text = grid().draw(&view(Some(40)));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.lines().count() > 3);
    }

    /// A row as wide as a service's replica.
    fn wide() -> Grid {
        let mut grid = Grid::new(["ID", "NAME", "PHASE", "EXIT", "OWNER", "WHY"]).lesser(["OWNER", "NAME"]);
        grid.row([
            "wl-7tg59vkv6q",
            "model-server-1-q6vkv",
            "running",
            "-",
            "administrator",
            "-",
        ]);
        grid.row([
            "wl-3f6qqfyj1t",
            "model-server-1-t1jyf",
            "failed",
            "-",
            "ada",
            "it isn't ready yet: no answer",
        ]);
        grid
    }

    #[test]
    fn a_narrow_terminal_gets_no_broken_words_but_fewer_columns() {
        let at = |width: u16| wide().draw(&view(Some(width)));
        // All of it, the message over several lines.
        insta::assert_snapshot!(at(92), @r"
        ID             NAME                  PHASE    EXIT  OWNER          WHY
        wl-7tg59vkv6q  model-server-1-q6vkv  running  -     administrator  -
        wl-3f6qqfyj1t  model-server-1-t1jyf  failed   -     ada            it isn't ready yet: no
                                                                           answer
        ");
        // Without what holds nothing.
        insta::assert_snapshot!(at(86), @r"
        ID             NAME                  PHASE    OWNER          WHY
        wl-7tg59vkv6q  model-server-1-q6vkv  running  administrator  -
        wl-3f6qqfyj1t  model-server-1-t1jyf  failed   ada            it isn't ready yet: no
                                                                     answer
        ");
        // With smaller gaps.
        insta::assert_snapshot!(at(82), @r"
        ID            NAME                 PHASE   OWNER         WHY
        wl-7tg59vkv6q model-server-1-q6vkv running administrator -
        wl-3f6qqfyj1t model-server-1-t1jyf failed  ada           it isn't ready yet: no
                                                                 answer
        ");
        // Without what matters least.
        insta::assert_snapshot!(at(70), @r"
        ID             NAME                  PHASE    WHY
        wl-7tg59vkv6q  model-server-1-q6vkv  running  -
        wl-3f6qqfyj1t  model-server-1-t1jyf  failed   it isn't ready yet: no
                                                      answer
        ");
        insta::assert_snapshot!(at(52), @r"
        ID             PHASE    WHY
        wl-7tg59vkv6q  running  -
        wl-3f6qqfyj1t  failed   it isn't ready yet: no
                                answer
        ");
        for width in 40..100 {
            let text = at(width);
            assert!(
                text.lines().all(|line| line.chars().count() <= usize::from(width)),
                "{width}: {text}"
            );
            assert!(
                text.contains("wl-7tg59vkv6q") && text.contains("running"),
                "{width}: {text}"
            );
        }
    }
}
