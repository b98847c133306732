"""Nothing that is read back can run code: no pickles, no evaluation, no models that bring code."""

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_clip

from shardwright.embeddings import load_encoder
from shardwright.errors import UserError
from shardwright.quality.detectors import Detectors
from shardwright.quality.pruning.classifier import Classifier
from shardwright.quality.views.views import Views

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
    *("dill.load", "dill.loads", "marshal.load", "marshal.loads", "shelve.open", "joblib.load"),
    *("torch.load", "pandas.read_pickle", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"),
    *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput"),
}
# Calls that are fine with the one argument that makes them so.
BOUND = {
    "yaml.load": ("Loader", "_StrictLoader"),
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def unsafe(source: str) -> list[str]:
    """Calls of a module that could run what a file holds."""
    found = []
    for name, call in calls(ast.parse(source)):
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in FORBIDDEN or keywords.get("shell") == "True":
            found.append(name)
        for word in ("trust_remote_code", "allow_pickle"):  # both False where nothing is said
            if keywords.get(word, "False") != "False":
                found.append(f"{name} with {word}")
        if name in BOUND:
            word, value = BOUND[name]
            given = [*map(ast.unparse, call.args[1:]), keywords.get(word)]
            if value not in given:
                found.append(f"{name} without {word}={value}")
    return found


def test_no_module_reads_a_pickle_or_runs_a_text() -> None:
    files = [path for top in ("shardwright", "dags") for path in (ROOT / top).rglob("*.py")]
    assert len(files) > 200
    wrong = {str(path): found for path in files if (found := unsafe(path.read_text()))}
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(data)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "subprocess.run(text, shell=True)",
        "Model(name, trust_remote_code=True)",
        "eval(text)",
    ],
)
def test_what_would_be_found(source: str) -> None:
    assert unsafe(source)


class _Mine:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("load", [Classifier.load, Detectors.load, Views.load])
def test_arrays_of_objects_are_not_read(tmp_path: Path, load: Callable[[Path], object]) -> None:
    array = np.empty(1, object)
    array[0] = _Mine(tmp_path / "ran")
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **dict.fromkeys(("words", "names", "folds"), array))
    with np.load(path, allow_pickle=True) as archive:
        assert archive["words"] is not None
    assert (tmp_path / "ran").exists()  # the mine works
    (tmp_path / "ran").unlink()
    with pytest.raises((UserError, ValueError), match=r"allow_pickle|holds no classifier"):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_holds_a_pickle_runs_nothing(tmp_path: Path) -> None:
    model = tiny_clip.save(tmp_path / "model")
    for path in model.glob("*.safetensors"):
        path.unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Mine(tmp_path / "ran")))
    with pytest.raises(UserError):
        load_encoder(
            f"sentence-transformers:{model}",
            modality="image",
            device="cpu",
            dtype="float32",
            batch_size=2,
        )
    assert not (tmp_path / "ran").exists()


def test_a_model_that_brings_code_runs_nothing(tmp_path: Path) -> None:
    model = tiny_clip.save(tmp_path / "model")
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (model / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "own.X"}]')
    with pytest.raises(UserError, match="code of a model is not run"):
        load_encoder(
            f"sentence-transformers:{model}",
            modality="image",
            device="cpu",
            dtype="float32",
            batch_size=2,
        )
    assert not (tmp_path / "ran").exists()
