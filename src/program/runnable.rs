//! Finds why a program can't be run, before the system says only "No such file or directory".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::visible::visible;

/// Bytes of a script in which the system looks for its interpreter (Linux, `BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;

/// What Windows editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a program can't be run, with the fix. Reads as the rest of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum Unrunnable {
    /// There is nothing at its path.
    #[error("can't be found: {0}")]
    Missing(io::Error),
    /// It is a folder or a device.
    #[error("is not a file")]
    NotAFile,
    /// Its permissions do not allow it.
    #[error("can't be run; make it executable for the service's user")]
    NotExecutable,
    /// Its lines end as on Windows, so the name of its interpreter has a character too many.
    #[error(
        "has Windows line ends, so its first line asks for the interpreter `{0}\\r`, which does not exist; convert it, \
         for instance with `sed -i 's/\\r$//'`"
    )]
    WindowsLines(String),
    /// A byte order mark is in front of its first line.
    #[error(
        "begins with a byte order mark, so its first line names no interpreter; save it as UTF-8 without one"
    )]
    ByteOrderMark,
    /// Its interpreter is missing.
    #[error(
        "names the interpreter `{0}` in its first line, which is not installed; install it, or correct the line"
    )]
    NoInterpreter(String),
    /// The command that `env` would run is missing.
    #[error(
        "asks `env` for `{0}` in its first line, which is not in the PATH `{1}`; install it, or name its whole path there"
    )]
    NoCommand(String, String),
    /// The system can't load it.
    #[error(
        "is neither a program for this machine nor a script: a script begins with a line such as `#!/bin/sh`"
    )]
    NoFormat,
    /// The loader that it was built for is missing.
    #[error(
        "needs a loader that is not installed; `ldd` names it. Build the program for this system"
    )]
    NoLoader,
}

/// Checks that a program could be started with this environment.
///
/// # Errors
///
/// An [`Unrunnable`] if it surely could not.
pub fn check(program: &Path, environment: &BTreeMap<String, String>) -> Result<(), Unrunnable> {
    let about = std::fs::metadata(program).map_err(Unrunnable::Missing)?;
    if !about.is_file() {
        return Err(Unrunnable::NotAFile);
    }
    access(program, Access::EXEC_OK).map_err(|_| Unrunnable::NotExecutable)?;
    // What may be run need not be readable.
    match head(program) {
        Ok(head) => check_first_line(&head, environment),
        Err(_) => Ok(()),
    }
}

/// Returns why a program could not be started, if the system's error or the program's first line
/// tells.
pub(super) fn explain(
    error: &io::Error,
    program: &Path,
    environment: &BTreeMap<String, String>,
) -> Option<Unrunnable> {
    if let Err(reason) = check(program, environment) {
        return Some(reason);
    }
    match rustix::io::Errno::from_io_error(error)? {
        rustix::io::Errno::NOEXEC => Some(Unrunnable::NoFormat),
        rustix::io::Errno::NOENT
            if head(program).is_ok_and(|head| head.starts_with(b"\x7fELF")) =>
        {
            Some(Unrunnable::NoLoader)
        }
        _ => None,
    }
}

fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(program)?
        .take(HEAD_BYTES)
        .read_to_end(&mut head)?;
    Ok(head)
}

