"""The function by which a framework tells C where its tensors are: DLPack's exchange API, since its version 1.3.

It takes a quarter of the time of the tensor's own attributes.
"""

import ctypes

_VERSION = 1
"""The major version of DLPack whose structures the kernels know."""


class _Functions(ctypes.Structure):
    """DLPackExchangeAPI of dlpack.h."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("managed_from_object", ctypes.c_void_p),
        ("managed_to_object", ctypes.c_void_p),
        ("tensor_from_object", ctypes.c_void_p),
        ("current_stream", ctypes.c_void_p),
    )


def finder(kind: type) -> int | None:
    """Return the address of the function that describes a tensor of this type, None if the framework has none."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    kind_of_function = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    pointer_of = kind_of_function(("PyCapsule_GetPointer", ctypes.pythonapi))
    functions = _Functions.from_address(pointer_of(capsule, b"dlpack_exchange_api"))
    address: int | None = functions.tensor_from_object if functions.major == _VERSION else None
    return address
