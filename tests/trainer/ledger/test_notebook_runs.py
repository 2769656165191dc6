"""A notebook that trains and looks: its cells are run by a kernel, as a reader would run them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CELLS = (
    """
import keras, numpy as np
from trainer import Trainer
x = np.ones((64, 4), "float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_regularizer="l2")])
trainer = Trainer(model, optimizer="adam", loss="mse")
history = trainer.fit((x, x[:, :1]), steps=8, batch_size=16, log_every=4, verbose=False)
history
""",
    "trainer.describe()",
    "%matplotlib inline\nhistory.plot();",
)


@pytest.mark.slow
def test_a_notebook_shows_the_ledger_the_terms_and_the_stack(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    client = nbclient.NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment)
    ledger, terms, plot = (
        next(output["data"] for output in cell["outputs"] if "data" in output)
        for cell in notebook["cells"]
    )
    assert "<td>mean_squared_error</td>" in ledger["text/html"]
    assert ledger["text/plain"].startswith("term ")
    assert "<th>from</th>" in terms["text/html"] and terms["text/plain"].startswith("term ")
    assert len(plot["image/png"]) > 5000
