"""Prints requirements/constraints.txt: the versions of everything installed here, without any index address.

torch's accelerator libraries are left out, so that a CPU build and a GPU build of torch both satisfy the file.
"""

from importlib.metadata import distributions

ACCELERATOR = ("nvidia-", "cuda-", "triton", "everpin")
TOOLS = {"pip", "setuptools"}


def main() -> None:
    """Print one `name==version` per line, sorted."""
    found = {d.metadata["Name"].lower().replace("_", "-"): d.version.split("+")[0] for d in distributions()}
    print("# Every version Everpin is tested with. Use it as `pip install -c requirements/constraints.txt`; rewrite it with `make lock`.")
    for name in sorted(found):
        if not name.startswith(ACCELERATOR) and name not in TOOLS:
            print(f"{name}=={found[name]}")


if __name__ == "__main__":
    main()
