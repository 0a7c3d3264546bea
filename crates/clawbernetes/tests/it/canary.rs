//! A secret's value is where it is used, and nowhere else: not on disk, not in what is logged, not in what is said.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::cluster::{Cluster, exchange, wait_for};

/// The value; a multiple of three bytes, so that its base64 is found in a longer one too.
const CANARY: &str = "canary-of-gold-and-green-4711-xyz";
/// What is no secret, and goes the same ways: the name of the node, of the workload, and part of what it prints.
const MARKER: &str = "marker-of-stone-5512";

/// The files below a folder, with what is in them.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                folders.push(entry.path());
            } else if kind.is_ok_and(|kind| kind.is_file())
                // It may be gone by now.
                && let Ok(bytes) = fs::read(entry.path())
            {
                found.push((entry.path(), bytes));
            }
        }
    }
    found
}

/// The words of all processes' command lines.
fn command_lines() -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .map(|entry| entry.path().join("cmdline"))
        .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
        .collect()
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

struct Search<'a> {
    cluster: &'a Cluster,
    /// The value as it is, and as it is usually written down.
    forms: Vec<String>,
}

impl Search<'_> {
    /// None of these holds the value, and at least one the marker: both would be found.
    fn look(&self, place: &str, all: &[(PathBuf, Vec<u8>)]) {
        for (path, bytes) in all {
            for form in &self.forms {
                assert!(!holds(bytes, form), "{place}: {} holds {form}", path.display());
            }
        }
        let marked = all.iter().any(|(_, bytes)| holds(bytes, MARKER));
        assert!(
            marked,
            "{place}: what is no secret would be found, in one of {}",
            all.len()
        );
    }

    fn everywhere(&self, when: &str) {
        let home = &self.cluster.home;
        self.look(&format!("the gateway's data, {when}"), &contents(&home.path("gateway")));
        self.look(&format!("the node's data, {when}"), &contents(&home.path(MARKER)));
        for log in ["gateway.log", &format!("{MARKER}.log")] {
            let path = home.path(log);
            let text = fs::read(&path).unwrap();
            self.look(&format!("{log}, {when}"), &[(path, text)]);
        }
        for line in [
            "secret list",
            "secret list --json",
            "secret versions db --json",
            &format!("workload status {MARKER}"),
            &format!("workload status {MARKER} --json"),
            &format!("workload logs {MARKER}"),
            "workload list --json",
            "events --json",
            "audit list --json",
        ] {
            let said = home.run(line);
            said.ok();
            let both = said.out.clone() + &said.err;
            for form in &self.forms {
                assert!(!both.contains(form), "{line}, {when}: {both}");
            }
            // Versions have no words of their own.
            assert!(
                both.contains(MARKER) || line.contains("versions"),
                "{line}, {when}: {both}"
            );
        }
        let bearer = format!("Bearer {}", self.cluster.token());
        for (path, known) in [("/metrics", "clawbernetes_"), ("/openapi.json", "secret")] {
            let answer = exchange(self.cluster.address(), "GET", path, &[("authorization", &bearer)], b"").unwrap();
            assert!(
                answer.status == 200 && answer.body.contains(known),
                "{path}: {}",
                answer.status
            );
            assert!(
                self.forms.iter().all(|form| !answer.body.contains(form)),
                "{path}, {when}"
            );
        }
    }
}

#[test]
fn a_value_is_nowhere_but_where_it_is_used() {
    let mut cluster = Cluster::start_telling(Some("trace"), &[]);
    cluster.join(MARKER, &["--engine", "native"]);
    let home = &cluster.home;
    home.input(&format!("secret set db - --description {MARKER}"), CANARY)
        .ok();
    home.input("secret set tls -", CANARY).ok();
    let base64 = cluster.call("secret.get", &json!({"name": "db"}))["value"]
        .as_str()
        .unwrap()
        .to_owned();
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let search = Search {
        cluster: &cluster,
        forms: vec![CANARY.to_owned(), base64.trim_end_matches('=').to_owned(), hex],
    };

    // Without root the native engine offers secrets in variables only.
    let files = rustix::process::geteuid().is_root();
    let (file, go) = (home.path("placed/tls.key"), home.path("go"));
    let as_file = format!("tls={}", file.display());
    let script = format!(
        "echo {MARKER}; test \"${{#DB}}\" -eq {} && echo in a variable; echo \"$DB\"; cat {} && echo in a file; \
         until test -e {}; do sleep 0.1; done",
        CANARY.len(),
        file.display(),
        go.display()
    );
    let mut words = vec![
        "run",
        "--image",
        "host",
        "--gpus",
        "0",
        "--timeout",
        "5m",
        "--name",
        MARKER,
        "--secret",
        "db=DB",
    ];
    if files {
        words.extend(["--secret", &as_file]);
    } else {
        // Past the capture of tests that pass.
        let _ = writeln!(std::io::stderr(), "skipped: a native job's secret as a file takes root");
    }
    words.extend(["--", "sh", "-c", &script]);
    home.words(&words).ok();
    let last = if files { "in a file" } else { "in a variable" };
    wait_for("the job to have its secrets", || {
        let said = home.run(&format!("workload logs {MARKER}"));
        said.out.contains(last).then_some(())
    });
    let said = home.run(&format!("workload logs {MARKER}")).ok().to_owned();
    assert!(said.contains("in a variable") && said.contains("***"), "{said}");

    search.everywhere("while it is used");
    search.look("command lines", &command_lines());
    if files {
        assert!(
            !fs::read_to_string(&file).is_ok_and(|text| text.contains(CANARY)),
            "the file is the job's alone"
        );
    }
    fs::write(&go, "").unwrap();
    cluster.wait_phase(MARKER, "succeeded");
    search.everywhere("when it is over");

    home.run(&format!("secret rotate db --value {CANARY}-2")).ok();
    home.run("secret delete db --force").ok();
    cluster.kill_gateway();
    cluster.start_gateway();
    cluster.call("gateway.ping", &json!({}));
    search.everywhere("after a restart");
    assert_eq!(
        home.run("secret get db").ok(),
        CANARY,
        "where it is asked for, it is told"
    );
    cluster.end();
}
