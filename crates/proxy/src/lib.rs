//! Addresses of services: HTTP and TCP, passed on to the replicas that are ready.
//!
//! A [`Proxy`] has routes. A route listens on an address and has groups (a revision each) with weights and endpoints (a
//! replica each). [`Proxy::set`] changes a route in one step while requests go on: from then on nothing new goes to an
//! endpoint that has left, and [`Proxy::drained`] ends when what it still had is done.
//!
//! ```text
//! accept ─▶ client (deadlines) ─▶ http (hyper) ─▶ line: choose and count, under one guard ─▶ upstream ─▶ endpoint
//!                             └─▶ tunnel (TCP, upgraded connections) ──┘
//! ```
//!
//! What is counted is in [`Counts`]; who wants to judge a revision or to scale takes them with [`Proxy::take_counts`].

mod answer;
mod body;
mod choice;
mod client;
mod clock;
mod counts;
mod endpoint;
mod headers;
mod http;
mod latency;
mod line;
mod listen;
mod options;
mod proxy;
mod route;
mod told;
mod tunnel;
mod upstream;

pub use counts::{Counts, Load};
pub use latency::{BUCKETS, bucket_bound, quantile};
pub use listen::BindError;
pub use options::Options;
pub use proxy::Proxy;
pub use route::{Endpoint, Group, Protocol, Route};
pub use told::histogram;
