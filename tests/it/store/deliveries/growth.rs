//! The work for a document does not grow with the number of those before it.

use super::*;

const PAGES: usize = 40;
const DOCUMENTS_OF_A_PAGE: usize = 100;

impl Scene {
    /// Stores a page of new documents.
    async fn pull_many(&self, feed: &Feed, page: &str, count: usize) {
        let ids: Vec<String> = (0..count).map(|n| format!("{page}-{n}")).collect();
        let version = new(2);
        let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
        self.pull(feed, &documents).await;
    }

    /// Stores and delivers many documents, and closes the store; returns the number of rows and
    /// entries of indexes that were read for each.
    async fn read_for_each(&self) -> usize {
        for table in ["document", "delivery", "feed", "lane"] {
            let statement = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
            self.database.run(&statement).await;
        }
        for page in 0..PAGES {
            self.pull_many(&company("1"), &page.to_string(), DOCUMENTS_OF_A_PAGE)
                .await;
        }
        let all = PAGES * DOCUMENTS_OF_A_PAGE;
        assert_eq!(self.deliver_all().await.len(), all);
        // The server counts what a session read when it ends.
        self.store.close().await.expect("the store closes");
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                          AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        while self.database.count(others).await > 0 {
            tokio::task::yield_now().await;
        }
        let read = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
                            WHERE relname IN ('document', 'delivery'))::bigint
                        + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
                           WHERE relname IN ('document', 'delivery'))::bigint";
        usize::try_from(self.database.count(read).await).expect("a count") / all
    }
}

#[tokio::test]
async fn a_new_store_reads_as_little_for_each_document_as_it_grows() {
    // The statements are planned for tables that the server knows to have this many rows, if it knows,
    // and nothing analyzes them later. It does after fifty rows, or when a person says so.
    // Without the plans that follow its growth it reads two or three times as much.
    for (analyzed_at, most) in [(None, 20), (Some(1), 70), (Some(60), 20)] {
        let Some(database) = Database::postgres("growing tables").await else {
            return;
        };
        let scene = Scene::new(database).await;
        let feed = company("1");
        scene.pull_many(&feed, "first", 1).await;
        scene.start(StartFrom::All).await;
        assert_eq!(scene.deliver_all().await.len(), 1);
        if let Some(count) = analyzed_at {
            scene.pull_many(&feed, "few", count - 1).await;
            assert_eq!(scene.deliver_all().await.len(), count - 1);
            scene.database.run("VACUUM ANALYZE").await;
            scene.pull_many(&feed, "more", 1).await;
            assert_eq!(scene.deliver_all().await.len(), 1);
        }
        let each = scene.read_for_each().await;
        assert!(
            each < most,
            "analyzed at {analyzed_at:?}: {each} rows and entries of indexes for each document"
        );
    }
}
