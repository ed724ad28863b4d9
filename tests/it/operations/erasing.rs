//! `documents erase`: contents and files go, for good, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::emulator::emulator;
use crate::support::process::{Installation, Server, client, within};

const OURS: &str = DEFAULT_COMPANIES[0];
const OTHERS: &str = DEFAULT_COMPANIES[1];

/// A server that files the documents of two companies in a folder.
struct Scene {
    control: Control,
    installation: Installation,
    server: Server,
    _emulator: Emulator,
}

impl Scene {
    async fn new() -> Self {
        let emulator = emulator("page_size=7,time_scale=0.01").await;
        let sections = "[destinations.archive]\nkind = \"folder\"\npath = \"archive\"\nhistory = \"deliver\"\n";
        let installation = Installation::beside(&emulator, "", sections);
        Self {
            control: emulator.control(),
            server: installation.start().await,
            installation,
            _emulator: emulator,
        }
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.installation.run(arguments).await
    }

    /// Erases without being asked; returns what was printed.
    async fn erase(&self, arguments: &[&str]) -> String {
        let arguments = [&["documents", "erase", "--yes"], arguments].concat();
        let (code, out, errors) = self.run(&arguments).await;
        assert_eq!(code, Some(0), "{out}{errors}");
        assert!(errors.contains("can't be undone"), "{errors}");
        out
    }

    async fn pull(&self) {
        let (code, _, errors) = self.run(&["pull"]).await;
        assert_eq!(code, Some(0), "{errors}");
    }

    /// Waits until no earlier stretch is being read.
    async fn finish_backfills(&self) {
        let finished = async {
            loop {
                let (_, out, errors) = self.run(&["feeds", "list", "--json"]).await;
                assert_eq!(errors, "");
                if !out.contains("\"backfill\"") {
                    break;
                }
            }
        };
        within("the end of the backfills", finished).await;
    }

