//! The level that a line states of itself.

use super::Level;

/// Bytes of a line in which a prefix is looked for.
const HEAD: usize = 128;
/// Bytes of a line in which `level=…` is looked for.
const LOGFMT_HEAD: usize = 512;
/// Bytes of a JSON line in which its level is looked for.
const JSON_HEAD: usize = 8 << 10;

/// Names of levels as loggers write them, in lower case.
const NAMES: [(&[u8], Level); 31] = [
    (b"trace", Level::Trace),
    (b"trc", Level::Trace),
    (b"finest", Level::Trace),
    (b"finer", Level::Trace),
    (b"debug", Level::Debug),
    (b"dbg", Level::Debug),
    (b"dbug", Level::Debug),
    (b"fine", Level::Debug),
    (b"info", Level::Info),
    (b"inf", Level::Info),
    (b"information", Level::Info),
    (b"informational", Level::Info),
    (b"notice", Level::Info),
    (b"success", Level::Info),
    (b"warn", Level::Warn),
    (b"wrn", Level::Warn),
    (b"warning", Level::Warn),
    (b"error", Level::Error),
    (b"err", Level::Error),
    (b"eror", Level::Error),
    (b"severe", Level::Error),
    (b"failure", Level::Error),
    (b"fatal", Level::Fatal),
    (b"ftl", Level::Fatal),
    (b"crit", Level::Fatal),
    (b"critical", Level::Fatal),
    (b"panic", Level::Fatal),
    (b"dpanic", Level::Fatal),
    (b"alert", Level::Fatal),
    (b"emerg", Level::Fatal),
    (b"emergency", Level::Fatal),
];

/// Keys whose value is a level, in JSON and logfmt.
const KEYS: [&[u8]; 8] = [
    b"level",
    b"lvl",
    b"severity",
    b"levelname",
    b"loglevel",
    b"log_level",
    b"severity_text",
    b"severityText",
];

/// The level of this name in any case.
fn named(word: &[u8]) -> Option<Level> {
    if !(3..=13).contains(&word.len()) {
        return None;
    }
    let first = word[0].to_ascii_lowercase();
    NAMES
        .iter()
        .find(|(name, _)| name[0] == first && name.eq_ignore_ascii_case(word))
        .map(|(_, level)| *level)
}

/// The line without colour at its beginning and without what launchers put before each line of a member:
/// `[rank0]: ` (torchrun), `(worker pid=7) ` (Ray).
pub(super) fn body(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [27, b'[', rest @ ..] = text {
        match rest.iter().position(|byte| byte.is_ascii_alphabetic()) {
            Some(end) if rest[end] == b'm' => text = &rest[end + 1..],
            _ => break,
        }
    }
    match text.first() {
        Some(b'[') => {
            let name = text[1..]
                .iter()
                .take(24)
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count();
            match &text[1 + name..] {
                [b']', b':', b' ', rest @ ..] | [b']', b':', rest @ ..]
                    if name > 1 && text[name].is_ascii_digit() && text[1].is_ascii_alphabetic() =>
                {
                    rest
                }
                _ => text,
            }
        }
        Some(b'(') => {
            let end = text.iter().take(80).position(|byte| *byte == b')');
            match end {
                Some(end) if text[..end].windows(4).any(|w| w == b"pid=") => {
                    let rest = &text[end + 1..];
                    rest.strip_prefix(b" ").unwrap_or(rest)
                }
                _ => text,
            }
        }
        _ => text,
    }
}

/// What the line says of itself. `None`: nothing.
pub(super) fn said(text: &[u8]) -> Option<Level> {
    let start = text.trim_ascii_start();
    match start.first()? {
        b'{' => return json(start),
        b'I' | b'W' | b'E' | b'F' | b'[' => {
            if let Some(level) = klog(start) {
                return Some(level);
            }
        }
        _ => {}
    }
    let head = &start[..start.len().min(HEAD)];
    let signs = Signs::of(head);
    // In the order of their places in most formats: a logger's own prefix stands before what it writes.
    if signs.upper_pair
        && let Some(level) = upper(head)
    {
        return Some(level);
    }
    if (signs.colon || signs.bracket)
        && let Some(level) = marked(head)
    {
        return Some(level);
    }
    logfmt(&start[..start.len().min(LOGFMT_HEAD)])
}

/// What is in a head at all: one pass that the compiler makes wide, so that plain lines cost little.
struct Signs {
    upper_pair: bool,
    colon: bool,
    bracket: bool,
}

impl Signs {
    fn of(head: &[u8]) -> Self {
        let (mut colon, mut bracket) = (0, 0);
        for &byte in head {
            colon |= u8::from(byte == b':');
            bracket |= u8::from(byte == b'[');
        }
        Self {
            upper_pair: upper_pair(head),
            colon: colon != 0,
            bracket: bracket != 0,
        }
    }
}

/// Whether two capitals stand side by side.
pub(super) fn upper_pair(text: &[u8]) -> bool {
    let Some(after) = text.get(1..) else {
        return false;
    };
    let mut pair = 0;
    for (&a, &b) in text.iter().zip(after) {
        pair |= u8::from(a.wrapping_sub(b'A') < 26) & u8::from(b.wrapping_sub(b'A') < 26);
    }
    pair != 0
}

