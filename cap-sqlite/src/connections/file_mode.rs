//! Database files that this process creates are readable and writable for their owner alone.
//!
//! SQLite gives `-wal`, `-shm` and the journal the mode of the file that they belong to. A file that is there already
//! keeps its mode: its owner has decided. All of this is a few system calls at the start; errors are left to
//! SQLite, which runs into them again and reports them.

use std::path::{Path, PathBuf};

/// Creates an empty file, which SQLite takes for a new database, unless something of the name is there.
pub(crate) fn create(path: &Path) {
    // `:memory:` and `file:..` are names of SQLite's own, and no files.
    let is_file =
        path.to_str().is_none_or(|name| !name.starts_with(":memory:") && !name.starts_with("file:"));
    #[cfg(unix)]
    if is_file {
        use std::os::unix::fs::OpenOptionsExt as _;
        let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        drop(created);
    }
    #[cfg(not(unix))]
    let _ = (path, is_file);
}

/// The path, if nothing is there that the options of a pool may create.
pub(crate) fn if_missing(path: &Path) -> Option<PathBuf> {
    path.symlink_metadata().is_err().then(|| path.to_owned())
}

/// Restricts a file that was created meanwhile, and what belongs to it.
pub(crate) fn restrict(path: &Path) {
    #[cfg(unix)]
    for suffix in ["", "-wal", "-shm", "-journal"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // One that is not there needs no mode.
        drop(std::fs::set_permissions(PathBuf::from(name), std::fs::Permissions::from_mode(0o600)));
    }
    #[cfg(not(unix))]
    let _ = path;
}
