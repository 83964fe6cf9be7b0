"""``edgerec prune``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_of, data_option, json_option
from edgerec.distill.commands import chosen, need_distill, training_options

TARGETS = {"params": "target_params", "flops": "target_flops", "latency": "target_latency"}
POSITIVE = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@click.option("--target-params", type=click.IntRange(1), help="Weights of the text encoder at most.")
@click.option("--target-flops", type=click.FloatRange(0, 1, True, True), help="Share of its FLOPs per token at most.")
@click.option("--target-latency", type=POSITIVE, help="Ms per title at most: median, fp32, one thread, this machine.")
@click.option("--layers", type=int, help="To keep; a size that is not given is scaled to the target, or left.")
@click.option("--heads", type=int, help="To keep, a mean over layers: which of them is ranked over all.")
@click.option("--intermediate", type=int, help="Feed-forward units to keep, likewise.")
@click.option("--hidden", type=int, help="Width to keep.")
@click.option("--vocabulary", type=int, help="Tokens to keep.  [default: the texts' own, and what unseen titles need]")
@training_options
@json_option
def prune(model: Path, out: Path, resume: bool, as_json: bool, **options: Any) -> None:
    """Prune a model's text encoder, and let it recover by distillation."""
    need_distill()
    from edgerec.benchmarks.commands import count
    from edgerec.distill.checkpoint import load
    from edgerec.distill.options import TrainOptions
    from edgerec.distill.processes import processes
    from edgerec.distill.prune import RECOVERY, opened, prune_checkpoint
    from edgerec.distill.sizing import Sizes, Target
    from edgerec.errors import UsageError, require
    from edgerec.export.footprint import bytes_by_part, title_timer
    from edgerec.splits import split

    require("onnx", "export")
    targets = {name: options[option] for name, option in TARGETS.items() if options[option] is not None}
    if len(targets) > 1:
        raise UsageError(f"got targets of {' and '.join(targets)}; expected one of them")
    target = Target(*targets.popitem()) if targets else None
    sizes = Sizes(**{name: options[name] for name in ("layers", "heads", "intermediate", "hidden", "vocabulary")})
    before = load(model)
    data = data_of(before.info, options)
    training, timer = replace(RECOVERY, **chosen(TrainOptions, options)), title_timer(before)
    divided, bar = split(data, before.info["split"]), count("texts encoded")
    report = prune_checkpoint(before, data, divided, out, sizes, target, training, resume, bar, timer)
    if not processes().is_main_process:
        return
    for when, folder in (("before", before), ("after", load(out))):
        report[when] |= {"bytes": bytes_by_part(folder), "ms_per_title": timer(*opened(folder))}
    click.echo(json.dumps({"model": str(out), **report}) if as_json else f"{out}\n\n{told(report)}")


def told(report: Mapping[str, Any]) -> str:
    """Return what pruning did as two Markdown tables: what the model takes, and NDCG@10 from step to step."""
    from edgerec.benchmarks.quality import markdown

    both, first = (report["before"], report["after"]), report["steps"][0]
    lines = [[f"{name}, bytes", *(f"{one['bytes'][name]:,}" for one in both)] for name in both[0]["bytes"]]
    lines.append(["parameters", *(f"{one['parameters']:,}" for one in both)])
    lines.append(["FLOPs per token", *(f"{one['flops_per_token']:,.0f}" for one in both)])
    lines.append(["ms per title", *(f"{one['ms_per_title']:.3g}" for one in both)])
    lines.append(["sizes", *(", ".join(f"{name} {value}" for name, value in one["sizes"].items()) for one in both)])
    steps = [["as it was", "", f"{both[0]['ndcg10']:.4f}"]]
    steps += [[one["name"], f"{one['ndcg10_pruned']:.4f}", f"{one['ndcg10']:.4f}"] for one in report["steps"]]
    quality = markdown(["validation NDCG@10, re-encoded", "pruned", "recovered"], steps)
    said = [markdown(["", "before", "after"], lines), f"Vocabulary: {first['vocabulary']}", quality, *missed(report)]
    return "\n\n".join(said)


def missed(report: Mapping[str, Any]) -> list[str]:
    """Return a warning where the student turned out slower than the search for its sizes had it."""
    target, took = report["target"], report["after"]["ms_per_title"]
    if not target or target["measure"] != "latency" or took <= target["most"]:
        return []
    return [f"{took:.3g} ms per title, {target['most']:.3g} wanted: try again on a quiet machine, or ask for less"]
