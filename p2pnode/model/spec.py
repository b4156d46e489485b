"""What a model is, from its config.json alone: checked, without weights, and quick to import.

The config is data: code that a repository brings along is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from p2pnode.errors import ModelFilesError, ModelUnsupported
from p2pnode.model.families import CODE_ERRORS, max_positions, one_line
from p2pnode.model.json_file import read_json
from p2pnode.types import MAX_LAYERS, ModelSpec

MAX_SIZES = {"num_hidden_layers": MAX_LAYERS, "hidden_size": 1 << 17, "vocab_size": 1 << 22}
"""More than any model has; beyond them even a model without weights is too large to build."""


def read_spec(folder: Path, name: str, fingerprint: str) -> ModelSpec:
    """What everyone must know about a model, from its config.json alone.

    Raises ModelFilesError, ModelUnsupported.
    """
    return spec_of(read_config(folder), name, fingerprint)


def spec_of(config: Any, name: str, fingerprint: str) -> ModelSpec:
    """The same of a config that was read."""
    return ModelSpec(
        name=name,
        fingerprint=fingerprint,
        family=config.model_type,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=max_positions(config),
    )


def read_config(folder: Path) -> Any:
    """A model's config, checked; raises ModelFilesError, ModelUnsupported."""
    return read_config_file(folder / "config.json")


def read_config_file(file: Path) -> Any:
    """The same by the path of the config file, whatever it is called."""
    folder, table = file.parent, read_json(file)
    family = table.get("model_type")
    if table.get("auto_map"):
        raise ModelUnsupported(f"{folder} brings code of its own (auto_map), which is never run")
    if table.get("quantization_config"):
        raise ModelUnsupported(f"{folder} is quantised; use the unquantised checkpoint")
    if not isinstance(family, str) or family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        unknown = f"transformers knows no causal model of family {str(family)[:40]!r}"
        raise ModelUnsupported(f"{folder}: {unknown}; a newer transformers may")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    names = (known,) if isinstance(known, str) else tuple(known)
    stated = table.get("architectures") or names
    if not isinstance(stated, list | tuple) or not set(map(str, stated)) & set(names):
        raise ModelUnsupported(f"{folder} holds {str(stated)[:60]}, not a {names[0]}")
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[family].from_dict(table)
    except CODE_ERRORS as error:
        raise ModelFilesError(f"{file} is no {family} config: {one_line(error)}") from error
    _check_sizes(file, config)
    return config


def _check_sizes(file: Path, config: Any) -> None:
    """Raises unless a model of these sizes can be built at all, weights or not."""
    for name, most in MAX_SIZES.items():
        size = getattr(config, name, None)
        if size is None:
            raise ModelUnsupported(f"{file.parent}: a {config.model_type} config has no {name}")
        if type(size) is not int or not 0 < size <= most:
            raise ModelFilesError(f"{file}: {name} is not 1 to {most}")
