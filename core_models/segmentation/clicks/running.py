"""The click network's weights → the same network as OpenVINO runs it, for all but training.

It takes 0.1 GB of memory where torch takes 0.5, a part of a second to be ready, and half of the time per cube.  It
multiplies bfloat16 numbers where the processor does so itself.  Its graph is that of `click_net.ClickNet`, layer by
layer; a test holds the two together.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from core_models.errors import ModelMissing
from core_models.segmentation.clicks.cues import CUES
from core_models.segmentation.voxels.grid import THREADS

# OpenVINO's converter, which its import brings along, reports its use where this package is there; it does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402
from openvino import opset13 as op  # noqa: E402

FORMAT = "reading-room-click-net"
NUMBERS = {"bf16": "bfloat16", "f32": "float32"}  # by OpenVINO's names
GROUPS, EPSILON = 8, 1e-5  # of every group norm
REMEMBERED = 4  # cubes, 3 MB each: one that is asked about twice is encoded once
MISSING = "The weights of the click network are missing or damaged; `python app.py train segmenter` makes them."
Half = tuple[int, int, int]


class Running:
    """See the module's docstring.  Cubes are (2, z, y, x), every side a multiple of 2.

    Args:
        weights: by the names of `ClickNet`'s state; `width` and `deep` as in its `Config`.

    Raises:
        ValueError, KeyError: weights that are not of this network.
    """

    def __init__(self, weights: dict[str, np.ndarray], width: int, deep: int, threads: int = THREADS) -> None:
        if weights["embed.weight"].shape[1] != width or weights["enter.0.0.weight"].shape[1] != width + CUES:
            raise ValueError("weights of another width")
        pairs = {name.split(".")[1] for name in weights if name.startswith("down2.")}
        if len(pairs) != 2 + deep:
            raise ValueError("weights of another depth")
        self._weights = weights
        self._width, self._deep = width, deep
        self._options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        self._core = openvino.Core()
        self._ready: dict[Half, tuple[Any, Any]] = {}
        self._seen: deque[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()  # a compiled model answers one question at a time

    def compiled(self, half: Half) -> tuple[Any, Any]:
        """Encoder and decoder of cubes of twice these sides, compiled when first asked for."""
        if half not in self._ready:
            graph = _Graph(self._weights, self._width, self._deep, half)
            self._ready[half] = tuple(  # type: ignore[assignment]
                self._core.compile_model(model, "CPU", self._options) for model in (graph.encoder(), graph.decoder())
            )
        return self._ready[half]

    def encode(self, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(2, z, y, x) of `channels` → features and unit embeddings, both (c, z/2, y/2, x/2) float32."""
        blocks = folded(cube)
        with self._lock:
            known = next((answer for seen, answer in self._seen if np.array_equal(seen, blocks)), None)
            if known is not None:
                return known
            found = self.compiled(blocks.shape[1:])[0]([blocks[None]])  # type: ignore[arg-type]
            features, embedding = found[0][0].copy(), found[1][0].copy()
            length = np.sqrt((embedding**2).sum(0, keepdims=True))
            answer = features, embedding / np.maximum(length, 1e-12)
            self._seen.append((blocks, answer))
        return answer

    def decode(self, features: np.ndarray, cues: np.ndarray) -> tuple[np.ndarray, float]:
        """Features and `cues` (c, z/2, y/2, x/2) → probabilities (z, y, x) float32, and the Dice expected, 0 to 1."""
        with self._lock:
            found = self.compiled(features.shape[1:])[1]([features[None], cues[None]])  # type: ignore[arg-type]
            logits, quality = found[0][0].copy(), float(found[1][0, 0])
        return _sigmoid(unfolded(logits)), float(_sigmoid(np.float32(quality)))


def arithmetic(options: dict[str, Any] | None = None) -> str:
    """The numbers that this processor's networks multiply: "bfloat16" or "float32".

    Args:
        options: of OpenVINO, where they are not its own for this processor.
    """
    x = op.parameter([1, 1], np.float32)
    model = openvino.Core().compile_model(openvino.Model([op.relu(x)], [x], "least"), "CPU", options or {})
    return NUMBERS[model.get_property("INFERENCE_PRECISION_HINT").to_string()]


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * x))


