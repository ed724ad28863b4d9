//! Settings of destinations.

use std::path::Path;
use std::time::Duration;

use ivesk_webhook::config::{
    Config, ConfigError, DestinationKind, FileMode, FolderLayout, HistoryMode,
};
use ivesk_webhook::domain::{DestinationName, Queue};

use super::*;

const SIGNING_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Returns settings of one destination, `erp`.
fn destination(lines: &str) -> String {
    local(&format!("[destinations.erp]\n{lines}"))
}

/// Parses settings of an HTTP destination whose secret is in a variable.
fn posting(lines: &str) -> Result<Config, ConfigError> {
    let text = destination(&format!("kind = 'http'\n{lines}"));
    parse_with(
        &text,
        &[("IVESK_WEBHOOK_DESTINATIONS_ERP_SECRET", SIGNING_SECRET)],
    )
}

#[test]
fn a_destination_has_documented_defaults_and_relative_paths() {
    let config = valid(&local(
        "[destinations.import]\nkind = 'command'\nprogram = 'bin/import'\n\
         [destinations.archive]\nkind = 'folder'\npath = 'archive'\n\
         [destinations.texts]\nkind = 'folder'\npath = 'texts'\nfiles = false\n\
         [destinations.reports]\nkind = 'list'\nqueue = 'digitized'\nhistory = 'deliver'\n\
         max_concurrency = 16\ntimeout = '2m'\ncompanies = ['007']\naccounts = ['default']\n\
         company_names = [' UAB \"Bond\" ']\ndocument_types = ['invoice']",
    ));
    let destination =
        |name: &str| &config.destinations[&DestinationName::parse(name).expect("a name")];
    let import = destination("import");
    assert_eq!((import.queue, import.max_concurrency), (Queue::Exported, 1));
    assert_eq!(import.history, HistoryMode::Hold);
    assert_eq!(import.timeout, Duration::from_secs(30));
    let DestinationKind::Command {
        program, folder, ..
    } = &import.kind
    else {
        panic!("{import:?}");
    };
    assert_eq!(program, Path::new("/etc/ivesk/bin/import"));
    assert_eq!(folder, Path::new("/etc/ivesk/"));
    let DestinationKind::Folder {
        path,
        layout,
        files,
        max_file_bytes,
        file_mode,
    } = &destination("archive").kind
    else {
        panic!("{config:?}");
    };
    assert_eq!(path, Path::new("/etc/ivesk/archive"));
    assert_eq!(*layout, FolderLayout::Company);
    assert_eq!((*files, *max_file_bytes), (true, 64 * 1024 * 1024));
    assert_eq!(*file_mode, FileMode::default());
    let at_once = ["archive", "texts"].map(|name| destination(name).max_concurrency);
    assert_eq!(at_once, [1, 64]);
    let reports = destination("reports");
    assert!(matches!(reports.kind, DestinationKind::List));
    assert_eq!(
        (reports.queue, reports.max_concurrency),
        (Queue::Digitized, 16)
    );
    assert_eq!(reports.history, HistoryMode::Deliver);
    assert_eq!(reports.companies[0].as_str(), "007");
    assert_eq!(reports.company_names, ["UAB \"Bond\""]);
    assert_eq!(reports.document_types, ["invoice"]);
    let api = &config.api;
    assert!(reports.excludes_documents(api) && !destination("archive").excludes_documents(api));
    assert_eq!(reports.accounts, [account("default")]);
}

#[test]
fn a_destination_can_be_defined_by_variables_alone() {
    let config = parse_with(
        &local(""),
        &[
            ("IVESK_WEBHOOK_DESTINATIONS_MY_ERP_KIND", "http"),
            (
                "IVESK_WEBHOOK_DESTINATIONS_MY_ERP_URL",
                "https://books.example.lt/a?key=planted",
            ),
            (
                "IVESK_WEBHOOK_DESTINATIONS_MY_ERP_SECRET",
                &format!("{SIGNING_SECRET}\n{SIGNING_SECRET}"),
            ),
            ("IVESK_WEBHOOK_DESTINATIONS_ARCHIVE_KIND", "folder"),
            ("IVESK_WEBHOOK_DESTINATIONS_ARCHIVE_PATH", "/srv/archive"),
            ("IVESK_WEBHOOK_DESTINATIONS_ARCHIVE_MAX_FILE_BYTES", "4096"),
        ],
    )
    .expect("valid settings");
    let names: Vec<_> = config
        .destinations
        .keys()
        .map(DestinationName::as_str)
        .collect();
    assert_eq!(names, ["archive", "my_erp"]);
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("planted") && !shown.contains("whsec"),
        "{shown}"
    );
    let DestinationKind::Http { secrets, .. } =
        &config.destinations.values().last().expect("one").kind
    else {
        panic!("{shown}");
    };
    assert_eq!(secrets.len(), 2);
}

#[test]
fn the_permissions_of_filed_documents_are_octal_and_harmless() {
    let text = |mode: &str| {
        destination(&format!(
            "kind = 'folder'\npath = 'archive'\nfile_mode = '{mode}'"
        ))
    };
    for mode in ["0600", "640", "0660", "0644", "0664"] {
        valid(&text(mode));
    }
    for bad in [
        "",
        "0",
        "0400",
        "0700",
        "0666",
        "0607",
        "01600",
        "rw-r--r--",
        "0x1f",
    ] {
        assert_eq!(names(&text(bad)), ["destinations.erp.file_mode"], "{bad}");
    }
}

