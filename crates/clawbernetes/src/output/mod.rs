//! One value, shown as a table for people or as JSON, YAML, names or lines for programs. Data goes to standard output.

mod alerts;
mod audit;
mod cells;
mod certs;
mod chart;
mod deploy;
mod fleet;
mod health;
mod identity;
mod metrics;
mod page;
mod secrets;
#[cfg(test)]
mod tests;
mod workload;

use std::io::{self, IsTerminal, Write};

use api::{ApiError, Timestamp};
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::{
    cells::{ago, dash, moment, span_of},
    certs::cert_status,
    deploy::{Again, History, Ongoing, PlanShown, Replay, changes, gist, replicas, revision, scheduled, sentence},
    health::HealthShown,
    identity::{Reported, identity_fields},
    metrics::MetricsShown,
    page::{Grid, Page, View},
    secrets::{SecretShown, secret_at},
    workload::{event_line, preview},
};
use crate::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Ids or names alone, one a line.
    Name,
    /// One JSON document a line, as they come.
    Jsonl,
}

/// Something that can be shown to people.
pub(crate) trait Render: Serialize {
    /// The table form.
    fn render(&self, page: &mut Page);

    /// Ids or names, for `-o name`.
    fn names(&self) -> Vec<String>;
}

/// Where and how results are printed.
pub(crate) struct Output {
    /// The form.
    pub(crate) format: Format,
    view: View,
}

impl Output {
    /// Output in this form, on the terminal that standard output is, if it is one.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            view: View::of(&io::stdout()),
        }
    }

    /// Whether a program reads the output.
    pub(crate) fn for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml | Format::Jsonl)
    }

    /// How tables are drawn, at this moment.
    pub(crate) fn view(&self) -> View {
        View {
            now: Timestamp::now(),
            ..self.view.clone()
        }
    }

    /// Shows a result to people on standard error, where standard output is for something else.
    pub(crate) fn aside<T: Render + ?Sized>(&self, value: &T) {
        let mut page = Page::new(View::of(&io::stderr()));
        value.render(&mut page);
        self.note(page.text.trim_end());
    }

    /// Shows a result.
    pub(crate) fn show<T: Render + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let mut page = Page::new(self.view());
                value.render(&mut page);
                self.print(&page.text)
            }
            Format::Name => self.print(&lines(value.names())),
            _ => self.data(value),
        }
    }

    /// Shows a result that has no table form; people get it as JSON too.
    pub(crate) fn data<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => serde_saphyr::to_string(&value).map_err(|error| unprintable(&error.to_string()))?,
            Format::Jsonl => match serde_json::to_value(value).map_err(|error| unprintable(&error.to_string()))? {
                serde_json::Value::Array(items) => lines(items.iter().map(ToString::to_string)),
                one => lines([one.to_string()]),
            },
            _ => {
                let text = serde_json::to_string_pretty(value).map_err(|error| unprintable(&error.to_string()))?;
                lines([text])
            }
        };
        self.print(&text)
    }

    /// Shows one item of a stream, as one line of JSON.
    pub(crate) fn item<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| unprintable(&error.to_string()))?;
        self.print(&lines([text]))
    }

    /// Prints text as it is.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints bytes as they are; on a terminal a line end follows where there is none.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        if stdout.is_terminal() && !bytes.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()?;
        Ok(())
    }

    /// A sentence for people, on standard error.
    pub(crate) fn note(&self, text: &str) {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A sentence on what was done, for people alone: programs get the result itself.
    pub(crate) fn done(&self, text: &str) -> Result<(), Failure> {
        if self.format == Format::Table {
            self.print(&lines([text.to_owned()]))?;
        }
        Ok(())
    }
}

fn unprintable(cause: &str) -> ApiError {
    ApiError::internal("the result can't be printed").cause(cause)
}

fn lines(items: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&item);
        text.push('\n');
    }
    text
}
