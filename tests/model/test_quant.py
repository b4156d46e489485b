"""Quantised weights: near the plain ones, and the same text in any split and batch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from p2pnode.errors import LocalError, ModelUnsupported
from p2pnode.model import quant_library, tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.memory import read_sizes
from p2pnode.model.quant import Quantisation
from p2pnode.model.quantised_linear import FEW_ROWS, Int8Linear, Nf4Linear, QuantisedLinear
from p2pnode.model.spec import read_config, read_spec
from p2pnode.numerics import QUANTS
from p2pnode.types import LayerRange
from tests.support.checkpoints import save_tiny

is_installed = find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not is_installed, reason="bitsandbytes is not installed")

ERROR = {"int8": 0.012, "nf4": 0.11}
"""Of a product with normal weights, relative; the library's own measure 0.009 and 0.092."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_tiny(folder)
    return folder


def load(folder: Path, start: int, stop: int, quant: str, dtype: str = "float32") -> Block:
    spec = read_spec(folder, "tiny", "")
    layers = LayerRange(start, stop)
    return Block.load(folder, spec, layers, device="cpu", dtype=dtype, quant=quant)


def parts(block: Block) -> Any:
    return block._parts


def prompt(tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, tiny.VOCAB_SIZE, (tokens,), generator=generator)


def greedy(blocks: list[Block], prompts: list[torch.Tensor], steps: int) -> list[list[int]]:
    """The texts of several sessions, each step of all of them in one forward."""
    caches = [[block.new_cache(len(each) + steps) for block in blocks] for each in prompts]
    entries, texts = prompts, [[] for _ in prompts]  # type: ignore[var-annotated]
    for _ in range(steps):
        for index, block in enumerate(blocks):
            work = [
                Work(cache=held[index], position=held[index].position, entry=entry)
                for held, entry in zip(caches, entries, strict=True)
            ]
            entries = block.forward(work)
        last = blocks[-1].logits_of([entry[-1:] for entry in entries])
        for text, logits in zip(texts, last, strict=True):
            text.append(int(logits[0].argmax()))
        entries = [torch.tensor(text[-1:]) for text in texts]
    return texts


