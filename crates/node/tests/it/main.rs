//! Tests of the node agent's parts against the real thing.

mod native;
