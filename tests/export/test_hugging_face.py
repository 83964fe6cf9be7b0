"""Other tools open the text encoder alone, and give the vectors that torch gives before the projection."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import transformers

import pytest

from edgerec.data import load as load_data
from edgerec.distill import checkpoint
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.options import TrainOptions
from edgerec.distill.teacher import TeacherOptions, fine_tune
from edgerec.errors import UsageError
from edgerec.export.hugging_face import expected, write_hugging_face
from edgerec.splits import split

TEXTS = ["a red wine", "blue", "the green film of a blue wine that is red", "영화 🎉"]
SHORT = TrainOptions(steps=2, batch_size=4, evaluate_every=2)


@pytest.fixture
def models(small_bert: Path, cycle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoint.Checkpoint]:
    folder, data = tmp_path_factory.mktemp("models"), load_data(str(cycle))
    divided = split(data)
    fine_tune(data, divided, small_bert, TeacherOptions(stage_1=SHORT), folder / "teacher")
    teacher = checkpoint.load(folder / "teacher")
    sizes: dict[str, Any] = {"tiny": {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 16}, "static": {}}
    for preset, given in sizes.items():
        distill_checkpoint(teacher, data, divided, preset, SHORT, folder / preset, sizes=given)
    return {name: checkpoint.load(folder / name) for name in ("teacher", "tiny", "static")}


def optimum_vectors(folder: Path) -> Any:
    """Return what optimum and the folder's description of its pooling give."""
    optimum = pytest.importorskip("optimum.onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = optimum.ORTModelForFeatureExtraction.from_pretrained(
            folder, subfolder="onnx", file_name="model.onnx", local_files_only=True
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
    states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"].unsqueeze(-1)
    vectors = ((states * mask).sum(1) / mask.sum(1)).numpy()
    normalised = len(json.loads((folder / "modules.json").read_text())) == 3
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalised else vectors


def test_optimum_gives_the_vectors_and_the_quantized_variant_is_near(
    models: dict[str, checkpoint.Checkpoint], tmp_path: Path
) -> None:
    for name in ("teacher", "tiny"):
        out = tmp_path / name
        files = {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "onnx/model.onnx"}
        assert files <= set(write_hugging_face(models[name], "fp32", out)["files"])
        np.testing.assert_allclose(optimum_vectors(out), expected(models[name], TEXTS), atol=1e-5)
        feed = {"input_ids": np.array([[1, 5, 6], [7, 8, 0]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}
        whole, quantized = (
            onnxruntime.InferenceSession(out / "onnx" / file).run(["last_hidden_state"], feed)[0]
            for file in ("model.onnx", "model_quantized.onnx")
        )
        assert whole.shape[:2] == (2, 3)
        np.testing.assert_allclose(whole, quantized, atol=0.3)


def test_a_static_student_and_a_folder_in_use_are_refused(
    models: dict[str, checkpoint.Checkpoint], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="static student"):
        write_hugging_face(models["static"], "fp32", tmp_path / "here" / "out")
    assert not (tmp_path / "here").exists()
    (tmp_path / "here" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "mine" / "note").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        write_hugging_face(models["tiny"], "fp32", tmp_path / "here" / "mine")
    assert [path.name for path in (tmp_path / "here").rglob("*")] == ["mine", "note"]
