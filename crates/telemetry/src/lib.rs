//! Clawbernetes: telemetry.
