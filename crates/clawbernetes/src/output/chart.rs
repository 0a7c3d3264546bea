//! A line chart in text, drawn with the dots of Braille letters.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    symbols::Marker,
    text::Line,
    widgets::{Axis, Chart, Dataset, GraphType, Widget},
};

/// Rows of a chart, axes included.
const HEIGHT: u16 = 14;
/// Lines are told apart by these, in turn.
const COLORS: &[Color] = &[
    Color::Cyan,
    Color::Yellow,
    Color::Green,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];

/// What a chart shows.
pub(super) struct Lines<'a> {
    /// By line: x and y, x ascending.
    pub(super) lines: &'a [Vec<(f64, f64)>],
    /// Where x begins and ends.
    pub(super) x: (f64, f64),
    /// What stands under the beginning, the middle and the end of the x axis.
    pub(super) x_labels: [String; 3],
    /// How a value of y is written.
    pub(super) y_label: &'a dyn Fn(f64) -> String,
}

/// Draws a chart of so many columns; empty where there is nothing to draw.
pub(super) fn draw(chart: &Lines<'_>, width: u16, color: bool) -> String {
    let values = || chart.lines.iter().flatten().map(|(_, y)| *y);
    let (Some(low), Some(high)) = (values().reduce(f64::min), values().reduce(f64::max)) else {
        return String::new();
    };
    // A flat line runs through the middle; values that are never negative aren't drawn over less than nothing.
    let margin = if high > low {
        (high - low) * 0.05
    } else {
        (high.abs() * 0.1).max(1.0)
    };
    let bottom = if low >= 0.0 {
        (low - margin).max(0.0)
    } else {
        low - margin
    };
    let bounds = [bottom, high + margin];
    let datasets = chart.lines.iter().enumerate().map(|(i, line)| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::default().fg(COLORS[i % COLORS.len()]))
            .data(line)
    });
    let y_labels = [bounds[0], f64::midpoint(bounds[0], bounds[1]), bounds[1]].map(|y| Line::raw((chart.y_label)(y)));
    let widget = Chart::new(datasets.collect())
        .x_axis(
            Axis::default()
                .bounds([chart.x.0, chart.x.1])
                .labels(chart.x_labels.iter().map(|text| Line::raw(text.as_str()))),
        )
        .y_axis(Axis::default().bounds(bounds).labels(y_labels))
        .legend_position(None);
    let area = Rect::new(0, 0, width, HEIGHT);
    let mut buffer = Buffer::empty(area);
    widget.render(area, &mut buffer);
    text(&buffer, color)
}

/// The buffer as lines of text.
fn text(buffer: &Buffer, color: bool) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut current = Color::Reset;
        for x in buffer.area.left()..buffer.area.right() {
            let Some(cell) = buffer.cell((x, y)) else { continue };
            if color && cell.fg != current && cell.symbol() != " " {
                current = cell.fg;
                line.push_str(code(current));
            }
            line.push_str(cell.symbol());
        }
        text.push_str(line.trim_end());
        if current != Color::Reset {
            text.push_str(code(Color::Reset));
        }
        text.push('\n');
    }
    text
}

/// What makes a terminal go on in this colour.
fn code(color: Color) -> &'static str {
    match color {
        Color::Red => "\u{1b}[31m",
        Color::Green => "\u{1b}[32m",
        Color::Yellow => "\u{1b}[33m",
        Color::Blue => "\u{1b}[34m",
        Color::Magenta => "\u{1b}[35m",
        Color::Cyan => "\u{1b}[36m",
        _ => "\u{1b}[39m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rising() -> Vec<Vec<(f64, f64)>> {
        vec![(0..50).map(|x| (f64::from(x), f64::from(x) * 2.0)).collect()]
    }

    fn chart(lines: &[Vec<(f64, f64)>], color: bool) -> String {
        let chart = Lines {
            lines,
            x: (0.0, 49.0),
            x_labels: ["1h ago", "30m ago", "now"].map(str::to_owned),
            y_label: &|y| format!("{y:.0}%"),
        };
        draw(&chart, 60, color)
    }

    #[test]
    fn a_rising_line_rises() {
        let text = chart(&rising(), false);
        let dots = |line: &str| line.chars().position(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
        let drawn: Vec<usize> = text.lines().filter_map(dots).collect();
        assert!(drawn.len() > 8, "{text}");
        assert!(drawn.windows(2).all(|pair| pair[0] >= pair[1]), "{text}");
        assert!(
            text.contains("103%") && text.contains("1h ago") && text.contains("now"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 60));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn colours_end_with_their_line() {
        let text = chart(&rising(), true);
        assert!(text.contains("\u{1b}[36m"));
        for line in text.lines().filter(|line| line.contains("\u{1b}[36m")) {
            assert!(line.ends_with("\u{1b}[39m"), "{line:?}");
        }
    }

    #[test]
    fn nothing_and_a_flat_line_can_be_drawn() {
        assert_eq!(chart(&[], false), "");
        assert_eq!(chart(&[vec![]], false), "");
        assert!(chart(&[vec![(0.0, 5.0), (49.0, 5.0)]], false).contains("5%"));
    }
}
