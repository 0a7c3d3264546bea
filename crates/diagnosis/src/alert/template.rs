//! Sentences with places for values: `{node} has been silent for {over}`. A brace itself is written twice.

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Printed as it is.
    Text(&'a str),
    /// The name of a value.
    Place(&'a str),
}

/// A template that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a brace of {template:?} has no partner (a brace itself is written {{{{ or }}}})")]
pub struct TemplateError {
    /// The template.
    pub template: String,
}

/// Splits a template into its pieces.
pub(super) fn pieces(template: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let refuse = || TemplateError {
        template: template.to_owned(),
    };
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            pieces.push(Piece::Text(&tail[..1]));
            rest = &tail[2..];
            continue;
        }
        let end = tail.find('}').ok_or_else(refuse)?;
        let name = tail.get(1..end).ok_or_else(refuse)?;
        if name.is_empty() || name.contains('{') {
            return Err(refuse());
        }
        pieces.push(Piece::Place(name));
        rest = &tail[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Fills the places. A value that isn't known is printed as `unknown`; a template that can't be read, as it is
/// (rules are checked when they are read, so that this doesn't happen).
pub(super) fn render(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let Ok(pieces) = pieces(template) else {
        return template.to_owned();
    };
    pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Place(name) => value(name).unwrap_or_else(|| "unknown".to_owned()),
        })
        .collect()
}

/// As [`render`], for a command that a person will paste into a shell: values are quoted where they need it, for they
/// come from users (names, images).
pub(super) fn render_command(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    render(template, |name| value(name).map(|value| shell_quoted(&value)))
}

fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        match name {
            "node" => Some("gpu-7".to_owned()),
            "image" => Some("a;rm -rf 'x'".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(render("{node}: {{x}} {what}", value), "gpu-7: {x} unknown");
        assert_eq!(
            render_command("see {node} {image}", value),
            r"see gpu-7 'a;rm -rf '\''x'\'''"
        );
    }

    #[test]
    fn braces_need_partners() {
        for bad in ["{", "a}b", "{}", "{a", "{a{b}"] {
            assert!(pieces(bad).is_err(), "{bad}");
        }
    }
}
