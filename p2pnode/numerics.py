"""The numerics class: what must be the same at every hop of a chain for the text to be the same.

Its name is a dtype and what changes numbers beside it: how weights are quantised, and how hidden
states travel; e.g. ``bfloat16``, ``bfloat16+int8`` or ``bfloat16+nf4+wire-int8``. This is the one
place that takes it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

INT8 = "int8"
NF4 = "nf4"
QUANTS = (INT8, NF4)
"""How the weights of a block may be quantised."""
INT8_GROUP = 64
"""Values that share a scale of one byte."""

_WIRE = "wire-"
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Numerics:
    """The parts of a numerics class."""

    dtype: str
    """What blocks compute in, and what hidden states are between hops once they are decoded."""
    wire: str = ""
    """The lossy coding of hidden states between hops; empty: none."""
    quant: str = ""
    """How the layers' weights are quantised, one of `QUANTS`; empty: they are in the dtype."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Take a name apart; never fails: who announces an unknown class is in it alone."""
        dtype, *others = name.split("+")
        wires = [each.removeprefix(_WIRE) for each in others if each.startswith(_WIRE)]
        quants = [each for each in others if each and not each.startswith(_WIRE)]
        return cls(dtype, wires[0] if wires else "", quants[0] if quants else "")

    def __str__(self) -> str:
        parts = (self.dtype, self.quant, f"{_WIRE}{self.wire}" if self.wire else "")
        return "+".join(part for part in parts if part)

    def row_bytes(self, hidden_size: int) -> int:
        """What the hidden state of one token takes on the wire, coded without loss or not."""
        if self.wire == INT8:
            return hidden_size + -(-hidden_size // INT8_GROUP)
        return hidden_size * _BYTES.get(self.dtype, 4)
