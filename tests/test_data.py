"""Data sets: what they hold, where they come from, and what happens when they cannot be had."""

import contextlib
import gzip
import hashlib
import http.server
import itertools
import os
import pickle
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

import switcher_lib as sl
from switcher_lib import data
from switcher_lib.errors import DataError

REAL = Path(os.environ.get("SWITCHER_DATA") or "~/.cache/switcher_lib").expanduser()
needs_mnist = pytest.mark.skipif(not (REAL / "MNIST/raw/train-images-idx3-ubyte").is_file(),
                                 reason="the real MNIST is not in the data folder")
needs_cifar10 = pytest.mark.skipif(not (REAL / "cifar-10-batches-py/data_batch_1").is_file(),
                                   reason="the real CIFAR-10 is not in the data folder")
IMAGE = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32),
         "digits": (1, 28, 28), "digits_rgb": (3, 32, 32)}


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(data, "_failed", {})
    monkeypatch.delenv("SWITCHER_OFFLINE", raising=False)


@pytest.fixture
def no_network(monkeypatch):
    """Every connection and every look-up fails at once; the list holds what was tried."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def rows(split):
    """Every image as bytes, to compare splits as sets."""
    return [image.numpy().tobytes() for image in split.images]


def small(n=10, shape=(1, 4, 4), classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, *shape, generator=generator), torch.arange(n) % classes


# -------- what is loaded

@pytest.mark.parametrize("name", ["digits", "digits_rgb"])
def test_digits_need_no_network_and_no_folder(name, no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path / "never-made"))
    loaded = data.load(name)
    assert no_network == [] and not (tmp_path / "never-made").exists()
    assert (loaded.name, loaded.requested, loaded.is_stand_in) == (name, name, False)
    assert loaded.num_classes == len(loaded.classes) == 10
    assert loaded.example.shape == (2, *IMAGE[name]) and data.form(name) == (IMAGE[name], 10)
    for split in (loaded.train, loaded.validation, loaded.test):
        assert split.images.shape == (len(split), *IMAGE[name]) and split.images.dtype == torch.float32
        assert split.labels.shape == (len(split),) and split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))
    assert len(loaded.train) + len(loaded.validation) + len(loaded.test) == 1797


@pytest.mark.parametrize("name", ["digits", "digits_rgb"])
def test_two_loads_are_equal_bit_for_bit(name):
    np.random.seed(5), torch.manual_seed(5)
    first = data.load(name)
    np.random.seed(6), torch.manual_seed(6)
    second = data.load(name)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(first, split).images, getattr(second, split).images)
        assert torch.equal(getattr(first, split).labels, getattr(second, split).labels)


def test_digits_keep_their_labels_through_shuffling_and_splitting():
    from sklearn.datasets import load_digits
    bunch = load_digits()
    loaded = data.load("digits")
    images = torch.cat([loaded.full_train.images, loaded.test.images])
    labels = torch.cat([loaded.full_train.labels, loaded.test.labels])
    ink = (images * loaded.std[0] + loaded.mean[0])[:, 0, 4:24, 4:24].reshape(-1, 400)
    # the mean ink of a class is the same however its images are ordered
    for digit in range(10):
        original = bunch.images[bunch.target == digit].mean() / 16
        assert ink[labels == digit].mean() == pytest.approx(original, abs=0.02)
        assert int((labels == digit).sum()) == int((bunch.target == digit).sum())
    order = np.array([bunch.images[bunch.target == digit].mean() for digit in range(10)]).argsort()
    ours = np.array([float(ink[labels == digit].mean()) for digit in range(10)]).argsort()
    assert order.tolist() == ours.tolist()


def test_digits_have_mnists_frame_of_four_black_pixels():
    loaded = data.load("digits")
    pixels = loaded.train.images * loaded.std[0] + loaded.mean[0]
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[4:24, 4:24] = False
    assert pixels[:, 0, frame].abs().max() < 1e-6
    assert pixels.max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", ["digits", "digits_rgb"])
def test_only_the_training_split_sets_the_scale(name):
    loaded = data.load(name)
    assert loaded.train.images.mean((0, 2, 3)).abs().max() < 1e-5
    assert (loaded.train.images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert loaded.test.images.mean((0, 2, 3)).abs().max() > 1e-4
    assert loaded.validation.images.mean((0, 2, 3)).abs().max() > 1e-4
    assert len(loaded.mean) == len(loaded.std) == IMAGE[name][0]


def test_splits_share_no_image_and_lose_none():
    loaded = data.load("digits_rgb", validation=300)
    train, validation, test = map(rows, (loaded.train, loaded.validation, loaded.test))
    assert len(validation) == 300
    assert len({*train, *validation, *test}) == len(train) + len(validation) + len(test) == 1797


def test_full_train_is_train_then_validation_in_the_same_memory():
    loaded = data.load("digits")
    full = loaded.full_train
    assert torch.equal(full.images, torch.cat([loaded.train.images, loaded.validation.images]))
    assert torch.equal(full.labels, torch.cat([loaded.train.labels, loaded.validation.labels]))
    assert full.images.data_ptr() == loaded.train.images.data_ptr()


def test_a_larger_validation_split_holds_the_smaller_one():
    def held_out(n):
        loaded = data.load("digits", validation=n)
        pixels = (loaded.validation.images * loaded.std[0] + loaded.mean[0]) * 255
        return {image.round().to(torch.uint8).numpy().tobytes() for image in pixels}
    assert held_out(50) < held_out(200)
    assert len(data.load("digits", validation=0).validation) == 0


@needs_mnist
def test_mnist_is_torchvisions_in_three_splits():
    started = time.perf_counter()
    loaded = data.load("mnist")
    assert time.perf_counter() - started < 10              # 0.3 s alone; the limit only catches a slow path
    assert not loaded.is_stand_in and loaded.name == "mnist"
    assert data.form("mnist") == (tuple(loaded.example.shape[1:]), loaded.num_classes)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (55_000, 5_000, 10_000)
    assert len(loaded.full_train) == 60_000
    assert loaded.mean[0] == pytest.approx(0.1307, abs=5e-4)
    assert loaded.std[0] == pytest.approx(0.3081, abs=5e-4)
    theirs = datasets.MNIST(str(REAL), train=False)
    pixels = (loaded.test.images * loaded.std[0] + loaded.mean[0]) * 255
    assert torch.equal(pixels.round().to(torch.uint8)[:, 0], theirs.data)
    assert torch.equal(loaded.test.labels, theirs.targets)
    train = datasets.MNIST(str(REAL), train=True)
    pixels = ((loaded.full_train.images * loaded.std[0] + loaded.mean[0]) * 255).round().to(torch.uint8)[:, 0]
    order = np.random.RandomState(0).permutation(60_000)   # the documented order
    assert torch.equal(pixels, train.data[order])
    assert torch.equal(loaded.full_train.labels, train.targets[order])


@needs_cifar10
def test_cifar10_is_torchvisions_in_channels_first():
    loaded = data.load("cifar10", validation=1_000)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (49_000, 1_000, 10_000)
    assert loaded.classes[3] == "cat" and loaded.example.shape == (2, 3, 32, 32) and data.form("cifar10") == ((3, 32, 32), 10)
    theirs = datasets.CIFAR10(str(REAL), train=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (loaded.mean, loaded.std))
    pixels = ((loaded.test.images[:100] * std + mean) * 255).round().to(torch.uint8)
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), theirs.data[:100])
    assert loaded.test.labels.tolist() == theirs.targets


@pytest.mark.parametrize("name, near", [("mnsit", "mnist"), ("cifar-10", "cifar10"), ("digit", "digits")])
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"name='{name}' is not a data set; did you mean '{near}'"):
        data.load(name)
    with pytest.raises(ValueError, match=f"name='{name}' is not a data set; did you mean '{near}'"):
        data.form(name)


def test_cifar100_is_read_as_torchvision_lays_it_out_and_a_network_learns_its_hundred_classes(tmp_path, monkeypatch, no_network):
    assert data.form("cifar100") == ((3, 32, 32), 100)
    rng, names = np.random.default_rng(0), [f"class {i}" for i in range(100)]
    whole = {name: {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), "fine_labels": [i % 100 for i in range(n)]}
             for name, n in (("train", 220), ("test", 100))}
    folder, lists = tmp_path / datasets.CIFAR100.base_folder, {}
    folder.mkdir()
    for name, content in {**whole, "meta": {"fine_label_names": names}}.items():    # two hundred images in the layout of sixty thousand
        (folder / name).write_bytes(pickle.dumps(content))
        lists[name] = [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [lists["train"]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [lists["test"]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": lists["meta"][1]})

    loaded = data.load("cifar100", root=tmp_path, validation=20)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (200, 20, 100)
    assert loaded.num_classes == 100 and loaded.classes[7] == "class 7" and not loaded.is_stand_in and not no_network
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (loaded.mean, loaded.std))
    pixels = ((loaded.test.images * std + mean) * 255).round().to(torch.uint8)
    assert np.array_equal(pixels.numpy().reshape(100, 3072), whole["test"]["data"])
    assert loaded.test.labels.tolist() == whole["test"]["fine_labels"]

    net = sl.Switched(sl.models.make("resnet_20", num_classes=loaded.num_classes), loaded.example)
    history = sl.fit(net, loaded.train, epochs=1, batch_size=100, every=1, progress=False)
    assert net(loaded.example).shape == (2, 100) and history.last["switcher_steps"] == 2
    (folder / "train").write_bytes(b"something else")
    with pytest.raises(DataError, match="its MD5 is"):
        data.load("cifar100", root=tmp_path, validation=20)


@pytest.mark.parametrize("name", ["mnist", "digits"])
@pytest.mark.parametrize("validation", [-1, 60_000, 2.5, True, "5000"])
def test_a_validation_split_out_of_range_is_named(name, validation, no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"validation={validation!r}"):
        data.load(name, validation=validation)


def test_digits_refuse_to_hold_out_every_image():
    with pytest.raises(ValueError, match="validation=1437 must be smaller than 1437"):
        data.load("digits", validation=1437)
    assert len(data.load("digits", validation=1436).train) == 1


# -------- batches

def test_shuffled_batches_hold_every_image_once_with_its_label():
    images, labels = small(103)
    split = data.Split(images, labels)
    of = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels)}
    batches = list(split.batches(10, generator=torch.Generator().manual_seed(0)))
    assert [len(x) for x, _ in batches] == [10] * 10 + [3]
    seen = [(x.numpy().tobytes(), int(y)) for bx, by in batches for x, y in zip(bx, by)]
    assert len(seen) == 103 and dict(seen) == of
    assert [x for x, _ in seen] != list(of)


def test_without_a_generator_batches_keep_the_order():
    images, labels = small(25)
    batches = list(data.Split(images, labels).batches(10))
    assert torch.equal(torch.cat([x for x, _ in batches]), images)
    assert torch.equal(torch.cat([y for _, y in batches]), labels)


def test_drop_last_drops_only_an_incomplete_batch():
    sizes = [[len(y) for _, y in data.Split(*small(n)).batches(10, drop_last=True)] for n in (25, 20, 9)]
    assert sizes == [[10, 10], [10, 10], []]


def test_the_generator_alone_decides_the_order():
    split = data.Split(*small(50))

    def order(seed):
        torch.manual_seed(time.perf_counter_ns() % 1000)
        return torch.cat([x for x, _ in split.batches(7, generator=torch.Generator().manual_seed(seed))])
    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


def test_augment_sees_whole_batches_and_the_generator():
    calls = []

    def augment(images, generator):
        calls.append((len(images), generator))
        return images + 100
    generator = torch.Generator().manual_seed(0)
    out = list(data.Split(*small(25)).batches(10, generator=generator, augment=augment))
    assert calls == [(10, generator), (10, generator), (5, generator)]
    assert min(x.min() for x, _ in out) > 50


@pytest.mark.parametrize("batch_size", [0, -3, 2.0, True, None])
def test_a_wrong_batch_size_is_named_at_once(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size!r}"):
        data.Split(*small()).batches(batch_size)


def test_channels_last_stays_through_batches_and_augmentation():
    split = data.Split(*small(20, (3, 8, 8))).to("cpu", torch.channels_last)
    for augment in (None, data.crop_flip):
        for x, _ in split.batches(6, generator=torch.Generator().manual_seed(0), augment=augment):
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_subset_is_the_first_images_and_its_size_is_checked():
    split = data.Split(*small(20))
    assert torch.equal(split.subset(7).images, split.images[:7])
    assert torch.equal(split.subset(20).labels, split.labels)
    for n in (0, 21, 2.0):
        with pytest.raises(ValueError, match=f"n={n!r} must be an integer from 1 to 20"):
            split.subset(n)


# -------- augmentation

def windows(image, padding, flip):
    """Every image that a shift and a flip can make of one: the naive loop."""
    c, h, w = image.shape
    framed = torch.zeros(c, h + 2 * padding, w + 2 * padding)
    framed[:, padding:padding + h, padding:padding + w] = image
    for top, left, mirror in itertools.product(range(2 * padding + 1), range(2 * padding + 1), (False, True)):
        if flip or not mirror:
            cut = framed[:, top:top + h, left:left + w]
            yield (top, left, mirror), torch.stack([row.flip(-1) for row in cut]) if mirror else cut


@pytest.mark.parametrize("shape, padding, flip", [
    ((3, 5, 7), 2, True), ((1, 6, 4), 1, False), ((2, 4, 4), 0, True)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_crop_flip_makes_what_the_naive_loop_makes(shape, padding, flip, layout):
    images, _ = small(400, shape)
    before = images.clone()
    out = data.crop_flip(images.to(memory_format=layout), torch.Generator().manual_seed(0), padding, flip)
    drawn = []
    for image, made in zip(images, out):
        matches = [which for which, cut in windows(image, padding, flip) if torch.equal(cut, made)]
        assert len(matches) == 1
        drawn += matches
    possible = (2 * padding + 1) ** 2 * (2 if flip else 1)
    assert len(set(drawn)) == possible                     # every shift and flip occurs,
    assert max(map(drawn.count, set(drawn))) < 3 * 400 / possible + 10     # none takes over
    assert torch.equal(images, before)


def test_crop_flip_is_decided_by_its_generator():
    images, _ = small(30, (3, 8, 8))
    one, same, other = (data.crop_flip(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    torch.manual_seed(3)
    first = data.crop_flip(images)
    torch.manual_seed(3)
    assert torch.equal(first, data.crop_flip(images))


def test_crop_flip_names_what_it_cannot_use():
    with pytest.raises(ValueError, match="padding=-1"):
        data.crop_flip(small()[0], padding=-1)
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        data.crop_flip(small()[0][0])


# -------- when the real set cannot be had

@pytest.mark.parametrize("name, title, used", [
    ("mnist", "MNIST", "digits"), ("fashion_mnist", "Fashion-MNIST", "digits"),
    ("cifar10", "CIFAR-10", "digits_rgb"), ("cifar100", "CIFAR-100", "digits_rgb")])
def test_with_no_network_a_stand_in_of_that_shape_says_so(name, title, used, no_network, tmp_path, recwarn):
    loaded = data.load(name, root=tmp_path)
    assert no_network
    assert (loaded.name, loaded.requested, loaded.is_stand_in) == (used, name, True)
    assert loaded.example.shape == (2, *IMAGE[name]) and loaded.num_classes == 10
    assert torch.equal(loaded.test.labels, data.load(used).test.labels)
    for shown in (str(loaded), repr(loaded), loaded._repr_html_()):
        assert f"Real {title} could not be had" in shown and f"this page runs on {used}" in shown
        assert "Network is unreachable" in shown
        assert str(tmp_path) not in shown                  # no path of this machine on a page
    assert 'role="note"' in loaded._repr_html_()
    assert not [w for w in recwarn if w.category is UserWarning]
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_set_shows_a_table_and_no_box():
    loaded = data.load("digits")
    for shown in (str(loaded), loaded._repr_html_()):
        assert "could not be had" not in shown and "1,317" in shown and "1×28×28" in shown
    assert "<table" in loaded._repr_html_() and 'role="note"' not in loaded._repr_html_()


def test_a_reason_cannot_break_the_page(monkeypatch, tmp_path):
    monkeypatch.setitem(data._failed, ("mnist", str(tmp_path)), "<b>&")
    assert "(&lt;b&gt;&amp;)" in data.load("mnist", root=tmp_path)._repr_html_()


def test_without_stand_in_an_absent_set_is_an_error(no_network, tmp_path):
    with pytest.raises(DataError, match="MNIST could not be had .*Network is unreachable.*stand_in=True"):
        data.load("mnist", root=tmp_path, stand_in=False)


def test_a_failed_download_is_tried_once_in_a_process(no_network, tmp_path):
    data.load("mnist", root=tmp_path)
    asked = len(no_network)
    assert asked > 0
    again = data.load("mnist", root=tmp_path)
    assert len(no_network) == asked and "Network is unreachable" in again.reason


def test_offline_is_not_tried_at_all(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHER_OFFLINE", "1")
    assert "SWITCHER_OFFLINE is set" in data.load("mnist", root=tmp_path).reason
    assert no_network == []
    monkeypatch.setenv("SWITCHER_OFFLINE", "0")
    data.load("mnist", root=tmp_path)
    assert no_network != []


def test_a_stand_in_holds_out_the_same_fraction(no_network, tmp_path):
    assert len(data.load("mnist", root=tmp_path).validation) == 120      # 1437 · 5000 / 60000, up
    assert len(data.load("mnist", root=tmp_path, validation=30_000).validation) == 719
    assert len(data.load("mnist", root=tmp_path, validation=0).validation) == 0
    assert len(data.load("mnist", root=tmp_path, validation=59_999).train) == 1


def test_a_data_folder_that_cannot_be_written_gives_a_stand_in(no_network, monkeypatch, tmp_path):
    def read_only(*args, **kwargs):                        # chmod does not bind root
        raise OSError(30, "Read-only file system", str(tmp_path))
    monkeypatch.setattr(data.tempfile, "mkdtemp", read_only)
    loaded = data.load("mnist", root=tmp_path)
    assert loaded.is_stand_in and "cannot be written: Read-only file system" in loaded.reason
    assert no_network == [] and str(tmp_path) not in loaded.reason


@pytest.mark.parametrize("value", ["a-file", "a-file/below"])
def test_switcher_data_that_cannot_be_a_folder_is_named(value, monkeypatch, tmp_path):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path / value))
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    assert f"SWITCHER_DATA={str(tmp_path / value)!r}" in str(caught.value)
    with pytest.raises(DataError, match="root="):
        data.load("mnist", root=tmp_path / value)


def test_switcher_data_that_is_not_there_is_made(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path / "new" / "folder"))
    assert data.load("mnist").is_stand_in
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_default_folder_that_cannot_be_made_gives_a_stand_in(monkeypatch, tmp_path):
    (tmp_path / ".cache").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SWITCHER_DATA", "")
    assert "default data folder cannot be made" in data.load("mnist").reason


# -------- damaged files, and downloads from a server of our own

SIZES = {"train-images-idx3-ubyte": (6, 28, 28), "train-labels-idx1-ubyte": (6,),
         "t10k-images-idx3-ubyte": (3, 28, 28), "t10k-labels-idx1-ubyte": (3,)}


def idx_files():
    """A tiny set in MNIST's format, {file: bytes}."""
    random = np.random.RandomState(0)
    return {file: bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            + random.randint(10, size=shape).astype(np.uint8).tobytes() for file, shape in SIZES.items()}


