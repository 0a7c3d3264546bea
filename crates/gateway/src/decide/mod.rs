//! Decisions: from the view of the fleet to what should happen next. Synchronous, without clocks, sockets or files.

pub mod assign;
pub mod facts;
pub mod nodes;
pub mod observed;
pub mod plan;
pub mod submit;
pub mod sweep;
pub mod update;
