"""Your own training goes on: what alternate learning adds to a loop, a LightningModule or several processes, in lines.

Each loop stands here twice, as text: before and after. Both are counted, then run.
"""

import ast
import copy
import difflib
import json
import os
import re
import sys
import time
from datetime import timedelta
from functools import partial

import networks
import pytest
import torch
import torch.multiprocessing
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib.switched import evaluating

MORE = 5    # what the library promises: at most that many lines more, and
REPLACED = 2    # at most that many of one's own replaced, but where an optimizer is stepped by hand: there each line around it

PLAIN_BEFORE = """
import torch
from torch.nn import functional as F

optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
"""

PLAIN_AFTER = """
import torch
import switcher_lib as sl
from torch.nn import functional as F

optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
model = sl.Switched(model, next(iter(loader))[0])
switch = torch.optim.Adam(model.switcher.parameters(), lr=0.003)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    sl.switcher_step(model, x, y, switch, cost=0.05)
small = sl.compact(model, x, optimizer=optimizer)
"""

PROCESSES_BEFORE = """
import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
model = DistributedDataParallel(model)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
"""

PROCESSES_AFTER = """
import torch
import switcher_lib as sl
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
net = sl.Switched(model, next(iter(loader))[0])
switch = torch.optim.Adam(net.switcher.parameters(), lr=0.003)
model = DistributedDataParallel(net, find_unused_parameters=True)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    sl.switcher_step(model, x, y, switch, cost=0.05)
small = sl.compact(net, x, optimizer=optimizer)
"""

LIGHTNING_BEFORE = """
import pytorch_lightning as L
import torch
from torch.nn import functional as F

class Classifier(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, i):
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.model.parameters(), lr=0.01)

module = Classifier(model)
trainer.fit(module, loader)
"""

# Lightning steps one optimizer by itself: the two networks are its two groups, and the one whose turn it is not has no gradient.
LIGHTNING_AFTER = """
import pytorch_lightning as L
import switcher_lib as sl
import torch
from torch.nn import functional as F

class Classifier(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, i):
        x, y = batch
        turn = ("task", "switcher")[i % 2]
        return self.model(x, y, F.cross_entropy, turn=turn, cost=0.05)

    def configure_optimizers(self):
        groups = [{"params": self.model.model.parameters()}, {"params": self.model.switcher.parameters(), "lr": 0.003}]
        return torch.optim.Adam(groups, lr=0.01)

model = sl.Switched(model, next(iter(loader))[0])
module = Classifier(model)
trainer.fit(module, loader)
small = sl.compact(model, next(iter(loader))[0])
"""

# Two optimizers are for manual optimization, with or without a switcher.
MANUAL_BEFORE = """
import pytorch_lightning as L
import torch
from torch.nn import functional as F

class Classifier(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.automatic_optimization = False

    def training_step(self, batch, i):
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.model(x), y))
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)

module = Classifier(model)
trainer.fit(module, loader)
"""

MANUAL_AFTER = """
import pytorch_lightning as L
import switcher_lib as sl
import torch
from torch.nn import functional as F

class Classifier(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.automatic_optimization = False

    def training_step(self, batch, i):
        x, y = batch
        for turn, optimizer in zip(("task", "switcher"), self.optimizers()):
            optimizer.zero_grad()
            self.manual_backward(self.model(x, y, F.cross_entropy, turn=turn, cost=0.05))
            optimizer.step()

    def configure_optimizers(self):
        task = torch.optim.SGD(self.model.model.parameters(), lr=0.05, momentum=0.9)
        return task, torch.optim.Adam(self.model.switcher.parameters(), lr=0.003)

model = sl.Switched(model, next(iter(loader))[0])
module = Classifier(model)
trainer.fit(module, loader)
optimizer = trainer.optimizers[0]
small = sl.compact(model, next(iter(loader))[0], optimizer=optimizer)
"""


# -------- counting

def compared(before, after):
    """How many lines ``after`` has more than ``before``, and how many it has replaced; blank lines do not count.

    In a diff, a replaced line is a ``-`` and a ``+``; what has a ``+`` only is one more. (5, 2) has seven ``+`` to read.
    A line that went elsewhere does not pay for one that came: each place is counted by itself.
    """
    old, new = ([line.rstrip() for line in text.splitlines() if line.strip()] for text in (before, after))
    more = replaced = 0
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            more += max(0, (m - k) - (j - i))
            replaced += min(j - i, m - k)
    return more, replaced


