//! The gateway: keeps the fleet's state, decides what runs where, and serves every client.
//!
//! Decisions are pure ([`lifecycle`], [`decide`], the scheduler): from the [`view`] of the fleet to a [`draft`] of one
//! transaction. The [`hub`] commits drafts to the store and feeds the store's changes back into the view; controllers
//! look at the view and take one step at a time. [`serve`] holds the faces: HTTP, WebSocket and node sessions.

pub mod alerting;
pub mod audit;
pub mod auth;
pub mod control;
pub mod decide;
pub mod deploy;
pub mod diagnose;
pub mod draft;
pub mod gateway;
pub mod happenings;
pub mod hub;
pub mod keys;
pub mod lifecycle;
pub mod live;
pub mod metrics;
pub mod oidc;
pub mod outward;
pub mod private;
pub mod records;
pub mod remote_write;
pub mod secrets;
pub mod serve;
pub mod trust;
pub mod upkeep;
pub mod view;

pub use alerting::AlertsFile;
pub use gateway::{Gateway, Options, StartError};
pub use serve::Limits;
