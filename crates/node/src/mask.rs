//! Makes secrets unreadable in a workload's output, wherever its reads and writes cut it.
//!
//! What is looked for are *patterns*: of each value its lines, and the usual ways to write it down (base64, the
//! escapes of URLs and of JSON). A pattern has at least [`SHORTEST`] bytes and holds no newline, so that whole lines
//! are never held back; a long one is cut into several. The leftmost match counts, of those the longest, and becomes
//! [`HIDDEN`].
//!
//! An automaton finds the first bytes of patterns; the rest is compared. So it stays small however long values are.

use std::{collections::BTreeMap, sync::Arc};

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use api::{secret::SecretValue, workload::Outcome};
use base64::{
    Engine as _,
    alphabet::{self, Alphabet},
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroize;

/// What stands in a value's place.
pub(crate) const HIDDEN: &[u8] = b"***";

/// Fewest bytes of what is made unreadable: anything shorter stands in much that is no secret.
pub(crate) const SHORTEST: usize = 6;

/// Most bytes of a pattern: what may be held back, and the cost of a near miss.
pub(crate) const LONGEST: usize = 4096;

/// Widths at which `base64`, and `openssl` and PEM, cut what they write, in bytes of the value.
const WRAPPED: [usize; 2] = [57, 48];

/// What is to be made unreadable. Wiped when dropped.
pub(crate) struct Mask {
    /// Finds the first [`SHORTEST`] bytes of patterns.
    heads: AhoCorasick,
    /// The patterns by those bytes; longest first.
    patterns: BTreeMap<[u8; SHORTEST], Vec<Vec<u8>>>,
    /// The keys of `patterns`, by their number in `heads`.
    by_number: Vec<[u8; SHORTEST]>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(..)")
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        for (mut head, mut patterns) in std::mem::take(&mut self.patterns) {
            head.zeroize();
            patterns.zeroize();
        }
        self.by_number.zeroize();
    }
}

/// What stands at a place.
enum Here {
    /// A pattern of this length.
    Match(usize),
    /// That depends on what follows.
    Open,
    Nothing,
}

impl Mask {
    /// Makes these values unreadable. `None`: none of them has anything that is long enough.
    ///
    /// # Errors
    /// There are billions of bytes of them.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a SecretValue>) -> Result<Option<Self>, BuildError> {
        let mut patterns: BTreeMap<[u8; SHORTEST], Vec<Vec<u8>>> = BTreeMap::new();
        for value in values {
            for pattern in patterns_of(value.expose()) {
                if let Some(head) = pattern.first_chunk() {
                    patterns.entry(*head).or_default().push(pattern);
                }
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        for alike in patterns.values_mut() {
            alike.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            alike.dedup();
        }
        let by_number: Vec<_> = patterns.keys().copied().collect();
        let heads = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(&by_number)?;
        Ok(Some(Self {
            heads,
            patterns,
            by_number,
        }))
    }

    /// What begins here, with the head of this number. `last`: nothing follows.
    fn here(&self, number: usize, text: &[u8], last: bool) -> Here {
        let alike = self.by_number.get(number).and_then(|head| self.patterns.get(head));
        for pattern in alike.into_iter().flatten() {
            if text.starts_with(pattern) {
                return Here::Match(pattern.len());
            }
            if !last && pattern.starts_with(text) {
                return Here::Open;
            }
        }
        Here::Nothing
    }

    /// The bytes at the end of a text that may be the beginning of a head.
    fn begun(&self, text: &[u8]) -> usize {
        let mut lengths = (1..SHORTEST.min(text.len() + 1)).rev();
        let begins = |length: &usize| {
            let tail = &text[text.len() - length..];
            let mut from = [0; SHORTEST];
            from[..*length].copy_from_slice(tail);
            let next = self.patterns.range(from..).next();
            next.is_some_and(|(head, _)| head.starts_with(tail))
        };
        lengths.find(begins).unwrap_or(0)
    }

    /// Copies a text without what is to be hidden, as far as it is clear; gives the number of bytes that were taken.
    fn copy(&self, text: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let (mut copied, mut from) = (0, 0);
        while let Some(found) = self.heads.find(&text[from..]) {
            let at = from + found.start();
            match self.here(found.pattern().as_usize(), &text[at..], last) {
                Here::Match(length) => {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(HIDDEN);
                    from = at + length;
                    copied = from;
                }
                Here::Open => {
                    out.extend_from_slice(&text[copied..at]);
                    return at;
                }
                Here::Nothing => from = at + 1,
            }
        }
        let end = if last {
            text.len()
        } else {
            text.len() - self.begun(&text[from..])
        };
        out.extend_from_slice(&text[copied..end]);
        end
    }

    /// An outcome without what is to be hidden in its words.
    pub(crate) fn hide_in(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::StartFailed {
                code,
                message,
                retryable,
            } => Outcome::StartFailed {
                code,
                message: self.hide(&message),
                retryable,
            },
            other => other,
        }
    }

