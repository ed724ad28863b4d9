//! Ends programs that a service left behind when it was killed.
//!
//! A service that is killed (`kill -9`, out of memory) can't end its programs any more, and its next
//! start would run a second one beside the first. Each program carries the mark of its service in its
//! environment, and hands it on to its children, so what is left of a dead service is found without a file
//! of ours, which could be lost or not yet be written. The system's own way, `PR_SET_PDEATHSIG`, follows
//! the thread that started a program rather than its process, and ends the program without its children.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};

/// The variable with the mark.
pub(super) const MARK: &str = "IVESK_SERVICE";

/// Longest environment that is read (Linux allows a program a quarter of its stack, 2 MiB).
const MAX_ENVIRONMENT_BYTES: u64 = 4 << 20;

/// Most looks at all processes. A second one finds what was started during the first.
const MAX_LOOKS: usize = 10;

/// Returns the mark of this service: its number, the time of its start, by which it differs from a later
/// process of the same number, and its session. `None` if the system does not tell.
pub(super) fn mark() -> Option<String> {
    let service = Process(std::process::id());
    let Life {
        started, session, ..
    } = service.life()?;
    Some(format!("{}:{started}:{session}", service.0))
}

/// Ends every program that a dead service left behind, with its process group; returns their numbers.
/// May block for some milliseconds.
///
/// Only what is still in the service's session is ended: a daemon that a program started has left it.
pub fn end() -> BTreeSet<u32> {
    let mut ended = BTreeSet::new();
    for _ in 0..MAX_LOOKS {
        let found = find();
        if found.is_empty() {
            break;
        }
        for process in found {
            // Another process may have its number by now.
            if process.is_left_behind() {
                process.kill();
                ended.insert(process.0);
            }
        }
        std::thread::yield_now();
    }
    ended
}

/// Returns the processes that carry the mark of a service that does not live any more.
fn find() -> Vec<Process> {
    // Numbers of other name spaces, such as a container's, mean other processes.
    let Ok(own_space) = fs::read_link("/proc/self/ns/pid") else {
        return Vec::new();
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = processes.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse().ok().map(Process)
    });
    numbers
        .filter(|process| {
            process.is_left_behind()
                && fs::read_link(process.path("ns/pid")).is_ok_and(|space| space == own_space)
        })
        .collect()
}

/// A process, by its number.
struct Process(u32);

impl Process {
    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    /// Returns what the system tells of it; `None` if it does not live.
    fn life(&self) -> Option<Life> {
        let stat = fs::read_to_string(self.path("stat")).ok()?;
        // The name in parentheses may contain anything. After it come the state, the parent, the
        // group, the session, and as the 22nd of all fields the time of the start
        // (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [state, _, group, session, ..] = fields[..] else {
            return None;
        };
        // A zombie, or dead.
        let lives = !matches!(state, "Z" | "X" | "x");
        lives.then_some(Life {
            group: group.parse().ok()?,
            session: session.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Returns the mark in its environment, which only its own user and root may read.
    fn mark(&self) -> Option<(Self, u64, u32)> {
        let mut environment = Vec::new();
        let file = File::open(self.path("environ")).ok()?;
        file.take(MAX_ENVIRONMENT_BYTES)
            .read_to_end(&mut environment)
            .ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let mark = variables.find_map(|variable| {
            std::str::from_utf8(variable)
                .ok()?
                .strip_prefix(MARK)?
                .strip_prefix('=')
        })?;
        let mut parts = mark.split(':');
        let service = Self(parts.next()?.parse().ok()?);
        let started = parts.next()?.parse().ok()?;
        let session = parts.next()?.parse().ok()?;
        Some((service, started, session))
    }

    /// Returns false for this process too: a program of the dead service may have started it, with its mark.
    fn is_left_behind(&self) -> bool {
        if self.0 == std::process::id() {
            return false;
        }
        let Some((service, started, session)) = self.mark() else {
            return false;
        };
        let service_lives = service.life().is_some_and(|life| life.started == started);
        !service_lives && self.life().is_some_and(|life| life.session == session)
    }

    fn kill(&self) {
        let pid = |number: u32| Pid::from_raw(i32::try_from(number).ok()?);
        // Errors mean that it has ended meanwhile.
        let group = self.life().and_then(|life| pid(life.group));
        if let Some(group) = group
            && group != getpgrp()
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if let Some(pid) = pid(self.0) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What the system tells of a process that lives.
struct Life {
    group: u32,
    session: u32,
    /// The time of its start, in ticks since the start of the system.
    started: u64,
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Starts a program with a child, in a group of its own, that carries `mark`.
    fn start(mark: &str) -> Child {
        use std::os::unix::process::CommandExt as _;
        #[expect(
            clippy::disallowed_methods,
            reason = "a program of this test, which ends it"
        )]
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "trap '' TERM; sleep 600 & echo started; wait"])
            .env(MARK, mark)
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("it starts");
        let mut line = [0; 8];
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_exact(&mut line).expect("it has started");
        child
    }

    fn is_ended(child: &mut Child) -> bool {
        child.try_wait().expect("it is ours").is_some()
    }

    #[test]
    fn a_service_with_the_mark_of_a_dead_one_does_not_end_itself() {
        let own = Process(std::process::id());
        if own.mark().is_some() {
            // The second run of this test, as below.
            end();
            return;
        }
        let session = own.life().expect("it lives").session;
        let name = "a_service_with_the_mark_of_a_dead_one_does_not_end_itself";
        let program = std::env::current_exe().expect("a path");
        #[expect(
            clippy::disallowed_methods,
            reason = "this test once more, with a mark"
        )]
        let mut command = Command::new(program);
        command
            .args(["--exact", &format!("program::leftovers::tests::{name}")])
            .env(MARK, format!("{}:1:{session}", own.0));
        let output = command.output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {printed}", output.status);
        assert!(printed.contains("1 passed"), "{printed}");
    }

    #[test]
    fn what_a_dead_service_left_behind_is_ended_and_nothing_else() {
        let session = Process(std::process::id())
            .life()
            .expect("it lives")
            .session;
        let own = mark().expect("a mark");
        // Number and session are right, and so it is an earlier process of the same number.
        let dead = format!("{}:1:{session}", std::process::id());
        let daemon = format!("{}:1:{}", std::process::id(), u32::MAX);
        let mut living = [own.as_str(), &daemon, "", "1", "x:y:z"].map(start);
        let mut left = start(&dead);

        let ended = end();

        // It would run for ten minutes.
        let status = left.wait().expect("it has ended");
        assert!(!status.success(), "{status}");
        // Its child held the pipe too.
        let mut rest = Vec::new();
        let mut output = left.stdout.take().expect("a pipe");
        output.read_to_end(&mut rest).expect("all have ended");
        for child in &mut living {
            assert!(
                !is_ended(child) && !ended.contains(&child.id()),
                "{ended:?}"
            );
            Process(child.id()).kill();
            child.wait().expect("it was ended here");
        }
        assert!(!end().contains(&left.id()));
    }
}
