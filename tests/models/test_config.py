from pathlib import Path

import pytest

from models.config import BadConfig, GRU4RecConfig

CONFIGS = Path(__file__).parents[2] / "models" / "configs"


def test_json_round_trip(tmp_path: Path):
    config = GRU4RecConfig(loss="cross-entropy", embedding="separate", embedding_size=7,
                           layers=(5, 6), logq=1.0)  # fmt: skip
    config.save(tmp_path / "config.json")
    assert GRU4RecConfig.load(tmp_path / "config.json") == config


def test_missing_keys_keep_their_defaults():
    assert GRU4RecConfig.from_json('{"n_epochs": 3}') == GRU4RecConfig(n_epochs=3)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_published_configs_load(path: Path):
    assert GRU4RecConfig.load(path).loss == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochs": 3}', "also has: \\['epochs'\\]"),
        ('{"loss": "xe"}', "Invalid enum value 'xe'"),
        ('{"layers": 100}', "Expected `array`, got `int` - at `\\$.layers`"),
        ('{"layers": []}', "at least one size"),
        ('{"dropout_embed": 1}', "`dropout_embed` must be from 0 to 0.99, it is: 1"),
        ('{"learning_rate": 0}', "`learning_rate` must be"),
        ('{"embedding_size": 5}', "belongs to `separate` embeddings"),
        ("[]", "should be a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_bad_hyperparameters_are_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(BadConfig, match=message) as raised:
        GRU4RecConfig.load(path)
    assert str(path) in str(raised.value)


def test_unknown_loss_in_code_is_refused():
    with pytest.raises(BadConfig, match=r"unknown loss, expected one of .*: `xe`"):
        GRU4RecConfig(loss="xe")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"mine\.json"):
        GRU4RecConfig.load(tmp_path / "mine.json")
