//! Servers that are slow, busy, broken, or something else altogether.

use std::time::Duration;

use llm::{ANSWER_MAX_BYTES, LlmError, Model, Options, Provider, Url};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::stand_in::{Reply, StandIn, answer_of, complains, json_reply, key, says, text, with, within};

async fn error_of(provider: Provider, reply: Reply) -> LlmError {
    let server = StandIn::start([reply]).await;
    let error = server.model(provider).ask(&key(), "s", "p", 9).await.unwrap_err();
    assert_eq!(server.asked().len(), 1, "{error}");
    error
}

#[tokio::test]
async fn the_deadline_is_for_all_of_it() {
    for provider in Provider::ALL {
        for reply in [Reply::Silence, Reply::Stuck] {
            let server = StandIn::start([reply]).await;
            let model = server.model_with(within(provider, 300));
            let error = model.ask(&key(), "s", "p", 9).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "no answer within 300ms; try again, or choose a faster model"
            );
        }
    }
    // The second attempt has what the first has left.
    let provider = Provider::Anthropic;
    let server = StandIn::start([
        with(complains(provider, 529, "Overloaded"), "retry-after", "0"),
        Reply::Silence,
    ])
    .await;
    let error = server
        .model_with(within(provider, 2000))
        .ask(&key(), "s", "p", 9)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        LlmError::Deadline {
            deadline: Duration::from_secs(2)
        }
    );
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn nobody_there() {
    // Bound and never listening: refused, and nobody else gets the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = Url::parse(&format!("http://{}", socket.local_addr().unwrap())).ok();
    let model = Model::new(Options {
        base_url,
        ..Options::of(Provider::OpenAi)
    })
    .unwrap();
    let error = model.ask(&key(), "s", "p", 9).await.unwrap_err();
    assert!(matches!(error, LlmError::Unreachable { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.starts_with("no connection to 127.0.0.1: ") && told.contains("refused"),
        "{told}"
    );
}

#[tokio::test]
async fn a_wrong_key_names_its_variable() {
    for (provider, variable) in [
        (Provider::Anthropic, "ANTHROPIC_API_KEY"),
        (Provider::OpenAi, "OPENAI_API_KEY"),
        (Provider::Zai, "ZAI_API_KEY"),
    ] {
        for status in [401, 403] {
            let error = error_of(provider, complains(provider, status, "no")).await;
            assert_eq!(error, LlmError::KeyRefused { provider, status });
            assert!(error.to_string().contains(variable), "{error}");
        }
    }
}

#[tokio::test]
async fn who_is_busy_is_asked_once_more() {
    for provider in Provider::ALL {
        for status in [429, 503, 529] {
            let busy = || with(complains(provider, status, "slow down"), "retry-after", "0");
            let server = StandIn::start([busy(), says(provider, "yes")]).await;
            assert_eq!(
                server.model(provider).ask(&key(), "s", "p", 9).await.as_deref(),
                Ok("yes")
            );

            let server = StandIn::start([busy(), busy(), says(provider, "too late")]).await;
            let error = server.model(provider).ask(&key(), "s", "p", 9).await.unwrap_err();
            let told = format!("127.0.0.1 is too busy (HTTP {status}), saying: slow down; try again in 1 s");
            assert_eq!(error.to_string(), told);
            assert_eq!(server.asked().len(), 2, "politely");
        }
        // Longer than anybody waits: told at once.
        let reply = with(
            complains(provider, 429, "quota\u{1b}[2J used\nup"),
            "retry-after",
            "3600",
        );
        let error = error_of(provider, reply).await;
        let told = "127.0.0.1 is too busy (HTTP 429), saying: quota [2J used up; try again in 3600 s";
        assert_eq!(error.to_string(), told);
    }
}

#[tokio::test]
async fn other_statuses_are_told_with_what_the_server_says() {
    for provider in Provider::ALL {
        let error = error_of(provider, complains(provider, 500, "internal")).await;
        assert!(matches!(error, LlmError::Failed { status: 500, .. }), "{error:?}");
        let error = error_of(provider, text(502, "<html>bad gateway</html>")).await;
        assert_eq!(error.to_string(), "127.0.0.1 failed (HTTP 502); try again later");
        let error = error_of(provider, complains(provider, 404, "model: gpt-0")).await;
        assert!(matches!(error, LlmError::NotFound { .. }), "{error:?}");
        let error = error_of(provider, complains(provider, 400, "Your credit balance is too low")).await;
        let told = "127.0.0.1 doesn't take the question (HTTP 400), saying: Your credit balance is too low; \
                    check the model's name and the account";
        assert_eq!(error.to_string(), told);
    }
}

#[tokio::test]
async fn redirects_arent_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = StandIn::start([says(Provider::Anthropic, "yes")]).await;
        let reply = with(text(status, ""), "location", elsewhere.url.as_str());
        let error = error_of(Provider::Anthropic, reply).await;
        assert!(matches!(error, LlmError::Redirected { .. }), "{error:?}");
        assert_eq!(elsewhere.asked().len(), 0, "the key went elsewhere");
    }
}