/// Checks the interpreter that a script's first line names; other programs have none.
fn check_first_line(head: &[u8], environment: &BTreeMap<String, String>) -> Result<(), Unrunnable> {
    if head
        .strip_prefix(BYTE_ORDER_MARK)
        .is_some_and(|rest| rest.starts_with(b"#!"))
    {
        return Err(Unrunnable::ByteOrderMark);
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(());
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let is_windows = line.ends_with('\r');
    let line = line.trim_end_matches('\r').trim_matches([' ', '\t']);
    let (interpreter, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let shown = || visible(interpreter).into_owned();
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    // Other interpreters may bear the character among their arguments.
    let is_strict = rest.is_empty() || name == "env" || name.ends_with("sh");
    if is_windows && is_strict && !interpreter.is_empty() {
        let asked = match name {
            "env" => visible(rest.trim()).into_owned(),
            _ => shown(),
        };
        return Err(Unrunnable::WindowsLines(asked));
    }
    // A relative one depends on the folder that the program runs in.
    if interpreter.starts_with('/') && !is_program(Path::new(interpreter)) {
        return Err(Unrunnable::NoInterpreter(shown()));
    }
    if name == "env"
        && let Some(command) = command_of_env(rest)
        && !command.contains('/')
    {
        let path = environment
            .get("PATH")
            .map(String::as_str)
            .unwrap_or_default();
        let found = path
            .split(':')
            .any(|folder| is_program(&PathBuf::from(folder).join(command)));
        if !found {
            return Err(Unrunnable::NoCommand(
                visible(command).into_owned(),
                visible(path).into_owned(),
            ));
        }
    }
    Ok(())
}

/// Returns the command that `env` runs with these arguments; `None` if it has options that are not
/// understood here.
fn command_of_env(arguments: &str) -> Option<&str> {
    let mut words = arguments.split_ascii_whitespace().peekable();
    // The one option that scripts need: it splits the rest into words.
    if words.peek() == Some(&"-S") {
        words.next();
    }
    words
        .find(|word| !word.contains('='))
        .filter(|word| !word.starts_with('-'))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_line(text: &str) -> String {
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        match check_first_line(text.as_bytes(), &environment) {
            Ok(()) => String::new(),
            Err(reason) => reason.to_string(),
        }
    }

    #[test]
    fn the_interpreter_that_is_missing_is_named_with_the_fix() {
        for (text, parts) in [
            ("#!/bin/sh\r\nexit 0\r\n", ["`/bin/sh\\r`", "sed -i"]),
            ("#! /bin/sh -e\r\n", ["`/bin/sh\\r`", "sed -i"]),
            ("#!/usr/bin/env sh\r\n", ["`sh\\r`", "sed -i"]),
            ("\u{feff}#!/bin/sh\n", ["byte order mark", "UTF-8"]),
            (
                "#!/opt/no-such/python3 -u\n",
                ["`/opt/no-such/python3`", "install it"],
            ),
            (
                "#!/usr/bin/env no-such-python\n",
                ["`no-such-python`", "`/usr/bin:/bin`"],
            ),
            (
                "#!/usr/bin/env -S A=1 no-such-python -u",
                ["`no-such-python`", "install it"],
            ),
        ] {
            let reason = first_line(text);
            for part in parts {
                assert!(reason.contains(part), "{text:?}: {reason}");
            }
        }
    }

    #[test]
    fn an_error_of_the_system_is_explained_by_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("program");
        let explained = |text: &str, errno: rustix::io::Errno| {
            crate::private_files::write(&file, text.as_bytes()).expect("written");
            rustix::fs::chmod(&file, 0o755.into()).expect("executable");
            explain(&errno.into(), &file, &BTreeMap::new()).map(|reason| reason.to_string())
        };
        let reason = explained("text", rustix::io::Errno::NOEXEC).expect("a reason");
        assert!(reason.contains("`#!/bin/sh`"), "{reason}");
        let reason = explained("\x7fELF", rustix::io::Errno::NOENT).expect("a reason");
        assert!(reason.contains("loader"), "{reason}");
        assert_eq!(explained("#!/bin/sh\n", rustix::io::Errno::AGAIN), None);
    }

    #[test]
    fn what_could_run_is_not_refused() {
        for text in [
            "#!/bin/sh\nexit 0\n",
            "#!  /bin/sh\t-e\necho '\r'\r\n",
            "#!/usr/bin/env sh",
            "#!/usr/bin/env -S sh -e\n",
            "#!/usr/bin/env --ignore-environment sh\n",
            "#!/usr/bin/env ./beside\n",
            "#!interpreter\n",
            "#!",
            "",
            "\x7fELF",
            "MZ",
            "echo a script that a shell runs",
        ] {
            assert_eq!(first_line(text), "", "{text:?}");
        }
    }
}
