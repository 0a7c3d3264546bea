//! Clawbernetes: api.
