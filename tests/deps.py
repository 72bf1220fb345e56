"""The source files that each stage needs, derived from its imports. `python -m tests.deps` writes them into dvc.yaml."""

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SRC = PROJECT / "src"
STAGES = ("prepare", "batch", "train", "evaluate")


def module_file(name):
    """The source file of a module of surefoot's; None for a package, which must hold nothing."""
    path = SRC.joinpath(*name.split("."))
    if (path / "__init__.py").is_file():
        return None
    file = path.with_suffix(".py")
    return file if file.is_file() else None


def trees(stage):
    """The syntax tree of each source file that a stage needs, itself included, by path."""
    found = {}

    def visit(file):
        name = file.relative_to(PROJECT).as_posix()
        if name in found:
            return
        found[name] = ast.parse(file.read_text())
        for node in ast.walk(found[name]):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}:{node.lineno}: a relative import, which this does not follow"
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for imported in names:
                if imported.split(".")[0] == "surefoot" and (needed := module_file(imported)):
                    visit(needed)

    visit(SRC / "surefoot" / "stages" / f"{stage}.py")
    return found


def main():
    path = PROJECT / "dvc.yaml"
    text = path.read_text()
    for stage in STAGES:
        block = re.search(rf"(?ms)^  {stage}:\n.*?(?=^  \w|^\w|\Z)", text)
        files = "".join(f"      - {name}\n" for name in sorted(trees(stage)))
        text = text.replace(block[0], re.sub(r"(?m)(^      - src/surefoot/.*\n)+", files, block[0], count=1))
    path.write_text(text)


if __name__ == "__main__":
    main()
