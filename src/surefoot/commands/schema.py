"""`surefoot schema`: what params.yaml may hold."""

import json

from surefoot.base import terminal
from surefoot.params.reference import json_schema, params_page


def main(markdown: bool) -> None:
    """Print the JSON schema of params.yaml, or its reference for people."""
    terminal.print_lines(
        *(params_page() if markdown else json.dumps(json_schema(), indent=2)).splitlines(), longest=100_000
    )