def quantised_linear(
    kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[Any, nn.Linear]:
    """A quantised layer and the plain one."""
    plain = nn.Linear(shape[1], shape[0], dtype=dtype).requires_grad_(False)
    plain.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    return quantised_like(kind, plain), plain


def quantised_like(kind: str, plain: nn.Linear) -> Any:
    """A quantised layer with the weights and the bias of a plain one."""
    layer = nn.Linear(plain.in_features, plain.out_features, plain.bias is not None)
    layer.bias = plain.bias
    quantisation = Quantisation(kind, frozenset({"up"}))
    for name, tensor in quantisation.quantise("up.weight", plain.weight.detach()).items():
        layer._parameters[name.removeprefix("up.")] = nn.Parameter(tensor, requires_grad=False)
    quantisation.install(nn.ModuleDict({"up": layer}))
    return layer


@needs_library
@pytest.mark.parametrize("shape", [(96, 32), (200, 48), (128, 256), (2304, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", QUANTS)
@torch.inference_mode()
def test_a_product_is_as_near_as_the_bits_allow(
    kind: str, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    layer, plain = quantised_linear(kind, shape, dtype)
    hidden = torch.randn((1, 40, shape[1]), generator=torch.Generator().manual_seed(1)).to(dtype)
    out, expected = layer(hidden).float(), plain(hidden).float()
    assert out.shape == expected.shape
    assert (out - expected).norm() / expected.norm() <= ERROR[kind]


@needs_library
@pytest.mark.parametrize("kind", QUANTS)
@torch.inference_mode()
def test_rows_together_are_what_each_is_alone(kind: str) -> None:
    layer, _ = quantised_linear(kind, (2304, 1024), torch.float32)
    rows = torch.randn(70, 1024)
    together = layer(rows)
    alone = torch.cat([layer(row[None]) for row in rows])
    assert (together - alone).abs().max() <= 1e-6 * 1024 * together.abs().max()


@needs_library
@torch.inference_mode()
def test_all_ways_to_multiply_int8_round_once() -> None:
    layer, _ = quantised_linear("int8", (2304, 1024), torch.bfloat16)
    layer.bias = None
    rows = torch.randn(FEW_ROWS, 1024, dtype=torch.bfloat16)
    outs = []
    for few_rows, scales_inside in ((0, False), (0, layer.scales_inside), (layer.few_rows, True)):
        layer.few_rows, layer.scales_inside = few_rows, scales_inside
        outs.append(layer(rows).float())
    exact = rows.double() @ (layer.weight.double() * layer.scales.double()[:, None]).T
    for out in outs:
        assert (out - outs[0]).norm() <= 2e-4 * exact.norm()
        assert ((out - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all()


@needs_library
@pytest.mark.parametrize("kind", QUANTS)
def test_a_row_of_zeros_stays_one(kind: str) -> None:
    plain = nn.Linear(64, 64, bias=False).requires_grad_(False)
    plain.weight[3] = 0
    layer = quantised_like(kind, plain)
    with torch.inference_mode():
        assert layer(torch.ones(1, 64))[0, 3] == 0


@needs_library
@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("edges", [(0, 1, 3, 4), (0, 2, 4)])
def test_the_text_is_the_same_split_and_with_others(
    folder: Path, quant: str, edges: tuple[int, ...]
) -> None:
    prompts = [prompt(length, seed=length) for length in (5, 17, 1, 5)]
    whole = [load(folder, 0, 4, quant)]
    alone = [greedy(whole, [each], 12)[0] for each in prompts]

    hops = [load(folder, start, stop, quant) for start, stop in pairwise(edges)]

    assert [greedy(hops, [each], 12)[0] for each in prompts] == alone
    assert greedy(hops, prompts, 12) == alone
    assert greedy([whole[0].part(LayerRange(*each)) for each in pairwise(edges)], prompts, 12) == (
        alone
    )


@needs_library
@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3", "phi3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sums_are_what_loading_measures(
    tmp_path: Path, family: str, quant: str, dtype: str
) -> None:
    save_tiny(tmp_path, family)
    block = load(tmp_path, 0, 3, quant, dtype)
    config = read_config(tmp_path)
    counted = read_sizes(config, dtype, quant=quant).weights_bytes(block.layers)
    assert counted == block.num_bytes
    assert counted < read_sizes(config, dtype).weights_bytes(block.layers)


@needs_library
def test_ends_and_norms_stay_as_they_are(folder: Path) -> None:
    block, plain = load(folder, 0, 4, "int8"), load(folder, 0, 4, "")
    assert block.quant == block.part(LayerRange(1, 2)).quant == "int8"
    modules = list(parts(block).trunk.modules())
    assert [each for each in modules if type(each) is nn.Linear] == []
    assert len([each for each in modules if isinstance(each, QuantisedLinear)]) == 4 * 7
    token_ids, hidden = prompt(5, seed=0), torch.randn(5, block.spec.hidden_size)
    assert torch.equal(block.embed(token_ids, 0), plain.embed(token_ids, 0))
    assert torch.equal(block.logits(hidden), plain.logits(hidden))


@needs_library
@pytest.mark.parametrize(("quant", "kind"), [("int8", Int8Linear), ("nf4", Nf4Linear)])
def test_a_client_with_its_own_ends_needs_no_quantisation(
    folder: Path, quant: str, kind: type[nn.Module]
) -> None:
    ends = load(folder, 0, 0, quant)
    assert not any(isinstance(each, kind) for each in parts(ends).head.modules())
    assert ends.num_bytes == load(folder, 0, 0, "").num_bytes


@pytest.mark.parametrize("family", ["mixtral", "gpt2"])
def test_a_family_whose_weights_are_elsewhere_is_refused_with_the_numbers(
    tmp_path: Path, family: str
) -> None:
    save_tiny(tmp_path, family)
    with pytest.raises(ModelUnsupported, match=rf"{family} has \d+ weights .* only \d+ that int8"):
        read_sizes(read_config(tmp_path), "float32", quant="int8")
    with pytest.raises(ModelUnsupported, match="that int8 can quantise"):
        load(tmp_path, 0, 4, "int8")


def test_without_the_library_one_line_says_what_to_install() -> None:
    quant_library.ensure_installed("", "no_such_library")
    said = r"--quant int8 needs no_such_library, .*: pip install 'p2pnode\[quant\]'"
    with pytest.raises(LocalError, match=said):
        quant_library.ensure_installed("int8", "no_such_library")


@needs_library
def test_importing_the_library_leaves_nothing_behind() -> None:
    level = logging.getLogger("bitsandbytes").level
    with quant_library._nothing_fetched(), pytest.raises(ImportError):
        import kernels  # type: ignore[import-not-found]  # noqa: F401
    assert "kernels" not in sys.modules
    assert logging.getLogger("bitsandbytes").level == level
