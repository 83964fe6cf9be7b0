"""What a model takes: bytes part by part, and milliseconds to encode a title."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import tokenizers
from torch import nn

from edgerec.benchmarks.timer import measure
from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.static import StaticEncoder
from edgerec.distill.student import StudentEncoder
from edgerec.distill.text_encoder import TeacherEncoder, text_encoder, text_tokenizer
from edgerec.distill.text_student import TextStudent
from edgerec.distill.vocabulary import open_tokenizer
from edgerec.export.item_encoder import INPUTS, ItemEncoder, export_fp32
from edgerec.export.package import shipped_tower
from edgerec.export.recommender_graph import recommender_graph
from edgerec.runtime.layout import pack

ROUNDS = 200  # of a latency
PARTS = ("token table", "encoder", "head", "item tables", "graphs")


def title_timer(model: Checkpoint, rounds: int = ROUNDS) -> Callable[[TextStudent, str], float]:
    """Return a function from a student and its tokenizer to the median milliseconds that one title takes.

    The title goes through the tokenizer and the fp32 graph, in onnxruntime on one thread; each round takes another one
    of the catalogue.
    """
    arrays = model.towers.arrays()

    def timer(encoder: TextStudent, tokenizer_json: str) -> float:
        tokenizer = open_tokenizer(tokenizer_json)
        tokenizer.enable_truncation(encoder.max_tokens)
        graph = export_fp32(ItemEncoder(encoder, arrays.cold, arrays.shared).eval(), tokenizer.get_vocab_size())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

        def encode(number: int) -> object:
            read = tokenizer.encode(model.texts[number % len(model.texts)])
            return session.run(None, {name: np.array([one]) for name, one in zip(INPUTS, inputs(read), strict=True)})

        return measure({"title": encode}, rounds)["title"].percentile(50)

    return timer


def inputs(encoding: tokenizers.Encoding) -> tuple[Sequence[int], Sequence[int]]:
    """Return the ids and the mask of a text that was read."""
    return encoding.ids, encoding.attention_mask


def bytes_by_part(model: Checkpoint) -> dict[str, int]:
    """Return the bytes of a model folder in float32, and of its item tables (INT8) and fp32 graphs as they ship.

    Keys are ``PARTS``; the head is a teacher's projection. The item encoder's graph holds the first three again.
    """
    encoder = text_encoder(model)
    tokenizer = text_tokenizer(model)
    arrays = model.towers.arrays()
    tower = shipped_tower(model, encoder, tokenizer)
    tables, _ = pack(tower)
    item_encoder = export_fp32(ItemEncoder(encoder, arrays.cold, arrays.shared).eval(), tokenizer.get_vocab_size())
    graphs = len(item_encoder) + len(recommender_graph(tower).SerializeToString())
    table, head = table_and_head(encoder)
    rest = sum(one.numel() for one in encoder.parameters()) + (head if isinstance(encoder, TeacherEncoder) else 0)
    sizes = (4 * table, 4 * (rest - table - head), 4 * head, sum(map(len, tables.values())), graphs)
    return dict(zip(PARTS, sizes, strict=True))


def table_and_head(encoder: nn.Module) -> tuple[int, int]:
    """Return how many numbers the token table and the head of a text encoder hold."""
    if isinstance(encoder, TeacherEncoder):
        return encoder.model.get_input_embeddings().weight.numel(), encoder.projection.numel()
    assert isinstance(encoder, StudentEncoder | StaticEncoder)
    head = sum(one.numel() for one in encoder.head.parameters())
    if isinstance(encoder, StaticEncoder):
        return encoder.table.weight.numel() + encoder.log_weights.weight.numel(), head
    return encoder.bert.get_input_embeddings().weight.numel(), head
