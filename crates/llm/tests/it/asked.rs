//! What is asked: path, headers, body.

use std::sync::Arc;

use llm::{Model, Options, Provider};
use serde_json::json;
use tokio::task::JoinSet;

use crate::stand_in::{KEY, StandIn, complains, key, says};

#[tokio::test]
async fn each_provider_is_asked_as_it_documents() {
    for provider in Provider::ALL {
        let server = StandIn::start([says(provider, "  Fine,\n\u{1b}[31mso far. ")]).await;
        let answer = server.model(provider).ask(&key(), "Be brief.", "How is it?", 77).await;
        assert_eq!(answer.as_deref(), Ok("Fine,\n[31mso far."), "{provider}");

        let [asked] = server.asked().try_into().expect("asked once");
        let (path, body) = match provider {
            Provider::Anthropic => (
                "/v1/messages",
                json!({
                    "model": "claude-haiku-5-5", "max_tokens": 77, "thinking": {"type": "disabled"}, "system": "Be brief.",
                    "messages": [{"role": "user", "content": "How is it?"}],
                }),
            ),
            Provider::OpenAi => (
                "/v1/chat/completions",
                json!({
                    "model": "gpt-6-luna", "max_completion_tokens": 77, "temperature": 0, "reasoning_effort": "none",
                    "store": false,
                    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is it?"}],
                }),
            ),
            Provider::Zai => (
                "/api/paas/v4/chat/completions",
                json!({
                    "model": "glm-4.7", "max_tokens": 77, "temperature": 0, "thinking": {"type": "disabled"},
                    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is it?"}],
                }),
            ),
        };
        assert_eq!((asked.method.as_str(), asked.uri.to_string().as_str()), ("POST", path));
        assert_eq!(asked.body, body);
        let header = |name| asked.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("content-type"), Some("application/json"));
        assert!(header("user-agent").unwrap().starts_with("clawbernetes/"));
        if provider == Provider::Anthropic {
            assert_eq!(header("x-api-key"), Some(KEY));
            assert_eq!(header("anthropic-version"), Some("2023-06-01"));
            assert_eq!(header("authorization"), None);
        } else {
            assert_eq!(header("authorization"), Some(format!("Bearer {KEY}").as_str()));
            assert_eq!(header("x-api-key"), None);
        }
    }
}

#[tokio::test]
async fn a_named_model_is_asked_at_temperature_zero() {
    for provider in Provider::ALL {
        let server = StandIn::start([says(provider, "yes")]).await;
        let model = " another-model ".to_owned();
        let model = server.model_with(Options {
            model,
            ..Options::of(provider)
        });
        model.ask(&key(), "s", "p", 9).await.unwrap();
        let body = &server.asked()[0].body;
        assert_eq!(
            (&body["model"], &body["temperature"]),
            (&json!("another-model"), &json!(0)),
            "{provider}"
        );
    }
}

/// Old, new and other servers take different extras: what one refuses by name it isn't asked again.
#[tokio::test]
async fn extras_that_a_server_refuses_are_left_out_from_then_on() {
    let provider = Provider::OpenAi;
    let server = StandIn::start([
        complains(
            provider,
            400,
            "Unsupported value: 'temperature' does not support 0 with this model.",
        ),
        complains(
            provider,
            400,
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model.",
        ),
        complains(
            provider,
            422,
            "body: extra fields not permitted: max_completion_tokens, store",
        ),
        says(provider, "one"),
        says(provider, "two"),
    ])
    .await;
    let model = server.model(provider);
    assert_eq!(model.ask(&key(), "s", "p", 100).await.as_deref(), Ok("one"));
    assert_eq!(model.ask(&key(), "s", "p", 100).await.as_deref(), Ok("two"));
    let asked = server.asked();
    assert_eq!(asked.len(), 5, "each refusal costs one question, once");
    let messages = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]);
    // What can't be kept from thinking gets room for it.
    let plain = json!({"model": "gpt-6-luna", "max_tokens": 4196, "messages": messages});
    assert_eq!((&asked[3].body, &asked[4].body), (&plain, &plain));
}

#[tokio::test]
async fn a_key_is_sent_without_the_line_break_that_it_was_kept_with() {
    let server = StandIn::start([says(Provider::Zai, "yes")]).await;
    let key = llm::SecretString::from(format!("{KEY}\n"));
    server.model(Provider::Zai).ask(&key, "s", "p", 9).await.unwrap();
    assert_eq!(
        server.asked()[0].headers["authorization"],
        format!("Bearer {KEY}").as_str()
    );
}

#[tokio::test]
async fn what_cant_be_sent_isnt() {
    let server = StandIn::start([]).await;
    let model: Model = server.model(Provider::Anthropic);
    for bad in ["", " \n", "two\nlines", "bell\u{7}"] {
        let error = model.ask(&bad.into(), "s", "p", 9).await.unwrap_err();
        let told = "the key for Anthropic is empty or has characters that can't be sent; set ANTHROPIC_API_KEY anew";
        assert_eq!(error.to_string(), told);
    }
    let long = "x".repeat(llm::PROMPT_MAX_BYTES);
    let error = model.ask(&key(), "s", &long, 9).await.unwrap_err();
    assert!(matches!(error, llm::LlmError::TooLong { .. }), "{error}");
    let error = model.rewrite(&key(), &long, "g", "c").await.unwrap_err();
    assert!(
        matches!(
            error,
            llm::LlmError::TooLong {
                what: "the request",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn a_model_is_asked_by_many_at_once() {
    let provider = Provider::OpenAi;
    let server = StandIn::start((0..8).map(|_| says(provider, "yes"))).await;
    let model = Arc::new(server.model(provider));
    let mut asking = JoinSet::new();
    for i in 0..8 {
        let model = model.clone();
        asking.spawn(async move { model.ask(&key(), "s", &format!("p{i}"), 9).await });
    }
    assert!(
        asking
            .join_all()
            .await
            .iter()
            .all(|answer| answer.as_deref() == Ok("yes"))
    );
    assert_eq!(server.asked().len(), 8);
}
