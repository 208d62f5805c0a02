import math
import os
import resource
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers import config, errors
from trainers.training import callbacks as callbacks_lib
from trainers.training import checkpoints, clock, loop, preemption, progress
from trainers.training import logs as logs_lib

_STEPS, _EPOCH = 12, 3


class _KilledError(Exception):
    pass


def _model():
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1, name="out"),
        ]
    )
    # The metric has no variables before its first use.
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model


def _examples():
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, x[:, :1]))


def _data(start):
    dataset = _examples().shuffle(32, seed=1).repeat()
    return dataset.batch(5, drop_remainder=True).skip(start)


def _fit(directory, model=None, data=_data, callbacks=(), **options):
    model = model or _model()
    rows = loop.fit(
        model,
        data,
        _examples().batch(8),
        config=config.FitConfig(
            **{"steps": _STEPS, "steps_per_epoch": _EPOCH, **options}
        ),
        directory=directory,
        progress=progress.Progress(),
        more=callbacks,
    )
    return model, rows


def _state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _fit_killed(
    directory, monkeypatch, step, hook="on_train_batch_end", **options
):
    original = getattr(callbacks_lib.SaveCheckpoints, hook)
    calls = []

    def fatal(self, *arguments, **options):
        calls.append(None)
        if len(calls) == step:
            raise _KilledError
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks_lib.SaveCheckpoints, hook, fatal)
        with pytest.raises(_KilledError):
            _fit(directory, **options)


def _saved_steps(directory):
    paths = (directory / "checkpoints").glob("step-*.npz")
    return sorted(int(path.stem.removeprefix("step-")) for path in paths)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model, rows = _fit(tmp_path_factory.mktemp("whole"))
    return _state(model), rows


