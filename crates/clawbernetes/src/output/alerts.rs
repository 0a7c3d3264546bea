//! Alerts, silences, rules and receivers.

use api::op::{AlertReceiverView, AlertRuleView, AlertStatus, AlertView, SilenceView};

use super::{
    Grid, Page, Render,
    cells::{ago, or_dash, span_of},
};

impl Render for Vec<AlertView> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No alerts.");
            return;
        }
        let mut grid = Grid::new(["ID", "SEVERITY", "STATUS", "SINCE", "SUMMARY", "NOTES"]);
        for alert in self {
            grid.row([
                alert.id.clone(),
                alert.severity.name().to_owned(),
                alert.status.name().to_owned(),
                ago(Some(alert.since), page.now()),
                alert.summary.clone(),
                or_dash(notes(alert).join(", ")),
            ]);
        }
        page.grid(&grid);
        let commands: Vec<&String> = self
            .iter()
            .filter(|alert| alert.status == AlertStatus::Firing)
            .filter_map(|alert| alert.commands.first())
            .collect();
        if let Some(first) = commands.first() {
            page.heading(&format!("Next: {first}"));
        }
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|alert| alert.id.clone()).collect()
    }
}

/// What must be known to take it rightly.
fn notes(alert: &AlertView) -> Vec<String> {
    let mut notes = Vec::new();
    if !alert.silenced_by.is_empty() {
        notes.push(format!("silenced by {}", alert.silenced_by.join(" ")));
    }
    if !alert.inhibited_by.is_empty() {
        notes.push(format!("explained by {}", alert.inhibited_by.join(" ")));
    }
    if alert.flapping {
        notes.push(format!("flapping, {} changes in 1h", alert.changes_last_hour));
    }
    if alert.stale {
        notes.push("no data".to_owned());
    }
    notes
}

fn row(silence: &SilenceView, page: &Page) -> [String; 7] {
    [
        silence.id.clone(),
        silence.matchers.join(" "),
        if silence.active {
            format!("in {}", span_of(api::time::between(page.now(), silence.ends_at)))
        } else {
            "ended".to_owned()
        },
        silence.alerts.to_string(),
        silence.created_by.clone(),
        ago(Some(silence.starts_at), page.now()),
        or_dash(silence.comment.clone()),
    ]
}

const SILENCE: [&str; 7] = ["ID", "MATCHERS", "ENDS", "HOLDS BACK", "BY", "CREATED", "COMMENT"];

impl Render for SilenceView {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(SILENCE);
        grid.row(row(self, page));
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

impl Render for Vec<SilenceView> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No silences.");
            return;
        }
        let mut grid = Grid::new(SILENCE);
        for silence in self {
            grid.row(row(silence, page));
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|silence| silence.id.clone()).collect()
    }
}

impl Render for Vec<AlertRuleView> {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(["NAME", "SEVERITY", "FIRING", "PENDING", "FOR", "FROM", "SAYS"]);
        for rule in self {
            grid.row([
                rule.name.clone(),
                rule.severity.name().to_owned(),
                rule.firing.to_string(),
                rule.pending.to_string(),
                span_of(rule.for_),
                if rule.own { "file" } else { "built in" }.to_owned(),
                rule.summary.clone(),
            ]);
        }
        page.grid(&grid);
        let evaluated = self.first().and_then(|rule| rule.evaluated_at);
        page.heading(&match evaluated {
            Some(at) => format!("Evaluated {}.", ago(Some(at), page.now())),
            None => "Not evaluated yet.".to_owned(),
        });
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|rule| rule.name.clone()).collect()
    }
}

impl Render for Vec<AlertReceiverView> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("Nobody is told of alerts: clawbernetes gateway serve --alerts FILE names receivers.");
            return;
        }
        let mut grid = Grid::new(["NAME", "FORMAT", "HOST", "DELIVERED", "FAILING"]);
        for receiver in self {
            grid.row([
                receiver.name.clone(),
                receiver.format.clone(),
                receiver.host.clone(),
                ago(receiver.delivered_at, page.now()),
                or_dash(receiver.failing.clone().unwrap_or_default()),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|receiver| receiver.name.clone()).collect()
    }
}
