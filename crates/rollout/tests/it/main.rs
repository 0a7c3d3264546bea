//! The crate from outside.

mod drive;
