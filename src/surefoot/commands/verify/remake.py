"""A run made again, in a temporary directory: its commit, its uncommitted changes, its data.

DVC gets a cache of its own there, and this workspace's only to read from.
"""

import itertools
import os
from pathlib import Path
from typing import IO, Any

from surefoot.base.errors import CannotSay
from surefoot.base.yaml12 import UnreadableYaml, from_yaml
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import VERSION, parse_params
from surefoot.reproduction import checkout, dvc_settings, git, raw_data
from surefoot.reproduction.scratch import Process, Scratch
from surefoot.tracking import tracker

MADE_HERE = (".venv", ".dvc", ".dvc/config.local", ".dvc/tmp")
WORKSPACE_CACHE = "surefoot-workspace"  # as a remote, so that it's only read


class Remake:
    """A place in a scratch directory to make a run again in."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self.workspace = Path.cwd()
        self._top, below = checkout.place_in_repository(self.workspace)
        self.path = scratch.path / "repository" / below

    def check_out(self, commit: str, patch: bytes, data: str = "") -> None:
        """Bring in the code of a commit, with uncommitted changes; `data` is the digest of the raw data that neither
        Git nor DVC had.

        Raises:
            CannotSay: the commit isn't in this repository, or has no pipeline.
        """
        checkout.check_out(self._top, self.scratch.path / "repository", commit, patch)
        for name in ("dvc.yaml", "params.yaml"):
            if not (self.path / name).is_file():
                raise CannotSay(f"at its commit {commit} there is no {name}")
        # What is written there next may not be written through a link to elsewhere.
        if self.path.resolve() != self.path:
            raise CannotSay(f"at its commit {commit} the folder of {name} is a link")
        self._dvc_root = checkout.dvc_root_in(self.path, self.scratch.path / "repository")
        for name, place in itertools.product(MADE_HERE, self._roots()):
            if (place / name).is_symlink() or (name == ".venv" and (place / name).exists()):
                raise CannotSay(f"its code has a {name} of its own, in the way of the one that is made here")
        self._commit, self._data = commit, data

    def _roots(self) -> set[Path]:
        """The project's folder and DVC's root, which is above it where it is a part of a larger repository."""
        return {self.path, self._dvc_root}

    def use_environment(self, environment: Path) -> None:
        """Let the stages run with the Python of a virtual environment: where they look for one, and on the PATH."""
        for place in self._roots():
            (place / ".venv").symlink_to(environment)
        self._bin = environment / "bin"

    def reproduce(self, stage: str, *, store: Path) -> None:
        """Run a stage and those before it, with an empty trajectory store.

        Raises:
            CannotSay: one of them fails.
        """
        self._link_data()
        lacking = self._bring_data()
        stores = {
            "SUREFOOT_STORE": str(store),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.scratch.path / 'mlflow.db'}",
            tracker.SCRATCH: "true",
        }
        # --quiet: DVC would say to commit its dvc.lock. What the stages print is shown.
        code = self._dvc("repro", "--quiet", "--force", "--no-commit", stage, variables=stores)
        if code and lacking:
            raise CannotSay(f"its data is neither in DVC's cache nor in a remote: {', '.join(lacking)}")
        if code:
            raise CannotSay(
                f"the stages that made it fail when they are run again (dvc repro: exit code {code}); what they say is"
                " above"
            )

    @property
    def params(self) -> dict[str, Any]:
        """The params there, by dotted key: with defaults, as a run records them; as they are written where this
        Surefoot doesn't know a key any more.

        Raises:
            CannotSay: they aren't YAML.
        """
        try:
            text = (self.path / "params.yaml").read_bytes()
            params = parse_params(text)
            return flatten(params.model_dump(mode="json") if params else dict(from_yaml(text.decode())))
        except (OSError, UnreadableYaml, TypeError, ValueError):
            raise CannotSay("at its commit params.yaml can't be read") from None

    @property
    def surefoot_version(self) -> str | None:
        """The version of Surefoot that its params.yaml is of, if it says."""
        try:
            return dict(from_yaml((self.path / "params.yaml").read_text(encoding="utf-8"))).get(VERSION)
        except (OSError, UnreadableYaml, TypeError, ValueError):
            return None

    def python(self, *arguments: str, out: IO[str] | None = None) -> Process:
        """Start Python there, as a stage would be."""
        python = [str(self.path / ".venv/bin/python"), *arguments]
        return self.scratch.start(
            python, self.path, self._environment(PYTHONPATH="src", DVC_ROOT=str(self._dvc_root)), out=out
        )

    def _link_data(self) -> None:
        """Links to this workspace's raw data that neither Git nor DVC had then, where they are the recorded ones."""
        if not self._data:
            return
        try:
            possible = raw_data.data_lacking(
                raw_data.raw_places(self.params), self.scratch.path / "repository", self._commit
            )
            names = next(
                (names for names in possible if raw_data.data_digest(names, remember=False) == self._data), None
            )
        except git.GitError as error:
            raise CannotSay(f"its raw data can't be looked for: {error}") from None
        if names is None:
            raise CannotSay(
                "its raw data, of which its commit has no copy, aren't those that lie here now: put them back; Git or"
                " `dvc add` keeps them"
            )
        for name in names:
            there = self.scratch.path / "repository" / name
            there.parent.mkdir(parents=True, exist_ok=True)
            if not there.exists():
                there.symlink_to((git.top_of_repository() / name).resolve())

    def _bring_data(self) -> list[str]:
        """Bring what `*.dvc` files there tell of, from this workspace's cache or else a remote; returns what neither
        has.
        """
        tracked = [path for path in self.path.rglob("*.dvc") if path.is_file()]
        names = [str(path.relative_to(self.path)) for path in tracked]
        self._set_up_dvc()
        if not tracked or not self._dvc("pull", "--quiet", "--remote", WORKSPACE_CACHE, *names, quiet=True):
            return []
        self._dvc("pull", "--quiet", *names)
        return [name for name, path in zip(names, tracked, strict=True) if not path.with_suffix("").exists()]

    def _set_up_dvc(self) -> None:
        """Give DVC a cache of its own, and this workspace's remotes and cache to read from."""
        try:
            ours, cache = dvc_settings.workspace_settings()
            remotes = {**ours["remote"], WORKSPACE_CACHE: {"url": cache}}
            default = {"remote": ours["core"]["remote"]} if ours["core"].get("remote") else {}
            added = {f'remote "{name}"': dict(remote) for name, remote in remotes.items()}
            added |= {"core": default, "cache": {"dir": str(self.scratch.path / "cache")}}
            dvc_settings.add_settings(self._dvc_root, added)
        except dvc_settings.SettingsError as error:
            raise CannotSay(f"DVC's settings can't be read: {error}") from None

    def _dvc(self, *arguments: str, quiet: bool = False, variables: dict[str, str] | None = None) -> int:
        return self.scratch.run(
            [str(self.path / ".venv/bin/python"), "-m", "dvc", *arguments],
            self.path,
            self._environment(**variables or {}),
            quiet=quiet,
        )

    def _environment(self, **more: str) -> dict[str, str]:
        """The environment variables of processes there: nothing of this workspace's."""
        kept = {
            name: value
            for name, value in checkout.plain_environment().items()
            if not name.startswith(("SUREFOOT_", "MLFLOW_"))
            and name not in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "PYTHONPATH")
        }
        return {
            **kept,
            "DVC_SITE_CACHE_DIR": str(self.scratch.path / "dvc"),
            "DVC_NO_ANALYTICS": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.pathsep.join([str(self._bin), *filter(None, [kept.get("PATH")])]),
            **more,
        }
