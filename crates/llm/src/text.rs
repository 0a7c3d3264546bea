//! Text of others, made fit for a terminal.

/// Whether a character changes how its neighbours look, or can't be seen: control characters, marks of direction,
/// characters without width, tags.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Without what is hidden, but with its lines; trimmed.
pub fn visible(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| *c == '\n' || !is_hidden(*c))
        .collect();
    kept.trim().to_owned()
}

/// On one line, without what is hidden, of at most `max` characters. `None`: nothing is left.
fn one_line(text: &str, max: usize) -> Option<String> {
    let spaced: String = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    let line = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return None;
    }
    if line.chars().count() <= max {
        return Some(line);
    }
    let mut cut: String = line.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    Some(cut)
}

/// Fewest bytes of a key in a row that count as a part of it.
const PART_BYTES: usize = 6;

/// Whether a text has a part of a secret in it: six bytes in a row, or all of a shorter one. Some servers quote keys,
/// whole or in part, in their complaints.
fn shares(text: &str, secret: &str) -> bool {
    let size = PART_BYTES.min(secret.len());
    size > 0
        && secret
            .as_bytes()
            .windows(size)
            .any(|part| text.as_bytes().windows(size).any(|window| window == part))
}

/// What another said, fit to be told to people: one line of at most `max` characters. `None`: nothing is left, or it has a
/// part of the key in it.
pub fn told(text: &str, max: usize, key: &str) -> Option<String> {
    if shares(text, key) { None } else { one_line(text, max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_goes() {
        let text = "\u{1b}[31mred\u{1b}[0m\u{202e}txet\u{200b}\r\nnext\tone\u{7}\n";
        assert_eq!(visible(text), "[31mred[0mtxet\nnext one");
        assert_eq!(one_line(text, 99).unwrap(), "[31mred [0m txet next one");
        assert_eq!(one_line("abcdef", 4).unwrap(), "abc…");
        assert_eq!(one_line(" \n\u{feff} ", 4), None);
    }

    #[test]
    fn parts_of_a_key_are_found() {
        let key = "sk-proj-AbCdEf012345";
        for told in ["Incorrect key: sk-proj-****2345", "…AbCdEf…", key] {
            assert!(shares(told, key), "{told}");
        }
        assert!(!shares("Incorrect key: ****2345", key));
        assert!(shares("it was abc", "abc"));
        assert!(!shares("anything", ""));
    }
}
