"""DVC's settings: the workspace's, and those that a checkout of it is given."""

from pathlib import Path
from typing import Any

from surefoot.base import paths

Settings = dict[str, dict[str, Any]]


class SettingsError(Exception):
    """They can't be read or written, and why."""


def workspace_settings() -> tuple[Settings, str]:
    """The settings here, by section, and the directory of the cache; `dvc` itself would write to .dvc/tmp.

    Raises:
        SettingsError: they can't be read.
    """
    from dvc.config import Config, ConfigError

    here = paths.nearest_dvc(Path.cwd()) / ".dvc"
    try:
        ours = Config(str(here))  # paths in it are relative to here
    except (ConfigError, OSError) as error:
        raise SettingsError(error) from None
    return dict(ours), ours["cache"].get("dir") or str(here / "cache")


def add_settings(root: Path, settings: Settings) -> None:
    """Add local settings, by section, where DVC's root is. DVC reads letters beyond ASCII, but can't write them.

    Raises:
        SettingsError: they can't be written.
    """
    from configobj import ConfigObj, ConfigObjError

    file = root / ".dvc/config.local"
    try:
        file.parent.mkdir(exist_ok=True)
        local = ConfigObj(str(file), encoding="utf-8")
        local.merge(settings)
        local.write()
    except (ConfigObjError, OSError, UnicodeError) as error:
        raise SettingsError(error) from None
