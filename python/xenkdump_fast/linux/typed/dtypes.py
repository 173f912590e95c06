"""numpy dtypes with members of a kernel's structs, for ``AddressSpace.read_struct_many``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..._native import AbsentError
from ...limits import MAX_STRUCT_DEPTH
from ..kernel import Kernel
from . import shapes, types
from .shapes import Shape

if TYPE_CHECKING:
    import numpy as np

#: Sizes of ints and of floats that numpy has.
_INTS, _FLOATS = (1, 2, 4, 8), (4, 8)


def of(kernel: Kernel, struct: str, members: Sequence[str]) -> "np.dtype[np.void]":
    """A dtype of the size of ``struct``, with fields for these members; AbsentError.

    Numbers and pointers are numbers, arrays of char are bytes without NULs at the end, other
    arrays have a shape, and everything else is opaque bytes.
    """
    import numpy as np

    if not members:
        raise ValueError("struct_dtype: a member is needed")
    whole = kernel.types.graph.find(struct)
    formats, offsets = [], []
    for path in members:
        bits, place = 0, types.Place(whole, 0, None)
        for name in path.split("."):
            place = types.member(place.type, name)
            bits += place.bits
        if place.width is not None:
            raise AbsentError(f"{struct}.{path} is a bit-field: it has no bytes of its own")
        formats.append(_format(shapes.of(place.type, kernel.word), 0))
        offsets.append(bits // 8)
    size = types.sizeof(whole, kernel.word)
    # What no compiler writes: a member past the end, one larger than numpy permits.
    try:
        return np.dtype(
            {"names": list(members), "formats": formats, "offsets": offsets, "itemsize": size}
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise AbsentError(f"{struct}: numpy has no such dtype: {error}") from None


def _format(shape: Shape, depth: int) -> Any:
    shape.check()
    if shape.kind == "array" and depth < MAX_STRUCT_DEPTH:
        element = shape.target
        if element.is_char:
            return f"S{shape.count}"
        return _format(element, depth + 1), (shape.count,)
    size = shape.size
    if shape.kind in ("int", "ptr", "enum") and size in _INTS:
        return "?" if shape.is_bool and size == 1 else f"<{'i' if shape.signed else 'u'}{size}"
    if shape.kind == "float" and size in _FLOATS:
        return f"<f{size}"
    return f"V{size}"
