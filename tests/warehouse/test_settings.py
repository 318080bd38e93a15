"""Settings come from the environment, and a wrong one is refused with its name and a remedy."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from warehouse.settings import Settings


def read() -> Settings:
    return Settings(_env_file=None)


def test_a_nested_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHALLOP_INGEST__SESSION_GAP_SECONDS", "900")
    assert read().ingest.session_gap_seconds == 900


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHALLOP_STORAGE__URI", "")
    assert read().store_uri.endswith(".shallop/store")


def test_the_store_is_below_home_unless_named(tmp_path: Path) -> None:
    assert Settings(_env_file=None, home=tmp_path).store_uri == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SHALLOP_STORAGE__URI", "gs://bucket", r"expected a folder or `s3://bucket/prefix`"),
        ("SHALLOP_STORAGE__URI", "s3:///x", r"a bucket of 3 to 63"),
        ("SHALLOP_STORAGE__URI", "s3://lake", r"SHALLOP_STORAGE__S3_ACCESS_KEY"),
        ("SHALLOP_STORAGE__S3_ENDPOINT", "store:9000", r"a URL like `http://minio:9000`"),
        ("SHALLOP_SERVING__PORT", "0", r"greater than or equal to 1"),
        ("SHALLOP_TRAINING__DEVICE", "gpu", r"'auto', 'cpu' or 'cuda'"),
        ("SHALLOP_INGEST__NO_SUCH", "1", r"(?i)extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=message):
        read()


def test_secrets_do_not_show_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHALLOP_STORAGE__S3_SECRET_KEY", "hunter2")
    assert "hunter2" not in repr(read())
