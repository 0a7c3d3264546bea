//! Cuts a stream of bytes into lines.

use api::wire::LINE_MAX_BYTES;

/// What has come of a line whose newline hasn't.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes and gives each line that they complete, without its newline, and whether it goes on in the next:
    /// one longer than [`LINE_MAX_BYTES`] is cut, between characters where it is UTF-8.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LINE_MAX_BYTES - self.pending.len();
            // A newline that comes just behind a full line still ends it.
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                if self.pending.is_empty() {
                    line(&window[..end], false);
                } else {
                    self.pending.extend_from_slice(&window[..end]);
                    line(&self.pending, false);
                    self.pending.clear();
                }
                bytes = &bytes[end + 1..];
            } else if bytes.len() > room {
                self.pending.extend_from_slice(&bytes[..room]);
                bytes = &bytes[room..];
                let cut = character_boundary(&self.pending);
                line(&self.pending[..cut], true);
                self.pending.drain(..cut);
            } else {
                self.pending.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// Gives what is left at the end of the stream.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8], bool)) {
        if !self.pending.is_empty() {
            line(&self.pending, true);
            self.pending.clear();
        }
    }
}

/// The end of the last whole character; the end of the bytes where they aren't UTF-8 there.
fn character_boundary(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => 1,
        };
        return if length > back && at > 0 { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |text, partial| out.push((text.to_vec(), partial)));
        }
        lines.finish(|text, partial| out.push((text.to_vec(), partial)));
        out
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_the_chunks_end() {
        assert_eq!(
            cut(&[b"a\n\nb", b"c\nd", b"", b"e"]),
            [
                (b"a".to_vec(), false),
                (b"".to_vec(), false),
                (b"bc".to_vec(), false),
                (b"de".to_vec(), true)
            ]
        );
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_a_longer_one_is_not() {
        let longest = vec![b'x'; LINE_MAX_BYTES];
        assert_eq!(
            cut(&[&longest, b"\ny\n"]),
            [(longest.clone(), false), (b"y".to_vec(), false)]
        );
        assert_eq!(cut(&[&longest, b"y\n"]), [(longest, true), (b"y".to_vec(), false)]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "ä€".repeat(LINE_MAX_BYTES / 2);
        let parts = cut(&[text.as_bytes(), b"\n"]);
        assert!(parts.len() > 2);
        let all: String = parts
            .iter()
            .map(|(part, _)| std::str::from_utf8(part).unwrap())
            .collect();
        assert_eq!(all, text);
        let binary = vec![0x80; LINE_MAX_BYTES * 2];
        assert_eq!(
            cut(&[&binary]).iter().map(|(part, _)| part.len()).sum::<usize>(),
            binary.len()
        );
    }
}
