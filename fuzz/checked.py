"""One mixture given to what `smolvlm check` does, and looked at again row by row.

In: a source as a mixture names it, and its folder. Out: what came of every row: the conversation,
or the house's own error, and what the check says of it. Any other exception leaves as it is: it is
a crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from smolvlm.check.check_rows import CheckResult
from smolvlm.check.findings import Finding
from smolvlm.datasets.builder import open_mixture
from smolvlm.errors import ConfigError, SampleError
from smolvlm.records import Conversation
from smolvlm.runs.mixture import MixtureSettings, check_mixture, mixture_settings

OVERRIDES = ("data.image_splitting=false",)
"""So that a row with several pictures is no larger than a pack."""
MAX_PIXELS = 1 << 22
"""Of a picture in these inputs: resource bombs are not what is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedInputRow:
    """What came of one row."""

    conversation: Conversation | None
    """None where it was refused."""
    findings: tuple[Finding, ...]
    """Errors and warnings that name it."""

    @property
    def is_accepted(self) -> bool:
        return self.conversation is not None and not any(
            finding.severity == "error" for finding in self.findings
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedInput:
    """What came of one input."""

    refusal: SampleError | ConfigError | None
    """Why nothing of it was read."""
    rows: tuple[CheckedInputRow, ...] = ()
    num_counted: int = 0
    """Rows that the check says it read."""


class Checker:
    """Checks inputs one after another, with the processor of the released 256M checkpoint."""

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mixture.yaml"
            path.write_text("- {json_path: rows.jsonl}\n")
            settings = mixture_settings(path, OVERRIDES, None, allow_outside_root=False)
        data = settings.data.model_copy(update={"max_image_pixels": MAX_PIXELS})
        media = replace(settings.prompt.media, max_image_pixels=MAX_PIXELS)
        prompt = replace(settings.prompt, media=media)
        self._settings = replace(settings, data=data, prompt=prompt)

    def settings(self, entry: Mapping[str, Any], folder: Path) -> MixtureSettings:
        """Return the settings of a mixture of one source."""
        update = {"mixture": [dict(entry)], "base_dir": folder}
        data = self._settings.data.model_copy(update=update)
        return replace(self._settings, data=data)

    def __call__(self, entry: Mapping[str, Any], folder: Path) -> CheckedInput:
        """Check a source.

        Args:
            entry: as a mixture writes it.
            folder: that its relative paths start from.
        """
        settings = self.settings(entry, folder)
        try:
            result = check_mixture(settings, num_workers=1)
        except (SampleError, ConfigError) as error:
            str(error)
            return CheckedInput(refusal=error)
        (source,) = open_mixture(settings.data.mixture, settings.data)
        conversations = source.all_rows()
        by_row = _by_row(result)
        rows = []
        for number in source.rows.tolist():
            where = source.table.where(number)
            try:
                conversation = conversations[number]
            except SampleError:
                conversation = None
            rows.append(
                CheckedInputRow(conversation=conversation, findings=tuple(by_row.get(where, ())))
            )
        return CheckedInput(refusal=None, rows=tuple(rows), num_counted=result.num_rows)


def _by_row(result: CheckResult) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in result.findings:
        if finding.severity != "info":
            found.setdefault(finding.where, []).append(finding)
    return found