def crowded(text):
    """Line numbers that hold more than one statement: such a text would be counted as shorter than it is."""
    lines = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    return sorted(line for line in set(lines) if lines.count(line) > 1)


def test_the_readme_shows_the_loop_that_is_tested(root):
    assert f"```python{PLAIN_AFTER}```" in (root / "README.md").read_text()


def test_the_count_is_not_easily_fooled():
    assert compared("a\nb\nc", "a\nb\nc") == (0, 0)
    assert compared("a\nb\nc", "a\n\nX\nb\nY\nZ\nc\n") == (3, 0)
    assert compared("a\nb\nc", "a\nX\nc") == (0, 1)
    assert compared("a\nb\nc\nd\ne", "X\nY\na\nb\ne") == (2, 0)    # two that went at the end pay for nothing
    assert crowded("a = 1\nfor b in c: d = 1; e = 2\n") == [2] and crowded("a = 1\nb = 2\n") == []


@pytest.mark.parametrize("before, after, counted", [
    pytest.param(PLAIN_BEFORE, PLAIN_AFTER, (5, 0), id="plain"),
    pytest.param(PROCESSES_BEFORE, PROCESSES_AFTER, (5, 1), id="several processes"),
    pytest.param(LIGHTNING_BEFORE, LIGHTNING_AFTER, (5, 2), id="lightning"),
    pytest.param(MANUAL_BEFORE, MANUAL_AFTER, (5, 5), id="lightning, manual"),
])
def test_alternate_learning_and_compaction_cost_at_most_five_lines_more_and_two_replaced(before, after, counted):
    assert not crowded(after) and max(map(len, after.splitlines())) <= 130
    more, replaced = compared(before, after)
    assert (more, replaced) == counted and more <= MORE
    assert replaced <= REPLACED or after is MANUAL_AFTER


# -------- what the book shows

IN_THE_BOOK = [(PLAIN_BEFORE, PLAIN_AFTER), (PROCESSES_BEFORE, PROCESSES_AFTER), (LIGHTNING_BEFORE, LIGHTNING_AFTER)]
WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}


def shown(root):
    """(title, diff) for each diff in the chapter on switching one's own network: the heading or fold that it stands under."""
    chapter = root / "book" / "14-your-network.ipynb"
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    title, found = "", []
    for line, block in re.findall(r"^(?:(?:##+|`+\{dropdown\}) ([^\n]*)|```diff\n(.*?)^```)$", text, re.DOTALL | re.MULTILINE):
        if block:
            found.append((title, block))
        title = line or title
    return found


def without_marks(block):
    """What stood there before and what stands there after, of a text whose lines begin with their mark."""
    lines = [(line[:2], line[2:]) for line in block.splitlines() if line.strip()]
    assert {mark for mark, _ in lines} <= {"  ", "+ ", "- "}
    return tuple("\n".join(line for mark, line in lines if mark != other) for other in ("+ ", "- "))


def no_blank_lines(text):
    return "\n".join(line for line in text.splitlines() if line.strip())


def test_the_loops_in_the_book_are_the_ones_that_are_tested_here(root):
    blocks = [without_marks(block) for _, block in shown(root)]
    assert blocks == [tuple(map(no_blank_lines, pair)) for pair in IN_THE_BOOK]


@pytest.mark.parametrize("i, counted", [(0, (5, 0)), (1, (5, 1)), (2, (5, 2))], ids=["plain", "several processes", "lightning"])
def test_the_lines_that_the_book_says_are_those_of_its_diffs(root, i, counted):
    title, block = shown(root)[i]
    said = [WORDS[word] for word in re.findall("|".join(WORDS), title.lower())]
    marks = [line[0] for line in block.splitlines() if line.strip()]
    assert (*said, 0)[:2] == counted == (marks.count("+") - marks.count("-"), marks.count("-"))
    assert compared(*IN_THE_BOOK[i]) == counted


def test_a_changed_line_in_the_book_would_be_noticed():
    block = "  a\n- b\n+ c\n"
    assert without_marks(block) == ("a\nb", "a\nc")
    with pytest.raises(AssertionError):
        without_marks(block + "d e\n")


# -------- one process

WIDTHS = (6, 64, 32, 3)


def problem(seed=0, dtype=torch.float32, batch=16, steps=60):
    """A task network and batches that it can learn."""
    split = networks.split(128, seed=3)
    loader = [(split.images[i:i + batch].to(dtype), split.labels[i:i + batch]) for i in range(0, 128, batch)]
    torch.manual_seed(seed)
    return networks.mlp(WIDTHS, seed=seed).to(dtype), [loader[i % len(loader)] for i in range(steps)]


