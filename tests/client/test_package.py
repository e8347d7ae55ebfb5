"""The client installs alone: httpx, pydantic, what they need, and nothing else of Everpin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from importlib.metadata import requires
from pathlib import Path

import pytest

from everpin_client import AsyncEverpin, Everpin, errors

ROOT = Path(__file__).parents[2]
OURS = {"pins", "embedder", "index", "feature_repo", "streams", "everpin", "surfaces", "training", "backfill"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in [*sorted((ROOT / "client/everpin_client").glob("*")), ROOT / "client/pyproject.toml", ROOT / "client/README.md"]:
        if path.is_file():
            target = source / path.relative_to(ROOT / "client")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(source)], check=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


def needed(name: str, seen: set[str] | None = None) -> set[str]:
    """A distribution and all that it needs, without extras."""
    seen = set() if seen is None else seen
    if name not in seen:
        seen.add(name)
        for line in requires(name) or ():
            if "extra ==" not in line and "python_version" not in line and "sys_platform" not in line:
                needed(re.split(r"[^\w.-]", line)[0].lower(), seen)
    return seen


def test_the_wheel_installs_into_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "own", with_pip=False)
    python = tmp_path / "own" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    show = (
        "import json, importlib.metadata as m; d = m.distribution('everpin-client');"
        "print(json.dumps([d.version, sorted(d.requires), sorted(str(f) for f in d.files if f.suffix in ('.py', '.typed'))]))"
    )
    version, requirements, files = json.loads(subprocess.run([python, "-c", show], check=True, capture_output=True, text=True, timeout=60).stdout)
    assert version == "0.1.0"
    assert [re.split(r"\W", line)[0] for line in requirements] == ["httpx", "pydantic"]
    own = sorted(path.relative_to(ROOT / "client").as_posix() for path in (ROOT / "client/everpin_client").iterdir() if path.is_file())
    assert files == own
    assert "everpin_client/py.typed" in files


def test_importing_it_imports_only_what_it_requires(wheel: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(wheel)!r}); import everpin_client; assert '.whl' in everpin_client.__file__;"
    script += "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60, cwd="/").stdout.split())
    assert not loaded & OURS
    allowed = {name.replace("-", "_") for name in needed("httpx") | needed("pydantic")} | set(sys.stdlib_module_names) | {"everpin_client"}
    foreign = {name for name in loaded - allowed if not name.startswith("_")}
    assert foreign <= {"click", "rich", "pygments", "brotli", "zstandard", "socksio", "h2", "distutils"}, f"{foreign} is not required by the package"


def test_the_readme_shows_what_exists() -> None:
    page = (ROOT / "client/README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(block, "client/README.md", "exec", flags=8192)  # top-level await
    methods = set(re.findall(r"(?:pins|client)\.(\w+)\(", page))
    assert methods - set(dir(Everpin)) - set(dir(AsyncEverpin)) == set()
    assert {name for name in vars(Everpin) if not name.startswith("_")} - {"send", "send_pages"} <= set(re.findall(r"\w+", page))
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    kinds = [kind.__name__ for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EverpinError)]
    assert [name for name in listed if name in kinds] == [name for name in kinds if name != "EverpinError"]


def test_a_program_that_uses_it_passes_a_strict_type_check_without_plugins(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'client'}\ncache_dir = {tmp_path / 'cache'}\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "mypy", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    shown = re.findall(r"program.py:\d+: (?:note: Revealed type is \"(.*)\"|(error: .*))", done.stdout)
    assert [revealed.replace("everpin_client.models.", "") or wrong for revealed, wrong in shown] == [
        "SearchAnswer",
        "typing.Iterator[FeedAnswer]",
        "FeedAnswer",
        "EmbeddingsAnswer",
        'error: Argument "limit" has incompatible type "str"; expected "int | None"  [arg-type]',
    ], done.stdout + done.stderr


PROGRAM = """
from everpin_client import AsyncEverpin, Everpin, Filters, UserActionIn

with Everpin("http://127.0.0.1:8600") as client:
    reveal_type(client.search("herbs", limit=3, filters=Filters(lang="en")))
    reveal_type(client.feed_pages("u1"))
    client.send_actions("u1", [UserActionIn(pin_id="p1")])
    for page in client.feed_pages("u1", limit=3):
        reveal_type(page)
        print(page.results[0].why.upper())


async def vectors() -> list[list[float]]:
    async with AsyncEverpin() as client:
        reveal_type(await client.with_options(deadline_s=1).embed(["herbs"]))
        return (await client.embed(["herbs"])).vectors


with Everpin() as client:
    client.search("herbs", limit="3")
"""
