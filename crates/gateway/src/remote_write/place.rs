//! Up to when everything was sent, as it stands on disk.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

/// The place of one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Whose it is.
    url: String,
    /// All up to here was sent, ms since 1970 UTC.
    pub(super) sent_to_ms: i64,
    /// And what follows up to here may have been, in part.
    pub(super) sending_to_ms: Option<i64>,
}

impl Place {
    /// The place in a file. Another receiver, or a file that can't be read, begins now.
    pub(super) fn read(file: &Path, url: &str, now_ms: i64) -> Self {
        let begins = Self {
            url: url.to_owned(),
            sent_to_ms: now_ms,
            sending_to_ms: None,
        };
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return begins,
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "remote write begins anew");
                return begins;
            }
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(place) if place.url == url => place,
            Ok(_) => begins,
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "remote write begins anew");
                begins
            }
        }
    }

    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        crate::private::write(file, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_that_of_its_receiver() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("place.json");
        let mut place = Place::read(&file, "http://a/", 5);
        assert_eq!((place.sent_to_ms, place.sending_to_ms), (5, None));
        place.sending_to_ms = Some(7);
        place.write(&file).unwrap();
        assert_eq!(Place::read(&file, "http://a/", 9), place);
        assert_eq!(Place::read(&file, "http://b/", 9).sent_to_ms, 9);
        fs::write(&file, "{").unwrap();
        assert_eq!(Place::read(&file, "http://a/", 9).sent_to_ms, 9);
    }
}
