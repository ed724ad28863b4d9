"""Takes documents from an `http` destination of ivesk-webhook: checks each signature, books each
version once, and says in words what it does not want.

    pip install -r requirements.txt
    export IVESK_SECRETS="whsec_…"      # as in the destination's secret_file; several: spaces between
    export BOOKS=books.db               # a SQLite file, made where it is missing
    export COMPANIES=302320404,304567890
    flask --app flask_receiver run --port 9000

and in the settings of ivesk-webhook: url = "http://127.0.0.1:9000/ivesk". Before others can
reach it, put a real server (gunicorn, waitress) and TLS in front.
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
    """The books. Each version of a document has one row, whatever happens: its key is unique."""
    connection = sqlite3.connect(os.environ["BOOKS"], timeout=20)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS booked (key TEXT PRIMARY KEY, company TEXT NOT NULL,"
        " document_id TEXT NOT NULL, version TEXT NOT NULL, document TEXT NOT NULL)"
    )
    return connection


def verified(body, headers):
    """The JSON, where one of our secrets signed it. While a secret is changed there are two."""
    for webhook in SECRETS:
        try:
            return webhook.verify(body, headers)
        except WebhookVerificationError:
            continue
    return None


@app.post("/ivesk")
def take():
    # The signature is over the bytes as they came: don't parse and print them before.
    body = request.get_data()
    told = verified(body, dict(request.headers))
    if told is None:
        # The destination pauses and says so: this is about the secret, not about the document.
        return {"message": "the signature is not ours"}, 401

    data = told["data"]
    if data["company"] not in COMPANIES:
        # A 4xx with a message is a rejection: the accountant reads these words.
        return {"message": f"Įmonės {data['company']} apskaita čia netvarkoma"}, 422

    connection = books()
    try:
        # The key and the booking in one transaction: a crash leaves both or none, and the
        # same document comes again until it hears of our answer.
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
