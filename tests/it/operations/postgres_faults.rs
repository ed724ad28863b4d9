//! Faults of a PostgreSQL store: each is seen in the answer to a message, `/readyz`, the log, an
//! alarm, `doctor` and the overview, and is over once it is put right.

use crate::operations::store_faults::Scene;
use crate::support::databases::{Cluster, Database, run_sql, skip_postgres};
use crate::support::doctor::Report;
#[cfg(target_os = "linux")]
use crate::support::small_disk::SmallDisk;

/// Starts a server of PostgreSQL that a test may stop; `None` if there is none.
fn cluster(test: &str) -> Option<Cluster> {
    match Cluster::start() {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            skip_postgres(test, &why);
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lets_nobody_in_is_seen_until_it_does() {
    let Some(database) = Database::postgres("a database that lets nobody in").await else {
        return;
    };
    let url = database.url_text();
    let (server, name) = url.rsplit_once('/').expect("a path");
    let server = format!("{server}/postgres");
    let scene = Scene::on(Some(&url)).await.subscribed().await;
    run_sql(
        &server,
        &format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ),
    )
    .await;
    scene
        .sees(
            "store_unavailable",
            "is not currently accepting connections",
        )
        .await;

    run_sql(
        &server,
        &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    )
    .await;
    scene.recovers().await;
    assert_eq!(scene.stored_notifications().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_seen_until_it_runs_again() {
    let Some(cluster) = cluster("a stopped server") else {
        return;
    };
    let scene = Scene::on(Some(&cluster.url())).await.subscribed().await;
    cluster.crash().expect("it stops");
    scene
        .sees("store_unavailable", "PostgreSQL is unavailable")
        .await;

    cluster.resume().expect("it starts again");
    scene.recovers().await;
    assert_eq!(scene.stored_notifications().await, 1);
}

/// After a failover the old address leads to a server that only reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_seen_until_it_is_the_primary() {
    let Some(cluster) = cluster("a standby") else {
        return;
    };
    let scene = Scene::on(Some(&cluster.url())).await.subscribed().await;
    cluster.crash().expect("it stops");
    let signal = cluster.folder().join("data/standby.signal");
    std::fs::write(&signal, "").expect("written");
    cluster.own(&signal).expect("it is the server's");
    cluster.resume().expect("it starts again");
    // It began while the server was stopped.
    scene
        .sees("store_unavailable", "PostgreSQL is unavailable")
        .await;
    let reason = "this server is a standby";
    scene.shows("/", &[reason]).await;
    let report = Report::of(&scene.installation, &["--quick"]).await;
    let words = report.words("server");
    assert!(words.contains(reason), "{words}");

    run_sql(&cluster.url(), "SELECT pg_promote()").await;
    scene.recovers().await;
    assert_eq!(scene.stored_notifications().await, 1);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_is_seen_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(64) else {
        eprintln!("skipped: this user may not mount");
        return;
    };
    let Some(cluster) = cluster("a full disk") else {
        return;
    };
    let folder = disk.folder().join("tables");
    std::fs::create_dir(&folder).expect("created");
    cluster.own_folder(&folder).expect("it is the server's");
    let place = folder.display();
    run_sql(
        &cluster.url(),
        &format!("CREATE TABLESPACE small LOCATION '{place}'"),
    )
    .await;
    run_sql(&cluster.url(), "CREATE DATABASE small TABLESPACE small").await;
    let url = cluster.url();
    let (server, _) = url.rsplit_once('/').expect("a path");
    let scene = Scene::on(Some(&format!("{server}/small"))).await;
    let scene = scene.subscribed().await;
    let ballast = disk.fill();
    // Pages that are there already have room for some.
    let published = scene.publish_until_503().await;
    scene
        .is_seen("disk_nearly_full", "is full; free some space")
        .await;

    std::fs::remove_file(ballast).expect("removed");
    scene.recovers().await;
    assert_eq!(scene.stored_notifications().await, published);
}
