"""A collector's worker without HTTP: appends events until killed, printing each acknowledged id.

Arguments: a name for the worker, and how many threads append.
"""

import os
import sys
import threading
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

import msgspec

from ingest.events import decode_events
from ingest.outbox import Outbox
from warehouse.settings import Settings


def main(name: str, n_threads: int) -> None:
    settings = Settings(_env_file=None)
    outbox = Outbox(settings.outbox_path, settings.ingest)
    threads = [
        threading.Thread(target=append, args=(outbox, settings, f"{name}-{number}"))
        for number in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def append(outbox: Outbox, settings: Settings, session_id: str) -> None:
    for number in count():
        event_id = str(uuid4())
        event = {
            "event_id": event_id,
            "event_name": "view_item",
            "session_id": session_id,
            "items": [{"item_id": str(number)}],
        }
        outbox.append_now(
            decode_events(
                msgspec.json.encode(event),
                limits=settings.ingest,
                received_at=datetime.now(UTC),
                ip=None,
                user_agent=None,
                source="test",
            )
        )
        os.write(1, f"{event_id} {session_id} {number}\n".encode())


main(sys.argv[1], int(sys.argv[2]))
