//! Verdicts that were judged once more.

use api::{deploy::Verdict, time};
use serde::Serialize;

use super::{
    super::{Grid, Page, Render},
    status::{judged, outcome},
};

/// A verdict, and what its evidence gives now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Again {
    /// Whether both are the same, to the word.
    pub(crate) same: bool,
    /// As it was recorded.
    pub(crate) recorded: Verdict,
    /// As it is judged now.
    pub(crate) again: Verdict,
}

/// The verdicts of a deployment, each judged once more.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Replay(pub(crate) Vec<Again>);

fn told(one: &Again) -> &'static str {
    if one.same { "same" } else { "different" }
}

impl Render for Replay {
    fn render(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("No verdicts: no condition was judged.");
            return;
        }
        let mut grid = Grid::new(["CONDITION", "JUDGED", "RECORDED", "AGAIN", "RESULT"]);
        for one in &self.0 {
            grid.row([
                judged(&one.recorded),
                time::relative(one.recorded.at, page.now()),
                outcome(one.recorded.outcome).to_owned(),
                outcome(one.again.outcome).to_owned(),
                told(one).to_owned(),
            ]);
        }
        page.grid(&grid);
        for one in self.0.iter().filter(|one| !one.same) {
            page.line("");
            page.line(format!("recorded: {} ({})", one.recorded.message, one.recorded.method));
            page.line(format!("again:    {} ({})", one.again.message, one.again.method));
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|one| told(one).to_owned()).collect()
    }
}
