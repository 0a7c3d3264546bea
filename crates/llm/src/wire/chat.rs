//! OpenAI's Chat Completions, and what Z.ai has of its own in them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Question, Said};
use crate::{Provider, extras::Extras};

/// The body of a question.
pub fn question(provider: Provider, question: Question<'_>, extras: Extras) -> Value {
    let limit = if extras.new_limit {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    let mut body = json!({
        "model": question.model,
        limit: extras.tokens(question.max_tokens),
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.prompt},
        ],
    });
    if extras.temperature {
        body["temperature"] = json!(0);
    }
    if extras.no_thinking {
        match provider {
            Provider::Zai => body["thinking"] = json!({"type": "disabled"}),
            Provider::OpenAi | Provider::Anthropic => body["reasoning_effort"] = json!("none"),
        }
    }
    if extras.no_storing {
        body["store"] = json!(false);
    }
    body
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

/// What a model thought (`reasoning_content`) isn't read.
#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

/// Reads an answer: the first choice, since one was asked for.
pub fn answer(body: &[u8]) -> serde_json::Result<Said> {
    let completion: Completion = serde_json::from_slice(body)?;
    let Some(choice) = completion.choices.into_iter().next() else {
        return Ok(Said::All(String::new()));
    };
    Ok(match choice.finish_reason.as_deref() {
        Some("length" | "model_context_window_exceeded") => Said::CutOff,
        // "sensitive" is Z.ai's.
        Some("content_filter" | "sensitive") => Said::Refused,
        Some("stop") | None
            if choice
                .message
                .refusal
                .as_ref()
                .is_some_and(|refusal| !refusal.is_empty()) =>
        {
            Said::Refused
        }
        Some("stop") | None => Said::All(choice.message.content.unwrap_or_default()),
        Some(other) => Said::Stopped(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(choices: &Value) -> Said {
        answer(json!({"id": "x", "choices": choices}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn reasons_to_stop() {
        for (reason, said) in [
            (json!("stop"), Said::All("yes".to_owned())),
            (json!(null), Said::All("yes".to_owned())),
            (json!("length"), Said::CutOff),
            (json!("content_filter"), Said::Refused),
            (json!("sensitive"), Said::Refused),
            (json!("network_error"), Said::Stopped("network_error".to_owned())),
            (json!("tool_calls"), Said::Stopped("tool_calls".to_owned())),
        ] {
            let choices = json!([{"index": 0, "message": {"content": "yes"}, "finish_reason": reason}]);
            assert_eq!(read(&choices), said);
        }
    }

    #[test]
    fn nothing_and_refusals_are_told_apart() {
        let refusal = json!([{"message": {"content": null, "refusal": "I can't"}, "finish_reason": "stop"}]);
        assert_eq!(read(&refusal), Said::Refused);
        let nothing = json!([{"message": {"content": null, "reasoning_content": "hm"}, "finish_reason": "stop"}]);
        assert_eq!(read(&nothing), Said::All(String::new()));
        assert_eq!(read(&json!([])), Said::All(String::new()));
    }
}
