"""The text: read, refused, numbered, and cut into batches."""

from itertools import islice

import numpy as np
import pytest

from demo.checks import RefusedError
from demo.text import LARGEST_VOCABULARY, RARE, batches, read_corpus


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.txt"


def test_pythons_own_documentation_is_the_default():
    corpus = read_corpus(None, 2080)
    assert len(corpus.codes) > 100_000
    assert "statement" in corpus.decode(corpus.codes)


def test_codes_stand_for_the_text(file):
    file.write_text("hallo wörld\n" * 3, encoding="utf-8")
    corpus = read_corpus(file, 10)
    assert corpus.decode(corpus.codes) == "hallo wörld\n" * 3
    assert corpus.characters == "".join(sorted(set("hallo wörld\n")))
    assert corpus.decode(corpus.encode("low The")) == "low h"


def test_a_large_script_keeps_its_most_frequent_characters(file):
    common = "ab" * 1000
    file.write_text(common + "".join(chr(0x4E00 + i) for i in range(2 * LARGEST_VOCABULARY)), encoding="utf-8")
    corpus = read_corpus(file, 10)
    assert len(corpus.characters) == LARGEST_VOCABULARY
    assert corpus.decode(corpus.codes[:2000]) == common
    assert corpus.characters.endswith(RARE)


def test_targets_are_the_inputs_one_later_and_rows_go_on():
    codes = np.arange(100)
    first, second = islice(batches(codes, rows=4, length=5, start=0), 2)
    assert first.inputs.shape == (5, 4)
    assert first.inputs[:, 1].tolist() == [25, 26, 27, 28, 29]
    assert first.targets[:, 1].tolist() == [26, 27, 28, 29, 30]
    assert second.inputs[:, 1].tolist() == [30, 31, 32, 33, 34]
    assert (first.first, second.first) == (True, False)


@pytest.mark.parametrize("start", [0, 7, 19, 99])
def test_passes_cover_the_rows_and_begin_anew(start):
    feed = list(islice(batches(np.arange(100), rows=4, length=5, start=start), 30))
    assert all(batch.inputs.shape == batch.targets.shape == (5, 4) for batch in feed)
    begin = next(number for number, batch in enumerate(feed) if number and batch.first)
    read = [code for batch in feed[begin : begin + 4] for code in batch.inputs[:, 0]]
    assert read == list(range(20))
    assert feed[begin + 4].first


def test_the_shortest_text_makes_one_batch_again_and_again():
    one, two = islice(batches(np.arange(24), rows=4, length=5, start=3), 2)
    assert one.first
    assert two.first
    assert np.array_equal(one.inputs, two.inputs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty; expected at least 100 characters"),
        (b" \n\t " * 100, r"is empty"),
        (b"short", r"has 5 characters; expected at least 100"),
        (b"s", r"has 1 character; expected at least 100"),
        (b"a" * 200, r"repeats one character, 'a'"),
        (b"abc\xff" * 100, r"not text in UTF-8 \(byte 0xff at position 3\)"),
    ],
)
def test_what_cannot_be_learned_is_refused(file, content, message):
    file.write_bytes(content)
    with pytest.raises(RefusedError, match=message):
        read_corpus(file, 100)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"no such file\. Check the path"):
        read_corpus(tmp_path / "missing.txt", 100)
    with pytest.raises(RefusedError, match="is a folder; expected a text file"):
        read_corpus(tmp_path, 100)
