//! The tools that these tests stand on, and what all of them need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use tempfile::TempDir;
use vault::pki::{Algorithm, Authority, Name, Purpose, Request, Subject, Validity};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A tool's verdict.
pub(crate) struct Said {
    pub(crate) ok: bool,
    /// All that it printed.
    pub(crate) text: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn accepted(self) -> String {
        assert!(self.ok, "{}", self.text);
        self.text
    }

    /// Refused, for a reason that has these words.
    #[track_caller]
    pub(crate) fn refused(self, words: &str) {
        assert!(!self.ok, "accepted: {}", self.text);
        assert!(
            self.text.to_lowercase().contains(&words.to_lowercase()),
            "{words}? {}",
            self.text
        );
    }
}

/// Runs a tool to its end.
#[track_caller]
pub(crate) fn run(tool: &str, arguments: &[&str]) -> Said {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("this test needs {tool}, which can't be run: {error}"));
    Said {
        ok: output.status.success(),
        text: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    }
}

/// Runs OpenSSL. `line` is split at white space.
#[track_caller]
pub(crate) fn openssl(line: impl AsRef<str>) -> Said {
    openssl_with(line, &[])
}

/// Runs OpenSSL with more arguments behind those of `line`, as they are.
#[track_caller]
pub(crate) fn openssl_with(line: impl AsRef<str>, more: &[&str]) -> Said {
    let words: Vec<&str> = line.as_ref().split_whitespace().collect();
    run("openssl", &[&words, more].concat())
}

/// A folder for the files of one test, gone with it.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        text(&path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        text(&self.path(name))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A time for tests whose clock is theirs.
pub(crate) fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn root(now: Timestamp) -> Authority {
    Authority::new_root("Test root", Algorithm::EcdsaP256, 3650 * DAY, now).unwrap()
}

pub(crate) fn intermediate(root: &Authority, now: Timestamp) -> Authority {
    Authority::new_intermediate(root, "Test intermediate", Algorithm::EcdsaP256, 365 * DAY, now).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn service(sans: &[&str], purpose: Purpose) -> Request {
    Request {
        subject: Subject::Service {
            name: name("api"),
            sans: sans.iter().map(|san| san.parse().unwrap()).collect(),
            purpose,
        },
        validity: Validity::Exactly(90 * DAY),
    }
}

pub(crate) fn node(called: &str) -> Request {
    Request {
        subject: Subject::Node(name(called)),
        validity: Validity::AtMost(30 * DAY),
    }
}
