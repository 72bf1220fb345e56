"""Puts src/networks into the package, as surefoot.networks; in a clone it stays beside the user's own networks."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithNetworks(build_py):
    """Takes them for one more package, but where a clone is installed as it lies there."""

    def run(self) -> None:
        """Build."""
        if not self.editable_mode:
            self.packages = [*(self.packages or []), "surefoot.networks"]
            self.package_dir = {**(self.package_dir or {}), "surefoot.networks": "src/networks"}
        super().run()


setup(cmdclass={"build_py": WithNetworks})
