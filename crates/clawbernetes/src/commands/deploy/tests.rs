//! What the words of a command line come to.

use api::{ErrorCode, Span, time};
use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::Globals;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    _globals: Globals,
    #[command(subcommand)]
    command: Top,
}

#[derive(Debug, clap::Subcommand)]
enum Top {
    Deploy(Box<Args>),
}

fn args(words: &[&str]) -> Result<Args, clap::Error> {
    let line = Line::try_parse_from(["clawbernetes", "deploy"].iter().chain(words))?;
    let Top::Deploy(args) = line.command;
    Ok(*args)
}

/// The sentence, or the command's first letters where it is one.
fn read(words: &[&str]) -> Result<String, ApiError> {
    let args = args(words).map_err(|error| ApiError::invalid("words", error.to_string()))?;
    match (&args.command, args.given()) {
        (Some(_), Some(given)) => Err(ApiError::invalid(given, "both")),
        (Some(command), None) => Ok(format!("{command:?}").split('(').next().unwrap_or_default().to_owned()),
        (None, _) => args.sentence(),
    }
}

#[test]
fn words_are_a_sentence_in_quotes_or_without() {
    let sentence = "scale inference to 8 replicas";
    assert_eq!(read(&[sentence]).unwrap(), sentence);
    assert_eq!(read(&sentence.split(' ').collect::<Vec<_>>()).unwrap(), sentence);
    let flags_between = [
        "scale",
        "inference",
        "--dry-run",
        "to",
        "8",
        "replicas",
        "--timeout",
        "5m",
        "-n",
        "prod",
    ];
    assert_eq!(read(&flags_between).unwrap(), sentence);
    // A command's name within a sentence is a word, and so is one behind `--`.
    assert_eq!(read(&["update", "status", "to", "v2"]).unwrap(), "update status to v2");
    assert_eq!(read(&["--", "list", "v2"]).unwrap(), "list v2");
    assert_eq!(
        read(&["rollback model-server to v2.0"]).unwrap(),
        "rollback model-server to v2.0"
    );
    // Every example of the help.
    for sentence in [
        "deploy pytorch-train with 4 GPUs, canary 10% first",
        "update model-server to v2.1, rollback if errors > 1%",
        "blue-green deploy api-server v3.0, switch after health check",
        "increase memory for data-processor to 64Gi",
        "deploy new-model at 2am with 5% canary, promote after 1 hour if healthy",
    ] {
        assert_eq!(
            read(&[sentence, "--image", "a", "--confirm", "--yes", "-w"]).unwrap(),
            sentence
        );
    }
}

#[test]
fn a_first_word_that_is_a_command_is_one() {
    for (words, command) in [
        (&["status", "dep-1"][..], "Status"),
        (&["status", "dep-1", "-w", "--json"], "Status"),
        (&["--json", "status", "dep-1"], "Status"),
        (&["-o", "jsonl", "status", "dep-1", "--watch"], "Status"),
        (&["promote", "dep-1", "--force", "--percentage", "50"], "Promote"),
        (
            &["rollback", "dep-1", "--to", "v1", "--immediate", "--reason", "errors"],
            "Rollback",
        ),
        (
            &["history", "model-server", "--limit", "5", "--include-failed"],
            "History",
        ),
        (&["list", "--all"], "List"),
        (&["pause", "dep-1", "--reason", "looking"], "Pause"),
        (&["resume", "dep-1"], "Resume"),
        (&["retry", "dep-1"], "Retry"),
        (&["replay", "dep-1"], "Replay"),
        (&["replay", "--file", "status.json"], "Replay"),
    ] {
        assert_eq!(read(words).unwrap(), command, "{words:?}");
    }
}

#[test]
fn what_is_neither_is_refused_with_what_was_meant() {
    let error = read(&["stauts"]).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert_eq!(
        error.hint.as_deref(),
        Some("did you mean 'clawbernetes deploy status'?")
    );
    assert!(read(&[" "]).unwrap_err().message.contains("empty"));
    assert!(read(&[]).unwrap_err().message.contains("SENTENCE"));
    assert!(read(&["--dry-run"]).unwrap_err().message.contains("SENTENCE"));
    assert_eq!(
        read(&["--dry-run", "status", "dep-1"]).unwrap_err().field.as_deref(),
        Some("--dry-run")
    );
    for words in [
        &["scale x to 2", "--dry-run", "--watch"][..],
        &["scale x to 2", "--dry-run", "--confirm"],
        &["scale x to 2", "--timeout", "5"],
        &["promote", "dep-1", "--percentage", "101"],
        &["history", "x", "--limit", "0"],
        &["status"],
        &["replay"],
        &["replay", "dep-1", "--file", "status.json"],
    ] {
        assert!(read(words).is_err(), "{words:?}");
    }
}

/// The sentences in a text: what stands in quotes after the command.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split("clawbernetes deploy \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_sentence_that_is_shown_to_people_is_read_and_means_the_same_later_in_other_words() {
    let now: jiff::Zoned = "2026-02-16T14:00:00+01:00[Europe/Berlin]".parse().unwrap();
    let later = time::after(now.timestamp(), Span::secs(90)).to_zoned(now.time_zone().clone());
    let help = Line::command()
        .find_subcommand("deploy")
        .and_then(|command| command.get_after_help())
        .unwrap()
        .to_string();
    let guide = include_str!("../../../../../docs/guide/deployments.md");
    let readme = include_str!("../../../../../README.md");
    let mut count = 0;
    for sentence in [guide, readme, help.as_str()].into_iter().flat_map(sentences) {
        let meant = rollout::intent::read(sentence, &now).unwrap_or_else(|error| panic!("{sentence}: {error}"));
        // What is applied after it was shown is these words.
        let understood = meant.intent.to_string();
        let again = rollout::intent::read(&understood, &later).unwrap_or_else(|error| panic!("{understood}: {error}"));
        assert_eq!(again.intent, meant.intent, "{sentence}: {understood}");
        count += 1;
    }
    assert!(count >= 15, "{count} sentences");
}
