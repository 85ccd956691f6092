//! The socket's place in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Bytes of a socket's path at most: `sun_path` is 108 with its end.
const MAX_PATH: usize = 107;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel has no room for such a path.
    #[error("cannot open the control socket {}: the path has {length} bytes and the kernel takes at most {MAX_PATH}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Something listens there.
    #[error("cannot open the control socket {}: another daemon answers on it", path.display())]
    Live {
        /// The path.
        path: PathBuf,
    },
    /// Something is there that nobody should delete.
    #[error("cannot open the control socket {}: a file that is not a socket is in the way", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {operation} {} for the control socket", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the control socket with mode 0600, creating its directory and replacing a stale socket.
///
/// It is bound inside a directory that only we can enter and then renamed into place, so that at no
/// moment anyone else can connect, and no umask is changed under other threads.
///
/// # Errors
/// When the path is too long, is taken by a living daemon or by something else, or the file system
/// refuses.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let staging = parent.join(format!(".{}", std::process::id()));
    let staged = staging.join("s");
    let length = path.as_os_str().len().max(staged.as_os_str().len());
    if length > MAX_PATH {
        return Err(BindError::TooLong {
            path: path.to_owned(),
            length,
        });
    }
    fs::create_dir_all(parent).map_err(|source| failed("create the directory", parent, source))?;
    make_way(path)?;
    let listener = bind_staged(&staging, &staged, path);
    let _ = fs::remove_file(&staged);
    let _ = fs::remove_dir(&staging);
    listener
}

fn bind_staged(staging: &Path, staged: &Path, path: &Path) -> Result<UnixListener, BindError> {
    // A daemon with our process id may have died half-way through this.
    let _ = fs::remove_file(staged);
    let _ = fs::remove_dir(staging);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(staging)
        .map_err(|source| failed("create the directory", staging, source))?;
    let listener = UnixListener::bind(staged).map_err(|source| failed("bind", staged, source))?;
    fs::set_permissions(staged, fs::Permissions::from_mode(0o600))
        .map_err(|source| failed("set the permissions of", staged, source))?;
    fs::rename(staged, path).map_err(|source| failed("move the socket to", path, source))?;
    Ok(listener)
}

/// Makes sure that whatever has our path may be replaced: only a socket nobody listens on may.
fn make_way(path: &Path) -> Result<(), BindError> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at", path, source)),
    };
    if !there.file_type().is_socket() {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Live {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed("connect to", path, source)),
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> BindError {
    BindError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/daemon.sock");
        let _listener = bind(&path).expect("a socket");
        let mode = fs::metadata(&path)
            .expect("the socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let entries = fs::read_dir(path.parent().expect("a parent"))
            .expect("entries")
            .count();
        assert_eq!(entries, 1);
        UnixStream::connect(&path).expect("it listens under its final name");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("daemon.sock");
        drop(bind(&path).expect("the first"));
        let living = bind(&path).expect("the stale one is replaced");
        let error = bind(&path).expect_err("it lives");
        assert!(
            error.to_string().ends_with("another daemon answers on it"),
            "{error}"
        );
        drop(living);
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("daemon.sock");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(bind(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    }

    #[test]
    fn a_path_the_kernel_cannot_hold_is_named_with_its_length() {
        let path = PathBuf::from(format!("/tmp/{}/daemon.sock", "d".repeat(120)));
        let error = bind(&path).expect_err("too long").to_string();
        assert!(
            error.contains("137 bytes") && error.contains("107"),
            "{error}"
        );
    }
}