#[test]
fn a_mistake_in_a_destination_names_its_setting() {
    for (lines, name) in [
        ("", "destinations.erp.kind"),
        ("kind = 'webhook'\nurl = 'x'", "destinations.erp.kind"),
        ("kind = 'command'", "destinations.erp.program"),
        ("kind = 'folder'", "destinations.erp.path"),
        (
            "kind = 'folder'\npath = 'x'\nlayout = 'year'",
            "destinations.erp.layout",
        ),
        (
            "kind = 'folder'\npath = 'x'\nmax_file_bytes = 1",
            "destinations.erp.max_file_bytes",
        ),
        (
            "kind = 'folder'\npath = 'x'\nurl = 'https://x.lt'",
            "destinations.erp.url",
        ),
        (
            "kind = 'list'\nprogram = '/bin/true'",
            "destinations.erp.program",
        ),
        (
            "kind = 'list'\nsecret = 'planted'",
            "destinations.erp.secret",
        ),
        ("kind = 'list'\nqueue = 'all'", "destinations.erp.queue"),
        ("kind = 'list'\nhistory = 'all'", "destinations.erp.history"),
        (
            "kind = 'list'\nmax_concurrency = 0",
            "destinations.erp.max_concurrency",
        ),
        (
            "kind = 'list'\nmax_concurrency = 17",
            "destinations.erp.max_concurrency",
        ),
        ("kind = 'list'\ntimeout = '2h'", "destinations.erp.timeout"),
        (
            "kind = 'list'\naccounts = ['other']",
            "destinations.erp.accounts",
        ),
        (
            "kind = 'list'\ncompanies = ['1', '1']",
            "destinations.erp.companies",
        ),
        (
            "kind = 'list'\nqueue = 'digitized'\ncompanies = ['1']\ncompany_names = ['\"\"']",
            "destinations.erp.company_names",
        ),
        (
            "kind = 'list'\nqueue = 'digitized'\ncompany_names = ['UAB A']",
            "destinations.erp.company_names",
        ),
        (
            "kind = 'list'\ncompanies = ['1']\ncompany_names = ['UAB A']",
            "destinations.erp.company_names",
        ),
        (
            "kind = 'list'\ndocument_types = ['']",
            "destinations.erp.document_types",
        ),
        (
            "kind = 'list'\nqueues = 'exported'",
            "destinations.erp.queues",
        ),
        (
            "kind = 'command'\nprogram = 'x'\nenvironment = ['A=1']",
            "destinations.erp.environment",
        ),
        (
            "kind = 'command'\nprogram = 'x'\nenvironment = ['IVESK_WEBHOOK_API_KEY']",
            "destinations.erp.environment",
        ),
        (
            "kind = 'http'\nurl = 'https://x.lt'",
            "destinations.erp.secret_file",
        ),
    ] {
        assert_eq!(names(&destination(lines)), [name], "{lines}");
        assert!(!refused(&destination(lines)).contains("planted"), "{lines}");
    }
    assert_eq!(
        names(&local("[destinations.Erp]\nkind = 'list'")),
        ["destinations.Erp"]
    );
    let twins = "[destinations.a-b]\nkind = 'list'\n[destinations.a_b]\nkind = 'list'";
    assert!(refused(&local(twins)).contains("same variables"));
    let message = refused(&destination("kind = 'http'\nurl = 'https://x.lt'"));
    assert!(message.contains("openssl rand -base64 32"), "{message}");
    let message = refused(&destination(
        "kind = 'http'\nurl = 'https://x.lt'\nsecret = 'planted'",
    ));
    assert!(message.contains("`secret_file`"), "{message}");
}

#[test]
fn an_http_destination_needs_https_and_a_long_secret() {
    for good in [
        "https://x.lt/a?b=c",
        "http://127.0.0.1:1",
        "http://localhost/x",
    ] {
        assert!(posting(&format!("url = '{good}'")).is_ok(), "{good}");
    }
    for bad in [
        "http://x.lt",
        "ftp://x.lt",
        "x.lt",
        "https://u:planted@x.lt",
        "https://x.lt/#a",
    ] {
        let error = posting(&format!("url = '{bad}'"))
            .expect_err(bad)
            .to_string();
        assert!(error.contains("destinations.erp.url"), "{error}");
        assert!(!error.contains("planted"), "{error}");
    }
    let short = "whsec_c2hvcnQ=";
    let long = format!("whsec_{}", "QUFB".repeat(30));
    for bad in [
        short,
        &long,
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "whsec_%%%",
    ] {
        let text = destination("kind = 'http'\nurl = 'https://x.lt'");
        let error = refused_with(&text, &[("IVESK_WEBHOOK_DESTINATIONS_ERP_SECRET", bad)]);
        assert!(error.contains("whsec_ followed by the output"), "{error}");
        assert!(!error.contains(bad), "{error}");
    }
}

#[test]
fn no_two_destinations_share_a_folder_however_written() {
    let folders = |first: &str, second: &str| {
        local(&format!(
            "[destinations.a]\nkind = 'folder'\npath = '{first}'\n\
             [destinations.b]\nkind = 'folder'\npath = '{second}'"
        ))
    };
    let parse = |text: &str| Config::parse(text, Path::new(""), &variables(&[]));
    let here = std::path::absolute("x").expect("a working folder");
    let here = here.to_str().expect("UTF-8");
    for other in ["x", "./x/", ".//x", "y/../x", here] {
        for (first, second) in [("x", other), (other, "x")] {
            let error = parse(&folders(first, second)).expect_err(other);
            let problems = error.problems.iter().map(|problem| &problem.setting);
            let problems: Vec<_> = problems.collect();
            assert_eq!(problems, ["destinations.b.path"], "{other}");
        }
    }
    for other in ["y", "x/y", "../x", "X"] {
        parse(&folders("x", other)).expect(other);
    }
}
