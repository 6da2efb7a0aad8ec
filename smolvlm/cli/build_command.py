"""The options of `smolvlm build`, and which of them go together; nothing heavy is imported here."""

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.options import Json
from smolvlm.quiet import hide_progress_bars


def build(
    language: Annotated[
        str | None, typer.Option(help="A Llama's folder, a GGUF file, or a name.")
    ] = None,
    vision: Annotated[str | None, typer.Option(help="A vision tower's folder, or a name.")] = None,
    base: Annotated[
        str | None, typer.Option(help="A checkpoint to give more tokens, in place of parts.")
    ] = None,
    upgrade_tags: Annotated[
        bool, typer.Option("--upgrade-tags", help="Give --base the tags of cut pictures.")
    ] = False,
    add_token: Annotated[
        list[str] | None, typer.Option(help="A text that becomes one token of --base.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; new or empty.")] = None,
    tile_side_px: Annotated[
        int | None, typer.Option(help="Side of a tile; the tower's own by default.")
    ] = None,
    scale_factor: Annotated[
        int | None, typer.Option(help="Pixel shuffle: patches a side that become one.")
    ] = None,
    longest_edge_px: Annotated[
        int | None, typer.Option(help="What pictures are scaled to: 1 to 6 tiles.")
    ] = None,
    no_splitting: Annotated[
        bool, typer.Option("--no-splitting", help="Leave pictures whole: one tile each.")
    ] = False,
    vision_layers: Annotated[
        int | None, typer.Option(help="Layers kept of the tower, from the first.")
    ] = None,
    model_type: Annotated[str, typer.Option(help="smolvlm or idefics3.")] = "smolvlm",
    dtype: Annotated[
        str, typer.Option(help="What weights are saved in: float32, bfloat16, float16.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Of the connector and the new rows of embeddings.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cost card and write nothing.")
    ] = False,
    cards: Annotated[
        bool, typer.Option("--cards", help="Compare the published towers, without weights.")
    ] = False,
    measure: Annotated[int, typer.Option(help="Time a tile so many times on this machine.")] = 0,
    json: Json = False,
) -> None:
    """Build a model from parts, say what it would cost, or give a checkpoint more tokens."""
    if base is not None:
        if vision is not None or language is not None:
            raise typer.BadParameter(
                "--vision and --language build a new model; --base gives one more tokens"
            )
        _give_more_tokens(base, add_token, upgrades_tags=upgrade_tags, out=out)
        return
    if upgrade_tags or add_token:
        raise typer.BadParameter("give the checkpoint as --base")
    if not cards and (vision is None or language is None):
        raise typer.BadParameter("give --vision and --language, or --cards")
    if model_type not in ("smolvlm", "idefics3"):
        raise typer.BadParameter(f"--model-type is smolvlm or idefics3, not {model_type!r}")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"--dtype is float32, bfloat16 or float16, not {dtype!r}")
    hide_progress_bars()
    from smolvlm.build.build_plan import BuildRecipe
    from smolvlm.cli.build import refuse_without_out, run_build, run_cards

    if vision is None or language is None or cards:
        run_cards(language or "smollm2-360m", rounds=measure, as_json=json)
        return
    refuse_without_out(out, is_dry_run=dry_run)
    recipe = BuildRecipe(
        language=language,
        vision=vision,
        tile_side_px=tile_side_px,
        scale_factor=scale_factor,
        longest_edge_px=longest_edge_px,
        image_splitting=not no_splitting,
        vision_layers=vision_layers,
        model_type=model_type,
        seed=seed,
    )
    run_build(recipe, out=out, dtype=dtype, rounds=measure, as_json=json)


def _give_more_tokens(
    base: str, add_token: list[str] | None, *, upgrades_tags: bool, out: Path | None
) -> None:
    if out is None or upgrades_tags == bool(add_token):
        raise typer.BadParameter(
            "beside --base give --out, and either --upgrade-tags or --add-token"
        )
    hide_progress_bars()
    from smolvlm.cli.build import run_more_tokens

    run_more_tokens(base, add_token, out=out)