    async fn documents(&self) -> Vec<Value> {
        let (code, out, errors) = self.run(&["documents", "list", "--json"]).await;
        assert_eq!(code, Some(0), "{errors}");
        let lines = out.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn archive(&self) -> PathBuf {
        self.installation.folder().join("archive")
    }

    /// Returns the names in a company's folder.
    fn files(&self, company: &str) -> BTreeSet<String> {
        names(&self.archive().join(company))
    }

    /// Waits until this number of documents is filed for a company.
    async fn filed(&self, company: &str, count: usize) {
        within("the files", async {
            let is_json = |name: &&String| name.ends_with(".json");
            while self.files(company).iter().filter(is_json).count() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("text")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_and_files_of_a_company_are_erased() {
    let scene = Scene::new().await;
    let exported = scene.control.export(OURS, 3_usize).expect("known");
    scene.control.export(OTHERS, 2_usize).expect("known");
    scene.pull().await;
    scene.filed(OURS, 3).await;
    scene.filed(OTHERS, 2).await;
    let others = scene.files(OTHERS);
    // Somebody has put a link in the place of a file: what it leads to is not ours.
    let outside = scene.installation.folder().join("outside.json");
    std::fs::write(&outside, "kept").expect("written");
    let ours = scene.files(OURS);
    let replaced = ours.iter().find(|name| name.ends_with(".json"));
    let replaced = scene.archive().join(OURS).join(replaced.expect("a file"));
    std::fs::remove_file(&replaced).expect("removed");
    std::os::unix::fs::symlink(&outside, &replaced).expect("linked");

    // Nobody to ask.
    let mut command = scene
        .installation
        .command(&["documents", "erase", "--company", OURS]);
    command.stdin(Stdio::null());
    let refused = within("the exit", command.output()).await.expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("--yes"), "{errors}");
    assert!(errors.contains("3 versions of 1 feed"), "{errors}");
    assert_eq!(scene.files(OURS), ours);

    let out = scene.erase(&["--company", OURS]).await;
    let digitized = scene.documents().await.len() - 5;
    let erased = format!("Erased {} versions", 3 + digitized * 3 / 5);
    assert!(out.contains(&erased), "{out}");

    let link = replaced
        .file_name()
        .expect("a name")
        .to_str()
        .expect("text");
    assert_eq!(scene.files(OURS), BTreeSet::from([link.to_owned()]));
    assert_eq!(std::fs::read(&outside).expect("readable"), b"kept");
    assert_eq!(scene.files(OTHERS), others);
    // Pulled again from the beginning, they stay away.
    for _ in 0..2 {
        scene.pull().await;
        let from = [
            "pull",
            "--company",
            OURS,
            "--from",
            "1970-01-01T00:00:00.000Z",
        ];
        let (code, _, errors) = scene.run(&from).await;
        assert_eq!(code, Some(0), "{errors}");
        scene.finish_backfills().await;
    }
    let rows = scene.documents().await;
    assert_eq!(rows.len(), 5 + digitized);
    for row in &rows {
        let is_ours = row["company"] == OURS;
        assert_eq!(row["document"].is_null(), row["erased_at"].is_string());
        assert!(!is_ours || row["erased_at"].is_string(), "{row}");
        let id = row["document_id"].as_str().expect("text");
        assert!(exported.iter().all(|(exported, _)| exported != id), "{row}");
    }
    let (code, _, errors) = scene.run(&["documents", "show", "--sequence", "1"]).await;
    let shown = rows[0]["erased_at"].is_string();
    assert_eq!(code, Some(i32::from(shown)), "{errors}");
    assert_eq!(errors.contains("was erased at"), shown, "{errors}");
    let (_, audit, _) = scene.run(&["audit", "list"]).await;
    let line = audit.lines().find(|line| line.contains("documents erase"));
    assert!(line.is_some_and(|line| line.contains(OURS)), "{audit}");
    let again = scene.erase(&["--company", OURS]).await;
    assert!(again.contains("Nothing was stored"), "{again}");
    drop(scene.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_to_erase_what_is_not_stored() {
    let scene = Scene::new().await;
    let exported = scene.control.export(OURS, 1_usize).expect("known");
    scene.pull().await;
    scene.filed(OURS, 1).await;
    let document = scene.documents().await.remove(0);
    let number = document["document"]["docnum"].as_str().expect("a number");
    let (id, _) = &exported[0];
    for (named, hint) in [("nope", "documents search"), (number, id.as_str())] {
        for yes in [&[][..], &["--yes"]] {
            let arguments = [&["documents", "erase", "--document", named], yes].concat();
            let (code, out, errors) = scene.run(&arguments).await;
            assert_eq!(code, Some(1), "{out}{errors}");
            assert!(
                errors.contains("nothing is stored of a document"),
                "{errors}"
            );
            assert!(errors.contains(hint), "{errors}");
            assert!(!errors.contains("can't be undone"), "{errors}");
        }
    }
    let rows = scene.documents().await;
    assert!(
        rows.iter().all(|row| row["erased_at"].is_null()),
        "{rows:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_document_is_erased_and_its_next_version_kept() {
    let scene = Scene::new().await;
    let exported = scene.control.export(OURS, 2_usize).expect("known");
    scene.pull().await;
    scene.filed(OURS, 2).await;
    let (id, _) = &exported[0];

    let out = scene.erase(&["--document", id]).await;
    assert!(out.contains("Erased"), "{out}");
    let documents = scene.documents().await;
    assert!(documents.iter().all(|row| row["document_id"] != *id));
    let files = scene.files(OURS);
    assert!(files.iter().all(|name| !name.contains(id)), "{files:?}");
    assert!(!files.is_empty());

    scene.control.advance(std::time::Duration::from_secs(60));
    let newer = scene.control.re_export(id).expect("a known document");
    if newer.is_some() {
        scene.pull().await;
        scene.filed(OURS, 2).await;
    }
    drop(scene.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digitized_documents_of_several_companies_are_kept_and_told() {
    let scene = Scene::new().await;
    let party = |side: &str, code: &str| {
        [
            (format!("{side}isfavorite"), json!(true)),
            (format!("{side}code"), json!(code)),
        ]
    };
    let amended = |seller: &str, buyer: Option<&str>| -> Map<String, Value> {
        let seller = party("seller", seller);
        let buyer = buyer.map(|code| party("buyer", code));
        let none = buyer
            .is_none()
            .then(|| ("buyerisfavorite".to_owned(), json!(false)));
        seller
            .into_iter()
            .chain(buyer.into_iter().flatten())
            .chain(none)
            .collect()
    };
    let ids = scene.control.digitize(DEFAULT_KEY, OURS, 3).expect("known");
    for (id, fields) in ids.iter().zip([
        amended(OURS, None),
        amended(OURS, Some(OTHERS)),
        amended(OTHERS, None),
    ]) {
        scene.control.amend(id, fields).expect("a known document");
    }
    scene.pull().await;

    let out = scene.erase(&["--company", OURS, "--json"]).await;
    let erased: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&erased["versions"], &erased["shared"]),
        (&json!(1), &json!(1))
    );
    let rows = scene.documents().await;
    let left = rows.iter().filter(|row| row["erased_at"].is_null());
    let left: BTreeSet<&str> = left.filter_map(|row| row["document_id"].as_str()).collect();
    assert_eq!(left, BTreeSet::from([&*ids[1], &*ids[2]]));

    let erased = scene.erase(&["--document", &ids[1]]).await;
    assert!(erased.contains("Erased 1 version"), "{erased}");
    drop(scene.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_admin_erases_and_only_what_is_named() {
    let scene = Scene::new().await;
    scene.control.export(OURS, 1_usize).expect("known");
    scene.pull().await;
    let create = ["tokens", "create", "--name", "books", "--rights", "operate"];
    let (_, token, _) = scene.run(&create).await;
    let token = token.split_whitespace().last().expect("a token");
    let post = async |token: Option<&str>, body: Value| {
        let path = "/v1/documents/erase";
        let request = match token {
            Some(token) => client()
                .post(scene.installation.admin_url(path))
                .bearer_auth(token),
            None => scene.installation.admin_request(Method::POST, path),
        };
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await;
        answer.expect("an answer").status().as_u16()
    };
    let company = json!({ "company": OURS });
    assert_eq!(post(Some(token), company.clone()).await, 403);
    for wrong in [
        json!({}),
        json!({ "company": OURS, "document": "x" }),
        json!({ "document": "" }),
        json!({ "everything": true }),
    ] {
        assert_eq!(post(None, wrong).await, 400);
    }
    let rows = scene.documents().await;
    assert!(rows.iter().all(|row| row["erased_at"].is_null()));
    assert_eq!(post(None, company).await, 200);
    drop(scene.server);
}

/// The disk of the folder is not mounted: its files are removed once it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_removed_now_are_removed_later() {
    let scene = Scene::new().await;
    scene.control.export(OURS, 2_usize).expect("known");
    scene.pull().await;
    scene.filed(OURS, 2).await;
    let aside = scene.installation.folder().join("aside");
    std::fs::rename(scene.archive(), &aside).expect("renamed");

    let erase = ["documents", "erase", "--yes", "--company", OURS];
    let (code, out, errors) = scene.run(&erase).await;
    assert_eq!(code, Some(1), "{out}{errors}");
    assert!(out.contains("2 files of erased documents"), "{out}");
    assert!(out.contains("is its disk mounted"), "{out}");
    assert!(!names(&aside.join(OURS)).is_empty());

    std::fs::rename(&aside, scene.archive()).expect("renamed");
    scene.server.terminate();
    scene.server.exited().await;
    let server = scene.installation.start().await;
    within("the removal", async {
        while !names(&scene.installation.folder().join("archive").join(OURS)).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(server);
}
