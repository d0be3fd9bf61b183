"""The workflows and what they install: checked with no network, and without GitHub.

The checkers are shown to go red: each has a test with a small planted violation.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_book import load_script

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
binder = load_script("binder")


def targets():
    return set(re.findall(r"^([\w./$()-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def steps(text):
    """(job's name, step) of a workflow, the steps in order."""
    return [(name, step) for name, job in yaml.safe_load(text)["jobs"].items() for step in job.get("steps", [])]


def commands(text):
    """The shell scripts of a workflow as bash gets them: GitHub's expressions stand for a word."""
    return [re.sub(r"\$\{\{.*?\}\}", "expression", step["run"]) for _, step in steps(text) if "run" in step]


def faults(text):
    """What a workflow's author forgot, one sentence each."""
    workflow, found = yaml.safe_load(text), []
    if workflow.get("permissions") != {}:
        found.append("the workflow gives permissions to every job; permissions: {}, and each job its own")
    if "concurrency" not in workflow:
        found.append("no concurrency")
    for name, job in workflow["jobs"].items():
        if "permissions" not in job:
            found.append(f"{name}: no permissions")
        if "timeout-minutes" not in job and "uses" not in job:
            found.append(f"{name}: no timeout-minutes")
    for name, step in steps(text):
        if step.get("uses", "").startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
            found.append(f"{name}: checkout without persist-credentials: false")
    for action, pin, version in re.findall(r"uses: ([\w/-]+)@(\S+)(.*)", text):
        if not re.fullmatch(r"[0-9a-f]{40}", pin) or not re.fullmatch(r" # v\d+\.\d+\.\d+", version):
            found.append(f"{action}@{pin}{version} is not pinned by commit, with its version in a comment")
    found += [f"a secret is asked for: {secret}" for secret in re.findall(r"secrets\.\w+", text)]
    for script in commands(text):
        run = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        found += [f"bash: {run.stderr.strip()}"] * (run.returncode != 0)
        found += [f"make {goal} is not in the Makefile" for goal in re.findall(r"^\s*make ([\w./-]+)", script, re.MULTILINE)
                  if goal not in targets() and goal != ".venv/.installed"]
        found += [f"{path} is not there" for path in re.findall(r"(?:^|\s)(\.ci/[\w.]+|[\w-]+\.(?:lock|txt))\b", script)
                  if not (ROOT / path).exists()]
    found += [f"{path} is not there" for path in re.findall(r"constraint: (\S+\.txt)", text) if not (ROOT / path).exists()]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_has_what_a_workflow_needs(path):
    assert faults(path.read_text(encoding="utf-8")) == []


def test_one_version_of_an_action_everywhere():
    pins = {}
    for action, pin in re.findall(r"uses: ([\w/-]+)@(\S+)", "".join(p.read_text(encoding="utf-8") for p in WORKFLOWS)):
        pins.setdefault(action, set()).add(pin)
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


GOOD = WORKFLOWS[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("old, new, says", [
    ("permissions: {}", "permissions: write-all", "permissions to every job"),
    ("    permissions:\n      contents: read\n", "", "no permissions"),
    ("    timeout-minutes: 45\n", "", "no timeout"),
    ("persist-credentials: false", "fetch-depth: 1", "persist-credentials"),
    ("de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "v6", "not pinned"),
    (" # v6.0.2", "", "not pinned"),
    ("concurrency:", "run-name: x\nenv:", "no concurrency"),
    ('REQUIRE_SANDBOX: "1"', "TOKEN: ${{ secrets.TOKEN }}", "secrets.TOKEN"),
    ("run: .ci/run", "run: if true", "bash:"),
    ("run: .ci/run", "run: make no-such-thing", "no-such-thing is not in the Makefile"),
    ("run: .ci/run", "run: .ci/walk", ".ci/walk is not there"),
])
def test_planted_fault_of_a_workflow_is_found(old, new, says):
    assert faults(GOOD) == [] and old in GOOD
    assert says in " ".join(faults(GOOD.replace(old, new)))


def linted(tool, *arguments):
    command = Path(sys.executable).with_name(tool)
    if not command.exists():
        pytest.skip(f"{tool} is not here: pip install {tool}")
    return subprocess.run([command, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("schema, pattern", [("vendor.github-workflows", "workflows/*.yml"), ("vendor.dependabot", "dependabot.yml")])
def test_workflows_keep_githubs_schema(tmp_path, schema, pattern):
    paths = sorted((ROOT / ".github").glob(pattern))
    run = linted("check-jsonschema", "--builtin-schema", schema, *paths)
    assert run.returncode == 0, run.stdout + run.stderr
    planted = tmp_path / "planted.yml"
    planted.write_text(re.sub(r"^(\s+)(runs-on|directory):", r"\1nonsense:", paths[0].read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert linted("check-jsonschema", "--builtin-schema", schema, planted).returncode != 0


def test_workflows_give_nothing_away(tmp_path):
    """zizmor: injections, credentials left behind, permissions, pins; what it calls low is advice."""
    run = linted("zizmor", "--offline", "--no-progress", "--min-severity", "medium", ROOT / ".github")
    assert run.returncode == 0, run.stdout + run.stderr
    planted = tmp_path / ".github" / "workflows" / "planted.yml"
    planted.parent.mkdir(parents=True)
    planted.write_text(GOOD.replace("run: .ci/run", "run: echo ${{ github.event.pull_request.title }}"))
    assert "template-injection" in linted("zizmor", "--offline", "--no-progress", "--min-severity", "medium", tmp_path).stdout


def test_drift_opens_one_issue_and_adds_to_it(tmp_path):
    """Its step, run with a `gh` that keeps issues in a file."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not here; GitHub's machines have it")
    (report,) = (step for name, step in steps((ROOT / ".github/workflows/drift.yml").read_text(encoding="utf-8")) if name == "report")
    gh, store = tmp_path / "gh", tmp_path / "issues.json"
    gh.write_text(f"""#!{sys.executable}
import json, pathlib, sys
store, (_, what, *rest) = pathlib.Path({str(store)!r}), sys.argv[1:]
issues = json.loads(store.read_text())
if what == "list":
    print(json.dumps([{{"number": i["number"], "title": i["title"]}} for i in issues]))
elif what == "create":
    issues.append({{"number": 7, "title": rest[rest.index("--title") + 1], "told": [rest[rest.index("--body") + 1]]}})
elif what == "comment":
    next(i for i in issues if str(i["number"]) == rest[0])["told"].append(rest[rest.index("--body") + 1])
store.write_text(json.dumps(issues))
""")
    gh.chmod(0o755)
    store.write_text(json.dumps([{"number": 3, "title": "The weekly drift check fails for me", "told": []}]))
    needs = json.dumps({name: {"result": "failure" if name in ("links", "audit") else "success"} for name in ("versions", "links", "audit")})
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RESULTS": needs, "RUN": "https://example.org/run/1"}
    for _ in range(2):
        subprocess.run(["bash", "-euo", "pipefail", "-c", report["run"]], env=environment, check=True)
    other, issue = json.loads(store.read_text())
    assert other["told"] == []
    assert issue["told"] == ["Failed: links audit. The log: https://example.org/run/1"] * 2


# ------------------------------------------------------------------------------------------------------------------- Binder

def binder_faults(text):
    """Pins of Binder's that are not the lock's, and packages that the library needs and Binder would not have."""
    lock = binder.locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    pins = {name: version.removesuffix("+cpu") for name, (_, version) in binder.locked(text).items()}
    found = [f"{name}=={version}, not the lock's {lock.get(name)}" for name, version in pins.items() if (name, version) not in
             {(key, pin) for key, (_, pin) in lock.items()}]
    found += [f"{name} is missing" for name in sorted(needed() - set(pins))]
    return found + [f"{name} is not the CPU build" for name in binder.CPU_BUILDS if f"\n{name}=={pins.get(name)}+cpu\n" not in text]


def needed():
    roots = binder.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return {canonicalize_name(Requirement(one).name) for one in roots}


def test_binder_installs_the_locks_versions_and_no_tools():
    """If this fails: python book/_scripts/binder.py"""
    text = binder.FILE.read_text(encoding="utf-8")
    assert binder_faults(text) == []
    assert not {"jupyter-book", "sphinx", "nbgrader", "playwright", "onnx", "pytest"} & set(binder.locked(text))


def test_binder_is_what_its_script_makes():
    lock = binder.locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    drifted = [name for name in binder.locked(binder.FILE.read_text(encoding="utf-8"))
               if binder.metadata.version(name).split("+")[0] != lock[name][1]]
    if drifted:
        pytest.skip(f"other versions than the lock's are installed here: {', '.join(drifted)}")
    assert binder.text() == binder.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("old, new, says", [("tqdm==", "tqdm==0.", "not the lock's"), ("safetensors==", "safe==", "safetensors is missing"),
                                            ("+cpu", "", "not the CPU build")])
def test_planted_fault_of_binders_file_is_found(old, new, says):
    text = binder.FILE.read_text(encoding="utf-8")
    assert old in text and says in " ".join(binder_faults(text.replace(old, new)))


@pytest.mark.parametrize("limit, threads", [(None, 2), ("", 2), ("0.5", 1), ("1.5", 1), ("2", 2), ("4.0", 4), ("2000m", 2)])
def test_binders_start_takes_no_more_threads_than_it_may_use(limit, threads):
    start = ROOT / "binder" / "start"
    given = {key: value for key, value in os.environ.items() if key not in ("CPU_LIMIT", "OMP_NUM_THREADS")}
    done = subprocess.run([start, sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"], capture_output=True,
                          text=True, check=True, env=given if limit is None else {**given, "CPU_LIMIT": limit})
    assert int(done.stdout) == threads


# -------------------------------------------------------------------------------------------------- commands that pages name

def unknown_commands(text):
    """`make X` of a page's code that the Makefile does not know."""
    code = "\n".join(re.findall(r"`make [^`]*`|^(?:    |\$ )[^\n]*|^```.*?^```", text, re.MULTILINE | re.DOTALL))
    return sorted({goal for goal in re.findall(r"\bmake ([a-z][\w-]*)", code) if goal not in targets()})


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "book").rglob("*.md"))], ids=lambda p: p.name)
def test_every_make_command_that_a_page_names_exists(path):
    assert unknown_commands(path.read_text(encoding="utf-8")) == []


def test_planted_command_is_found():
    assert unknown_commands("see `make nothing`, or\n\n    make neither REPO=x\n\nand make it so; `make book`") == ["neither", "nothing"]
