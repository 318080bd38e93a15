"""A local S3 server (SeaweedFS, from its wheel) for the demo and the tests.

It honours conditional writes as MinIO does, which most stand-ins silently ignore.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


class LocalS3Missing(RuntimeError):
    """SeaweedFS is not installed."""


@dataclass(frozen=True)
class LocalS3:
    """How to start the server: it keeps its data in `folder` and listens on `port` to `port + 3`.

    gRPC takes 10000 above each of these ports.
    """

    folder: Path
    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port + 3}"

    @property
    def command(self) -> list[str]:
        """Raises LocalS3Missing."""
        port = self.port
        return [
            weed(), "mini", "-dir", str(self.folder),
            "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1",
            "-master.port", str(port), "-volume.port", str(port + 1),
            "-filer.port", str(port + 2), "-s3.port", str(port + 3),
            "-s3.localSocket", str(self.folder / "s3.sock"),
            "-admin.ui=false", "-webdav=false", "-s3.port.iceberg", "0", "-s3.port.lance", "0",
            "-master.telemetry=false",
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
        }


def weed() -> str:
    """Path of SeaweedFS, which its wheel puts beside the interpreter. Raises LocalS3Missing."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise LocalS3Missing("the local S3 server is not installed: pip install 'shallop[s3]'")
    return found
