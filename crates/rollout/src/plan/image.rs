//! Which image a sentence means.

use api::{ApiError, workload::HOST_IMAGE};

use super::{Notes, steps};

/// An image and what the revision that runs it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Empty: nobody says.
    pub image: String,
    /// `None`: nobody says.
    pub version: Option<String>,
}

/// A reference in its parts: `reg:5000/x/y:v1@sha256:…`.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn read(image: &'a str) -> Self {
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (image, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let name = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[name..].find(':') {
            Some(colon) => (&rest[..name + colon], Some(&rest[name + colon + 1..])),
            None => (rest, None),
        };
        Self {
            repository,
            tag,
            digest,
        }
    }
}

/// Tags as registries take them (OCI distribution specification): `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn check_version(version: &str) -> Result<(), ApiError> {
    let fits = (1..=128).contains(&version.len())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !version.starts_with(['.', '-']);
    if fits {
        return Ok(());
    }
    Err(ApiError::invalid(
        "intent",
        format!("'{version}' can't be a version: no image can have it as its tag"),
    )
    .hint("letters, digits, '_', '.' and '-', at most 128: v2.1"))
}

/// The image: the one that is `named` (in the sentence, or by `--image`), otherwise that of the template or of the
/// revision before (`base`), with the version as its tag.
///
/// - a named image that has a tag or digest stays as it is; one without takes the version as its tag
/// - a digest of `base` is dropped, since it is of another version
/// - [`HOST_IMAGE`] stays; the version is told by the variable `VERSION` (see [`super::spec`])
///
/// Without a version in the sentence, a named image's tag is one; `base` keeps `base_version`, or its tag.
pub(super) fn resolve(
    named: Option<&str>,
    said: Option<&str>,
    base: &str,
    base_version: Option<&str>,
    notes: &mut Notes,
) -> Result<Resolved, ApiError> {
    if let Some(version) = said {
        check_version(version)?;
    }
    let version = |otherwise: Option<&str>| said.or(otherwise).map(str::to_owned);
    if let Some(named) = named {
        if named.is_empty() || named.contains(char::is_whitespace) {
            return Err(ApiError::invalid("image", format!("'{named}' is no image")));
        }
        let reference = Reference::read(named);
        let image = match (said, reference.tag) {
            (Some(version), None) if named != HOST_IMAGE && reference.digest.is_none() => {
                format!("{}:{version}", reference.repository)
            }
            (Some(version), Some(tag)) if tag != version => {
                notes.warn(format!("it is called {version}, and its image's tag is '{tag}'"));
                named.to_owned()
            }
            _ => named.to_owned(),
        };
        return Ok(Resolved {
            image,
            version: version(reference.tag),
        });
    }
    if base.is_empty() {
        notes.missing.push(
            "an image: say `image reg/name:tag` in the sentence, or --image reg/name:tag (--image host for a command of \
             the node itself)"
                .to_owned(),
        );
        return Ok(Resolved {
            image: String::new(),
            version: version(None),
        });
    }
    let reference = Reference::read(base);
    let image = match said {
        Some(version) if base != HOST_IMAGE => {
            if let Some(tag) = reference.tag
                && steps::numbered(tag, "v")
                && steps::numbered(version, "")
            {
                notes.warn(format!(
                    "the tag before was '{tag}', with a 'v'; this one is '{version}', without"
                ));
            }
            format!("{}:{version}", reference.repository)
        }
        _ => base.to_owned(),
    };
    Ok(Resolved {
        image,
        version: version(base_version.or(reference.tag)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let digest = "sha256:0123";
        for (image, repository, tag, is) in [
            ("nginx", "nginx", None, None),
            ("nginx:1.27", "nginx", Some("1.27"), None),
            ("reg:5000/x/y", "reg:5000/x/y", None, None),
            ("reg:5000/x/y:v1", "reg:5000/x/y", Some("v1"), None),
            ("reg:5000/x/y:v1@sha256:0123", "reg:5000/x/y", Some("v1"), Some(digest)),
            ("x@sha256:0123", "x", None, Some(digest)),
        ] {
            let read = Reference::read(image);
            assert_eq!(
                (read.repository, read.tag, read.digest),
                (repository, tag, is),
                "{image}"
            );
        }
    }

    #[test]
    fn a_sentence_means_one_image() {
        // named, said, base, base's version -> image, version, warnings
        let table: [(
            Option<&str>,
            Option<&str>,
            &str,
            Option<&str>,
            &str,
            Option<&str>,
            usize,
        ); 15] = [
            (
                None,
                Some("v2.1"),
                "reg:5000/x/y:v1",
                Some("v1"),
                "reg:5000/x/y:v2.1",
                Some("v2.1"),
                0,
            ),
            (
                None,
                Some("v2.1"),
                "reg:5000/x/y",
                None,
                "reg:5000/x/y:v2.1",
                Some("v2.1"),
                0,
            ),
            (
                None,
                Some("v2.1"),
                "x/y:v1@sha256:00",
                Some("v1"),
                "x/y:v2.1",
                Some("v2.1"),
                0,
            ),
            (None, Some("v2.1"), "x@sha256:00", None, "x:v2.1", Some("v2.1"), 0),
            (None, None, "x@sha256:00", Some("v3"), "x@sha256:00", Some("v3"), 0),
            (None, None, "x:v3", None, "x:v3", Some("v3"), 0),
            (None, Some("v2"), "host", Some("v1"), "host", Some("v2"), 0),
            (None, Some("2.1"), "x:v2.0", Some("v2.0"), "x:2.1", Some("2.1"), 1),
            (Some("a/b:c"), None, "x:v1", Some("v1"), "a/b:c", Some("c"), 0),
            (Some("a/b"), Some("v2"), "x:v1", Some("v1"), "a/b:v2", Some("v2"), 0),
            (Some("a/b"), None, "x:v1", Some("v1"), "a/b", None, 0),
            (Some("a/b:c"), Some("v2"), "", None, "a/b:c", Some("v2"), 1),
            (
                Some("a/b@sha256:00"),
                Some("v2"),
                "",
                None,
                "a/b@sha256:00",
                Some("v2"),
                0,
            ),
            (Some("host"), Some("v2"), "x:v1", Some("v1"), "host", Some("v2"), 0),
            (None, Some("v2"), "", None, "", Some("v2"), 0),
        ];
        for (named, said, base, base_version, image, version, warnings) in table {
            let mut notes = Notes::default();
            let resolved = resolve(named, said, base, base_version, &mut notes).unwrap();
            assert_eq!((resolved.image.as_str(), resolved.version.as_deref()), (image, version));
            assert_eq!(notes.warnings.len(), warnings, "{:?}", notes.warnings);
            assert_eq!(notes.missing.len(), usize::from(image.is_empty()));
        }
    }

    #[test]
    fn what_no_tag_can_be_is_refused() {
        for version in ["", "v 2", "-1", ".x", "v2:1", "a/b", &"9".repeat(129)] {
            assert!(
                resolve(None, Some(version), "x:v1", None, &mut Notes::default()).is_err(),
                "{version}"
            );
        }
        for image in ["", "a b"] {
            assert!(
                resolve(Some(image), None, "x:v1", None, &mut Notes::default()).is_err(),
                "{image}"
            );
        }
    }
}
