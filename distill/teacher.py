"""The teacher: the towers over a pretrained text encoder, trained in two stages.

Stage 1 trains residuals, recencies and biases on cached text vectors. Stage 2 lets the encoder's upper layers move,
under an anchor to where they started, with the lower layers' activations cached. Each stage starts from the best of the
one before and is kept only where validation NDCG@10 says it is better.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from edgerec.distill import checkpoint, transfer
from edgerec.distill.calibration import calibrate_cold
from edgerec.distill.encoder import (
    POOLING_KEY,
    POOLINGS,
    cached_text_vectors,
    no_progress,
    open_encoder,
    pooling_of,
    read_config,
    tokenise,
)
from edgerec.distill.losses import LossWeights
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.search import SearchPlan, search
from edgerec.distill.text_training import TextTraining, TopLayers, layers_of
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.distill.training import fit, require_support
from edgerec.errors import UsageError
from edgerec.files import write_json
from edgerec.interactions import Dataset, FloatArray, Split

STAGE_1 = TrainOptions(steps=600, window=200)
UPDATE = replace(STAGE_1, steps=100, evaluate_every=20)  # stage 1 where most items' vectors are known
STAGE_2 = TrainOptions(steps=150, evaluate_every=50, learning_rate=2e-5, patience=2)
TIES = ("auto", "shared", "separate")  # one vector per item, or two: auto takes the better on validation
TOWERS_FASTER = 10.0  # learning rate of the towers against the encoder's, in stage 2
ANCHOR = 10.0  # weight of the distance to the starting vectors (relative, squared)


@dataclass(frozen=True)
class TeacherOptions:
    """How a teacher is trained."""

    towers: TowerConfig = field(default_factory=TowerConfig)
    tie: str = TIES[0]
    stage_1: TrainOptions = STAGE_1
    stage_2: TrainOptions = STAGE_2
    top_layers: int = 0  # trained in stage 2; 0 leaves the stage out
    search: SearchPlan | None = None  # of stage 1's options, before it
    pooling: str = POOLINGS[0]

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UsageError(f"unknown pooling {self.pooling!r}; expected one of {', '.join(POOLINGS)}")
        if self.tie not in TIES:
            raise UsageError(f"unknown tie {self.tie!r}; expected one of {', '.join(TIES)}")


def options_from(init: checkpoint.Checkpoint, data: Dataset, default: TeacherOptions | None = None) -> TeacherOptions:
    """Return the options of a teacher that starts from another: its towers' own, and few steps where most is known.

    Raises:
        UsageError: ``init`` is no teacher.
    """
    if init.info["kind"] != "teacher":
        raise UsageError(f"{init.folder} is a {init.info['kind']}; expected a folder that fine-tune wrote")
    of = init.towers.tower_config
    options = replace(default or TeacherOptions(), towers=of, tie=TIES[1] if of.shared else TIES[2])
    known = 2 * len(transfer.matching(init, data)[0]) > len(data.item_ids)
    return replace(options, stage_1=UPDATE, top_layers=0) if known else options


def fine_tune(
    data: Dataset,
    split: Split,
    encoder: Path,
    options: TeacherOptions,
    out: Path,
    resume: bool = False,
    progress: Callable[[int], None] = no_progress,
    init: checkpoint.Checkpoint | None = None,
) -> dict[str, Any]:
    """Train a teacher and write it as a model folder.

    Args:
        data: Catalogue and log.
        split: Training happens on its ``train``, choices on its ``validation``.
        encoder: Folder of a Hugging Face text encoder or decoder.
        options: Sizes and schedule.
        out: A new folder, or with ``resume`` an unfinished one.
        resume: Go on from the last checkpoint.
        progress: Called with the number of texts encoded.
        init: A teacher to start from; ``encoder`` is its own, and ``options`` come from ``options_from``.

    Returns:
        The report: validation NDCG@10 after each stage, and whether stage 2 was kept.

    Raises:
        UsageError: ``out`` holds something, the encoder has no layers to train, or the machine has no such precision.
        InterruptedTraining: Ctrl-C.
    """
    require_support(options.stage_1)
    checkpoint.new_folder(out, resume)
    processes().wait_for_everyone()
    with processes().main_process_first():
        vectors = cached_text_vectors(data.texts, encoder, progress, options.pooling)
    options = replace(options, towers=replace(options.towers, repeat=not split.mask_seen))
    report: dict[str, Any] = {}
    if options.search:
        options, report["search"] = searched(vectors, split, options, options.search, out / "search")
    untrained = partial(Towers, vectors, split.warm)
    if init:
        untrained = partial(transfer.started, init, vectors, data, split)
        report["init_from"] = transfer.describe(init, data)
    towers, tried = best_towers(untrained, split, options, out, resume)
    report |= {"stage_1": max(tried.values()), "stage_1_tried": tried}
    refined = None
    if options.top_layers:
        refined, report["stage_2"] = run_stage_2(towers, data.texts, encoder, split, options, out, resume)
        report["stage_2_kept"] = refined is not None
    report["calibrated"] = calibrate_cold(towers, split)
    if processes().is_main_process:
        save_encoder(encoder, refined, out / checkpoint.ENCODER, pooling_of(read_config(encoder), options.pooling))
        info = {"kind": "teacher", "validation_ndcg10": report, "options": asdict(options)}
        checkpoint.save(out, towers, data, split, info)
    return report


def searched(
    vectors: FloatArray, split: Split, options: TeacherOptions, plan: SearchPlan, folder: Path
) -> tuple[TeacherOptions, list[dict[str, Any]]]:
    """Return the options with the best that a search found put in, and its trials."""
    towers = options.towers if options.tie == TIES[0] else replace(options.towers, shared=options.tie == TIES[1])
    towers, stage_1, trials = search(vectors, split, towers, options.stage_1, plan, folder)
    tie = (TIES[1] if towers.shared else TIES[2]) if "shared" in plan.free else options.tie
    return replace(options, towers=towers, stage_1=stage_1, tie=tie), trials


def best_towers(
    untrained: Callable[[TowerConfig], Towers], split: Split, options: TeacherOptions, out: Path, resume: bool
) -> tuple[Towers, dict[str, float]]:
    """Train the towers of each way to tie items, and return the best on validation with every NDCG@10."""
    ties = TIES[1:] if options.tie == "auto" else (options.tie,)
    best, tried = None, {}
    for tie in ties:
        torch.manual_seed(options.stage_1.seed)
        towers = untrained(replace(options.towers, shared=tie == "shared"))
        tried[tie] = run_stage_1(towers, split, options.stage_1, out / f"stage-1-{tie}", resume)
        best = towers if tried[tie] == max(tried.values()) else best
    assert best is not None
    return best, tried


def run_stage_1(towers: Towers, split: Split, options: TrainOptions, folder: Path, resume: bool) -> float:
    """Train the towers, or take them from the finished stage of an interrupted run; return validation NDCG@10."""
    done, note = folder / "towers.safetensors", folder / "stage.json"
    if resume and note.exists():
        towers.load_state_dict(load_file(done))
        return float(json.loads(note.read_text())["validation_ndcg10"])
    groups = towers.parameter_groups(options.learning_rate, options.weight_decay)
    best = fit(towers, groups, split, options, folder / "checkpoints", f"towers, {folder.name}", resume)
    if processes().is_main_process:
        checkpoint.save_towers(done, towers)
        write_json(note, {"validation_ndcg10": best})
    return best


def run_stage_2(
    towers: Towers, texts: list[str], encoder: Path, split: Split, options: TeacherOptions, out: Path, resume: bool
) -> tuple[Any, float]:
    """Train the encoder's upper layers with the towers.

    Returns:
        The encoder, or None where it stayed as it was, and the best validation NDCG@10.
    """
    tokenizer, model = open_encoder(encoder)
    require_layers(model, options.top_layers, encoder)
    pooling = pooling_of(model.config, options.pooling)
    top = TopLayers(model, tokenise(tokenizer, texts), options.top_layers, towers.projection, pooling)
    both = TextTraining(towers, top, towers.text.clone(), LossWeights(vectors=ANCHOR))
    stage = options.stage_2
    groups = [{"params": list(top.layers.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]
    groups += towers.parameter_groups(TOWERS_FASTER * stage.learning_rate, stage.weight_decay)
    before = {name: value.clone() for name, value in top.layers.state_dict().items()}
    best = fit(both, groups, split, stage, out / "stage-2" / "checkpoints", "top layers", resume, strict=True)
    if all(torch.equal(value, before[name]) for name, value in top.layers.state_dict().items()):
        return None, best
    both.refresh()
    towers.text.copy_(both.table)
    _, refined = open_encoder(encoder)
    require_layers(refined, options.top_layers, encoder)[-options.top_layers :].load_state_dict(top.layers.state_dict())
    return refined, best


def require_layers(model: Any, wanted: int, encoder: Path) -> nn.ModuleList:
    """Return a model's layers; refuse a model whose layers cannot be told apart, or that has too few.

    Raises:
        UsageError: As said.
    """
    layers = layers_of(model)
    if layers is None or not 0 < wanted <= len(layers):
        has = "no layers that can be found" if layers is None else f"{len(layers)} layers"
        raise UsageError(
            f"{encoder} has {has}, the top {wanted} are to be trained; expected a BERT-like encoder or a GPT-like "
            "decoder with as many: lower --top-layers (0 leaves a teacher's second stage out)"
        )
    return layers


def save_encoder(source: Path, refined: Any, out: Path, pooling: str) -> None:
    """Write the text encoder in Hugging Face layout: the files as given, and new weights if it was trained.

    Its ``config.json`` also says how its tokens are pooled, so that whatever reads the folder pools alike.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and (refined is None or path.suffix not in {".safetensors", ".bin"}):
            shutil.copyfile(path, out / path.name)
    if refined is not None:
        refined.save_pretrained(out)
    config = json.loads((out / "config.json").read_text("utf-8"))
    write_json(out / "config.json", {**config, POOLING_KEY: pooling})
