//! The two formats: Anthropic's Messages, and OpenAI's Chat Completions, which Z.ai speaks too.

mod anthropic;
mod chat;

use serde_json::Value;

use crate::{Provider, extras::Extras};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The model, as its provider calls it.
    pub model: &'a str,
    /// What it is to do.
    pub system: &'a str,
    /// With what.
    pub prompt: &'a str,
    /// Most tokens of the answer alone.
    pub max_tokens: u32,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// All of it; may be empty.
    All(String),
    /// It was cut off at the limit.
    CutOff,
    /// It, or what watches over it, refused.
    Refused,
    /// It stopped for another reason, in the provider's word.
    Stopped(String),
}

/// The body of a question, in JSON.
pub fn question(provider: Provider, question: Question<'_>, extras: Extras) -> Vec<u8> {
    let body = match provider {
        Provider::Anthropic => anthropic::question(question, extras),
        Provider::OpenAi | Provider::Zai => chat::question(provider, question, extras),
    };
    body.to_string().into_bytes()
}

/// Reads an answer.
///
/// # Errors
/// It isn't one: what is wrong, as a verb and what follows.
pub fn answer(provider: Provider, body: &[u8]) -> Result<Said, &'static str> {
    if std::str::from_utf8(body).is_err() {
        return Err("isn't UTF-8");
    }
    let said = match provider {
        Provider::Anthropic => anthropic::answer(body),
        Provider::OpenAi | Provider::Zai => chat::answer(body),
    };
    said.map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => "ends in the middle of its JSON",
        serde_json::error::Category::Data => "is no JSON of that interface",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "isn't JSON",
    })
}

/// What a server says against a question, with the parameter that it names. Empty: nothing that can be read.
pub fn complaint(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let places = ["/error/message", "/error/param", "/error", "/message", "/detail"];
    let texts: Vec<&str> = places
        .iter()
        .filter_map(|place| body.pointer(place)?.as_str())
        .collect();
    match texts.as_slice() {
        // The parameter, where the message doesn't name it.
        [message, param] if !message.contains(param) => format!("{message} ({param})"),
        [message, ..] => (*message).to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(body in prop::collection::vec(any::<u8>(), 0..64), deep in 0..2000_usize) {
            let nested = "[".repeat(deep).into_bytes();
            for provider in Provider::ALL {
                prop_assert!(answer(provider, &body).is_err());
                prop_assert!(answer(provider, &nested).is_err());
            }
            complaint(&body);
            prop_assert_eq!(complaint(&nested), "");
        }
    }

    #[test]
    fn complaints_are_found_where_servers_put_them() {
        for (body, told) in [
            (
                r#"{"type":"error","error":{"type":"x","message":"too long"}}"#,
                "too long",
            ),
            (
                r#"{"error":{"message":"Unsupported value","param":"temperature","code":null}}"#,
                "Unsupported value (temperature)",
            ),
            (r#"{"error":{"code":"1113","message":"no balance"}}"#, "no balance"),
            (r#"{"error":"model not found"}"#, "model not found"),
            (r#"{"detail":[{"loc":["body"]}]}"#, ""),
            ("<html>", ""),
        ] {
            assert_eq!(complaint(body.as_bytes()), told, "{body}");
        }
    }

    #[test]
    fn whatever_isnt_an_answer_is_told_apart() {
        for provider in Provider::ALL {
            for (body, why) in [
                (&b"{\"choices\": [{\"mess"[..], "ends in the middle of its JSON"),
                (b"", "ends in the middle of its JSON"),
                (b"{\"answer\": 42}", "is no JSON of that interface"),
                (b"[]", "is no JSON of that interface"),
                (b"<html>", "isn't JSON"),
                (b"{\"content\": \"\xff\"}", "isn't UTF-8"),
            ] {
                assert_eq!(answer(provider, body), Err(why), "{provider}");
            }
        }
    }
}
