//! Sentences made worse: nothing panics, and no word is dropped without a word about it.

use rollout::intent::{GUIDE, Intent, read};
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

/// What is said where there is nothing to quote: it is about the sentence as a whole, or about what it doesn't say.
const ABOUT_THE_WHOLE: &[&str] = &[
    "a sentence has at most",
    "the sentence is empty",
    "the sentence holds an invisible character",
    "a quote isn't closed",
    "the sentence doesn't say",
    "the reason is missing",
    "conditions to go",
    "going back by itself",
    "it says on which day it begins",
    "it is to wait for a person",
    "a condition can't be looked at over no time",
    "an image can't be multiplied",
    "that day",
];

/// Whether a refusal quotes words of the sentence, or is about all of it.
fn quotes(sentence: &str, message: &str) -> bool {
    // As they are once cleaned: letters and digits only, so that hard spaces and curly quotes don't matter.
    let plain = |text: &str| -> String {
        let signs = text.replace('\u{d7}', "x");
        signs
            .chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let (all, mut parts) = (plain(sentence), message.split(['\'', '"', '`', '\u{2026}']).skip(1));
    ABOUT_THE_WHOLE.iter().any(|whole| message.starts_with(whole))
        || parts.any(|part| part.split_whitespace().all(|word| all.contains(&plain(word))))
        || message.contains("' is past: it is ")
        // Numbers are written anew: "at least 010" is "at least 10".
        || message.split(|c: char| !c.is_ascii_digit()).any(|number| !number.is_empty() && all.contains(number))
}

/// What is read is written so that it is read the same; what is refused is quoted.
fn check(sentence: &str) {
    let now = corpus::now();
    match read(sentence, &now) {
        Ok(reading) => {
            let written = reading.intent.to_string();
            match read(&written, &now) {
                Ok(again) => assert_eq!(again.intent, reading.intent, "{sentence:?}\n  written {written}"),
                Err(misread) => panic!("{sentence:?}\n  written {written}\n  refused {misread}"),
            }
        }
        Err(misread) => {
            assert!(quotes(sentence, &misread.message), "{sentence:?}\n  refused {misread}");
            assert!(read(misread.example, &now).is_ok(), "{}", misread.example);
        }
    }
}

#[test]
fn characters_of_any_kind_thrown_together() {
    // Of each plane and kind some: ASCII, Latin, Cyrillic, combining, right to left, CJK, full width, emoji, private, controls.
    const RANGES: &[(u32, u32)] = &[
        (0x20, 0x7e),
        (0x20, 0x7e),
        (0x00, 0x1f),
        (0x80, 0x24f),
        (0x300, 0x36f),
        (0x400, 0x4ff),
        (0x590, 0x6ff),
        (0x2000, 0x206f),
        (0x2190, 0x22ff),
        (0x4e00, 0x4eff),
        (0xfe00, 0xffff),
        (0x1f600, 0x1f64f),
        (0xe0000, 0xe01ef),
        (0x10_fff0, 0x10_ffff),
    ];
    let mut dice = Random(17);
    for _ in 0..MUTATIONS {
        let before = dice.pick(&[
            "",
            "deploy web v2 ",
            "deploy web v2, env A=\"",
            "deploy web v2 because ",
        ]);
        let mut text = before.to_owned();
        for _ in 0..=dice.place(24) {
            let (from, to) = dice.pick(RANGES);
            let code = from + u32::try_from(dice.below(u64::from(to - from + 1))).unwrap();
            text.push(char::from_u32(code).unwrap_or('?'));
        }
        check(&text);
    }
}

#[test]
fn bytes_of_any_kind_thrown_together() {
    let mut dice = Random(19);
    for _ in 0..MUTATIONS {
        let bytes: Vec<u8> = (0..=dice.place(40))
            .map(|_| u8::try_from(dice.below(256)).unwrap())
            .collect();
        check(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn words_of_one_sentence_in_another_order() {
    let entries = corpus::entries();
    let mut dice = Random(23);
    for _ in 0..MUTATIONS {
        let sentence = dice.pick(&entries).sentence;
        let mut words: Vec<&str> = sentence.split(' ').collect();
        for at in (1..words.len()).rev() {
            words.swap(at, dice.place(at + 1));
        }
        check(&words.join(" "));
    }
}

/// Every form that the grammar knows, with numbers and names between.
#[test]
fn forms_of_the_grammar_thrown_together() {
    const BETWEEN: &[&str] = &[
        "8", "10%", "web", "v2", "5m", "64Gi", "2am", "> 1%", "A100", "\"x\"", "A=b", "a/b:c", ",", "1.5", "0",
    ];
    let words = GUIDE.split("## Every word").nth(1).unwrap();
    let forms: Vec<&str> = words.split('`').skip(1).step_by(2).collect();
    assert!(forms.len() > 1_000, "{}", forms.len());
    let mut dice = Random(29);
    for _ in 0..MUTATIONS {
        let mut sentence = dice.pick(&["", "deploy web v2 ", "scale web "]).to_owned();
        for _ in 0..=dice.place(6) {
            sentence.push_str(dice.pick(&forms));
            sentence.push(' ');
            if dice.chance(0.5) {
                sentence.push_str(dice.pick(BETWEEN));
                sentence.push(' ');
            }
        }
        check(&sentence);
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
