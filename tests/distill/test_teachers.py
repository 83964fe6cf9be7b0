"""Teachers that are no BERT: a RoBERTa without token types; a GPT-2 and a Llama, read left to right, no padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import teacher as teaching
from edgerec.distill.encoder import cached_text_vectors, encode, open_encoder, pooling_of, read_config, tokenise
from edgerec.distill.teacher import require_layers
from edgerec.distill.text_encoder import TeacherEncoder
from edgerec.distill.text_training import TextTraining, TopLayers, pool
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.errors import DataError, UsageError
from edgerec.splits import split

TEXTS = ["Title red 5", "Title blue 12 and more words", "red", "Title red 5", "영화"]
KINDS = ("roberta", "gpt2", "llama")


def bpe(texts: list[str], special: list[str]) -> Tokenizer:
    """Train a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make(kind: str, folder: Path) -> Path:
    """Write a small random model and its tokenizer; only RoBERTa's has a padding token."""
    torch.manual_seed(0)
    special = ["<s>", "<pad>", "</s>"] if kind == "roberta" else ["<|endoftext|>"]
    tokenizer = bpe(TEXTS, special)
    size = {"vocab_size": tokenizer.get_vocab_size()}
    named = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    if kind == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokens = {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
        }
        shape = {"type_vocab_size": 1, "max_position_embeddings": 140, "pad_token_id": 1}
        model = transformers.RobertaModel(transformers.RobertaConfig(**size, **named, **shape))
    elif kind == "gpt2":
        tokens = {"eos_token": "<|endoftext|>"}
        model = transformers.GPT2Model(
            transformers.GPT2Config(**size, n_positions=140, n_embd=24, n_layer=2, n_head=3, initializer_range=0.2)
        )
    else:
        tokens = {"eos_token": "<|endoftext|>"}
        model = transformers.LlamaModel(transformers.LlamaConfig(**size, **named, initializer_range=0.2))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model folder of each kind."""
    return make(request.param, tmp_path / request.param)


def run(*arguments: object) -> Result:
    """Run a command and raise what it raises."""
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


def test_a_decoder_takes_the_last_token_and_an_encoder_the_mean(encoder: Path) -> None:
    expected = "mean" if encoder.name == "roberta" else "last"
    config = read_config(encoder)
    assert pooling_of(config) == expected
    assert pooling_of(config, "mean") == "mean"
    with pytest.raises(UsageError, match="unknown pooling 'cls'; expected one of auto, mean, last"):
        pooling_of(config, "cls")


def test_last_and_mean_pooling_are_what_they_say_and_empty_is_zero() -> None:
    hidden = torch.arange(24.0).view(3, 4, 2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert pool(hidden, mask, "last").tolist() == [[6, 7], [10, 11], [0, 0]]
    assert pool(hidden, mask, "mean").tolist() == [[3, 4], [9, 10], [0, 0]]


def test_a_text_has_the_vector_of_its_own_tokens_in_any_batch(encoder: Path) -> None:
    """Padding is neither seen nor pooled, positions are the model's own, and equal texts are equal."""
    vectors = encode(TEXTS, encoder)
    tokenizer, model = open_encoder(encoder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        expected = hidden.mean(0) if encoder.name == "roberta" else hidden[-1]
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(expected, dim=0), atol=1e-5)
    assert np.array_equal(vectors[0], vectors[3])


def test_equal_texts_are_encoded_once_and_counted_as_often_as_they_are(encoder: Path) -> None:
    done: list[int] = []
    encode(["red", "blue", "red", "red"], encoder, batch=1, progress=done.append)
    assert len(done) == 2
    assert done[-1] == 4


