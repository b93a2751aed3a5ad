"""The encoder written in ONNX operators gives what the Keras layers give."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from export import bert_graph
from tf_pipeline import backbone

CONFIG = backbone.BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2,
                             num_attention_heads=4, intermediate_size=24,
                             max_position_embeddings=12)


def session(config: backbone.BertConfig, model: keras.Model,
            pooled: bool = True) -> onnxruntime.InferenceSession:
    graph = bert_graph.encoder(config, backbone.get_weights(model), pooled)
    whole = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", bert_graph.OPSET)])
    onnx.checker.check_model(whole, full_check=True)
    return onnxruntime.InferenceSession(whole.SerializeToString(),
                                        providers=["CPUExecutionProvider"])


def random_inputs(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    mask = np.arange(shape[1]) < random.integers(1, shape[1] + 1, (shape[0], 1))
    return {"input_ids": random.integers(0, CONFIG.vocab_size, shape),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": random.integers(0, 2, shape)}


def randomize(model: keras.Model) -> None:
    """Give norms and biases something to do too."""
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])


@pytest.mark.parametrize("activation", list(backbone.ACTIVATIONS))
def test_values_are_those_of_keras(activation: str) -> None:
    config = backbone.BertConfig(**{**vars(CONFIG), "hidden_act": activation})
    model = backbone.build(config)
    randomize(model)
    run = session(config, model)
    for shape in ((1, 1), (3, 7), (2, 12)):
        inputs = random_inputs(shape)
        expected = model({name: value.astype(np.int32) for name, value in inputs.items()})
        for name, found in zip((bert_graph.SEQUENCE, bert_graph.POOLED), run.run(None, inputs),
                               strict=True):
            np.testing.assert_allclose(found, np.asarray(expected[name]), atol=2e-5)


def test_a_text_that_is_all_padding_gives_numbers() -> None:
    model = backbone.build(CONFIG)
    inputs = random_inputs((2, 5)) | {"attention_mask": np.zeros((2, 5), np.int64)}
    assert all(np.isfinite(values).all() for values in session(CONFIG, model).run(None, inputs))


def test_the_pooler_is_left_out_where_nothing_reads_it() -> None:
    run = session(CONFIG, backbone.build(CONFIG), pooled=False)
    assert [output.name for output in run.get_outputs()] == [bert_graph.SEQUENCE]


def test_onnxruntime_fuses_what_it_can(tmp_path: Path) -> None:
    model = backbone.build(CONFIG)
    graph = bert_graph.encoder(CONFIG, backbone.get_weights(model), pooled=True)
    whole = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", bert_graph.OPSET)])
    assert {node.domain for node in graph.node} == {""}  # every runtime knows these
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(whole.SerializeToString(), options,
                                 providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    layers = CONFIG.num_hidden_layers
    assert fused.count("LayerNormalization") == 2 * layers + 1
    assert fused.count("Gelu") + fused.count("BiasGelu") == layers
    assert fused.count("Erf") == 0
    assert fused.count("Gemm") >= 5 * layers  # products with their bias
    assert fused.count("Shape") == 1
