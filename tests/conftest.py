"""Synthetic logs with a known answer; the user's cache is never touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the cache into the test's own folder."""
    monkeypatch.setenv("EDGEREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a data folder from the text of a log and a catalogue."""

    def make(
        log: str | bytes, items: str | bytes, log_name: str = "interactions.csv", items_name: str = "items.csv"
    ) -> Path:
        path = tmp_path / "data"
        path.mkdir(exist_ok=True)
        for name, content in ((log_name, log), ("items.csv", items)):
            (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.fixture
def cycle(folder: Callable[..., Path]) -> Path:
    """Twelve items that 40 users walk through in a ring, one step an event: the next item is always known."""
    items = [f"i{n},Title {'red' if n % 2 else 'blue'} {n}" for n in range(12)]
    log = [f"u{u},i{(u + t) % 12},{1_600_000_000 + 60 * t}" for u in range(40) for t in range(6)]
    return folder("user_id,item_id,timestamp\n" + "\n".join(log), "item_id,title\n" + "\n".join(items))


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random BERT of two layers, width 24, over a few words, in Hugging Face layout."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "title", "red", "blue", *map(str, range(12)), "영화", "##화"]
    tokenizer = Tokenizer(models.WordPiece({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=160, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def untrained(cycle: Path, small_bert: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Write a teacher's folder and a student's, of the ring, whose numbers no training has touched."""
    from edgerec.data import load
    from edgerec.distill import checkpoint, student
    from edgerec.distill.distillation import open_teacher
    from edgerec.distill.encoder import cached_text_vectors
    from edgerec.distill.towers import TowerConfig, Towers
    from edgerec.distill.vocabulary import read_tokenizer, whole
    from edgerec.splits import split

    data = load(str(cycle))
    divided = split(data)
    towers = Towers(cached_text_vectors(data.texts, small_bert), divided.warm, TowerConfig(8)).eval()
    teacher, small = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(small_bert, teacher / checkpoint.ENCODER)
    tokens = whole(read_tokenizer(small_bert))
    encoder = student.random_student(open_teacher(small_bert), student.StudentConfig(1, 12, 2, 24), tokens.kept, 8)
    student.save(small / checkpoint.ENCODER, encoder, tokens.tokenizer_json)
    for folder, kind in ((teacher, "teacher"), (small, "student")):
        checkpoint.save(folder, towers, data, divided, {"kind": kind, "validation_ndcg10": 0.0})
    return teacher, small
