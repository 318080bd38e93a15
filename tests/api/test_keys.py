"""Keys: what is a good token, and the file that holds them, also when it is not as it should be."""

import json
import os
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api import key_file
from api.key_file import KeyHolder, KeysUnreadable
from api.keys import Key, KeyRefused, KeyTerms, blanked, created, rotated, verified

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEB = KeyTerms("web", "write", (), ("https://shop.example",))
SERVER = KeyTerms("server", "secret", ("events:write",))


def made(terms: KeyTerms, now: datetime = NOW) -> tuple[dict[str, Key], str]:
    key, token = created(terms.checked(), (), now)
    return {key.id: key}, token


def code_of(token: str, keys: dict[str, Key], now: datetime = NOW) -> str:
    with pytest.raises(KeyRefused) as refused:
        verified(token, keys, "?key=", now)
    assert not token[17:] or token[17:] not in str(refused.value) + refused.value.remedy
    return refused.value.code


class TestTokens:
    def test_a_token_is_good_and_kept_nowhere(self) -> None:
        for terms, prefix in ((WEB, "shp_pub_"), (SERVER, "shp_sec_")):
            keys, token = made(terms)
            assert token.startswith(prefix)
            assert verified(token, keys, "?key=", NOW).name == terms.name
            assert token.split("_", 3)[-1] not in repr(keys)

    def test_two_are_never_alike(self) -> None:
        assert len({made(WEB)[1] for _ in range(100)}) == 100

    def test_any_other_is_refused(self) -> None:
        keys, token = made(WEB)
        _, other_token = made(WEB)
        as_secret = token.replace("shp_pub_", "shp_sec_")
        changed = token[:-1] + ("A" if token[-1] != "A" else "B")
        for wrong in (
            "",
            "x",
            token[:-1],
            f"{token} ",
            changed,
            as_secret,
            other_token,
            "shp_pub_é",
        ):
            assert code_of(wrong, keys) == "invalid_key"

    def test_it_ends_when_it_expires(self) -> None:
        keys, token = made(KeyTerms("web", "write", (), expires_at=NOW + HOUR))
        verified(token, keys, "?key=", NOW + HOUR - timedelta(seconds=1))
        assert code_of(token, keys, NOW + HOUR) == "expired_key"

    def test_a_rotated_one_is_good_through_its_grace(self) -> None:
        keys, old = made(WEB)
        (key,) = keys.values()
        turned, new = rotated(key, NOW + HOUR, NOW)
        keys = {key.id: turned}
        for token in (old, new):
            verified(token, keys, "?key=", NOW + HOUR / 2)
        assert code_of(old, keys, NOW + HOUR) == "rotated_key"
        verified(new, keys, "?key=", NOW + HOUR)

    def test_without_grace_the_old_one_is_gone_at_once(self) -> None:
        keys, old = made(WEB)
        (key,) = keys.values()
        turned, new = rotated(key, NOW, NOW)
        assert code_of(old, {key.id: turned}) == "invalid_key"
        verified(new, {key.id: turned}, "?key=", NOW)

    def test_a_second_rotation_does_not_lengthen_the_first_grace(self) -> None:
        keys, first = made(WEB)
        (key,) = keys.values()
        once, _ = rotated(key, NOW + HOUR, NOW)
        twice, _ = rotated(once, NOW + 3 * HOUR, NOW)
        assert code_of(first, {key.id: twice}, NOW + 2 * HOUR) == "rotated_key"

    def test_text_that_holds_one_is_blanked(self) -> None:
        _, token = made(SERVER)
        text = f'{{"a": "{token}", "b": ["x{token}"]}}'.encode()
        assert blanked(text) == b'{"a": "shp_***", "b": ["xshp_***"]}'
        assert blanked(b"shp_pub_ is no key") == b"shp_pub_ is no key"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (KeyTerms("web", "write", ("status:read",)), "may have the scopes"),
        (KeyTerms("web", "write", ("admin",)), "may have the scopes"),
        (KeyTerms("srv", "secret", ("fly",)), "`fly`"),
        (KeyTerms("srv", "secret", ()), "needs a scope"),
        (KeyTerms("srv", "secret", ("admin",), ("https://a.example",)), "not for pages"),
        (KeyTerms("web", "write", (), ("a.example",)), "expected an origin"),
        (KeyTerms("", "write", ()), "a name has"),
        (KeyTerms("a\nb", "write", ()), "a name has"),
    ],
)
def test_wrong_terms_are_named(terms: KeyTerms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        terms.checked()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


def add(path: Path, terms: KeyTerms = WEB) -> str:
    with key_file.changing(path) as keys:
        key, token = created(terms, keys, datetime.now(UTC))
        keys[key.id] = key
    return token


class TestFile:
    def test_it_is_for_its_owner_alone_and_whole(self, path: Path) -> None:
        token = add(path)
        add(path, SERVER)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]
        assert [key.name for key in (key_file.read(path) or {}).values()] == ["web", "server"]
        assert token.split("_", 3)[-1] not in path.read_text()

    def test_a_failed_change_leaves_it(self, path: Path) -> None:
        add(path)
        before = path.read_bytes()
        with suppress(KeyError), key_file.changing(path) as keys:
            keys.clear()
            keys.pop("not there")
        assert path.read_bytes() == before

    def test_changes_of_one_moment_are_all_kept(self, path: Path) -> None:
        threads = [threading.Thread(target=add, args=(path,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(key_file.read(path) or {}) == 8

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 2, "keys": []}', b"\xff\xfe",
         b'{"version": 1, "keys": [{"id": "x"}]}', b'{"version": 1, "keys": [], "more": 1}'],
    )  # fmt: skip
    def test_a_damaged_one_is_never_overwritten(self, path: Path, content: bytes) -> None:
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(KeysUnreadable, match=str(path)):
            add(path)
        assert path.read_bytes() == content

    def test_a_wrong_origin_in_it_is_damage(self, path: Path) -> None:
        add(path)
        content = json.loads(path.read_text())
        content["keys"][0]["origins"] = ["not an origin"]
        path.write_text(json.dumps(content))
        with pytest.raises(KeysUnreadable, match="not an origin"):
            key_file.read(path)


