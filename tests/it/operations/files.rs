//! Files of the service that no other user may read.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::DEFAULT_COMPANIES;
use tokio::process::Command;

use crate::support::emulator::emulator;
use crate::support::process::{Installation, Server, within};

/// Returns the program with these settings, run by a shell that lets everybody read what it makes.
fn open_handed(installation: &Installation, arguments: &[&str]) -> Command {
    let plain = installation.command(arguments);
    let plain = plain.as_std();
    let mut command = Command::new("/bin/sh");
    command.env_clear().kill_on_drop(true);
    command
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(installation.folder());
    let variables = plain.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command
}

async fn succeed(installation: &Installation, arguments: &[&str]) {
    let output = open_handed(installation, arguments).output();
    let output = within("the subcommand's exit", output).await;
    let output = output.expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
}

/// Returns everything below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_user_may_read_a_file_whatever_the_umask() {
    let emulator = emulator("").await;
    let archive = "[destinations.archive]\nkind = 'folder'\npath = 'made/archive'\n\
                   history = 'deliver'\n[upload]\nwatch = 'outbox'\nquiet_time = '1s'";
    let installation = Installation::beside(&emulator, "", archive);
    let folder = installation.folder();
    let outbox = folder.join("outbox");
    std::fs::create_dir(&outbox).expect("created");
    set_mode(&outbox, 0o700);
    set_mode(&installation.settings(), 0o600);

    let mut server = Server::spawn(open_handed(&installation, &["serve"]));
    server.ready().await;
    let control = emulator.control();
    installation.subscribe(&control, &[Event::OnExported]).await;
    control.export(DEFAULT_COMPANIES[0], 2).expect("exported");
    within("the filed documents", async {
        let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let archive = folder.join("made/archive");
        while !archive.exists() || below(&archive).iter().filter(|path| is_json(path)).count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    succeed(&installation, &["store", "backup", "copy.db"]).await;
    succeed(&installation, &["documents", "export", "made/documents"]).await;
    succeed(
        &installation,
        &["notifications", "export", "made/notifications"],
    )
    .await;
    let settings = [
        "--config",
        "fresh.toml",
        "init",
        "--public-url",
        "https://x.example.lt",
    ];
    succeed(&installation, &settings).await;

    let found = below(folder);
    for path in &found {
        let about = path.symlink_metadata().expect("there");
        let expected = match about.file_type() {
            kind if kind.is_dir() => 0o700,
            // For the group that the administrator chooses.
            kind if kind.is_socket() => 0o660,
            _ => 0o600,
        };
        let mode = about.permissions().mode() & 0o7777;
        assert_eq!(mode, expected, "{mode:o} {}", path.display());
    }
    for name in [
        "ivesk-webhook.db",
        "ivesk-webhook.db-wal",
        "ivesk-webhook.db-shm",
        "ivesk-webhook.db.lock",
        "backups/copy.db",
        "fresh.toml",
        "outbox/refused",
        "made/documents",
        "made/notifications",
    ] {
        assert!(found.contains(&folder.join(name)), "{name}: {found:?}");
    }
    server.terminate();
    let (status, log) = server.exited().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn secrets_that_everybody_can_read_are_reported_with_the_fix() {
    let token = "[admin]\ntoken_file = 'admin-token'";
    let installation = Installation::alone("");
    let settings = std::fs::read_to_string(installation.settings()).expect("settings");
    let settings = settings.replace("[admin]", token);
    std::fs::write(installation.settings(), &settings).expect("written");
    let folder = installation.folder();
    let files = [
        "ivesk-webhook.toml",
        "admin-token",
        "ivesk-webhook.db",
        "backups/copy.db",
    ];
    std::fs::write(folder.join(files[1]), "a".repeat(43)).expect("written");
    let webhook = "b".repeat(43);
    let webhook = format!("{settings}\n[accounts.default]\ntokens.on_exported = ['{webhook}']\n");
    std::fs::write(installation.settings(), webhook).expect("written");
    installation.start().await.stop_and_read().await;
    let (code, _, errors) = installation.run(&["store", "backup", "copy.db"]).await;
    assert_eq!(code, Some(0), "{errors}");
    // The variable of the tests would replace the file.
    let run = async |arguments: &[&str]| {
        let mut command = installation.command(arguments);
        let output = command.env_remove("IVESK_WEBHOOK_ADMIN_TOKEN").output();
        let output = output.await.expect("the program runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let reported = async || {
        let check = run(&["config", "check"]).await;
        let doctor = run(&["doctor", "--quick"]).await;
        files.map(|file| {
            let fix = format!("chmod o= '{}'", folder.join(file).display());
            (check.contains(&fix), doctor.contains(&fix))
        })
    };
    for file in files {
        set_mode(&folder.join(file), 0o644);
    }
    for (parents, expected) in [(0o755, (true, true)), (0o750, (false, false))] {
        set_mode(folder, parents);
        set_mode(&folder.join("backups"), 0o755);
        assert_eq!(reported().await, [expected; 4], "{parents:o}");
    }
    set_mode(folder, 0o755);
    for file in files {
        // Its group is how another user is let in.
        set_mode(&folder.join(file), 0o640);
    }
    assert_eq!(reported().await, [(false, false); 4]);

    // It names the file of a secret, and holds none.
    std::fs::write(installation.settings(), settings).expect("written");
    set_mode(&installation.settings(), 0o644);
    assert_eq!(reported().await, [(false, false); 4]);
}
