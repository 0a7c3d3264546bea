//! Clawbernetes: store.
