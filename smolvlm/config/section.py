"""What every section of the run file is made of: the base class, and kinds of number that several
sections share.

A section owns what is said about it: its fields, the words of its errors, how else a run file may
write it, and what of it cannot stand beside the other sections. `load.py` and `checks.py` ask every
section alike.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from smolvlm.config.problems import Problem
from smolvlm.config.yaml_text import Settings

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

PATH_WORDS = "must be a path"


def _as_path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


FilePath = Annotated[Path, BeforeValidator(_as_path)]
LearningRate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One section of the run file, or one mapping within a section."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {}
    """Field -> what it must be, where the words of its type do not say enough."""
    MAPPING_WORDS: ClassVar[str] = "must be a mapping of settings"
    """What a value must be that is no mapping and stands where this section is expected."""
    NOUN: ClassVar[str | None] = None
    """What a mapping within a section is called in messages; None is the name of its setting."""

    @classmethod
    def settings(cls) -> Mapping[str, FieldInfo]:
        """Return the settings that a run file writes in this section, by name."""
        return cls.model_fields

    @classmethod
    def plain(
        cls, content: Settings, *, overridden: Collection[str], problems: list[Problem]
    ) -> Settings:
        """Return the section as a run file writes it with each setting under its one name.

        Args:
            content: as written, overrides in place; names are not checked yet.
            overridden: the settings that the command line gave.
            problems: receives what cannot be read.
        """
        del overridden, problems
        return content

    @classmethod
    def as_fields(cls, content: Settings, *, run_dir: Path, problems: list[Problem]) -> Settings:
        """Return the section's fields.

        Args:
            content: of `plain`, with known names and absolute paths.
            run_dir: folder of the run file.
            problems: receives settings that belong to none of the fields.
        """
        del run_dir, problems
        return content

    @classmethod
    def variant(cls, fields: Mapping[str, object]) -> "type[Section]":
        """Return the class that has these fields, where a section is one of several."""
        del fields
        return cls

    @classmethod
    def written_place(cls, place: tuple[str, ...]) -> tuple[str, ...]:
        """Return where in the section a run file writes what stands at `place` of the fields."""
        return place

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield what of this section cannot work, or take effect, beside the other settings."""
        del config
        yield from ()
