//! Lines that state no level and yet are errors, and the lines that go on with them.

use super::said::upper_pair;

/// What an error's first line is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Indented lines.
    Indented = 1,
    /// Python's frames, then the line that names the exception.
    Traceback,
    /// The panic's message, then a stack.
    Panic,
    /// Frames and notes that [`continues`] knows.
    Stack,
    /// Goroutines: functions and places in turn.
    Go,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Indented, Self::Traceback, Self::Panic, Self::Stack, Self::Go]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// First lines of errors, by how they begin.
const BEGINNINGS: [(&[u8], Kind); 16] = [
    (b"Traceback (most recent call last)", Kind::Traceback),
    (b"panic: ", Kind::Go),
    (b"fatal error: ", Kind::Go),
    (b"SIGSEGV: ", Kind::Go),
    (b"Exception in thread ", Kind::Stack),
    (b"Exception ignored in", Kind::Stack),
    (b"terminate called ", Kind::Stack),
    (b"Segmentation fault", Kind::Stack),
    (b"Bus error", Kind::Stack),
    (b"Aborted (core dumped)", Kind::Stack),
    (b"Fatal Python error: ", Kind::Stack),
    (b"*** SIG", Kind::Stack),
    (b"*** Error in ", Kind::Stack),
    (b"cudaError", Kind::Stack),
    (b"Out of memory: Killed process", Kind::Stack),
    (b"CUDA kernel errors might be asynchronously reported", Kind::Stack),
];

/// What makes an error of a line wherever it stands. Each begins with one of C, N and G and has two capitals
/// side by side, by which lines are sifted.
const WITHIN: [&[u8]; 10] = [
    b"CUDA error",
    b"CUDA out of memory",
    b"CUDA driver error",
    b"CUBLAS_STATUS_",
    b"CUDNN_STATUS_",
    b"NCCL error",
    b"NCCL failure",
    b"NCCL operation",
    b"NVRM: Xid",
    b"GPUassert",
];

/// How the names of exceptions end.
const TYPES: [&[u8]; 5] = [
    b"Error",
    b"Exception",
    b"KeyboardInterrupt",
    b"SystemExit",
    b"StopIteration",
];

/// How lines that go on with an error begin.
const CONTINUATIONS: [&[u8]; 26] = [
    b"at ",
    b"Caused by",
    b"Suppressed:",
    b"... ",
    b"note: ",
    b"stack backtrace:",
    b"goroutine ",
    b"created by ",
    b"[signal ",
    b"exit status ",
    b"frame #",
    b"Exception raised from ",
    b"CUDA kernel errors might",
    b"For debugging consider passing",
    b"Compile with `TORCH_USE_CUDA_DSA`",
    b"Device-side assert",
    b"Search for `cuda",
    b"During handling of the above exception",
    b"The above exception was",
    b"Last error:",
    b"nccl",
    b"what():",
    b"Thread 0x",
    b"Current thread 0x",
    b"Extension modules:",
    b"If reserved but unallocated memory is large",
];

/// Whether a line without a level begins an error.
pub(super) fn fault(text: &[u8]) -> Option<Kind> {
    let first = *text.first()?;
    if let Some((_, kind)) = BEGINNINGS
        .iter()
        .find(|(beginning, _)| beginning[0] == first && text.starts_with(beginning))
    {
        return Some(*kind);
    }
    if first == b't' && text.starts_with(b"thread '") && contains(text, b"panicked at ") {
        // Since 1.73 the message has a line of its own.
        return Some(if text.ends_with(b":") { Kind::Panic } else { Kind::Stack });
    }
    if first.is_ascii_alphabetic() && exception(text) {
        return Some(Kind::Stack);
    }
    let head = &text[..text.len().min(512)];
    let begins = |at: usize| WITHIN.iter().any(|needle| head[at..].starts_with(needle));
    (upper_pair(head) && memchr::memchr3_iter(b'C', b'N', b'G', head).any(begins)).then_some(Kind::Stack)
}

/// `torch.OutOfMemoryError: …`, `KeyError: 'x'`, `java.lang.IllegalStateException`: the name, then nothing or a colon.
fn exception(text: &[u8]) -> bool {
    let end = text
        .iter()
        .take(120)
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$')));
    let (name, rest) = text.split_at(end.unwrap_or(text.len().min(120)));
    let closes = matches!(rest, [] | [b':'] | [b':', b' ', ..]);
    closes && name.len() > 5 && name[0].is_ascii_alphabetic() && TYPES.iter().any(|ending| name.ends_with(ending))
}

/// Whether Python's traceback begins here.
pub(super) fn traceback(text: &[u8]) -> bool {
    text.starts_with(b"Traceback (most recent call last)")
}

/// Whether the line can only be the continuation of an error.
pub(super) fn continues(text: &[u8]) -> bool {
    CONTINUATIONS
        .iter()
        .any(|beginning| beginning[0] == text[0] && text.starts_with(beginning))
}

/// `main.main()`, `net/http.(*conn).serve(0xc000, {0x1, 0x2})`.
pub(super) fn go_frame(text: &[u8]) -> bool {
    text.ends_with(b")") && text.contains(&b'.') && !text[..text.len().min(16)].contains(&b' ')
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}