class TestHolder:
    def test_none_is_open_unless_always(self, path: Path) -> None:
        assert not KeyHolder(path, "auto").look().is_required
        always = KeyHolder(path, "always").look()
        assert (always.is_required, always.is_locked) == (True, False)

    def test_the_first_key_closes_and_revoking_all_does_not_open(self, path: Path) -> None:
        clock = Clock()
        holder = KeyHolder(path, "auto", clock)
        assert not holder.look().is_required
        add(path)
        assert not holder.look().is_required  # not a second has passed
        clock.now = 1.0
        assert holder.look().is_required
        with key_file.changing(path) as keys:
            for key_id, key in keys.items():
                keys[key_id] = key.__class__(
                    **{name: getattr(key, name) for name in key.__struct_fields__}
                    | {"revoked_at": NOW}
                )
        clock.now = 2.0
        state = holder.look()
        assert state.is_required
        assert state.n_usable(NOW) == {"write": 0, "secret": 0}
        assert not state.origins

    def test_never_does_not_even_look(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text("{")
        state = KeyHolder(path, "never").look()
        assert (state.is_required, state.error) == (False, None)

    @pytest.mark.parametrize("mode", ["auto", "always"])
    def test_a_damaged_file_at_the_start_locks(self, path: Path, mode: str) -> None:
        path.parent.mkdir()
        path.write_text("{")
        state = KeyHolder(path, mode).look()  # type: ignore[arg-type]
        assert (state.is_required, state.is_locked) == (True, True)
        assert str(path) in str(state.error)

    @pytest.mark.parametrize("how", ["damaged", "vanished"])
    def test_later_it_leaves_the_last_good_keys(self, path: Path, how: str) -> None:
        clock = Clock()
        holder = KeyHolder(path, "auto", clock)
        token = add(path)
        good = path.read_bytes()
        holder.look()
        if how == "damaged":
            path.write_text("{")
        else:
            path.unlink()
        clock.now = 1.0
        state = holder.look()
        assert (state.is_required, state.is_locked) == (True, False)
        assert state.error
        assert state.origins.allows("https://shop.example")
        verified(token, state.keys, "?key=", datetime.now(UTC))
        path.write_bytes(good)
        clock.now = 2.0
        assert holder.look().error is None

    def test_one_that_may_not_be_read_locks_until_it_may(self, path: Path) -> None:
        if os.geteuid() == 0:
            path.mkdir(parents=True)  # root may read every file, but no folder as one
        else:
            add(path)
            path.chmod(0)
        clock = Clock()
        holder = KeyHolder(path, "auto", clock)
        assert holder.look().is_locked
        if path.is_dir():
            path.rmdir()
            add(path)
        else:
            path.chmod(0o600)
        clock.now = 1.0
        assert not holder.look().is_locked
