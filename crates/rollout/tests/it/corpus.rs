//! The sentences of `corpus/`: each with what it means, or why it is refused.

use std::{fmt::Write, fs, path::PathBuf};

use jiff::Zoned;
use rollout::intent::read;

/// A sentence, and what is expected of it.
#[derive(Debug, Default, Clone)]
pub struct Entry {
    pub sentence: String,
    pub place: String,
    pub means: Option<String>,
    pub notes: Vec<String>,
    pub refused: Vec<String>,
}

/// When the corpus is read: a Friday.
pub fn now() -> Zoned {
    "2026-11-20T15:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

/// All sentences of the corpus.
pub fn entries() -> Vec<Entry> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut all: Vec<Entry> = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "txt"))
    {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            match line.split_at_checked(2) {
                Some(("> ", sentence)) => {
                    all.push(Entry {
                        sentence: unescaped(sentence),
                        place,
                        ..Entry::default()
                    });
                }
                Some(("= ", means)) => all.last_mut().unwrap().means = Some(unescaped(means)),
                Some(("~ ", note)) => all.last_mut().unwrap().notes.push(note.to_owned()),
                Some(("! ", refused)) => all.last_mut().unwrap().refused.push(refused.to_owned()),
                _ => assert!(line.is_empty() || line.starts_with('#'), "{place}: {line}"),
            }
        }
    }
    all
}

/// `\u{202e}` as the character.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        out.push_str(rest);
    }
    out
}

#[test]
fn every_sentence_is_read_as_it_is_meant() {
    let (now, all) = (now(), entries());
    let mut wrong = String::new();
    for entry in &all {
        assert!(
            entry.means.is_some() == entry.refused.is_empty(),
            "{}: one of = and !",
            entry.place
        );
        match (read(&entry.sentence, &now), &entry.means) {
            (Ok(reading), Some(means)) => {
                let said = reading.intent.to_string();
                let notes = reading.notes.join("; ");
                let missing = entry.notes.iter().any(|note| !notes.contains(note.as_str()));
                if said != *means || missing {
                    writeln!(
                        wrong,
                        "{} {}\n  wanted {means} ~ {:?}\n  read   {said} ~ {notes}",
                        entry.place, entry.sentence, entry.notes
                    )
                    .unwrap();
                }
                match read(&said, &now) {
                    Ok(again) if again.intent == reading.intent => {}
                    Ok(again) => writeln!(
                        wrong,
                        "{} {}\n  written {said}\n  read as {}",
                        entry.place, entry.sentence, again.intent
                    )
                    .unwrap(),
                    Err(misread) => writeln!(
                        wrong,
                        "{} {}\n  written {said}\n  refused {misread}",
                        entry.place, entry.sentence
                    )
                    .unwrap(),
                }
            }
            (Ok(reading), None) => {
                writeln!(
                    wrong,
                    "{} {}\n  wanted a refusal: {:?}\n  read   {}",
                    entry.place, entry.sentence, entry.refused, reading.intent
                )
                .unwrap();
            }
            (Err(misread), Some(means)) => {
                writeln!(
                    wrong,
                    "{} {}\n  wanted {means}\n  refused {misread}",
                    entry.place, entry.sentence
                )
                .unwrap();
            }
            (Err(misread), None) => {
                let said = misread.to_string();
                if entry.refused.iter().any(|part| !said.contains(part.as_str())) {
                    writeln!(
                        wrong,
                        "{} {}\n  wanted a refusal: {:?}\n  refused {said}",
                        entry.place, entry.sentence, entry.refused
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {} sentences:\n{wrong}", all.len());
}
