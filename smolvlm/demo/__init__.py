"""A page to talk to a checkpoint with pictures and clips, the base's answers beside its own.

`talk.py` is the conversation, `uploads.py` what files may be, `guard.py` which requests are
answered; `page.py` alone knows gradio.
"""
