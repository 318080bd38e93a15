"""A flusher that runs until killed; ready once it has printed so."""

import signal

from ingest.flusher import Flusher
from ingest.outbox import Outbox
from warehouse.settings import IngestSettings, Settings
from warehouse.store import open_store

settings = Settings(_env_file=None)
limits = IngestSettings(flush_interval_seconds=0.01, flush_max_rows=50)
flusher = Flusher(Outbox(settings.outbox_path, limits), open_store(settings), limits)
flusher.start()
print("ready", flush=True)  # noqa: T201
signal.pause()