def folded(cube: np.ndarray) -> np.ndarray:
    """(c, z, y, x) → (8 c, z/2, y/2, x/2): each 2 × 2 × 2 block becomes channels."""
    c, z, y, x = cube.shape
    blocks = cube.reshape(c, z // 2, 2, y // 2, 2, x // 2, 2)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 6, 1, 3, 5).reshape(8 * c, z // 2, y // 2, x // 2))


def unfolded(blocks: np.ndarray) -> np.ndarray:
    """(8, z, y, x) → (2 z, 2 y, 2 x): the inverse of `folded`, of one channel."""
    _, z, y, x = blocks.shape
    return blocks.reshape(2, 2, 2, z, y, x).transpose(3, 0, 4, 1, 5, 2).reshape(2 * z, 2 * y, 2 * x)


class _Graph:
    """The two halves of `ClickNet` for one size of cubes."""

    def __init__(self, weights: dict[str, np.ndarray], width: int, deep: int, half: Half) -> None:
        self.weights, self.width, self.deep, self.half = weights, width, deep, half

    def encoder(self) -> Any:
        cubes = op.parameter([1, 16, *self.half], np.float32)
        x0 = self._row(cubes, "stem", (1, 1))
        x1 = self._row(x0, "down1", (2, 1), self.deep // 2)
        x2 = self._row(x1, "down2", (2, 1), self.deep)
        features = self._block(_joined(self._block(_joined(x2, x1), "up1"), x0), "up0")
        return openvino.Model([features, self._convolution(features, "embed")], [cubes], "encoder")

    def decoder(self) -> Any:
        features = op.parameter([1, self.width, *self.half], np.float32)
        cues = op.parameter([1, CUES, *self.half], np.float32)
        x0 = self._row(op.concat([features, cues], 1), "enter", (1, 1))
        x1 = self._row(x0, "lower1", (2, 1), self.deep // 2)
        x2 = self._row(x1, "lower2", (2, 1), self.deep)
        x1 = self._block(_joined(x2, x1), "rise1")
        logits = self._convolution(self._block(_joined(x1, x0), "rise0"), "out")
        space = op.constant(np.array([2, 3, 4]))
        pooled = op.concat([op.reduce_mean(x1, space, False), op.reduce_max(x1, space, False)], 1)
        quality = op.matmul(pooled, self._constant("quality.weight"), False, True)
        quality = op.add(quality, self._constant("quality.bias"))
        return openvino.Model([logits, quality], [features, cues], "decoder")

    def _constant(self, name: str, *shape: int) -> Any:
        return op.constant(np.ascontiguousarray(self.weights[name].reshape(shape or self.weights[name].shape)))

    def _row(self, x: Any, name: str, strides: Sequence[int], residuals: int = 0) -> Any:
        """Blocks, and then residual pairs of convolutions."""
        for n, stride in enumerate(strides):
            x = self._block(x, f"{name}.{n}", stride)
        for n in range(len(strides), len(strides) + residuals):
            body = f"{name}.{n}.body"
            pair = self._norm(self._convolution(self._block(x, f"{body}.0"), f"{body}.1"), f"{body}.2")
            # A sum after a convolution would be fused with it, which ends the process in float32 (OpenVINO 2026.4.1).
            x = op.subtract(x, op.negative(pair))
        return x

    def _block(self, x: Any, name: str, stride: int = 1) -> Any:
        return op.swish(self._norm(self._convolution(x, f"{name}.0", stride), f"{name}.1"))

    def _norm(self, x: Any, name: str) -> Any:
        return op.group_normalization(
            x, self._constant(f"{name}.weight"), self._constant(f"{name}.bias"), GROUPS, EPSILON
        )

    def _convolution(self, x: Any, name: str, stride: int = 1) -> Any:
        kernel = self.weights[f"{name}.weight"]
        flat = self.half[0] == 1
        if flat:  # one slice stands for equal slices without end, see `ClickNet`
            kernel = kernel.sum(2, keepdims=True)
        pads = [side // 2 for side in kernel.shape[2:]]
        strides = [1 if flat else stride, stride, stride]
        y = op.convolution(x, op.constant(np.ascontiguousarray(kernel)), strides, pads, pads, [1, 1, 1])
        if f"{name}.bias" in self.weights:
            y = op.add(y, self._constant(f"{name}.bias", 1, -1, 1, 1, 1))
        return y


def _joined(deep: Any, fine: Any) -> Any:
    """`deep` at the size of `fine`, each voxel repeated, and `fine` beside it."""
    size = op.constant(np.array(list(fine.get_output_shape(0))[2:], np.int64))
    wide = op.interpolate(
        deep,
        size,
        "nearest",
        "sizes",
        axes=op.constant(np.array([2, 3, 4], np.int64)),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return op.concat([wide, fine], 1)


def sizes(folder: Path) -> dict[str, Any]:
    """What config.json says of the network.  Raises OSError, ValueError: it is not there, or of another format."""
    config = json.loads((folder / "config.json").read_text())
    if config.pop("format", "") != FORMAT:
        raise ValueError("another format")
    return config


def load(folder: Path, threads: int = THREADS) -> Running:
    """The network whose weights lie in `folder` (click_net.safetensors and config.json).

    Raises:
        ModelMissing: they are not there, damaged, or of another network.
    """
    try:
        config = sizes(folder)
        weights = load_file(folder / "click_net.safetensors")
        net = Running(weights, int(config["width"]), int(config["deep"]), threads)
        net.compiled((8, 8, 8))  # weights that do not fit are found here
        return net
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelMissing(MISSING) from error
