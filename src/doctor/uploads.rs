//! Checks the drop folder.

use rustix::fs::Access;

use super::Check;
use crate::config::Config;

/// Checks the folder of `upload.watch`, for the user that runs this; `None` if `serve` does not use it:
/// it is not set, or its account has no API key, which has a check of its own.
pub fn folder(config: &Config) -> Option<Check> {
    const CHECK: &str = "upload_folder";
    let folder = config.upload.watch.as_ref()?;
    let (_, account) = config.upload_account()?;
    account.api_key.as_ref()?;
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let problem = match folder.metadata() {
        Ok(found) if !found.is_dir() => Some("it is not a folder".to_owned()),
        Ok(_) => {
            let allowed = rustix::fs::access(folder, access);
            allowed.err().map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    };
    let shown = folder.display();
    Some(match problem {
        None => Check::pass(CHECK, format!("{shown}, the folder of `upload.watch`, can be used")),
        Some(problem) => Check::fail(
            CHECK,
            format!("{shown}, the folder of `upload.watch`, can't be used: {problem}"),
        )
        .because("no file is uploaded from there, and `serve` does not start without it")
        .fix(
            "create it so that the user that runs `serve` may read, write and rename there; or correct \
             `upload.watch`, then start `serve` again",
        ),
    })
}
