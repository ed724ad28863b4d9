//! `open`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::anyhow;
use serde_json::json;
use url::Url;

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::RunningServer;
use super::{logging, table};
use crate::api::tokens::{LoginLink, LoginLinkRequest};
use crate::config::Config;
use crate::store::Rights;

/// Arguments of `open`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The link works once, within ten minutes, and the session that it opens ends after twelve hours. Whoever has the \
link gets in: don't pass it on.

Exit codes: 0 done, 1 the server refused, 2 wrong use or configuration, 3 no server runs")]
pub struct Args {
    /// Rights of the session: read, operate or admin
    #[arg(long, default_value = "admin", value_parser = parse_rights)]
    rights: Rights,
    /// Address at which your browser reaches the admin listener, if it is not `admin.listen`
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// The server's socket, for a server with other settings
    #[arg(long, value_name = "PATH", requires = "url")]
    socket: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_rights(text: &str) -> Result<Rights, String> {
    match text.parse() {
        Ok(rights @ (Rights::Read | Rights::Operate | Rights::Admin)) => Ok(rights),
        _ => Err("the pages need one of `read`, `operate` and `admin`".to_owned()),
    }
}

/// Runs `open`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let (socket, url) = match (args.socket, args.url) {
        (Some(socket), Some(url)) => (socket, url),
        (_, url) => {
            let config =
                Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
            logging::start(&config.log)?;
            let url = match url {
                Some(url) => url,
                None => {
                    let address = reachable_address(config.admin.listen);
                    Url::parse(&format!("http://{address}/")).map_err(Failure::usage)?
                }
            };
            (config.admin.socket, url)
        }
    };
    let Some(server) = RunningServer::find_at(&socket).await? else {
        return Err(Failure::unreachable(anyhow!(
            "no server listens on the socket {}; start `ivesk-webhook serve`, or set `admin.socket` as the server \
             was started with",
            socket.display()
        )));
    };
    let request = LoginLinkRequest {
        rights: args.rights,
    };
    let answer = server.post("/v1/login-links", &request).await?;
    let LoginLink { path, expires_at } = answer.result()?;
    let link = url.join(&path)?;
    if args.json {
        println!(
            "{}",
            json!({"url": link.as_str(), "expires_at": expires_at})
        );
    } else {
        // The link alone goes to standard output: `xdg-open "$(ivesk-webhook open)"`.
        println!("{link}");
        let until = table::exact(expires_at);
        note!("Open this link in your browser. It works once, until {until}.");
    }
    Ok(Exit::Done)
}

/// Returns the address at which this machine reaches a listener, which may listen on all.
pub(super) fn reachable_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
