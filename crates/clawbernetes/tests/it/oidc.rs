//! Logging in at an identity provider.

use api::Span;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use gateway::{Limits, Options, oidc};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait_for},
    provider::{CLIENT, Key, Provider},
    pty::Pty,
    world::{Done, Fleet, Home},
};

fn believing(provider: &Provider, roles: &[&str]) -> oidc::Options {
    oidc::Options {
        issuer: provider.issuer(),
        client_id: CLIENT.to_owned(),
        roles: roles.iter().map(|rule| rule.parse().unwrap()).collect(),
        name_claim: oidc::NameClaim::Email,
        session: Span::secs(12 * 3600),
        keys_settled: oidc::Options::KEYS_SETTLED,
    }
}

/// A gateway that believes this provider, and a home of somebody who has no token.
fn fleet(oidc: oidc::Options) -> (Fleet, Home) {
    let limits = Limits {
        failure_burst: 1000.0,
        ..Limits::default()
    };
    let fleet = Fleet::start_with(Options {
        oidc: Some(oidc),
        limits,
        ..Options::default()
    });
    let home = Home::at(fleet.address());
    (fleet, home)
}

fn login(home: &Home) -> Done {
    home.run("auth login --oidc")
}

#[test]
fn a_person_logs_in_by_a_code() {
    let key = Key::rsa("k1");
    let provider = Provider::start(&key);
    let (mut fleet, home) = fleet(believing(
        &provider,
        &["groups=gpu-admins:admin", "groups=gpu-users:operator"],
    ));
    let refused = |error: &str| (400, json!({ "error": error }));
    let claims = provider.claims(json!({}));
    provider.state().answers = [
        refused("authorization_pending"),
        refused("slow_down"),
        (200, json!({"id_token": key.sign(&claims)})),
    ]
    .into();
    let done = login(&home);
    done.ok();
    for told in [
        "/activate\n",
        "WDJB-MJHT",
        "/activate?user_code=",
        "as ada-lab.example (operator)",
    ] {
        assert!(done.err.contains(told), "{told}: {done:?}");
    }
    assert_eq!(provider.count("/token"), 3);
    let asked = provider.state().asked.clone();
    let body = |path: &str| asked.iter().find(|(asked, _)| asked == path).unwrap().1.clone();
    assert_eq!(body("/device"), "client_id=gpu-fleet&scope=openid+profile+email+groups");
    assert!(body("/token").contains("device_code=d-1") && body("/token").contains("client_id=gpu-fleet"));

    let who = home.run("auth whoami --json").json();
    assert_eq!(
        (&who["name"], &who["role"]),
        (&json!("ada-lab.example"), &json!("operator"))
    );
    let issued = claims["iat"].as_i64().unwrap();
    let ends: api::Timestamp = who["expiresAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        ends.as_second(),
        issued + 12 * 3600,
        "a session counts from the ID token's making"
    );
    home.run("auth token list").failed(4, "PERMISSION_DENIED");

    let admin = fleet.home();
    let tokens = admin.run("auth token list --json").json();
    let made = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "ada-lab.example");
    assert_eq!(made.unwrap()["createdBy"], format!("oidc:{}", provider.issuer()));
    let noted = admin.run("audit list --action auth.oidc --json").json();
    assert_eq!(
        (
            &noted[0]["actor"],
            &noted[0]["target"],
            &noted[0]["token"],
            &noted[0]["allowed"]
        ),
        (
            &json!("user:ada-lab.example"),
            &json!("subject/u-7"),
            &who["tokenId"],
            &json!(true)
        )
    );

    // What has been over for a day is forgotten.
    fleet.stop();
    fleet.change_record(&format!("/token/{}", who["tokenId"].as_str().unwrap()), |record| {
        let mut record: Value = serde_json::from_slice(&record).unwrap();
        let ended = api::time::before(api::Timestamp::now(), Span::secs(2 * 86_400));
        record["expiresAt"] = json!(ended);
        serde_json::to_vec(&record).unwrap()
    });
    fleet.start_again();
    wait_for("the token to be forgotten", || {
        let tokens = admin.run("auth token list --json").json();
        (tokens.as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn what_the_provider_did_not_say_of_this_fleet_now_is_refused() {
    let (key, other) = (Key::ec("k1"), Key::ec("k1"));
    let provider = Provider::start(&key);
    let (fleet, home) = fleet(believing(&provider, &["*:viewer"]));
    let now = api::Timestamp::now().as_second();
    let with = |others: Value| key.sign(&provider.claims(others));
    let good = with(json!({}));
    let unsigned = |header: Value| {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&header), part(&provider.claims(json!({}))))
    };
    // The public key is known to everybody: as a secret it would let everybody sign.
    let public = jsonwebtoken::EncodingKey::from_secret(provider.state().keys[0].to_string().as_bytes());
    let mut hmac = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    hmac.kid = Some("k1".to_owned());
    let parts: Vec<&str> = good.split('.').collect();
    let root = BASE64_URL_SAFE_NO_PAD.encode(provider.claims(json!({"sub": "root"})).to_string());
    for (id_token, why) in [
        (with(json!({"iss": "https://other.example"})), "another issuer"),
        (with(json!({"iss": [provider.issuer()]})), "another issuer"),
        (with(json!({"iss": null})), "'iss'"),
        (with(json!({"aud": "other"})), "another client"),
        (
            with(json!({"aud": ["other", CLIENT], "azp": "other"})),
            "another client",
        ),
        (with(json!({"aud": ["other", CLIENT]})), "'azp'"),
        (with(json!({"aud": null})), "'aud'"),
        (with(json!({"iat": now - 600, "exp": now - 120})), "has expired"),
        (with(json!({"exp": null})), "'exp'"),
        (with(json!({"exp": "never"})), "'exp'"),
        (with(json!({"iat": now - 13 * 3600})), "older than a login lasts"),
        (with(json!({"nbf": now + 3600})), "isn't valid yet"),
        (with(json!({"iat": now + 3600, "exp": now + 7200})), "isn't valid yet"),
        (with(json!({"iat": null})), "'iat'"),
        (with(json!({"sub": null})), "'sub'"),
        (
            unsigned(json!({"alg": "none", "kid": "k1"})) + ".",
            "'none', which isn't accepted",
        ),
        (
            unsigned(json!({"alg": "ES256", "kid": "k1"})) + ".",
            "signature is wrong",
        ),
        (unsigned(json!({"alg": "ES256", "kid": "k1"})), "isn't a signed token"),
        (
            jsonwebtoken::encode(&hmac, &provider.claims(json!({})), &public).unwrap(),
            "'HS256', which isn't accepted",
        ),
        (Key::ec("k9").sign(&provider.claims(json!({}))), "key 'k9'"),
        (Key::rsa("k1").sign(&provider.claims(json!({}))), "key 'k1'"),
        (other.sign(&provider.claims(json!({}))), "signature is wrong"),
        (format!("{}.{root}.{}", parts[0], parts[2]), "signature is wrong"),
        (
            format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
            "signature is wrong",
        ),
        ("nonsense".to_owned(), "isn't a signed token"),
    ] {
        provider.grants(&id_token);
        let done = login(&home);
        let told = done.failed(4, "AUTH_FAILED");
        assert!(told.contains(why), "{why}: {done:?}");
    }
    assert!(
        !home.path(".config/clawbernetes/config.yaml").exists(),
        "nothing is kept"
    );
    // Keys that aren't known make it ask again, but not at once.
    assert_eq!(provider.count("/keys"), 1);
    let admin = fleet.home();
    let tokens = admin.run("auth token list --json").json();
    assert_eq!(tokens.as_array().unwrap().len(), 1, "{tokens}");
    let denied = admin.run("audit list --action auth.oidc --denied --json").json();
    assert_eq!(denied.as_array().unwrap().len(), 25);
    assert_eq!(
        (&denied[0]["actor"], &denied[0]["error"]),
        (&json!("nobody"), &json!("AUTH_FAILED"))
    );

    // Clocks may be a little apart, and one of several clients may be this one.
    for others in [
        json!({"iat": now - 600, "exp": now - 5, "nbf": now + 5}),
        json!({"aud": ["other", CLIENT], "azp": CLIENT}),
    ] {
        provider.grants(&with(others));
        login(&home).ok();
    }
}

#[test]
fn keys_may_change() {
    let (old, new) = (Key::ec("k1"), Key::rsa("k2"));
    let provider = Provider::start(&old);
    let (_fleet, home) = fleet(oidc::Options {
        keys_settled: Span(0),
        ..believing(&provider, &["*:viewer"])
    });
    let claims = provider.claims(json!({}));
    provider.grants(&old.sign(&claims));
    login(&home).ok();
    assert_eq!(provider.count("/keys"), 1);
    // Beside keys for something else, and of kinds to come.
    provider.state().keys = vec![
        json!({"kty": "new", "kid": "k2"}),
        json!({"kty": "oct", "kid": "k2", "k": "AAAA"}),
        new.shown(),
    ];
    provider.grants(&new.sign(&claims));
    login(&home).ok();
    assert_eq!(provider.count("/keys"), 2);
    provider.grants(&old.sign(&claims));
    assert!(login(&home).failed(4, "AUTH_FAILED").contains("key 'k1'"));
}

#[test]
fn who_has_no_role_is_told_so() {
    let key = Key::ec("k1");
    let provider = Provider::start(&key);
    let (fleet, home) = fleet(believing(
        &provider,
        &["groups=gpu-admins:admin", "email=ada@lab.example:operator"],
    ));
    let grant = |others: Value| provider.grants(&key.sign(&provider.claims(others)));
    grant(json!({"email": "bob@lab.example"}));
    let done = login(&home);
    let told = done.failed(4, "PERMISSION_DENIED");
    assert!(
        told.contains("bob-lab.example") && told.contains("--oidc-role"),
        "{done:?}"
    );
    let denied = fleet.home().run("audit list --action auth.oidc --denied --json").json();
    assert_eq!(
        (&denied[0]["target"], &denied[0]["error"]),
        (&json!("subject/u-7"), &json!("PERMISSION_DENIED"))
    );
    // An address that nobody has looked at is nobody's.
    for unverified in [json!(false), Value::Null] {
        grant(json!({"email_verified": unverified, "groups": ["gpu-admins"]}));
        assert!(login(&home).failed(4, "PERMISSION_DENIED").contains("verified"));
    }
    grant(json!({"groups": "gpu-admins"}));
    assert!(login(&home).err.contains("(admin)"));
}

#[test]
fn a_login_that_comes_to_nothing_says_why() {
    let key = Key::ec("k1");
    let provider = Provider::start(&key);
    let (_fleet, home) = fleet(believing(&provider, &["*:viewer"]));
    for (error, status, code) in [
        ("access_denied", 4, "PERMISSION_DENIED"),
        ("expired_token", 7, "TIMED_OUT"),
        ("invalid_client", 4, "AUTH_FAILED"),
    ] {
        provider.state().answers = [(400, json!({ "error": error }))].into();
        login(&home).failed(status, code);
    }
    // The provider goes on waiting, but the code's time is over.
    provider.state().answers = [(400, json!({"error": "authorization_pending"}))].into();
    provider.state().expires_in = 0;
    login(&home).failed(7, "TIMED_OUT");
    home.run("auth login --oidc --token x").failed(2, "--token");

    let none = Fleet::start();
    let home = Home::at(none.address());
    login(&home).failed(3, "NOT_FOUND");
    let away = {
        let gone = Provider::start(&key);
        believing(&gone, &["*:viewer"])
    };
    let (_fleet, home) = fleet(away);
    login(&home).failed(5, "ECONNREFUSED");
    let token = none.token();
    home.input("auth login", &format!("{token}\n")).failed(4, "AUTH_FAILED");
}

#[test]
fn a_provider_without_codes_and_too_many_logins_are_told() {
    let key = Key::ec("k1");
    let provider = Provider::start(&key);
    provider.state().device = false;
    let (_fleet, home) = fleet(believing(&provider, &["*:viewer"]));
    assert!(login(&home).failed(2, "INVALID_ARGUMENT").contains("--token"));
    provider.state().device = true;

    let fleet = Fleet::start_with(Options {
        oidc: Some(believing(&provider, &["*:viewer"])),
        limits: Limits {
            failure_burst: 2.0,
            failures_per_second: 0.0001,
            ..Limits::default()
        },
        ..Options::default()
    });
    let home = Home::at(fleet.address());
    provider.grants(&key.sign(&provider.claims(json!({}))));
    login(&home).ok();
    login(&home).ok();
    login(&home).failed(6, "QUOTA_EXCEEDED");
    home.run("auth whoami").ok();
}

#[test]
fn on_a_terminal_the_provider_comes_first() {
    let key = Key::ec("k1");
    let provider = Provider::start(&key);
    let (_fleet, home) = fleet(believing(&provider, &["*:viewer"]));
    provider.grants(&key.sign(&provider.claims(json!({}))));
    let terminal = Pty::start(&home, "auth login");
    terminal.wait_written("as ada-lab.example (viewer)");
    let (status, written) = terminal.end();
    assert!(status == Some(0) && written.contains("WDJB-MJHT"), "{written}");
    assert!(!written.contains("Token for"), "{written}");

    let none = Fleet::start();
    let home = Home::at(none.address());
    let mut terminal = Pty::start(&home, "auth login");
    terminal.wait_written("Token for");
    terminal.press(&format!("{}\r", none.token()));
    terminal.wait_written("as admin (admin)");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn a_login_outlives_the_gateway_and_ends_when_it_is_revoked() {
    let key = Key::ec("k1");
    let provider = Provider::start(&key);
    let issuer = provider.issuer();
    let flags = [
        ["--oidc-issuer", issuer.as_str()],
        ["--oidc-client-id", CLIENT],
        ["--oidc-role", "staff=true:admin"],
        ["--oidc-role", "*:operator"],
        ["--oidc-name-claim", "preferred_username"],
        ["--oidc-session", "2h"],
    ];
    let cluster = Cluster::start_with(flags.as_flattened());
    let home = Home::at(cluster.address());
    let claims = provider.claims(json!({"preferred_username": "Ada", "email": null, "staff": false}));
    provider.grants(&key.sign(&claims));
    login(&home).ok();
    cluster.kill_gateway();
    cluster.start_gateway();
    wait_for("the gateway to be back", || {
        (home.run("auth whoami").code != 5).then_some(())
    });
    let who = home.run("auth whoami --json").json();
    assert_eq!((&who["name"], &who["role"]), (&json!("ada"), &json!("operator")));
    let ends: api::Timestamp = who["expiresAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(ends.as_second(), claims["iat"].as_i64().unwrap() + 2 * 3600);
    cluster.home.run("auth token revoke ada --yes").ok();
    home.run("auth whoami").failed(4, "AUTH_FAILED");
    cluster.end();
}

#[test]
fn a_gateway_says_what_it_cannot_believe() {
    let home = Home::new();
    for (flags, why) in [
        ("--oidc-issuer https://id.example", "--oidc-client-id"),
        (
            "--oidc-issuer http://id.example --oidc-client-id x --oidc-role *:viewer",
            "https",
        ),
        (
            "--oidc-issuer https://id.example --oidc-client-id x --oidc-role *:root",
            "root",
        ),
        (
            "--oidc-issuer https://id.example --oidc-client-id x --oidc-role viewer",
            "CLAIM=VALUE:ROLE",
        ),
        (
            "--oidc-issuer https://id.example --oidc-client-id x --oidc-role *:viewer --oidc-name-claim phone",
            "preferred_username",
        ),
        (
            "--oidc-issuer https://id.example --oidc-client-id x --oidc-role *:viewer --oidc-session 0s",
            "at once",
        ),
    ] {
        let done = home.run(&format!("gateway serve --listen 127.0.0.1:0 {flags}"));
        assert!(done.failed(2, "").contains(why), "{flags}: {done:?}");
    }
}
