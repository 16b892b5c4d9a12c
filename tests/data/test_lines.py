"""The compiled reader of delimited text against Python's csv module, cell by cell and for blocks of any size."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.data.reading import lines
from recsys.data.reading.read import read_events
from recsys.errors import InputError
from recsys.schema import canonical_int64

TEXT = st.text(st.sampled_from('a7,"\n\r é\x00-'), max_size=60)


@given(TEXT, st.integers(1, 40))
@example('a,"b\r\n",c\r\nd', 3)
@example("a\r\rb\n\n", 1)
def test_fields_lines_and_counts_are_those_of_csv(text, size):
    reader = csv.reader(io.StringIO(text, newline=""))
    wanted, first = [], 1
    for fields in reader:
        if fields:
            wanted.append((first, fields))
        first = reader.line_num + 1
    found, endless = [], None
    try:
        for block in read(text, size):
            for row in range(len(block)):
                fields = block.row_fields(row)
                found.append((int(block.lines[row]), fields))
                assert block.complete[row] == (len(fields) == 3)
                assert [block.cell_text(0, row), block.cell_text(1, row)] == [*fields, "", ""][:3:2]
            assert [block.text_column(0)[row] for row in range(len(block))] == [
                block.cell_text(0, r) for r in range(len(block))
            ]
    except lines.EndlessRowError as error:
        endless = error
    if endless and "never closed" in endless.problem:  # csv takes the rest of the file for the field
        assert endless.line == wanted.pop()[0]
    elif endless:
        assert len(text.encode()) > size
        wanted = wanted[: len(found)]
    assert found == wanted


def read(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", size)
        yield from lines.read_row_blocks(io.BytesIO(text.encode()), ",", 3, [0, 2], 0)


def one_column(cells):
    return next(lines.read_row_blocks(io.BytesIO("".join(f"{cell}\n" for cell in cells).encode()), ",", 1, [0], 0))


@given(st.lists(st.one_of(st.integers(-(2**64), 2**64).map(str), st.text("0123456789-+ ", min_size=1)), min_size=1))
@example([str(2**63 - 1), str(-(2**63)), "0"])
@example([str(2**63)])
@example([str(-(2**63) - 1)])
@example(["-0"])
def test_integers_are_the_canonical_ones(cells):
    numbers, fits = canonical_int64(cells)
    found = one_column(cells).integer_column(0)
    assert (found is not None) == bool(fits.all())
    if found is not None:
        assert np.array_equal(found, numbers)


@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
            st.decimals(allow_nan=False, allow_infinity=False).map(str),
            st.text("0123456789-+.eE", min_size=1, max_size=25),
            st.sampled_from(["9007199254740993", "0.1", "-0", "1e22", "1e-400", "123456789012345678.5", "5.", ".5"]),
        ),
        min_size=1,
    )
)
def test_numbers_are_correctly_rounded(cells):
    found, odd = one_column(cells).number_column(0)
    for row, cell in enumerate(cells):
        if row in odd:
            assert np.isnan(found[row])
            continue
        assert found[row].tobytes() == np.float64(float(cell)).tobytes(), cell


def test_a_row_longer_than_a_block_is_refused_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 1 << 20)
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id\na,b\n" + "c" * (3 << 20) + ",d\n")
    with pytest.raises(InputError, match=r"e\.csv, line 3: a row of more than 1 MiB"):
        read_events(path)
