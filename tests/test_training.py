"""Alternate learning: whose turn it is, what stays untouched, when it stops, and how it is taken up again."""

import math
import warnings
from contextlib import nullcontext
from functools import partial

import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib import training
from switcher_lib.errors import DataError, TrainingStopped

fit = partial(sl.fit, progress=False)


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def switched(seed=0, model=None, **options):
    torch.manual_seed(seed)
    return sl.Switched(model or networks.mlp((6, 8, 5, 3), seed=seed), torch.randn(2, 6), **options)


def results(history):
    """The records without the one thing that no seed can fix."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history.records]


# -------- one step of each

def with_norms(switcher, flow=False):
    """A task network with BatchNorm, read by a switcher that may have BatchNorm too."""
    torch.manual_seed(0)
    return sl.Switched(networks.conv(norm=True), torch.randn(2, 2, 12, 12), switcher=switcher, flow=flow).train()


UNET = partial(sl.UNetSwitcher, channels=(2, 3))
STATS = partial(sl.StatsSwitcher, bias=2.0)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("switcher", [UNET, partial(sl.RowSwitcher, gate="relu_bn"), STATS, "free", "random"])
def test_task_step_leaves_switcher_untouched(switcher, flow):
    net = with_norms(switcher, flow)
    x, y = torch.randn(8, 2, 12, 12), torch.randint(3, (8,))
    before, model = networks.state(net.switcher), networks.state(net.model)
    for _ in range(3):
        sl.task_step(net, x, y, SGD(net.model.parameters(), lr=0.1))
    after = networks.state(net.model)
    assert networks.same(before, networks.state(net.switcher))
    moved = [name for name in model if not torch.equal(model[name], after[name])]
    assert {"bn1.running_mean", "bn1.num_batches_tracked", "fc.bias"} <= set(moved)


@pytest.mark.parametrize("switcher", [UNET, partial(sl.RowSwitcher, gate="relu_bn"), STATS, "free"])
def test_switcher_step_leaves_task_network_untouched(switcher):
    net = with_norms(switcher)
    x, y = torch.randn(8, 2, 12, 12), torch.randint(3, (8,))
    before, own = networks.state(net.model), networks.state(net.switcher)
    for _ in range(3):
        sl.switcher_step(net, x, y, SGD(net.switcher.parameters(), lr=0.1), cost=0.5)
    assert networks.same(before, networks.state(net.model))
    assert all(p.grad is None for p in net.model.parameters())
    after = networks.state(net.switcher)
    assert not networks.same(own, after)
    if switcher is UNET:
        assert any("running_mean" in name and not torch.equal(own[name], after[name]) for name in own)


def test_a_step_lowers_the_loss_that_it_returns():
    net = switched().train()
    split = networks.split()
    x, y = split.images, split.labels
    for step, optimizer in ((sl.task_step, SGD(net.model.parameters(), lr=0.05)),
                            (sl.switcher_step, SGD(net.switcher.parameters(), lr=0.05))):
        losses = [float(step(net, x, y, optimizer)) for _ in range(5)]
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_switcher_step_adds_the_weighted_cost():
    net = switched().train()
    split = networks.split()
    plain = net.switcher_loss(split.images, split.labels, F.cross_entropy)
    with_cost = net.switcher_loss(split.images, split.labels, F.cross_entropy, cost=3.0)
    assert with_cost.item() == pytest.approx(plain.item() + 3 * net.cost().item(), rel=1e-5)


def test_a_penalty_joins_the_task_networks_loss():
    class Penalised(sl.FreeGates):
        def penalty(self, params):
            return 7.0 * params["fc1.weight"].abs().sum()

    net = switched(switcher=Penalised).train()
    split = networks.split()
    loss = net.task_loss(split.images, split.labels, F.cross_entropy)
    expected = F.cross_entropy(net(split.images), split.labels) + 7 * net.model.fc1.weight.abs().sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_ones_own_loop_with_the_steps_is_fit():
    split = networks.split(40)
    one, other = switched(refresh=4), switched(refresh=4)
    fit(one, split, epochs=2, batch_size=8, every=2, schedule="constant", seed=5, switcher_optimizer=Adam)
    task, switch = SGD(other.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4), Adam(other.switcher.parameters())
    other.train()
    step = 0
    for epoch in range(2):
        for x, y in split.batches(8, generator=torch.Generator().manual_seed(5 * 1_000_003 + epoch)):
            sl.task_step(other, x, y, task)
            step += 1
            if step % 2 == 0:
                sl.switcher_step(other, x, y, switch)
    assert networks.same(networks.state(one), networks.state(other))


# -------- whose turn it is

def counted(monkeypatch):
    """Write down every step that fit takes: t for the task network, s for the switcher."""
    taken = []
    for name, letter in (("task_step", "t"), ("switcher_step", "s")):
        def step(*args, original=getattr(training, name), letter=letter, **kwargs):
            taken.append(letter)
            return original(*args, **kwargs)
        monkeypatch.setattr(training, name, step)
    return taken


@pytest.mark.parametrize("options, expected", [
    (dict(every=1), "ts" * 10),
    (dict(every=2), "tts" * 5),
    (dict(every=4), "tttts" * 2 + "tt"),           # counted across epochs
    (dict(every=100), "t" * 10),
    (dict(every="epoch"), ("t" * 5 + "s" * 5) * 2),
    (dict(every=1, warmup=1), "t" * 5 + "ts" * 5),
    (dict(every=1, warmup=2), "t" * 10),
    (dict(every=1, freeze=0.5), "ts" * 5 + "t" * 5),
    (dict(every="epoch", freeze=0.5), "t" * 5 + "s" * 5 + "t" * 5),
])
def test_every_warmup_and_freeze_say_whose_turn_it_is(options, expected, monkeypatch):
    taken = counted(monkeypatch)
    history = fit(switched(), networks.split(40), epochs=2, batch_size=8, **options)
    assert "".join(taken) == expected
    assert history.last["task_steps"] == 10 and history.last["switcher_steps"] == expected.count("s")


@pytest.mark.parametrize("switcher", ["random"])
def test_a_switcher_that_learns_nothing_gets_no_steps(switcher, monkeypatch):
    taken = counted(monkeypatch)
    fit(switched(switcher=switcher), networks.split(40), epochs=1, batch_size=8, every=1)
    assert "".join(taken) == "t" * 5


def test_factors_held_by_hand_stay_and_the_switcher_rests(monkeypatch):
    taken = counted(monkeypatch)
    net = switched()
    s = networks.factors(net.sites)
    net.hold(s)
    fit(net, networks.split(40), epochs=2, batch_size=8, every=1)
    assert "".join(taken) == "t" * 10 and torch.equal(net.factors()["fc1"], s["fc1"])


def test_warmup_is_the_task_network_alone_and_dense_training_is_the_same_steps():
    split = networks.split(40)
    net, dense = switched(refresh=4), networks.mlp((6, 8, 5, 3))
    fit(net, split, epochs=3, batch_size=8, warmup=3, seed=2)
    fit(dense, split, epochs=3, batch_size=8, seed=2)
    assert networks.same(networks.state(net.model), networks.state(dense))


def test_freezing_fixes_the_structure_while_the_task_network_goes_on():
    net = switched()
    seen = []
    fit(net, networks.split(40), epochs=4, batch_size=8, every=1, freeze=0.5,
        schedule=lambda t: seen.append((t, net.factors()["fc1"].clone(), net.model.fc1.weight.detach().clone())) or 1.0)
    frozen = [(s, w) for t, s, w in seen if t >= 0.5]
    moving = [s for t, s, w in seen if t < 0.5]
    assert all(torch.equal(s, frozen[0][0]) for s, _ in frozen) and not torch.equal(moving[0], moving[-1])
    assert not torch.equal(frozen[0][1], frozen[-1][1])
    assert net.held is not None


def test_progress_and_learning_rate_follow_the_schedule():
    seen, rates = [], []

    def recording(params):
        optimizer = SGD(params, lr=0.5)
        optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    fit(switched(), networks.split(40), epochs=2, batch_size=8, task_optimizer=recording,
        schedule=lambda t: seen.append(t) or 1 - t)
    assert seen == pytest.approx([i / 10 for i in range(10)])
    assert rates == pytest.approx([0.5 * (1 - i / 10) for i in range(10)])
    assert training.cosine(0) == 1 and training.cosine(0.5) == pytest.approx(0.5) and training.cosine(1) == pytest.approx(0)
    assert training.constant(0.7) == 1.0


def test_a_cost_function_is_asked_at_every_switcher_step():
    asked = []
    fit(switched(), networks.split(40), epochs=2, batch_size=8, every=2, cost=lambda t: asked.append(t) or 0.1)
    assert asked == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_the_cost_term_makes_a_network_smaller():
    def left(cost):
        net = switched(switcher="free")
        return fit(net, networks.split(60), epochs=6, batch_size=8, every=1, cost=cost,
                   switcher_optimizer=partial(Adam, lr=0.01)).last["parameters"]

    assert left(0.8) < left(0.0)


def test_a_run_ends_at_the_size_that_it_was_to_stop_at_and_stays_ended(tmp_path):
    how = dict(epochs=40, batch_size=8, every=1, cost=0.8, switcher_optimizer=partial(Adam, lr=0.01), stop_at=100, check_every=1)
    net = switched(switcher="free")
    history = fit(net, networks.split(60), checkpoint=tmp_path / "run.pt", **how)
    assert net.structure().parameters[1] == history.last["parameters"] <= 100 < history.records[-2]["parameters"]
    assert len(history.records) < 40
    assert 8 * (len(history.records) - 1) < history.last["task_steps"] < 8 * len(history.records)    # within an epoch
    again = switched(switcher="free")
    assert results(fit(again, networks.split(60), checkpoint=tmp_path / "run.pt", **how)) == results(history)
    assert networks.same(networks.state(net), networks.state(again))


def test_after_step_is_called_at_every_task_step():
    progress = []

    class Watching(sl.FreeGates):
        def after_step(self, net, t):
            progress.append((net, t))

    net = switched(switcher=Watching)
    fit(net, networks.split(40), epochs=2, batch_size=8)
    assert all(one is net for one, _ in progress)
    assert [t for _, t in progress] == pytest.approx([i / 10 for i in range(1, 11)]) and progress[-1][1] == 1


def test_records_tell_what_they_promise():
    data = sl.data.load("digits")
    net = sl.Switched(sl.models.lenet_300_100(widths=(12, 8)), data.example)
    history = fit(net, data, epochs=2, batch_size=128, every=2)
    assert [record["epoch"] for record in history.records] == [1, 2] and history.last is history.records[-1]
    steps = math.ceil(len(data.train) / 128)
    assert history.column("task_steps") == [steps, 2 * steps] and history.last["switcher_steps"] == 2 * steps // 2
    structure = net.structure()
    assert history.last["on"] == {key: on for key, (_, on) in structure.sites.items()}
    assert history.last["parameters"] == structure.parameters[1]
    found = sl.evaluate(net, data.validation)
    assert history.last["validation_accuracy"] == found.accuracy
    assert history.last["validation_loss"] == pytest.approx(found.loss) and history.last["seconds"] > 0
    assert history.last["task_loss"] < history.records[0]["task_loss"]
    assert "History of 2 epochs" in str(history) and str(training.History()) == "History of 0 epochs"
    assert "validation_loss" not in fit(net, data.train.subset(64), epochs=1).last


# -------- evaluation

def test_evaluation_is_in_eval_mode_with_the_factors_at_the_current_weights():
    split = networks.split(30, (2, 12, 12))
    net = with_norms(UNET)
    before = networks.state(net)
    result = sl.evaluate(net, split, batch_size=7)
    assert networks.same(before, networks.state(net)) and net.training and net.model.bn1.training
    net.eval()
    out = net(split.images)
    assert result.loss == pytest.approx(F.cross_entropy(out, split.labels).item(), rel=1e-5)
    assert result.accuracy == int((out.argmax(1) == split.labels).sum()) / 30 and result.size == 30
    assert result.error == pytest.approx(100 * (1 - result.accuracy))


def test_nothing_to_evaluate_or_to_learn_from_is_an_error():
    empty = sl.data.Split(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="split has no examples"):
        sl.evaluate(networks.mlp(), empty)
    with pytest.raises(DataError, match="data has no training examples"):
        fit(networks.mlp(), empty)


# -------- the same again

SETTINGS = [dict(), dict(refresh=4), dict(noise=0.3), dict(refresh=4, noise=0.3, switch_inputs=True),
            dict(switcher=UNET), dict(flow=True), dict(gate="relu_bn")]


@pytest.mark.parametrize("options", SETTINGS)
def test_the_same_seed_gives_the_same_result_bit_for_bit(options):
    runs = []
    for seed in (1, 1, 2):
        net = switched(**options)
        torch.manual_seed(99 + len(runs))    # whatever the global generator has been used for
        history = fit(net, networks.split(40), epochs=2, batch_size=8, every=2, seed=seed)
        runs.append((networks.state(net), results(history)))
    assert networks.same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert not networks.same(runs[0][0], runs[2][0])


def test_pytorchs_own_generator_is_left_as_it_was():
    net = switched(noise=0.5)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    fit(net, networks.split(40), epochs=1, batch_size=8)
    assert torch.equal(torch.rand(3), expected)


def test_seeding_everything_seeds_models_and_switchers():
    def draw():
        sl.seed_everything(3)
        return networks.state(sl.Switched(sl.models.lenet_300_100(widths=(5, 4)), networks.images(2)))

    assert networks.same(draw(), draw())
    for seed in (-1, 1.5, "0"):
        with pytest.raises(ValueError, match=f"seed={seed!r} must be an integer of at least 0"):
            sl.seed_everything(seed)


class Interrupted(Exception):
    pass


def interrupting(after, steps_per_epoch=5, epochs=6):
    """A schedule that breaks off in the middle of an epoch, once ``after`` epochs are done."""
    def schedule(t):
        if t * epochs >= after + 2 / steps_per_epoch - 1e-9:
            raise Interrupted
        return training.cosine(t)
    return schedule


def breaking_cost(after, epochs=6):
    def cost(t):
        if t * epochs >= after - 1e-9:
            raise Interrupted
        return 0.2 * t
    return cost


RESUMED = [
    (dict(refresh=4), dict(every=2)), (dict(refresh=3), dict(every=7)), (dict(), dict(every=2)), (dict(flow=True), dict(every=2)),
    (dict(refresh=4), dict(every=2, freeze=0.5)), (dict(refresh=4), dict(every=2, warmup=3)),
    (dict(), dict(every=2, warmup=2, freeze=0.34)), (dict(refresh=4), dict(every="epoch")), (dict(noise=0.3), dict(every="epoch")),
    (dict(switcher=UNET), dict(every=3)), (dict(gate="relu_bn", noise=0.1, switch_inputs=True), dict(every=2)),
]


@pytest.mark.parametrize("options, how, after", [(*run, 1 + i % 5) for i, run in enumerate(RESUMED)] + [
    (*RESUMED[6], after) for after in (1, 3, 4, 5)])
def test_a_resumed_run_equals_an_uninterrupted_one(options, how, after, tmp_path):
    split = networks.split(38)    # the last batch is a small one
    how = dict(epochs=6, batch_size=8, seed=3, **how)
    whole = switched(**options)
    history = fit(whole, split, **how)
    broken = switched(**options)
    with pytest.raises(Interrupted):
        fit(broken, split, checkpoint=tmp_path / "run.pt", schedule=interrupting(after), **how)
    fresh = switched(seed=8, model=networks.mlp((6, 8, 5, 3), seed=8), **options)
    for again in (broken, fresh):
        (tmp_path / "copy.pt").write_bytes((tmp_path / "run.pt").read_bytes())
        resumed = fit(again, split, checkpoint=tmp_path / "copy.pt", **how)
        assert networks.same(networks.state(whole), networks.state(again)) and results(resumed) == results(history)
        assert (whole.held is None) == (again.held is None)
        assert torch.equal(whole.eval()(split.images), again.eval()(split.images))


def test_a_run_that_broke_off_in_its_cost_function_resumes_too(tmp_path):
    split, how = networks.split(40), dict(epochs=6, batch_size=8, every="epoch")
    whole, broken = switched(refresh=4), switched(refresh=4)
    fit(whole, split, cost=lambda t: 0.2 * t, **how)
    with pytest.raises(Interrupted):
        fit(broken, split, cost=breaking_cost(3), checkpoint=tmp_path / "run.pt", **how)
    resumed = fit(broken, split, cost=lambda t: 0.2 * t, checkpoint=tmp_path / "run.pt", **how)
    assert networks.same(networks.state(whole), networks.state(broken)) and len(resumed.records) == 6


def test_a_dense_run_resumes_and_a_finished_one_is_read_back(tmp_path):
    split, how = networks.split(40), dict(epochs=6, batch_size=8)
    whole, broken = networks.mlp(), networks.mlp()
    history = fit(whole, split, **how)
    with pytest.raises(Interrupted):
        fit(broken, split, checkpoint=tmp_path / "a" / "run.pt", schedule=interrupting(2), **how)
    fit(broken, split, checkpoint=tmp_path / "a" / "run.pt", **how)
    assert networks.same(networks.state(whole), networks.state(broken))
    fresh = networks.mlp(seed=7)
    assert results(fit(fresh, split, checkpoint=tmp_path / "a" / "run.pt", **how)) == results(history)
    assert networks.same(networks.state(whole), networks.state(fresh))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["run.pt"]    # no half-written file is left


def test_images_are_augmented_by_name_or_by_function_and_stay_channels_last():
    split = networks.split(20, shape=(3, 8, 8)).to("cpu", torch.channels_last)
    states, layouts = [], []
    for augment in ("crop_flip", sl.data.crop_flip, None):
        net = networks.conv((3, 4, 5), side=8, padding=1)
        net.register_forward_pre_hook(lambda module, x: layouts.append(x[0].is_contiguous(memory_format=torch.channels_last)))
        fit(net, split, epochs=2, batch_size=8, augment=augment, seed=3)
        states.append(networks.state(net))
    assert networks.same(states[0], states[1]) and not networks.same(states[0], states[2])
    assert len(layouts) == 3 * 2 * 3 and all(layouts)


# -------- bad input

@pytest.mark.parametrize("options, words", [
    (dict(epochs=0), "epochs=0 must be an integer of at least 1"),
    (dict(epochs=1.5), "epochs=1.5"),
    (dict(batch_size=0), "batch_size=0 must be an integer of at least 1"),
    (dict(every=0), "every=0 must be 'epoch', 'joint' or a number of task steps of at least 1"),
    (dict(every=-3), "every=-3"),
    (dict(every="epochs"), "every='epochs'"),
    (dict(warmup=-1), "warmup=-1 must be an integer of at least 0"),
    (dict(warmup=3), "warmup=3 must not be more than epochs=2"),
    (dict(freeze=1.0), "freeze=1.0 must be a fraction in [0, 1)"),
    (dict(freeze=-0.1), "freeze=-0.1"),
    (dict(warmup=2, freeze=0.5), "warmup=2 and freeze=0.5 overlap"),
    (dict(stop_at=0), "stop_at=0 must be None or an integer of at least 1, in what the network's price counts"),
    (dict(cost=-0.5), "cost=-0.5 must be a number of at least 0"),
    (dict(cost=None), "cost=None must be a number"),
    (dict(seed=-1), "seed=-1 must be an integer of at least 0"),
    (dict(seed="a"), "seed='a'"),
    (dict(freeze="half"), "freeze='half' must be a fraction in [0, 1)"),
    (dict(epochs=3, freeze=0.1), "freeze=0.1 is half an epoch of epochs=3 or less: none would be frozen"),
    (dict(epochs=2, freeze=0.25), "freeze=0.25 is half an epoch of epochs=2 or less: none would be frozen"),
    (dict(epochs=3, freeze=0.9), "freeze=0.9 would freeze all of epochs=3: the switcher would never learn"),
    (dict(cost=float("nan")), "cost=nan"),
    (dict(precision="float16"), "precision='float16' is not a precision; did you mean 'bfloat16'? Known: auto, bfloat16, float32."),
    (dict(augment="crop"), "augment='crop' is not a way to augment; did you mean 'crop_flip'? Known: crop_flip."),
    (dict(schedule="cosin"), "schedule='cosin' is not a schedule; did you mean 'cosine'? Known: constant, cosine."),
])
def test_a_wrong_argument_is_named_with_its_value_before_anything_happens(options, words):
    net = switched()
    before = networks.state(net)
    with pytest.raises(ValueError) as caught:
        fit(net, networks.split(), **{"epochs": 2, **options})
    assert words in str(caught.value) and networks.same(before, networks.state(net))


@pytest.mark.parametrize("options, words", [
    (dict(schedule=0.5), "schedule is a float; it must be a function from progress"),
    (dict(task_optimizer=SGD([torch.zeros(1)], lr=0.1)), "task_optimizer is a SGD; it must be a function from parameters"),
    (dict(augment=True), "augment is a bool; it must be a function from images and a generator to images"),
    (dict(switcher_optimizer=3), "switcher_optimizer is a int; it must be a function from parameters"),
])
def test_what_should_have_been_a_function_is_named(options, words):
    with pytest.raises(TypeError) as caught:
        fit(switched(), networks.split(), epochs=1, **options)
    assert words in str(caught.value)


def test_a_wrapper_around_a_switched_network_is_not_taken_for_a_plain_one():
    net = switched()
    before = networks.state(net)
    with pytest.raises(TypeError, match="net is a DataParallel around a switched network, whose two networks it would train as one"):
        fit(nn.DataParallel(net), networks.split())
    assert networks.same(before, networks.state(net))


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_change():
    for net in (switched(), networks.mlp()):
        with pytest.raises(TrainingStopped) as caught:
            fit(net, networks.split(80), epochs=5, batch_size=8, task_optimizer=partial(SGD, lr=1e9))
        message = str(caught.value)
        assert "the loss is not finite" in message and "Lower the task network's learning rate" in message
        assert message.startswith("epoch ")


def test_a_nan_among_the_inputs_stops_the_run():
    split = networks.split(40)
    split.images[17, 2] = math.nan
    with pytest.raises(TrainingStopped, match="epoch 1, step 5: the loss is not finite"):
        fit(switched(), split, epochs=1, batch_size=8)


def test_a_nan_in_the_middle_of_a_long_epoch_is_found():
    split = networks.split(130)
    split.images[60, 0] = math.nan
    with pytest.raises(TrainingStopped, match="epoch 1, step (51|101|130)"):
        fit(switched(), split, epochs=1, batch_size=1, task_optimizer=partial(SGD, lr=0.0))


def test_a_collapsed_layer_stops_the_run_and_says_what_to_change():
    with pytest.raises(TrainingStopped) as caught:
        fit(switched(switcher=partial(sl.RowSwitcher, bias=-5.0)), networks.split(), epochs=1, cost=0.7)
    message = str(caught.value)
    assert "all 8 neurons of 'fc1' are switched off" in message
    for advice in ("lower cost (now 0.7)", "learning rate of the switcher", "starting bias", "bounded gate", "warm-up"):
        assert advice in message
    assert "epoch 1, step 1" in message


def test_a_cost_that_changes_is_told_as_it_is_then():
    with pytest.raises(TrainingStopped, match=r"lower cost \(now 0.25\)"):
        fit(switched(switcher=partial(sl.RowSwitcher, bias=-5.0)), networks.split(), epochs=1, cost=lambda t: 0.25 + t)


def test_a_layer_that_collapses_on_the_way_is_found():
    with pytest.raises(TrainingStopped, match="switched off"):
        fit(switched(switcher=partial(sl.FreeGates, spread=0.0)), networks.split(80), epochs=4, batch_size=8, every=1, cost=30.0,
            switcher_optimizer=partial(SGD, lr=0.5))
    with pytest.raises(TrainingStopped, match="switched off"):
        fit(switched(switcher=partial(sl.FreeGates, spread=0.0)), networks.split(80), epochs=1, batch_size=8, every="epoch",
            cost=30.0, switcher_optimizer=partial(SGD, lr=0.5))


@pytest.mark.parametrize("other", [
    dict(model=networks.mlp((6, 7, 5, 3))), dict(switcher="free"), dict(gate="relu"), dict(refresh=2), dict(noise=0.5),
    dict(model=networks.mlp((6, 8, 5, 3), act=nn.Tanh)),
])
def test_a_checkpoint_of_another_model_or_run_is_refused_and_changes_nothing(other, tmp_path):
    path, split = tmp_path / "run.pt", networks.split()
    fit(switched(), split, epochs=1, batch_size=8, checkpoint=path)
    net = switched(**other)
    before, file = networks.state(net), path.read_bytes()
    with pytest.raises(ValueError) as caught:
        fit(net, split, epochs=1, batch_size=8, checkpoint=path)
    assert "belongs to another model or run" in str(caught.value) and str(path) in str(caught.value)
    assert networks.same(before, networks.state(net)) and path.read_bytes() == file


@pytest.mark.parametrize("changed", [dict(epochs=2), dict(batch_size=4), dict(every=3), dict(seed=1), dict(cost=0.5),
                                     dict(check_every=7), dict(precision="bfloat16"), dict(augment="crop_flip")])
def test_a_checkpoint_of_another_setting_is_refused(changed, tmp_path):
    path, split, how = tmp_path / "run.pt", networks.split(), dict(epochs=1, batch_size=8, every=2, seed=0, cost=0.0)
    fit(switched(), split, checkpoint=path, **how)
    with pytest.raises(ValueError, match="belongs to another model or run"):
        fit(switched(), split, checkpoint=path, **{**how, **changed})


@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b"hello", lambda b: b[:-30]])
def test_a_truncated_checkpoint_is_named(damage, tmp_path):
    path, split = tmp_path / "run.pt", networks.split()
    fit(switched(), split, epochs=1, batch_size=8, checkpoint=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        fit(switched(), split, epochs=1, batch_size=8, checkpoint=path)
    assert f"checkpoint={str(path)!r} is not a readable checkpoint" in str(caught.value)
    assert "delete it to start again" in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"fingerprint": Trap(str(tmp_path / "sprung"))}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        fit(switched(), networks.split(), epochs=1, checkpoint=path)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_an_unlucky_draw_of_a_stochastic_gate_does_not_stop_training():
    for seed in range(8):    # most gates draw 0 at most steps, while in eval mode all are on
        sl.seed_everything(seed)
        net = sl.Switched(networks.mlp((6, 2, 3), seed=seed), torch.randn(2, 6), switcher=partial(sl.HardConcreteSwitcher, on=0.1))
        history = sl.fit(net, networks.split(400), epochs=1, every="joint", progress=False)
        assert history.last["task_steps"] == 7 and all(history.last["on"].values())


def test_a_cut_that_would_come_after_the_freeze_is_refused():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), switcher=partial(sl.MagnitudeSwitcher, budget=50))
    with pytest.raises(ValueError, match="freeze=0.25 fixes the structure after 3 of epochs=4, before"):
        sl.fit(net, networks.split(400), epochs=4, freeze=0.25, progress=False)
    half = sl.Switched(networks.mlp(), torch.randn(2, 6), switcher=partial(sl.MagnitudeSwitcher, budget=50, start=0.5, end=0.5))
    with pytest.raises(ValueError, match="after 2 of epochs=5"):    # half of five epochs, rounded
        sl.fit(half, networks.split(400), epochs=5, freeze=0.5, progress=False)
    assert sl.fit(half, networks.split(400), epochs=6, freeze=0.5, progress=False).last["parameters"] <= 50


def test_a_checkpoint_of_another_course_is_refused_and_names_what_is_another(tmp_path):
    def leaky(slope):
        return nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(slope), nn.Linear(5, 3))

    split = networks.split(40)
    other = sl.data.Split(split.images, split.labels.flip(0))

    def run(epochs=2, data=split, model=leaky(0.1), face="incoming", **options):
        net = sl.Switched(model, torch.randn(2, 6), switcher="free", face=face)
        return sl.fit(net, data, **{"epochs": epochs, "checkpoint": tmp_path / "run.pt", "progress": False, **options})

    run()
    for options, words in ((dict(schedule="constant"), "its schedule is cosine, this run's constant"),
                           (dict(task_optimizer=partial(SGD, lr=0.1)), "its task_optimizer, group 0, lr is 0.05, this run's 0.1"),
                           (dict(task_optimizer=Adam), "its task_optimizer is SGD, this run's Adam"),
                           (dict(switcher_optimizer=partial(Adam, lr=1e-2)), "its switcher_optimizer, group 0, lr is 0.001"),
                           (dict(data=other), r"its data \(digest\) is"), (dict(model=leaky(0.2)), r"its layers \(digest\) is"),
                           (dict(face="outgoing"), r"its sites \(digest\) is")):
        with pytest.raises(ValueError, match=f"belongs to another run: {words}"):
            run(**options)
    assert len(run(epochs=2).records) == 2

    older = torch.load(tmp_path / "run.pt", weights_only=True)    # as they were before they told of that
    del older["course"]
    torch.save(older, tmp_path / "run.pt")
    assert len(run(schedule="constant").records) == 2


def test_an_address_in_a_layers_name_is_no_other_layer(tmp_path):
    class Calls(nn.ReLU):
        def extra_repr(self):
            return str(lambda: None)

    for _ in range(2):
        net = sl.Switched(nn.Sequential(nn.Linear(6, 5), Calls(), nn.Linear(5, 3)), torch.randn(2, 6), switcher="free")
        assert len(fit(net, networks.split(40), epochs=1, checkpoint=tmp_path / "run.pt").records) == 1


def test_a_run_with_numpys_numbers_can_be_taken_up_again(tmp_path):
    def run(epochs):
        net = sl.Switched(networks.mlp(), torch.randn(2, 6), switcher="free")
        return sl.fit(net, networks.split(40), epochs=epochs, freeze=np.float64(0.5), cost=np.float64(0.1), progress=False,
                      checkpoint=tmp_path / "run.pt", task_optimizer=partial(SGD, lr=np.float64(0.05)))

    first = run(epochs=2)
    assert run(epochs=2).records == first.records


def test_data_without_a_validation_split_are_trained_on_to_the_end():
    split = networks.split(40, shape=(1, 2, 3))
    data = sl.data.from_tensors("mine", (split.images, split.labels), (split.images, split.labels), num_classes=3)
    history = sl.fit(nn.Sequential(nn.Flatten(), networks.mlp()), data, epochs=2, progress=False)
    assert len(data.validation) == 0 and len(history.records) == 2 and "validation_loss" not in history.last


def test_the_switcher_goes_where_the_model_is():
    told = []

    class Moved(sl.RowSwitcher):
        def to(self, *where):
            told.append(where)
            return super().to(*where)

    model = networks.mlp().double()
    sl.Switched(model, torch.randn(2, 6, dtype=torch.double), switcher=Moved)
    assert told == [(next(model.parameters()).device, torch.double)]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        sl.fit(networks.mlp(), networks.split(40), epochs=1, checkpoint=tmp_path / "run.pt", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_zeros_are_kept_where_some_layers_are_frozen():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    with torch.no_grad():
        for layer in model:
            layer.weight[0] = 0
    model[0].weight.requires_grad_(False)
    sl.training.keep_zeros(model)(torch.randn(4, 6)).square().sum().backward()
    assert model[0].weight.grad is None and not model[1].weight.grad[0].any() and model[1].weight.grad[1].any()


def test_a_checkpoint_of_another_budget_is_refused(tmp_path):
    for budget, refused in ((60, False), (50, True)):
        net = sl.Switched(networks.mlp(), torch.randn(2, 6), switcher=partial(sl.MagnitudeSwitcher, budget=budget))
        with pytest.raises(ValueError, match="another model or run") if refused else nullcontext():
            sl.fit(net, networks.split(400), epochs=1, checkpoint=tmp_path / "run.pt", progress=False)


def test_a_search_that_is_checked_seldom_runs_past_its_size():
    def task_steps(check_every):
        return fit(switched(switcher="free"), networks.split(400), epochs=40, batch_size=8, every=1, cost=0.8, stop_at=100,
                   switcher_optimizer=partial(Adam, lr=0.01), check_every=check_every).last["task_steps"]

    assert task_steps(1) < task_steps(40)
    with pytest.raises(ValueError, match="check_every=0 must be an integer of at least 1"):
        task_steps(0)


# -------- bfloat16

@pytest.mark.parametrize("every", [1, "epoch", "joint"])
def test_under_bfloat16_layers_are_rounded_and_switcher_and_parameters_are_not(every):
    net, seen = with_norms("row"), {"layer": set(), "scores": set()}
    data = sl.data.Split(torch.randn(16, 2, 12, 12), torch.randint(3, (16,)))
    net.model.conv2.register_forward_hook(lambda module, inputs, output: seen["layer"].add(output.dtype))
    net.switcher.gates["conv2"].register_forward_hook(lambda module, inputs, output: seen["scores"].add(inputs[0].dtype))
    fit(net, data, epochs=1, batch_size=8, every=every, precision="bfloat16")
    assert seen == {"layer": {torch.bfloat16}, "scores": {torch.float32}}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in net.model.parameters()} == {torch.float32}


def test_ones_own_loop_under_autocast_is_fit_under_bfloat16():
    data = sl.data.Split(torch.randn(16, 6), torch.randint(3, (16,)))
    one, other = switched(noise=0.3), switched(noise=0.3)
    fit(one, data, epochs=1, batch_size=8, every=1, schedule="constant", precision="bfloat16", seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3 * 1_000_003)
        task = SGD(other.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        switch = Adam(other.switcher.parameters(), lr=1e-3, fused=True)
        for x, y in data.batches(8, generator=torch.Generator().manual_seed(3 * 1_000_003)):
            other.train()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                sl.task_step(other, x, y, task)
                sl.switcher_step(other, x, y, switch)
    assert networks.same(networks.state(one), networks.state(other))


PROCESSORS = {    # what PyTorch tells of some, and what "auto" then is
    "AVX-512 with bfloat16": ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
    "AMX": ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
    "AVX2": ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
    "ARM": ({"architecture": "aarch64", "neon": True, "bf16": True}, "float32"),    # nobody has measured it
    "older PyTorch": (None, "float32"),
}


def on(monkeypatch, processor):
    """Let PyTorch tell of a processor what PROCESSORS says, and return what "auto" is there."""
    tells, auto = PROCESSORS[processor]
    if tells is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: tells, raising=False)
    return auto


def layers_under(precision, **more):
    """The dtypes that a layer's outputs had in a short fit."""
    model, seen = networks.mlp((6, 4, 3)), set()
    model[0].register_forward_hook(lambda module, inputs, output: seen.add(str(output.dtype).removeprefix("torch.")))
    fit(model, sl.data.Split(torch.randn(16, 6), torch.randint(3, (16,))), epochs=1, batch_size=8, precision=precision, **more)
    return seen


@pytest.mark.parametrize("processor", PROCESSORS)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(monkeypatch, processor):
    auto = on(monkeypatch, processor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layers_under("auto") == {auto} and layers_under("float32") == {"float32"}
        assert layers_under("bfloat16") == {"bfloat16"}, "slow or not, it is done"


def test_a_checkpoint_knows_what_auto_was(monkeypatch, tmp_path):
    on(monkeypatch, "AVX2")
    layers_under("auto", checkpoint=tmp_path / "run.pt")
    assert layers_under("float32", checkpoint=tmp_path / "run.pt") == set(), "the same run, which has ended"
    on(monkeypatch, "AMX")
    with pytest.raises(ValueError, match="precision"):
        layers_under("auto", checkpoint=tmp_path / "run.pt")
