//! `serve --tunnel`, against stand-ins that answer like ngrok and cloudflared.

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{Subscription, SubscriptionState};
use serde_json::json;

use crate::support::emulator::emulator;
use crate::support::process::{Installation, within};
use crate::support::stand_in::{Answer, StandIn};

/// An address on which nothing listens: a privileged port of this machine.
const ADDRESS: &str = "localhost:1";

/// Adds the path for subscriptions to the settings.
fn add_subscribe_path(installation: &Installation) {
    let settings = std::fs::read_to_string(installation.settings()).expect("settings");
    let settings = settings.replace("[api]\n", "[api]\nsubscribe_path = \"/subscriptions\"\n");
    std::fs::write(installation.settings(), settings).expect("written");
}

fn quick_tunnel() -> Answer {
    Answer::ok(json!({ "hostname": ADDRESS }).to_string())
}

fn ngrok_tunnel(port: u16) -> Answer {
    let tunnel = json!({
        "name": "command_line",
        "public_url": format!("https://{ADDRESS}"),
        "proto": "https",
        "config": { "addr": format!("http://localhost:{port}"), "inspect": true },
    });
    Answer::ok(json!({ "tunnels": [tunnel], "uri": "/api/tunnels" }).to_string())
}

#[tokio::test]
async fn the_tunnels_address_is_subscribed_and_unsubscribed() {
    for kind in ["ngrok", "cloudflared", "auto"] {
        let emulator = emulator("").await;
        let installation = Installation::beside(&emulator, "", "");
        add_subscribe_path(&installation);
        let tunnel = StandIn::start([match kind {
            "cloudflared" => quick_tunnel(),
            _ => ngrok_tunnel(installation.public_port()),
        }])
        .await;
        let server = installation.spawn_with(&["--tunnel", kind, "--tunnel-api", &tunnel.url("")]);
        let control = emulator.control();
        within("both subscriptions", async {
            while control.subscriptions().len() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let requests = tunnel.requests();
        let path = if kind == "cloudflared" {
            "/quicktunnel"
        } else {
            "/api/tunnels"
        };
        assert_eq!(requests[0].target, path);
        for subscription in control.subscriptions() {
            let target = format!("https://{ADDRESS}/webhooks/default/");
            assert!(subscription.target.starts_with(&target), "{kind}");
        }
        // The emulated SNS cannot use that tunnel, so this one is confirmed directly.
        let ours = control.subscribe(Event::OnExported, &installation.webhook(Event::OnExported));
        let ours = ours.expect("subscribed");
        within("the confirmation", async {
            loop {
                let (_, rows, _) = installation.run(&["subscriptions", "list", "--json"]).await;
                if rows.contains("\"confirmed\"") {
                    break;
                }
            }
        })
        .await;
        server.terminate();
        let (status, log) = server.exited().await;
        assert!(status.success(), "{log}");
        assert!(log.contains("unsubscribed from"), "{log}");
        let left = control.subscriptions();
        let still = |one: &Subscription| {
            one.subscription_arn == ours && one.state == SubscriptionState::Confirmed
        };
        assert!(!left.iter().any(still), "{kind}");
    }
}

#[tokio::test]
async fn without_a_tunnel_serve_says_how_to_start_one() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let nobody = StandIn::start([]).await;
    let arguments = ["serve", "--tunnel", "auto", "--tunnel-api", &nobody.url("")];
    let (code, _, errors) = installation.run(&arguments).await;
    assert_eq!(code, Some(3));
    let command = format!("ngrok http {}", installation.public_port());
    assert!(errors.contains(&command), "{errors}");

    let elsewhere = StandIn::start([ngrok_tunnel(1)]).await;
    let arguments = [
        "serve",
        "--tunnel",
        "ngrok",
        "--tunnel-api",
        &elsewhere.url(""),
    ];
    let (code, _, errors) = installation.run(&arguments).await;
    assert_eq!(code, Some(3));
    assert!(errors.contains("no https tunnel to port"), "{errors}");
}