def run(text, dtype=torch.float32, **names):
    """Run a text with what it takes for granted; return all its names."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)    # of what the text makes itself
    try:
        exec(compile(text, "<the user's own>", "exec"), names)
    finally:
        torch.set_default_dtype(usual)
    return names


def mean_loss(model, loader):
    with torch.no_grad(), evaluating(model):
        return float(torch.stack([F.cross_entropy(model(x), y) for x, y in loader]).mean())


def check_that_it_learns(text, **names):
    """The task network learns; returns the names."""
    model, loader = problem()
    at_first = mean_loss(model, loader)
    whole = torch.utils.data.DataLoader(loader, batch_size=None, generator=torch.Generator())    # no draw from the global one
    after = run(text, model=model, loader=whole, **names)
    assert mean_loss(after["model"], loader) < 0.5 * at_first
    return after


def check_that_it_switches(after):
    """Factors have moved, some to 0, and what compaction leaves computes the same."""
    net = after["model"]
    total, alive = net.structure().parameters
    fresh = sl.Switched(problem()[0], torch.zeros(2, 6))
    assert fresh.structure().parameters == (total, total)
    assert 0.1 * total < alive < total
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(7))
    with torch.no_grad(), evaluating(net):
        torch.testing.assert_close(after["small"].model(x), net(x), rtol=1e-4, atol=1e-5)
    assert after["small"].certificate.holds and after["small"].parameters == (total, alive)


def check_that_training_goes_on(after, loader):
    """The sliced optimizer has the old one's momentum, in the folded coordinates, and goes on from there."""
    net, small, old = after["model"], after["small"], after["optimizer"]
    with torch.no_grad(), evaluating(net):
        s = net.factors()
        scale = net.scale({name: torch.ones_like(p) for name, p in net.params().items()}, s)
    layers = ["fc1", "fc2", "fc3"]
    on = [torch.ones(6, dtype=torch.bool), s["fc1"] != 0, s["fc2"] != 0, torch.ones(3, dtype=torch.bool)]
    for i, layer in enumerate(layers):
        weight = net.model.get_submodule(layer).weight
        expected = (old.state[weight]["momentum_buffer"] / scale[f"{layer}.weight"])[on[i + 1]][:, on[i]]
        kept = small.optimizer.state[small.model.get_submodule(layer).weight]["momentum_buffer"]
        assert kept.abs().max() > 0
        torch.testing.assert_close(kept, expected)
    begun = mean_loss(small.model, loader)
    x, y = loader[0]
    before = networks.state(small.model)
    for step in range(20):
        small.optimizer.zero_grad()
        F.cross_entropy(small.model.train()(x), y).backward()
        small.optimizer.step()
        if step == 0:
            without = small.model.fc2.weight.grad * -0.05    # what a new optimizer's first step would have been
            assert not torch.allclose(small.model.fc2.weight - before["fc2.weight"], without, rtol=1e-2)
    assert float(F.cross_entropy(small.model(x), y).detach()) < begun


def test_a_plain_loop_learns_by_turns_and_goes_on_after_compaction():
    check_that_it_learns(PLAIN_BEFORE)
    after = check_that_it_learns(PLAIN_AFTER)
    check_that_it_switches(after)
    check_that_training_goes_on(after, problem()[1])


def test_a_loop_without_switcher_steps_would_be_noticed():
    after = check_that_it_learns(PLAIN_AFTER.replace("    sl.switcher_step(model, x, y, switch, cost=0.05)\n", ""))
    with pytest.raises(AssertionError):
        check_that_it_switches(after)


# -------- Lightning

@pytest.fixture
def trainer():
    """Makes Trainers that write nothing."""
    L = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed: nothing to train under")
    return lambda: L.Trainer(max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)


quiet = pytest.mark.filterwarnings("ignore:.*(num_workers|log_every_n_steps|GPU available).*")


