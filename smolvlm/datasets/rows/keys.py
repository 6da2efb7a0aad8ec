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

CONSTANT_COLUMNS = ("question", "instruction", "prompt", "system")
"""What a source's `constants` may give."""

SYSTEM_KEYS = ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt")
WEIGHT_KEYS = ("weight", "loss_weight", "loss_scale", "loss", "train")
START_KEYS = (
    *("start_s", "video_start", "start", "start_time", "start_sec", "start_seconds"),
    *("clip_start", "begin", "begin_s", "begin_time", "start_ms"),
)
END_KEYS = (
    *("end_s", "video_end", "end", "end_time", "end_sec", "end_seconds"),
    *("clip_end", "stop", "stop_s", "stop_time", "end_ms"),
    *("finish", "finish_s", "finish_time"),
)
RATE_KEYS = ("fps", "sample_fps", "video_fps")
"""Of a clip given as frames: how many a second they are."""
NUMBERED_PICTURE = re.compile(r"^(?:image|img|picture)_?([0-9]{1,3})$")
NUMBERED_CLIP = re.compile(r"^video_?([0-9]{1,3})$")
FILE_KEYS = ("file_name",)
"""Name a picture or a clip by a file's name, as image folders with a metadata file do."""
PICTURE_KEYS = ("img", "picture", "photo", "image_path", "img_path", "image_file")
"""What rows call a picture that call it otherwise than `image`; read where there is one of them."""
CLIP_KEYS = ("clip", "video_path", "video_file", "clip_path")
CAPTION_KEYS = (*("caption", "answer", "text", "txt", "description", "label", "ocr", "captions"),)
"""Of rows without a question: what may be learned of them."""
OPTION_KEY = re.compile(
    r"^(?:(?:option|choice|opt)(?:[ _][A-Za-z0-9]|[A-H0-9])|[A-H]|ending[0-9])$"
)
"""Of a column that is one option of the question."""
FURTHER_KEY = re.compile(
    r"^(?:question|answer|user|assistant|human|response|caption|q|a)[ _]?[0-9]{1,2}$", re.IGNORECASE
)
"""Of a second question or answer, or one option of several, beside the columns that are read."""
TIME_WORDS = frozenset(
    {
        *("start", "starts", "begin", "begins", "end", "ends", "finish", "stop", "from", "to"),
        *("until", "segment", "segments", "seg", "timestamp", "timestamps", "timespan", "span"),
        *("spans", "interval", "intervals", "moment", "moments", "window", "windows", "time"),
        *("times", "t", "t0", "t1", "t2", "ts", "onset", "offset", "s", "sec", "secs", "second"),
        *("seconds", "ms", "video", "clip", "relevant", "gt", "range", "trim", "crop", "in", "out"),
        *("point", "bounds", "boundary", "position", "accurate", "temporal", "st", "ed"),
    }
)
"""A key made of these words alone says, beside a clip, which part of it is meant."""
INDEX_KEYS = ("index", "image_index", "image_idx", "idx", "img_idx", "img_index", "video_index")
"""Of a block that is a place: which of the listed media it shows."""


def _all_mean(meaning: str, *keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, meaning)


TOOL_KEYS = ("tool_calls", "tool_call", "tool_call_id", "function_call", "tools", "functions")
_TOOLS = _all_mean("calls of tools", *TOOL_KEYS)
_REASONING = _all_mean(
    "reasoning",
    *("reasoning", "reasoning_content", "reasoning_details", "thinking", "thoughts"),
    *("chain_of_thought", "cot", "rationale", "rationales"),
)
_REJECTED = _all_mean(
    "a rejected answer",
    *("rejected_answer", "rejected_answers", "rejected_response", "rejected_output"),
    *("negative_answer", "dispreferred", "rejected_messages", "rejected_conversations"),
)
_ASKED = {
    **_all_mean("the question's options", "options", "choices", "candidates", "multiple_choices"),
    **_all_mean("a part of the question", "hint", "hints", "context", "passage", "lecture"),
    **_all_mean("an instruction", "instruction", "instructions", "prompt"),
    **_all_mean("an instruction", "post_prompt", "pre_prompt", "task_prompt"),
}
TOLD_WITH_QUESTIONS = frozenset(_ASKED)
"""Keys that `columns` may join to the question."""
MASK_KEYS = ("mask", "masked", "ignore", "ignore_loss", "no_loss")
_WEIGHTS = _all_mean("what is learned", *WEIGHT_KEYS, "sample_weight")
FRAME_CHOICE_KEYS = (
    *RATE_KEYS,
    *("nframes", "num_frames", "max_frames", "min_frames", "start_frame", "end_frame"),
    *("frame_idx", "frames_idx", "frame_index", "frame_indices", "frame_ids"),
)
_FRAMES = _all_mean("which frames are shown", *FRAME_CHOICE_KEYS)

WRONG_ANSWER_KEYS = ("is_correct", "correct", "label", "is_good", "accepted")
"""Of a row whose answer is wrong where one of them is false."""
ID_OF_MEDIA = re.compile(r"^(?:image|img|picture|video|clip)_?(?:id|idx|index)s?$", re.IGNORECASE)
"""What a row may name its picture or clip by, in a file beside it."""
QUESTION_LIKE = ("query", "problem", "prompt", "instruction", "ask", "q", "text_in", "task")
"""Columns that may be the question of a row that has none by our names."""
HARMLESS = frozenset({"height"})
"""Names one letter from one that is read, and of their own."""

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
_FURTHER_TEXT = _all_mean(
    "a text", "caption", "content", "value", "question", "prompt", "instruction", "answer"
)
REFUSED_IN_TURNS: Mapping[str, str] = {
    **_TOOLS,
    **_REASONING,
    **_REJECTED,
    **_WEIGHTS,
    **_all_mean("a text", "content", "value", "text", "refusal"),
    **_all_mean("what is not learned", *MASK_KEYS),
}
REFUSED_IN_BLOCKS: Mapping[str, str] = {
    **REFUSED_IN_TURNS,
    **_FRAMES,
    **_all_mean("which part of a clip is shown", *START_KEYS, *END_KEYS),
    **_FURTHER_TEXT,
    **_all_mean("which of the row's media is shown", *INDEX_KEYS),
}
REFUSED_IN_MEDIA: Mapping[str, str] = {**REFUSED_IN_BLOCKS, **_all_mean("a text", "text")}
"""Of a picture's or a clip's block, and of the object that names it."""
KNOWN_IN_ROWS = frozenset(
    {
        *COLUMN_NAMES,
        *SYSTEM_KEYS,
        *REFUSED_IN_QUESTIONS,
    }
)
KNOWN_IN_TURNS = frozenset({"role", "content", "from", "value", *REFUSED_IN_TURNS})
KNOWN_IN_BLOCKS = frozenset(
    {"type", "text", "image", "video", "image_url", "video_url", "path", "frames", "bytes"}
)
KNOWN_IN_ANSWERS = ("answer", "text")
"""Names that a key may be a misspelling of, by the object that it stands in: a row, a turn, a
block, one of `answers`."""
