"""Rows kept in the repository are read from anywhere, and a name that is none says so."""

import pytest

from taylorir.rows.committed import read_rows


def test_rows_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = read_rows("bicubic.csv")
    assert {"device", "torch", "commit", "date"} <= set(rows)
    assert "101085" in set(rows.image)  # an image of BSD100: a name, not a number


def test_rows_of_a_path_and_names_that_do_not_exist(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("image,weights,psnr_y\n007,1234,30.5\n")
    assert read_rows(path).values.tolist() == [["007", "1234", 30.5]]
    with pytest.raises(FileNotFoundError, match=r"no rows .*none\.csv"):
        read_rows("none.csv")
