"""Puts src/networks into the package, as surefoot.networks; in a clone it stays beside the user's own networks. And the
example's data, which `surefoot init` copies, beside its templates.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

EXAMPLE = ("data/raw/digits.csv", "data/raw/README.md")


class WithNetworksAndExample(build_py):
    """Takes the networks for one more package; but where a clone is installed as it lies there."""

    def run(self) -> None:
        """Build."""
        if not self.editable_mode:
            self.packages = [*(self.packages or []), "surefoot.networks"]
            self.package_dir = {**(self.package_dir or {}), "surefoot.networks": "src/networks"}
        super().run()
        if not self.editable_mode:
            for name in EXAMPLE:
                self.copy_file(name, str(Path(self.build_lib, "surefoot/templates", Path(name).name)))


setup(cmdclass={"build_py": WithNetworksAndExample})
