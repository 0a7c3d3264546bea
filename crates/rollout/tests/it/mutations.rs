//! Sentences made worse: nothing panics, and no word is dropped without a word about it.

use rollout::intent::{Intent, read};
use serde_json::Value;

use crate::{corpus, random::Random};

/// Fewer where nothing is optimised: `cargo test --release` runs them all.
const MUTATIONS: usize = if cfg!(debug_assertions) { 1_000 } else { 100_000 };

/// A word that means nothing, and isn't near to one that does.
const UNKNOWN: &str = "zqxv";

fn understood() -> Vec<(String, Intent)> {
    let now = corpus::now();
    corpus::entries()
        .into_iter()
        .filter_map(|entry| Some((entry.sentence.clone(), read(&entry.sentence, &now).ok()?.intent)))
        .collect()
}

/// The names of the fields in which two intents differ.
fn differing(a: &Intent, b: &Intent) -> Vec<(String, Value)> {
    let (Value::Object(a), Value::Object(b)) = (serde_json::to_value(a).unwrap(), serde_json::to_value(b).unwrap())
    else {
        panic!("an intent is an object");
    };
    a.into_iter().zip(b).filter(|(a, b)| a != b).map(|(_, b)| b).collect()
}

/// Places at which a word can be put in: at spaces that aren't in quotes.
fn places(sentence: &str) -> Vec<usize> {
    let mut quoted = false;
    let mut places = vec![0];
    for (at, c) in sentence.char_indices() {
        quoted ^= matches!(c, '"' | '\u{201c}' | '\u{201d}');
        if c == ' ' && !quoted {
            places.push(at + 1);
        }
    }
    places
}

#[test]
fn an_unknown_word_is_refused_or_kept() {
    let now = corpus::now();
    for (sentence, intent) in understood() {
        for at in places(&sentence) {
            let mutated = format!("{}{UNKNOWN} {}", &sentence[..at], &sentence[at..]);
            match read(&mutated, &now) {
                Err(misread) => assert!(misread.to_string().contains('\''), "{mutated}: {misread}"),
                // Passed over, and said so.
                Ok(reading) if reading.notes.join(" ").contains(UNKNOWN) => {}
                Ok(reading) => {
                    for (field, value) in differing(&intent, &reading.intent) {
                        assert!(
                            value.to_string().contains(UNKNOWN),
                            "{mutated}: {field} changed\n  {intent}\n  {}",
                            reading.intent
                        );
                    }
                    assert!(reading.intent != intent, "{mutated}: dropped");
                }
            }
        }
        let mutated = format!("{sentence} {UNKNOWN}");
        if let Ok(reading) = read(&mutated, &now) {
            assert!(reading.intent.to_string().contains(UNKNOWN), "{mutated}: dropped");
        }
    }
}

#[test]
fn a_word_that_becomes_unknown_is_refused_or_kept() {
    let now = corpus::now();
    for (sentence, _) in understood() {
        for at in places(&sentence) {
            let rest = &sentence[at..];
            let end = at + rest.find([' ', ',', '"']).unwrap_or(rest.len());
            let mutated = format!("{}{UNKNOWN}{}", &sentence[..at], &sentence[end..]);
            if let Ok(reading) = read(&mutated, &now) {
                assert!(
                    format!("{} {:?}", reading.intent, reading.notes).contains(UNKNOWN),
                    "{mutated}: read as {}",
                    reading.intent
                );
            }
        }
    }
}

/// What is read is written so that it is read the same.
fn check(sentence: &str) {
    let now = corpus::now();
    if let Ok(reading) = read(sentence, &now) {
        let written = reading.intent.to_string();
        match read(&written, &now) {
            Ok(again) => assert_eq!(again.intent, reading.intent, "{sentence:?}\n  written {written}"),
            Err(misread) => panic!("{sentence:?}\n  written {written}\n  refused {misread}"),
        }
    }
}

#[test]
fn words_of_all_sentences_thrown_together() {
    let entries = corpus::entries();
    let words: Vec<&str> = entries.iter().flat_map(|entry| entry.sentence.split(' ')).collect();
    let mut dice = Random(7);
    for _ in 0..MUTATIONS {
        let mut sentence = String::new();
        for _ in 0..=dice.place(14) {
            sentence.push_str(dice.pick(&words));
            sentence.push(' ');
        }
        check(&sentence);
    }
}

#[test]
fn clauses_of_all_sentences_thrown_together() {
    let entries = corpus::entries();
    let clauses: Vec<&str> = entries.iter().flat_map(|entry| entry.sentence.split(", ")).collect();
    let mut dice = Random(11);
    for _ in 0..MUTATIONS {
        let sentence: Vec<&str> = (0..=dice.place(4)).map(|_| dice.pick(&clauses)).collect();
        check(&sentence.join(", "));
    }
}

#[test]
fn letters_changed_dropped_doubled_and_swapped() {
    const ODD: &[char] = &[
        'a',
        'e',
        's',
        '0',
        '9',
        '%',
        '-',
        '.',
        ',',
        ':',
        '"',
        '\'',
        '>',
        '=',
        ' ',
        '\u{0}',
        '\u{202e}',
        '\u{435}',
        '\u{1f980}',
        '(',
        '/',
        '@',
        '\\',
        '+',
        '_',
    ];
    let entries = corpus::entries();
    let mut dice = Random(13);
    for _ in 0..MUTATIONS {
        let mut text: Vec<char> = dice.pick(&entries).sentence.chars().collect();
        for _ in 0..=dice.place(3) {
            let at = dice.place(text.len().max(1));
            match dice.place(4) {
                0 if at < text.len() => text[at] = dice.pick(ODD),
                1 if at < text.len() => drop(text.remove(at)),
                2 if at + 1 < text.len() => text.swap(at, at + 1),
                _ => text.insert(at.min(text.len()), dice.pick(ODD)),
            }
        }
        check(&text.into_iter().collect::<String>());
    }
}

#[test]
fn far_too_much_is_refused_whatever_it_is() {
    let now = corpus::now();
    let size = 64 << 10;
    for piece in [
        "(",
        "\"",
        "please ",
        "a",
        "1",
        "canary 10% then ",
        "errors > 1% or ",
        "\u{202e}",
        "\u{0}",
        "A=\"",
        "\\",
        "-",
        "🦀",
        "if ",
    ] {
        let sentence = piece.repeat(size / piece.len());
        assert!(read(&sentence, &now).is_err(), "{piece}");
        // As much as is read at all.
        let longest: String = sentence.chars().take(2_000).collect();
        let _ = read(&longest, &now);
        let _ = read(
            &format!("deploy x v2, {}", longest.chars().take(1_900).collect::<String>()),
            &now,
        );
    }
}
