//! Deployments: a sentence becomes a plan, a plan becomes records, and a controller takes one step at a time.
//!
//! ```text
//!  sentence ─▶ rollout::intent ─▶ rollout::plan ─▶ [`planning`]: where it would go, what is missing ─▶ shown
//!                                                        │ applied
//!                                                        ▼
//!  view: service, deployment, replicas ─▶ [`seen`] ─▶ rollout::drive ─▶ [`carry_out`] ─▶ one transaction
//!                                            ▲                              │
//!  proxy's counts, metrics ─▶ [`evidence`] ─▶ rollout::analysis             ▼
//!                                       replicas (workloads), weights ─▶ [`way`] ─▶ [`doors`] ─▶ proxy
//!                                                                                 └▶ [`carriers`] ─▶ nodes
//! ```

mod batch;
mod before;
mod carriers;
mod carry_out;
mod counts;
mod doors;
mod evidence;
mod find;
mod health;
mod judging;
mod model;
mod planning;
mod prometheus;
mod run;
mod scale;
mod seen;
mod show;
#[cfg(test)]
mod stage;
mod tenders;
mod way;

pub use batch::{begin as begin_job, due as job_due};
pub use before::Before;
pub use carriers::Link;
pub use carry_out::{Ground, changed, draft};
pub use counts::write as count;
pub use doors::{Carrying, Doors, Options};
pub use evidence::Sources;
pub use find::{Back, deployment, going_back, service};
pub use model::{ModelKey, Reader, ReaderOptions};
pub use planning::{Proposal, begin, plan, plan_to_show, propose};
pub use prometheus::Prometheus;
pub use run::run;
pub use show::{service as service_view, status, summary};
