"""A trained network as an ONNX file, for machines without TensorFlow; and back, for those with it.

Written layer by layer: each weight is named after its Keras layer (`down0_conv1/kernel`), so that the network can be
built again, and the same model gives the same bytes. Keras' own export gives neither, and doubles images by copying
tiles, which ONNX Runtime is slow at.
"""

from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nuclei_unet.card import Card
from nuclei_unet.errors import InputError
from nuclei_unet.network import unet
from nuclei_unet.prediction.engine import CARD, INPUT, OUTPUT
from nuclei_unet.settings import NetworkSettings

OPSET = 17
# Of the file format; 8 is read by every ONNX Runtime since 1.12.
IR_VERSION = 8
# Keras keeps kernels as (height, width, in, out), transposed ones as (height, width, out, in); ONNX wants both turned.
TO_ONNX = (3, 2, 0, 1)
TO_KERAS = (2, 3, 1, 0)
# Depthwise ones have their axes in another order, (height, width, in, 1); in ONNX they are groups of one channel.
DEPTHWISE = (0, 1, 3, 2)
CONVOLUTIONS = keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.DepthwiseConv2D


def save(model: keras.Model, path: Path, card: Card, *, half: bool = False) -> None:
    """Write a network to an ONNX file, with batch normalization folded.

    The file's input is `image`, float32 (N, H, W, channels), 0 ... 255; its output `maps`, float32 (N, H, W, targets),
    in [0, 1], in the order of the recipe's targets. `half` stores weights in float16, which halves the file;
    computation stays in float32. Raises ValueError if the model has a layer that a U-Net of ours does not.
    """
    settings, targets = card.recipe.network, card.recipe.targets
    folded = unet.fold_batch_normalization(model, settings)
    nodes, weights = [helper.make_node("Transpose", [INPUT], ["pixels"], perm=(0, 3, 1, 2))], []
    names = {folded.inputs[0].name: "pixels"}  # of Keras' tensors in ONNX

    def weight(name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value, np.float32)
        stored = half and value.ndim == 4
        weights.append(numpy_helper.from_array(value.astype(np.float16) if stored else value, name))
        if stored:
            nodes.append(helper.make_node("Cast", [name], [f"{name}/float32"], to=TensorProto.FLOAT))
        return f"{name}/float32" if stored else name

    for layer in folded.layers:
        if isinstance(layer, keras.layers.InputLayer):
            names[layer.output.name] = "pixels"
            continue
        inputs = [names[t.name] for t in (layer.input if isinstance(layer.input, list) else [layer.input])]
        output = names[layer.output.name] = layer.name
        if isinstance(layer, keras.layers.Rescaling):
            scaled = f"{output}/scaled" if layer.offset else output
            nodes.append(helper.make_node("Mul", [*inputs, weight(f"{layer.name}/scale", layer.scale)], [scaled]))
            if layer.offset:
                nodes.append(helper.make_node("Add", [scaled, weight(f"{layer.name}/offset", layer.offset)], [output]))
        elif isinstance(layer, CONVOLUTIONS):
            kernel, bias = layer.get_weights()
            options = {"strides": layer.strides}
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                kernel = kernel.transpose(DEPTHWISE)
                options["group"] = kernel.shape[3]
            turned = isinstance(layer, keras.layers.Conv2DTranspose)
            if not turned:  # a transposed one has as wide a kernel as its stride, so there is nothing to pad
                options["auto_pad"] = "SAME_UPPER"
            inputs += [weight(f"{layer.name}/kernel", kernel.transpose(TO_ONNX)), weight(f"{layer.name}/bias", bias)]
            linear = layer.activation is keras.activations.linear
            sums = output if linear else f"{output}/linear"
            nodes.append(helper.make_node("ConvTranspose" if turned else "Conv", inputs, [sums], **options))
            if layer.activation is keras.activations.relu6:
                limits = [weight(f"{layer.name}/{name}", np.array(value)) for name, value in (("low", 0), ("high", 6))]
                nodes.append(helper.make_node("Clip", [sums, *limits], [output]))
            elif not linear:
                activation = {keras.activations.relu: "Relu", keras.activations.sigmoid: "Sigmoid"}[layer.activation]
                nodes.append(helper.make_node(activation, [sums], [output]))
        elif isinstance(layer, keras.layers.Add):
            nodes.append(helper.make_node("Add", inputs, [output]))
        elif isinstance(layer, keras.layers.MaxPooling2D):
            nodes.append(helper.make_node("MaxPool", inputs, [output], kernel_shape=layer.pool_size, strides=(2, 2)))
        elif isinstance(layer, keras.layers.UpSampling2D):
            nearest = layer.interpolation == "nearest"
            rule = {"mode": "nearest", "nearest_mode": "floor"} if nearest else {"mode": "linear"}
            where = "asymmetric" if nearest else "half_pixel"
            factors = weight(f"{layer.name}/factors", np.array([1, 1, *layer.size], np.float32))
            nodes.append(
                helper.make_node(
                    "Resize", [*inputs, "", factors], [output], coordinate_transformation_mode=where, **rule
                )
            )
        elif isinstance(layer, keras.layers.Concatenate):
            nodes.append(helper.make_node("Concat", inputs, [output], axis=1))
        elif isinstance(layer, keras.layers.Dropout):
            names[layer.output.name] = inputs[0]  # does nothing at prediction
        else:
            raise ValueError(f"layer {layer.name} ({type(layer).__name__}) cannot be written to ONNX")
    nodes.append(helper.make_node("Concat", [names[folded.output[name].name] for name in targets], ["joined"], axis=1))
    nodes.append(helper.make_node("Transpose", ["joined"], [OUTPUT], perm=(0, 2, 3, 1)))

    channels = model.input_shape[-1]
    graph = helper.make_graph(
        nodes,
        "unet",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("N", "H", "W", channels))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("N", "H", "W", len(targets)))],
        weights,
    )
    written = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="nuclei-unet"
    )
    helper.set_model_props(written, {CARD: card.dump()})
    onnx.checker.check_model(written, full_check=True)
    path.write_bytes(written.SerializeToString(deterministic=True))


def load(data: bytes, name: str, targets: tuple[str, ...], settings: NetworkSettings) -> keras.Model:
    """Return the network of an ONNX file that `save` wrote, as a Keras model in the current precision.

    Raises InputError that names the file if it is damaged or holds another network.
    """
    try:
        weights = {part.name: part for part in onnx.load_model_from_string(data).graph.initializer}
        model = unet.build(
            weights["stem/kernel" if settings.stem_stride > 1 else "down0_conv1/kernel"].dims[1],
            targets,
            settings.model_copy(update={"normalization": "none"}),
        )
        for layer in model.layers:
            if layer.weights:
                kernel, bias = (
                    numpy_helper.to_array(weights[f"{layer.name}/{part}"]).astype(np.float32)
                    for part in ("kernel", "bias")
                )
                kernel = kernel.transpose(TO_KERAS)
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    kernel = kernel.transpose(DEPTHWISE)
                layer.set_weights([kernel, bias])
    except Exception as error:  # protobuf may raise anything on a malformed file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{name}: its weights do not fit the network of its recipe ({reason[:120]})") from None
    return model
