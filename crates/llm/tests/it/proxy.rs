//! Proxies of the environment, each tried in a process of its own: the environment is the process's.

use std::env;
use std::process::Stdio;

use llm::{Model, Options, Provider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::stand_in::{StandIn, key, says};

/// The rest of this file's tests start it, as a process.
#[tokio::test]
#[ignore = "a part of the others"]
async fn part_that_asks_by_proxy() {
    let model = Model::new(Options::of(Provider::Anthropic)).unwrap();
    let error = model.ask(&key(), "s", "p", 9).await.unwrap_err();
    assert!(matches!(error, llm::LlmError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "a part of the others"]
async fn part_that_asks_this_machine() {
    let server = StandIn::start([says(Provider::OpenAi, "yes")]).await;
    let answer = server.model(Provider::OpenAi).ask(&key(), "s", "p", 9).await;
    assert_eq!(answer.as_deref(), Ok("yes"));
}

/// Runs a part with all traffic sent to a proxy; whether it passed.
async fn part(name: &str, proxy: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    for variable in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env(variable, proxy);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    command.status().await.unwrap().success()
}

#[tokio::test]
async fn providers_are_reached_by_the_proxy_which_never_sees_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        connection
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    assert!(part("proxy::part_that_asks_by_proxy", &proxy).await);
    let head = seen.await.unwrap();
    assert!(head.starts_with("CONNECT api.anthropic.com:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("canary"), "{head}");
}

#[tokio::test]
async fn what_goes_to_this_machine_goes_by_no_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    tokio::select! {
        passed = part("proxy::part_that_asks_this_machine", &proxy) => assert!(passed),
        _ = listener.accept() => panic!("the proxy was called"),
    }
}
