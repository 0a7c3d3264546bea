//! Anthropic's Messages, of version 2023-06-01 (the only one).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Question, Said};
use crate::extras::Extras;

/// The body of a question.
pub fn question(question: Question<'_>, extras: Extras) -> Value {
    let mut body = json!({
        "model": question.model,
        "max_tokens": extras.tokens(question.max_tokens),
        "system": question.system,
        "messages": [{"role": "user", "content": question.prompt}],
    });
    if extras.temperature {
        body["temperature"] = json!(0);
    }
    if extras.no_thinking {
        body["thinking"] = json!({"type": "disabled"});
    }
    body
}

#[derive(Deserialize)]
struct Message {
    content: Vec<Block>,
    stop_reason: Option<String>,
}

/// Only `text` is the answer; thinking comes in blocks of its own.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    #[serde(other)]
    Other,
}

/// Reads an answer.
pub fn answer(body: &[u8]) -> serde_json::Result<Said> {
    let message: Message = serde_json::from_slice(body)?;
    let text = message.content.into_iter().map(|block| match block {
        Block::Text { text } => text,
        Block::Other => String::new(),
    });
    Ok(match message.stop_reason.as_deref() {
        Some("end_turn" | "stop_sequence") | None => Said::All(text.collect()),
        Some("max_tokens" | "model_context_window_exceeded") => Said::CutOff,
        Some("refusal") => Said::Refused,
        Some(other) => Said::Stopped(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_isnt_the_answer() {
        let body = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": null,
            "content": [
                {"type": "thinking", "thinking": "scale it?", "signature": "x"},
                {"type": "text", "text": "scale web "},
                {"type": "text", "text": "to 3"},
            ],
            "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2},
        });
        assert_eq!(
            answer(body.to_string().as_bytes()).unwrap(),
            Said::All("scale web to 3".to_owned())
        );
    }

    #[test]
    fn reasons_to_stop() {
        for (reason, said) in [
            (json!("max_tokens"), Said::CutOff),
            (json!("model_context_window_exceeded"), Said::CutOff),
            (json!("refusal"), Said::Refused),
            (json!("tool_use"), Said::Stopped("tool_use".to_owned())),
            (json!("stop_sequence"), Said::All(String::new())),
            (json!(null), Said::All(String::new())),
        ] {
            let body = json!({"content": [], "stop_reason": reason});
            assert_eq!(answer(body.to_string().as_bytes()).unwrap(), said);
        }
    }
}
