"""What the documents say is what the code does."""

import re
from pathlib import Path

import pytest

from warehouse.settings import Settings
from warehouse.settings_reference import Documented, as_env, as_markdown, document

ROOT = Path(__file__).parents[1]
DEFAULTS = Settings.model_construct()


@pytest.mark.parametrize("setting", list(document(DEFAULTS)), ids=lambda setting: setting.variable)
def test_every_setting_says_what_it_is(setting: Documented) -> None:
    assert setting.description.endswith("."), f"no description: {setting.variable}"


def test_readme_has_every_setting_as_the_code_has_it() -> None:
    assert as_markdown(DEFAULTS) in (ROOT / "README.md").read_text(), (
        "the README's settings are out of date, replace them by `shallop settings --markdown`"
    )


def test_env_example_has_every_setting_as_the_code_has_it() -> None:
    assert as_env(DEFAULTS) in (ROOT / ".env.example").read_text(), (
        ".env.example is out of date, replace its last part by `shallop settings --env`"
    )


def test_env_example_is_accepted_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Settings(_env_file=ROOT / ".env.example")


def test_every_test_that_the_checklist_of_gru4rec_names_is_there() -> None:
    text = (ROOT / "docs" / "gru4rec.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert {int(line) for line in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == {
        *range(1, 25)
    }
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / "models" / file).read_text(), (file, test)