#[tokio::test]
async fn what_isnt_an_answer_isnt_taken_for_one() {
    for provider in Provider::ALL {
        let whole = answer_of(provider, "yes").to_string().into_bytes();
        let as_type = |content_type: &str, body: &[u8]| {
            Reply::Http(200, vec![("content-type", content_type.to_owned())], body.to_vec())
        };
        let mut broken = whole.clone();
        let at = whole.windows(3).position(|window| window == b"yes").unwrap();
        broken[at] = 0xff;
        for (reply, why) in [
            (
                as_type("application/json", &whole[..whole.len() / 2]),
                "ends in the middle of its JSON",
            ),
            (as_type("application/json", b""), "ends in the middle of its JSON"),
            (as_type("application/json", b"<html>Sign in</html>"), "isn't JSON"),
            (as_type("application/json", &broken), "isn't UTF-8"),
            (
                as_type("application/json", b"{\"answer\":42}"),
                "is no JSON of that interface",
            ),
            (as_type("text/html", &whole), "isn't said to be JSON"),
            (Reply::Http(200, vec![], whole.clone()), "isn't said to be JSON"),
        ] {
            let error = error_of(provider, reply).await;
            assert!(
                matches!(error, LlmError::Unreadable { why: is, .. } if is == why),
                "{error:?}, not {why}"
            );
        }
        let server = StandIn::start([as_type("Application/JSON; charset=utf-8", &whole)]).await;
        assert_eq!(
            server.model(provider).ask(&key(), "s", "p", 9).await.as_deref(),
            Ok("yes")
        );
        let error = error_of(provider, Reply::Cut).await;
        assert!(matches!(error, LlmError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn answers_are_read_up_to_a_bound() {
    for provider in Provider::ALL {
        let empty = answer_of(provider, "").to_string().len();
        let most = "x".repeat(ANSWER_MAX_BYTES - empty);
        let server = StandIn::start([says(provider, &most), says(provider, &format!("{most}x"))]).await;
        let model = server.model(provider);
        assert_eq!(model.ask(&key(), "s", "p", 9).await.as_deref(), Ok(most.as_str()));
        let error = model.ask(&key(), "s", "p", 9).await.unwrap_err();
        assert!(
            matches!(
                error,
                LlmError::TooLarge {
                    max_bytes: ANSWER_MAX_BYTES,
                    ..
                }
            ),
            "{error:?}"
        );
        // A huge complaint is still known by its status.
        let error = error_of(provider, text(500, &"x".repeat(1 << 20))).await;
        assert!(
            matches!(
                error,
                LlmError::Failed {
                    status: 500,
                    told: None,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_model_that_didnt_finish_said_nothing() {
    let stop = |provider, reason: &str| {
        let mut body = answer_of(provider, "scale web to");
        match provider {
            Provider::Anthropic => body["stop_reason"] = json!(reason),
            Provider::OpenAi | Provider::Zai => body["choices"][0]["finish_reason"] = json!(reason),
        }
        json_reply(200, &body)
    };
    let cut = LlmError::CutOff { max_tokens: 9 };
    let stopped = |reason: &str| LlmError::Stopped {
        reason: reason.to_owned(),
    };
    for (provider, reason, error) in [
        (Provider::Anthropic, "max_tokens", cut.clone()),
        (Provider::Anthropic, "refusal", LlmError::Refused),
        (Provider::Anthropic, "tool_use", stopped("tool_use")),
        (Provider::OpenAi, "length", cut.clone()),
        (Provider::OpenAi, "content_filter", LlmError::Refused),
        (Provider::OpenAi, "tool_calls", stopped("tool_calls")),
        (Provider::Zai, "length", cut),
        (Provider::Zai, "sensitive", LlmError::Refused),
        (Provider::Zai, "network\u{1b}_error", stopped("network _error")),
    ] {
        assert_eq!(error_of(provider, stop(provider, reason)).await, error, "{reason}");
    }
    for body in [
        json!({"choices": []}),
        json!({"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}),
    ] {
        assert_eq!(
            error_of(Provider::OpenAi, json_reply(200, &body)).await,
            LlmError::Empty
        );
    }
    let body = json!({"content": [], "stop_reason": "end_turn"});
    assert_eq!(
        error_of(Provider::Anthropic, json_reply(200, &body)).await,
        LlmError::Empty
    );
}
