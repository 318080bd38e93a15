"""`shallop keys` as an operator uses it, wrong words included."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api import key_file
from cli.doctor import examine
from shallop import app
from warehouse.settings import get_settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


def keys(*arguments: str, status: int = 0) -> str:
    """What the command prints; standard output's first line is the token, where it shows one."""
    result = runner.invoke(app, ["keys", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def token_of(output: str) -> str:
    (token,) = (line for line in output.splitlines() if line.startswith("shp_"))
    return token


def test_the_life_of_a_key(home: Path) -> None:
    assert "no keys yet" in keys("list")
    made = keys("create", "web", "--origin", "https://shop.example", "--rate", "50")
    assert "first key" in made
    token = token_of(made)
    listed = keys("list")
    for shown in ("web", "write", "events:write", "recommend:read", "https://shop", "500 at"):
        assert shown in listed
    turned = keys("rotate", "web", "--grace", "2h")
    assert token_of(turned) != token
    assert "good until" in turned
    assert "old token" in keys("list")
    assert "within 1 s" in keys("revoke", "web")
    assert "revoked" in keys("list")
    assert token.split("_", 3)[-1] not in (home / "keys.json").read_text() + listed
    keys("rotate", "web", status=1)
    keys("create", "web")  # the name is free again
    assert "first key" not in keys("create", "server", "--secret")


def test_the_token_alone_is_on_standard_output(home: Path) -> None:
    result = runner.invoke(app, ["keys", "create", "ci", "--secret", "--scope", "status:read"])
    assert result.stdout.strip().startswith("shp_sec_")
    assert len(result.stdout.split()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "web", "--scope", "admin"), "a write key may have the scopes"),
        (("create", "srv", "--secret", "--scope", "fly"), "`fly`"),
        (("create", "web", "--origin", "shop.example"), "`shop.example`"),
        (("create", "srv", "--secret", "--origin", "https://a.example"), "write key"),
        (("create", "web", "--expires", "soon"), "`soon`"),
        (("create", "web", "--burst", "5"), "--rate"),
        (("create", ""), "a name has"),
    ],
)
def test_wrong_words_make_no_key(home: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in keys(*arguments, status=2)
    assert "no keys yet" in keys("list")


def test_a_name_is_taken_once(home: Path) -> None:
    keys("create", "web")
    assert "there is a key of this name" in keys("create", "web", status=2)


def test_a_token_in_place_of_a_name_is_not_repeated(home: Path) -> None:
    token = token_of(keys("create", "web"))
    output = keys("revoke", token, status=1)
    assert "give its id or name" in output
    assert token not in output


def test_a_damaged_file_is_left_as_it_is(home: Path) -> None:
    home.mkdir()
    (home / "keys.json").write_text("{")
    for arguments in (("list",), ("create", "web"), ("revoke", "web"), ("rotate", "web")):
        assert "cannot be read" in keys(*arguments, status=1)
    assert (home / "keys.json").read_text() == "{"


def test_the_doctor_says_how_open_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[str, str]:
        get_settings.cache_clear()
        (finding,) = (one for one in examine() if one.name == "keys")
        return finding.state, finding.message

    assert found()[0] == "warning"
    assert "anybody" in found()[1]
    keys("create", "web")
    assert found() == ("ok", "1 good, requests without one are refused")
    keys("revoke", "web")
    assert found()[0] == "wrong"
    monkeypatch.setenv("SHALLOP_ACCESS__REQUIRE_KEYS", "never")
    assert found()[0] == "warning"
    (home / "keys.json").write_text(json.dumps({"version": 9, "keys": []}))
    assert found()[0] == "wrong"


def test_a_secret_key_for_the_shops_page_is_refused_and_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(keys("create", "srv", "--secret"))
    monkeypatch.setenv("SHALLOP_ACCESS__SHOP_KEY", token)
    get_settings.cache_clear()
    output = keys("list", status=2)
    assert "SHALLOP_ACCESS__SHOP_KEY" in output
    assert token not in output


def test_settings_do_not_show_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = token_of(keys("create", "web"))
    monkeypatch.setenv("SHALLOP_ACCESS__SHOP_KEY", token)
    monkeypatch.setenv("SHALLOP_KEY", token)
    get_settings.cache_clear()
    shown = runner.invoke(app, ["settings"], env={"COLUMNS": "400"}).output
    assert "SHALLOP_KEY" in shown
    assert token not in shown


def test_every_change_is_kept_whole(home: Path) -> None:
    for number in range(3):
        keys("create", f"key {number}")
    assert len(key_file.read(home / "keys.json") or {}) == 3
