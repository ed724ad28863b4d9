//! The samples for containers and the pages about installing: their settings, paths and numbers are right.
//! `packaging/test` tests the Debian package.

use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");

const DOCKERFILE: &str = include_str!("../../../Dockerfile");
const COMPOSE: &str = include_str!("../../../packaging/container/compose.yaml");
const COMPOSE_POSTGRES: &str = include_str!("../../../packaging/container/compose-postgres.yaml");
const KUBERNETES: &str = include_str!("../../../packaging/container/kubernetes.yaml");
const CONTAINER_PAGE: &str = include_str!("../../../docs/container.md");
const INSTALLATION_PAGE: &str = include_str!("../../../docs/installation.md");
const SETTINGS_PAGE: &str = include_str!("../../../docs/settings.md");

/// Returns the variables that a sample sets for the program, as `NAME: value` in YAML.
fn variables(sample: &str) -> Vec<(&str, &str)> {
    sample
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| name.starts_with("IVESK_WEBHOOK_"))
        .collect()
}

/// Runs the program with no variables of its own but `variables`.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IVESK_WEBHOOK_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the program runs")
}

#[test]
fn the_settings_of_container_samples_are_valid() {
    for (sample, least) in [(COMPOSE, 2), (COMPOSE_POSTGRES, 6), (KUBERNETES, 3)] {
        let root = tempfile::tempdir().expect("a folder");
        let folders = [
            "etc/ivesk-webhook",
            "run/secrets",
            "var/lib/ivesk-webhook",
            "tmp",
        ]
        .map(|folder| root.path().join(folder));
        for folder in &folders {
            std::fs::create_dir_all(folder).expect("created");
        }
        let [settings, secrets, data, _] = &folders;
        for secret in [
            settings.join("api-key"),
            secrets.join("api-key"),
            secrets.join("store-password"),
        ] {
            std::fs::write(secret, "a-secret").expect("written");
        }
        // Paths below the root of the container are here below a folder.
        let variables: Vec<_> = variables(sample)
            .into_iter()
            .map(|(name, value)| {
                let root = root.path().display();
                let value = match value.strip_prefix("sqlite://") {
                    Some(path) => format!("sqlite://{root}{path}"),
                    None if value.starts_with('/') => format!("{root}{value}"),
                    None => value.to_owned(),
                };
                (name, value)
            })
            .collect();
        assert!(variables.len() >= least, "{variables:?}");
        // Where `init` writes the file in the container.
        let is_elsewhere = variables
            .iter()
            .any(|(name, _)| *name == "IVESK_WEBHOOK_CONFIG");
        let folder = if is_elsewhere { settings } else { data };
        let init = ["init", "--public-url", "https://hooks.example.lt"];
        let made = run(folder, &init, &[]);
        assert!(made.status.success(), "{made:?}");

        let checked = run(data, &["config", "check"], &variables);

        assert!(checked.status.success(), "{variables:?}: {checked:?}");
    }
}

#[test]
fn container_samples_use_the_images_user_folder_and_ports() {
    assert!(DOCKERFILE.contains("\nUSER 10001:10001\n"));
    assert!(DOCKERFILE.contains("\nVOLUME /var/lib/ivesk-webhook\n"));
    assert!(DOCKERFILE.contains("\nEXPOSE 8080\n"));
    assert!(COMPOSE.contains("\"data:/var/lib/ivesk-webhook\""));
    assert!(COMPOSE.contains("reverse_proxy ivesk-webhook:8080 {"));
    assert!(COMPOSE_POSTGRES.contains("\"/tmp:uid=10001,mode=0700\""));
    assert!(KUBERNETES.contains("enableServiceLinks: false"));
    assert!(KUBERNETES.contains("mountPath: /var/lib/ivesk-webhook}"));
    for user in ["runAsUser: 10001", "runAsGroup: 10001", "fsGroup: 10001"] {
        assert!(KUBERNETES.contains(user), "{user}");
    }
    // The pages are reached from this machine alone.
    for sample in [COMPOSE, COMPOSE_POSTGRES] {
        for published in sample.lines().filter(|line| line.contains(":8081\"")) {
            assert!(published.contains("\"127.0.0.1:"), "{published}");
        }
    }
}

#[test]
fn variables_that_pages_about_installing_name_are_settings() {
    for page in [CONTAINER_PAGE, INSTALLATION_PAGE] {
        let names = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<&str> = names
            .filter(|name| name.starts_with("IVESK_WEBHOOK_"))
            .collect();
        assert!(names.len() > 2, "{names:?}");
        for name in names {
            // What Kubernetes sets.
            if name == "IVESK_WEBHOOK_PORT" {
                continue;
            }
            let listed = name.replace("_ACCOUNTS_DEFAULT_", "_ACCOUNTS_<NAME>_");
            assert!(SETTINGS_PAGE.contains(&format!("`{listed}`")), "{name}");
        }
    }
}
