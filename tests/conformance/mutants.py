"""Clipping functions with one defect each, of the kinds that libraries have: the suite has to find every one.

Each is the source of a module that has gradclip's names, for the clause that it breaks.
"""

BEGINNING = """
import itertools
import numpy as np
import gradclip
from gradclip import *

def arrays(grads):
    return grads if isinstance(grads, list) else [grads]

def times(grads, factor):
    scaled = [(x * factor).astype(x.dtype) for x in arrays(grads)]
    return scaled if isinstance(grads, list) else scaled[0]
"""

MUTANTS = {
    "01_definition": """
# Sums of squares whatever the order.
def global_norm(grads, *, ord=2.0):
    return gradclip.global_norm(grads)
""",
    "02_accuracy": """
# Norms of leaves in the leaves' own dtype.
def global_norm(grads, *, ord=2.0):
    norms = [np.linalg.norm(x.ravel()) .astype(x.dtype) for x in arrays(grads)]
    return gradclip.global_norm(norms, ord=ord)
""",
    "03_range": """
# Squares in float32, which overflow beyond 1.8e19 and vanish below 1e-23.
def global_norm(grads, *, ord=2.0):
    with np.errstate(all="ignore"):
        return np.asarray(np.sqrt(sum(np.sum(np.square(abs(x).astype("float32"))) for x in arrays(grads))))
""",
    "04_identity": """
# Always multiplied: the bits of a negative zero or of a rounded product are not those that came.
def clip_by_global_norm(grads, max_norm, **options):
    clipped, norm = gradclip.clip_by_global_norm(grads, max_norm, **options)
    return times(clipped, 1.0 - 1e-3) if isinstance(clipped, list) else clipped, norm
""",
    "05_exactness": """
# 1e-6 in the denominator.
def clip_by_global_norm(grads, max_norm, **options):
    return gradclip.clip_by_global_norm(grads, max_norm, **{"eps": 1e-6, **options})
""",
    "06_zero": """
# 0/0.
def clip_by_norm(grads, max_norm, *, ord=2.0):
    with np.errstate(all="ignore"):
        return [x / np.linalg.norm(x.astype(float)) * min(max_norm, np.linalg.norm(x)) for x in arrays(grads)]
""",
    "07_arguments": """
# A negative threshold is taken for its absolute value.
def clip_by_norm(grads, max_norm, *, ord=2.0):
    return gradclip.clip_by_norm(grads, abs(max_norm) if isinstance(max_norm, float) else max_norm, ord=ord)
""",
    "08_all_or_nothing": """
# Leaf by leaf: those before the bad one are written.
def clip_by_norm_(grads, max_norm, *, ord=2.0):
    for x in arrays(grads):
        gradclip.clip_by_norm_(x, max_norm, ord=ord)
""",
    "09_nonfinite": """
# The policy is not looked at.
def clip_by_global_norm(grads, max_norm, *, nonfinite="propagate", **options):
    return gradclip.clip_by_global_norm(grads, max_norm, **options)
""",
    "10_by_value": """
# NaN becomes zero.
def clip_by_value(grads, max_value, *, min_value=None):
    clipped = gradclip.clip_by_value(grads, max_value, min_value=min_value)
    return np.nan_to_num(clipped, posinf=np.inf, neginf=-np.inf) if not isinstance(clipped, list) else clipped
""",
    "11_once_each": """
# A tied leaf is scaled as often as it is passed.
def clip_by_norm_(grads, max_norm, *, ord=2.0):
    if isinstance(grads, dict):
        gradclip.clip_by_norm_(grads["x"], max_norm, ord=ord)
        grads["x"] *= grads["x"].dtype.type(0.5)
        return
    gradclip.clip_by_norm_(grads, max_norm, ord=ord)
""",
    "12_in_place": """
# The container gets new arrays; views and strides of the old ones are left behind.
def clip_by_norm_(grads, max_norm, *, ord=2.0):
    if isinstance(grads, list):
        grads[:] = gradclip.clip_by_norm(grads, max_norm, ord=ord)
""",
    "14_laws": """
# Soft clipping: what is clipped already is clipped again.
def clip_by_norm(grads, max_norm, *, ord=2.0):
    norm = float(gradclip.global_norm(grads))
    return times(grads, max_norm / (norm + max_norm))
""",
    "15_scale": """
# The norm that is reported is that of the scaled gradients.
def clip_by_global_norm(grads, max_norm, *, scale=1.0, **options):
    clipped, norm = gradclip.clip_by_global_norm(grads, max_norm, scale=scale, **options)
    return clipped, norm * scale
""",
    "16_determinism": """
# Something is left over from the call before.
def clip_by_norm(grads, max_norm, *, ord=2.0, calls=itertools.count()):
    return times(gradclip.clip_by_norm(grads, max_norm, ord=ord), 1 + next(calls) / 64)
""",
}
"""By the number and the noun of a clause."""
