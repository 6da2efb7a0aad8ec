"""The keys of rows, turns and blocks: which are read, in which spellings, and which are refused.

A key that changes what a row says, asks or teaches is never passed over: it is read, or refused by
its name. The source's `not_read` leaves it out on purpose.
"""

import re
from collections.abc import Mapping

FORMAT_KEYS = ("conversations", "messages", "question", "texts", "instruction")
"""One of them says which format a row is in, or `chosen` and `rejected` do."""
TEXT_COLUMNS = frozenset({"question", "instruction", "input", "system", "prompt"})
"""Columns that may be joined of several, a line each."""
LIST_COLUMNS = frozenset({"image", "images", "video", "videos", "answers"})
"""Columns whose members may stand in a column each."""
COLUMN_NAMES = (
    *("conversations", "messages", "question", "answer", "answers", "texts"),
    *("instruction", "input", "output", "system", "history"),
    *("image", "images", "video", "videos", "start_s", "end_s", "prompt", "chosen", "rejected"),
)
"""What a source's `columns` may map to."""

SYSTEM_KEYS = ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt")
WEIGHT_KEYS = ("weight", "loss_weight", "loss_scale", "loss", "train")
START_KEYS = (
    *("start_s", "video_start", "start", "start_time", "start_sec", "start_seconds"),
    *("clip_start", "begin", "begin_s", "begin_time", "start_ms"),
)
END_KEYS = (
    *("end_s", "video_end", "end", "end_time", "end_sec", "end_seconds"),
    *("clip_end", "stop", "stop_s", "stop_time", "end_ms"),
)
RATE_KEYS = ("fps", "sample_fps", "video_fps")
"""Of a clip given as frames: how many a second they are."""
NUMBERED_PICTURE = re.compile(r"^(?:image|img|picture)_?([0-9]{1,3})$")
NUMBERED_CLIP = re.compile(r"^video_?([0-9]{1,3})$")
FILE_KEYS = ("file_name",)
"""Name a picture or a clip by a file's name, as image folders with a metadata file do."""


def _all_mean(meaning: str, *keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, meaning)


_TOOLS = _all_mean(
    "calls of tools",
    *("tool_calls", "tool_call", "tool_call_id", "function_call", "tools", "functions"),
)
_REASONING = _all_mean(
    "reasoning",
    *("reasoning", "reasoning_content", "reasoning_details", "thinking", "thoughts"),
    *("chain_of_thought", "cot", "rationale", "rationales"),
)
_REJECTED = _all_mean(
    "a rejected answer",
    *("rejected_answer", "rejected_answers", "rejected_response", "rejected_output"),
    *("negative_answer", "dispreferred", "rejected_messages"),
)
_ASKED = {
    **_all_mean("the question's options", "options", "choices", "candidates", "multiple_choices"),
    **_all_mean("a part of the question", "hint", "hints", "context", "passage", "lecture"),
    **_all_mean("an instruction", "instruction", "instructions", "prompt"),
}
_WEIGHTS = _all_mean("what is learned", *WEIGHT_KEYS, "sample_weight")
FRAME_CHOICE_KEYS = (
    *RATE_KEYS,
    *("nframes", "num_frames", "max_frames", "min_frames", "start_frame", "end_frame"),
)
_FRAMES = _all_mean("which frames are shown", *FRAME_CHOICE_KEYS)

REFUSED_IN_ROWS: Mapping[str, str] = {
    **_TOOLS,
    **_REASONING,
    **_REJECTED,
    **_WEIGHTS,
    **_all_mean("earlier turns", "history"),
}
"""Key -> what it says, of any row."""
REFUSED_IN_QUESTIONS: Mapping[str, str] = {**REFUSED_IN_ROWS, **_ASKED}
"""Of rows whose question is a column: a conversation's text holds its options and hints itself."""
REFUSED_IN_TURNS: Mapping[str, str] = {**_TOOLS, **_REASONING, **_REJECTED, **_WEIGHTS}
REFUSED_IN_BLOCKS: Mapping[str, str] = {
    **REFUSED_IN_TURNS,
    **_FRAMES,
    **_all_mean("which part of a clip is shown", *START_KEYS, *END_KEYS),
}
