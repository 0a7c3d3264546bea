//! The key is in its header and nowhere else.

use llm::{Model, Options, Provider, Url};
use tokio::net::TcpSocket;

use crate::stand_in::{KEY, Reply, StandIn, answer_of, complains, json_reply, key, says, text, with, within};

/// Whether any six bytes in a row of the key are there.
fn told(text: &str) -> bool {
    KEY.as_bytes()
        .windows(6)
        .any(|part| text.as_bytes().windows(6).any(|window| window == part))
}

#[tokio::test]
async fn no_error_tells_the_key() {
    for provider in Provider::ALL {
        let echo = format!("Incorrect API key provided: {KEY}.");
        let part = format!("Incorrect API key provided: {}*****.", &KEY[..8]);
        let mut replies = vec![
            Reply::Stuck,
            Reply::Cut,
            text(200, &echo),
            with(text(307, &echo), "location", &echo),
        ];
        for status in [400, 401, 402, 403, 404, 418, 422, 429, 500, 503, 529] {
            for message in [&echo, &part] {
                replies.push(with(complains(provider, status, message), "retry-after", "3600"));
            }
        }
        let mut stopped = answer_of(provider, "");
        match provider {
            Provider::Anthropic => stopped["stop_reason"] = KEY.into(),
            Provider::OpenAi | Provider::Zai => stopped["choices"][0]["finish_reason"] = KEY.into(),
        }
        replies.push(json_reply(200, &stopped));
        replies.push(says(provider, &format!("CANNOT: {KEY}")));
        for reply in replies {
            let server = StandIn::start([reply]).await;
            let model = server.model_with(within(provider, 1000));
            let error = model.rewrite(&key(), "words", "guide", "context").await.unwrap_err();
            let all = format!("{error} {error:?} {model:?}");
            assert!(!told(&all), "{all}");
        }
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = Url::parse(&format!("http://{}", socket.local_addr().unwrap())).ok();
    let model = Model::new(Options {
        base_url,
        ..Options::of(Provider::Zai)
    })
    .unwrap();
    let error = model.ask(&key(), "s", "p", 9).await.unwrap_err();
    assert!(!told(&format!("{error} {error:?}")));
    let error = model
        .ask(&format!("{KEY}\n{KEY}").into(), "s", "p", 9)
        .await
        .unwrap_err();
    assert!(!told(&format!("{error} {error:?}")));
}

#[tokio::test]
async fn only_one_header_holds_the_key() {
    for provider in Provider::ALL {
        let server = StandIn::start([says(provider, "yes")]).await;
        server.model(provider).ask(&key(), "s", "p", 9).await.unwrap();
        let asked = &server.asked()[0];
        assert!(!told(&asked.uri.to_string()) && !told(&asked.body.to_string()));
        let holders = asked.headers.values().filter(|value| told(value.to_str().unwrap()));
        assert_eq!(holders.count(), 1);
    }
}

/// Without this the tests above would pass on anything.
#[test]
fn the_canary_sings() {
    assert!(told(&format!("x{}y", &KEY[4..10])) && !told("an innocent text"));
}
