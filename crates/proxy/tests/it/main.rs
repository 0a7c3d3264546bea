//! The proxy between real clients and real services, on sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bodies;
mod counts;
mod deadlines;
mod failures;
mod grpc;
mod heads;
mod share;
mod support;
mod switch;
mod tcp;
mod upgrade;
