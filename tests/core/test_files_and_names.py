"""Files that are written at once and read with a limit, and which name may have been meant."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.files import read_bounded, replacing, write_whole
from evalscope_vacc.names import did_you_mean, nearest


def _written_by_half(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half of what was me")
        assert path.read_text() == "before"
        1 / 0  # noqa: B018


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    # as long as a name may be: the name of what is being written is not made of it
    path = tmp_path / "new folder" / ("n" * 255)
    write_whole(path, "before")
    with pytest.raises(ZeroDivisionError):
        _written_by_half(path)
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]
    write_whole(path, "after")
    assert path.read_text() == "after"


def test_a_file_may_be_read_by_whoever_may_read_the_others(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_whole(tmp_path / "whole", "x")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(st.binary(max_size=40), st.integers(0, 40))
def test_no_more_than_the_limit_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes, limit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "content"
    path.write_bytes(content)
    if len(content) <= limit:
        assert read_bounded(path, limit) == content
    else:
        with pytest.raises(ValueError, match=f"larger than {limit} bytes"):
            read_bounded(path, limit)


def test_the_limit_holds_for_what_a_compressed_file_unpacks_to(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(3 << 20)))
    assert len(read_bounded(path, 3 << 20, gzip.open)) == 3 << 20
    with pytest.raises(ValueError, match="larger than 2 MiB"):
        read_bounded(path, 2 << 20, gzip.open)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("api-bsae", ["api_base"]), ("API_BASE", ["api_base"]), ("zzz", []), (7, [])],
)
def test_the_nearest_name_is_found_whatever_its_case(name: object, meant: list[str]) -> None:
    assert nearest(name, ["api_base", "batch_size"]) == meant
    expected = f"did you mean {meant[0]!r}?" if meant else "there is none"
    assert did_you_mean(name, ["api_base", "batch_size"], "there is none") == expected
