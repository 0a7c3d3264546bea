//! Clawbernetes: gateway.