@quiet
def test_under_lightning_two_groups_of_one_optimizer_take_turns_and_training_goes_on_after_compaction(trainer):
    check_that_it_learns(LIGHTNING_BEFORE, trainer=trainer())
    after = check_that_it_learns(LIGHTNING_AFTER, trainer=trainer())
    check_that_it_switches(after)
    steps = [after["trainer"].optimizers[0].state[p]["step"].item() for p in after["model"].parameters()]
    assert set(steps) == {30}    # of 60: what has no gradient has not been stepped
    small, loader = after["small"], problem()[1]
    with pytest.raises(ValueError, match="no parameter of the task network"):    # one optimizer for both: a new one goes on
        sl.compact(after["model"], loader[0][0], optimizer=after["trainer"].optimizers[0])
    begun = mean_loss(small.model, loader)
    further = run(LIGHTNING_BEFORE, model=small.model.train(), loader=after["loader"], trainer=trainer())
    assert further["module"].model is small.model and mean_loss(small.model, loader) < 0.5 * begun


@quiet
def test_under_lightning_two_optimizers_take_turns_and_training_goes_on_after_compaction(trainer):
    check_that_it_learns(MANUAL_BEFORE, trainer=trainer())
    after = check_that_it_learns(MANUAL_AFTER, trainer=trainer())
    check_that_it_switches(after)
    check_that_training_goes_on(after, problem()[1])
    plain = check_that_it_learns(PLAIN_AFTER)    # the same batches, the same steps
    assert networks.same(networks.state(plain["model"]), networks.state(after["model"]))


# -------- several processes

PROCESSES = 2


def alternate(net, wrapped, loader, switcher_step=sl.switcher_step):
    """Turns in which the wrapped network is asked; returns its losses."""
    task = SGD(net.model.parameters(), lr=0.05, momentum=0.9)
    switch = Adam(net.switcher.parameters(), lr=0.003) if net.switcher.learns else None
    losses = []
    for x, y in loader:
        losses.append(float(sl.task_step(wrapped, x, y, task)))
        if switch:
            losses.append(float(switcher_step(wrapped, x, y, switch, cost=0.05)))
    return losses


def switcher_step_past_the_wrapper(wrapped, x, y, optimizer, cost):
    """What must not be done: the wrapper sees nothing of this loss."""
    optimizer.zero_grad()
    loss = wrapped.module.switcher_loss(x, y, F.cross_entropy, cost)
    loss.backward()
    optimizer.step()
    return loss.detach()


def snapshot(net):
    with torch.no_grad(), evaluating(net):
        return {"parameters": {name: p.detach().clone() for name, p in net.named_parameters()},
                "factors": {key: s.clone() for key, s in net.factors().items()}, "structure": net.structure().parameters}


OPTIONS = {    # every process starts with other weights and draws other numbers
    "hard concrete": dict(switcher="hard_concrete"),
    "noise": dict(noise=0.5, refresh=4),
    "flow": dict(flow=True),
    "random": dict(switcher="random"),
    "batch norm": dict(switcher=partial(sl.UNetSwitcher, channels=(2, 3), gate="relu_bn")),
}


def share(loader, rank, processes):
    """This process's part of every batch."""
    return [(x[rank::processes], y[rank::processes]) for x, y in loader]


