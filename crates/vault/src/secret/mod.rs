//! Secrets: sealed values, their versions, and the keys that open them.
