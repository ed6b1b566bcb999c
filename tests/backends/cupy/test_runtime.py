"""The runtime without a GPU: its source has no call that waits for the GPU, and places are cached."""

from importlib import resources

import numpy as np

from gradclip.backends.cupy._places import places_of


def test_nothing_is_synchronised():
    """No call that waits is in the adapter's source: synchronise, get, item, float of an array."""
    folder = resources.files("gradclip.backends.cupy")
    for name in ("_ops.py", "_runtime.py", "_tree.py", "_result.py", "_places.py", "_table.py", "_gpu.py"):
        text = (folder / name).read_text()
        for call in (".synchronize(", ".get()", ".item(", "asnumpy"):
            assert call not in text, f"{name} calls {call}"


def test_places_are_the_same_object_for_the_same_arrays():
    key = 64, (2, 3), (12, 4), np.dtype(np.float32), 3
    places = places_of((key,))
    assert places.items == ((64, (2, 3), None, "float32", 4, 3),)
    assert places_of((key,)) is places
    gaps = places_of(((64, (2, 3), (24, 4), np.dtype(np.float32), 3),))
    assert gaps.items[0].steps == (24, 4)
