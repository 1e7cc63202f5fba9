"""Names and ways of Keras: older arguments, calls on arrays, symbolic inputs and outputs."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, Layer, SimpleRNN, TimeDistributed

X = np.ones((2, 3, 4), "float32")


def test_older_names_are_the_arguments_of_today():
    layer = LSTM(output_dim=3, inner_activation="hard_sigmoid", dropout_U=0.2, implementation=2)
    assert (layer.units, layer.recurrent_dropout) == (3, 0.2)
    assert seqnet.optimizers.SGD(lr=0.5).learning_rate == 0.5
    with pytest.raises(TypeError, match="lr is an older name of learning_rate"):
        seqnet.optimizers.SGD(lr=0.5, learning_rate=0.5)
    with pytest.raises(TypeError, match="takes no argument 'time_major'"):
        LSTM(3, time_major=True)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: LSTM(2, batch_input_shape=(5, None, 4)), (5, None, 4)),
        (lambda: LSTM(2, input_dim=4, input_length=3), (None, 3, 4)),
        (lambda: Dense(2, input_dim=4), (None, 4)),
        (lambda: Embedding(9, 2, input_length=3), (None, 3)),
    ],
)
def test_shapes_of_inputs_under_names_of_keras(make, shape):
    layer = make()
    model = seqnet.Sequential([layer])
    assert (model.built, model.input_shape) == (True, shape)
    again = type(layer).from_config(layer.get_config())
    assert (again.batch_size, again.input_shape) == (shape[0], shape[1:])


def test_methods_that_are_gone_name_what_to_call():
    with pytest.raises(AttributeError, match="no 'predict_classes'; call predict"):
        seqnet.Model([Dense(1)]).predict_classes(X)
    with pytest.raises(AttributeError, match=r"no 'colour'\.$"):
        seqnet.Model([Dense(1)]).colour  # noqa: B018


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_layers_called_on_arrays_return_arrays(dtype):
    layer = GRU(3, return_state=True, dtype=dtype)
    output, state = layer(X.astype("float64"))
    assert isinstance(output, np.ndarray)
    assert output.dtype == dtype
    expected = layer(pt.as_tensor_variable(X.astype(dtype)))[0].eval()
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    later = layer(X, initial_state=[state])[0]
    np.testing.assert_array_equal(layer([X, state])[0], later)
    assert not np.array_equal(later, output)


def test_a_mask_given_as_an_array_hides_steps():
    layer, changed = SimpleRNN(3), X.copy()
    changed[:, 2] = 9
    mask = np.array([[True, True, False]] * 2)
    np.testing.assert_array_equal(layer(X, mask=mask), layer(changed, mask=mask))
    assert not np.array_equal(layer(X), layer(changed))


def test_training_mode_draws_anew_at_each_call_on_arrays():
    layer = Dropout(0.5)
    first, second = layer(np.ones((8, 8)), training=True), layer(np.ones((8, 8)), training=True)
    assert set(np.unique(first)) == {0, 2}
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer(np.ones((8, 8))), np.ones((8, 8)))


def test_a_model_called_on_arrays_predicts():
    model = seqnet.Model([Dense(2), Dropout(0.5)])
    np.testing.assert_array_equal(model(X), model.predict(X))
    assert (model(X, training=True) == 0).any()


class Scale(Layer):
    builds = 0

    def build(self, input_shape):
        super().build(input_shape)
        self.builds += 1
        self.scale = self.add_weight("scale", (input_shape[-1],), "ones")

    def call(self, x):
        return x * self.scale


def test_a_layer_is_built_by_hand_once():
    layer = Scale()
    layer.build((None, 3, 4))
    assert (layer.built, layer.builds, len(layer.trainable_weights)) == (True, 1, 1)
    np.testing.assert_array_equal(layer(X), X)
    layer.build([None, 3, 4])
    assert layer.builds == 1
    assert Dense(2).get_weights() == []
    Dense(2).set_weights([])


def test_a_stack_has_symbolic_inputs_and_outputs():
    stack = seqnet.Sequential([Dense(3, input_shape=(4,)), Dense(2, kernel_regularizer="l2")])
    inner = seqnet.Model(stack.input, stack.layers[0].output)
    values = np.ones((2, 4), "float32")
    assert inner.predict(values).shape == (2, 3)
    assert (stack.output_shape, stack.layers[0].output_shape) == ((None, 2), (None, 3))
    assert seqnet.Model(stack.inputs, stack.outputs).weights == stack.weights
    assert len(stack.losses) == 1
    assert stack.get_layer(index=-1) is stack.layers[1]
    stack.layers[0].trainable = False
    assert [w.name for w in stack.non_trainable_weights] == ["dense/kernel", "dense/bias"]


def test_a_wrapper_takes_a_model():
    inner = seqnet.Model([Dense(2, input_shape=(4,))])
    model = seqnet.Model([TimeDistributed(inner, input_shape=(3, 4))])
    np.testing.assert_allclose(model.predict(X)[:, 0], inner.predict(X[:, 0]), rtol=1e-6)


def test_classes_become_rows():
    found = seqnet.utils.to_categorical(np.array([[1], [0]]), 3)
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0]])
    for wrong in ([3], [-1], [0.5]):
        with pytest.raises(ValueError, match="class numbers from 0 to 2"):
            seqnet.utils.to_categorical(wrong, 3)


def test_steps_may_have_targets_of_zeros():
    model = seqnet.Model([Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    y = np.zeros((2, 3, 2))
    y[:, :2, 0] = 1
    whole, part = model.evaluate(X, y), model.evaluate(X[:, :2], y[:, :2])
    assert whole == pytest.approx(part * 2 / 3, rel=1e-5)
    with pytest.raises(ValueError, match="adds up to 0"):
        model.evaluate(X[:, 0], y[:, 2])


def test_names_of_the_results_of_evaluate():
    x = seqnet.Input((2,))
    model = seqnet.Model(x, {"a": seqnet.layers.Dense(1)(x), "b": seqnet.layers.Dense(1)(x)})
    model.compile("sgd", "mse", metrics={"b": ["mae"]})
    X, y = np.ones((2, 2)), np.ones((2, 1))
    results = model.evaluate(X, {"a": y, "b": y}, return_dict=True)
    assert model.metrics_names == list(results) == ["loss", "a_loss", "b_loss", "b_mae"]


def test_masks_of_zeros_and_ones_are_masks():
    x = np.array([[[1.0], [3.0], [8.0]]])
    pool = seqnet.layers.GlobalAveragePooling1D()
    for mask in (np.array([[1, 1, 0]]), np.array([[1.0, 1.0, 0.0]]), [[1, 1, 0]]):
        assert pool(x, mask=mask).tolist() == pool(x, mask).tolist() == [[2.0]]
    attention = seqnet.layers.Attention()
    first, last = np.array([[1, 0, 0]]), np.array([[0, 0, 1]])
    assert attention([x, x], mask=[first, last])[:, 0].tolist() == [[8.0]]
    with pytest.raises(TypeError, match=r"must be bool.*the numbers 0 and 1; got the dtype float"):
        pool(x, mask=np.array([[0.5, 1.0, 0.0]]))


def test_a_model_inside_a_stack_keeps_its_attributes():
    inner = seqnet.Sequential([Dense(3, input_shape=(2,))])
    outer = seqnet.Sequential([inner, Dense(1)])
    assert (outer.input_shape, outer.output_shape) == ((None, 2), (None, 1))
    assert outer.layers[0].layers == inner.layers
    inner.trainable = False
    assert len(outer.trainable_weights) == 2
    inner.trainable = True
    assert len(outer.trainable_weights) == 4


def test_a_model_called_on_an_input_returns_the_structure_of_its_outputs():
    x = seqnet.Input((2,))
    inner = seqnet.Model(x, {"a": Dense(1)(x), "b": Dense(3)(x)})
    y = seqnet.Input((2,))
    outer = seqnet.Model(y, inner(y)["b"])
    data = np.ones((4, 2), "float32")
    np.testing.assert_array_equal(outer.predict(data), inner.predict(data)["b"])
    again = seqnet.Model.from_config(outer.get_config())
    again.set_weights(outer.get_weights())
    np.testing.assert_array_equal(again.predict(data), outer.predict(data))


def test_layers_name_what_to_call_instead():
    layer = LSTM(2, stateful=True)
    with pytest.raises(AttributeError, match="has no 'reset_state'; call reset_states"):
        layer.reset_state()
    with pytest.raises(AttributeError, match="has no 'states'; call get_states"):
        layer.states  # noqa: B018
    both = seqnet.layers.Bidirectional(LSTM(2))
    assert both.forward_layer is both.layer


def test_masks_are_computed_by_hand():
    x = np.array([[[1.0], [0.0]]])
    assert seqnet.layers.Masking().compute_mask(x).eval().tolist() == [[True, False]]
    assert seqnet.layers.Concatenate().compute_mask([x, x], [None, None]) is None
    assert Dense(1).compute_mask(x) is None


def test_first_weights_are_given_to_layers():
    table = np.arange(6.0).reshape(3, 2)
    kernel, bias = np.full((2, 1), 2.0), np.array([5.0])
    for weights in (table, [table]):
        model = seqnet.Sequential(
            [Embedding(3, 2, weights=weights, trainable=False), Dense(1, weights=[kernel, bias])]
        )
        assert model.predict(np.array([[0, 2]])).tolist() == [[[7.0], [23.0]]]
    assert "weights" not in model.layers[0].get_config()
    with pytest.raises(ValueError, match=r"has shape \(4, 2\), but got \(3, 2\)"):
        Embedding(4, 2, weights=[table])(np.array([1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Dropout(0.5, seed=seed),
        lambda seed: seqnet.layers.SpatialDropout1D(0.5, seed=seed),
        lambda seed: seqnet.layers.GaussianNoise(1.0, seed=seed),
        lambda seed: SimpleRNN(
            3, dropout=0.5, seed=seed, kernel_initializer="ones", recurrent_initializer="zeros"
        ),
    ],
)
def test_a_seed_of_a_layer_decides_its_random_numbers(make):
    x = np.ones((2, 5, 8), "float32")
    results = [make(seed)(x, training=True) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    layer = make(7)
    assert type(layer).from_config(layer.get_config()).seed == 7
    with pytest.raises(ValueError, match="seed must be at least 0"):
        make(-1)


def test_multi_head_attention_takes_the_arguments_of_keras():
    layer = seqnet.layers.MultiHeadAttention(
        2, 3, kernel_constraint="non_neg", bias_constraint="non_neg", flash_attention=False,
        sliding_window=None, use_gate=False, seed=3, dropout=0.1,
    )  # fmt: skip
    model = seqnet.Model(x := seqnet.Input((4, 5)), layer(x, x))
    model.compile(seqnet.optimizers.SGD(10.0), "mse")
    model.train_on_batch(np.random.default_rng(0).normal(size=(2, 4, 5)), np.zeros((2, 4, 5)))
    assert all((w >= 0).all() for w in model.get_weights())
    with pytest.raises(TypeError, match="takes no argument 'sliding_window'"):
        seqnet.layers.MultiHeadAttention(2, 3, sliding_window=4)


@pytest.mark.parametrize("layer", ["LayerNormalization", "BatchNormalization", "Conv1D"])
def test_constraints_of_layers_hold_after_an_update(layer):
    names = ("kernel", "bias") if layer == "Conv1D" else ("gamma", "beta")
    sizes = (2, 3) if layer == "Conv1D" else ()
    options = {f"{name}_constraint": "non_neg" for name in names}
    made = getattr(seqnet.layers, layer)(*sizes, **options)
    model = seqnet.Model([made])
    model.compile(seqnet.optimizers.SGD(100.0), "mse")
    x = np.random.default_rng(0).normal(size=(4, 6, 2))
    model.train_on_batch(x, -np.ones(model.predict(x).shape))
    weights = [w.get_value() for w in made.trainable_weights]
    assert len(weights) == 2
    assert all((w >= 0).all() and (w == 0).any() for w in weights)


def test_merges_compute_masks_by_hand():
    x, numbers = np.ones((1, 2, 1)), np.array([[0.0, 0.5]])
    for layer in (seqnet.layers.Add(), seqnet.layers.Concatenate()):
        assert layer.compute_mask([x, x], [numbers, None]).eval().tolist() == [[False, True]]
        for inputs, masks in (([x, x], numbers), (x, [None, None]), ([x, x], [None])):
            with pytest.raises(ValueError, match=r"a list of masks|a mask or None for each input"):
                layer.compute_mask(inputs, masks)


def test_own_objects_are_found_by_name_within_a_scope():
    def double(x):
        return 2 * x

    model = seqnet.Sequential([seqnet.layers.Lambda(double), Scale()])
    config = model.get_config()
    with seqnet.utils.custom_object_scope({"double": double, "Scale": Scale}):
        assert Dense(1, activation="double").activation is double
        again = seqnet.Sequential.from_config(config)
    np.testing.assert_array_equal(again.predict(X), 2 * X)
    with pytest.raises(ValueError, match="pass custom_objects="):
        seqnet.Sequential.from_config(config)


def test_a_frozen_model_whose_layers_cannot_be_set():
    x = seqnet.Input((4,))
    model = seqnet.Model(x, Dense(2)(x), trainable=False)
    assert (model.trainable, model.trainable_weights, len(model.weights)) == (False, [], 2)
    with pytest.raises(AttributeError, match="changes with add and pop"):
        model.layers = []
    stack = seqnet.Sequential([x, Dense(2)])
    assert stack.inputs == [x]


def test_a_model_cannot_be_inside_itself():
    inner = seqnet.Sequential([Dense(4, input_shape=(4,))], name="inner")
    outer = seqnet.Sequential([inner])
    for model in (inner, outer):
        with pytest.raises(ValueError, match="model 'inner' cannot be a layer inside itself"):
            inner.add(model)


def test_files_are_kept_with_overwrite_false(tmp_path):
    model = seqnet.Sequential([Dense(2, input_shape=(4,))])
    for save in (model.save, model.save_weights):
        path = tmp_path / save.__name__
        save(path, overwrite=False)
        with pytest.raises(FileExistsError, match="overwrite=False keeps it"):
            save(path, overwrite=False)
        save(path)


def test_activations_of_arrays_are_arrays():
    found = seqnet.activations.relu(np.array([-1.0, 2.0], "float32"))
    assert (found.tolist(), found.dtype) == ([0, 2], "float32")
    assert seqnet.activations.softmax([[1, 1], [0, 0]], axis=0).shape == (2, 2)
    assert seqnet.activations.linear("anything") == "anything"
    with pytest.raises(TypeError, match=r"relu takes a PyTensor variable or an array.*got 'x'"):
        seqnet.activations.relu("x")


def test_a_mask_has_the_rows_of_its_input():
    layer = TimeDistributed(Dense(1))
    with pytest.raises(ValueError, match=r"shape \(3, 3\), and its input \(2, 3, 4\)"):
        layer(X, mask=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="a mask has a row for each row"):
        seqnet.layers.Attention()([X, X], mask=[None, np.ones((1, 3), bool)])


@pytest.mark.parametrize("name", ["sliding_window", "use_gate"])
def test_arguments_that_only_keras_has_say_what_to_do_instead(name):
    with pytest.raises(TypeError, match=f"no argument '{name}', which Keras has. [PM].*"):
        seqnet.layers.MultiHeadAttention(2, 3, **{name: True})


def test_optimizers_list_their_variables():
    weight = Dense(2)
    weight.build((None, 4))
    optimizer = seqnet.optimizers.Adam(0.1)
    assert [v.name for v in optimizer.variables] == ["iterations", "learning_rate"]
    optimizer.build(weight.weights)
    assert len(optimizer.variables) == 2 + 2 * len(optimizer.used_slots())