@pytest.fixture
def tiny(monkeypatch):
    """MNIST and Fashion-MNIST shrunk to nine images; only MNIST's unpacked MD5s are known."""
    files = idx_files()
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    packed = {f"{file}.gz": gzip.compress(content, mtime=0) for file, content in files.items()}
    resources = [(file, hashlib.md5(content).hexdigest()) for file, content in packed.items()]
    monkeypatch.setattr(data, "_IDX_FILES", SIZES)
    monkeypatch.setattr(data, "_IDX_MD5", {"mnist": md5})
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return files, packed


def place(root, files, dataset="MNIST"):
    raw = root / dataset / "raw"
    raw.mkdir(parents=True)
    for file, content in files.items():
        (raw / file).write_bytes(content)
    return raw


@contextlib.contextmanager
def server(answer):
    """Serve ``answer(path) -> bytes | None`` on this machine and yield (address, paths asked for)."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.reply(body=False)

        def do_GET(self):
            asked.append(self.path)
            self.reply(body=True)

        def reply(self, body):
            content = answer(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content:
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize("name, dataset", [
    ("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)])
def test_a_download_is_checked_kept_and_not_repeated(name, dataset, tiny, monkeypatch, tmp_path):
    files, packed = tiny
    with server(lambda path: packed.get(path.strip("/"))) as (address, asked):
        monkeypatch.setattr(dataset, "mirrors", [address])
        loaded = data.load(name, root=tmp_path, validation=2)
        assert not loaded.is_stand_in and len(set(asked)) == 4
        assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 2, 3)
        before = len(asked)
        again = data.load(name, root=tmp_path, validation=2)
        assert len(asked) == before and torch.equal(again.train.images, loaded.train.images)
    raw = tmp_path / dataset.__name__ / "raw"
    kept = {path.name for path in raw.iterdir()}
    assert kept == {*files, *(["MD5SUMS"] if name == "fashion_mnist" else [])}
    assert [path.name for path in tmp_path.iterdir()] == [dataset.__name__]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("dataset, name", [("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist")])
def test_one_changed_pixel_is_found_after_a_download(dataset, name, tiny, monkeypatch, tmp_path):
    _, packed = tiny
    with server(lambda path: packed.get(path.strip("/"))) as (address, _):
        monkeypatch.setattr(getattr(datasets, dataset), "mirrors", [address])
        data.load(name, root=tmp_path, validation=2)
    path = tmp_path / dataset / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged.*Delete it"):
        data.load(name, root=tmp_path, validation=2)


@pytest.mark.parametrize("dataset, name", [("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist")])
@pytest.mark.parametrize("file", SIZES)
@pytest.mark.parametrize("damage", [
    lambda b: b[:-1], lambda b: b"", lambda b: b + b"x", lambda b: b"\1" + b[1:]])
def test_a_half_written_file_is_named_and_never_used(dataset, name, file, damage, tiny, no_network, tmp_path):
    files, _ = tiny
    raw = place(tmp_path, {**files, file: damage(files[file])}, dataset)
    with pytest.raises(DataError) as caught:
        data.load(name, root=tmp_path, validation=2)
    assert str(raw / file) in str(caught.value) and "Delete it" in str(caught.value)
    assert no_network == []                                # neither replaced nor stood in for
    (raw / file).write_bytes(files[file])
    assert not data.load(name, root=tmp_path, validation=2).is_stand_in


@needs_cifar10
@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_a_changed_cifar_file_is_never_unpickled(file, monkeypatch, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for path in (REAL / "cifar-10-batches-py").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / file).unlink()
    (folder / file).write_bytes((REAL / "cifar-10-batches-py" / file).read_bytes()[:-100])
    monkeypatch.setattr("pickle.load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(DataError, match=f"{file} is damaged"):
        data.load("cifar10", root=tmp_path)


def test_a_file_that_cannot_be_read_is_named(tiny, tmp_path):
    files, _ = tiny
    for dataset, name in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist")):
        raw = place(tmp_path, files, dataset)
        (raw / "t10k-labels-idx1-ubyte").unlink()
        (raw / "t10k-labels-idx1-ubyte").mkdir()
        with pytest.raises(DataError, match="t10k-labels-idx1-ubyte cannot be read"):
            data.load(name, root=tmp_path, validation=2)


def test_a_set_with_a_file_missing_is_completed_by_a_download(tiny, monkeypatch, tmp_path):
    files, packed = tiny
    raw = place(tmp_path, {k: v for k, v in files.items() if k != "t10k-labels-idx1-ubyte"})
    with monkeypatch.context() as patch:
        patch.setenv("SWITCHER_OFFLINE", "1")
        assert "t10k-labels-idx1-ubyte is missing" in data.load("mnist", root=tmp_path).reason
    with server(lambda path: packed.get(path.strip("/"))) as (address, _):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        assert not data.load("mnist", root=tmp_path, validation=2).is_stand_in
    assert (raw / "t10k-labels-idx1-ubyte").read_bytes() == files["t10k-labels-idx1-ubyte"]


@pytest.mark.parametrize("broken", ["cut", "changed", "gone"])
def test_a_download_that_breaks_leaves_nothing_behind(broken, tiny, monkeypatch, tmp_path):
    _, packed = tiny

    def answer(path):
        content = packed.get(path.strip("/"))
        if "t10k-labels" in path:                          # the last of the four
            return {"cut": content[:-5], "changed": content[:-1] + b"?", "gone": None}[broken]
        return content
    with server(answer) as (address, asked):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        loaded = data.load("mnist", root=tmp_path)
        assert asked
    assert loaded.is_stand_in and "the download failed" in loaded.reason
    assert str(tmp_path) not in loaded.reason
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_what_arrives_unpacked_is_checked_too(tiny, monkeypatch, tmp_path):
    """Packed MD5s right, unpacked ones not what they are known to be."""
    files, packed = tiny
    monkeypatch.setattr(data, "_IDX_MD5", {"mnist": dict.fromkeys(files, "0" * 32)})
    with server(lambda path: packed.get(path.strip("/"))) as (address, _):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        loaded = data.load("mnist", root=tmp_path)
    assert "what arrived is damaged" in loaded.reason and list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_without_a_path(monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "part"))
    monkeypatch.setattr(data, "_within", full)
    reason = data.load("mnist", root=tmp_path).reason
    assert "No space left on device" in reason and str(tmp_path) not in reason


def test_an_interrupted_download_leaves_nothing_behind(tiny, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(data, "_within", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("mnist", root=tmp_path)
    assert list(tmp_path.iterdir()) == [] and data._failed == {}


def test_a_server_that_never_answers_costs_no_more_than_the_time_out(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:         # accepts, says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address, address])
        monkeypatch.setattr(data, "ANSWER_WITHIN", 1.0)
        started = time.perf_counter()
        loaded = data.load("mnist", root=tmp_path)
        assert loaded.is_stand_in and time.perf_counter() - started < 5
        started = time.perf_counter()
        data.load("mnist", root=tmp_path)
        assert time.perf_counter() - started < 0.8


def test_a_name_look_up_that_hangs_is_cut_off(monkeypatch, tmp_path):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(30))
    monkeypatch.setattr(data, "ANSWER_WITHIN", 0.5)
    started = time.perf_counter()
    loaded = data.load("cifar10", root=tmp_path)
    took = time.perf_counter() - started
    release.set()
    assert took < 5 and "no answer within 0.5 s" in loaded.reason


def test_a_download_that_falls_silent_is_given_up(tiny, monkeypatch, tmp_path):
    _, packed = tiny
    release = threading.Event()

    def answer(path):
        if "t10k-labels" in path:
            release.wait(5)
        return packed.get(path.strip("/"))
    with server(answer) as (address, _):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(data, "SILENT_FOR", 0.5)
        started = time.perf_counter()
        loaded = data.load("mnist", root=tmp_path)
        took = time.perf_counter() - started
        release.set()
    assert loaded.is_stand_in and "timed out" in loaded.reason and took < 10


def test_the_second_mirror_is_asked_when_the_first_is_gone(tiny, monkeypatch, tmp_path):
    _, packed = tiny
    with server(lambda path: packed.get(path.strip("/"))) as (address, _):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address + "gone/", address])
        assert not data.load("mnist", root=tmp_path, validation=2).is_stand_in


def test_a_first_mirror_that_never_answers_leaves_time_for_the_second(tiny, monkeypatch, tmp_path):
    _, packed = tiny
    monkeypatch.setattr(data, "ANSWER_WITHIN", 2.0)
    monkeypatch.setattr(data, "SILENT_FOR", 0.3)
    with (socket.create_server(("127.0.0.1", 0)) as silent,
          server(lambda path: packed.get(path.strip("/"))) as (address, _)):
        dead = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [dead, address])
        assert not data.load("mnist", root=tmp_path, validation=2).is_stand_in


@needs_mnist
def test_known_md5s_are_those_of_the_real_files(tmp_path):
    shutil.copytree(REAL / "MNIST", tmp_path / "MNIST")
    for file, md5 in data._IDX_MD5["mnist"].items():
        assert hashlib.md5((tmp_path / "MNIST/raw" / file).read_bytes()).hexdigest() == md5


# -------- one's own data

def test_own_tensors_become_standardised_splits():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 2, 4, 4, generator=generator) * torch.tensor([3.0, 50.0]).view(2, 1, 1)
    train = images, torch.arange(20) % 4
    test = torch.rand(6, 2, 4, 4, generator=generator), torch.arange(6) % 4
    mine = data.from_tensors("mine", train, test, validation=(train[0][:5], train[1][:5]), classes="abcd")
    assert (mine.name, mine.is_stand_in, mine.num_classes, mine.classes) == ("mine", False, 4, tuple("abcd"))
    mean, std = train[0].mean((0, 2, 3)), train[0].std((0, 2, 3), correction=0)
    assert torch.allclose(torch.tensor(mine.mean), mean) and torch.allclose(torch.tensor(mine.std), std)
    expected = (test[0] - mean.view(2, 1, 1)) / std.view(2, 1, 1)
    assert torch.allclose(mine.test.images, expected, atol=1e-5)
    assert len(mine.full_train) == 25 and torch.equal(mine.validation.images, mine.train.images[:5])
    assert "mine" in str(mine)
    assert len(data.from_tensors("mine", train, test).validation) == 0


def test_own_8_bit_arrays_count_from_0_to_1_and_are_left_alone():
    images = np.random.RandomState(0).randint(256, size=(30, 1, 5, 5)).astype(np.uint8)
    labels = np.arange(30) % 3
    mine = data.from_tensors("mine", (images, labels), (images, labels))
    assert 0.4 < mine.mean[0] < 0.6
    assert mine.train.images.mean().abs() < 1e-5 and mine.train.labels.dtype == torch.int64
    ours = torch.randn(10, 1, 4, 4)
    before = ours.clone()
    data.from_tensors("mine", (ours, labels[:10]), (ours, labels[:10]))
    assert torch.equal(ours, before)


def test_a_constant_channel_is_centred_and_stays_finite():
    images = torch.full((8, 1, 3, 3), 7.0)
    mine = data.from_tensors("mine", (images, torch.arange(8) % 2), (images, torch.arange(8) % 2))
    assert torch.equal(mine.train.images, torch.zeros_like(images))


def spoilt(kind):
    images, labels = small()
    images[3, 0, 1, 1] = {"nan": float("nan"), "inf": float("-inf")}.get(kind, 0.0)
    return {
        "empty": (images[:0], labels[:0]), "dims": (images[:, 0], labels),
        "no height": (images[:, :, :0], labels), "size": (images[..., :-1], labels),
        "complex": (images + 0j, labels), "length": (images, labels[:-1]),
        "labels 2d": (images, labels[:, None]),
        "too large": (images, labels + 1), "negative": (images, labels - 1),
        "float labels": (images, labels.float()), "no pair": images, "words": ("a", "b"),
    }.get(kind, (images, labels))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("kind, says", [
    ("empty", "empty"), ("nan", "1 of 10 images hold NaN or infinity, the first at index 3"),
    ("inf", "infinity"), ("dims", r"\(10, 4, 4\).*images\[:, None\]"), ("no height", "empty"),
    ("labels 2d", r"labels have shape \(10, 1\)"), ("length", "10 images and 9 labels"),
    ("too large", "label 3 is out of range.*0 to 2"), ("negative", "label -1 is out of range"),
    ("float labels", "torch.float32"), ("complex", "torch.complex64"), ("no pair", "pair"), ("words", "pair"),
    ("size", "images are 1×4×"),
])
def test_a_bad_split_is_named(split, kind, says):
    splits = {"train": small(), "validation": small(), "test": small(), split: spoilt(kind)}
    with pytest.raises(DataError, match=says) as caught:
        data.from_tensors("mine", num_classes=3, **splits)
    assert split in str(caught.value)


def test_wrong_numbers_of_classes_are_named():
    with pytest.raises(ValueError, match="num_classes=0"):
        data.from_tensors("mine", small(), small(), num_classes=0)
    with pytest.raises(ValueError, match="classes has 2 names, num_classes=3"):
        data.from_tensors("mine", small(), small(), classes=["a", "b"])


@pytest.mark.parametrize("name", ["digits", "mine"])
def test_tensors_go_to_the_device(name):
    loaded = data.load("digits", device="meta") if name == "digits" else data.from_tensors(
        name, small(), small(), small(), device="meta")
    for split in (loaded.train, loaded.validation, loaded.test, loaded.full_train):
        assert split.images.device.type == split.labels.device.type == "meta"
