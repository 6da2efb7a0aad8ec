"""Files on a disk that may be full, shared or cut off: whole or not there, one writer a folder."""