def test_vectors_are_cached_by_pooling_and_by_weights_of_either_format(encoder: Path, own_cache: Path) -> None:
    by_kind = cached_text_vectors(TEXTS, encoder)
    poolings = {name: cached_text_vectors(TEXTS, encoder, pooling=name) for name in ("mean", "last")}
    assert len(list((own_cache / "text-vectors").iterdir())) == 2
    assert np.array_equal(by_kind, poolings["mean" if encoder.name == "roberta" else "last"])
    assert not np.allclose(poolings["mean"], poolings["last"], atol=1e-3)
    state = {name: value + 0.1 for name, value in open_encoder(encoder)[1].state_dict().items()}
    (encoder / "model.safetensors").unlink()
    torch.save(state, encoder / "pytorch_model.bin")
    assert not np.allclose(cached_text_vectors(TEXTS, encoder), by_kind, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_upper_layers_over_cached_activations_are_the_whole_model(encoder: Path, pooling: str) -> None:
    tokenizer, model = open_encoder(encoder)
    top = TopLayers(model, tokenise(tokenizer, TEXTS), 1, torch.eye(24), pooling).eval()
    rows = torch.tensor([2, 0, 4])
    with torch.no_grad():
        expected = encode(TEXTS, encoder, pooling=pooling)[rows]
        np.testing.assert_allclose(top(rows), expected, atol=1e-5)
    assert set(top.state_dict()) == {f"layers.{name}" for name in top.layers.state_dict()}
    top(rows).square().sum().backward()
    assert all(value.grad is not None for value in top.layers.parameters())


def test_a_trained_teacher_ships_what_it_was_trained_with(encoder: Path, cycle: Path, tmp_path: Path) -> None:
    teacher, bundle = tmp_path / "teacher", tmp_path / "ring.edgerec"
    options = ("--steps", 40, "--batch-size", 16, "--learning-rate", 0.05, "--embedding-size", 16, "--tie", "shared")
    result = run("fine-tune", cycle, "--encoder", encoder, "--out", teacher, "--top-layers", 1, *options, "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["stage_2_kept"] in (True, False)
    run("export", teacher, "--precision", "fp32", "--out", bundle)
    verified = json.loads(run("verify", bundle, "--json").stdout)
    assert verified["texts"] > 0
    assert verified["largest_text_distance"] < 1e-5


def test_upper_layers_that_moved_are_saved_with_the_text_part_that_they_give(
    encoder: Path, cycle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nudge(model: TextTraining, *given: object, **options: object) -> float:
        with torch.no_grad():
            for value in model.encoder.layers.parameters():
                value.add_(0.1 * torch.randn_like(value))
        return 0.5

    data = load(str(cycle))
    divided = split(data)
    monkeypatch.setattr(teaching, "fit", nudge)
    towers = Towers(cached_text_vectors(data.texts, encoder), divided.warm, TowerConfig(16))
    before = towers.text.clone()
    options = teaching.TeacherOptions(top_layers=1)
    refined, best = teaching.run_stage_2(towers, data.texts, encoder, divided, options, tmp_path, False)
    assert best == 0.5
    assert not torch.allclose(towers.text, before, atol=1e-3)
    teaching.save_encoder(encoder, refined, tmp_path / "saved", pooling_of(read_config(encoder)))
    np.testing.assert_allclose(
        encode(data.texts, tmp_path / "saved") @ towers.projection.numpy(), towers.text, atol=1e-5
    )


def test_a_stored_pooling_rules_and_new_weights_come_with_it(encoder: Path, tmp_path: Path) -> None:
    _, refined = open_encoder(encoder)
    with torch.no_grad():
        for value in refined.parameters():
            value.mul_(1.5)
    other = "last" if encoder.name == "roberta" else "mean"
    teaching.save_encoder(encoder, refined, tmp_path / "saved", other)
    vectors = cached_text_vectors(TEXTS, tmp_path / "saved")
    tokens = tokenise(open_encoder(encoder)[0], TEXTS)
    traced = TeacherEncoder(tmp_path / "saved", torch.eye(24))
    with torch.no_grad():
        np.testing.assert_allclose(traced(**tokens), vectors, atol=1e-5)
    assert not np.allclose(vectors, encode(TEXTS, encoder, pooling=other), atol=1e-3)


def test_a_roberta_can_be_distilled_and_a_decoder_is_refused(
    encoder: Path, cycle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgerec.distill import student

    monkeypatch.setitem(student.PRESETS, "tiny", student.StudentConfig(1, 12, 2, 24))
    teacher, out, bundle = tmp_path / "teacher", tmp_path / "student", tmp_path / "ring.edgerec"
    run("fine-tune", cycle, "--encoder", encoder, "--out", teacher, "--top-layers", 0, "--steps", 2)
    command = ("distill", cycle, "--teacher", teacher, "--out", out, "--steps", 2, "--batch-size", 4)
    if encoder.name != "roberta":
        with pytest.raises(
            UsageError, match=r"got (GPT2|Llama)Model as the teacher's encoder; expected a BERT-like one"
        ):
            run(*command)
        return
    run(*command)
    run("export", out, "--out", bundle)
    assert json.loads(run("verify", bundle, "--json").stdout)["texts"] > 0


def test_what_cannot_teach_is_refused(tmp_path: Path) -> None:
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"holds an encoder-decoder \(t5\)"):
        encode(TEXTS, tmp_path)
    config = transformers.AlbertConfig(20, 8, 16, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(UsageError, match="no layers that can be found"):
        require_layers(transformers.AlbertModel(config), 1, tmp_path)
