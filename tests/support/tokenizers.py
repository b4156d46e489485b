"""Small tokenizers of every kind, and folders with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

STORY = "Once upon a time, there was a zebra 🦓 who said: “Grüße, two  cafés\n\tfor 3 €!”"
CHATML = (
    "{%- for message in messages %}{{ '<|start|>' + message['role'] + '\n' }}"
    "{% generation %}{{ message['content'] }}{% endgeneration %}{{ '<|end|>' + '\n' }}"
    "{%- endfor %}\n    {%- if add_generation_prompt %}\n    {{ '<|start|>assistant\n' }}"
    "{%- endif %}"
)


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3, Qwen: every token is a piece of UTF-8, spelled in an alphabet."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|start|>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([STORY] * 2, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    """As T5-like ones: a word begins with a visible space, unknown characters are lost."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator([STORY] * 2, trainer)
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    """Pieces within a word carry a mark, spaces between words are the decoder's."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["<unk>", "<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator([STORY] * 2, trainer)
    return tokenizer


def save(folder: Path, tokenizer: tokenizers.Tokenizer, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 1}))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
