//! How grave a line is, told from its text.
//!
//! [`said`] reads the level that a line states of itself (JSON, logfmt, klog, a prefix), [`fault`] knows the
//! lines that state none and yet are errors, and those that go on with one. A [`Detector`] goes through the
//! lines of one writer in order: a traceback, a panic or a CUDA error counts as an error from its first line to
//! its last, and an indented line counts with the line it belongs to.
//!
//! A line of which nothing is known has no level. Filters take it as [`Level::Info`].

mod fault;
mod said;

use std::fmt;
use std::str::FromStr;

use fault::Kind;

/// How grave a line is, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Finer than debug.
    Trace,
    /// For whoever debugs the program.
    Debug,
    /// What a line without a level counts as.
    Info,
    /// Odd, but the program goes on.
    Warn,
    /// Something failed; also tracebacks, panics, CUDA and NCCL errors.
    Error,
    /// The program can't go on.
    Fatal,
}

impl Level {
    /// All, from least to most grave.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// Its name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// 0 for none, 1 for trace up to 6 for fatal.
    pub(super) fn code(level: Option<Self>) -> u8 {
        level.map_or(0, |level| level as u8 + 1)
    }

    /// What [`Self::code`] gave; unknown codes are none.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The word is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a level: trace, debug, info, warn, error or fatal")]
pub struct LevelError;

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or(LevelError)
    }
}

/// Indented lines that count with the line before them, at most: whoever indents everything isn't all errors.
const INDENTED_MAX: u16 = 200;
/// Lines of one traceback or stack, at most.
const STACK_MAX: u16 = 5000;

/// What the lines before say about the next one. One for each writer (stream and source): lines of others may come
/// in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detector {
    /// What goes on, if anything.
    group: Option<Group>,
    /// Level of a line whose rest comes next.
    unfinished: Option<Option<Level>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    kind: Kind,
    level: Level,
    /// Lines that may still belong to it.
    left: u16,
    /// The line before was empty: only what names itself a continuation still is one.
    blank: bool,
}

impl Detector {
    /// The level of the writer's next line; `partial`: the line goes on in the one after it, which then has its level.
    pub fn next(&mut self, text: &[u8], partial: bool) -> Option<Level> {
        let level = match self.unfinished.take() {
            Some(level) => level,
            None => self.line(text),
        };
        if partial {
            self.unfinished = Some(level);
        }
        level
    }

    fn line(&mut self, text: &[u8]) -> Option<Level> {
        let text = said::body(text);
        if let Some(group) = &mut self.group {
            if group.left > 0 && group.goes_on(text) {
                group.left -= 1;
                return Some(group.level);
            }
            self.group = None;
        }
        let indented = matches!(text.first(), Some(b' ' | b'\t'));
        let (level, kind) = match said::said(text) {
            // What an error says of itself may still be followed by a stack.
            Some(level) if level >= Level::Error => (level, fault::fault(text).unwrap_or(Kind::Indented)),
            Some(level) => (level, Kind::Indented),
            None => (Level::Error, fault::fault(text)?),
        };
        // What is indented itself leads nothing.
        if !indented || kind != Kind::Indented {
            self.group = Some(Group {
                kind,
                level,
                left: if kind == Kind::Indented {
                    INDENTED_MAX
                } else {
                    STACK_MAX
                },
                blank: false,
            });
        }
        Some(level)
    }

    /// As a number, 0 for a fresh one.
    pub(super) fn encode(self) -> u64 {
        let group = self.group.map_or(0, |group| {
            1 | u64::from(group.blank) << 1
                | (group.kind as u64) << 2
                | u64::from(Level::code(Some(group.level))) << 8
                | u64::from(group.left) << 16
        });
        let unfinished = self
            .unfinished
            .map_or(0, |level| 1 | u64::from(Level::code(level)) << 1);
        group << 8 | unfinished
    }

    /// What [`Self::encode`] gave; fresh for what makes no sense.
    pub(super) fn decode(number: u64) -> Self {
        let (group, unfinished) = (number >> 8, number as u8);
        let group = match (
            Kind::from_code((group >> 2) as u8 & 0x3f),
            Level::from_code((group >> 8) as u8),
        ) {
            (Some(kind), Some(level)) if group & 1 != 0 => Some(Group {
                kind,
                level,
                left: (group >> 16) as u16,
                blank: group & 2 != 0,
            }),
            _ => None,
        };
        Self {
            group,
            unfinished: (unfinished & 1 != 0).then(|| Level::from_code(unfinished >> 1)),
        }
    }
}

impl Group {
    /// Whether the line belongs to it.
    fn goes_on(&mut self, text: &[u8]) -> bool {
        if text.iter().all(|byte| byte.is_ascii_whitespace()) {
            // An empty line ends what is only held together by its indentation.
            let goes_on = self.kind != Kind::Indented && !self.blank;
            self.blank = true;
            return goes_on;
        }
        let blank = std::mem::take(&mut self.blank);
        if matches!(text.first(), Some(b' ' | b'\t')) {
            let inner = text.trim_ascii_start();
            return match self.kind {
                // A program that indents may still say of each line what it is.
                Kind::Indented => !blank && said::said(inner).is_none(),
                // Source lines and frames say anything.
                Kind::Traceback | Kind::Go => true,
                Kind::Panic | Kind::Stack => !blank || fault::continues(inner),
            };
        }
        match self.kind {
            Kind::Indented => false,
            // The line that names the exception ends the frames.
            Kind::Traceback => {
                self.kind = Kind::Stack;
                fault::traceback(text) || said::said(text).is_none_or(|level| level == Level::Error)
            }
            Kind::Panic => {
                self.kind = Kind::Stack;
                said::said(text).is_none()
            }
            Kind::Stack => {
                if fault::traceback(text) {
                    self.kind = Kind::Traceback;
                    return true;
                }
                fault::continues(text)
            }
            Kind::Go => fault::continues(text) || fault::go_frame(text),
        }
    }
}

#[cfg(test)]
mod tests;
