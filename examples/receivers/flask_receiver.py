"""Receives documents of an `http` destination of ivesk-webhook: verifies each signature, books
each version once, and rejects with a message.

    pip install -r requirements.txt
    export IVESK_SECRETS="whsec_…"      # as in the destination's secret_file; several separated by spaces
    export BOOKS=books.db               # a SQLite file, created if missing
    export COMPANIES=302320404,304567894
    flask --app flask_receiver run --port 9000

and in the settings of ivesk-webhook: url = "http://127.0.0.1:9000/ivesk". Before it is
reachable by others, put a real server (gunicorn, waitress) and TLS in front.
"""

import os
import sqlite3

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

SECRETS = [Webhook(secret) for secret in os.environ["IVESK_SECRETS"].split()]
COMPANIES = set(os.environ["COMPANIES"].split(","))

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024 * 1024


def books():
    """Opens the books. Each version of a document has at most one row: its key is unique."""
    connection = sqlite3.connect(os.environ["BOOKS"], timeout=20)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS booked (key TEXT PRIMARY KEY, company TEXT NOT NULL,"
        " document_id TEXT NOT NULL, version TEXT NOT NULL, document TEXT NOT NULL)"
    )
    return connection


def verified(body, headers):
    """Returns the payload if one of the secrets signed it; there are two while one is changed."""
    for webhook in SECRETS:
        try:
            return webhook.verify(body, headers)
        except WebhookVerificationError:
            continue
    return None


@app.post("/ivesk")
def receive():
    # The signature covers the bytes as received: don't parse and print them before.
    body = request.get_data()
    payload = verified(body, dict(request.headers))
    if payload is None:
        # Not a rejection: ivesk-webhook waits and retries, since 401 is about the secret.
        return {"message": "the signature does not match"}, 401

    data = payload["data"]
    if data["company"] not in COMPANIES:
        # A 4xx with a message is a rejection: the accountant reads the message.
        return {"message": f"Įmonės {data['company']} apskaita čia netvarkoma"}, 422

    connection = books()
    try:
        # The key and the booking in one transaction: a crash leaves both or none, and the
        # same document is delivered again until the response arrives.
        with connection:
            connection.execute(
                "INSERT INTO booked VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (
                    request.headers["webhook-id"],
                    data["company"],
                    data["document_id"],
                    data["version"],
                    body.decode(),
                ),
            )
    finally:
        connection.close()
    return "", 204
