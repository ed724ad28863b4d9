//! Commands on a terminal of a certain width, with a person who answers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A finished command, with everything that its terminal showed.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) shown: String,
}

/// Runs a command with standard input, output and error on a terminal of `columns` columns. Each
/// answer is typed once the terminal shows the text before it.
pub(crate) fn on_terminal(
    mut command: Command,
    columns: u16,
    answers: &[(&str, &str)],
) -> Finished {
    let person =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&person).expect("it is ours");
    unlockpt(&person).expect("it is ours");
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&person, size).expect("it has a size");
    let name = ptsname(&person, Vec::new()).expect("a name");
    let line = || -> Stdio {
        let mut options = File::options();
        let line = options.read(true).write(true);
        let line = line.open(name.to_str().expect("text"));
        OwnedFd::from(line.expect("it can be opened")).into()
    };
    command.stdin(line()).stdout(line()).stderr(line());
    let mut child = command.spawn().expect("it starts");
    // The terminal ends with its last writer.
    drop(command);
    let mut person = File::from(person);
    let mut shown = Vec::new();
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut seen = 0;
    let mut part = [0; 4096];
    // It ends with an error once the command is gone.
    while let Ok(length @ 1..) = person.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
        while let Some((before, answer)) = next {
            let text = String::from_utf8_lossy(&shown[seen..]).into_owned();
            if !text.contains(before) {
                break;
            }
            seen = shown.len();
            person.write_all(answer.as_bytes()).expect("typed");
            next = answers.next();
        }
    }
    Finished {
        status: child.wait().expect("it ends"),
        shown: String::from_utf8_lossy(&shown).replace('\r', ""),
    }
}
