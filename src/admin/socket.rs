//! The Unix socket for the command line: who may connect is decided by the file's mode, and
//! the system names the user at the other end.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::UnixListener;

/// Owner and group of the service may connect, and nobody else.
const MODE: u32 = 0o660;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The error of a socket that can't be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on the socket {}: {reason}", path.display())]
pub struct SocketError {
    path: PathBuf,
    // Part of the message, so it is not a source as well.
    reason: io::Error,
}

impl SocketError {
    /// Returns what to do about it.
    pub fn fix(&self) -> &'static str {
        match self.reason.kind() {
            io::ErrorKind::AddrInUse => {
                "another server uses it: give each server a path of its own with `admin.socket`"
            }
            io::ErrorKind::AlreadyExists => {
                "a file that is no socket has this path: set another one with `admin.socket`"
            }
            _ => {
                "set `admin.socket` to a path of at most 100 bytes in a folder that the service may write to, such as \
                 /run/ivesk-webhook/admin.sock"
            }
        }
    }
}

/// A socket that this process listens on; its file is removed when this is dropped.
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl AdminSocket {
    /// Listens on `path`, and replaces the file of a server that has ended.
    ///
    /// # Errors
    ///
    /// If another server listens there, or the system refuses the path.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let made = remove_stale(path).and_then(|()| bind_private(path));
        let (listener, file) = made.map_err(|reason| SocketError {
            path: path.to_owned(),
            reason,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file,
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Another server may have replaced it since.
        if identity(&self.path).ok() == Some(self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a server that has ended.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match StdUnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Binds the socket and sets its mode before it listens: until then every connection is
/// refused, so that nobody gets in between.
fn bind_private(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&socket, BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    Ok((listener, identity(path)?))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_under_any_umask() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).expect("free");
        let mode = path.metadata().expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let second = AdminSocket::bind(&path).err().expect("in use");
        assert!(second.fix().contains("another server"), "{second}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_files_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "its file remains");
        let socket = AdminSocket::bind(&path).expect("it is replaced");
        drop(socket);

        std::fs::write(&path, "a document").expect("written");
        let refused = AdminSocket::bind(&path).err().expect("refused");
        assert!(refused.fix().contains("no socket"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("readable"), b"a document");

        let long = folder.path().join("x".repeat(200));
        let refused = AdminSocket::bind(&long).err().expect("refused");
        assert!(refused.fix().contains("admin.socket"), "{refused}");
    }
}