    /// A whole text without what is to be hidden.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        self.copy(text.as_bytes(), true, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Makes secrets unreadable in a stream.
#[derive(Debug)]
pub(crate) struct Masker {
    mask: Arc<Mask>,
    /// What may be the beginning of a pattern.
    held: Vec<u8>,
}

impl Drop for Masker {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

impl Masker {
    pub(crate) fn new(mask: Arc<Mask>) -> Self {
        Self { mask, held: Vec::new() }
    }

    /// Takes what comes next, and adds to `out` what is clear by now: at most [`LONGEST`] bytes are held back, and
    /// nothing of a line that has ended.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            let taken = self.mask.copy(bytes, false, out);
            self.held.extend_from_slice(&bytes[taken..]);
        } else {
            self.held.extend_from_slice(bytes);
            let taken = self.mask.copy(&self.held, false, out);
            self.held.drain(..taken);
        }
    }

    /// Adds what was held back: nothing follows it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.mask.copy(&self.held, true, out);
        self.held.clear();
    }
}

/// What is looked for, for one value.
fn patterns_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // Newlines at its end are no secret, and often aren't written.
    let value = value.trim_ascii_end();
    let lines = || {
        value
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    };
    for line in lines() {
        add(&mut all, line.to_vec());
        if let Ok(text) = std::str::from_utf8(line) {
            add(&mut all, escaped_for_json(text));
        }
    }
    if value.len() < SHORTEST {
        return all;
    }
    for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
        for shift in 0..3 {
            add(&mut all, base64(&alphabet, value, shift));
        }
        for width in WRAPPED {
            if value.len() > width {
                value
                    .chunks(width)
                    .for_each(|part| add(&mut all, base64(&alphabet, part, 0)));
            }
        }
    }
    // As Python and Rust, browsers, and forms do it.
    for (plain, space) in [
        (&b"-_.~"[..], None),
        (b"-_.~/", None),
        (b"-_.!~*'()", None),
        (b"*-._", Some(b'+')),
    ] {
        for upper in [true, false] {
            add(&mut all, escaped_for_url(value, plain, space, upper));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Adds a pattern, in pieces where it is long.
fn add(all: &mut Vec<Vec<u8>>, mut pattern: Vec<u8>) {
    let mut rest = &pattern[..];
    while rest.len() >= SHORTEST {
        // No piece may be too short.
        let length = match rest.len() {
            length @ ..=LONGEST => length,
            length if length - LONGEST < SHORTEST => LONGEST - SHORTEST,
            _ => LONGEST,
        };
        all.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    pattern.zeroize();
}

/// The part of a value's base64 form that is the same whatever stands before and after it, where so many bytes stand
/// before it (mod 3).
fn base64(alphabet: &Alphabet, value: &[u8], shift: usize) -> Vec<u8> {
    let engine = GeneralPurpose::new(alphabet, GeneralPurposeConfig::new().with_encode_padding(false));
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(value);
    let mut text = engine.encode(&shifted).into_bytes();
    // Six bits a character: the first ones are also of what stands before, the last one of what stands after.
    text.truncate(shifted.len() * 8 / 6);
    text.drain(..(shift * 8).div_ceil(6));
    shifted.zeroize();
    text
}

fn escaped_for_url(value: &[u8], plain: &[u8], space: Option<u8>, upper: bool) -> Vec<u8> {
    let digits = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let mut out = Vec::with_capacity(value.len() * 3);
    for byte in value {
        match (byte, space) {
            (b' ', Some(space)) => out.push(space),
            (byte, _) if byte.is_ascii_alphanumeric() || plain.contains(byte) => out.push(*byte),
            (byte, _) => out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

fn escaped_for_json(text: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn mask(values: &[&[u8]]) -> Arc<Mask> {
        let values: Vec<SecretValue> = values.iter().map(|value| SecretValue::from(value.to_vec())).collect();
        Arc::new(Mask::new(&values).unwrap().unwrap())
    }

    fn hidden(values: &[&[u8]], text: &str) -> String {
        mask(values).hide(text)
    }

    /// What a stream becomes, cut into these chunks.
    fn streamed(mask: &Arc<Mask>, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut masker = Masker::new(Arc::clone(mask));
        let mut out = Vec::new();
        for chunk in chunks {
            masker.push(chunk, &mut out);
            assert!(masker.held.len() <= LONGEST && !masker.held.contains(&b'\n'));
        }
        masker.finish(&mut out);
        out
    }

    /// The whole text at once, by comparing every pattern at every place.
    fn plainly(mask: &Mask, text: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let all = mask.patterns.values().flatten();
            match all.filter(|p| text[at..].starts_with(p)).map(Vec::len).max() {
                Some(length) => {
                    out.extend_from_slice(HIDDEN);
                    at += length;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out
    }

    #[test]
    fn values_are_hidden_in_every_usual_form() {
        let value = "p\u{e4}ss w\"rd/+?&secret".as_bytes();
        let text = std::str::from_utf8(value).unwrap();
        assert_eq!(hidden(&[value], &format!("a{text}b")), "a***b");
        for before in ["", "x", "xy"] {
            for engine in [BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD] {
                let encoded = engine.encode(format!("{before}{text}z"));
                let out = hidden(&[value], &encoded);
                assert!(out.contains("***"), "{before}: {encoded} -> {out}");
                // What is left holds the neighbours and at most a character of each end.
                assert!(out.len() <= "***".len() + 8, "{before}: {out}");
            }
        }
        let escaped = [
            "p%C3%A4ss%20w%22rd%2F%2B%3F%26secret",
            "p%c3%a4ss%20w%22rd/%2b%3f%26secret",
            "p%C3%A4ss+w%22rd%2F%2B%3F%26secret",
        ];
        for form in escaped {
            assert_eq!(hidden(&[value], &format!("q={form}&r")), "q=***&r");
        }
        assert_eq!(hidden(&[value], r#"{"k":"päss w\"rd/+?&secret"}"#), r#"{"k":"***"}"#);
    }

    #[test]
    fn lines_are_hidden_one_by_one_and_short_ones_are_not() {
        let value = b"-----BEGIN KEY-----\r\nMIIEvQIBADAN\nabc\nBgkqhkiG9w0B\n";
        assert_eq!(
            hidden(&[value], "x-----BEGIN KEY-----\nMIIEvQIBADAN BgkqhkiG9w0B abc"),
            "x***\n*** *** abc"
        );
        assert!(Mask::new(&[SecretValue::from(b"short".to_vec())]).unwrap().is_none());
        assert!(Mask::new(&[]).unwrap().is_none());
    }

    #[test]
    fn wrapped_base64_is_hidden() {
        let value: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(37)).collect();
        let encoded = BASE64_STANDARD.encode(&value);
        for width in [76, 64] {
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let out = hidden(&[&value], &lines.join("\n"));
            assert!(
                out.lines().all(|line| line.starts_with("***") && line.len() < 8),
                "{out}"
            );
        }
    }

    #[test]
    fn long_values_are_hidden_whole() {
        for length in [LONGEST, LONGEST + 1, LONGEST + SHORTEST, 3 * LONGEST + 2, 1 << 20] {
            let value: Vec<u8> = (0..length).map(|n| b'a' + u8::try_from(n * n % 23).unwrap()).collect();
            let mask = mask(&[&value]);
            assert!(
                mask.patterns
                    .values()
                    .flatten()
                    .all(|p| (SHORTEST..=LONGEST).contains(&p.len()))
            );
            let chunks: Vec<Vec<u8>> = [b"<".to_vec(), value, b">".to_vec()]
                .concat()
                .chunks(1000)
                .map(<[u8]>::to_vec)
                .collect();
            let out = String::from_utf8(streamed(&mask, &chunks)).unwrap();
            assert_eq!(
                out.trim_matches('*'),
                format!("<{}>", "***".repeat(length.div_ceil(LONGEST))),
                "{length}"
            );
        }
    }

    #[test]
    fn the_longest_value_counts_and_what_is_only_begun_comes_out() {
        let mask = mask(&[b"secret", b"secret-longer", b"cretins"]);
        let cut = |text: &str| -> String {
            let chunks: Vec<Vec<u8>> = text.bytes().map(|byte| vec![byte]).collect();
            String::from_utf8(streamed(&mask, &chunks)).unwrap()
        };
        assert_eq!(cut("secret-longer"), "***");
        assert_eq!(cut("secret-long!"), "***-long!");
        assert_eq!(cut("sesecret"), "se***");
        assert_eq!(cut("secre"), "secre");
        assert_eq!(cut("secrecretins"), "secre***");
        let mut masker = Masker::new(Arc::clone(&mask));
        let mut out = Vec::new();
        masker.push(b"secre\n", &mut out);
        assert_eq!(out, b"secre\n", "a line that has ended isn't held back");
        assert!(!format!("{masker:?}").contains("secret"));
    }

    proptest! {
        /// Few letters, so that beginnings, overlaps and repetitions are many.
        #[test]
        fn no_value_comes_through_however_it_is_cut(
            values in prop::collection::vec("[ab\n]{6,14}", 1..5),
            parts in prop::collection::vec((any::<prop::sample::Index>(), "[abc\n]{0,9}", any::<bool>()), 0..12),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let secrets: Vec<SecretValue> = values.iter().cloned().map(SecretValue::from).collect();
            let mut text = String::new();
            for (which, other, whole) in &parts {
                text.push_str(other);
                if *whole {
                    text.push_str(which.get::<String>(&values));
                }
            }
            let Some(mask) = Mask::new(&secrets).unwrap() else { return Ok(()) };
            let mask = Arc::new(mask);
            let (mut rest, mut chunks) = (text.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = after;
            }
            let out = streamed(&mask, &chunks);
            prop_assert_eq!(&out, &plainly(&mask, text.as_bytes()));
            let out = String::from_utf8(out).unwrap();
            for line in values.iter().flat_map(|value| value.trim_ascii_end().split('\n')) {
                prop_assert!(line.len() < SHORTEST || !out.contains(line), "{:?} in {:?}", line, out);
            }
        }
    }
}
