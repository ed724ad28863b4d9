//! `serve --tunnel`, against stand-ins that answer like ngrok and cloudflared.

use ivesk_webhook::domain::Event;

use ivesk_webhook::emulator::{Emulator, EmulatorSettings, Subscription, SubscriptionState};
use serde_json::json;

use crate::support::process::{Installation, within};
use crate::support::stand_in::{Answer, StandIn};

/// Where no tunnel leads, and nothing listens: a privileged port of this machine.
const ADDRESS: &str = "localhost:1";

async fn emulator() -> Emulator {
    let started = Emulator::start(EmulatorSettings::default(), ([127, 0, 0, 1], 0).into());
    started.await.expect("a free port")
}

/// `[api]` with the path for subscriptions, which [`Installation::beside`] leaves out.
fn with_subscriptions(here: &Installation) {
    let settings = std::fs::read_to_string(here.settings()).expect("settings");
    let settings = settings.replace("[api]\n", "[api]\nsubscribe_path = \"/subscriptions\"\n");
    std::fs::write(here.settings(), settings).expect("written");
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
        let emulator = emulator().await;
        let here = Installation::beside(&emulator, "", "");
        with_subscriptions(&here);
        let tunnel = StandIn::start([match kind {
            "cloudflared" => quick_tunnel(),
            _ => ngrok_tunnel(here.public_port()),
        }])
        .await;
        let server = here.spawn_with(&["--tunnel", kind, "--tunnel-api", &tunnel.url("")]);
        let control = emulator.control();
        within("both subscriptions", async {
            while control.subscriptions().len() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let asked = tunnel.requests();
        let path = if kind == "cloudflared" {
            "/quicktunnel"
        } else {
            "/api/tunnels"
        };
        assert_eq!(asked[0].target, path);
        for subscription in control.subscriptions() {
            let target = format!("https://{ADDRESS}/webhooks/default/");
            assert!(subscription.target.starts_with(&target), "{kind}");
        }
        // SNS, emulated, can't come through that tunnel; it asks for a confirmation here.
        let ours = control.subscribe(Event::OnExported, &here.webhook(Event::OnExported));
        let ours = ours.expect("subscribed");
        within("the confirmation", async {
            loop {
                let (_, rows, _) = here.run(&["subscriptions", "list", "--json"]).await;
                if rows.contains("\"confirmed\"") {
                    break;
                }
            }
        })
        .await;
        server.terminate();
        let (status, log) = server.ended().await;
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
    let emulator = emulator().await;
    let here = Installation::beside(&emulator, "", "");
    let nobody = StandIn::start([]).await;
    let arguments = ["serve", "--tunnel", "auto", "--tunnel-api", &nobody.url("")];
    let (code, _, errors) = here.run(&arguments).await;
    assert_eq!(code, Some(3));
    let command = format!("ngrok http {}", here.public_port());
    assert!(errors.contains(&command), "{errors}");

    let elsewhere = StandIn::start([ngrok_tunnel(1)]).await;
    let arguments = [
        "serve",
        "--tunnel",
        "ngrok",
        "--tunnel-api",
        &elsewhere.url(""),
    ];
    let (code, _, errors) = here.run(&arguments).await;
    assert_eq!(code, Some(3));
    assert!(errors.contains("no https tunnel to port"), "{errors}");
}