def trained_on(model, optimizer, loader):
    """Steps of a loop that knows nothing of switching; returns the losses."""
    losses = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def work(rank, folder):
    """What each process does; its findings are left in the folder."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")    # needs no network, whatever the machine is called
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES,
                                   timeout=timedelta(seconds=200))    # a file: no port to be free or taken
    found = {}
    for name, text in (("before", PROCESSES_BEFORE), ("after", PROCESSES_AFTER)):
        model, loader = problem(seed=rank, dtype=torch.float64, steps=12)    # process 0's weights are what all begin with
        names = run(text, torch.float64, model=model, loader=share(loader, rank, PROCESSES))
        if name == "before":
            found[name] = networks.state(names["model"].module)
        else:
            small = names["small"]
            found[name] = snapshot(names["net"]) | {"small": networks.state(small.model)}
            trained_on(DistributedDataParallel(small.model), small.optimizer, share(loader, rank, PROCESSES))
            found[name]["trained on"] = networks.state(small.model)
    for name, options in OPTIONS.items():
        norm = name == "batch norm"
        loader = share([(networks.images(8, (2, 12, 12), seed=i), torch.arange(8) % 3) for i in range(4)]
                       if norm else problem(steps=8)[1], rank, PROCESSES)
        model = networks.conv(norm=True, seed=rank) if norm else networks.mlp(WIDTHS, seed=rank)    # seeds the draws, too
        net = sl.Switched(model, loader[0][0], **options)
        wrapped = DistributedDataParallel(net, find_unused_parameters=True)
        found[name] = {"losses": alternate(net, wrapped, loader), **snapshot(net)}
        found[name]["drawn"] = {key: s.detach() for key, s in net.factors().items()}
        found[name]["switcher's buffers"] = dict(net.switcher.named_buffers())
    net = sl.Switched(*at_start(rank))
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    alternate(net, wrapped, share(problem(steps=4)[1], rank, PROCESSES), switcher_step_past_the_wrapper)
    found["past the wrapper"] = snapshot(net)
    net = sl.Switched(*at_start(rank))
    try:
        alternate(net, DistributedDataParallel(net), share(problem(steps=4)[1], rank, PROCESSES))
        found["not told of unused parameters"] = ""
    except RuntimeError as error:
        found["not told of unused parameters"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def at_start(seed):
    torch.manual_seed(seed)
    return networks.mlp(WIDTHS, seed=seed), torch.zeros(2, 6)


def in_processes(target, folder, limit=300):
    """Run ``target(rank, folder)`` in processes of their own; none is left, whatever happens."""
    running = torch.multiprocessing.spawn(target, (str(folder),), nprocs=PROCESSES, join=False)
    end = time.monotonic() + limit
    try:
        while not running.join(timeout=1):    # raises what a process has raised
            if time.monotonic() > end:
                raise TimeoutError(f"{target.__name__} has not ended after {limit} s")
    finally:
        for process in running.processes:
            if process.is_alive():
                process.kill()
            process.join()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process has found."""
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("this PyTorch was built without gloo: nothing to connect processes on a CPU")
    folder = tmp_path_factory.mktemp("processes")
    in_processes(work, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


def test_two_processes_hold_the_same_networks_and_are_one_process_with_the_whole_batch_after_compaction_too(found):
    for text, name in ((PLAIN_BEFORE, "before"), (PLAIN_AFTER, "after")):
        model, loader = problem(dtype=torch.float64, steps=12)
        whole = run(text, torch.float64, model=model, loader=loader)
        if name == "before":
            assert networks.same(found[0][name], found[1][name])
            torch.testing.assert_close(found[0][name], networks.state(whole["model"]), rtol=0, atol=1e-12)
            continue
        one, other = found[0][name], found[1][name]
        expected = snapshot(whole["model"])
        for what in ("parameters", "factors"):
            assert networks.same(one[what], other[what])    # bit for bit
            torch.testing.assert_close(one[what], expected[what], rtol=0, atol=1e-10)
        assert one["structure"] == other["structure"] == expected["structure"]
        assert networks.same(one["small"], other["small"])
        small = whole["small"]
        torch.testing.assert_close(one["small"], networks.state(small.model), rtol=0, atol=1e-10)
        new = copy.deepcopy(small.model)
        losses = trained_on(small.model, small.optimizer, loader)
        assert networks.same(one["trained on"], other["trained on"]) and losses[-1] < losses[0]
        torch.testing.assert_close(one["trained on"], networks.state(small.model), rtol=0, atol=1e-10)
        trained_on(new, SGD(new.parameters(), lr=0.05, momentum=0.9), loader)
        with pytest.raises(AssertionError):    # without the momentum that came along
            torch.testing.assert_close(one["trained on"], networks.state(new), rtol=0, atol=1e-6)
        model = problem(dtype=torch.float64)[0]
        half = run(text, torch.float64, model=model, loader=share(loader, 0, PROCESSES))["model"]
        with pytest.raises(AssertionError):    # half of each batch would have led elsewhere
            torch.testing.assert_close(one["parameters"], snapshot(half)["parameters"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_random_numbers_do_not_make_processes_differ_in_structure(found, name):
    one, other = (each[name] for each in found)
    for what in ("parameters", "factors", "switcher's buffers"):
        assert networks.same(one[what], other[what])
    assert one["structure"] == other["structure"] and one["losses"] != other["losses"]
    assert networks.same(one["drawn"], other["drawn"]) == (name != "hard concrete")    # its draws do differ


def test_a_loss_that_passes_the_wrapper_by_would_be_noticed(found):
    one, other = (each["past the wrapper"] for each in found)
    assert not networks.same(one["parameters"], other["parameters"])


def test_a_wrapper_that_was_not_told_of_unused_parameters_says_so(found):
    assert all("find_unused_parameters=True" in each["not told of unused parameters"] for each in found)


def sleeps(rank, folder):
    time.sleep(600)


def test_processes_that_hang_are_ended(tmp_path):
    with pytest.raises(TimeoutError, match="sleeps has not ended after 2 s"):
        in_processes(sleeps, tmp_path, limit=2)
    assert torch.multiprocessing.active_children() == []
