//! Restoring a backup, as a person does it.

use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::DEFAULT_COMPANIES;
use ivesk_webhook::store::DocumentFilter;

use crate::support::emulator::emulator;
use crate::support::process::Installation;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_by_the_command_and_served() {
    let emulator = emulator("").await;
    let control = emulator.control();
    let installation = Installation::beside(
        &emulator,
        "",
        "[destinations.books]\nkind = \"list\"\nhistory = \"deliver\"\n",
    );
    let exported = control.export(DEFAULT_COMPANIES[0], 2).expect("exported");
    let documents = async || {
        let store = installation.read_store().await;
        let all = DocumentFilter {
            limit: 100,
            ..DocumentFilter::default()
        };
        let rows = store.documents(all).await.expect("readable");
        store.close().await.expect("it closes");
        let mut ids: Vec<String> = rows
            .into_iter()
            // The digitized queue lists them too.
            .filter(|row| row.feed.queue == Queue::Exported)
            .map(|row| row.document_id)
            .collect();
        ids.sort();
        ids
    };
    let pull = ["pull", "--company", DEFAULT_COMPANIES[0]];
    let (code, _, errors) = installation.run(&pull).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) = installation.run(&["store", "backup", "saved.db"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let later = control.export(DEFAULT_COMPANIES[0], 3).expect("exported");

    let server = installation.start().await;
    let (code, _, errors) = installation.run(&["store", "restore", "saved.db"]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("in use"), "{errors}");
    let log = server.kill().await;
    assert!(!log.contains("panic"), "{log}");

    let (code, out, errors) = installation.run(&["store", "restore", "saved.db"]).await;
    assert_eq!(code, Some(0), "{errors}");
    for part in [
        "up to sequence number 4",
        "Kept: ",
        "409",
        "under the same keys",
    ] {
        assert!(out.contains(part), "{out}");
    }
    let documented = include_str!("../../../docs/backup.md");
    let (_, documented) = documented
        .split_once("- **Decisions**")
        .expect("what to check");
    let (documented, _) = documented.split_once("\n#").expect("a next section");
    for list in ["tokens", "subscriptions", "feeds", "destinations"] {
        let command = format!("`{list} list`");
        assert!(out.contains(&command), "{command}: {out}");
        assert!(documented.contains(&command), "{command}: {documented}");
    }
    let (code, _, errors) = installation.run(&["store", "restore", "missing.db"]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("there is no file missing.db"), "{errors}");
    assert_eq!(documents().await.len(), 2);
    // Įvesk.lt is read again from the cursor of the backup.
    let (code, _, errors) = installation.run(&pull).await;
    assert_eq!(code, Some(0), "{errors}");
    let mut expected: Vec<String> = [exported, later]
        .concat()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    expected.sort();
    assert_eq!(documents().await, expected);
}
