//! What `cap doctor` checks about an SQLite file.

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::finding::Finding;

pub(super) fn check(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let advice = "check the path; cap schema apply creates the file";
            return vec![Finding::problem("file", format!("{shown}: {error}"), advice)];
        }
    };
    let mut findings = vec![if metadata.is_file() {
        Finding::ok("file", format!("{shown}, {} bytes", metadata.len()))
    } else {
        Finding::problem("file", format!("{shown} is not a file"), "name the database file")
    }];
    findings.push(match OpenOptions::new().read(true).append(true).open(path) {
        Ok(_) => Finding::ok("rights", "this user may read and write the file"),
        Err(error) => Finding::problem(
            "rights",
            error.to_string(),
            "run this as the user of the service, or grant the rights",
        ),
    });
    #[cfg(unix)]
    findings.push(mode(&metadata));
    findings
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    let is_open = mode & 0o007 != 0;
    let found = format!("mode {mode:o}");
    if is_open {
        Finding::warning(
            "privacy",
            found,
            "every user of this machine may read the messages: chmod o= on the file",
        )
    } else {
        Finding::ok("privacy", found)
    }
}
