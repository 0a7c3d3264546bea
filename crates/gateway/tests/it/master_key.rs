//! The vault's master key, from wherever it comes: the right one opens the vault, and anything else changes nothing.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use gateway::{Gateway, Options, StartError, trust, trust::KeySource};
use serde_json::json;

use crate::fixture::Fixture;

const VALUE: &str = "Y2FuYXJ5LXZhbHVl";

async fn start(data: &Path, key: Option<&KeySource>) -> Result<Gateway, StartError> {
    Gateway::start(Options {
        listen: ([127, 0, 0, 1], 0).into(),
        data: data.to_owned(),
        trust: trust::Options {
            key: key.cloned(),
            ..trust::Options::default()
        },
        ..Options::default()
    })
    .await
}

/// It doesn't start, and the reason has these words.
async fn refused(data: &Path, key: Option<&KeySource>, words: &str) {
    let error = match start(data, key).await {
        Err(error) => error,
        Ok(gateway) => {
            gateway.stop().await;
            panic!("it opens by {key:?}");
        }
    };
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    assert!(told.contains(words), "{told}");
    assert!(!told.contains("correct horse") && !told.contains("battery"), "{told}");
}

/// It starts, and what was kept is there; or it is kept now.
async fn opens(data: tempfile::TempDir, key: Option<&KeySource>, new: bool) -> tempfile::TempDir {
    let gateway = start(data.path(), key)
        .await
        .unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
    let fixture = Fixture { gateway, data };
    if new {
        let set = fixture
            .admin("secret.set", &json!({"name": "db", "value": VALUE}))
            .await;
        assert_eq!(set.status, 200, "{set:?}");
    }
    let got = fixture.admin("secret.get", &json!({"name": "db"})).await;
    assert_eq!(got.body["value"], VALUE, "{got:?}");
    let Fixture { gateway, data } = fixture;
    gateway.stop().await;
    data
}

fn private(path: &Path, text: &[u8]) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A key that belongs to another vault.
async fn another_key() -> Vec<u8> {
    let data = opens(tempfile::tempdir().unwrap(), None, true).await;
    fs::read(data.path().join("vault.key")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_wrong_key_file_changes_nothing() {
    let data = opens(tempfile::tempdir().unwrap(), None, true).await;
    let file = data.path().join("vault.key");
    let right = fs::read(&file).unwrap();
    let another = another_key().await;

    fs::remove_file(&file).unwrap();
    refused(data.path(), None, "bring it back").await;
    assert!(!file.exists(), "no new key takes a lost one's place");
    let mut cut = right.clone();
    cut.truncate(right.len() / 2);
    for (wrong, words) in [
        (&another, "wrong master key"),
        (&cut, ""),
        (&Vec::new(), ""),
        (&vec![0xff; 4096], ""),
    ] {
        private(&file, wrong);
        refused(data.path(), None, words).await;
        assert_eq!(&fs::read(&file).unwrap(), wrong, "what was there is left");
    }
    // Readable by others, it may be theirs too.
    private(&file, &right);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    refused(data.path(), None, "").await;
    private(&file, &right);

    let folder = tempfile::tempdir().unwrap();
    let phrase = folder.path().join("phrase");
    private(&phrase, b"correct horse\n");
    refused(data.path(), Some(&KeySource::Passphrase(phrase)), "").await;
    let command = KeySource::Command(vec!["false".to_owned()]);
    refused(data.path(), Some(&command), "").await;
    assert_eq!(fs::read(&file).unwrap(), right);
    opens(data, None, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_opens_what_it_closed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("phrase");
    private(&file, b"correct horse battery\n");
    let source = KeySource::Passphrase(file.clone());
    let data = opens(tempfile::tempdir().unwrap(), Some(&source), true).await;
    assert!(
        !data.path().join("vault.key").exists(),
        "the key is nowhere but in a head"
    );
    // However the line ends.
    private(&file, b"correct horse battery");
    let data = opens(data, Some(&source), false).await;
    for wrong in [&b"correct horse battery "[..], b"Correct horse battery", b"", b"\n"] {
        private(&file, wrong);
        refused(data.path(), Some(&source), "").await;
    }
    fs::remove_file(&file).unwrap();
    refused(data.path(), Some(&source), "passphrase").await;
    refused(data.path(), None, "").await;
    assert!(!data.path().join("vault.key").exists());
    private(&file, b"correct horse battery\n");
    opens(data, Some(&source), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_key_opens_what_it_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    private(&right, &another_key().await);
    private(&wrong, &another_key().await);
    let cat = |path: &Path| KeySource::Command(vec!["cat".to_owned(), path.display().to_string()]);
    let data = opens(tempfile::tempdir().unwrap(), Some(&cat(&right)), true).await;
    assert!(
        !data.path().join("vault.key").exists(),
        "the key is where the command has it from"
    );
    let data = opens(data, Some(&cat(&right)), false).await;
    refused(data.path(), Some(&cat(&wrong)), "wrong master key").await;
    refused(data.path(), Some(&cat(&folder.path().join("none"))), "").await;
    for command in [
        vec!["false"],
        vec!["/nonexistent/program"],
        vec!["echo", "no key"],
        vec!["true"],
        vec![],
    ] {
        let command = KeySource::Command(command.into_iter().map(str::to_owned).collect());
        refused(data.path(), Some(&command), "").await;
    }
    refused(data.path(), None, "").await;
    assert!(!data.path().join("vault.key").exists());
    opens(data, Some(&cat(&right)), false).await;
}
