//! The shared vocabulary of Clawbernetes: what things are called, how they are written down, and what may be
//! asked of whom. No IO, no clocks, no async: every other crate knows this one, and it knows none of them.
//!
//! - [`id`], [`quantity`], [`time`]: ids, sizes, CPU shares, durations and points in time, as people write them
//! - [`workload`], [`node`], [`event`], [`auth`]: the resources
//! - [`secret`]: values that print nothing, and where workloads get them
//! - [`error`]: codes, exit statuses, HTTP statuses, and the shape in which an error leaves the system
//! - [`deploy`]: services, their revisions, and deployments: the ways from one to the next
//! - [`manifest`]: the file form of a workload
//! - [`metric`]: the catalogue of what is measured; [`exposition`]: measurements in Prometheus' text format
//! - [`op`]: the operation table, of which HTTP, WebSocket and the command line are faces
//! - [`wire`]: what the gateway and a node agent say to each other

pub mod auth;
pub mod deploy;
pub mod error;
pub mod event;
pub mod exposition;
pub mod id;
pub mod manifest;
pub mod metric;
mod nearest;
pub mod node;
pub mod op;
pub mod quantity;
pub mod secret;
pub mod time;
pub mod wire;
pub mod workload;
pub mod xid;

pub use error::{ApiError, ErrorCode, Reason};
pub use id::{DeploymentId, GpuIndex, NodeName, WorkloadId};
pub use nearest::nearest;
pub use quantity::{Cpu, Size, Span};
pub use time::Timestamp;
