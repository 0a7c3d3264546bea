//! What needs a person: questions, secrets typed without an echo, and progress.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
};

use api::{ApiError, ErrorCode};

use crate::output::View;

/// Whether there is a person to ask.
pub(crate) fn interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks before something that can't be taken back. Without a terminal, `flag` must have been given.
///
/// # Errors
/// `INVALID_ARGUMENT` where there is nobody to ask, `CONFLICT` where the answer is no.
pub(crate) fn confirm(question: &str, agreed: bool, flag: &str) -> Result<(), ApiError> {
    if agreed {
        return Ok(());
    }
    if !interactive() {
        return Err(ApiError::new(
            ErrorCode::InvalidArgument,
            format!("this needs {flag} where there is no terminal to ask on"),
        )
        .cause(question.to_owned()));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ")
        .and_then(|()| io::stderr().flush())
        .and_then(|()| io::stdin().read_line(&mut answer));
    match (asked, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(ApiError::new(
            ErrorCode::Conflict,
            "nothing was done: the answer wasn't yes",
        )),
    }
}

/// A secret: typed without an echo on a terminal, else the first line of standard input.
///
/// # Errors
/// `INVALID_ARGUMENT` where nothing is given.
pub(crate) fn secret(prompt: &str) -> Result<String, ApiError> {
    let text = if interactive() {
        typed(prompt)
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    };
    let text =
        text.map_err(|error| ApiError::new(ErrorCode::InvalidArgument, "no token was given").cause(error.to_string()))?;
    match text.trim() {
        "" => Err(ApiError::new(ErrorCode::InvalidArgument, "no token was given")
            .hint("give it with --token, or on standard input")),
        text => Ok(text.to_owned()),
    }
}

/// A new secret, typed twice without an echo: what nobody sees is easily mistyped.
///
/// # Errors
/// `INVALID_ARGUMENT` where nothing is given, or two different things are.
pub(crate) fn new_secret(prompt: &str) -> Result<String, ApiError> {
    let refuse =
        |error: io::Error| ApiError::new(ErrorCode::InvalidArgument, "no value was given").cause(error.to_string());
    let first = typed(prompt).map_err(refuse)?;
    if first == typed("Once more").map_err(refuse)? {
        return Ok(first);
    }
    Err(
        ApiError::new(ErrorCode::InvalidArgument, "nothing was changed: the two values differ")
            .hint("a value of several lines comes from a file: --file FILE"),
    )
}

/// Reads a line from the terminal without showing it.
fn typed(prompt: &str) -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    // Ctrl-C is read as a byte: ended by the signal, the terminal would stay silent.
    silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    write!(io::stderr(), "{prompt}: ")?;
    io::stderr().flush()?;
    let read = line_of(&mut stdin.lock());
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    writeln!(io::stderr())?;
    read
}

/// Bytes up to the end of the line, with the keys that a person corrects with.
fn line_of(input: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0u8];
    loop {
        if input.read(&mut byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\n' | b'\r' | 4 => break,
            3 => return Err(io::ErrorKind::Interrupted.into()),
            8 | 127 => {
                line.pop();
            }
            21 => line.clear(),
            other => line.push(other),
        }
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A line on standard error that shows how something goes on; nothing where that is no terminal.
pub(crate) struct Progress {
    shown: Option<String>,
    enabled: bool,
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        Self {
            shown: None,
            enabled: io::stderr().is_terminal(),
        }
    }

    /// Shows this line in place of the last one.
    pub(crate) fn show(&mut self, text: &str) {
        if self.enabled && self.shown.as_deref() != Some(text) {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            let _ = io::stderr().flush();
            self.shown = Some(text.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Text on a terminal that is drawn again in its own place.
pub(crate) struct Live<W> {
    to: W,
    /// Lines that the last frame took.
    lines: usize,
}

impl<W: Write + IsTerminal + AsFd> Live<W> {
    /// Nothing drawn yet. Only for what is [`able`].
    pub(crate) fn new(to: W) -> Self {
        Self { to, lines: 0 }
    }

    /// How tables are drawn there, at this moment.
    pub(crate) fn view(&self) -> View {
        View::of(&self.to)
    }

    /// Draws a frame in the last one's place; what the terminal has no lines for is left out at the end.
    pub(crate) fn draw(&mut self, text: &str) -> io::Result<()> {
        let rows = rustix::termios::tcgetwinsize(&self.to).map_or(0, |size| usize::from(size.ws_row));
        // One line stays free for the cursor.
        let room = if rows < 2 { 24 } else { rows } - 1;
        let frame = fit(text, room);
        let count = frame.lines().count();
        // Lines that are too long are cut, not wrapped: the next frame must know how many there are.
        write!(self.to, "{}\x1b[?7l{frame}\x1b[?7h", over(self.lines))?;
        self.to.flush()?;
        self.lines = count;
        Ok(())
    }

    /// Draws the last frame, whole and with long lines wrapped; what follows is printed below it.
    pub(crate) fn end(mut self, text: &str) -> io::Result<()> {
        write!(self.to, "{}{text}", over(self.lines))?;
        self.to.flush()
    }
}

/// Whether there is a terminal that can draw in place.
pub(crate) fn able(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Goes to the beginning of the last frame, and clears from there on.
fn over(lines: usize) -> String {
    match lines {
        0 => String::new(),
        lines => format!("\r\x1b[{lines}A\x1b[J"),
    }
}

/// The first lines of a text, and how many more there are where they don't fit.
fn fit(text: &str, room: usize) -> String {
    let count = text.lines().count();
    let shown = if count > room { room.saturating_sub(1) } else { count };
    let mut frame = String::new();
    for line in text.lines().take(shown) {
        frame.push_str(line);
        frame.push('\n');
    }
    if count > shown {
        frame.push_str(&format!("({} more lines)\n", count - shown));
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_line_can_be_corrected_and_given_up() {
        let read = |bytes: &[u8]| line_of(&mut &bytes[..]);
        assert_eq!(read(b"secrex\x7ft\nrest").unwrap(), "secret");
        assert_eq!(read(b"wrong\x15right\r").unwrap(), "right");
        assert_eq!(read(b"abc\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
    #[test]
    fn a_frame_fits_the_terminal_and_says_what_it_leaves_out() {
        assert_eq!(fit("a\nb\n", 2), "a\nb\n");
        assert_eq!(fit("a\nb\nc\n", 2), "a\n(2 more lines)\n");
        assert_eq!(over(0), "");
    }
}
