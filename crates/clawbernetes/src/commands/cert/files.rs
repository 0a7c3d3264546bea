//! A certificate, its key and the authority as files in a folder.
//!
//! The folder is looked at before anything is asked of the gateway: a key is shown once, and would be lost where it can't
//! be written. All files are written beside their places first and then put there; what they replace is kept as
//! `FILE.old`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use api::{
    ApiError, ErrorCode,
    op::{CertInfo, IssuedCert},
};
use serde::Serialize;

use crate::output::{Grid, Page, Render};

/// Mode of a key: its owner's alone.
const KEY_MODE: u32 = 0o600;

/// Mode of what everybody may see.
const OPEN_MODE: u32 = 0o644;

/// A folder that takes a certificate's files.
pub(super) struct Folder {
    files: Files,
}

/// Where a certificate's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Files {
    /// The certificate.
    certificate: PathBuf,
    /// The certificate and those between it and the root.
    chain: PathBuf,
    /// The private key.
    key: PathBuf,
    /// The root.
    authority: PathBuf,
}

/// A certificate that was written: what is kept of it, and where its files are.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(flatten)]
    info: CertInfo,
    files: Files,
}

impl Render for Written {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::bare();
        for (path, what) in [
            (&self.files.certificate, "the certificate"),
            (
                &self.files.chain,
                "the certificate and those between it and the root: what a server shows",
            ),
            (&self.files.key, "its private key, which is kept nowhere else"),
            (&self.files.authority, "the authority's certificate: what others trust"),
        ] {
            grid.row([path.display().to_string(), what.to_owned()]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        vec![self.info.name.clone()]
    }
}

impl Folder {
    /// Makes the folder where there is none, and sees whether the files can be written there.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` where a file is there and mustn't be replaced, `INVALID_ARGUMENT` where nothing can be written.
    pub(super) fn prepare(folder: &Path, name: &str, replace: bool) -> Result<Self, ApiError> {
        if name == "ca" {
            return Err(ApiError::invalid(
                "name",
                "in a folder, ca.crt is the authority's: 'ca' can't be a certificate too",
            )
            .hint("give it another name, or leave --out away"));
        }
        let place = |end: &str| folder.join(format!("{name}.{end}"));
        let files = Files {
            certificate: place("crt"),
            chain: place("chain.crt"),
            key: place("key"),
            authority: folder.join("ca.crt"),
        };
        let refuse = |error: io::Error| {
            ApiError::invalid("--out", format!("nothing can be written to {}", folder.display()))
                .cause(error.to_string())
        };
        fs::create_dir_all(folder).map_err(refuse)?;
        let probe = draft(&files.key);
        let tried = create(&probe, KEY_MODE).map(drop);
        let _ = fs::remove_file(&probe);
        tried.map_err(refuse)?;
        if !replace {
            for path in [&files.key, &files.certificate, &files.chain] {
                if path.symlink_metadata().is_ok() {
                    return Err(taken(path));
                }
            }
        }
        Ok(Self { files })
    }