def test_a_whole_run_logs_each_epoch_and_keeps_two_checkpoints(tmp_path):
    _, rows = _fit(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert logs_lib.read_csv(tmp_path / "metrics.csv") == rows
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000009.npz", "step-000000012.npz"]
    assert list((tmp_path / "tensorboard").rglob("*tfevents*"))


def test_a_run_killed_anywhere_resumes_bit_for_bit(
    tmp_path, monkeypatch, whole
):
    for number, step in enumerate(np.random.default_rng().integers(1, 13, 2)):
        directory = tmp_path / str(number)
        _fit_killed(directory, monkeypatch, step)
        model, rows = _fit(directory)
        assert rows == whole[1], step
        for got, expected in zip(_state(model), whole[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_killed_between_the_log_and_the_checkpoint(
    tmp_path, monkeypatch, whole
):
    _fit_killed(tmp_path, monkeypatch, 2, "on_epoch_end")
    assert len(logs_lib.read_csv(tmp_path / "metrics.csv")) == 2
    _, rows = _fit(tmp_path)
    assert rows == whole[1]


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path, monkeypatch, whole, capsys
):
    _fit_killed(tmp_path, monkeypatch, 8)
    newest = tmp_path / "checkpoints" / "step-000000006.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    model, rows = _fit(tmp_path)
    output = capsys.readouterr().out
    assert f"{newest} is damaged" in output
    assert "resuming after step 3 of 12" in output
    assert rows == whole[1]
    np.testing.assert_array_equal(_state(model)[0], whole[0][0])


def test_no_readable_checkpoint_is_an_error(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path, _model())
    saved.save(1).write_bytes(b"")
    with pytest.raises(errors.UserError, match="none of the 1 checkpoints"):
        saved.restore()


def test_a_flipped_byte_is_noticed(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path, _model())
    saved.save(1)
    path = saved.save(2)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert saved.restore() == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoints.Checkpoints(tmp_path, _model()).save(1)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    other.compile("sgd", loss="mse")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(errors.UserError, match="belongs to another model"):
        checkpoints.Checkpoints(tmp_path, other).restore()


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    saved = checkpoints.Checkpoints(tmp_path, _model())
    path = saved.save(1)
    before = path.read_bytes()

    def break_down(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", break_down)
    with pytest.raises(errors.UserError, match="no space left"):
        saved.save(1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bfloat16_variables_come_back(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, dtype="bfloat16")]
    )
    model.compile("sgd", loss="mse")
    model.optimizer.build(model.trainable_variables)
    saved = checkpoints.Checkpoints(tmp_path, model)
    saved.save(5)
    before = _state(model)
    model.layers[0].kernel.assign(tf.zeros([4, 2], tf.bfloat16))
    assert saved.restore() == 5
    np.testing.assert_array_equal(_state(model)[0], before[0])


def test_a_loss_that_is_not_finite_stops_training_at_its_step(tmp_path):
    def poisoned(start):
        dataset = _data(start).enumerate(start)
        return dataset.map(
            lambda step, batch: (
                batch[0],
                tf.where(step == 7, math.nan, batch[1]),
            )
        )

    with pytest.raises(errors.DivergedError, match=r"step 8: loss became nan"):
        _fit(tmp_path, data=poisoned)
    model = _model()
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints", model)
    assert saved.restore() == 6
    assert all(np.isfinite(array).all() for array in _state(model))


def test_the_loss_that_is_not_finite_is_named():
    counted = clock.Clock(10)
    callback = callbacks_lib.StopOnNan(counted)
    counted.on_epoch_begin(2)
    counted.on_train_batch_end(3)
    logs = {"loss": math.inf, "left_loss": math.inf, "right_loss": 1.0}
    with pytest.raises(
        errors.DivergedError, match="step 24: left_loss became inf"
    ):
        callback.on_train_batch_end(3, logs)
    counted.on_epoch_end(2)
    with pytest.raises(errors.DivergedError, match="step 30: val_loss"):
        callback.on_epoch_end(2, {"loss": 1.0, "val_loss": math.nan})


def test_progress_lines_are_rare(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines = progress.Progress(seconds=10.0)
    for now, text in (5.0, "early"), (10.0, "late"), (15.0, "again"):
        lines.update(int(now), 99, text)
    assert capsys.readouterr().out == "    step 10/99: late\n"


class _Scores(keras.callbacks.Callback):
    """Logs a score for each epoch, of which the second is the best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = [3.0, 1.0, 2.0, 1.0][epoch]


def _fit_watched(directory, steps=_STEPS):
    model = _model()
    rows = loop.fit(
        model,
        _data,
        _examples().batch(8),
        config=config.FitConfig(steps=steps, steps_per_epoch=_EPOCH),
        directory=directory,
        progress=progress.Progress(),
        watched="score",
        more=[_Scores()],
    )
    return model, rows


def test_the_model_ends_with_the_weights_of_the_best_step(tmp_path):
    shorter, _ = _fit_watched(tmp_path / "shorter", steps=2 * _EPOCH)
    model, rows = _fit_watched(tmp_path / "whole")
    assert [row["score"] for row in rows] == [3.0, 1.0, 2.0, 1.0]
    for got, expected in zip(_state(model), _state(shorter), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_best_is_kept_by_a_process_that_died_before_it_could(
    tmp_path, monkeypatch
):
    def fatal(self, step):
        if step == 2 * _EPOCH:
            raise _KilledError
        original(self, step)

    original = checkpoints.Checkpoints.keep_as_best
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "keep_as_best", fatal)
        with pytest.raises(_KilledError):
            _fit_watched(tmp_path)
    _fit_watched(tmp_path)
    with np.load(tmp_path / "checkpoints" / "best.npz") as best:
        assert best["step"] == 2 * _EPOCH


def test_a_damaged_best_checkpoint_is_said_in_one_line(tmp_path):
    (tmp_path / "best.npz").write_bytes(b"nothing")
    saved = checkpoints.Checkpoints(tmp_path, _model())
    with pytest.raises(errors.UserError, match="best.npz cannot be read"):
        saved.restore_best()


def test_the_bar_leaves_out_losses_if_there_are_many(capsys):
    logs = {"loss": 1.0, "max_f1": 0.5, "val_loss": 3.0}
    many = {f"attribute_{index}_loss": 2.0 for index in range(8)}
    for shown in (logs, {**logs, **many}):
        bar = progress.ProgressBar()
        bar.set_params({"verbose": 0, "epochs": 1, "steps": 2})
        bar.on_epoch_begin(0)
        bar.on_train_batch_end(0, shown)
        bar.on_epoch_end(0, shown)
        text = capsys.readouterr().out
        assert "max_f1" in text and "val_loss" in text and "2/2" in text
        assert "attribute" not in text
    bar.on_epoch_begin(0)
    bar.on_epoch_end(0, {"head_loss": 2.0})
    assert "head_loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "options", "saved_steps"),
    [
        (6, {"checkpoint_steps": 2}, [3, 4]),
        (12, {"checkpoint_steps": 5, "kept_checkpoints": 3}, [6, 9, 10]),
        (9, {"checkpoint_minutes": 1e-9}, [7, 8]),
        (9, {"checkpoint_minutes": 60.0}, [3, 6]),
    ],
)
def test_a_run_killed_inside_of_an_epoch_resumes_bit_for_bit(
    step, options, saved_steps, tmp_path, monkeypatch, whole, capsys
):
    _fit_killed(tmp_path, monkeypatch, step, **options)
    assert _saved_steps(tmp_path) == saved_steps
    model, rows = _fit(tmp_path, **options)
    assert f"resuming after step {saved_steps[-1]}" in capsys.readouterr().out
    assert rows == whole[1]
    for got, expected in zip(_state(model), whole[0], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_run_with_an_evaluator_resumes_inside_of_an_epoch(
    tmp_path, monkeypatch
):
    def run(directory):
        model = _model()
        rows = loop.fit(
            model,
            _data,
            None,
            config=config.FitConfig(
                steps=_STEPS, steps_per_epoch=_EPOCH, checkpoint_steps=1
            ),
            directory=directory,
            progress=progress.Progress(),
            evaluator=lambda: {
                "loss": float(np.linalg.norm(model.get_weights()[0]))
            },
        )
        return _state(model), rows

    expected_state, expected = run(tmp_path / "whole")
    assert [*expected[0]] == ["step", "loss", "mae", "val_loss"]
    with pytest.raises(_KilledError), monkeypatch.context() as patch:
        original = callbacks_lib.SaveCheckpoints.on_train_batch_end

        def fatal(self, batch, logs=None):
            original(self, batch, logs)
            if _saved_steps(tmp_path / "killed")[-1:] == [5]:
                raise _KilledError

        patch.setattr(
            callbacks_lib.SaveCheckpoints, "on_train_batch_end", fatal
        )
        run(tmp_path / "killed")
    state, rows = run(tmp_path / "killed")
    assert rows == expected
    for got, want in zip(state, expected_state, strict=True):
        np.testing.assert_array_equal(got, want)


def test_no_checkpoint_cuts_an_update_in_two(tmp_path, monkeypatch):
    options = {"steps_per_epoch": 6, "gradient_accumulation_steps": 2}
    options |= {"checkpoint_steps": 1, "kept_checkpoints": 9}
    _fit_killed(tmp_path, monkeypatch, 12, **options)
    assert _saved_steps(tmp_path) == [2, 4, 6, 8, 10]


class _Terminate(keras.callbacks.Callback):
    """Sends SIGTERM in a step, or while the epoch is tested."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._send)
        self._calls = 0

    def _send(self, *arguments, **options):
        self._calls += 1
        if self._calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("hook", "step"), [("on_train_batch_end", 2), ("on_test_begin", 6)]
)
def test_sigterm_saves_and_stops(hook, step, tmp_path, whole):
    before = signal.getsignal(signal.SIGTERM)
    with (
        preemption.watching() as notice,
        pytest.raises(
            errors.InterruptedRunError,
            match=f"SIGTERM and saved after step {step} of 12",
        ),
    ):
        loop.fit(
            _model(),
            _data,
            _examples().batch(8),
            config=config.FitConfig(steps=_STEPS, steps_per_epoch=_EPOCH),
            directory=tmp_path,
            progress=progress.Progress(),
            more=[_Terminate(hook)],
            notice=notice,
        )
    assert signal.getsignal(signal.SIGTERM) == before
    assert _saved_steps(tmp_path)[-1] == step
    model, rows = _fit(tmp_path)
    assert rows == whole[1]
    np.testing.assert_array_equal(_state(model)[0], whole[0][0])


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path, _model(), num_kept=1)
    path = saved.save(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(errors.UserError, match="cannot be written .*large"):
            saved.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [path]
    assert saved.restore() == 1


def test_a_full_disk_met_by_tensorboard_is_one_line(
    tmp_path, monkeypatch, whole
):
    def write(self, epoch, logs=None):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = 0 if epoch == 2 else before[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            original(self, epoch, logs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    original = keras.callbacks.TensorBoard.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_epoch_end", write)
        with pytest.raises(
            errors.UserError,
            match=r"tensorboard cannot be written \(File too large\)",
        ):
            _fit(tmp_path)
    assert _saved_steps(tmp_path) == [3, 6]
    model, rows = _fit(tmp_path)
    assert rows == whole[1]
    np.testing.assert_array_equal(_state(model)[0], whole[0][0])


def test_no_folder_for_tensorboard_is_one_line(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(errors.UserError, match="tensorboard cannot be written"):
        _fit(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    saved = checkpoints.Checkpoints(tmp_path / "file" / "run", _model())
    with pytest.raises(errors.UserError, match="cannot be written"):
        saved.save(1)


def test_only_the_one_who_writes_writes(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path, _model(), writes=False)
    saved.save(1)
    saved.keep_as_best(1)
    counted = clock.Clock(3)
    counted.on_epoch_end(0)
    log = logs_lib.CsvLog(tmp_path / "metrics.csv", counted, writes=False)
    log.on_epoch_end(0, {"loss": 1.0})
    assert log.rows == [{"step": 3, "loss": 1.0}]
    assert not list(tmp_path.iterdir())
