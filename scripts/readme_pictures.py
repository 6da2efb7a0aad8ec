"""`python scripts/readme_pictures.py runs/quickstart`: the README's pictures of two pages.

In: a finished run, and Chromium on the path. Out: `inspect_*.png` of rows about scikit-image's
photographs, and `report_*.png` of the run's page. Cut to what a README has room for.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
SCHEMES = {"dark": 0, "light": 1}
"""As Chromium numbers them."""
WIDTH_PX = 1000
INSPECT_PX = (595, 1055)
REPORT_PX = (0, 1150)
"""First row and the one behind the last."""
NUM_COLORS = 128
ROWS = (
    ("What stands on the saucer?", "A small cup of coffee."),
    ("What lies beside the cup?", "A spoon."),
)


def inspect_page(folder: Path) -> Path:
    """Write the page of two questions about one photograph."""
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg", quality=92)
    rows = [{"question": ask, "answer": say, "image": "coffee.jpg"} for ask, say in ROWS]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(
        "model: {path: embedded}\n"
        "data: {mixture: [{json_path: train.jsonl}], image_splitting: false}\n"
        "train: {output_dir: out}\n"
    )
    page = folder / "inspect.html"
    command = (sys.executable, "-m", "smolvlm", "inspect", "run.yaml", "--html", page.name)
    subprocess.run(command, cwd=folder, check=True)
    return page


def photograph(page: Path, name: str, rows_px: tuple[int, int]) -> None:
    """Write a page's light and dark pictures."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser is not None, "no Chromium on the path"
    for scheme, number in SCHEMES.items():
        file = FIGURES / f"{name}_{scheme}.png"
        subprocess.run(
            (
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                f"--blink-settings=preferredColorScheme={number}",
                f"--window-size={WIDTH_PX},{rows_px[1]}",
                f"--screenshot={file}",
                page.resolve().as_uri(),
            ),
            check=True,
            capture_output=True,
            timeout=120,
        )
        with Image.open(file) as picture:
            cut = picture.convert("RGB").crop((0, rows_px[0], WIDTH_PX, rows_px[1]))
        cut.quantize(NUM_COLORS).save(file, optimize=True)


def main() -> int:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        photograph(inspect_page(Path(folder)), "inspect", INSPECT_PX)
    photograph(Path(sys.argv[1]) / "report.html", "report", REPORT_PX)
    return 0


if __name__ == "__main__":
    sys.exit(main())