    /// Refuses a folder that holds another authority's certificate.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`.
    pub(super) fn check_authority(&self, authority: &str) -> Result<(), ApiError> {
        match fs::read_to_string(&self.files.authority) {
            Ok(there) if there.trim() != authority.trim() => {
                let path = &self.files.authority;
                Err(taken(path).cause("it isn't this fleet's authority"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the files.
    ///
    /// # Errors
    /// `INTERNAL` where that fails: the certificate is issued, and its key is lost.
    pub(super) fn write(self, cert: &IssuedCert) -> Result<Written, ApiError> {
        let files = self.files;
        let all = [
            (&files.key, &cert.key, KEY_MODE),
            (&files.certificate, &cert.certificate, OPEN_MODE),
            (&files.chain, &cert.chain, OPEN_MODE),
            (&files.authority, &cert.authority, OPEN_MODE),
        ];
        let written = (|| {
            for (path, text, mode) in all {
                let mut file = create(&draft(path), mode)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
            }
            for (path, text, _) in all {
                if fs::read_to_string(path).is_ok_and(|there| there == *text) {
                    fs::remove_file(draft(path))?;
                    continue;
                }
                if path.symlink_metadata().is_ok() {
                    fs::rename(path, beside(path, "old"))?;
                }
                fs::rename(draft(path), path)?;
            }
            File::open(files.key.parent().unwrap_or(Path::new(".")))?.sync_all()
        })();
        if let Err(error) = written {
            for (path, ..) in all {
                let _ = fs::remove_file(draft(path));
            }
            let serial = &cert.info.serial;
            return Err(ApiError::internal(format!(
                "the certificate {serial} was issued, but its files can't be written: its key is lost"
            ))
            .cause(error.to_string())
            .hint(format!(
                "make room, clawbernetes cert revoke {serial}, and issue it again"
            )));
        }
        Ok(Written {
            info: cert.info.clone(),
            files,
        })
    }
}

fn taken(path: &Path) -> ApiError {
    ApiError::new(ErrorCode::AlreadyExists, format!("{} is there already", path.display()))
        .hint("choose another folder, or replace what is there with --force (it is kept as FILE.old)")
}

/// Where a file is written before it is put in its place.
fn draft(path: &Path) -> PathBuf {
    beside(path, &format!("{}.tmp", std::process::id()))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{end}"));
    path.with_file_name(name)
}

/// A new file of this mode, whatever the umask says.
fn create(path: &Path, mode: u32) -> io::Result<File> {
    // One that was left by a process of the same id that died.
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use api::op::{CertPurpose, CertStatus};

    use super::*;

    fn cert(key: &str) -> IssuedCert {
        IssuedCert {
            info: CertInfo {
                name: "api".to_owned(),
                serial: "4a".to_owned(),
                status: CertStatus::Valid,
                sans: vec!["api.example".to_owned()],
                algorithm: "ECDSA P-256".to_owned(),
                purpose: CertPurpose::Both,
                fingerprint: "00".to_owned(),
                not_before: api::Timestamp::UNIX_EPOCH,
                not_after: api::Timestamp::UNIX_EPOCH,
                renew_at: api::Timestamp::UNIX_EPOCH,
                issued_by: "user:alice".to_owned(),
                revoked_at: None,
                revoked_for: None,
            },
            certificate: format!("leaf of {key}\n"),
            chain: format!("leaf of {key}\nbetween\n"),
            key: format!("{key}\n"),
            authority: "root\n".to_owned(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_key_is_its_owners_alone_and_never_replaced_unasked() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("deep/tls");
        let written = Folder::prepare(&folder, "api", false)
            .unwrap()
            .write(&cert("first"))
            .unwrap();
        assert_eq!(names(&folder), ["api.chain.crt", "api.crt", "api.key", "ca.crt"]);
        assert_eq!(fs::metadata(&written.files.key).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&written.files.chain).unwrap().mode() & 0o777, 0o644);

        let refused = Folder::prepare(&folder, "api", false).err().unwrap();
        assert_eq!(refused.code, ErrorCode::AlreadyExists);
        assert!(refused.message.contains("api.key") && refused.hint.unwrap().contains("--force"));
        assert!(Folder::prepare(&folder, "other", false).is_ok());

        Folder::prepare(&folder, "api", true)
            .unwrap()
            .write(&cert("second"))
            .unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            (read("api.key"), read("api.key.old")),
            ("second\n".to_owned(), "first\n".to_owned())
        );
        assert_eq!(fs::metadata(folder.join("api.key.old")).unwrap().mode() & 0o777, 0o600);
        assert!(
            !names(&folder).contains(&"ca.crt.old".to_owned()),
            "the same authority isn't replaced"
        );
    }

    #[test]
    fn what_cannot_take_the_files_is_refused_before() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let refused = |folder: &Path, name| Folder::prepare(folder, name, true).err().unwrap();
        assert_eq!(
            refused(&home.path().join("file"), "api").field.as_deref(),
            Some("--out")
        );
        assert_eq!(refused(home.path(), "ca").field.as_deref(), Some("name"));

        fs::write(home.path().join("ca.crt"), "another root\n").unwrap();
        let folder = Folder::prepare(home.path(), "api", false).unwrap();
        assert_eq!(
            folder.check_authority("root\n").unwrap_err().code,
            ErrorCode::AlreadyExists
        );
        assert!(folder.check_authority("another root").is_ok());
        assert_eq!(names(home.path()), ["ca.crt", "file"], "nothing is left behind");
    }

    #[test]
    fn where_writing_fails_the_way_out_is_told_and_no_key_lies_about() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::prepare(home.path(), "api", false).unwrap();
        // In the way of a rename.
        fs::create_dir_all(home.path().join("api.crt.old/full")).unwrap();
        fs::write(home.path().join("api.crt"), "").unwrap();
        let error = folder.write(&cert("canary")).unwrap_err();
        assert!(error.hint.as_deref().unwrap().contains("cert revoke 4a"), "{error:?}");
        assert!(!format!("{error:?}").contains("canary"));
        assert!(
            names(home.path()).iter().all(|name| !name.ends_with(".tmp")),
            "{:?}",
            names(home.path())
        );
    }
}
