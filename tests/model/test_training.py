"""Training: seeded, resumable, and its files survive a kill."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from p2pnode.model.training.corpus import CorpusConfig, sample_corpus, split_stories
from p2pnode.model.training.distill import (
    StageConfig,
    batch_at,
    checkpoint_weights,
    lr_factor,
    teacher_targets,
    train,
    with_story_ends,
)
from p2pnode.model.training.export import export_model
from p2pnode.model.training.files import load_tensors, save_tensors
from p2pnode.model.training.stages import TrainingConfig, train_all
from p2pnode.model.training.student import load_weights, new_student, stack_layers, weights_of

CORPUS = CorpusConfig(num_shards=2, rows_per_shard=2, row_tokens=24)
STAGE = StageConfig(num_steps=6, batch_rows=2, save_every=2, warmup_steps=2, compile=False)


@pytest.fixture(scope="module")
def teacher_folder() -> Path:
    return Path(str(resources.files("p2pnode") / "model" / "builtin" / "draft"))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def rows(teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    return sample_corpus(teacher, tmp_path_factory.mktemp("corpus"), CORPUS)


def tiny_student() -> Any:
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return new_student(config, seed=7)


class DyingTeacher:
    """Answers like its model until it dies, and the run with it."""

    def __init__(self, model: Any, *, dies_at: int) -> None:
        self._model = model
        self._calls_left = dies_at

    def __call__(self, **inputs: Any) -> Any:
        if self._calls_left == 0:
            raise KeyboardInterrupt
        self._calls_left -= 1
        return self._model(**inputs)


@pytest.mark.parametrize("dies_at", [1, 2, 5])
def test_a_killed_run_ends_with_the_same_bits(
    teacher: Any, rows: torch.Tensor, tmp_path: Path, dies_at: int
) -> None:
    train(tiny_student(), teacher, rows, tmp_path / "undisturbed", STAGE)
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_student(), DyingTeacher(teacher, dies_at=dies_at), rows, tmp_path / "killed", STAGE
        )
    train(tiny_student(), teacher, rows, tmp_path / "killed", STAGE)

    undisturbed, metadata = load_tensors(tmp_path / "undisturbed")
    resumed, resumed_metadata = load_tensors(tmp_path / "killed")
    assert metadata == resumed_metadata == {"step": "6"}
    assert undisturbed.keys() == resumed.keys()
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_training_lowers_the_loss(teacher: Any, rows: torch.Tensor, tmp_path: Path) -> None:
    @torch.no_grad()
    def loss_of(weights: dict[str, torch.Tensor]) -> float:
        student = tiny_student()
        load_weights(student, weights)
        logits = student(input_ids=rows).logits.flatten(0, 1)
        targets = teacher_targets(teacher, rows).flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(logits, targets))

    train(tiny_student(), teacher, rows, tmp_path / "run", STAGE)
    trained = checkpoint_weights(load_tensors(tmp_path / "run")[0])
    assert loss_of(trained) < loss_of(weights_of(tiny_student()))


def test_the_corpus_depends_on_its_seed_only(
    teacher: Any, rows: torch.Tensor, tmp_path: Path
) -> None:
    sample_corpus(teacher, tmp_path, CORPUS)
    (tmp_path / "tokens-00000.safetensors").unlink()
    assert torch.equal(sample_corpus(teacher, tmp_path, CORPUS), rows)
    assert rows.shape == (4, 24)
    assert (rows[:, 0] == 1).all()


def test_all_stages_run_and_a_finished_run_changes_nothing(
    teacher_folder: Path, tmp_path: Path
) -> None:
    one = StageConfig(num_steps=1, batch_rows=2, compile=False)
    config = TrainingConfig(corpus=CORPUS, base=one, deep=one, draft=one, base_layers=1, copies=2)
    work, out = tmp_path / "work", tmp_path / "out"
    train_all(teacher_folder, work, out, config)
    first = (out / "draft" / "model.safetensors").read_bytes()
    train_all(teacher_folder, work, out, config)
    assert (out / "draft" / "model.safetensors").read_bytes() == first
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.num_hidden_layers == 2
    assert model.dtype == torch.bfloat16


def test_stacked_layers_share_what_one_layer_did() -> None:
    weights = weights_of(tiny_student())
    stacked = stack_layers(weights, 3)
    name = "model.layers.{}.mlp.down_proj.weight"
    total = sum(stacked[name.format(layer)] for layer in (3, 4, 5))
    torch.testing.assert_close(total, weights[name.format(1)])
    gate = "model.layers.{}.mlp.gate_proj.weight"
    assert torch.equal(stacked[gate.format(2)], weights[gate.format(0)])
    assert len(stacked) == 2 + 3 * (len(weights) - 2)


def test_targets_end_stories_with_their_end_token(teacher: Any, rows: torch.Tensor) -> None:
    targets = teacher_targets(teacher, rows)
    assert float(targets[..., 1].max()) == 0
    torch.testing.assert_close(targets.sum(-1), torch.ones(rows.shape))


def test_inputs_keep_the_first_token_of_a_row() -> None:
    token_ids = torch.ones(4, 100, dtype=torch.int64)
    swapped = with_story_ends(token_ids, seed=1)
    assert (swapped[:, 0] == 1).all()
    assert 100 < int((swapped == 2).sum()) < 300


def test_an_epoch_reads_every_row_once() -> None:
    rows = torch.arange(8)[:, None]
    config = StageConfig(num_steps=8, batch_rows=2)
    epochs = [
        torch.cat([batch_at(rows, step, config) for step in steps]).flatten().tolist()
        for steps in (range(4), range(4, 8))
    ]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    config = StageConfig(num_steps=100, warmup_steps=10, decay_part=0.5)
    assert lr_factor(0, config) == pytest.approx(0.1)
    assert lr_factor(30, config) == 1
    assert lr_factor(75, config) == pytest.approx(0.5)
    assert lr_factor(99, config) == pytest.approx(0.02)


def test_only_finished_stories_are_split_from_a_row() -> None:
    stories = split_stories(torch.tensor([1, 5, 6, 1, 1, 7, 1, 8]))
    assert [story.tolist() for story in stories] == [[5, 6], [7]]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_tensors(path, {"old": torch.ones(1)})
    (tmp_path / "weights.new").write_bytes(b"half a file")
    assert list(load_tensors(path)[0]) == ["old"]
    save_tensors(path, {"new": torch.ones(1)})
    assert list(load_tensors(path)[0]) == ["new"]


def test_exported_weights_are_the_trained_ones_in_bfloat16(
    teacher_folder: Path, tmp_path: Path
) -> None:
    student = tiny_student()
    export_model(weights_of(student), student.config, teacher_folder, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in weights_of(loaded).items():
        assert torch.equal(tensor, weights_of(student)[name].to(torch.bfloat16))
