//! Clawbernetes: scheduler.
