//! What a gateway leaves for the command line of the same user on the same machine: its admin token.
//!
//! One file a port under `$XDG_STATE_HOME/clawbernetes/gateways`, readable by its owner alone. The gateway writes it
//! at its start; the command line reads it for gateways at loopback addresses when no other token is given.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use api::{ApiError, ErrorCode};

/// A folder of the XDG base directory specification: `$variable`, or `fallback` in the home folder.
///
/// `None`: neither the variable nor `HOME` is set (relative values count as unset).
pub(crate) fn xdg_dir(variable: &str, fallback: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(fallback)))
}

/// Where the admin token of this user's gateway on `port` of this machine lies. `None`: this user has no home.
pub(crate) fn token_path(port: u16) -> Option<PathBuf> {
    let state = xdg_dir("XDG_STATE_HOME", ".local/state")?;
    Some(state.join("clawbernetes/gateways").join(format!("{port}.token")))
}

/// Reads the admin token of this user's gateway on `port` of this machine. `None`: there is none.
///
/// # Errors
/// `PERMISSION_DENIED` where others can read the file or it belongs to somebody else, `INTERNAL` where it can't be read.
pub(crate) fn read_token(port: u16) -> Result<Option<(String, PathBuf)>, ApiError> {
    let Some(path) = token_path(port) else {
        return Ok(None);
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(ApiError::internal(format!("{} can't be read", path.display())).cause(error.to_string()));
        }
    };
    check_private(&path)?;
    let token = text.trim();
    Ok((!token.is_empty()).then(|| (token.to_owned(), path)))
}

/// Refuses a file with a secret in it that others than its owner can read.
///
/// # Errors
/// `PERMISSION_DENIED`, with the command that mends it.
pub(crate) fn check_private(path: &Path) -> Result<(), ApiError> {
    let mode = fs::metadata(path)
        .map_err(|error| ApiError::internal(format!("{} can't be read", path.display())).cause(error.to_string()))?
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::PermissionDenied,
        format!("{} holds a token and can be read by others", path.display()),
    )
    .cause(format!("its mode is {:03o}, and must be 600", mode & 0o777))
    .hint(format!("chmod 600 {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_cure() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = check_private(&path).unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert_eq!(error.hint, Some(format!("chmod 600 {}", path.display())));
        assert!(!format!("{error:?}").contains("secret"));
    }
}
