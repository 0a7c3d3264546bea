//! Plans, deployments and services.

mod list;
mod plan;
mod replay;
mod service;
mod status;
#[cfg(test)]
mod tests;
mod watch;
mod words;

pub(crate) use self::{
    list::History,
    plan::PlanShown,
    replay::{Again, Replay},
    status::Ongoing,
    watch::{changes, sentence},
    words::{gist, replicas, revision, scheduled},
};
