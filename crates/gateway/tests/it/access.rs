//! Who may do what.

use api::{
    auth::{Role, Scope},
    op::{EXEC_PATH, Effect, NODE_SESSION_PATH, OPERATIONS},
};
use gateway::{Limits, Options};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A token of each role, made the way a person would.
async fn tokens(fixture: &Fixture) -> Vec<(Role, String)> {
    let mut tokens = vec![(Role::Admin, fixture.gateway.admin_token.clone().unwrap())];
    for role in [Role::Viewer, Role::Operator] {
        let made = fixture
            .admin("auth.token.create", &json!({"name": role.name(), "role": role.name()}))
            .await;
        tokens.push((role, made.body["token"].as_str().unwrap().to_owned()));
    }
    let join = fixture.admin("auth.join-token", &json!({"expires": "1h"})).await;
    let join = join.body["token"].as_str().unwrap().to_owned();
    let joined = fixture
        .post("node.join", Some(&join), &json!({"name": "n1", "exact": true}), "")
        .await;
    tokens.push((Role::Node, joined.body["credential"].as_str().unwrap().to_owned()));
    tokens.push((Role::Joiner, join));
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lets_in_exactly_the_roles_of_its_scope() {
    let fixture = Fixture::start().await;
    // Requests that fit no operation: whoever is let in is told so, and nothing changes.
    let nonsense = json!({"no such field": 1});
    for (role, token) in tokens(&fixture).await {
        for op in OPERATIONS {
            let answer = fixture.post(op.name, Some(&token), &nonsense, "").await;
            let refused = answer.code() == "PERMISSION_DENIED";
            assert_eq!(refused, !role.allows(op.scope), "{role} at {}: {answer:?}", op.name);
            assert_ne!(answer.code(), "AUTH_FAILED", "{role} at {}", op.name);
        }
    }
    for op in OPERATIONS {
        for token in [None, Some(""), Some("cbt_x_y"), Some("\u{1}"), Some(&*"x".repeat(4000))] {
            let answer = fixture.post(op.name, token, &nonsense, "").await;
            // Many wrong tokens from one address are slowed down.
            assert!(
                matches!(answer.status, 401 | 429 | 400),
                "{} without a valid token: {answer:?}",
                op.name
            );
        }
    }
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_or_expired_token_opens_nothing() {
    let fixture = Fixture::start().await;
    let made = fixture
        .admin("auth.token.create", &json!({"name": "ci", "role": "viewer"}))
        .await;
    let token = made.body["token"].as_str().unwrap();
    assert_eq!(fixture.post("node.list", Some(token), &json!({}), "").await.status, 200);
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(fixture.admin("auth.token.revoke", &json!({"id": id})).await.status, 200);
    assert_eq!(
        fixture.post("node.list", Some(token), &json!({}), "").await.code(),
        "AUTH_FAILED"
    );

    let made = fixture
        .admin(
            "auth.token.create",
            &json!({"name": "brief", "role": "viewer", "expires": "1ms"}),
        )
        .await;
    let token = made.body["token"].as_str().unwrap();
    let expired =
        async { while fixture.post("node.list", Some(token), &json!({}), "").await.code() != "AUTH_FAILED" {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), expired)
        .await
        .expect("it expires");

    let last = fixture.admin("auth.token.revoke", &json!({"id": "admin"})).await;
    assert_eq!(last.code(), "CONFLICT", "nobody is locked out by mistake");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_admin_token_stays_revoked_until_somebody_asks_for_another() {
    let fixture = Fixture::start().await;
    let first = fixture.gateway.admin_token.clone().unwrap();
    let mine = fixture
        .admin("auth.token.create", &json!({"name": "ada", "role": "admin"}))
        .await;
    let mine = mine.body["token"].as_str().unwrap().to_owned();
    // A lost file isn't made anew either.
    let file = fixture.data.path().join("admin.token");
    std::fs::remove_file(&file).unwrap();
    let fixture = fixture.restart().await;
    assert_eq!((&fixture.gateway.admin_token, file.exists()), (&None, false));
    std::fs::write(&file, &first).unwrap();
    let fixture = fixture.restart().await;
    assert_eq!(fixture.gateway.admin_token.as_ref(), Some(&first));
    let revoked = fixture
        .post("auth.token.revoke", Some(&mine), &json!({"id": "admin"}), "")
        .await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.gateway.admin_token, None);
    let list = json!({});
    assert_eq!(
        fixture.post("auth.token.list", Some(&first), &list, "").await.status,
        401
    );

    let reset = |yes| Options {
        reset_admin_token: yes,
        ..Options::default()
    };
    let fixture = fixture.restart_with(reset(true)).await;
    let second = fixture.gateway.admin_token.clone().unwrap();
    let fixture = fixture.restart_with(reset(true)).await;
    let third = fixture.gateway.admin_token.clone().unwrap();
    for (token, status) in [(&second, 401), (&third, 200), (&mine, 200)] {
        assert_eq!(
            fixture.post("auth.token.list", Some(token), &list, "").await.status,
            status
        );
    }
    let fixture = fixture.restart().await;
    assert_eq!(fixture.gateway.admin_token, Some(third));
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_has_open_ends_with_it() {
    let fixture = Fixture::start().await;
    let made = fixture
        .admin("auth.token.create", &json!({"name": "ci", "role": "viewer"}))
        .await;
    let token = made.body["token"].as_str().unwrap();
    let path = api::op::path("event.watch");
    let watching = fixture.send("GET", &path, Some(token), b"", "");
    let name = json!({"id": "ci"});
    let revoking = fixture.admin("auth.token.revoke", &name);
    // The stream has no end of its own: this ends only because the token does.
    let (stream, revoked) = tokio::join!(watching, revoking);
    assert_eq!(revoked.status, 200);
    assert!(matches!(stream.status, 200 | 401), "{stream:?}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_used_up_and_names_are_not_taken_over() {
    let fixture = Fixture::start().await;
    let join = fixture
        .admin("auth.join-token", &json!({"expires": "1h", "uses": 2}))
        .await;
    let join = join.body["token"].as_str().unwrap();
    let ask = |name: &str, exact: bool| json!({"name": name, "exact": exact});
    let first = fixture.post("node.join", Some(join), &ask("gpu-1", true), "").await;
    assert_eq!(first.body["name"], "gpu-1");
    let clash = fixture.post("node.join", Some(join), &ask("gpu-1", true), "").await;
    assert_eq!(
        (clash.status, clash.code()),
        (409, "ALREADY_EXISTS"),
        "and the token isn't used by it"
    );
    let second = fixture.post("node.join", Some(join), &ask("gpu-1", false), "").await;
    assert!(
        second.body["name"].as_str().unwrap().starts_with("gpu-1-"),
        "{second:?}"
    );
    let third = fixture.post("node.join", Some(join), &ask("gpu-9", true), "").await;
    assert_eq!(third.code(), "AUTH_FAILED");
    fixture.gateway.stop().await;
}

/// The answer to a call may be lost: asked again, the gateway answers the same and takes nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_join_again_is_known() {
    let fixture = Fixture::start().await;
    let join = fixture
        .admin("auth.join-token", &json!({"expires": "1h", "uses": 1}))
        .await;
    let join = join.body["token"].as_str().unwrap();
    let ask = |secret: &str| json!({"name": "gpu-1", "exact": true, "secret": secret});
    for bad in ["", "short", &"X".repeat(64), &"0".repeat(65)] {
        let refused = fixture.post("node.join", Some(join), &ask(bad), "").await;
        assert_eq!(refused.body["error"]["field"], "secret", "{bad}");
    }
    let (mine, others) = ("ab".repeat(32), "cd".repeat(32));
    let (a, b) = (ask(&mine), ask(&mine));
    let first = fixture.post("node.join", Some(join), &a, "");
    let together = fixture.post("node.join", Some(join), &b, "");
    let (first, together) = tokio::join!(first, together);
    let again = fixture.post("node.join", Some(join), &ask(&mine), "").await;
    for answer in [&together, &again] {
        assert_eq!((answer.status, &answer.body), (200, &first.body));
    }
    let credential = first.body["credential"].as_str().unwrap();
    assert_eq!(
        fixture.post("auth.whoami", Some(credential), &json!({}), "").await.body["name"],
        "gpu-1"
    );
    // The token has no use left for anybody else.
    let other = fixture.post("node.join", Some(join), &ask(&others), "").await;
    assert_eq!((other.status, other.code()), (401, "AUTH_FAILED"));
    assert_eq!(
        fixture
            .admin("node.list", &json!({}))
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        1
    );
    fixture.gateway.stop().await;
}

/// What the table says of an operation is what it does.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_taken_where_the_table_says_so() {
    let fixture = Fixture::start().await;
    let nonsense = json!({"no such field": 1});
    for op in OPERATIONS
        .iter()
        .filter(|op| !op.streaming && Role::Admin.allows(op.scope))
    {
        let answer = fixture
            .post(
                op.name,
                fixture.gateway.admin_token.as_deref(),
                &nonsense,
                "idempotency-key: k\r\n",
            )
            .await;
        let refused = answer.body["error"]["field"] == "idempotency-key";
        assert_eq!(refused, op.effect == Effect::Writes, "{}: {answer:?}", op.name);
    }
    let document = fixture.send("GET", "/openapi.json", None, b"", "").await.body;
    for op in OPERATIONS {
        let parameters = &document["paths"][op.path()]["post"]["parameters"];
        assert_eq!(
            parameters[0]["name"] == "Idempotency-Key",
            op.effect == Effect::Creates,
            "{}",
            op.name
        );
    }
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_not_on_disk_but_in_the_admins_file() {
    let fixture = Fixture::start().await;
    let tokens = tokens(&fixture).await;
    let Fixture { gateway, data } = fixture;
    gateway.stop().await;
    let mut files = vec![data.path().to_owned()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        use std::os::unix::fs::MetadataExt;
        assert_eq!(
            std::fs::metadata(&path).unwrap().mode() & 0o077,
            0,
            "{} is open to others",
            path.display()
        );
        if path.ends_with("admin.token") {
            continue;
        }
        seen += 1;
        let bytes = std::fs::read(&path).unwrap();
        for (role, token) in &tokens {
            let secret = token.rsplit('_').next().unwrap().as_bytes();
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the {role}'s secret is in {}", path.display());
        }
    }
    assert!(seen > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_asks_too_often_is_told_to_wait() {
    let limits = Limits {
        calls_per_second: 0.001,
        burst: 3.0,
        ..Limits::default()
    };
    let fixture = Fixture::with(Options {
        limits,
        ..Options::default()
    })
    .await;
    for _ in 0..3 {
        assert_eq!(fixture.admin("gateway.ping", &json!({})).await.status, 200);
    }
    let answer = fixture.admin("gateway.ping", &json!({})).await;
    assert_eq!((answer.status, answer.code()), (429, "QUOTA_EXCEEDED"));
    assert!(
        answer.body["error"]["hint"]
            .as_str()
            .unwrap()
            .starts_with("try again in")
    );
    fixture.gateway.stop().await;
}

/// However many follow: nodes and admins come through, and who has gone has left room.
#[tokio::test(flavor = "multi_thread")]
async fn followers_lock_nobody_out() {
    let limits = Limits {
        connections: 12,
        ..Limits::default()
    };
    let fixture = Fixture::with(Options {
        limits,
        ..Options::default()
    })
    .await;
    let tokens = tokens(&fixture).await;
    let of = |role| tokens.iter().find(|(is, _)| *is == role).unwrap().1.as_str();
    let (watch, viewer) = (api::op::path("event.watch"), of(Role::Viewer));
    let query = format!("{watch}?subject=nothing");
    let mut open = Vec::new();
    let refused = loop {
        let (status, socket) = fixture.websocket(&query, viewer).await;
        if status != 101 {
            break status;
        }
        open.push(socket);
    };
    assert_eq!((open.len(), refused), (6, 429));
    let over_http = fixture.send("GET", &watch, Some(viewer), b"", "").await;
    assert_eq!((over_http.status, over_http.code()), (429, "QUOTA_EXCEEDED"));
    assert_eq!(fixture.websocket(EXEC_PATH, of(Role::Operator)).await.0, 429);
    assert_eq!(fixture.admin("gateway.ping", &json!({})).await.status, 200);
    let (status, session) = fixture.websocket(NODE_SESSION_PATH, of(Role::Node)).await;
    assert_eq!(status, 101);
    drop((session, open));
    let room = async { while fixture.websocket(&query, viewer).await.0 != 101 {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), room)
        .await
        .expect("there is room again");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_harms_nothing() {
    let fixture = Fixture::start().await;
    let token = fixture.gateway.admin_token.clone();
    let token = token.as_deref();
    let big = vec![b'x'; 5 << 20];
    let answer = fixture
        .send("POST", &api::op::path("workload.submit"), token, &big, "")
        .await;
    assert_eq!((answer.status, answer.code()), (400, "INVALID_ARGUMENT"));
    let answer = fixture
        .send("POST", &api::op::path("workload.submit"), token, b"{\xff", "")
        .await;
    assert_eq!((answer.status, answer.code()), (400, "INVALID_ARGUMENT"));
    let answer = fixture.send("GET", "/api/v1/nothing", token, b"", "").await;
    assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"));
    let answer = fixture
        .send("DELETE", &api::op::path("node.list"), token, b"", "")
        .await;
    assert_eq!(answer.code(), "INVALID_ARGUMENT");
    let answer = fixture
        .send("GET", &api::op::path("workload.submit"), token, b"", "")
        .await;
    assert_eq!(answer.code(), "INVALID_ARGUMENT", "GET never changes anything");
    let answer = fixture
        .send("GET", "/api/v1/node/list?available=true&gpuType=A100", token, b"", "")
        .await;
    assert_eq!((answer.status, answer.body), (200, json!([])));
    let answer = fixture
        .send("GET", "/api/v1/node/list?availible=true", token, b"", "")
        .await;
    assert_eq!(answer.code(), "INVALID_ARGUMENT");
    let answer = fixture.send("GET", "/openapi.json", None, b"", "").await;
    assert_eq!(answer.status, 200);
    assert!(!matches!(answer.body["paths"], Value::Null));
    assert_eq!(fixture.send("GET", "/readyz", None, b"", "").await.status, 200);
    fixture.gateway.stop().await;
}

#[test]
fn nobody_but_a_node_has_a_session() {
    for role in [Role::Viewer, Role::Operator, Role::Admin, Role::Joiner] {
        assert!(!role.allows(Scope::NodeSession));
    }
}
