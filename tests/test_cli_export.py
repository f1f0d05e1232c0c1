"""`seqbag export`, and packed models in every other command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import seqbag
from seqbag.engine import PackedNetwork
from seqbag.errors import DataError
from seqbag.passes import hold_out
from seqbag.prediction import predict
from seqbag.store import save
from seqbag.trainer import train
from seqbag_connectors import open_source
from tests.builders import write_changing, write_parquet
from tests.command import call, fails, run, run_json
from tests.conftest import QUICK, log_columns
from tests.test_images import SMALL, hub


@pytest.fixture(scope="module")
def signs(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained with signs."""
    path = tmp_path_factory.mktemp("signs") / "signs.seqbag"
    done = call("train", "--source", logs, "--out", path, "--activation", "sign", *QUICK)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def small(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, packed."""
    path = tmp_path_factory.mktemp("packed") / "small.seqbag"
    done = call("export", signs, "--weights", "ternary", "--activations", "sign", "--out", path, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: ")
    return path


def test_json_says_what_was_written(signs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.seqbag"
    report = run_json("export", signs, "--out", out)
    assert report == {
        "format": "seqbag", "weights": "ternary", "activations": "sign", "bytes": out.stat().st_size,
        "model_bytes": signs.stat().st_size, "rows": None, "accuracy_before": None, "accuracy_after": None,
        "refitted": False,
    }  # fmt: skip
    assert report["bytes"] < report["model_bytes"] / 3


@pytest.mark.parametrize("weights", ["binary", "float"])
def test_with_rows_the_accuracy_is_told(signs: Path, logs: Path, tmp_path: Path, weights: str) -> None:
    report = run_json("export", signs, "--weights", weights, "--out", tmp_path / "x.seqbag", "--source", logs)
    assert 20 <= report["rows"] <= 150
    assert report["accuracy_before"] - report["accuracy_after"] <= 0.05
    assert run_json("evaluate", tmp_path / "x.seqbag", "--source", logs)["accuracy"] >= 0.95


@pytest.mark.parametrize(("held_out", "measured"), [(0.04, 0.04), (0.0, 0.1)])
def test_no_row_that_was_trained_on_is_measured_on(
    logs: Path, tmp_path: Path, held_out: float, measured: float
) -> None:
    """But for a net that was trained on all: there it is those that refitting does not see."""
    model = tmp_path / "m.seqbag"
    train = ("train", "--source", logs, "--out", model, "--activation", "sign", "--valid-fraction", held_out, *QUICK)
    assert call(*train).returncode == 0
    report = run_json("export", model, "--out", tmp_path / "x.seqbag", "--source", logs)
    assert report["rows"] == hold_out(0, 600, measured, 0).sum() > 0


def test_people_are_told_on_one_line_each(signs: Path, logs: Path, tmp_path: Path) -> None:
    done = call("export", signs, "--out", tmp_path / "x.seqbag", "--source", logs)
    lines = done.stdout.splitlines()
    assert lines[1].startswith("accuracy ")
    assert "held-out rows (classifier " in lines[1]


@pytest.mark.parametrize("activations", ["sign", "float"])
def test_a_net_trained_without_signs(model: Path, logs: Path, tmp_path: Path, activations: str) -> None:
    out = tmp_path / "x.seqbag"
    report = run_json("export", model, "--activations", activations, "--out", out, "--source", logs)
    assert report["accuracy_after"] >= 0.9
    assert run_json("evaluate", out, "--source", logs)["accuracy"] >= 0.9


def test_packed_models_evaluate_as_they_were(signs: Path, small: Path, logs: Path) -> None:
    packed, whole = (run_json("evaluate", path, "--source", logs) for path in (small, signs))
    assert packed["rows"] == whole["rows"] == 600
    assert abs(packed["accuracy"] - whole["accuracy"]) <= 0.01


def test_packed_models_predict_and_stream(small: Path, logs: Path, tmp_path: Path) -> None:
    done = call("predict", small, "--source", logs, "--out", tmp_path / "p.jsonl", "--threads", 2)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == 600
    streamed = run("predict", small, "-", stdin=b"worker 1 says unreachable after 5 ms\n")
    assert json.loads(streamed.stdout)["class"] == "network"


def test_packed_models_can_be_inspected(small: Path) -> None:
    report = run_json("inspect", small)
    assert report["classes"] == ["disk", "network", "normal"]
    assert report["layers"][0]["activation"] == "sign"
    assert call("inspect", small).returncode == 0


def test_python_predicts_with_either_kind_of_file(signs: Path, small: Path, logs: Path) -> None:
    lines = ["worker 1 says unreachable after 37 ms", "worker 2 says readonly after 74 ms"]
    for path in (signs, str(small)):
        loaded = seqbag.load(path)
        assert loaded.classes == ("disk", "network", "normal")
        assert loaded.columns["input"] == "message"
        assert loaded.report["rows"] == 600
        assert loaded.predict(lines) == ["network", "disk"]
        assert [loaded.predict_one(line) for line in lines] == ["network", "disk"]
        assert loaded.probabilities(lines).shape == (2, 3)
        assert loaded.predict([]) == []
        rows, probabilities = next(predict(loaded.model.network, open_source(str(logs))))
        assert len(loaded.predict(rows.input)) == len(probabilities)
        for wrong in ([lines], "a lone string", [1, 2], None):
            with pytest.raises(DataError, match="the model reads a list of strings"):
                loaded.predict(wrong)  # type: ignore[arg-type]


def test_token_lists_are_packed_too(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "lists.parquet", log_columns(300), row_group_size=100)
    done = call("train", "--source", path, "--tokens", "tags", "--activation", "sign", "--out", tmp_path / "m", *QUICK)
    assert done.returncode == 0, done.stderr
    assert call("export", tmp_path / "m", "--out", tmp_path / "s").returncode == 0
    loaded = seqbag.load(tmp_path / "s")
    assert loaded.predict([["start", "readonly", "e1"], ["start", "completed", 3]]) == ["disk", "normal"]  # type: ignore[list-item]
    with pytest.raises(DataError, match="a list of lists of strings"):
        loaded.predict(["start readonly"])


def test_images_are_packed_too(tmp_path: Path) -> None:
    hub(tmp_path / "images.parquet", 300)
    trained = train(open_source(str(tmp_path / "images.parquet")), replace(SMALL, activation="sign", readout=0))
    save(trained.model({"kind": "image", "input": "img", "label": "label"}), tmp_path / "m")
    whole = run_json("evaluate", tmp_path / "m", "--source", tmp_path / "images.parquet")["accuracy"]
    small = tmp_path / "s"
    report = run_json("export", tmp_path / "m", "--source", tmp_path / "images.parquet", "--out", small)
    assert report["accuracy_after"] >= report["accuracy_before"] - 0.05
    packed = run_json("evaluate", small, "--source", tmp_path / "images.parquet")["accuracy"]
    assert packed >= whole - 0.03
    done = run("predict", small, "--source", tmp_path / "images.parquet", "--format", "jsonl", "--quiet")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 300)
    done = run("inspect", small, "--plot", tmp_path / "filters.png")
    assert (done.returncode, "whitening  windows of 3x3; 108 filters, sign" in done.stdout) == (0, True)
    network = seqbag.load(small).model.network
    assert isinstance(network, PackedNetwork)
    assert network.engine is not None


def test_onnx_is_written(signs: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    report = run_json("export", signs, "--format", "onnx", "--out", tmp_path / "x.onnx")
    assert report["format"] == "onnx"
    names = [value.name for value in onnxruntime.InferenceSession(tmp_path / "x.onnx").get_inputs()]
    assert names == ["ids", "lengths"]


def test_what_cannot_be_is_refused_in_one_line(
    signs: Path, small: Path, model: Path, logs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.seqbag"
    fails(
        2, "a net trained with relu needs its classifier refitted to signs: give labelled rows with --source, or "
        "export it with --activations float", "export", model, "--activations", "sign", "--out", out,
    )  # fmt: skip
    fails(
        2, "the net was trained with signs and cannot have float activations: choose --activations sign",
        "export", signs, "--activations", "float", "--out", out,
    )  # fmt: skip
    fails(
        2, "--where is about a source and there is none: give one with --source",
        "export", signs, "--where", "true", "--out", out,
    )  # fmt: skip
    fails(4, f"{small} is packed already: export the model it was made of", "export", small, "--out", out)
    folder = tmp_path / "folder"
    folder.mkdir()
    fails(
        3, f"{folder} cannot be written (it is a folder): choose another place with --out",
        "export", signs, "--out", folder,
    )  # fmt: skip
    bad = write_parquet(tmp_path / "bad.parquet", {"message": ["a", "b"], "label": ["new", "newer"]})
    done = call("export", signs, "--source", bad, "--out", out)
    assert (done.returncode, done.stderr.splitlines()[-1].endswith("there is nothing to refit on")) == (3, True)
    assert not out.exists()


def test_a_refit_weighs_rows_as_the_training_did(tmp_path: Path) -> None:
    rows, newest = write_changing(tmp_path)
    model, packed = tmp_path / "m.seqbag", tmp_path / "packed.seqbag"
    run("train", "--source", rows, "--out", model, *QUICK, "--activation", "relu")
    run("export", model, "--weights", "binary", "--activations", "sign", "--source", rows, "--out", packed)
    assert run_json("evaluate", packed, "--source", newest)["accuracy"] == 1
