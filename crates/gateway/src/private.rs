//! Files with secrets in them: their owner's alone, and whole or not there at all.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, remove_file, rename},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Makes a folder that only its owner can enter, with those above it. One that is there is left as it is.
///
/// # Errors
/// Those of the file system.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner can read, whole or not at all, making its folders; on disk when this returns.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        make_dir(folder)?;
    }
    // Beside the file itself, so that the rename stays within one file system; two writers don't meet.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let draft = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        // One that was left by a writer who died may be more open.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        rename(&draft, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn private_files_are_written_whole_and_for_their_owner() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/9000.token");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(home.path().join("a/b")).unwrap().mode() & 0o777, 0o700);
        let files = fs::read_dir(home.path().join("a/b")).unwrap().count();
        assert_eq!(files, 1, "no draft is left");
    }
}
