"""Fetches the documents of a `list` destination of ivesk-webhook: books each version once, in the
transaction that stores the place in the list. Run it from cron or a timer; it needs no library.

    ivesk-webhook tokens create --name books --rights destination:books >token.txt
    export IVESK_ADMIN=http://127.0.0.1:8081 IVESK_TOKEN_FILE=token.txt
    export BOOKS=books.db               # a SQLite file, created if missing
    export COMPANIES=302320404,304567894
    python3 list_consumer.py
"""

import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request

ADMIN = os.environ["IVESK_ADMIN"]
COMPANIES = set(os.environ["COMPANIES"].split(","))
with open(os.environ["IVESK_TOKEN_FILE"], encoding="utf-8") as file:
    TOKEN = file.read().strip()


def request(path, body=None):
    """Returns the JSON of an answer."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(ADMIN + path, data=data, headers=headers)
    with urllib.request.urlopen(call, timeout=60) as answer:
        # Amounts stay as they are written.
        return json.load(answer, parse_float=str)


def page_after(place, books):
    """Returns the documents after a place; from the beginning if the list has no such place."""
    query = {} if place is None else {"after": place}
    try:
        return request("/v1/documents?" + urllib.parse.urlencode(query))
    except urllib.error.HTTPError as error:
        if error.code == 409 and place is not None:
            # An older state of the database was put back: the keys show what is booked already. The
            # sequence numbers of outcomes that were not sent yet may be other versions now.
            with books:
                books.execute("DELETE FROM outcome")
            return page_after(None, books)
        raise


def outcome_of(one):
    """Returns what became of a document."""
    if one["company"] in COMPANIES:
        return {"outcome": "delivered"}
    message = f"Įmonės {one['company']} apskaita čia netvarkoma"
    return {"outcome": "rejected", "message": message}


def send_outcomes(books):
    """Reports the outcomes that were stored; reporting one twice changes nothing."""
    stored = books.execute("SELECT sequence, outcome FROM outcome ORDER BY sequence").fetchall()
    for sequence, outcome in stored:
        try:
            request(f"/v1/documents/{sequence}/outcome", json.loads(outcome))
        except urllib.error.HTTPError as error:
            # The version was erased or settled otherwise meanwhile: nothing is left to report.
            if error.code != 409:
                raise
        with books:
            books.execute("DELETE FROM outcome WHERE sequence = ?", (sequence,))


def main():
    books = sqlite3.connect(os.environ["BOOKS"], timeout=20)
    books.execute("PRAGMA synchronous = FULL")
    books.execute("CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), next TEXT)")
    books.execute(
        "CREATE TABLE IF NOT EXISTS booked (key TEXT PRIMARY KEY, company TEXT NOT NULL,"
        " document_id TEXT NOT NULL, document TEXT NOT NULL)"
    )
    books.execute("CREATE TABLE IF NOT EXISTS outcome (sequence INTEGER PRIMARY KEY, outcome TEXT NOT NULL)")
    row = books.execute("SELECT next FROM place").fetchone()
    place = row[0] if row else None
    more = True
    while more:
        page = page_after(place, books)
        # The bookings, their outcomes and the place in one transaction: a crash leaves all or none.
        with books:
            for one in page["documents"]:
                if one["company"] in COMPANIES:
                    books.execute(
                        "INSERT INTO booked VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                        (one["key"], one["company"], one["document_id"], json.dumps(one["document"])),
                    )
                books.execute(
                    "INSERT OR REPLACE INTO outcome VALUES (?, ?)", (one["sequence"], json.dumps(outcome_of(one)))
                )
            place, more = page["next"], page["more"]
            books.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (place,))
        send_outcomes(books)


if __name__ == "__main__":
    main()
