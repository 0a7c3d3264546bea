//! One sentence, or none: what a model answered to a request to rewrite.

use crate::{LlmError, text};

/// Most characters of a sentence.
pub const SENTENCE_MAX_CHARS: usize = 2000;

/// How a model says that there is no sentence. No sentence of the grammar begins so.
pub const CANNOT: &str = "CANNOT";

/// Most characters of its reason that are told.
const REASON_MAX_CHARS: usize = 200;

/// The one sentence of an answer. One pair of quotes, or one code fence, around it is taken off, as models put them there
/// unasked; nothing else is guessed at. A reason with a part of the key in it isn't told.
///
/// # Errors
/// There is none, several, or something else; or the model says that it can't.
pub fn one(answer: &str, key: &str) -> Result<String, LlmError> {
    let not = |why| Err(LlmError::NotOneSentence { why });
    let answer = answer.trim();
    if answer.is_empty() {
        return Err(LlmError::Empty);
    }
    if let Some(reason) = cannot(answer) {
        let reason = text::told(reason, REASON_MAX_CHARS, key);
        return Err(LlmError::Cannot { reason });
    }
    let inner = unwrapped(answer).trim();
    if inner.is_empty() {
        return Err(LlmError::Empty);
    }
    if inner.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}', '\u{b}', '\u{c}']) {
        return not("has several lines");
    }
    if inner.contains("```") {
        return not("has a code fence in it");
    }
    if inner.chars().any(text::is_hidden) {
        return not("has characters that can't be seen");
    }
    if inner.chars().count() > SENTENCE_MAX_CHARS {
        return not("is too long");
    }
    if let Some(reason) = cannot(inner) {
        let reason = text::told(reason, REASON_MAX_CHARS, key);
        return Err(LlmError::Cannot { reason });
    }
    Ok(inner.to_owned())
}

/// The reason, if it says that it can't; may be empty.
fn cannot(answer: &str) -> Option<&str> {
    let (word, rest) = answer.split_at_checked(CANNOT.len())?;
    let rest = rest.trim_start();
    (word.eq_ignore_ascii_case(CANNOT) && (rest.is_empty() || rest.starts_with([':', '.', '\n'])))
        .then(|| rest.trim_start_matches([':', '.']).trim())
}

/// Without one fence, or one pair of quotes, around all of it.
fn unwrapped(answer: &str) -> &str {
    if let Some(inner) = answer.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) {
        // The first line names a language, if there is more than one line.
        return match inner.split_once('\n') {
            Some((language, rest)) if language.trim().chars().all(|c| c.is_ascii_alphanumeric()) => rest,
            _ => inner,
        };
    }
    for (open, close) in [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»')] {
        let inner = answer.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        // `"a" to "b"` isn't in one pair.
        if let Some(inner) = inner.filter(|inner| !inner.contains([open, close])) {
            return inner;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(answer: &str) -> Result<String, LlmError> {
        super::one(answer, "sk-canary")
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_one_visible_line(answer in r#"(\PC|[ `"'\n\r\t]|```|CANNOT|\PC*|\u{202e}|\u{2028}|\x1b){0,12}"#) {
            if let Ok(sentence) = one(&answer) {
                prop_assert!(!sentence.is_empty() && sentence.trim() == sentence);
                prop_assert!(sentence.chars().count() <= SENTENCE_MAX_CHARS);
                prop_assert!(!sentence.chars().any(text::is_hidden));
                prop_assert!(answer.contains(&sentence), "nothing is made up");
            }
        }
    }

    #[test]
    fn one_pair_around_it_is_taken_off() {
        for answer in [
            "scale web to 3",
            " scale web to 3\n",
            "\"scale web to 3\"",
            "'scale web to 3'",
            "`scale web to 3`",
            "“scale web to 3”",
            "```scale web to 3```",
            "```\nscale web to 3\n```",
            "```text\r\nscale web to 3\r\n```\n",
        ] {
            assert_eq!(one(answer).as_deref(), Ok("scale web to 3"), "{answer:?}");
        }
        let quoted = r#"deploy web with env A="b" and C="d""#;
        assert_eq!(one(quoted).as_deref(), Ok(quoted));
        let pairs = r#""web" to "api""#;
        assert_eq!(one(pairs).as_deref(), Ok(pairs));
        assert_eq!(one("\"`scale`\"").as_deref(), Ok("`scale`"), "one pair, not two");
    }

    #[test]
    fn what_isnt_one_sentence_is_refused() {
        for answer in [
            "Sure! Here it is:\nscale web to 3",
            "scale web to 3\nscale api to 2",
            "scale web to 3\r\rdelete api",
            "```\nscale web to 3\nscale api to 2\n```",
            "Here: ```scale web to 3``` and ```scale api to 2```",
            "```\nscale web to 3\n```\nHope this helps!",
            "scale web\u{1b}[2K to 3",
            "scale web to\u{2028}3",
            "scale \u{202e}bew to 3",
            "scale w\u{200b}eb to 3",
            "scale web\0",
            &"scale ".repeat(400),
        ] {
            let error = one(answer).unwrap_err();
            assert!(matches!(error, LlmError::NotOneSentence { .. }), "{answer:?}: {error}");
        }
        for answer in ["", " \n ", "\"\"", "``````", "```\n```"] {
            assert_eq!(one(answer), Err(LlmError::Empty), "{answer:?}");
        }
    }

    #[test]
    fn it_may_say_that_it_cant() {
        for (answer, told) in [
            ("CANNOT", None),
            ("Cannot.", None),
            (
                "CANNOT: two services are\nasked for\u{7}",
                Some("two services are asked for"),
            ),
            ("\"CANNOT: no such verb\"", Some("no such verb")),
            ("CANNOT: your key is sk-canary", None),
        ] {
            let reason = told.map(str::to_owned);
            assert_eq!(one(answer), Err(LlmError::Cannot { reason }), "{answer:?}");
        }
        assert!(one("cannot-be-evil: scale").is_ok(), "a name may begin so");
    }
}
