//! Clawbernetes: language models, for those who configured one.
//!
//! The model proposes, the grammar's types dispose. [`Model::rewrite`] sends words that the deployment grammar can't
//! read, with a guide to the grammar, and gets one sentence or a reason why there is none. Whoever asked parses the
//! sentence: nothing else that a model says has any effect. [`Model::ask`] is the question underneath.
//!
//! ```text
//! words, guide, context ─▶ prompt ─▶ wire ─▶ POST (one deadline, bounded, no redirect) ─▶ judge ─▶ wire ─▶ sentence
//!                                                  ▲                                        │
//!                                                  └──── once more: busy, or an extra refused ┘
//! ```
//!
//! The key of the provider is given with each question, goes into one header, and is in no error, URL or `Debug`. This
//! crate writes no log and keeps nothing but which extras the model turned out not to take.

mod error;
mod extras;
mod judge;
mod model;
mod options;
mod prompt;
mod provider;
mod sentence;
mod text;
mod wire;

pub use error::{LlmError, OptionsError};
pub use model::{ANSWER_MAX_BYTES, Model, PROMPT_MAX_BYTES};
pub use options::Options;
pub use prompt::WORDS_MAX_BYTES;
pub use provider::{Provider, UnknownProvider};
pub use reqwest::Url;
pub use secrecy::SecretString;
pub use sentence::SENTENCE_MAX_CHARS;
