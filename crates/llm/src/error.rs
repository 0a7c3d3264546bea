//! Why there is no answer, and what to do about it.

use std::time::Duration;

use crate::Provider;

/// A model can't be asked as it was configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The address can't be used; why. It isn't quoted: it may hold a secret.
    #[error("the language model's address can't be used: {0}")]
    Address(&'static str),
    /// The model's name can't be one.
    #[error("a language model's name has 1 to {max} characters and is on one line")]
    ModelName {
        /// Most characters of a name.
        max: usize,
    },
    /// The deadline is zero.
    #[error("a language model needs more than 0 s for an answer")]
    NoTime,
    /// There can be no TLS on this machine; why.
    #[error("there can be no TLS: {0}")]
    Tls(String),
}

/// There is no answer, or none that can be used.
///
/// Reads after "failed to ask the language model". `told` is what the provider said of it: one line of at most 200
/// visible characters, `None` where it said nothing, or something that looks like a part of the key. Nothing here holds
/// the key, the prompt or the answer but for [`LlmError::Cannot`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The key is empty, or no header can hold it. Nothing was sent.
    #[error(
        "the key for {} is empty or has characters that can't be sent; set {} anew",
        .provider.name(),
        .provider.key_env()
    )]
    Key {
        /// Whose key.
        provider: Provider,
    },
    /// What is to be asked is too long. Nothing was sent.
    #[error("{what} has {bytes} bytes, and {max_bytes} is the most; say it shorter")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// Most bytes.
        max_bytes: usize,
    },
    /// There is no connection.
    #[error("no connection to {host}: {cause}; check the network, HTTPS_PROXY and the model's address")]
    Unreachable {
        /// The host that was called.
        host: String,
        /// Why.
        cause: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection to {host} broke before the answer was whole: {cause}; try again")]
    Broken {
        /// The host that was called.
        host: String,
        /// Why.
        cause: String,
    },
    /// The whole exchange took too long.
    #[error("no answer within {deadline:?}; try again, or choose a faster model")]
    Deadline {
        /// How long was waited.
        deadline: Duration,
    },
    /// The key isn't taken (401), or mustn't do this (403). What the provider says of it is never told: it may quote the key.
    #[error(
        "{} refuses the key (HTTP {status}); check {}, and what that key may do",
        .provider.name(),
        .provider.key_env()
    )]
    KeyRefused {
        /// Whose key.
        provider: Provider,
        /// 401 or 403.
        status: u16,
    },
    /// There is no such model, or nothing at that address (404).
    #[error("{host} knows no model '{model}' (HTTP 404){}; check the model's name and address", said(.told.as_deref()))]
    NotFound {
        /// The host that was called.
        host: String,
        /// The model that was asked for.
        model: String,
        /// What was said of it.
        told: Option<String>,
    },
    /// Too many questions (429), or too much to do (503, 529), and still so when asked again.
    #[error("{host} is too busy (HTTP {status}){}; try again {}", said(.told.as_deref()), later(*.after))]
    Busy {
        /// The host that was called.
        host: String,
        /// 429, 503 or 529.
        status: u16,
        /// After how long to try again, as the host says. `None`: it doesn't.
        after: Option<Duration>,
        /// What was said of it; often that an account is empty.
        told: Option<String>,
    },
    /// The question itself isn't taken (another 4xx).
    #[error("{host} doesn't take the question (HTTP {status}){}; check the model's name and the account", said(.told.as_deref()))]
    Rejected {
        /// The host that was called.
        host: String,
        /// HTTP's status.
        status: u16,
        /// What was said of it.
        told: Option<String>,
    },
    /// Something is wrong over there (5xx).
    #[error("{host} failed (HTTP {status}){}; try again later", said(.told.as_deref()))]
    Failed {
        /// The host that was called.
        host: String,
        /// HTTP's status.
        status: u16,
        /// What was said of it.
        told: Option<String>,
    },
    /// A redirect, which isn't followed: the key would go elsewhere.
    #[error("{host} answers with a redirect (HTTP {status}), which isn't followed; give the address that it leads to")]
    Redirected {
        /// The host that was called.
        host: String,
        /// HTTP's status.
        status: u16,
    },
    /// The answer is too long to be one. The rest wasn't read.
    #[error("{host} answers more than {max_bytes} bytes; check the model's address")]
    TooLarge {
        /// The host that was called.
        host: String,
        /// Most bytes that are read.
        max_bytes: usize,
    },
    /// The answer isn't what this provider's interface promises.
    #[error("what {host} answers {why}; check the model's address and that it speaks as {} does", .provider.name())]
    Unreadable {
        /// The host that was called.
        host: String,
        /// Whose interface was expected.
        provider: Provider,
        /// What is wrong with it, as a verb and what follows.
        why: &'static str,
    },
    /// The model said nothing.
    #[error("the model answered nothing; say it in other words, or choose another model")]
    Empty,
    /// The answer didn't end.
    #[error(
        "the answer was cut off after {max_tokens} tokens; say it in simpler words, or choose a model that thinks less"
    )]
    CutOff {
        /// Most tokens that were asked for, with those for thinking.
        max_tokens: u32,
    },
    /// The model, or what watches over it, doesn't want to.
    #[error("the model refused to answer; say it in other words")]
    Refused,
    /// The model stopped for a reason that makes no answer.
    #[error("the model stopped because of '{reason}'; try again, or choose another model")]
    Stopped {
        /// The provider's word for it: at most 40 visible characters; `unknown` where it has none that can be told.
        reason: String,
    },
    /// The model says that the grammar has no sentence for it.
    #[error("the model found no sentence for it{}; say it in other words", said(.reason.as_deref()))]
    Cannot {
        /// The model's own words: one line of at most 200 visible characters. `None`: it gave none.
        reason: Option<String>,
    },
    /// The model said something, but not one sentence.
    #[error("what the model answered {why}, and isn't one sentence; say it in simpler words, or choose another model")]
    NotOneSentence {
        /// What is wrong with it, as a verb and what follows.
        why: &'static str,
    },
}

fn said(told: Option<&str>) -> String {
    told.map_or_else(String::new, |told| format!(", saying: {told}"))
}

fn later(after: Option<Duration>) -> String {
    after.map_or_else(
        || "later".to_owned(),
        |after| format!("in {} s", after.as_secs().max(1)),
    )
}
