"""Thresholds and policies as plain values, as they are in the config of a saved optimizer."""
# Not installed where types are checked:
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import keras

from gradclip import policies
from gradclip.policies._as_policy import is_policy


def packed(max_norm: Any) -> Any:
    """Return a threshold or a policy as plain values."""
    if not is_policy(max_norm):
        return max_norm
    save, name = keras.saving.serialize_keras_object, type(max_norm).__name__
    if type(max_norm) is not _class_of(name):
        return save(max_norm)
    values = {field.name: save(getattr(max_norm, field.name)) for field in fields(_class_of(name))}
    return {"policy": name, "arguments": values}


def unpacked(max_norm: Any, custom_objects: Any) -> Any:
    """Return a threshold or a policy from plain values."""
    if not isinstance(max_norm, Mapping):
        return max_norm
    load = keras.saving.deserialize_keras_object
    if "policy" not in max_norm:
        return load(max_norm, custom_objects=custom_objects)
    values = {name: load(value, custom_objects=custom_objects) for name, value in max_norm["arguments"].items()}
    return _class_of(max_norm["policy"])(**values)


def _class_of(name: str) -> Any:
    """Return a class of `gradclip.policies`, or None."""
    return getattr(policies, name) if name in policies.__all__ else None
