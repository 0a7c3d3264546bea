//! Tables: plain columns without lines between them, as wide as their content, or as the terminal.

use std::{io::IsTerminal, os::fd::AsFd};

use api::Timestamp;
use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table};

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
}

impl Grid {
    /// A table with these headings.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// A table without headings.
    pub(crate) fn bare() -> Self {
        Self {
            header: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn draw(&self, view: &View) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.force_no_tty();
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
        if !self.header.is_empty() {
            table.set_header(self.header.iter().map(|text| {
                let cell = Cell::new(text);
                if view.color {
                    cell.add_attribute(Attribute::Dim)
                } else {
                    cell
                }
            }));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|text| {
                let cell = Cell::new(text);
                match color_of(text) {
                    Some(color) if view.color => cell.fg(color),
                    _ => cell,
                }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
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
}
