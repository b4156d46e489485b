"""The client's part of a model: tokenizer, figures, and (with a local head) its two ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.errors import BadRequest, NoChain, UnknownModel
from p2pnode.model.constraint import Constraints
from p2pnode.model.source import ModelFiles, builtin_draft, find_model
from p2pnode.model.spec import read_spec
from p2pnode.model.text import TextCodec
from p2pnode.pipeline.lookup import Lookup
from p2pnode.pipeline.roles import Ends
from p2pnode.pipeline.speculation import Drafter
from p2pnode.swarm.model import only_model
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import LayerRange, ModelSpec, SwarmView

if TYPE_CHECKING:
    from p2pnode.client.draft import DraftModel
    from p2pnode.client.ends import LocalEnds
    from p2pnode.client.request import Request

AUTO = "auto"
LOOKUP = "lookup"
NONE = "none"


@dataclass(frozen=True, slots=True)
class ClientModel:
    """A model as the client sees it."""

    spec: ModelSpec
    codec: TextCodec
    ends: LocalEnds | None
    draft: DraftModel | None
    """What guesses what the chain will answer."""
    looks_up: bool
    """Whether guesses are looked up in the text so far, where no model makes them."""
    constraints: Constraints

    def drafter(self, request: Request) -> Drafter | None:
        """What guesses for one session; None: nothing does."""
        if self.draft is not None:
            return self.draft.drafter(request.chooser())
        return Lookup() if self.looks_up else None

    def session_ends(self, request: Request) -> Ends | None:
        """What embeds and chooses for one session on this machine; None: peers do."""
        return None if self.ends is None else self.ends.of(request.chooser())

    def encode(self, prompt: str | Sequence[int] | Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a prompt; raises BadRequest."""
        if isinstance(prompt, str):
            return self.codec.encode(prompt) if prompt else []
        if all(isinstance(each, int) for each in prompt):
            ids = [each for each in prompt if isinstance(each, int)]
            if not all(0 <= token_id < self.spec.vocab_size for token_id in ids):
                raise BadRequest(f"token ids must be 0 to {self.spec.vocab_size - 1}")
            return ids
        messages = [each for each in prompt if isinstance(each, Mapping)]
        if len(messages) != len(prompt):
            raise BadRequest("a prompt is a text, token ids, or chat messages; not a mixture")
        return self.codec.encode_chat(messages)


async def find_client_model(
    reader: SwarmReader, model: str | None, cache: Path, *, with_ends: bool, draft: str = NONE
) -> ClientModel:
    """The model to use: the one asked for, or the only one of the swarm, or the built-in one.

    draft: `AUTO` (the built-in model's own, else `LOOKUP`), `LOOKUP`, `NONE`, or a model's folder
    Raises SeveralModels, UnknownModel, ModelFilesError, and NoChain when nobody serves it.
    """
    view = await reader.view(max_age_s=0.0)
    name = model or only_model(view)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, _load, name, view, cache, with_ends, draft)


def _load(
    name: str | None, view: SwarmView, cache: Path, with_ends: bool, draft: str
) -> ClientModel:
    files = _files(name, cache, with_ends)
    if not view.of_model(files.fingerprint).announcements:
        served = sorted({f"{a.model} ({a.fingerprint[:8]})" for a in view.announcements})
        there = f"the swarm serves {', '.join(served)}" if served else "the swarm serves no model"
        wanted = f"{files.name} ({files.fingerprint[:8]})"
        raise NoChain(f"nobody serves {wanted}; {there}. Start: p2pnode serve --layers FIRST-LAST")
    spec = read_spec(files.folder, files.name, files.fingerprint)
    codec = TextCodec.load(files.folder)
    ends: LocalEnds | None = None
    if with_ends:
        from p2pnode.client.ends import LocalEnds  # heavy: the families' code

        numerics = view.of_model(files.fingerprint).announcements[0].numerics
        ends = LocalEnds.load(files.folder, spec, numerics)
    if with_ends:
        draft = NONE
    elif draft == AUTO:
        draft = str(builtin_draft()) if files.is_builtin else LOOKUP
    drafts = (_draft(draft, spec), draft == LOOKUP)
    return ClientModel(spec, codec, ends, *drafts, Constraints(lambda: files.folder))


def _draft(draft: str, target: ModelSpec) -> DraftModel | None:
    if draft in (NONE, LOOKUP):
        return None
    folder = Path(draft).expanduser()
    if not (folder / "config.json").is_file():
        known = f"{AUTO}, {LOOKUP}, {NONE}"
        raise BadRequest(f"--draft is {known} or a model's folder, not {draft[:80]!r}")
    from p2pnode.client.draft import DraftModel  # heavy: the families' code

    return DraftModel.load(folder, target)


def _files(name: str | None, cache: Path, with_ends: bool) -> ModelFiles:
    """Our copy of a model's files; without a name the built-in ones."""
    builtin = find_model(None, cache=cache)
    if name in (None, builtin.name):
        return builtin
    try:
        return find_model(name, cache=cache, layers=LayerRange(0, 0), with_ends=with_ends)
    except UnknownModel as error:
        raise UnknownModel(f"{error}. Give its folder or hub id with --model") from error
