//! Who did what, and whether the log of it is whole.

use api::op::{AuditRecord, AuditVerdict};

use super::{
    Grid, Page, Render,
    cells::{clock, dash},
};

impl Render for Vec<AuditRecord> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No records.");
            return;
        }
        let mut grid = Grid::new(["RECORD", "TIME", "WHO", "ACTION", "TARGET", "RESULT", "FROM"]).lesser(["FROM"]);
        for record in self {
            let result = match (record.allowed, &record.error) {
                (true, None) => "ok".to_owned(),
                (true, Some(code)) => format!("failed: {code}"),
                (false, None) => "denied".to_owned(),
                (false, Some(code)) => format!("denied: {code}"),
            };
            grid.row([
                record.sequence.to_string(),
                clock(record.at),
                record.actor.clone(),
                record.action.clone(),
                dash(record.target.as_deref()),
                result,
                dash(record.from.as_deref()),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|record| record.sequence.to_string()).collect()
    }
}

impl Render for AuditVerdict {
    fn render(&self, page: &mut Page) {
        if self.intact {
            let range = match (self.first, self.last) {
                (Some(first), Some(last)) => format!("records {first} to {last}"),
                _ => "no records yet".to_owned(),
            };
            page.line(format!("The audit log is whole: {range}, {} checked.", self.checked));
            if let Some(head) = &self.head {
                page.line(format!("Head: {head}"));
            }
            return;
        }
        match self.broken {
            Some(record) => page.line(format!("The audit log is broken at record {record}.")),
            None => page.line("The audit log is broken."),
        }
        if let Some(why) = &self.why {
            page.line(format!("cause: {why}"));
        }
        page.line(format!("The {} records before it are whole.", self.checked));
    }

    fn names(&self) -> Vec<String> {
        self.broken.iter().map(ToString::to_string).collect()
    }
}
