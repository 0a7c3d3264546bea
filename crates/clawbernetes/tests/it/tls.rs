//! By TLS from the first connection on: logins, joining, sessions, jobs; and whoever isn't who they should be.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::{
    cluster::wait_for,
    world::{Fleet, Home},
};

/// An agent that is killed with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent(home: &Home, gateway: &str, token: &str) -> Agent {
    let data = home.path("node");
    let mut command = home.command([
        "node",
        "start",
        "--gateway",
        gateway,
        "--name",
        "n1",
        "--engine",
        "native",
    ]);
    command.args(["--simulate-gpus", "2xH100", "--data"]).arg(&data);
    if !token.is_empty() {
        command.args(["--join", token]);
    }
    let log = std::fs::File::create(home.path("node.log")).unwrap();
    Agent(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// A fleet, and somebody on another machine who knows its address and a token.
fn afar() -> (Fleet, Home, String) {
    let fleet = Fleet::start();
    let url = format!("wss://{}", fleet.address());
    let afar = Home::new();
    let said = afar.input(&format!("auth login --gateway {url}"), &fleet.token());
    assert_eq!(said.code, 0, "{said:?}");
    (fleet, afar, url)
}

#[test]
fn a_login_and_a_node_by_tls_and_a_job_with_a_secret() {
    let (fleet, afar, url) = afar();
    let kept = std::fs::read_to_string(afar.path(".config/clawbernetes/config.yaml")).unwrap();
    assert!(kept.contains("BEGIN CERTIFICATE"), "the authority is kept: {kept}");
    // The root is known now: a token without the fingerprint will do.
    let bare = fleet.token().rsplit_once('.').unwrap().0.to_owned();
    assert_eq!(
        afar.words(&["--token", &bare, "auth", "whoami", "--json"]).json()["name"],
        "admin"
    );

    let join = afar.run("auth join-token").ok().to_owned();
    assert_eq!(
        join.rsplit_once('.').unwrap().1,
        fleet.token().rsplit_once('.').unwrap().1
    );
    let machine = Home::new();
    let running = agent(&machine, &url, &join);
    let healthy = || (afar.run("node list --json").json()[0]["status"] == "healthy").then_some(());
    wait_for("the node's session by TLS", healthy);
    let certs = afar.run("cert list --all --json").json();
    assert!(
        certs
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "n1" && c["purpose"] == "client"),
        "{certs}"
    );

    let set = afar.input("secret set db-password -", "hunter2hunter2");
    assert_eq!(set.code, 0, "{set:?}");
    let job = [
        "run",
        "--image",
        "host",
        "--gpus",
        "0",
        "--timeout",
        "1m",
        "--follow",
        "--secret",
        "db-password",
        "--command",
        "sh -c 'echo ${#DB_PASSWORD} characters: $DB_PASSWORD'",
    ];
    let ran = afar.words(&job);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("14 characters: ***"), "{ran:?}");
    let seen = afar.run("audit list --action secret.use --json").json();
    assert_eq!(seen[0]["actor"], "node:n1", "{seen}");

    // It starts again with what it has; and when it was removed, it is let in no more.
    drop(running);
    let mut running = agent(&machine, &url, "");
    wait_for("the node to be back", || {
        let node = afar.run("node info n1 --json").json();
        node["connectivity"]["address"].is_string().then_some(())
    });
    // Its certificate is taken back: whoever else has the key is out, and the node comes again with another one.
    let serials = || -> Vec<String> {
        let certs = afar.run("cert list --all --json").json();
        let mine = certs
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["name"] == "n1" && c["status"] == "valid");
        mine.map(|c| c["serial"].as_str().unwrap().to_owned()).collect()
    };
    let before = serials().remove(0);
    assert_eq!(afar.run(&format!("cert revoke {before} --yes")).code, 0);
    wait_for("the node to be back with another certificate", || {
        let node = afar.run("node info n1 --json").json();
        let back = node["connectivity"]["address"].is_string();
        (back && serials().first().is_some_and(|now| *now != before)).then_some(())
    });
    assert_eq!(afar.run("node remove n1 --force --yes").code, 0);
    wait_for("the agent to end", || running.0.try_wait().unwrap());
    let log = std::fs::read_to_string(machine.path("node.log")).unwrap();
    assert!(log.contains("AUTH_FAILED") && log.contains("join-token"), "{log}");
    let revoked = afar.run("cert list --all --json").json();
    let mut mine = revoked.as_array().unwrap().iter().filter(|c| c["name"] == "n1");
    assert!(mine.all(|c| c["status"] == "revoked"), "{revoked}");
}

#[test]
fn whoever_is_in_between_gets_nothing() {
    let (fleet, afar, url) = afar();
    let other = Fleet::start();
    let theirs = format!("wss://{}", other.address());
    // The token, and the authority that is kept, are the first fleet's.
    let refused = afar.words(&["--token", &fleet.token(), "--gateway", &theirs, "status", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(
        (refused.code, &error["error"]["reason"]),
        (4, &json!("certificate-foreign")),
        "{refused:?}"
    );
    let log = afar.words(&["audit", "list", "--json"]).json();
    assert!(!log.to_string().contains(&theirs));
    let theirs_saw = other.home().run("audit list --denied --json").json();
    assert_eq!(theirs_saw, json!([]), "no token was shown to them");

    // A node doesn't join there either.
    let machine = Home::new();
    let join = afar.run("auth join-token").ok().to_owned();
    let said = machine
        .command(["node", "start", "--gateway", &theirs, "--join", &join])
        .args(["--engine", "native", "--simulate-gpus", "1xH100"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("another authority"), "{said}");

    // A name that the certificate isn't for.
    let port = fleet.address().port();
    let named = format!("wss://127.0.0.2:{port}");
    let refused = afar.words(&["--token", &fleet.token(), "--gateway", &named, "status", "--json"]);
    // The gateway listens on 127.0.0.1 alone; where 127.0.0.2 leads there too, its certificate is for another address.
    assert!(
        refused.code == 5 || refused.err.contains("certificate-wrong-name"),
        "{refused:?}"
    );
    drop(url);
}

#[test]
fn the_tools_of_others_take_the_certificate_and_no_other() {
    let (fleet, afar, _) = afar();
    let root = afar.run("cert ca").ok().to_owned();
    let file = afar.write("root.pem", &root);
    let curl = |extra: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20"]).args(extra);
        command.arg(format!("https://{}/healthz", fleet.address()));
        command.output().expect("curl is installed (scripts/test does it)")
    };
    let taken = curl(&["--cacert", file.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&taken.stdout), "ok\n", "{taken:?}");
    assert_ne!(
        curl(&[]).status.code(),
        Some(0),
        "the machine's own authorities don't know it"
    );
    let old = curl(&["--cacert", file.to_str().unwrap(), "--tls-max", "1.1"]);
    assert_ne!(old.status.code(), Some(0), "TLS 1.1 is not spoken");
    let python = "import ssl,sys,urllib.request as u\n\
                  print(u.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2])).read().decode())";
    let said = Command::new("python3")
        .args(["-c", python, &format!("https://{}/healthz", fleet.address())])
        .arg(&file)
        .output()
        .expect("python3 is installed (scripts/test does it)");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "ok\n\n", "{said:?}");
}
