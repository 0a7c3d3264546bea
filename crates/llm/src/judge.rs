//! What an answer's status means: read on, try again, or tell. Pure.

use std::time::Duration;

use crate::{LlmError, Provider, extras::Extras};

/// Wait before a server that is busy is asked again, if it doesn't say.
const WAIT: Duration = Duration::from_secs(1);

/// An exchange so far.
#[derive(Debug, Clone)]
pub struct So<'a> {
    /// Whose interface is spoken.
    pub provider: Provider,
    /// The host that was called.
    pub host: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
    /// What the question had.
    pub extras: Extras,
    /// It was busy once.
    pub retried: bool,
    /// What is left of the deadline.
    pub left: Duration,
}

/// A server's answer, but for what the model said.
#[derive(Debug, Clone)]
pub struct Heard {
    /// HTTP's status.
    pub status: u16,
    /// When to ask again, as it says.
    pub retry_after: Option<Duration>,
    /// What it says against the question, as it came.
    pub complaint: String,
    /// The same, fit to be told.
    pub told: Option<String>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is an answer: read it.
    Read,
    /// Ask again after a wait, once.
    Wait(Duration),
    /// Ask again, at once, with less.
    With(Extras),
    /// Tell.
    Tell(LlmError),
}

/// What comes next. A server that is busy is asked once more, if that leaves it half of the time; whatever else is wrong
/// would be wrong again.
pub fn next(so: &So<'_>, heard: Heard) -> Next {
    let host = so.host.to_owned();
    let Heard {
        status,
        retry_after: after,
        complaint,
        told,
    } = heard;
    Next::Tell(match status {
        200..=299 => return Next::Read,
        300..=399 => LlmError::Redirected { host, status },
        400 | 422 => match so.extras.after(so.provider, &complaint) {
            Some(extras) => return Next::With(extras),
            None => LlmError::Rejected { host, status, told },
        },
        401 | 403 => LlmError::KeyRefused {
            provider: so.provider,
            status,
        },
        404 => LlmError::NotFound {
            host,
            model: so.model.to_owned(),
            told,
        },
        429 | 503 | 529 => {
            let wait = after.unwrap_or(WAIT);
            if !so.retried && wait <= so.left / 2 {
                return Next::Wait(wait);
            }
            LlmError::Busy {
                host,
                status,
                after,
                told,
            }
        }
        500.. => LlmError::Failed { host, status, told },
        _ => LlmError::Rejected { host, status, told },
    })
}

/// A `Retry-After` in seconds, which is how all three providers give it.
pub fn retry_after(header: Option<&str>) -> Option<Duration> {
    header?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn so() -> So<'static> {
        So {
            provider: Provider::Anthropic,
            host: "api.example",
            model: "m",
            extras: Extras::first(Provider::Anthropic, "m"),
            retried: false,
            left: Duration::from_secs(30),
        }
    }

    fn heard(status: u16, complaint: &str) -> Heard {
        let told = Some(complaint.to_owned()).filter(|told| !told.is_empty());
        Heard {
            status,
            retry_after: None,
            complaint: complaint.to_owned(),
            told,
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        let told = |status| match next(&so(), heard(status, "no")) {
            Next::Tell(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        for (status, meaning) in [
            (200, "Read"),
            (
                307,
                "api.example answers with a redirect (HTTP 307), which isn't followed; give the address that it leads to",
            ),
            (
                400,
                "api.example doesn't take the question (HTTP 400), saying: no; check the model's name and the account",
            ),
            (
                401,
                "Anthropic refuses the key (HTTP 401); check ANTHROPIC_API_KEY, and what that key may do",
            ),
            (
                402,
                "api.example doesn't take the question (HTTP 402), saying: no; check the model's name and the account",
            ),
            (
                403,
                "Anthropic refuses the key (HTTP 403); check ANTHROPIC_API_KEY, and what that key may do",
            ),
            (
                404,
                "api.example knows no model 'm' (HTTP 404), saying: no; check the model's name and address",
            ),
            (429, "Wait(1s)"),
            (500, "api.example failed (HTTP 500), saying: no; try again later"),
            (529, "Wait(1s)"),
        ] {
            assert_eq!(told(status), meaning);
        }
    }

    #[test]
    fn who_is_busy_is_asked_once_more_if_there_is_time() {
        let busy = |so: &So<'_>, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            next(
                so,
                Heard {
                    retry_after,
                    ..heard(429, "")
                },
            )
        };
        assert_eq!(busy(&so(), 15), Next::Wait(Duration::from_secs(15)));
        let told = |next| match next {
            Next::Tell(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            told(busy(&so(), 16)),
            "api.example is too busy (HTTP 429); try again in 16 s"
        );
        let again = So { retried: true, ..so() };
        assert_eq!(
            told(busy(&again, 1)),
            "api.example is too busy (HTTP 429); try again in 1 s"
        );
        let late = So {
            left: Duration::from_millis(1900),
            ..so()
        };
        assert_eq!(
            told(next(&late, heard(529, "overloaded"))),
            "api.example is too busy (HTTP 529), saying: overloaded; try again later"
        );
    }

    #[test]
    fn extras_that_are_refused_by_name_are_left_out() {
        let first = so();
        let Next::With(extras) = next(&first, heard(400, "`temperature` is deprecated for this model.")) else {
            panic!("it was given up");
        };
        assert_eq!(
            extras,
            Extras {
                temperature: false,
                ..first.extras
            }
        );
        let less = So { extras, ..so() };
        let again = next(&less, heard(400, "`temperature` is deprecated for this model."));
        assert!(matches!(again, Next::Tell(LlmError::Rejected { .. })), "{again:?}");
    }

    #[test]
    fn waits_are_seconds() {
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        for none in [None, Some("soon"), Some("-1"), Some("Wed, 21 Oct 2026 07:28:00 GMT")] {
            assert_eq!(retry_after(none), None);
        }
    }
}
