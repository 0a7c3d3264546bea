//! Where a secret's value comes from: a flag, a file, standard input, or a person who types it.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use api::{
    ApiError, ErrorCode,
    secret::{SECRET_MAX_BYTES, SecretValue},
};

use crate::{cli::App, terminal};

/// Flags that say where the value comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The value itself. Shell history and list of processes show it: --file or - is better
    #[arg(long, value_name = "VALUE", value_parser = value, allow_hyphen_values = true, conflicts_with = "file")]
    value: Option<SecretValue>,
    /// The file whose content is the value, every byte of it; - for standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Read the value from standard input, every byte of it
    // Whatever stands here may be a value in the wrong place: it is taken as one, and refused without being shown.
    #[arg(value_name = "-", value_parser = value)]
    rest: Vec<SecretValue>,
}

#[expect(clippy::unnecessary_wraps, reason = "the form that clap takes")]
fn value(text: &str) -> Result<SecretValue, Infallible> {
    Ok(SecretValue::from(text.to_owned()))
}

impl Source {
    /// The value, of which somebody is asked where no flag says where it is.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is none, or it is empty or too long; `NOT_FOUND` for a file that isn't there.
    pub(super) fn read(self, app: &App, name: &str) -> Result<SecretValue, ApiError> {
        if let Some(value) = self.named(app)? {
            return Ok(value);
        }
        if !terminal::interactive() {
            return Err(ApiError::new(
                ErrorCode::InvalidArgument,
                "no value was given, and nobody is there to ask",
            )
            .hint("--file FILE, or - for standard input; --value VALUE shows it to others on this machine"));
        }
        checked("the value", terminal::new_secret(&format!("Value of {name}"))?.into())
    }

    /// The value that the flags name. `None`: none does.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub(super) fn named(&self, app: &App) -> Result<Option<SecretValue>, ApiError> {
        let file = match self.rest.as_slice() {
            [] => self.file.as_deref(),
            [dash] if dash.expose() == b"-" && self.value.is_none() && self.file.is_none() => Some(Path::new("-")),
            [dash] if dash.expose() == b"-" => {
                return Err(ApiError::invalid(
                    "-",
                    "- can't stand beside --value or --file: the value has one source",
                ));
            }
            _ => {
                return Err(
                    ApiError::invalid("value", "a value isn't taken as a word of the command")
                        .hint("--file FILE, - for standard input, or --value VALUE; words with spaces need quotes"),
                );
            }
        };
        match (&self.value, file) {
            (Some(value), _) => {
                app.out.note(
                    "warning: --value is seen in the shell's history and in the list of processes; --file FILE and - \
                     aren't",
                );
                checked("--value", value.clone()).map(Some)
            }
            (None, Some(file)) => content(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// All of a file, or of standard input.
fn content(file: &Path) -> Result<SecretValue, ApiError> {
    let refuse = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::InvalidArgument,
        };
        ApiError {
            field: Some("--file".to_owned()),
            ..ApiError::new(code, format!("{} can't be read", file.display())).cause(error.to_string())
        }
    };
    // One byte more than is allowed, so that too long is told from just right.
    let limit = SECRET_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let (place, read) = if file.as_os_str() == "-" {
        (
            "standard input".to_owned(),
            io::stdin().take(limit).read_to_end(&mut bytes),
        )
    } else {
        let read = File::open(file).and_then(|open| open.take(limit).read_to_end(&mut bytes));
        (file.display().to_string(), read)
    };
    let value = SecretValue::from(bytes);
    read.map_err(refuse)?;
    checked(&place, value)
}

/// Refuses what is empty or too long.
fn checked(place: &str, value: SecretValue) -> Result<SecretValue, ApiError> {
    match value.expose().len() {
        0 => Err(ApiError::invalid(
            "value",
            format!("{place} is empty: a secret has at least one byte"),
        )),
        n if n > SECRET_MAX_BYTES => Err(ApiError::invalid(
            "value",
            format!(
                "{place} is too long: a secret has at most {} MiB",
                SECRET_MAX_BYTES >> 20
            ),
        )),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::output::{Format, Output};

    #[derive(Debug, Parser)]
    struct Line {
        name: String,
        #[command(flatten)]
        source: Source,
    }

    fn named(words: &[&str]) -> Result<Option<SecretValue>, ApiError> {
        let app = App {
            globals: crate::cli::Globals::default(),
            out: Output::new(Format::Table),
        };
        let line = Line::try_parse_from(["set", "db"].iter().chain(words))
            .map_err(|error| ApiError::new(ErrorCode::InvalidArgument, error.to_string()))?;
        assert!(!format!("{line:?}").contains("canary"), "{line:?}");
        line.source.named(&app)
    }

    #[test]
    fn a_value_comes_from_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, b"two\nlines\n\xff").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(named(&["--value", "-x y"]).unwrap().unwrap().expose(), b"-x y");
        assert_eq!(named(&["--file", file]).unwrap().unwrap().expose(), b"two\nlines\n\xff");
        assert_eq!(named(&[]).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_a_value_is_refused_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long");
        std::fs::write(&long, vec![b'x'; SECRET_MAX_BYTES + 1]).unwrap();
        let just_right = folder.path().join("right");
        std::fs::write(&just_right, vec![b'x'; SECRET_MAX_BYTES]).unwrap();
        assert!(named(&["--file", just_right.to_str().unwrap()]).is_ok());
        let nowhere = folder.path().join("nowhere");
        for (words, code, part) in [
            (&["--value", ""][..], ErrorCode::InvalidArgument, "--value is empty"),
            (
                &["--file", long.to_str().unwrap()],
                ErrorCode::InvalidArgument,
                "at most 1 MiB",
            ),
            (&["--file", nowhere.to_str().unwrap()], ErrorCode::NotFound, "nowhere"),
            (
                &["--file", folder.path().to_str().unwrap()],
                ErrorCode::InvalidArgument,
                "can't be read",
            ),
            (&["canary"], ErrorCode::InvalidArgument, "as a word"),
            (
                &["--value", "canary", "of", "words"],
                ErrorCode::InvalidArgument,
                "as a word",
            ),
            (&["--value", "canary", "-"], ErrorCode::InvalidArgument, "one source"),
            (
                &["--value", "canary", "--file", "x"],
                ErrorCode::InvalidArgument,
                "cannot be used with",
            ),
            (&["-", "canary"], ErrorCode::InvalidArgument, "as a word"),
        ] {
            let error = named(words).unwrap_err();
            assert_eq!(error.code, code, "{words:?}: {error:?}");
            assert!(error.message.contains(part), "{words:?}: {error:?}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
