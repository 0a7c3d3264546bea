//! Clawbernetes: node.
