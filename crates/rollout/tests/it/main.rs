//! Sentences, as a caller sees them.

mod corpus;