/// `E0216 14:00:00.1 …` as klog, glog and absl write it, and in brackets PyTorch: `[W socket.cpp:436] …`.
fn klog(text: &[u8]) -> Option<Level> {
    let (bracket, rest) = match text {
        [b'[', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let level = match rest.first()? {
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'F' => Level::Fatal,
        _ => return None,
    };
    let dated =
        matches!(rest, [_, a, b, c, d, b' ', e, ..] if [a, b, c, d, e].iter().all(|byte| byte.is_ascii_digit()));
    let placed = bracket
        && rest.get(1) == Some(&b' ')
        && rest
            .iter()
            .take(60)
            .position(|byte| *byte == b']')
            .is_some_and(|end| rest[2..end].contains(&b':') && rest[2..end].contains(&b'.'));
    (dated || placed).then_some(level)
}

/// A name of a level in capitals among the first words: `… - ERROR - …`, `[INFO]`, `WARNING:root:…`.
fn upper(head: &[u8]) -> Option<Level> {
    let mut at = 0;
    while at < head.len() {
        if !head[at].is_ascii_uppercase() {
            at += 1;
            continue;
        }
        let start = at;
        while at < head.len() && head[at].is_ascii_uppercase() {
            at += 1;
        }
        let before = start.checked_sub(1).map(|before| head[before]);
        let opens = match before {
            None => true,
            // The end of a colour.
            Some(b'm') => start > 1 && matches!(head[start - 2], b'0'..=b'9' | b'[' | b';'),
            Some(byte) => b" \t[(<|:]-,*".contains(&byte),
        };
        let closes = match head.get(at) {
            None => true,
            Some(byte) => b" \t:])>|-,!\x1b*".contains(byte),
        };
        if opens
            && closes
            && let Some(level) = named(&head[start..at])
        {
            // NCCL calls its errors warnings.
            if level == Level::Warn && head[..start].ends_with(b"NCCL ") {
                return Some(Level::Error);
            }
            return Some(level);
        }
    }
    None
}

/// A name of a level, in any case, in brackets or before a colon: `[error] …`, `error: …`, `cc1: warning: …`, and
/// Python's `UserWarning: …`.
fn marked(head: &[u8]) -> Option<Level> {
    let mut at = 0;
    while at < head.len() {
        if !head[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let start = at;
        while at < head.len() && head[at].is_ascii_alphanumeric() {
            at += 1;
        }
        let (before, word) = (&head[..start], &head[start..at]);
        match head.get(at) {
            Some(b']') if before.ends_with(b"[") => {
                if let Some(level) = named(word) {
                    return Some(level);
                }
            }
            Some(b':') => {
                let leads = before.is_empty() || before.ends_with(b": ") || before.ends_with(b"] ");
                let value = head[at + 1..].trim_ascii_start();
                // "error: 0.05" is a measurement.
                let measured = value
                    .first()
                    .is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
                let rest = head.get(at + 1);
                if leads && !measured && matches!(rest, None | Some(b' ' | b'\t')) {
                    if word.len() > 7 && word.ends_with(b"Warning") {
                        return Some(Level::Warn);
                    }
                    if let Some(level) = named(word) {
                        return Some(level);
                    }
                }
            }
            _ => {}
        }
    }
    None
}

/// `level=warn` among other pairs.
fn logfmt(text: &[u8]) -> Option<Level> {
    for at in memchr::memchr_iter(b'=', text) {
        // Cheap first: the keys' last letters.
        if at < 3
            || !matches!(text[at - 1], b'l' | b'y' | b'e' | b't')
            || !ends_in_key(&text[..at], |b| b" \t,|[(".contains(&b))
        {
            continue;
        }
        let value = &text[at + 1..];
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value
            .iter()
            .position(|byte| !byte.is_ascii_alphabetic())
            .unwrap_or(value.len());
        if let Some(level) = named(&value[..end]) {
            return Some(level);
        }
    }
    None
}

/// Whether the text ends in a key after its beginning or a byte that may stand before one.
fn ends_in_key(text: &[u8], opens: impl Fn(u8) -> bool) -> bool {
    KEYS.iter().any(|key| {
        text.strip_suffix(*key)
            .is_some_and(|before| before.last().is_none_or(|&byte| opens(byte)))
    })
}

/// The level of a JSON object on one line: the first of its fields that is one.
fn json(text: &[u8]) -> Option<Level> {
    let text = &text[..text.len().min(JSON_HEAD)];
    for at in memchr::memchr_iter(b':', text) {
        let Some(key) = text[..at].trim_ascii_end().strip_suffix(b"\"") else {
            continue;
        };
        // `log.level` is Elastic's.
        if !ends_in_key(key, |byte| byte == b'"' || byte == b'.') && !key.ends_with(b"\"@l") {
            continue;
        }
        let value = text[at + 1..].trim_ascii_start();
        let level = match value.first() {
            Some(b'"') => {
                let value = &value[1..];
                let end = value.iter().position(|byte| *byte == b'"').unwrap_or(value.len());
                named(&value[..end])
            }
            Some(b'0'..=b'9') => {
                let digits = value.iter().take(3).take_while(|byte| byte.is_ascii_digit());
                numbered(digits.fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
            }
            _ => None,
        };
        if level.is_some() {
            return level;
        }
    }
    None
}

/// Levels as numbers: syslog's 0 to 7 downwards, and 10 to 60 upwards (pino, bunyan; Python's stop at 50).
fn numbered(number: u32) -> Option<Level> {
    Some(match number {
        0..=2 => Level::Fatal,
        3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        7 => Level::Debug,
        10..20 => Level::Trace,
        20..30 => Level::Debug,
        30..40 => Level::Info,
        40..50 => Level::Warn,
        50..60 => Level::Error,
        60..70 => Level::Fatal,
        _ => return None,
    })
}
