//! Rows of long lists, written once.
//!
//! A queue of 10,000 is asked for again and again while few of its workloads change. Making and writing all rows for
//! each answer costs more than all else; so each row's JSON is kept until its workload is written anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use api::{ApiError, ErrorCode, WorkloadId, workload::Phase, workload::Workload, workload::WorkloadSummary};
use store::Revision;

use crate::view::Versioned;

/// Rows kept. One takes about half a kilobyte.
const KEPT_MAX: usize = 16_384;

/// A row, and what it was made from.
struct Row {
    revision: Revision,
    waits: bool,
    json: Box<[u8]>,
}

/// The kept rows of workloads.
#[derive(Default)]
pub struct Rows {
    kept: Mutex<HashMap<WorkloadId, Row>>,
}

impl Rows {
    /// A list of workloads as JSON. `planned`: the revision that the scheduler has looked at.
    ///
    /// # Errors
    /// `INTERNAL`: a row can't be written.
    pub fn list(&self, workloads: &[Versioned<Workload>], planned: Revision) -> Result<Vec<u8>, ApiError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Rows of workloads that nobody asks for any more go with the rest: they are soon made anew.
        if kept.len() > KEPT_MAX {
            kept.clear();
        }
        let mut out = Vec::with_capacity(2 + workloads.len() * 512);
        out.push(b'[');
        for (i, w) in workloads.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let waits = waits(w, planned);
            match kept.get(&w.id) {
                Some(row) if row.revision == w.revision && row.waits == waits => out.extend_from_slice(&row.json),
                _ => {
                    let json = serde_json::to_vec(&summary(w, waits))
                        .map_err(|error| ApiError::internal("a row can't be written").cause(error.to_string()))?;
                    out.extend_from_slice(&json);
                    let row = Row {
                        revision: w.revision,
                        waits,
                        json: json.into(),
                    };
                    kept.insert(w.id.clone(), row);
                }
            }
        }
        out.push(b']');
        Ok(out)
    }
}

/// Whether a scheduling pass has looked at it and left it waiting.
fn waits(w: &Versioned<Workload>, planned: Revision) -> bool {
    w.phase == Phase::Pending && w.reason.is_none() && w.revision <= planned
}

/// A workload in a list. One that waits says that nothing fits it now.
fn summary(w: &Workload, waits: bool) -> WorkloadSummary {
    let mut summary = WorkloadSummary::from(w);
    if waits {
        summary.reason = Some(ErrorCode::NoGpusAvailable.to_string());
        summary.message = Some(format!("nothing fits it now: clawbernetes workload explain {}", w.id));
    }
    summary
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::Timestamp;

    use super::*;
    use crate::decide::submit;

    fn workload(name: &str, revision: u64) -> Versioned<Workload> {
        let asked = format!(r#"{{"name":"{name}","spec":{{"image":"host","command":["true"],"gpus":{{"count":1}}}}}}"#);
        let submission = serde_json::from_str(&asked).unwrap();
        let random = name.bytes().map(u64::from).sum();
        Versioned {
            value: Arc::new(submit::workload(submission, random, "ann", Timestamp::UNIX_EPOCH).unwrap()),
            revision: Revision(revision),
        }
    }

    fn read(json: &[u8]) -> Vec<WorkloadSummary> {
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn a_kept_row_is_what_a_new_one_would_be() {
        let rows = Rows::default();
        let mut all = vec![workload("a", 3), workload("b", 4)];
        let first = rows.list(&all, Revision(2)).unwrap();
        assert_eq!(rows.list(&all, Revision(2)).unwrap(), first);
        assert_eq!(read(&first)[0].reason, None);

        // The scheduler has looked at one of them.
        let planned = read(&rows.list(&all, Revision(3)).unwrap());
        assert_eq!(planned[0].reason.as_deref(), Some("NO_GPUS_AVAILABLE"));
        assert_eq!(planned[1].reason, None);

        // One was written anew.
        let id = all[1].id.clone();
        all[1] = workload("c", 9);
        Arc::get_mut(&mut all[1].value).unwrap().id = id;
        assert_eq!(read(&rows.list(&all, Revision(3)).unwrap())[1].name, "c");
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert_eq!(Rows::default().list(&[], Revision(0)).unwrap(), b"[]");
    }
}
