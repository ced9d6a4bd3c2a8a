"""A trained network as an ONNX file, which is what predicts; and back, for going on with its training.

Written layer by layer: each weight is named after its Keras layer (`down0_conv1/kernel`), so that the network can be
built again, and the same model gives the same bytes. Keras' own export gives neither, and doubles images by copying
tiles, which ONNX Runtime is slow at.

The file computes in eight bits (Jacob et al. 2018, https://arxiv.org/abs/1712.05877): ranges of activations are
measured on calibration images, and kernels are kept in half precision and rounded to integers when the file is opened.
"""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nuclei_unet.errors import InputError
from nuclei_unet.network import unet
from nuclei_unet.network.metadata import INPUT, KEY, OUTPUT, Metadata

OPSET = 17
# Of the file format; 8 is read by every ONNX Runtime since 1.12.
IR_VERSION = 8
# Keras keeps kernels as (height, width, in, out), transposed ones as (height, width, out, in); ONNX wants both turned.
TO_ONNX = (3, 2, 0, 1)
TO_KERAS = (2, 3, 1, 0)
# Depthwise ones have their axes in another order, (height, width, in, 1); in ONNX they are groups of one channel.
DEPTHWISE = (0, 1, 3, 2)
FULL = "/float32"  # behind the name of what is kept in float32, too
CONVOLUTIONS = keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.DepthwiseConv2D


def save(model: keras.Model, path: Path, metadata: Metadata, calibration: Iterable[np.ndarray] = ()) -> Metadata:
    """Write a network to an ONNX file, with batch normalization folded; return the metadata in it.

    Parameters
    ----------
    model : a U-Net of `unet.build`, in any precision
    path : of the file. Its input is `image`, float32 (N, H, W, channels), 0 ... 255; its output `maps`, float32
        (N, H, W, targets), in [0, 1], in the order of the targets
    metadata : of the model; its `network` will say that there is no normalization
    calibration : images (H, W) or (H, W, channels), 0 ... 255, of any size; the file then computes in eight bits.
        Without any it computes in float32

    Raises
    ------
    ValueError : the model has a layer that a U-Net of ours does not
    """
    graph = _Graph(unet.fold_batch_normalization(model, metadata.network), metadata.targets)
    metadata = metadata.but(network=metadata.network.model_copy(update={"normalization": "none"}))
    exported = graph.to_model()
    images = [_padded(image, metadata.network.size_multiple) for image in calibration]
    if images:
        exported = _quantized(exported, images)
    helper.set_model_props(exported, {KEY: metadata.dump()})
    onnx.checker.check_model(exported, full_check=True)
    path.write_bytes(exported.SerializeToString(deterministic=True))
    return metadata


def _padded(image: np.ndarray, multiple: int) -> np.ndarray:
    """Return an image, float32 (1, H, W, channels), mirrored at its edge so that `multiple` divides its sides."""
    pixels = image.astype(np.float32).reshape(*image.shape[:2], -1)
    sides = [(0, -side % multiple) for side in image.shape[:2]]
    return np.pad(pixels, [*sides, (0, 0)], "symmetric")[None]


def copy(source: Path, target: Path, metadata: Metadata) -> None:
    """Write the network of file `source` to `target` with other metadata; both may be one file."""
    model = onnx.load(source)
    del model.metadata_props[:]
    helper.set_model_props(model, {KEY: metadata.dump()})
    target.write_bytes(model.SerializeToString(deterministic=True))


def load(data: bytes, name: str, metadata: Metadata) -> keras.Model:
    """Return the network of an ONNX file that `save` wrote, as a Keras model in the current precision.

    Raises InputError that names the file if it is damaged or holds another network.
    """
    try:
        weights = {part.name: part for part in onnx.load_model_from_string(data).graph.initializer}
        model = unet.build(metadata.normalize.channels, metadata.targets, metadata.network)
        for layer in model.layers:
            if layer.weights:
                added = f"{layer.name}/bias"
                kernel, bias = (
                    numpy_helper.to_array(weights[part]).astype(np.float32)
                    for part in (f"{layer.name}/kernel", added + FULL if added + FULL in weights else added)
                )
                kernel = kernel.transpose(TO_KERAS)
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    kernel = kernel.transpose(DEPTHWISE)
                layer.set_weights([kernel, bias][: len(layer.weights)])
    except Exception as error:  # protobuf may raise anything on a malformed file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{name}: its weights do not fit the network that it describes ({reason[:120]})") from None
    return model


