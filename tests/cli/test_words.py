"""Numbers as text."""

import pytest

from gradclip._cli.words import counted, percent, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (0.5, "0.5"), (0.0123, "0.0123"), (1.005, "1"), (11.713, "11.7"), (100.0, "100"),
        (1234.5, "1234"), (2.5e5, "2.5e+05"), (1e-4, "0.0001"), (3e38, "3e+38"), (-0.25, "-0.25"),
        (float("inf"), "inf"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_three_digits(value, text):
    assert short(value) == text


def test_shares_and_counts():
    assert [percent(x) for x in (0, 0.00021, 0.0312, 0.5, 1)] == ["0 %", "0.021 %", "3.1 %", "50 %", "100 %"]
    assert [percent(x) for x in (0.876, 0.9967, 0.99999, 0.51)] == ["88 %", "99.67 %", "99.999 %", "51 %"]
    assert [counted(x, "step") for x in (0, 1, 1500)] == ["0 steps", "1 step", "1,500 steps"]
