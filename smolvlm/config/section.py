"""What every section of the run file is made of: the base class, and kinds of number that several sections share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LearningRate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One section of the run file, or one mapping within a section."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