def in_half_precision(data: bytes) -> bytes:
    """Return an ONNX file's content without the rounding to eight bits, computed in float16; for GPUs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load_model_from_string(in_floats(data))
    return convert_float_to_float16(model, keep_io_types=True).SerializeToString()


def in_floats(data: bytes) -> bytes:
    """Return an ONNX file's content without the rounding to eight bits, computed in float32; for other programs."""
    model = onnx.load_model_from_string(data)
    unrounded: dict[str, str] = {}  # what each node that rounds, or undoes it, is computed from
    kept = []
    for node in model.graph.node:
        node.input[:] = [unrounded.get(name, name) for name in node.input]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            kept.append(node)
        elif node.input[0].endswith("/bias_quantized"):
            unrounded[node.output[0]] = node.input[0].removesuffix("_quantized") + FULL
        else:
            unrounded[node.output[0]] = node.input[0]
    last = unrounded.get(OUTPUT, OUTPUT)
    for node in kept:
        node.output[:] = [OUTPUT if name == last else name for name in node.output]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    weights = [part for part in model.graph.initializer if part.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model.SerializeToString(deterministic=True)


class _Graph:
    """The nodes and weights of a network in ONNX, float32, channels first."""

    def __init__(self, model: keras.Model, targets: tuple[str, ...]):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels = model.input_shape[-1]
        self.targets = targets
        self._tensors = {}  # names of Keras' tensors in ONNX
        self._add("Transpose", [INPUT], "pixels", perm=(0, 3, 1, 2))
        for layer in model.layers:
            self._tensors[layer.output.name] = self._layer(layer)
        self._add("Concat", [self._tensors[model.output[name].name] for name in targets], "joined", axis=1)
        self._add("Transpose", ["joined"], OUTPUT, perm=(0, 2, 3, 1))

    def to_model(self) -> onnx.ModelProto:
        """Return the whole as a file's content."""
        graph = helper.make_graph(
            self.nodes,
            "unet",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("N", "H", "W", self.channels))],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("N", "H", "W", len(self.targets)))],
            self.weights,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nuclei-unet")

    def _add(self, kind: str, inputs: list[str], output: str, **options) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **options))
        return output

    def _weight(self, name: str, value: object) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def _layer(self, layer: keras.Layer) -> str:
        """Add the nodes of a layer; return the name of its output."""
        if isinstance(layer, keras.layers.InputLayer):
            return "pixels"
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [self._tensors[tensor.name] for tensor in tensors]
        if isinstance(layer, CONVOLUTIONS):
            return self._convolution(layer, inputs)
        if isinstance(layer, keras.layers.Rescaling):
            scaled = self._add("Mul", [*inputs, self._weight(f"{layer.name}/scale", layer.scale)], f"{layer.name}/mul")
            return self._add("Add", [scaled, self._weight(f"{layer.name}/offset", layer.offset)], layer.name)
        if isinstance(layer, keras.layers.Add):
            return self._add("Add", inputs, layer.name)
        if isinstance(layer, keras.layers.Concatenate):
            return self._add("Concat", inputs, layer.name, axis=1)
        if isinstance(layer, keras.layers.MaxPooling2D):
            return self._add("MaxPool", inputs, layer.name, kernel_shape=layer.pool_size, strides=(2, 2))
        if isinstance(layer, keras.layers.UpSampling2D):
            rule = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            if layer.interpolation == "nearest":
                rule = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            factors = self._weight(f"{layer.name}/factors", [1, 1, *layer.size])
            return self._add("Resize", [*inputs, "", factors], layer.name, **rule)
        if isinstance(layer, keras.layers.Dropout):  # does nothing at prediction
            return inputs[0]
        raise ValueError(f"layer {layer.name} ({type(layer).__name__}) cannot be written to ONNX")

    def _convolution(self, layer: keras.Layer, inputs: list[str]) -> str:
        kernel, bias = [*layer.get_weights(), np.zeros(layer.kernel.shape[-1])][:2]  # one may have no bias
        options = {"strides": layer.strides}
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel.transpose(DEPTHWISE)
            options["group"] = kernel.shape[3]
        transposed = isinstance(layer, keras.layers.Conv2DTranspose)
        if not transposed:  # one of those has as wide a kernel as its stride, so there is nothing to pad
            options["auto_pad"] = "SAME_UPPER"
        # Rounded here, so that the file computes with what it keeps.
        halved = kernel.transpose(TO_ONNX).astype(np.float16)
        inputs = [*inputs, self._weight(f"{layer.name}/kernel", halved), self._weight(f"{layer.name}/bias", bias)]
        name, activation = layer.name, layer.activation
        sums = name if activation is keras.activations.linear else f"{name}/linear"
        self._add("ConvTranspose" if transposed else "Conv", inputs, sums, **options)
        if activation is keras.activations.relu6:
            return self._add("Clip", [sums, self._weight(f"{name}/low", 0), self._weight(f"{name}/high", 6)], name)
        if sums != name:
            self._add({keras.activations.relu: "Relu", keras.activations.sigmoid: "Sigmoid"}[activation], [sums], name)
        return name


def _quantized(model: onnx.ModelProto, images: list[np.ndarray]) -> onnx.ModelProto:
    """Return a model that computes in eight bits; its kernels stay floats, in half precision."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = iter(images)

        def get_next(self):
            image = next(self.left, None)
            return None if image is None else {INPUT: image}

    logging.disable(logging.WARNING)  # advice that does not fit: there is nothing to optimize before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        # A copy: what is given is changed.
        quantize_static(
            onnx.load_model_from_string(model.SerializeToString()),
            path,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # Activations stay in the graph, for computation without the rounding.
            extra_options={"AddQDQPairToWeight": True, "QDQKeepRemovableActivations": True},
        )
        quantized = onnx.load(path)
    logging.disable(logging.NOTSET)
    # The graph has them as 32-bit integers; training goes on from floats.
    for part in model.graph.initializer:
        if part.name.endswith("/bias"):
            bias = numpy_helper.from_array(numpy_helper.to_array(part), part.name + FULL)
            quantized.graph.initializer.append(bias)
    _halve_kernels(quantized.graph)
    quantized.producer_name = "nuclei-unet"
    return quantized


def _halve_kernels(graph: onnx.GraphProto) -> None:
    """Keep kernels in float16, which halves the file; they were rounded to it before."""
    casts = []
    for weights in graph.initializer:
        if not weights.name.endswith("/kernel"):
            continue
        halved = numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), weights.name)
        weights.CopyFrom(halved)
        full = weights.name + FULL
        for node in graph.node:
            node.input[:] = [full if name == weights.name else name for name in node.input]
        casts.append(helper.make_node("Cast", [weights.name], [full], name=full, to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
